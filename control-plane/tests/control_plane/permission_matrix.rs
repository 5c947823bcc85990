//! Every operation of the own API, called by every kind of caller. The operations are those of `openapi.json`: one
//! without an expectation here fails the test.

use std::{collections::BTreeMap, path::Path};

use control_plane::{
    accounts::set_permission,
    credentials::{
        auth_keys::create_auth_key,
        tokens::{Lifetime, TokenRecipient, issue_token},
    },
    domain::{Actor, Subject},
    revocation::{AccessScope, RevocationTarget, revoke},
    service::Service,
};
use serde_json::{Value, json};
use token::Fingerprint;

use crate::{
    for_each_backend,
    test_env::{Server, TestEnv, eventually, json_text},
};

/// The kinds of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    Root,
    /// A user without any permission.
    Nobody,
    /// A user with exactly the permission of the operation.
    Exact,
    /// A user with `*`.
    Star,
    /// The same, with the token in Soracom's headers.
    StarBySoracom,
    /// A user with `*`, and a deny of the operation.
    Denied,
    DeniedBySoracom,
    /// A user with `*`, and a deny of the operation in a role.
    DeniedByRole,
    ForeignRoot,
    /// A user of another operator with `*`.
    ForeignStar,
    Revoked,
    /// A token with an unknown key.
    Forged,
    Anonymous,
    Expired,
}

use Caller::*;

const USERS_OF_OURS: [Caller; 5] = [Nobody, Exact, Star, Denied, DeniedByRole];

/// All callers. The last one must wait until its token expires.
const CALLERS: [Caller; 14] = [
    Root,
    Nobody,
    Exact,
    Star,
    StarBySoracom,
    Denied,
    DeniedBySoracom,
    DeniedByRole,
    ForeignRoot,
    ForeignStar,
    Revoked,
    Forged,
    Anonymous,
    Expired,
];

/// The expected response of an operation for each kind of caller.
#[derive(Clone, Copy)]
enum Expected {
    /// The same for every caller, with or without a token.
    Open(u16),
    /// Refused for every token, because only edges may call it.
    EdgesOnly,
    /// For every caller with a valid token.
    AnyToken(u16),
    /// For the root user and for users with the permission.
    Granted(u16),
    /// Only for the root user. Users with the permission get 403 `root_only`.
    RootOnly(u16),
}

impl Expected {
    /// The status and the code of the response.
    fn status_and_code(self, caller: Caller) -> (u16, &'static str) {
        let refused = match caller {
            Revoked => Some((401, "revoked")),
            Forged => Some((401, "token_key_unknown")),
            Anonymous => Some((401, "credential_missing")),
            Expired => Some((401, "token_expired")),
            _ => None,
        };
        let denied = (403, "permission_denied");
        match (self, caller) {
            (Self::Open(status), _) => (status, ""),
            (Self::EdgesOnly, _) => (401, "edge_credential_refused"),
            (_, Revoked | Forged | Anonymous | Expired) => refused.unwrap(),
            (Self::AnyToken(status), _) => (status, ""),
            (_, Nobody | Denied | DeniedBySoracom | DeniedByRole) => denied,
            (_, ForeignRoot | ForeignStar) => (404, "not_found"),
            (Self::Granted(status) | Self::RootOnly(status), Root) => (status, ""),
            (Self::Granted(status), Exact | Star | StarBySoracom) => (status, ""),
            (Self::RootOnly(_), Exact | Star | StarBySoracom) => (403, "root_only"),
        }
    }
}

/// One request of an operation: its subject, its path if it differs from the described one, and its body.
struct Case {
    what: &'static str,
    path: String,
    body: Value,
    expected: Expected,
}

fn case(what: &'static str, path: impl Into<String>, body: Value, expected: Expected) -> Case {
    Case { what, path: path.into(), body, expected }
}

