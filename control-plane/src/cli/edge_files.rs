//! What an Envoy needs to be an edge: a secret, where Envoy finds it, the cluster of the control plane, and the
//! configuration of the filter. Only the first is secret.

use std::{
    fs::DirBuilder,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{self, Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::Args;
use serde_json::Value;
use token::secret::Secret;

use super::Failure;
use crate::{
    home,
    operations::{CredentialFrom, EnrolledEdge},
};

/// Where the control plane is, as edges reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Whoever listens on every address is on this host as well.
    fn of(listen: SocketAddr) -> Self {
        let host = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { tls: false, host: host.to_string(), port: listen.port() }
    }

    fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected http://HOST:PORT or https://HOST[:PORT]");
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            (None, None) => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (rest, if tls { 443 } else { 80 }),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
        if host.is_empty() || !host.bytes().all(usual) {
            return Err(wrong());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

#[derive(Debug, Args)]
pub(super) struct Form {
    /// Write the files into this folder instead of printing them; the secret's is readable by its owner only
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Where the folder will be on the host of the edge; that of --out, else /etc/envoy/keystile
    #[arg(long, value_name = "FOLDER")]
    at: Option<PathBuf>,
    /// Where edges reach the control plane; http:// and `server.listen` without it
    #[arg(long, value_name = "URL")]
    control_plane: Option<Origin>,
    /// For hosts that add no credential: the filter reads it from this environment variable
    #[arg(long, value_name = "VARIABLE", conflicts_with = "inline", value_parser = variable)]
    env: Option<String>,
    /// For hosts that can do neither: the credential stands in the filter's configuration, where hosts show it
    #[arg(long)]
    inline: bool,
}

/// Name and content.
pub(super) type File = (&'static str, String);

impl Form {
    /// Makes the folder, if there is to be one, before anything is changed that could not be written there.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        let Some(folder) = &self.out else { return Ok(()) };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| at(folder, &error))?;
        let secrets = [CREDENTIAL, CREDENTIAL_ENV].map(|name| folder.join(name));
        if let Some(secret) = secrets.iter().find(|secret| secret.exists()) {
            return Err(Failure::Because(format!(
                "`{}` is there: take another folder, or remove it first",
                secret.display()
            )));
        }
        Ok(())
    }

    pub(super) fn credential_from(&self) -> CredentialFrom {
        match (&self.env, self.inline) {
            (Some(name), _) => CredentialFrom::Environment(name.clone()),
            (None, true) => CredentialFrom::Configuration,
            (None, false) => CredentialFrom::Host,
        }
    }

    pub(super) fn plugin_configuration(&self, edge: &EnrolledEdge) -> Value {
        let mut configuration = edge.plugin_configuration(&self.credential_from());
        if let Some(Origin { host, .. }) = &self.control_plane {
            configuration["control_plane"]["authority"] = Value::from(host.as_str());
        }
        configuration
    }

    /// Returns the files by name, the folder they were written into, and what is to be done with them.
    pub(super) fn files(&self, edge: &EnrolledEdge) -> Result<(Vec<File>, Option<PathBuf>), Failure> {
        let from = self.credential_from();
        let folder = match (&self.at, &self.out) {
            (Some(at), _) => at.clone(),
            (None, Some(out)) => path::absolute(out).map_err(|error| at(out, &error))?,
            (None, None) => PathBuf::from(ON_THE_EDGE),
        };
        let Some(folder) = folder.to_str().filter(|text| text.chars().all(|letter| !letter.is_control()))
        else {
            return Err(Failure::Because("expected a folder whose name is text".to_owned()));
        };
        let usual = Origin::of(edge.listen());
        let origin = self.control_plane.as_ref().unwrap_or(&usual);
        let idle = edge.idle_timeout();
        let mut files = Vec::new();
        match from {
            CredentialFrom::Host => {
                files.push((CREDENTIAL, header(&edge.credential)));
                files.push(("sds.yaml", sds(folder)));
                files.push(("cluster.yaml", cluster(origin, Some(folder), idle)));
            }
            CredentialFrom::Environment(ref name) => {
                files.push((CREDENTIAL_ENV, format!("{name}={}\n", edge.credential.expose())));
                files.push(("cluster.yaml", cluster(origin, None, idle)));
            }
            CredentialFrom::Configuration => files.push(("cluster.yaml", cluster(origin, None, idle))),
        }
        let configuration = self.plugin_configuration(edge);
        files.push(("filter.json", serde_json::to_string_pretty(&configuration)? + "\n"));
        if let Some(out) = &self.out {
            for (name, content) in &files {
                home::replace(&out.join(name), content.as_bytes()).map_err(|error| {
                    Failure::Because(format!(
                        "{}: `{}` is enrolled, but its files could not be written: {error}; \
                         `keystile edge remove` it and begin again",
                        out.join(name).display(),
                        edge.id
                    ))
                })?;
            }
        }
        Ok((files, self.out.clone()))
    }
}

/// What stands in the file of the secret: the value of the header that Envoy adds.
pub(super) fn header(credential: &Secret) -> String {
    format!("Bearer {}\n", credential.expose())
}

/// Puts a new secret in the place of an old one, in one step, as Envoy watches for it.
pub(super) fn replace_secret(folder: &Path, credential: &Secret) -> io::Result<PathBuf> {
    let file = folder.join(CREDENTIAL);
    home::replace(&file, header(credential).as_bytes())?;
    Ok(file)
}

fn variable(text: &str) -> Result<String, String> {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_well = text.starts_with(|first: char| !first.is_ascii_digit());
    if starts_well && text.len() <= 40 && text.bytes().all(usual) {
        Ok(text.to_owned())
    } else {
        Err("expected a name of at most 40 of A-Z a-z 0-9 _".to_owned())
    }
}

fn at(path: &Path, error: &io::Error) -> Failure {
    Failure::Because(format!("`{}`: {error}", path.display()))
}

/// A string as YAML and JSON write it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn sds(folder: &str) -> String {
    format!(
        r#"resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: keystile-edge
    generic_secret:
      secret: {{ filename: {} }}
"#,
        quoted(&format!("{folder}/{CREDENTIAL}"))
    )
}

fn cluster(origin: &Origin, folder: Option<&str>, idle: Duration) -> String {
    let Origin { tls, host, port } = origin;
    let kind = if origin.is_address() { "STATIC" } else { "STRICT_DNS" };
    let tls = if *tls { tls_socket(origin) } else { String::new() };
    let (idle, injector) = (idle.as_secs_f64(), folder.map(injector).unwrap_or_default());
    let host = quoted(host);
    format!(
        r#"# Under `static_resources.clusters`. Envoy must have a `node` with `id` and `cluster`, or takes no secrets from files.
- name: keystile
  connect_timeout: 1s
  type: {kind}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {{ http_protocol_options: {{}} }}
      # Shorter than `server.idle_timeout`, and than that of any proxy before the control plane.
      common_http_protocol_options: {{ idle_timeout: {idle}s }}
{injector}{tls}  load_assignment:
    cluster_name: keystile
    endpoints:
      - lb_endpoints:
          - endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }}
"#
    )
}

