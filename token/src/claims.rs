use alloc::{string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What a token says of its bearer (RFC 7519 section 4). Instants are whole seconds since the Unix epoch.
///
/// A member named twice is refused; members not named here are other readers' business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    /// `OP0123456789` for the root user of an operator, `OP0123456789/alice` for a user in it.
    pub sub: String,
    #[serde(serialize_with = "write_audience", deserialize_with = "read_audience")]
    pub aud: Vec<String>,
    pub iat: u64,
    pub exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nbf: Option<u64>,
    pub jti: String,
    pub operator: Operator,
    /// Id of the AuthKey that the token was exchanged for.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub akid: Option<String>,
    /// Session: the id of the API key issued together with the token.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub sid: Option<String>,
}

/// Soracom's clients read the operator id from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    #[serde(rename = "operatorId")]
    pub operator_id: String,
}

/// `null` is not a way to leave a claim out.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}

fn write_audience<S: Serializer>(audience: &Vec<String>, sink: S) -> Result<S::Ok, S::Error> {
    match audience.as_slice() {
        [one] => sink.serialize_str(one),
        several => sink.collect_seq(several),
    }
}

/// RFC 7519 section 4.1.3: one string, or an array of them.
fn read_audience<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    struct Audience;

    impl<'de> de::Visitor<'de> for Audience {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or an array of strings")
        }

        fn visit_str<E: de::Error>(self, one: &str) -> Result<Self::Value, E> {
            Ok(Vec::from([String::from(one)]))
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, several: A) -> Result<Self::Value, A::Error> {
            Deserialize::deserialize(de::value::SeqAccessDeserializer::new(several))
        }
    }

    source.deserialize_any(Audience)
}

#[cfg(test)]
mod tests {
    use std::{format, string::ToString};

    use super::*;

    const COMPLETE: &str = r#"{"iss":"i","sub":"OP1/alice","aud":"api","iat":1,"exp":2,"jti":"j","operator":{"operatorId":"OP1"}}"#;

    #[test]
    fn one_audience_is_a_string_and_several_are_an_array() {
        let mut claims: Claims = serde_json::from_str(COMPLETE).unwrap();
        assert_eq!(claims.aud, ["api"]);
        assert_eq!(serde_json::to_string(&claims).unwrap(), COMPLETE);
        claims.aud.push("other".to_string());
        let written = serde_json::to_string(&claims).unwrap();
        assert!(written.contains(r#""aud":["api","other"]"#), "{written}");
        assert_eq!(serde_json::from_str::<Claims>(&written).unwrap(), claims);
    }

    #[test]
    fn bad_claims_are_refused() {
        for (from, to) in [
            (r#""sub":"OP1/alice""#, r#""sub":"OP1/alice","sub":"OP2""#),
            (r#""exp":2"#, r#""exp":"2""#),
            (r#""exp":2"#, r#""exp":2.5"#),
            (r#""exp":2"#, r#""exp":-2"#),
            (r#""exp":2"#, r#""exp":1e400"#),
            (r#""exp":2"#, r#""exp":18446744073709551616"#),
            (r#""exp":2"#, r#""exp":2,"nbf":null"#),
            (r#""exp":2"#, r#""exp":2,"sid":null"#),
            (r#""exp":2,"#, ""),
            (r#""aud":"api""#, r#""aud":["api",1]"#),
            (r#""aud":"api""#, r#""aud":null"#),
            ("}}", "}} x"),
        ] {
            let bad = COMPLETE.replacen(from, to, 1);
            assert_ne!(bad, COMPLETE);
            assert!(serde_json::from_str::<Claims>(&bad).is_err(), "{bad}");
        }
        let nested = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(serde_json::from_str::<Claims>(&nested).is_err());
    }
}
