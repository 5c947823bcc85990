//! Every operation of the own API, asked by every kind of caller. The operations are those of the description: one without
//! an expectation here fails the test.

use std::{collections::BTreeMap, path::Path};

use control_plane::{
    model::{Actor, Subject},
    operations::{Authority, Bearer, Lifetime, Service, Target, create_auth_key, issue, permit, revoke},
};
use serde_json::{Value, json};
use token::Fingerprint;

use crate::{
    on_both,
    world::{Server, World, eventually, text},
};

/// Who asks.
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
    /// Signed by nobody of ours.
    Forged,
    Anonymous,
    Expired,
}

use Caller::*;

const USERS_OF_OURS: [Caller; 5] = [Nobody, Exact, Star, Denied, DeniedByRole];

/// The last one needs time to expire.
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

/// What an operation answers to whom.
#[derive(Clone, Copy)]
enum Expected {
    /// The same to everybody, with or without a token.
    Open(u16),
    /// Nothing to any token: it is for edges.
    EdgesOnly,
    /// To everybody with a good token.
    AnyToken(u16),
    /// Where root is answered so, users with the permission too.
    Granted(u16),
    /// Users with the permission get 403 `root_only`.
    RootOnly(u16),
}

impl Expected {
    /// The status and the code of the answer.
    fn of(self, caller: Caller) -> (u16, &'static str) {
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

/// One request of an operation: what it is about, its path if it is not the one described, its body.
struct Case {
    what: &'static str,
    path: String,
    body: Value,
    expected: Expected,
}

fn case(what: &'static str, path: impl Into<String>, body: Value, expected: Expected) -> Case {
    Case { what, path: path.into(), body, expected }
}

/// What the operations are asked about; made anew for each caller and operation, as some of them end it.
struct Targets {
    operator: String,
    /// Of the root user.
    root_auth_key: String,
    root_session: String,
    root_token: String,
    /// Of a user.
    user_auth_key: String,
    user_session: String,
    user_token: String,
    auth_key: (String, String),
}

fn cases(operation: &str, targets: &Targets) -> Vec<Case> {
    let Targets { operator, .. } = targets;
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
            // Whoever holds a credential may end it.
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
            // An instant long ago, or nothing would be left for those that come later.
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
        _ => panic!("`{operation}` has no expectation: say who may do it"),
    }
}

on_both! {
    async fn each_operation_answers_each_caller_as_it_should(world: World) {
        let operations = operations();
        assert!(operations.len() > 10);
        // Each case has AuthKeys of its own, more than a user may have.
        let service = world.service_with(|config| config.limits.auth_keys = 0).await;
        let (foreigner, _) = world.foreigner().await;
        let callers = Callers::prepare(&world, &service, &foreigner, &operations).await;
        let expired = callers.token(&service, Root, "", Lifetime::try_from(1).unwrap()).await.0;
        let server = world.serve();
        for caller in CALLERS {
            for (operation, method) in &operations {
                let targets = callers.targets(&service).await;
                for case in cases(operation, &targets) {
                    let (mut token, session) = callers.token(&service, caller, operation, Lifetime::default()).await;
                    if caller == Revoked {
                        let target = Target::Token(token.clone());
                        revoke(&service, &Actor::Admin, &Authority::Everything, target, None).await.unwrap();
                        server.eventually(&world, &token, 401, "revoked").await;
                    }
                    if caller == Expired {
                        token.clone_from(&expired);
                        server.eventually(&world, &token, 401, "token_expired").await;
                    }
                    let answer = ask(&server, method, &case, caller, &token, &session).await;
                    let (status, code) = case.expected.of(caller);
                    let what = format!("{operation} {} by {caller:?}", case.what);
                    // An open answer is not looked into.
                    let answer = if matches!(case.expected, Expected::Open(_)) { (answer.0, String::new()) } else { answer };
                    assert_eq!(answer, (status, code.to_owned()), "{what}");
                }
            }
        }
    }

    /// A user with all there is but revoking: no AuthKey of the root user gives it that. One it has made before it could
    /// not any more is listed, and ends with it.
    async fn no_permission_is_that_of_the_root_and_what_a_user_made_ends_with_it(world: World) {
        let service = world.service().await;
        let (root, bob, alice) = (subject(&world, None), subject(&world, Some("bob")), subject(&world, Some("alice")));
        let bob_acts = Actor::Token { subject: bob.clone(), fingerprint: Fingerprint::digest(b"any") };
        let statements = json!({ "statements": [{ "effect": "allow", "api": "*" }, { "effect": "deny", "api": "Revocation:*" }] });
        for user in [&bob, &alice] {
            world.json(&["user", "create", &user.to_string()]);
        }
        permit(&service, &Actor::Admin, &bob, Some(&statements.to_string())).await.unwrap();
        create_auth_key(&service, &bob_acts, &root).await.unwrap_err();
        let own = create_auth_key(&service, &bob_acts, &bob).await.unwrap();
        let for_alice = create_auth_key(&service, &bob_acts, &alice).await.unwrap();
        let for_alice_too = create_auth_key(&service, &bob_acts, &alice).await.unwrap();
        let by_admin = create_auth_key(&service, &Actor::Admin, &alice).await.unwrap();
        world.json(&["authkey", "delete", for_alice_too.id.as_str(), "--yes"]);
        let server = world.serve();
        let of_alice = text(&server.exchange(for_alice.id.as_str(), for_alice.secret.expose()).await["token"]);

        let complaint = world.complaint(&["user", "delete", &bob.to_string()]);
        assert!(complaint.contains(&format!("stay valid without --with-created: {}", for_alice.id)), "{complaint}");
        let deleted = world.json(&["user", "delete", &bob.to_string(), "--yes"]);
        let listed = json!([{ "id": for_alice.id.as_str(), "subject": alice.to_string(), "deleted": false }]);
        assert_eq!(deleted["created_for_others"], listed);
        server.exchange(for_alice.id.as_str(), for_alice.secret.expose()).await;
        let gone = server.post("/v1/auth", &json!({ "authKeyId": own.id.as_str(), "authKey": own.secret.expose() }));
        assert_eq!(gone.send().await.unwrap().status(), 401);

        // A namesake made nothing; what it makes itself goes with it, and with all that it was exchanged for.
        eventually("another second", async || {
            let now = control_plane::clock::now().seconds();
            (now > for_alice_made_at(&world, for_alice.id.as_str())).then_some(())
        })
        .await;
        world.json(&["user", "create", &bob.to_string()]);
        let for_alice_again = create_auth_key(&service, &bob_acts, &alice).await.unwrap();
        let of_alice_again = text(&server.exchange(for_alice_again.id.as_str(), for_alice_again.secret.expose()).await["token"]);
        let deleted = world.json(&["user", "delete", &bob.to_string(), "--with-created", "--yes"]);
        let listed = json!([{ "id": for_alice_again.id.as_str(), "subject": alice.to_string(), "deleted": true }]);
        assert_eq!(deleted["created_for_others"], listed);
        let gone = json!({ "authKeyId": for_alice_again.id.as_str(), "authKey": for_alice_again.secret.expose() });
        assert_eq!(server.post("/v1/auth", &gone).send().await.unwrap().status(), 401);
        server.eventually(&world, &of_alice_again, 401, "watermark").await;
        // What others made is as it was.
        server.eventually(&world, &of_alice, 403, "permission_denied").await;
        server.exchange(by_admin.id.as_str(), by_admin.secret.expose()).await;
        let lines = world.json(&["audit"]);
        let mut lines = lines.as_array().unwrap().iter();
        let line = lines.find(|line| line["action"] == json!("user.delete")).unwrap();
        assert_eq!(line["detail"]["created_deleted"], json!(true));
        assert_eq!(line["detail"]["created"], json!([for_alice_again.id.as_str()]));
    }
}

fn for_alice_made_at(world: &World, id: &str) -> u64 {
    let keys = world.json(&["authkey", "list"]);
    let key = keys.as_array().unwrap().iter().find(|key| key["auth_key_id"] == json!(id));
    key.unwrap()["created_at"].as_u64().unwrap()
}

fn subject(world: &World, user: Option<&str>) -> Subject {
    Subject { operator: world.operator.parse().unwrap(), user: user.map(|user| user.parse().unwrap()) }
}

/// Method by id of the operation, of all that is described.
fn operations() -> BTreeMap<String, String> {
    description(|method, id, _| (id.to_owned(), method.to_ascii_uppercase()))
}

/// The permission that each operation demands, which it is named after.
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
    foreigner: Subject,
    victim: Subject,
    auth_key: (String, String),
}

