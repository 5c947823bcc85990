//! The keys, credentials and bundles of the vectors. All of them follow from constants.

use bundle::builder::{BlockBuilder, Builder, SecretKey};
use bundle::{Coverage, ExpiryRange, Gap, InlineBundle, Scope, foreign_name};
use harness::fake_control_plane::{ISSUER, TestSigner};
use harness::tools;
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::BoxedUint;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Map, Value, json};
use sha2::{Sha256, Sha384, Sha512};
use std::collections::BTreeMap;
use token::api_key::{ApiKeyFields, Kind, MintingKey};
use token::{Algorithm, Fingerprint, VerifyingKey, base64url};
use verdict::permission::Permissions;

/// The time at which bundles are signed and hosts are configured: 2025-06-15.
pub(super) const CLOCK_MS: u64 = 1_750_000_000_000;
/// When credentials are issued: 2023-11-14.
pub(super) const ISSUED: u64 = 1_700_000_000;
/// When credentials expire: 2100-01-01.
pub(super) const EXPIRES: u64 = 4_102_444_800;
/// The instant of all watermarks, in seconds. Some tokens are issued after it.
pub(super) const WATERMARK: u64 = 1_720_000_000;
pub(super) const AFTER_WATERMARK: u64 = 1_730_000_000;
/// A gap of the issuance log.
pub(super) const IN_GAP: u64 = 1_650_000_000;
/// The last second that the base covers.
pub(super) const COVERED: u64 = 1_710_000_000;

pub(super) const IDP: &str = "https://idp.example.com";
/// An issuer with a single key, which has no `kid`.
pub(super) const LONE: &str = "https://lone.example.com";
/// An issuer without keys.
pub(super) const KEYLESS: &str = "https://keyless.example.com";
pub(super) const TENANTS: &str = "https://login.example.com/{tenant}/v2.0";
pub(super) const RFC9068: &str = "https://rfc9068.example.com";

const SECRET: &[u8] = &[3; 32];
const IDP_SECRET: &[u8] = &[13; 64];
const TAG_SECRET: &[u8; 32] = &[6; 32];

/// A key that signs tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    EdDsa,
    Hs256,
    Es256,
    Rs256,
    /// Keys of other issuers.
    IdpEdDsa,
    IdpHs256,
    IdpHs384,
    IdpHs512,
    IdpEs256,
    IdpRs256,
    IdpRs512,
    /// A second EdDSA key of the issuer.
    IdpOther,
    Lone,
    Tenants,
    Rfc9068,
    /// A key that is in no bundle.
    Foreign,
}

