//! Removes quoted values from serde error messages, because a value may be a secret.

/// The prefixes of serde messages that quote a value.
const QUOTING_PREFIXES: [&str; 4] =
    ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];

const ADDRESS: &str = "an IP address and a port, such as `127.0.0.1:8780`";

/// Returns the serde error message without the quoted value and without Rust type names. `object` is the name of a map
/// in the format, such as "a table".
pub(crate) fn redact_value(message: &str, object: &str) -> String {
    // The error of the standard library does not say what is valid.
    if message == "invalid socket address syntax" {
        return format!("expected {ADDRESS}");
    }
    if !QUOTING_PREFIXES.iter().any(|start| message.starts_with(start)) {
        return message.to_owned();
    }
    // Take the last match: the expectation never contains input, but a quoted value may contain these words.
    let expected = message.rsplit_once(", expected ").map_or("another value", |(_, expected)| expected);
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a map" => object,
        "a sequence" => "an array",
        "socket address" => ADDRESS,
        "a boolean" => "`true` or `false`",
        "string or map" | "variant identifier" => "a string",
        _ if expected.starts_with("struct ") => object,
        // `enum Name`, `tuple struct Name` and `newtype struct Name` are Rust type names.
        _ if expected.starts_with("enum ") || expected.contains("struct ") => "another value",
        _ => expected,
    };
    format!("expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redaction_removes_values_and_types() {
        for (message, expected) in [
            (r#"invalid type: string "p, expected u8", expected struct Store"#, "expected a table"),
            ("invalid type: string \"p\", expected u32", "expected a whole number, 0 or more"),
            ("invalid value: integer `-7`, expected u64", "expected a whole number, 0 or more"),
            ("invalid length 3, expected fewer elements in array", "expected fewer elements in array"),
            ("unknown variant `p`, expected one of `error`, `warn`", "expected one of `error`, `warn`"),
            ("unknown variant `p`, expected `text` or `json`", "expected `text` or `json`"),
            ("unknown variant `p`, there are no variants", "expected another value"),
            ("invalid type: map, expected enum Level", "expected another value"),
            ("missing field `issuer`", "missing field `issuer`"),
        ] {
            assert_eq!(redact_value(message, "a table"), expected);
        }
    }
}
