use alloc::{format, string::String, vec::Vec};
use core::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{
    MAX_COMPILED_BYTES, MAX_DOCUMENT_BYTES, PermissionError,
    code::{Effect, FORMAT},
    condition,
    encode::write_statement,
    error::Place,
    pattern,
};
use crate::config::{self, one_or_more};

pub(super) fn compile(json: &[u8]) -> Result<Vec<u8>, PermissionError> {
    if json.len() > MAX_DOCUMENT_BYTES {
        let message = format!("longer than {MAX_DOCUMENT_BYTES} bytes");
        return Err(PermissionError::new(Place::Document, message));
    }
    let Document { statements } = read(json)?;
    let mut out = Vec::from([FORMAT]);
    for (number, Statement { effect, api, condition }) in (1..).zip(&statements) {
        let mut patterns = Vec::new();
        for (place, name) in (1..).zip(&api.names) {
            let place = Place::Api(number, api.list.then_some(place));
            patterns.push(pattern::parse(name).map_err(|message| PermissionError::new(place, message))?);
        }
        let mut code = Vec::new();
        if let Some(source) = condition {
            code = condition::compile(source).map_err(|error| match error.column {
                Some(column) => PermissionError::new(Place::Column(number, column), error.message),
                None => PermissionError::new(Place::Condition(number), error.message),
            })?;
        }
        write_statement(&mut out, *effect, &patterns, &code);
    }
    if out.len() > MAX_COMPILED_BYTES {
        let message = format!("longer than {MAX_COMPILED_BYTES} bytes when compiled");
        return Err(PermissionError::new(Place::Document, message));
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
    list: bool,
}

impl<'de> Deserialize<'de> for Api {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Api;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E>(self, one: &str) -> Result<Api, E> {
                Ok(Api { names: Vec::from([one.into()]), list: false })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Api, A::Error> {
                let names = one_or_more(SeqAccessDeserializer::new(names))?;
                Ok(Api { names, list: true })
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

fn read(json: &[u8]) -> Result<Document, PermissionError> {
    config::from_json(json).map_err(|error| PermissionError::new(place(&error.path), error.message))
}

/// `statements[1].api[2]` in the words of a reader, who counts from 1.
fn place(path: &str) -> Place {
    let number = |index: &str| index.parse().map_or(0, |index: usize| index.saturating_add(1));
    let Some((statement, rest)) = path.strip_prefix("statements[").and_then(|rest| rest.split_once(']'))
    else {
        return Place::Document;
    };
    let statement = number(statement);
    let member = rest.strip_prefix('.').unwrap_or(rest);
    match member.split_once('[') {
        Some(("api", item)) => Place::Api(statement, Some(number(item.trim_end_matches(']')))),
        _ => match member {
            "" => Place::Statement(statement),
            "effect" => Place::Effect(statement),
            "api" => Place::Api(statement, None),
            "condition" => Place::Condition(statement),
            member => Place::Member(statement, member.into()),
        },
    }
}
