//! Patterns and names of operations.

use alloc::{format, string::String};

/// Parses a pattern such as `*`, `Tag:*`, `Tag:list*` or `Tag:listSims`. Returns whether it is a prefix, and its text.
pub(super) fn parse(pattern: &str) -> Result<(bool, &str), String> {
    if pattern == "*" {
        return Ok((true, ""));
    }
    let (prefix, name) = match pattern.strip_suffix('*') {
        Some(start) => (true, start),
        None => (false, pattern),
    };
    match name.split_once(':') {
        Some((tag, operation))
            if is_word(tag) && (is_word(operation) || (prefix && operation.is_empty())) =>
        {
            Ok((prefix, name))
        }
        _ => Err(format!("`{pattern}` is not `*`, `Tag:*`, `Tag:prefix*` or `Tag:operation`")),
    }
}

/// Returns whether a text is the name of an operation, such as `Tag:listSims`.
pub(crate) fn is_name(name: &str) -> bool {
    matches!(parse(name), Ok((false, _)))
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_is_permitted_only_at_the_end() {
        for (pattern, expected) in [
            ("*", (true, "")),
            ("Sim:*", (true, "Sim:")),
            ("Sim:list*", (true, "Sim:list")),
            ("Sim:listSims", (false, "Sim:listSims")),
        ] {
            assert_eq!(parse(pattern), Ok(expected));
        }
        for bad in [
            "",
            ":",
            "Sim",
            "Sim:",
            ":get",
            "Si*",
            "*:get",
            "Sim:*Sim",
            "Sim:a*b*",
            "**",
            "Sim:get:x",
            " Sim:get",
            "Sim:%",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(is_name("Sim:getSim") && !is_name("Sim:get*"));
    }
}
