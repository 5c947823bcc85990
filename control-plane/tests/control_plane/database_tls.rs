//! TLS to PostgreSQL. The server of the tests accepts nothing else.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
};

use crate::{
    certificates::Authority,
    postgres::{self, CERTIFIED_USER},
    test_env::TestEnv,
};

/// Returns the URL of the database of an environment with other parameters.
fn url(env: &TestEnv, user: &str, host: &str, parameters: &str) -> String {
    let port = postgres::port();
    format!("postgres://{user}@{host}:{port}/{}?{parameters}", postgres::name(&env.url))
}

/// Returns the error of a command with this URL, or an empty text.
fn error(env: &TestEnv, url: &str, trusted_by_system: &Path) -> String {
    let mut command = env.command(&["audit"]);
    command.env("KEYSTILE_STORE__URL", url).env("SSL_CERT_FILE", trusted_by_system);
    let output = command.env_remove("SSL_CERT_DIR").output().unwrap();
    if output.status.success() { String::new() } else { String::from_utf8(output.stderr).unwrap() }
}

#[tokio::test]
async fn database_connection_is_verified_as_sslmode_demands() {
    let env = TestEnv::on_postgres().await;
    let authority = &postgres::authority_file();
    let foreign = env.write_file("foreign.pem", &Authority::new("another authority").pem);
    let expected = [
        ("localhost", "sslmode=disable".to_owned(), "no encryption"),
        ("localhost", "sslmode=prefer".to_owned(), ""),
        ("localhost", "sslmode=require".to_owned(), ""),
        ("127.0.0.1", "sslmode=require".to_owned(), ""),
        ("localhost", String::new(), ""),
        ("localhost", format!("sslmode=verify-full&sslrootcert={authority}"), ""),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={authority}"), "not valid for name"),
        ("localhost", format!("sslmode=verify-full&sslrootcert={foreign}"), "UnknownIssuer"),
        ("localhost", "sslmode=verify-full".to_owned(), "UnknownIssuer"),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={foreign}"), "UnknownIssuer"),
        // The system trusts an authority that may have issued certificates to others.
        ("localhost", format!("sslmode=verify-ca&sslrootcert={authority}"), "SSL_CERT_FILE"),
        ("localhost", format!("sslmode=require&sslrootcert={authority}"), "`sslrootcert` is not used"),
        ("localhost", "sslmod=verify-full".to_owned(), "did you mean `sslmode`?"),
    ];
    for (host, parameters, text) in expected {
        let found = error(&env, &url(&env, "keystile", host, &parameters), Path::new(&foreign));
        assert_eq!(found.is_empty(), text.is_empty(), "{host} {parameters}: {found}");
        assert!(found.contains(text), "{host} {parameters}: {found}");
        assert!(found.trim_end().lines().count() <= 1, "{found}");
    }
    // `verify-ca` accepts any name, of this authority alone.
    let by_address =
        url(&env, "keystile", "127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={authority}"));
    assert_eq!(error(&env, &by_address, Path::new(authority)), "");
}

#[tokio::test]
async fn client_certificate_is_presented() {
    let env = TestEnv::on_postgres().await;
    let authority = &postgres::authority_file();
    let verified = format!("sslmode=verify-full&sslrootcert={authority}");
    let refused = error(&env, &url(&env, CERTIFIED_USER, "localhost", &verified), Path::new(authority));
    assert!(refused.contains("certificate"), "{refused}");
    for (name, is_accepted) in [(CERTIFIED_USER, true), ("another", false)] {
        let certificate = postgres::client_certificate(name);
        let (file, key) =
            (env.write_file("client.pem", &certificate.pem), env.write_file("client.key", &certificate.key));
        let parameters = format!("{verified}&sslcert={file}&sslkey={key}");
        let url = url(&env, CERTIFIED_USER, "localhost", &parameters);
        let found = error(&env, &url, Path::new(authority));
        assert_eq!(found.is_empty(), is_accepted, "{name}: {found}");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let found = error(&env, &url, Path::new(authority));
        assert!(found.contains("accessible to group or others"), "{found}");
    }
}

/// A server, or an attacker in front of it, that refuses TLS does not learn the name of the user.
#[tokio::test]
async fn nothing_is_sent_to_server_that_refuses_tls() {
    let env = TestEnv::on_sqlite().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        client.read_exact(&mut request).unwrap();
        client.write_all(b"N").unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        (request, rest)
    });
    let url = format!("postgres://keystile:hunter2@127.0.0.1:{port}/keystile?sslmode=require");
    let found = error(&env, &url, Path::new("/dev/null"));
    assert!(found.contains("does not support TLS"), "{found}");
    // SSLRequest: its length and code.
    assert_eq!(server.join().unwrap(), ([0, 0, 0, 8, 4, 210, 22, 47], Vec::new()));
}