impl Key {
    pub(super) const fn kid(self) -> &'static str {
        match self {
            Self::EdDsa => "key-1",
            Self::Hs256 => "key-2",
            Self::Es256 => "key-3",
            Self::Rs256 => "key-4",
            Self::IdpEdDsa => "idp-ed",
            Self::IdpHs256 => "idp-hs256",
            Self::IdpHs384 => "idp-hs384",
            Self::IdpHs512 => "idp-hs512",
            Self::IdpEs256 => "idp-ec",
            Self::IdpRs256 => "idp-rsa",
            Self::IdpRs512 => "idp-rsa512",
            Self::IdpOther => "idp-ed-2",
            Self::Lone => "",
            Self::Tenants => "tenants",
            Self::Rfc9068 => "at",
            Self::Foreign => "key-9",
        }
    }

    pub(super) const fn algorithm(self) -> Algorithm {
        match self {
            Self::Hs256 | Self::IdpHs256 => Algorithm::Hs256,
            Self::IdpHs384 => Algorithm::Hs384,
            Self::IdpHs512 => Algorithm::Hs512,
            Self::Es256 | Self::IdpEs256 => Algorithm::Es256,
            Self::Rs256 | Self::IdpRs256 => Algorithm::Rs256,
            Self::IdpRs512 => Algorithm::Rs512,
            _ => Algorithm::EdDsa,
        }
    }

    /// Returns the issuer, or `None` for a key of this deployment.
    const fn issuer(self) -> Option<&'static str> {
        match self {
            Self::EdDsa | Self::Hs256 | Self::Es256 | Self::Rs256 | Self::Foreign => None,
            Self::Lone => Some(LONE),
            Self::Tenants => Some(TENANTS),
            Self::Rfc9068 => Some(RFC9068),
            _ => Some(IDP),
        }
    }

    const fn seed(self) -> u8 {
        match self {
            Self::EdDsa => 2,
            Self::IdpEdDsa => 12,
            Self::IdpOther => 14,
            Self::Lone => 15,
            Self::Tenants => 16,
            Self::Rfc9068 => 17,
            Self::Es256 => 4,
            Self::IdpEs256 => 18,
            _ => 99,
        }
    }

    fn sign(self, text: &[u8]) -> Vec<u8> {
        match self.algorithm() {
            Algorithm::Hs256 => hmac::<Hmac<Sha256>>(self.secret(), text),
            Algorithm::Hs384 => hmac::<Hmac<Sha384>>(self.secret(), text),
            Algorithm::Hs512 => hmac::<Hmac<Sha512>>(self.secret(), text),
            Algorithm::Es256 => {
                let signature: p256::ecdsa::Signature = self.p256().sign(text);
                signature.to_bytes().to_vec()
            }
            Algorithm::Rs256 => rsa::pkcs1v15::SigningKey::<Sha256>::new(self.rsa()).sign(text).to_vec(),
            Algorithm::Rs512 => rsa::pkcs1v15::SigningKey::<Sha512>::new(self.rsa()).sign(text).to_vec(),
            _ => {
                use ed25519_dalek::Signer as _;
                ed25519_dalek::SigningKey::from_bytes(&[self.seed(); 32]).sign(text).to_bytes().to_vec()
            }
        }
    }

    fn secret(self) -> &'static [u8] {
        if self.issuer().is_some() { IDP_SECRET } else { SECRET }
    }

    fn p256(self) -> p256::ecdsa::SigningKey {
        p256::ecdsa::SigningKey::from_slice(&[self.seed(); 32]).unwrap()
    }

    fn rsa(self) -> rsa::PrivateKey {
        let text = std::fs::read_to_string(tools::root().join("tests/data/keys.json")).unwrap();
        let keys: BTreeMap<String, Map<String, Value>> = serde_json::from_str(&text).unwrap();
        let members = &keys[if self.issuer().is_some() { "rsa-2" } else { "rsa-1" }];
        let number = |name: &str| {
            let bytes = base64url::decode(members[name].as_str().unwrap().as_bytes()).unwrap();
            BoxedUint::from_be_slice_vartime(&bytes)
        };
        rsa::PrivateKey::from_p_q(number("p"), number("q"), BoxedUint::from(65_537_u64)).unwrap()
    }

    /// Returns the key that verifies signatures; `None` for a symmetric key.
    fn verifying(self) -> Option<VerifyingKey> {
        let bytes = match self.algorithm() {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => return None,
            // The coordinates follow the byte of the uncompressed form.
            Algorithm::Es256 => self.p256().verifying_key().to_sec1_point(false).as_bytes()[1..].to_vec(),
            Algorithm::Rs256 | Algorithm::Rs512 => [&[0, 1, 0, 1], &*self.rsa().n_bytes()].concat(),
            _ => {
                ed25519_dalek::SigningKey::from_bytes(&[self.seed(); 32]).verifying_key().to_bytes().to_vec()
            }
        };
        Some(match self.issuer() {
            Some(issuer) => VerifyingKey::foreign(issuer, self.kid(), self.algorithm(), &bytes).unwrap(),
            None => VerifyingKey::local(self.kid(), self.algorithm(), &bytes).unwrap(),
        })
    }
}

