//! Errors of serde without the values that they quote: a value may be a secret.

/// Returns what serde says of a value that does not fit, without the value and without the names of Rust's types.
/// `object` is the word of the format for a map of names and values.
pub(crate) fn without_value(message: &str, object: &str) -> String {
    if !QUOTING.iter().any(|start| message.starts_with(start)) {
        return message.to_owned();
    }
    // What was expected comes last and is never of the input, which may contain these words too.
    let expected = message.rsplit_once(", expected ").map_or("another value", |(_, expected)| expected);
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a map" => object,
        "a sequence" => "an array",
        "socket address" => "an address and a port",
        "string or map" | "variant identifier" => "a string",
        _ if expected.starts_with("struct ") => object,
        // `enum Name`, `tuple struct Name`, `newtype struct Name`: all of them of Rust.
        _ if expected.starts_with("enum ") || expected.contains("struct ") => "another value",
        _ => expected,
    };
    format!("expected {expected}")
}

/// How messages of serde begin that quote a value.
const QUOTING: [&str; 4] = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_types_are_left_out() {
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
            assert_eq!(without_value(message, "a table"), expected);
        }
    }
}