/// The targets of operations, created for each caller and operation, because some operations end them.
struct RequestTargets {
    operator: String,
    /// A session of the root user.
    root_auth_key: String,
    root_session: String,
    root_token: String,
    /// A session of a user.
    user_auth_key: String,
    user_session: String,
    user_token: String,
    auth_key: (String, String),
}

fn cases(operation: &str, targets: &RequestTargets) -> Vec<Case> {
    let RequestTargets { operator, .. } = targets;
    let fingerprint = |token: &str| Fingerprint::digest(token.as_bytes()).to_string();
    let keys = format!("/v1/operators/{operator}/auth_keys");
    let revocation = |what, body, expected| case(what, "/revocations", body, expected);
    let none = Value::Null;
    match operation {
        "auth" => {
            let (id, secret) = &targets.auth_key;
            vec![case("", "/v1/auth", json!({ "authKeyId": id, "authKey": secret }), Expected::Open(200))]
        }
        "logout" => vec![case("", "/v1/auth/logout", json!({}), Expected::AnyToken(204))],
        "listOperatorAuthKeys" => vec![case("", keys, none, Expected::Granted(200))],
        "generateOperatorAuthKey" => vec![case("", keys, json!({}), Expected::RootOnly(201))],
        "deleteOperatorAuthKey" => vec![
            case(
                "of the root",
                format!("{keys}/{}", targets.root_auth_key),
                none.clone(),
                Expected::RootOnly(204),
            ),
            case("of a user", format!("{keys}/{}", targets.user_auth_key), none, Expected::RootOnly(204)),
        ],
        "createRevocation" => vec![
            revocation("a user", json!({ "subject": format!("{operator}/victim") }), Expected::Granted(200)),
            revocation("a user's AuthKey", json!({ "keyId": targets.user_auth_key }), Expected::Granted(200)),
            revocation("a user's session", json!({ "keyId": targets.user_session }), Expected::Granted(200)),
            revocation("a user's token", json!({ "token": targets.user_token }), Expected::Granted(200)),
            revocation(
                "a user's fingerprint",
                json!({ "fingerprint": fingerprint(&targets.user_token) }),
                Expected::Granted(200),
            ),
            // A caller that presents a credential may revoke it.
            revocation("the root's token", json!({ "token": targets.root_token }), Expected::Granted(200)),
            revocation(
                "the root's fingerprint",
                json!({ "fingerprint": fingerprint(&targets.root_token) }),
                Expected::RootOnly(200),
            ),
            revocation(
                "the root's session",
                json!({ "keyId": targets.root_session }),
                Expected::RootOnly(200),
            ),
            revocation(
                "the root's AuthKey",
                json!({ "keyId": targets.root_auth_key }),
                Expected::RootOnly(200),
            ),
            // The instant is long ago, so that the credentials of later cases stay valid.
            revocation("the operator", json!({ "subject": operator, "instant": 1 }), Expected::RootOnly(200)),
        ],
        "getManifest" => vec![case("", "/edge/v1/manifest", none, Expected::EdgesOnly)],
        "getSecretKeys" => {
            vec![case("", format!("/edge/v1/keys?sha256={}", "0".repeat(64)), none, Expected::EdgesOnly)]
        }
        "getObject" => {
            vec![case("", format!("/edge/v1/objects/{}", "0".repeat(64)), none, Expected::Open(404))]
        }
        "lives" => vec![case("", "/healthz", none, Expected::Open(200))],
        "ready" => vec![case("", "/readyz", none, Expected::Open(200))],
        "metrics" => vec![case("", "/metrics", none, Expected::Open(200))],
        "openapi" => vec![case("", "/openapi.json", none, Expected::Open(200))],
        _ => panic!("`{operation}` has no expectation: add which callers may use it"),
    }
}