fn hmac<M: Mac + KeyInit>(secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

const LOCAL: [Key; 4] = [Key::EdDsa, Key::Hs256, Key::Es256, Key::Rs256];
const OTHERS: [Key; 11] = [
    Key::IdpEdDsa,
    Key::IdpHs256,
    Key::IdpHs384,
    Key::IdpHs512,
    Key::IdpEs256,
    Key::IdpRs256,
    Key::IdpRs512,
    Key::IdpOther,
    Key::Lone,
    Key::Tenants,
    Key::Rfc9068,
];

/// Returns the claims of a token of this deployment, changed by the members of `change`; `null` removes one.
pub(super) fn claims(change: Value) -> Value {
    let claims = json!({
        "iss": ISSUER,
        "sub": "OP0000000001/alice",
        "aud": "api",
        "iat": ISSUED,
        "exp": EXPIRES,
        "jti": "00000000000000000000000000000001",
        "operator": { "operatorId": "OP0000000001" },
    });
    changed(claims, change)
}

/// Returns the claims of a token of [`IDP`], changed likewise.
pub(super) fn idp_claims(change: Value) -> Value {
    changed(json!({ "iss": IDP, "sub": "u-1", "aud": "orders", "iat": ISSUED, "exp": EXPIRES }), change)
}

pub(super) fn changed(mut from: Value, change: Value) -> Value {
    let members = from.as_object_mut().unwrap();
    let Value::Object(change) = change else { panic!("not an object: {change}") };
    for (name, value) in change {
        match value {
            Value::Null => members.remove(&name),
            value => members.insert(name, value),
        };
    }
    from
}

/// Returns a token with these claims and the usual header.
pub(super) fn token(key: Key, claims: &Value) -> String {
    token_with_header(key, json!({}), claims)
}

/// Returns a token whose header is changed by the members of `change`; `null` removes one.
pub(super) fn token_with_header(key: Key, change: Value, claims: &Value) -> String {
    let mut header = json!({ "alg": key.algorithm().name(), "typ": "JWT" });
    if !key.kid().is_empty() {
        header["kid"] = key.kid().into();
    }
    signed(key, &changed(header, change).to_string(), &claims.to_string())
}

/// Returns a token with this header and payload.
pub(super) fn signed(key: Key, header: &str, payload: &str) -> String {
    let text = [base64url::encode(header.as_bytes()), base64url::encode(payload.as_bytes())].join(".");
    let signature = key.sign(text.as_bytes());
    [text, base64url::encode(&signature)].join(".")
}

/// Returns a token of this deployment with a prefix.
pub(super) fn prefixed(prefix: &str, claims: &Value) -> String {
    let header = json!({ "alg": "EdDSA", "kid": Key::EdDsa.kid(), "prefix": prefix, "typ": "JWT" });
    [prefix, &signed(Key::EdDsa, &header.to_string(), &claims.to_string())].concat()
}

/// Returns the token with one bit of the signature flipped.
pub(super) fn with_flipped_bit(token: &str) -> String {
    let (text, signature) = token.rsplit_once('.').unwrap();
    let mut signature = base64url::decode(signature.as_bytes()).unwrap();
    let middle = signature.len() / 2;
    signature[middle] ^= 1;
    [text, &base64url::encode(&signature)].join(".")
}

/// Returns the token with the other valid ECDSA signature (r, n - s).
pub(super) fn with_other_s(token: &str) -> String {
    let (text, signature) = token.rsplit_once('.').unwrap();
    let signature = base64url::decode(signature.as_bytes()).unwrap();
    let signature = p256::ecdsa::Signature::from_slice(&signature).unwrap();
    let (r, s) = signature.split_scalars();
    let other = p256::ecdsa::Signature::from_scalars(r, -*s).unwrap();
    [text, &base64url::encode(&other.to_bytes())].join(".")
}

/// The fields of an API key of `OP0000000001`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ApiKey {
    pub(super) kind: Kind,
    pub(super) prefix: &'static str,
    pub(super) number: u64,
    pub(super) issued_at: u64,
    pub(super) expires_at: Option<u64>,
    pub(super) username: &'static str,
    pub(super) generation: u8,
}

impl ApiKey {
    pub(super) fn new(kind: Kind, number: u64, username: &'static str) -> Self {
        let expires_at = Some(EXPIRES);
        let generation = generation(kind);
        Self { kind, prefix: "ks_live_", number, issued_at: ISSUED, expires_at, username, generation }
    }

    pub(super) fn mint(self) -> String {
        let fields = ApiKeyFields {
            prefix: &self.prefix.parse().unwrap(),
            operator: "OP0000000001",
            number: self.number,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            random: [7; 4],
            username: self.username,
        };
        let key = MintingKey::new(self.generation, self.kind, TAG_SECRET).unwrap();
        key.mint(&fields).unwrap().expose().to_owned()
    }
}

const fn generation(kind: Kind) -> u8 {
    match kind {
        Kind::Format1 => 1,
        Kind::Signed => 2,
        Kind::Short => 3,
    }
}

/// Returns an API key with these digits and a valid checksum.
pub(super) fn with_checksum(text: &str) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut sum = !0_u32;
    for byte in text.bytes() {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 * (sum & 1));
        }
    }
    let digits: Vec<u8> = (0..6).rev().map(|at| ALPHABET[(!sum / 62_u32.pow(at) % 62) as usize]).collect();
    [text, std::str::from_utf8(&digits).unwrap()].concat()
}

