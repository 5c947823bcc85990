//! The files that Envoy needs as an edge: the credential, the SDS configuration that refers to it, the cluster of the
//! control plane, and the configuration of the filter. Only the credential is secret.

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

use super::CliError;
use crate::{
    edges::{CredentialSource, EnrolledEdge},
    platform::data_dir,
};

/// The credential file, for a host that adds the credential.
pub(super) const CREDENTIAL: &str = "credential";

/// The credential as an environment file.
const CREDENTIAL_ENV: &str = "credential.env";

/// The default folder on the host of the edge.
const DEFAULT_EDGE_FOLDER: &str = "/etc/envoy/keystile";

/// The URL at which edges reach the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Returns the origin for a listen address. An unspecified address becomes the loopback address.
    fn from_listen_address(listen: SocketAddr) -> Self {
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
        let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
        if host.is_empty() || !host.bytes().all(is_host_byte) {
            return Err(wrong());
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

#[derive(Debug, Args)]
pub(super) struct Form {
    /// Write the files into this folder instead of printing them; only the owner can read the secret
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The path of the folder on the host of the edge; by default that of --out, else /etc/envoy/keystile
    #[arg(long, value_name = "FOLDER")]
    at: Option<PathBuf>,
    /// The URL at which edges reach the control plane; by default http:// and `server.listen`
    #[arg(long, value_name = "URL")]
    control_plane: Option<Origin>,
    /// Have the filter read the credential from this environment variable, for hosts that cannot add it
    #[arg(long, value_name = "VARIABLE", conflicts_with = "inline", value_parser = parse_variable)]
    env: Option<String>,
    /// Put the credential into the filter's configuration, which hosts may show, for hosts that can do neither
    #[arg(long)]
    inline: bool,
}

/// The name and content of a file.
pub(super) type File = (&'static str, String);

impl Form {
    /// Creates the folder before the edge is enrolled, so that an unwritable folder fails early.
    pub(super) fn prepare(&self) -> Result<(), CliError> {
        let Some(folder) = &self.out else { return Ok(()) };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| file_error(folder, &error))?;
        let secrets = [CREDENTIAL, CREDENTIAL_ENV].map(|name| folder.join(name));
        if let Some(secret) = secrets.iter().find(|secret| secret.exists()) {
            return Err(CliError::Message(format!(
                "`{}` exists: choose another folder, or remove the file first",
                secret.display()
            )));
        }
        Ok(())
    }

    pub(super) fn credential_from(&self) -> CredentialSource {
        match (&self.env, self.inline) {
            (Some(name), _) => CredentialSource::Environment(name.clone()),
            (None, true) => CredentialSource::Configuration,
            (None, false) => CredentialSource::Host,
        }
    }

    pub(super) fn plugin_configuration(&self, edge: &EnrolledEdge) -> Value {
        let mut configuration = edge.plugin_configuration(&self.credential_from());
        if let Some(Origin { host, .. }) = &self.control_plane {
            configuration["control_plane"]["authority"] = Value::from(host.as_str());
        }
        configuration
    }

    /// Writes the files if there is a folder. Returns the files and the folder they were written into.
    pub(super) fn files(&self, edge: &EnrolledEdge) -> Result<(Vec<File>, Option<PathBuf>), CliError> {
        let from = self.credential_from();
        let folder = match (&self.at, &self.out) {
            (Some(at), _) => at.clone(),
            (None, Some(out)) => path::absolute(out).map_err(|error| file_error(out, &error))?,
            (None, None) => PathBuf::from(DEFAULT_EDGE_FOLDER),
        };
        let Some(folder) = folder.to_str().filter(|text| text.chars().all(|letter| !letter.is_control()))
        else {
            return Err(CliError::Message(
                "the folder name must be valid text without control characters".to_owned(),
            ));
        };
        let default = Origin::from_listen_address(edge.listen());
        let origin = self.control_plane.as_ref().unwrap_or(&default);
        let idle = edge.idle_timeout();
        let mut files = Vec::new();
        match from {
            CredentialSource::Host => {
                files.push((CREDENTIAL, header(&edge.credential)));
                files.push(("sds.yaml", sds(folder)));
                files.push(("cluster.yaml", cluster(origin, Some(folder), idle)));
            }
            CredentialSource::Environment(ref name) => {
                files.push((CREDENTIAL_ENV, format!("{name}={}\n", edge.credential.expose())));
                files.push(("cluster.yaml", cluster(origin, None, idle)));
            }
            CredentialSource::Configuration => files.push(("cluster.yaml", cluster(origin, None, idle))),
        }
        let configuration = self.plugin_configuration(edge);
        files.push(("filter.json", serde_json::to_string_pretty(&configuration)? + "\n"));
        if let Some(out) = &self.out {
            for (name, content) in &files {
                data_dir::replace_atomically(&out.join(name), content.as_bytes()).map_err(|error| {
                    CliError::Message(format!(
                        "{}: `{}` is enrolled, but its files cannot be written: {error}; run `keystile edge remove` and enroll it \
                         again",
                        out.join(name).display(),
                        edge.id
                    ))
                })?;
            }
        }
        Ok((files, self.out.clone()))
    }
}

/// Returns the content of the credential file: the header value that Envoy adds.
pub(super) fn header(credential: &Secret) -> String {
    format!("Bearer {}\n", credential.expose())
}

/// Replaces the credential file atomically, as Envoy's file watcher requires.
pub(super) fn replace_secret(folder: &Path, credential: &Secret) -> io::Result<PathBuf> {
    let file = folder.join(CREDENTIAL);
    data_dir::replace_atomically(&file, header(credential).as_bytes())?;
    Ok(file)
}

fn parse_variable(text: &str) -> Result<String, String> {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_well = text.starts_with(|first: char| !first.is_ascii_digit());
    if starts_well && text.len() <= 40 && text.bytes().all(is_name_byte) {
        Ok(text.to_owned())
    } else {
        Err("expected at most 40 characters of A-Z a-z 0-9 _, not starting with a digit".to_owned())
    }
}

fn file_error(path: &Path, error: &io::Error) -> CliError {
    CliError::Message(format!("`{}`: {error}", path.display()))
}

/// Quotes a string for YAML and JSON.
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
        r#"# Under `static_resources.clusters`. Envoy needs a `node` with `id` and `cluster`, or it reads no secrets from files.
- name: keystile
  connect_timeout: 1s
  type: {kind}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {{ http_protocol_options: {{}} }}
      # Shorter than `server.idle_timeout` and the idle timeout of any proxy in front of the control plane.
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