for_each_backend! {
async fn permission_matrix_of_all_operations(env: TestEnv) {
let operations = operations();
assert!(operations.len() > 10);
// Each case has its own AuthKeys, more than the default limit of a user.
let service = env.service_with(|config| config.limits.auth_keys = 0).await;
let (tenant, _) = env.other_tenant().await;
let callers = Callers::prepare(&env, &service, &tenant, &operations).await;
let expired = callers.token(&service, Root, "", Lifetime::try_from(1).unwrap()).await.0;
let server = env.serve();
for caller in CALLERS {
for (operation, method) in &operations {
let targets = callers.targets(&service).await;
for case in cases(operation, &targets) {
let (mut token, session) = callers.token(&service, caller, operation, Lifetime::default()).await;
if caller == Revoked {
let target = RevocationTarget::Token(token.clone());
revoke(&service, &Actor::Admin, &AccessScope::Everything, target, None).await.unwrap();
server.wait_for_decision(&env, &token, 401, "revoked").await;
}
if caller == Expired {
token.clone_from(&expired);
server.wait_for_decision(&env, &token, 401, "token_expired").await;
}
let answer = ask(&server, method, &case, caller, &token, &session).await;
let (status, code) = case.expected.status_and_code(caller);
let what = format!("{operation} {} by {caller:?}", case.what);
// The bodies of public operations are not checked.
let answer = if matches!(case.expected, Expected::Open(_)) { (answer.0, String::new()) } else { answer };
assert_eq!(answer, (status, code.to_owned()), "{what}");
}
}
}
}

/// A user with all permissions except to revoke cannot get that permission from an AuthKey of the root user. An AuthKey
/// that it created for another user earlier is listed, and is deleted with it.
async fn users_never_get_root_rights_and_their_keys_end_with_them(env: TestEnv) {
let service = env.service().await;
let (root, bob, alice) = (subject(&env, None), subject(&env, Some("bob")), subject(&env, Some("alice")));
let bob_acts = Actor::Token { subject: bob.clone(), fingerprint: Fingerprint::digest(b"any") };
let statements = json!({ "statements": [{ "effect": "allow", "api": "*" }, { "effect": "deny", "api": "Revocation:*" }] });
for user in [&bob, &alice] {
env.json(&["user", "create", &user.to_string()]);
}
set_permission(&service, &Actor::Admin, &bob, Some(&statements.to_string())).await.unwrap();
create_auth_key(&service, &bob_acts, &root).await.unwrap_err();
let own = create_auth_key(&service, &bob_acts, &bob).await.unwrap();
let for_alice = create_auth_key(&service, &bob_acts, &alice).await.unwrap();
let for_alice_too = create_auth_key(&service, &bob_acts, &alice).await.unwrap();
let by_admin = create_auth_key(&service, &Actor::Admin, &alice).await.unwrap();
env.json(&["authkey", "delete", for_alice_too.id.as_str(), "--yes"]);
let server = env.serve();
let of_alice = json_text(&server.exchange(for_alice.id.as_str(), for_alice.secret.expose()).await["token"]);

let stderr = env.stderr_of_failure(&["user", "delete", &bob.to_string()]);
assert!(stderr.contains(&format!("stay valid without --with-created: {}", for_alice.id)), "{stderr}");
let deleted = env.json(&["user", "delete", &bob.to_string(), "--yes"]);
let listed = json!([{ "id": for_alice.id.as_str(), "subject": alice.to_string(), "deleted": false }]);
assert_eq!(deleted["created_for_others"], listed);
server.exchange(for_alice.id.as_str(), for_alice.secret.expose()).await;
let gone = server.post("/v1/auth", &json!({ "authKeyId": own.id.as_str(), "authKey": own.secret.expose() }));
assert_eq!(gone.send().await.unwrap().status(), 401);

// A later user of the same name created none of them. Its own AuthKeys are deleted with it, and their tokens refused.
eventually("another second", async || {
let now = control_plane::platform::clock::now().seconds().get();
(now > for_alice_made_at(&env, for_alice.id.as_str())).then_some(())
})
.await;
env.json(&["user", "create", &bob.to_string()]);
let for_alice_again = create_auth_key(&service, &bob_acts, &alice).await.unwrap();
let of_alice_again = json_text(&server.exchange(for_alice_again.id.as_str(), for_alice_again.secret.expose()).await["token"]);
let deleted = env.json(&["user", "delete", &bob.to_string(), "--with-created", "--yes"]);
let listed = json!([{ "id": for_alice_again.id.as_str(), "subject": alice.to_string(), "deleted": true }]);
assert_eq!(deleted["created_for_others"], listed);
let gone = json!({ "authKeyId": for_alice_again.id.as_str(), "authKey": for_alice_again.secret.expose() });
assert_eq!(server.post("/v1/auth", &gone).send().await.unwrap().status(), 401);
server.wait_for_decision(&env, &of_alice_again, 401, "watermark").await;
// AuthKeys that others created are unchanged.
server.wait_for_decision(&env, &of_alice, 403, "permission_denied").await;
server.exchange(by_admin.id.as_str(), by_admin.secret.expose()).await;
let lines = env.json(&["audit"]);
let mut lines = lines.as_array().unwrap().iter();
let line = lines.find(|line| line["action"] == json!("user.delete")).unwrap();
assert_eq!(line["detail"]["created_deleted"], json!(true));
assert_eq!(line["detail"]["created"], json!([for_alice_again.id.as_str()]));
}
}

