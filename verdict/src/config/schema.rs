//! The JSON Schema of the plugin configuration, generated from the types that it is deserialized into.

use alloc::string::String;

use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Map, Value};

use crate::config::{
    Policy,
    policy::{HeaderName, PolicyMembers},
};

impl Policy {
    /// Returns the JSON Schema of the plugin configuration (draft 2020-12).
    ///
    /// The schema describes the shape of a configuration. Constraints between members, and the grammar of templates,
    /// hosts and keys, are checked by [`Policy::from_json`] only.
    pub fn schema() -> Schema {
        let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(refuse_null));
        settings.into_generator().into_root_schema_for::<PolicyMembers>()
    }
}

/// The name of an identity header, or `null` to omit the header.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum HeaderOrNull {
    Header(HeaderName),
    Null(()),
}

/// Removes `null` from the schema of optional members, because the parser refuses it.
fn refuse_null(schema: &mut Schema) {
    let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for member in members.values_mut().filter_map(Value::as_object_mut) {
        if let Some(remaining) = without_null(member, "type", &Value::from("null")) {
            member.insert(String::from("type"), remaining);
        }
        let null = Map::from_iter([(String::from("type"), Value::from("null"))]);
        if let Some(Value::Object(remaining)) = without_null(member, "anyOf", &Value::Object(null)) {
            member.remove("anyOf");
            member.extend(remaining);
        }
        if member.get("default") == Some(&Value::Null) {
            member.remove("default");
        }
    }
}

/// Removes `null` from a list of alternatives. Returns the remaining alternative if `null` was removed and only one is left.
fn without_null(schema: &mut Map<String, Value>, keyword: &str, null: &Value) -> Option<Value> {
    let alternatives = schema.get_mut(keyword)?.as_array_mut()?;
    let before = alternatives.len();
    alternatives.retain(|alternative| alternative != null);
    match alternatives.as_slice() {
        [remaining] if before > 1 => Some(remaining.clone()),
        _ => None,
    }
}