/// The credentials that the main bundle revokes by fingerprint.
pub(super) fn revoked() -> BTreeMap<&'static str, String> {
    let with_id = |id: &str| claims(json!({ "jti": id }));
    let es256 = token(Key::Es256, &with_id("revoked-es256"));
    BTreeMap::from([
        ("eddsa_token", token(Key::EdDsa, &with_id("revoked-eddsa"))),
        ("hs256_token", token(Key::Hs256, &with_id("revoked-hs256"))),
        ("es256_token", es256),
        ("rs256_token", token(Key::Rs256, &with_id("revoked-rs256"))),
        ("prefixed_token", prefixed("kauth-", &with_id("revoked-kauth"))),
        ("token_of_other_issuer", token(Key::IdpEdDsa, &idp_claims(json!({ "jti": "revoked-idp" })))),
        ("api_key_of_format_1", ApiKey::new(Kind::Format1, 901, "OP0000000001/alice").mint()),
        ("api_key_of_format_2", ApiKey::new(Kind::Signed, 902, "").mint()),
        ("short_api_key", ApiKey::new(Kind::Short, 903, "alice").mint()),
    ])
}

/// A token that only the tail of the main bundle revokes.
pub(super) fn revoked_in_tail() -> String {
    token(Key::EdDsa, &claims(json!({ "jti": "revoked-in-tail" })))
}

/// A token that was revoked and un-revoked.
pub(super) fn unrevoked() -> String {
    token(Key::EdDsa, &claims(json!({ "jti": "un-revoked" })))
}

/// A token that was issued in the gap, and is known.
pub(super) fn known_in_gap() -> String {
    token(Key::EdDsa, &claims(json!({ "iat": IN_GAP, "jti": "known" })))
}

/// The grants of the main bundle: subject and statements.
fn grants() -> [(String, Value); 7] {
    let user = |name: &str| format!("OP0000000001/{name}");
    let statement = |effect: &str, api: Value| json!({ "effect": effect, "api": api });
    let with_condition = |condition: &str| json!({ "effect": "allow", "api": "*", "condition": condition });
    [
        (user("alice"), json!([statement("allow", json!("Sim:getSim"))])),
        (user("bob"), json!([statement("allow", json!("*")), statement("deny", json!(["Sim:delete*"]))])),
        (user("office"), json!([with_condition("ipAddress('203.0.113.0/24')")])),
        (user("own"), json!([with_condition("pathVariable('sim_id') == samUserName")])),
        (user("past"), json!([with_condition("currentDate < date(2020, 01, 01)")])),
        (user("nothing"), json!([])),
        (foreign_name(IDP, "u-1"), json!([statement("allow", json!("Sim:*"))])),
    ]
}

/// The watermarks of the main bundle, all at [`WATERMARK`].
fn watermarks() -> [(&'static str, String); 10] {
    let idp = |name: &str| foreign_name(IDP, name);
    [
        ("operator", "OP0000000002".into()),
        ("user", "OP0000000001/mallory".into()),
        ("user", idp("mallory")),
        ("auth_key", "keyId-9".into()),
        ("auth_key", "key-909".into()),
        ("session", "api-9".into()),
        ("issuer", "https://login.example.com/bad/v2.0".into()),
        ("client", idp("client-9")),
        ("issuer_session", idp("session-9")),
        ("token_id", idp("token-9")),
    ]
}

fn scope<'a>(kind: &str, id: &'a str) -> Scope<'a> {
    match kind {
        "operator" => Scope::Operator(id),
        "user" => Scope::User(id),
        "auth_key" => Scope::AuthKey(id),
        "session" => Scope::Session(id),
        "issuer" => Scope::Issuer(id),
        "client" => Scope::Client(id),
        "issuer_session" => Scope::IssuerSession(id),
        "token_id" => Scope::TokenId(id),
        other => panic!("{other}"),
    }
}

/// Returns the bundles by name.
pub(super) fn bundles() -> BTreeMap<String, String> {
    let mut bundles = BTreeMap::new();
    bundles.insert("main".into(), main_bundle());
    let mut global = with_keys();
    global.raise_watermark(1, Scope::Global, WATERMARK);
    bundles.insert("global".into(), export(&mut global, |_| ()));
    let mut signing_key = with_keys();
    for kid in [Key::EdDsa.kid(), "tag-1", &format!("{IDP}#{}", Key::IdpEdDsa.kid())] {
        signing_key.raise_watermark(1, Scope::SigningKey(kid), WATERMARK);
    }
    signing_key.raise_watermark(1, Scope::Issuer(TENANTS), WATERMARK);
    bundles.insert("keys".into(), export(&mut signing_key, |_| ()));
    bundles.insert("base".into(), base_bundle());
    bundles
}

