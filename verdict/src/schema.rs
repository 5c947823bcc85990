//! The JSON Schema of the plugin configuration, from the types that it is deserialized into.

use alloc::string::String;

use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Map, Value};

use crate::{Policy, policy::HeaderName};

impl Policy {
    /// Returns the JSON Schema of the plugin configuration (draft 2020-12).
    ///
    /// It says what the shape of a configuration is. What depends on several members, and the grammar of templates,
    /// hosts and keys, [`Policy::from_json`] alone checks.
    pub fn schema() -> Schema {
        let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(refuse_null));
        settings.into_generator().into_root_schema_for::<Self>()
    }
}

/// The header that tells the upstream a part of an identity, or `null` where the upstream is not to get it.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is of use")]
pub(crate) enum HeaderOrNull {
    Header(HeaderName),
    Null(()),
}

/// An optional member is left out; `null` in its place is refused.
fn refuse_null(schema: &mut Schema) {
    let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for member in members.values_mut().filter_map(Value::as_object_mut) {
        if let Some(only) = without_null(member, "type", &Value::from("null")) {
            member.insert(String::from("type"), only);
        }
        let null = Map::from_iter([(String::from("type"), Value::from("null"))]);
        if let Some(Value::Object(only)) = without_null(member, "anyOf", &Value::Object(null)) {
            member.remove("anyOf");
            member.extend(only);
        }
        if member.get("default") == Some(&Value::Null) {
            member.remove("default");
        }
    }
}

/// Takes `null` out of a list of alternatives, and returns the one that is left.
fn without_null(schema: &mut Map<String, Value>, keyword: &str, null: &Value) -> Option<Value> {
    let alternatives = schema.get_mut(keyword)?.as_array_mut()?;
    let before = alternatives.len();
    alternatives.retain(|alternative| alternative != null);
    match alternatives.as_slice() {
        [only] if before > 1 => Some(only.clone()),
        _ => None,
    }
}
