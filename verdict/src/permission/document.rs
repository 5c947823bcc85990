//! Compiles permission documents.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{
    MAX_COMPILED_BYTES, MAX_DOCUMENT_BYTES, PermissionError,
    bytecode::{Effect, FORMAT},
    condition,
    encode::write_statement,
    error::ErrorLocation,
    pattern,
};
use crate::config::{self, one_or_more};

pub(super) fn compile(json: &[u8]) -> Result<Vec<u8>, PermissionError> {
    if json.len() > MAX_DOCUMENT_BYTES {
        let message = format!("longer than {MAX_DOCUMENT_BYTES} bytes");
        return Err(PermissionError::new(ErrorLocation::Document, message));
    }
    let Document { statements } = parse(json)?;
    let mut out = Vec::from([FORMAT]);
    for (number, Statement { effect, api, condition }) in (1..).zip(&statements) {
        let mut patterns = Vec::new();
        for (position, name) in (1..).zip(&api.names) {
            let location = ErrorLocation::Api(number, api.is_list.then_some(position));
            patterns.push(pattern::parse(name).map_err(|message| PermissionError::new(location, message))?);
        }
        let mut bytecode = Vec::new();
        if let Some(source) = condition {
            bytecode = condition::compile(source).map_err(|error| match error.column {
                Some(column) => PermissionError::new(ErrorLocation::Column(number, column), error.message),
                None => PermissionError::new(ErrorLocation::Condition(number), error.message),
            })?;
        }
        write_statement(&mut out, *effect, &patterns, &bytecode);
    }
    if out.len() > MAX_COMPILED_BYTES {
        let message = format!("longer than {MAX_COMPILED_BYTES} bytes when compiled");
        return Err(PermissionError::new(ErrorLocation::Document, message));
    }
    Ok(out)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    statements: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    effect: Effect,
    api: Api,
    #[serde(default)]
    condition: Option<String>,
}

struct Api {
    names: Vec<String>,
    is_list: bool,
}

impl<'de> Deserialize<'de> for Api {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringOrArray;

        impl<'de> Visitor<'de> for StringOrArray {
            type Value = Api;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E>(self, name: &str) -> Result<Api, E> {
                Ok(Api { names: Vec::from([name.into()]), is_list: false })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Api, A::Error> {
                let names = one_or_more(SeqAccessDeserializer::new(names))?;
                Ok(Api { names, is_list: true })
            }
        }

        deserializer.deserialize_any(StringOrArray)
    }
}

fn parse(json: &[u8]) -> Result<Document, PermissionError> {
    config::from_json(json).map_err(|error| PermissionError::new(location_of(&error.path), error.message))
}

/// Converts a path such as `statements[1].api[2]` to a location with numbers that start at 1.
fn location_of(path: &str) -> ErrorLocation {
    let number = |index: &str| index.parse().map_or(0, |index: usize| index.saturating_add(1));
    let Some((statement, rest)) = path.strip_prefix("statements[").and_then(|rest| rest.split_once(']'))
    else {
        return ErrorLocation::Document;
    };
    let statement = number(statement);
    let member = rest.strip_prefix('.').unwrap_or(rest);
    match member.split_once('[') {
        Some(("api", item)) => ErrorLocation::Api(statement, Some(number(item.trim_end_matches(']')))),
        _ => match member {
            "" => ErrorLocation::Statement(statement),
            "effect" => ErrorLocation::Effect(statement),
            "api" => ErrorLocation::Api(statement, None),
            "condition" => ErrorLocation::Condition(statement),
            member => ErrorLocation::Member(statement, member.into()),
        },
    }
}