fn with_keys() -> Builder {
    let public: Vec<VerifyingKey> = LOCAL.iter().chain(&OTHERS).filter_map(|key| key.verifying()).collect();
    let minting = |kind| MintingKey::new(generation(kind), kind, TAG_SECRET).unwrap();
    let mut builder = Builder::default();
    builder.set_public_keys(&public, [minting(Kind::Signed).generation_key()]).unwrap();
    let mut secrets: Vec<SecretKey<'_>> = vec![
        (Key::Hs256.kid(), SECRET).into(),
        SecretKey::Tag { generation: 1, secret: TAG_SECRET },
        SecretKey::ShortTag { generation: 3, secret: TAG_SECRET },
    ];
    secrets.extend([Key::IdpHs256, Key::IdpHs384, Key::IdpHs512].map(|key| SecretKey::Token {
        issuer: IDP,
        kid: key.kid(),
        algorithm: key.algorithm(),
        secret: IDP_SECRET,
    }));
    builder.set_secret_keys(secrets).unwrap();
    builder
}

fn main_bundle() -> String {
    let mut builder = with_keys();
    let mut number = 0;
    for credential in revoked().values().chain([&unrevoked()]) {
        number += 1;
        builder.revoke(number, Fingerprint::digest(credential.as_bytes())).unwrap();
    }
    builder.unrevoke(Fingerprint::digest(unrevoked().as_bytes())).unwrap();
    for (kind, id) in watermarks() {
        number += 1;
        builder.raise_watermark(number, scope(kind, &id), WATERMARK);
    }
    for (subject, statements) in grants() {
        let document = json!({ "statements": statements }).to_string();
        let permissions = Permissions::from_json(document.as_bytes()).unwrap();
        builder.set_grant(&subject, permissions.as_bytes()).unwrap();
    }
    let known = Fingerprint::digest(known_in_gap().as_bytes());
    builder.set_gaps(&[Gap { issued_after: IN_GAP - 60, issued_until: IN_GAP + 60 }], [known]).unwrap();
    export(&mut builder, |builder| {
        let number = number + 1;
        builder.revoke(number, Fingerprint::digest(revoked_in_tail().as_bytes())).unwrap();
        builder.raise_watermark(number + 1, Scope::Operator("OP0000000003"), WATERMARK);
    })
}

/// Returns a token that the base of the bundle `base` covers, by number. Those with an odd number are revoked there.
pub(super) fn in_base(number: u64) -> String {
    token(Key::EdDsa, &claims(json!({ "jti": format!("base-{number}") })))
}

/// The number of a token that the base revokes, and that was un-revoked after it.
pub(super) const UNREVOKED_IN_BASE: u64 = 9;

fn base_bundle() -> String {
    let mut builder = with_keys();
    let mut members: Vec<(Fingerprint, bool)> =
        (0..20).map(|number| (Fingerprint::digest(in_base(number).as_bytes()), number % 2 == 1)).collect();
    members.sort_by_key(|(fingerprint, _)| fingerprint.prefix());
    let expiry = ExpiryRange { expires_from: 0, expires_before: u64::MAX };
    let coverage = vec![Coverage { kid: Key::EdDsa.kid().into(), iat_low: 0, iat_high: COVERED }];
    let mut block = BlockBuilder::new(expiry, coverage, 10, 10, b"vectors").unwrap();
    for (fingerprint, is_revoked) in members {
        block.add(fingerprint, is_revoked).unwrap();
    }
    builder.install_block(block.finish().unwrap()).unwrap();
    builder.unrevoke(Fingerprint::digest(in_base(UNREVOKED_IN_BASE).as_bytes())).unwrap();
    export(&mut builder, |_| ())
}

/// Returns the signed bundle as text. `change` takes effect after the checkpoint, so that only the tail has it.
fn export(builder: &mut Builder, change: impl FnOnce(&mut Builder)) -> String {
    const VERSION: u64 = 1;
    let signer = TestSigner::new(1);
    builder.checkpoint(VERSION).unwrap();
    change(builder);
    let content = builder.build().unwrap();
    let checkpoint = signer.sign_checkpoint(&content, VERSION, CLOCK_MS, |_| ());
    let served = signer.sign_manifest(&content, &checkpoint, VERSION, CLOCK_MS, |_| ());
    InlineBundle::encode(&served.manifest, served.objects.values().map(Vec::as_slice)).unwrap()
}