fn tls_socket(origin: &Origin) -> String {
    let host = quoted(&origin.host);
    let (sni, subject) = if origin.is_address() {
        let matcher = format!(
            "\n          match_typed_subject_alt_names: [{{ san_type: IP_ADDRESS, matcher: {{ exact: {host} }} }}]"
        );
        (String::new(), matcher)
    } else {
        (format!("\n      sni: {host}\n      auto_sni_san_validation: true"), String::new())
    };
    format!(
        r#"  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext{sni}
      common_tls_context:
        validation_context:
          trusted_ca: {{ filename: /etc/ssl/certs/ca-certificates.crt }}{subject}
"#
    )
}

fn injector(folder: &str) -> String {
    let (sds, folder) = (quoted(&format!("{folder}/sds.yaml")), quoted(folder));
    format!(
        r#"      http_filters:
        - name: envoy.filters.http.credential_injector
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector
            overwrite: true
            allow_request_without_credential: false
            credential:
              name: envoy.http.injected_credentials.generic
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic
                header: authorization
                credential:
                  name: keystile-edge
                  sds_config:
                    path_config_source:
                      path: {sds}
                      watched_directory: {{ path: {folder} }}
        - name: envoy.filters.http.upstream_codec
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec
"#
    )
}

/// The file of the secret, for a host that adds it.
pub(super) const CREDENTIAL: &str = "credential";

/// The same as an environment file.
const CREDENTIAL_ENV: &str = "credential.env";

const ON_THE_EDGE: &str = "/etc/envoy/keystile";