fn for_alice_made_at(env: &TestEnv, id: &str) -> u64 {
    let keys = env.json(&["authkey", "list"]);
    let key = keys.as_array().unwrap().iter().find(|key| key["auth_key_id"] == json!(id));
    key.unwrap()["created_at"].as_u64().unwrap()
}

fn subject(env: &TestEnv, user: Option<&str>) -> Subject {
    Subject { operator: env.operator.parse().unwrap(), user: user.map(|user| user.parse().unwrap()) }
}

/// Returns the method of each described operation by its ID.
fn operations() -> BTreeMap<String, String> {
    description(|method, id, _| (id.to_owned(), method.to_ascii_uppercase()))
}

/// Returns the permission that each operation requires, which is its name.
fn permissions() -> BTreeMap<String, String> {
    description(|_, id, tag| (id.to_owned(), format!("{tag}:{id}")))
}

fn description(of: impl Fn(&str, &str, &str) -> (String, String)) -> BTreeMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let description: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let items = description["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap());
    operations
        .map(|(method, operation)| {
            of(method, operation["operationId"].as_str().unwrap(), operation["tags"][0].as_str().unwrap())
        })
        .collect()
}

struct Callers {
    root: Subject,
    tenant: Subject,
    victim: Subject,
    auth_key: (String, String),
}

impl Callers {
    /// Creates users with their permissions before the server starts, so that its first bundle contains them.
    async fn prepare(
        env: &TestEnv,
        service: &Service,
        tenant: &Subject,
        operations: &BTreeMap<String, String>,
    ) -> Self {
        let root = subject(env, None);
        let callers = Self {
            victim: named_operation(&root, "victim"),
            root,
            tenant: tenant.clone(),
            auth_key: (env.auth_key_id.clone(), env.auth_key.clone()),
        };
        let all = json!({ "effect": "allow", "api": "*" });
        let permissions = permissions();
        for operation in operations.keys() {
            let permission = &permissions[operation];
            for caller in USERS_OF_OURS {
                let statements = match caller {
                    Exact => json!([{ "effect": "allow", "api": permission }]),
                    Star | DeniedByRole => json!([all]),
                    Denied => json!([all, { "effect": "deny", "api": permission }]),
                    _ => json!([]),
                };
                let user = callers.subject(caller, operation);
                issue_token(service, TokenRecipient::Subject(user.clone()), Lifetime::default())
                    .await
                    .unwrap();
                if statements != json!([]) {
                    let document = json!({ "statements": statements }).to_string();
                    set_permission(service, &Actor::Admin, &user, Some(&document)).await.unwrap();
                }
                if caller == DeniedByRole {
                    let role = format!("no-{operation}");
                    let document = json!({ "statements": [{ "effect": "deny", "api": permission }] });
                    let file = env.write_document("role", &document);
                    env.json(&["role", "create", callers.root.operator.as_str(), &role, &file]);
                    env.json(&["role", "attach", &user.to_string(), &role]);
                }
            }
        }
        let foreign_star = callers.subject(ForeignStar, "");
        issue_token(service, TokenRecipient::Subject(foreign_star.clone()), Lifetime::default())
            .await
            .unwrap();
        let document = json!({ "statements": [all] }).to_string();
        set_permission(service, &Actor::Admin, &foreign_star, Some(&document)).await.unwrap();
        callers
    }

