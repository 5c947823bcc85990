//! Tokens of products in wide use are admitted with the settings that an operator writes for them. tests/data/issuers has
//! a file for each product: its discovery document, its key set and a token in the form that its public documentation
//! shows, with keys and values of our own. A token for another audience, tenant or purpose, or with a key of another
//! product, is refused.

use anyhow::{Result, ensure};
use harness::envoy::Settings;
use harness::{
    Connection, ControlPlane, DocumentServer, Envoy, Scratch, Store, Upstream, client, eventually, tools,
};
use p256::ecdsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::BoxedUint;
use rsa::traits::PublicKeyParts as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use token::base64url;

#[tokio::test]
async fn tokens_of_products_are_admitted_with_documented_settings() {
    let scratch = Scratch::new().unwrap();
    let issuer_server = scratch.address(8090);
    let keys = TestKeys::load();
    let products = load_products(issuer_server, &keys);
    assert!(products.len() >= 30, "{} products", products.len());

    let mut documents = BTreeMap::new();
    for Document { url, document } in
        products.iter().flat_map(|product| product.discovery.iter().chain([&product.keys]))
    {
        let path = url.strip_prefix(&format!("http://{issuer_server}")).unwrap().to_owned();
        assert!(documents.insert(path, document.to_string()).is_none(), "two documents at {url}");
    }
    let paths: BTreeSet<String> = documents.keys().cloned().collect();
    let server = DocumentServer::start(issuer_server, documents).await.unwrap();
    let mut edge = Edge::start(scratch, &products).await;
    let mut failures = edge.key_set_failures(&products);

    for product in &products {
        for worker in &mut edge.workers {
            let Product { name, token, refused, .. } = product;
            let signed = keys.sign(&token.key, &token.header, &token.claims);
            if let Err(error) = expect_identity(worker, &signed, product).await {
                failures.push(format!("{name}: {error:#}"));
            }
            let mut claims = token.claims.clone();
            claims.extend(refused.claims.clone());
            let signed = keys.sign(&token.key, &token.header, &claims);
            if let Err(error) = expect_refusal(worker, &signed, refused.status, &refused.code).await {
                failures.push(format!("{name}, {}: {error:#}", refused.what));
            }
            // The `kid` is that of the product, so that only the signature is wrong.
            let foreign = keys.key_of_another_product(product);
            let signed = keys.sign(&foreign, &token.header, &token.claims);
            if let Err(error) = expect_refusal(worker, &signed, 401, "token_signature_invalid").await {
                failures.push(format!("{name}, the key of another product: {error:#}"));
            }
        }
    }

    // What a token points to (`jku`) is not fetched: the control plane has requested what the settings name.
    let requested: BTreeSet<String> = server.requested().into_iter().collect();
    let discoverable = |product: &&Product| product.control_plane.get("jwks_url").is_none();
    let discovered = products.iter().filter(discoverable).filter_map(|product| product.discovery.as_ref());
    let sets = products.iter().map(|product| &product.keys);
    let expected: BTreeSet<String> = discovered.chain(sets).map(|document| path_of(&document.url)).collect();
    assert!(expected.is_subset(&paths));
    if requested != expected {
        failures
            .push(format!("requested: {:?}", requested.symmetric_difference(&expected).collect::<Vec<_>>()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The page shows the settings with which the test above passes. `KEYSTILE_UPDATE=1` rewrites it.
#[test]
fn page_of_products_matches_their_files() {
    let page = products_page();
    let path = tools::root().join("docs/products.md");
    if std::env::var_os("KEYSTILE_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/products.md is not current: run this test with KEYSTILE_UPDATE=1");
}

const INTRODUCTION: &str = "\
# Settings for the issuers of products

Each section has the member of [`issuers`](../verdict/POLICY.md#a-member-of-issuers) in the policy of the filter (JSON), and the section of the control plane's settings with which it fetches the keys (TOML). The values are examples: replace the issuer, the audiences and the claims with yours. `required_claims` distinguish the tokens from others of the same product or of another tenant, where the audience does not.

`tests/data/issuers` has the key set, the discovery document and a token of each product, in the form that the sources show. A test admits these tokens with these settings in a real Envoy, and refuses a token for another audience, tenant or purpose, and one that is signed with a key of another product.
";

fn products_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for file in product_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let product: Product = serde_json::from_str(&text).unwrap();
        let mut settings = json!({ "issuers": [product.policy] });
        merge(&mut settings, &product.filter);
        page += &format!(
            "\n## {}\n\n```json\n{settings:#}\n```\n\n```toml\n{}```\n\nSources: {}.\n",
            product.title,
            issuer_section(&product),
            product.sources.iter().map(|source| format!("<{}>", source.url)).collect::<Vec<_>>().join(", ")
        );
    }
    page
}

/// A control plane that has the keys of all products, and an Envoy that has its bundle.
struct Edge {
    workers: Vec<Connection>,
    _envoy: Envoy,
    control_plane: ControlPlane,
    _upstream: Upstream,
    _scratch: Scratch,
}

impl Edge {
    async fn start(scratch: Scratch, products: &[Product]) -> Self {
        let settings = scratch.folder().join("keystile.toml");
        std::fs::write(&settings, products.iter().map(issuer_section).collect::<String>()).unwrap();
        let environment = [("KEYSTILE_CONFIG", settings.display().to_string())];
        let control_plane = ControlPlane::start(&scratch, Store::Sqlite, &environment).await.unwrap();
        eventually("every key set is fetched or refused", async || {
            let issuers = control_plane.cli(["issuer", "list"])?;
            let is_done = |issuer: &Value| !issuer["fetched_at"].is_null() || !issuer["error"].is_null();
            ensure!(issuers.as_array().is_some_and(|issuers| issuers.iter().all(is_done)), "{issuers}");
            Ok(())
        })
        .await;
        let upstream = Upstream::start(scratch.address(8081)).await.unwrap();
        let files = scratch.folder().join("edge");
        let mut filter = control_plane.enroll_into("edge", &files).unwrap().plugin_configuration;
        filter["issuers"] = products.iter().map(|product| product.policy.clone()).collect();
        for product in products {
            merge(&mut filter, &product.filter);
        }
        let mut settings = Settings::for_scratch(&scratch, filter).unwrap();
        (settings.edge_files, settings.workers) = (Some(files), 1);
        let envoy = Envoy::start(settings, scratch.folder()).await.unwrap();
        // The first bundle has the keys, as they are older than the edge.
        let own = control_plane.token().await.unwrap();
        let workers = envoy.wait_admitting(&own).await.unwrap();
        Self { workers, _envoy: envoy, control_plane, _upstream: upstream, _scratch: scratch }
    }

    /// Returns which key sets were refused.
    fn key_set_failures(&self, products: &[Product]) -> Vec<String> {
        let issuers = self.control_plane.cli(["issuer", "list"]).unwrap();
        let mut failures = Vec::new();
        for product in products {
            let name = product.policy["issuer"].as_str();
            let listed = issuers.as_array().unwrap().iter().find(|listed| listed["issuer"].as_str() == name);
            let error = listed.unwrap()["error"].as_str();
            if error.is_some() {
                failures.push(format!("{}, key set: {error:?}", product.name));
            }
        }
        failures
    }
}

async fn expect_identity(worker: &mut Connection, token: &str, product: &Product) -> Result<()> {
    let response = worker.get(token).await?;
    ensure!(response.status == 200, "{} {}", response.status, response.code());
    let echo = response.json()?;
    let headers = product.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (header, expected) in headers.chain([
        ("x-keystile-subject", product.subject_header.as_ref().unwrap_or(&product.subject).as_str()),
        ("x-keystile-issuer", product.token.claims["iss"].as_str().unwrap()),
    ]) {
        ensure!(echo["headers"][header] == json!([expected]), "{header}: {}", echo["headers"][header]);
    }
    ensure!(!echo.to_string().contains(token), "the credential reached the upstream");
    Ok(())
}

async fn expect_refusal(worker: &mut Connection, token: &str, status: u16, code: &str) -> Result<()> {
    let response = worker.send(client::bearer(token)).await?;
    ensure!(
        (response.status, response.code().as_str()) == (status, code),
        "{} {} instead of {status} {code}",
        response.status,
        response.code()
    );
    Ok(())
}

/// A file of tests/data/issuers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Product {
    #[serde(skip)]
    name: String,
    #[serde(rename = "product")]
    title: String,
    /// Which public pages show what.
    sources: Vec<Source>,
    /// What no page of `sources` shows.
    #[serde(rename = "general_knowledge")]
    _general_knowledge: String,
    discovery: Option<Document>,
    keys: Document,
    token: Token,
    /// The member of `issuers` in the policy.
    policy: Value,
    /// The section `[[issuers]]` in the settings of the control plane.
    control_plane: Map<String, Value>,
    /// Further members of the configuration of the filter.
    #[serde(default)]
    filter: Value,
    subject: String,
    /// The header with the subject, if a header cannot contain it as it is.
    subject_header: Option<String>,
    /// Further headers that the upstream gets.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    refused: Refused,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    url: String,
    shows: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    url: String,
    document: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// The name of the signing key in [`TestKeys`].
    key: String,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

/// Claims that replace those of the token, and how the result is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    what: String,
    claims: Map<String, Value>,
    status: u16,
    code: String,
}

/// Reads the products. Their https URLs become URLs of `issuer_server`, whose path begins with the host.
fn load_products(issuer_server: SocketAddr, keys: &TestKeys) -> Vec<Product> {
    let origin = format!("http://{issuer_server}/");
    let elapsed = harness::fake_control_plane::now_ms() / 1000 - WRITTEN_AT;
    product_files().iter().map(|file| read_product(file, &origin, elapsed, keys)).collect()
}

fn product_files() -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(data("issuers")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn read_product(file: &Path, origin: &str, elapsed: u64, keys: &TestKeys) -> Product {
    let text = std::fs::read_to_string(file).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let sources = value["sources"].take();
    replace_texts(&mut value, &|text| keys.resolve(text).unwrap_or_else(|| text.replace("https://", origin)));
    value["sources"] = sources;
    let mut product: Product =
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    product.name = file.file_stem().unwrap().to_str().unwrap().to_owned();
    assert!(
        product.sources.iter().all(|source| source.url.starts_with("https://") && !source.shows.is_empty())
    );
    assert!(!product.sources.is_empty(), "{} cites no source", product.name);
    for name in ["iat", "nbf", "exp", "auth_time"] {
        if let Some(Value::Number(at)) = product.token.claims.get_mut(name) {
            *at = (at.as_u64().unwrap() + elapsed).into();
        }
    }
    product
}

/// The instant to which the times in the files refer: 1 December 2025.
const WRITTEN_AT: u64 = 1_764_547_200;

fn replace_texts(value: &mut Value, replace: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = replace(text),
        Value::Array(values) => values.iter_mut().for_each(|value| replace_texts(value, replace)),
        Value::Object(members) => members.values_mut().for_each(|value| replace_texts(value, replace)),
        _ => {}
    }
}

/// Returns the section in the settings of the control plane.
fn issuer_section(product: &Product) -> String {
    // JSON texts, numbers and arrays of them are TOML.
    let members = product.control_plane.iter().map(|(name, value)| format!("{name} = {value}\n"));
    format!("[[issuers]]\n{}", members.collect::<String>())
}

/// Adds the members of `from` to those of `to`.
fn merge(to: &mut Value, from: &Value) {
    match (to, from) {
        (to @ (Value::Object(_) | Value::Null), Value::Object(members)) => {
            members.iter().for_each(|(name, value)| merge(&mut to[name], value));
        }
        (_, Value::Null) => {}
        (to, from) => *to = from.clone(),
    }
}

fn path_of(url: &str) -> String {
    url.parse::<hyper::Uri>().unwrap().path().to_owned()
}

fn data(name: &str) -> PathBuf {
    tools::root().join("tests/data").join(name)
}

/// The keys of this test: RSA keys from tests/data/keys.json, and P-256 keys that follow from their names.
struct TestKeys {
    rsa: BTreeMap<String, rsa::PrivateKey>,
    /// The members of public keys that are not used for signing.
    public: BTreeMap<String, Map<String, Value>>,
}

impl TestKeys {
    fn load() -> Self {
        let text = std::fs::read_to_string(data("keys.json")).unwrap();
        let stored: BTreeMap<String, Map<String, Value>> = serde_json::from_str(&text).unwrap();
        let (private, public): (BTreeMap<_, _>, _) =
            stored.into_iter().partition(|(_, members)| members.contains_key("p"));
        let number = |text: &Value| {
            let bytes = base64url::decode(text.as_str().unwrap().as_bytes()).unwrap();
            BoxedUint::from_be_slice_vartime(&bytes)
        };
        let key = |members: &Map<String, Value>| {
            let (p, q) = (number(&members["p"]), number(&members["q"]));
            rsa::PrivateKey::from_p_q(p, q, BoxedUint::from(65_537_u64)).unwrap()
        };
        Self { rsa: private.iter().map(|(name, members)| (name.clone(), key(members))).collect(), public }
    }

    /// Returns the value of a placeholder such as `{rsa-1.n}`.
    fn resolve(&self, text: &str) -> Option<String> {
        let (key, member) = text.strip_prefix('{')?.strip_suffix('}')?.split_once('.')?;
        let digest = Sha256::digest(key);
        match member {
            // Of a certificate only the form matters, as nothing reads it.
            "x5c" => return Some(standard_base64(key)),
            "pem" => {
                return Some(format!(
                    "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----",
                    standard_base64(key)
                ));
            }
            "x5t" => return Some(base64url::encode(&digest[..20])),
            "x5t#S256" => return Some(base64url::encode(&digest)),
            _ => {}
        }
        if let Some(members) = self.public.get(key) {
            return members[member].as_str().map(str::to_owned);
        }
        if let Some(key) = self.rsa.get(key) {
            return (member == "n").then(|| base64url::encode(&key.n_bytes()));
        }
        let point = p256_point(key);
        let (x, y) = point.split_at(32);
        match member {
            "x" => Some(base64url::encode(x)),
            "y" => Some(base64url::encode(y)),
            _ => None,
        }
    }

    /// Returns a key of the same kind that is not in the key set of the product.
    fn key_of_another_product(&self, product: &Product) -> String {
        let kind = product.token.key.split('-').next().unwrap();
        let set = product.keys.document.to_string();
        let member = if kind == "rsa" { "n" } else { "x" };
        let is_foreign = |key: &String| !set.contains(&self.resolve(&format!("{{{key}.{member}}}")).unwrap());
        (1..=4).map(|number| format!("{kind}-{number}")).find(is_foreign).unwrap()
    }

    fn sign(&self, key: &str, header: &Map<String, Value>, claims: &Map<String, Value>) -> String {
        let segment = |members| base64url::encode(&serde_json::to_vec(members).unwrap());
        let signed = format!("{}.{}", segment(header), segment(claims));
        let signature = match (header["alg"].as_str().unwrap(), self.rsa.get(key)) {
            ("RS256", Some(key)) => {
                rsa::pkcs1v15::SigningKey::<Sha256>::new(key.clone()).sign(signed.as_bytes()).to_vec()
            }
            ("RS512", Some(key)) => {
                rsa::pkcs1v15::SigningKey::<Sha512>::new(key.clone()).sign(signed.as_bytes()).to_vec()
            }
            ("ES256", None) => {
                let signature: p256::ecdsa::Signature = p256_key(key).sign(signed.as_bytes());
                signature.to_vec()
            }
            (algorithm, _) => panic!("{algorithm} with {key}"),
        };
        format!("{signed}.{}", base64url::encode(&signature))
    }
}

fn p256_key(name: &str) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&Sha256::digest(name)).unwrap()
}

/// Returns x and y.
fn p256_point(name: &str) -> Vec<u8> {
    p256_key(name).verifying_key().to_sec1_point(false).as_bytes()[1..].to_vec()
}

/// Returns the base64 of RFC 4648 section 4 of some bytes that follow from the name.
fn standard_base64(name: &str) -> String {
    let bytes: Vec<u8> = Sha256::digest(name).into_iter().cycle().take(766).collect();
    base64url::encode(&bytes).replace('-', "+").replace('_', "/") + "=="
}
