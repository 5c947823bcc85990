//! The OpenAPI description of the HTTP API. The permission for an operation is derived from it: the tag of the
//! operation and its `operationId`. A test compares it with the routes.

use axum::{http::header, response::IntoResponse};
use serde_json::Value;

pub(super) const DESCRIPTION: &str = include_str!("../../openapi.json");

pub(super) async fn serve_openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)
}

/// Returns the operations that require a token, one per line: method, path and permission. The API's own gate uses this
/// table: the root user may do everything in its operator, a user what its grant allows, and every user may log out.
pub(super) fn operations_table() -> String {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap_or_default();
    let paths = description["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| (method, path, operation))
    });
    operations
        .filter(|(.., operation)| {
            operation["security"]
                .as_array()
                .is_some_and(|alternatives| alternatives.iter().any(requires_token))
        })
        .filter_map(|(method, path, operation)| {
            let (tag, id) = (operation["tags"][0].as_str()?, operation["operationId"].as_str()?);
            Some(format!("{}\t{path}\t{tag}:{id}\n", method.to_ascii_uppercase()))
        })
        .collect()
}

fn requires_token(alternative: &Value) -> bool {
    alternative.get("token").is_some()
}
