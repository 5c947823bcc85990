//! `openapi.json` describes exactly the API.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use crate::test_env::TestEnv;

/// Exactly the existing routes and methods are described.
#[test]
fn openapi_describes_every_route() {
    let mut source = String::new();
    read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api"), &mut source);
    let source: String = source.split_whitespace().collect::<Vec<_>>().join(" ");
    // The search would not find paths of nested routers.
    assert!(!source.contains(".nest(") && !source.contains(".nest_service("));
    let mut routes = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap();
        let handlers = route.split('"').nth(2).unwrap();
        for method in ["get", "post", "put", "patch", "delete"] {
            let call = format!("{method}(");
            let mut calls = handlers.match_indices(&call);
            if calls.any(|(at, _)| !handlers[..at].ends_with(|before: char| before.is_alphanumeric())) {
                routes.insert((path.to_owned(), method.to_owned()));
            }
        }
    }
    let paths = description()["paths"].clone();
    let described = paths.as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (path.clone(), method.clone()))
    });
    assert_eq!(routes, described.collect());
    assert!(routes.len() > 10);
}

/// Reads the sources in a folder and its subfolders.
fn read_all(folder: &Path, source: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, source);
        } else {
            source.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[tokio::test]
async fn responses_match_openapi() {
    let env = TestEnv::on_sqlite().await;
    let server = env.serve();
    let served: Value = server.get("/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(served, description());
    let session = server.exchange(&env.auth_key_id, &env.auth_key).await;
    conforms(&session, "AuthResponse");
    let token = session["token"].as_str().unwrap();
    let path = format!("/v1/operators/{}/auth_keys", env.operator);
    let made: Value =
        server.post(&path, &json!({})).bearer_auth(token).send().await.unwrap().json().await.unwrap();
    conforms(&made, "NewAuthKey");
    let listed: Value = server.get(&path).bearer_auth(token).send().await.unwrap().json().await.unwrap();
    for key in listed.as_array().unwrap() {
        conforms(key, "AuthKey");
    }
    let subject = json!({ "subject": env.operator, "instant": 1 });
    conforms(&server.revoke(token, subject).await.json().await.unwrap(), "RevocationResponse");
    let waited = server.post("/revocations?wait=1", &json!({ "token": env.issue_root_token() }));
    let waited: Value = waited.bearer_auth(token).send().await.unwrap().json().await.unwrap();
    conforms(&waited, "RevocationResponse");
    assert!(waited.get("edges").is_some());
    for problem in [server.get("/nothing"), server.get(&path), server.post("/v1/auth", &json!({}))] {
        conforms(&problem.send().await.unwrap().json().await.unwrap(), "Problem");
    }
}

/// Every operation can respond with 429.
#[test]
fn openapi_documents_rate_limit_for_every_operation() {
    let description = description();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let described = &operation["responses"]["429"]["$ref"];
            assert_eq!(described, "#/components/responses/TooManyRequests", "{method} {path}");
        }
    }
    let retry = &description["components"]["responses"]["TooManyRequests"]["headers"]["Retry-After"];
    assert_eq!(retry["required"], true);
}

/// Checks that a value has only the members of the schema, all required ones, and the correct types.
fn conforms(value: &Value, schema: &str) {
    let schema = &description()["components"]["schemas"][schema];
    let members = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    for required in schema["required"].as_array().unwrap() {
        assert!(members.contains_key(required.as_str().unwrap()), "{required} is not in {value}");
    }
    for (name, member) in members {
        let expected = &schema["properties"][name]["type"];
        let found = match member {
            Value::String(_) => "string",
            Value::Number(_) => "integer",
            Value::Object(_) => "object",
            _ => "another type",
        };
        assert_eq!(expected, found, "`{name}` of {value}");
    }
}

fn description() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}
