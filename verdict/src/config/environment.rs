//! Secrets in environment variables. The configuration contains only the names of the variables, because hosts expose
//! their configuration on the admin port.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use serde::Deserializer;
use token::secret::Secret;
use zeroize::Zeroizing;

use crate::config::checked;

/// The maximum length of a variable name. It is shorter than an edge credential (57 bytes) and than 32 bytes in
/// base64url (43).
const MAX_NAME_BYTES: usize = 40;

/// The environment variables that the host passes to the filter. The memory is zeroed on drop.
#[derive(Default)]
pub struct Environment(Zeroizing<Vec<u8>>);

impl Environment {
    /// Creates an environment from a block of `NAME=value` entries, each terminated by a zero byte, as WASI's
    /// `environ_get` fills it.
    pub fn from_block(block: Vec<u8>) -> Self {
        Self(Zeroizing::new(block))
    }

    /// Returns the value of the first variable of that name, or `None` if there is none.
    fn value(&self, name: &str) -> Option<&[u8]> {
        let mut entries = self.0.split(|byte| *byte == 0);
        entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// Returns the secret in the variable `name`: visible ASCII, with surrounding white space removed. Errors contain
    /// the name of the variable, never its value.
    pub(crate) fn secret(&self, name: &str) -> Result<Secret, String> {
        let value = self.value(name).ok_or_else(|| {
            format!(
                "the environment variable `{name}` is not set, or the host does not pass it to the filter \
                 (Envoy: `vm_config.environment_variables.host_env_keys`)"
            )
        })?;
        let value = value.trim_ascii();
        if value.is_empty() {
            return Err(format!("the environment variable `{name}` is empty"));
        }
        match core::str::from_utf8(value) {
            Ok(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => {
                Ok(Secret::from(text.to_string()))
            }
            _ => {
                Err(format!("the environment variable `{name}` contains characters other than visible ASCII"))
            }
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment(..)")
    }
}

/// Deserializes the name of an environment variable. An invalid name is not quoted in the error, because it may be the
/// secret itself; so may a name longer than [`MAX_NAME_BYTES`].
pub(crate) fn variable_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, |name| {
        let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let starts_well = !name.starts_with(|first: char| first.is_ascii_digit());
        if name.is_empty() {
            Err("must not be empty")
        } else if name.len() <= MAX_NAME_BYTES && starts_well && name.bytes().all(is_permitted) {
            Ok(Some(name.into()))
        } else {
            Err("must be the name of an environment variable: at most 40 of A-Z a-z 0-9 _")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn value_matches_the_full_name() {
        let block = b"AB=1\0A=\0B= two \n\0=x\0\0NOTHING\0C=a=b\0B=three\0LAST=z";
        let environment = Environment::from_block(block.to_vec());
        let cases: [(&str, Option<&[u8]>); 7] = [
            ("AB", Some(b"1")),
            ("A", Some(b"")),
            ("B", Some(b" two \n")),
            ("C", Some(b"a=b")),
            ("NOTHING", None),
            ("LAST", Some(b"z")),
            ("D", None),
        ];
        for (name, value) in cases {
            assert_eq!(environment.value(name), value, "{name}");
        }
        assert_eq!(environment.secret("B").unwrap().expose(), "two");
    }

    #[test]
    fn invalid_secrets_are_not_quoted() {
        let values: [&[u8]; 6] =
            [b"", b" \r\n", b"\xff\xfe-leak", "leak\u{e9}".as_bytes(), b"le\nak", b"le\x01ak"];
        for value in values {
            let block = [b"KEY=", value].concat();
            let error = Environment::from_block(block).secret("KEY").unwrap_err();
            assert!(error.contains("`KEY`") && !error.contains("leak"), "{error}");
        }
        assert!(Environment::default().secret("KEY").unwrap_err().contains("`KEY` is not set"));
        let environment = Environment::from_block(b"KEY=leak".to_vec());
        assert_eq!(std::format!("{environment:?}"), "Environment(..)");
    }

    /// Parses arbitrary bytes from a host.
    #[test]
    fn arbitrary_bytes_do_not_panic() {
        for seed in 0_u32..2000 {
            let bytes: Vec<u8> = (0..seed % 40)
                .map(|at| b"A=\0 \xffB\n"[(seed.wrapping_mul(2_654_435_761).rotate_left(at) % 7) as usize])
                .collect();
            let environment = Environment::from_block(bytes);
            for name in ["A", "B", "", "A=", "AB"] {
                let _ = environment.secret(name);
            }
        }
        let _ = Environment::from_block(vec![b'='; 100_000]).secret("");
    }
}