impl Callers {
    /// Users with what they may do, before the server starts: its first bundle knows all of it.
    async fn prepare(
        world: &World,
        service: &Service,
        foreigner: &Subject,
        operations: &BTreeMap<String, String>,
    ) -> Self {
        let root = subject(world, None);
        let callers = Self {
            victim: named(&root, "victim"),
            root,
            foreigner: foreigner.clone(),
            auth_key: (world.auth_key_id.clone(), world.auth_key.clone()),
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
                issue(service, Bearer::Subject(user.clone()), Lifetime::default()).await.unwrap();
                if statements != json!([]) {
                    let document = json!({ "statements": statements }).to_string();
                    permit(service, &Actor::Admin, &user, Some(&document)).await.unwrap();
                }
                if caller == DeniedByRole {
                    let role = format!("no-{operation}");
                    let document = json!({ "statements": [{ "effect": "deny", "api": permission }] });
                    let file = world.document("role", &document);
                    world.json(&["role", "create", callers.root.operator.as_str(), &role, &file]);
                    world.json(&["role", "attach", &user.to_string(), &role]);
                }
            }
        }
        let foreign_star = callers.subject(ForeignStar, "");
        issue(service, Bearer::Subject(foreign_star.clone()), Lifetime::default()).await.unwrap();
        let document = json!({ "statements": [all] }).to_string();
        permit(service, &Actor::Admin, &foreign_star, Some(&document)).await.unwrap();
        callers
    }

    fn subject(&self, caller: Caller, operation: &str) -> Subject {
        match caller {
            Nobody => named(&self.root, "nobody"),
            Exact => named(&self.root, &format!("exact-{operation}")),
            Star | StarBySoracom => named(&self.root, "star"),
            Denied | DeniedBySoracom => named(&self.root, &format!("denied-{operation}")),
            DeniedByRole => named(&self.root, &format!("role-{operation}")),
            ForeignRoot => self.foreigner.clone(),
            ForeignStar => named(&self.foreigner, "star"),
            Root | Revoked | Forged | Anonymous | Expired => self.root.clone(),
        }
    }

    /// A new token and its session.
    async fn token(
        &self,
        service: &Service,
        caller: Caller,
        operation: &str,
        lifetime: Lifetime,
    ) -> (String, String) {
        let subject = self.subject(caller, operation);
        let issued = issue(service, Bearer::Subject(subject), lifetime).await.unwrap();
        let token = issued.token.expose().to_owned();
        let token = if caller == Forged { forged(&token) } else { token };
        (token, issued.session.to_string())
    }

    async fn targets(&self, service: &Service) -> Targets {
        let key =
            async |of: &Subject| create_auth_key(service, &Actor::Admin, of).await.unwrap().id.to_string();
        let token = async |of: &Subject| {
            let issued = issue(service, Bearer::Subject(of.clone()), Lifetime::default()).await.unwrap();
            (issued.token.expose().to_owned(), issued.session.to_string())
        };
        let ((root_token, root_session), (user_token, user_session)) =
            (token(&self.root).await, token(&self.victim).await);
        Targets {
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

fn named(of: &Subject, user: &str) -> Subject {
    Subject { operator: of.operator.clone(), user: Some(user.parse().unwrap()) }
}

/// The same claims, signed with a key of somebody else.
fn forged(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    let claims = token::base64url::decode(claims.as_bytes()).unwrap();
    let key = token::mint::SigningKey::ed25519("ks-somebody", &[7; 32]).unwrap();
    key.sign(r#"{"alg":"EdDSA","kid":"ks-somebody"}"#, &claims).expose().to_owned()
}

/// Status and code.
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
