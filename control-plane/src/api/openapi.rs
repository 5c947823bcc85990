//! The description of the HTTP surface. What a caller needs for a route follows from it: a permission is the tag of the
//! operation and its `operationId`. A test holds it to the routes there are.

use axum::{http::header, response::IntoResponse};
use serde_json::Value;

pub(super) async fn show() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)
}

/// Method, path and permission of every operation with a token, in lines. The own API asks the gate that it ships: the
/// root user may do everything in its operator, a user what its grant allows, and everybody may log out.
pub(super) fn operations() -> String {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap_or_default();
    let paths = description["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| (method, path, operation))
    });
    operations
        .filter(|(.., operation)| {
            operation["security"].as_array().is_some_and(|ways| ways.iter().any(takes_token))
        })
        .filter_map(|(method, path, operation)| {
            let (tag, id) = (operation["tags"][0].as_str()?, operation["operationId"].as_str()?);
            Some(format!("{}\t{path}\t{tag}:{id}\n", method.to_ascii_uppercase()))
        })
        .collect()
}

fn takes_token(way: &Value) -> bool {
    way.get("token").is_some()
}

pub(super) const DESCRIPTION: &str = include_str!("../../openapi.json");