    fn subject(&self, caller: Caller, operation: &str) -> Subject {
        match caller {
            Nobody => named_operation(&self.root, "absent"),
            Exact => named_operation(&self.root, &format!("exact-{operation}")),
            Star | StarBySoracom => named_operation(&self.root, "star"),
            Denied | DeniedBySoracom => named_operation(&self.root, &format!("denied-{operation}")),
            DeniedByRole => named_operation(&self.root, &format!("role-{operation}")),
            ForeignRoot => self.tenant.clone(),
            ForeignStar => named_operation(&self.tenant, "star"),
            Root | Revoked | Forged | Anonymous | Expired => self.root.clone(),
        }
    }

    /// Issues a new token, and returns it with its session.
    async fn token(
        &self,
        service: &Service,
        caller: Caller,
        operation: &str,
        lifetime: Lifetime,
    ) -> (String, String) {
        let subject = self.subject(caller, operation);
        let issued = issue_token(service, TokenRecipient::Subject(subject), lifetime).await.unwrap();
        let token = issued.token.expose().to_owned();
        let token = if caller == Forged { forged(&token) } else { token };
        (token, issued.session.to_string())
    }

    async fn targets(&self, service: &Service) -> RequestTargets {
        let key =
            async |of: &Subject| create_auth_key(service, &Actor::Admin, of).await.unwrap().id.to_string();
        let token = async |of: &Subject| {
            let issued =
                issue_token(service, TokenRecipient::Subject(of.clone()), Lifetime::default()).await.unwrap();
            (issued.token.expose().to_owned(), issued.session.to_string())
        };
        let ((root_token, root_session), (user_token, user_session)) =
            (token(&self.root).await, token(&self.victim).await);
        RequestTargets {
            operator: self.root.operator.to_string(),
            root_auth_key: key(&self.root).await,
            root_session,
            root_token,
            user_auth_key: key(&self.victim).await,
            user_session,
            user_token,
            auth_key: self.auth_key.clone(),
        }
    }
}

fn named_operation(of: &Subject, user: &str) -> Subject {
    Subject { operator: of.operator.clone(), user: Some(user.parse().unwrap()) }
}

/// Signs the same claims with an unknown key.
fn forged(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    let claims = token::base64url::decode(claims.as_bytes()).unwrap();
    let key = token::mint::SigningKey::ed25519("ks-somebody", &[7; 32]).unwrap();
    key.sign(r#"{"alg":"EdDSA","kid":"ks-somebody"}"#, &claims).expose().to_owned()
}

/// Returns the status and the code.
async fn ask(
    server: &Server,
    method: &str,
    case: &Case,
    caller: Caller,
    token: &str,
    session: &str,
) -> (u16, String) {
    let mut request = server.with_method(method, &case.path);
    if !case.body.is_null() {
        request = request.header("content-type", "application/json").body(case.body.to_string());
    }
    request = match caller {
        Anonymous => request,
        StarBySoracom | DeniedBySoracom => {
            request.header("x-soracom-token", token).header("x-soracom-api-key", session)
        }
        _ => request.bearer_auth(token),
    };
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}
