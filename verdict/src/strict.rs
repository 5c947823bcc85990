//! Configuration out of JSON: an error names the place, and never quotes what stands where something else should.
//!
//! By hand, as what a general library derives for the same types is a tenth of the filter.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};

use token::json::{Json, Object};

use crate::PolicyError;

pub(crate) fn read<T: Read>(json: &[u8]) -> Result<T, PolicyError> {
    let json = Json::read(json)
        .map_err(|error| PolicyError { path: ".".into(), message: shown(&error.to_string()) })?;
    T::read(&json).map_err(|wrong| {
        let Place { mut path, message } = *wrong.0;
        if path.is_empty() {
            path.push('.');
        }
        PolicyError { path, message }
    })
}

/// What can stand in a configuration.
pub(crate) trait Read: Sized {
    fn read(json: &Json) -> Result<Self, Wrong>;
}

/// One word, as every step of reading may return it.
#[derive(Debug)]
pub(crate) struct Wrong(Box<Place>);

#[derive(Debug)]
struct Place {
    path: String,
    message: String,
}

impl Wrong {
    #[cold]
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Place { path: String::new(), message: message.into() }))
    }

    /// What stands in the wrong place may be the credential: only its type is named.
    #[cold]
    pub(crate) fn instead_of(found: &Json, expected: &str) -> Self {
        let found = match found {
            Json::Null => "null",
            Json::Bool(_) => "true or false",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        };
        Self::new([found, ", expected ", expected].concat())
    }

    #[cold]
    pub(crate) fn inside(mut self, outer: &str) -> Self {
        let path = &mut self.0.path;
        let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        *path = [outer, dot, path].concat();
        self
    }
}

impl Read for String {
    fn read(json: &Json) -> Result<Self, Wrong> {
        text(json).map(Self::from)
    }
}

impl Read for bool {
    fn read(json: &Json) -> Result<Self, Wrong> {
        json.as_bool().ok_or_else(|| Wrong::instead_of(json, "true or false"))
    }
}

impl Read for u64 {
    fn read(json: &Json) -> Result<Self, Wrong> {
        json.as_u64().ok_or_else(|| Wrong::instead_of(json, "a whole number, 0 or more"))
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(json: &Json) -> Result<Self, Wrong> {
        items(json, T::read)
    }
}

pub(crate) fn text(json: &Json) -> Result<&str, Wrong> {
    json.as_str().ok_or_else(|| Wrong::instead_of(json, "a string"))
}

pub(crate) fn items<T>(json: &Json, read: fn(&Json) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    let items = json.as_array().ok_or_else(|| Wrong::instead_of(json, "an array"))?;
    let mut all = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        all.push(read(item).map_err(|wrong| wrong.inside(&format!("[{index}]")))?);
    }
    Ok(all)
}

/// Names and values of an object, in order of the names.
pub(crate) fn pairs<T>(
    json: &Json,
    read: fn(&str, &Json) -> Result<T, Wrong>,
) -> Result<Vec<(String, T)>, Wrong> {
    let mut all: Vec<(String, T)> = Vec::new();
    for (name, value) in object(json)?.iter() {
        let value = read(name, value).map_err(|wrong| wrong.inside(name))?;
        // Few, and a general sort of each type would add 5 KB to the filter.
        let place = all.partition_point(|(before, _)| before.as_str() < name);
        all.insert(place, (name.into(), value));
    }
    Ok(all)
}

pub(crate) fn variant<T: Copy>(json: &Json, variants: &[(&str, T)]) -> Result<T, Wrong> {
    let name = text(json)?;
    let known = variants.iter().find(|(known, _)| *known == name);
    known.map(|(_, variant)| *variant).ok_or_else(|| {
        let names: Vec<&str> = variants.iter().map(|(name, _)| *name).collect();
        Wrong::new(
            ["unknown variant `", &shown(name), "`, expected one of `", &names.join("`, `"), "`"].concat(),
        )
    })
}

pub(crate) fn bounded(json: &Json, least: u64, most: u64) -> Result<u64, Wrong> {
    match u64::read(json)? {
        number if (least..=most).contains(&number) => Ok(number),
        _ => Err(Wrong::new(format!("must be from {least} to {most}"))),
    }
}

/// A text that somebody wrote, for an error: as it is where it can be seen.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// The members of an object, none of which is unknown.
pub(crate) struct Members<'a>(&'a Object);

impl<'a> Members<'a> {
    pub(crate) fn of(json: &'a Json, known: &[&str]) -> Result<Self, Wrong> {
        let object = object(json)?;
        match object.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(Self(object)),
            Some((name, _)) => {
                let known = known.join("`, `");
                let message = ["unknown field `", &shown(name), "`, expected one of `", &known, "`"].concat();
                Err(Wrong::new(message).inside(name))
            }
        }
    }

    pub(crate) fn required<T: Read>(&self, name: &str) -> Result<T, Wrong> {
        self.required_by(name, T::read)
    }

    pub(crate) fn required_by<T>(&self, name: &str, read: fn(&Json) -> Result<T, Wrong>) -> Result<T, Wrong> {
        self.optional_by(name, read)?.ok_or_else(|| Wrong::new(["missing field `", name, "`"].concat()))
    }

    pub(crate) fn optional<T: Read>(&self, name: &str) -> Result<Option<T>, Wrong> {
        self.optional_by(name, T::read)
    }

    pub(crate) fn optional_by<T>(
        &self,
        name: &str,
        read: fn(&Json) -> Result<T, Wrong>,
    ) -> Result<Option<T>, Wrong> {
        self.0.get(name).map(|json| read(json).map_err(|wrong| wrong.inside(name))).transpose()
    }
}

fn object(json: &Json) -> Result<&Object, Wrong> {
    json.as_object().ok_or_else(|| Wrong::instead_of(json, "an object"))
}
