use alloc::{string::String, vec::Vec};

#[cfg(feature = "mint")]
use serde::{Serialize, Serializer};

use crate::json::{Object, Value};

/// Upper bound of dates: 2^53. All JSON parsers agree on integers below it (RFC 8259 section 6).
const MAX_DATE: u64 = 1 << 53;

/// The claims of a token of this deployment (RFC 7519 section 4). Times are seconds since the Unix epoch.
///
/// Duplicate members are refused. Unknown members are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "mint", derive(Serialize))]
pub struct Claims {
    /// The issuer (RFC 7519 section 4.1.1).
    pub iss: String,
    /// The subject: `OP0123456789` for the root user of an operator, `OP0123456789/alice` for a user of it.
    pub sub: String,
    /// The audiences (RFC 7519 section 4.1.3). A single audience is encoded as a string.
    #[cfg_attr(feature = "mint", serde(serialize_with = "write_audience"))]
    pub aud: Vec<String>,
    /// When the token was issued (RFC 7519 section 4.1.6), in seconds since the Unix epoch.
    pub iat: u64,
    /// When the token expires (RFC 7519 section 4.1.4), in seconds since the Unix epoch. `None`: it does not expire.
    #[cfg_attr(feature = "mint", serde(skip_serializing_if = "Option::is_none"))]
    pub exp: Option<u64>,
    /// From when the token is valid (RFC 7519 section 4.1.5), in seconds since the Unix epoch.
    #[cfg_attr(feature = "mint", serde(skip_serializing_if = "Option::is_none"))]
    pub nbf: Option<u64>,
    /// The id of the token (RFC 7519 section 4.1.7).
    pub jti: String,
    /// The operator that the subject belongs to.
    pub operator: Operator,
    /// The id of the AuthKey that the token was exchanged for.
    #[cfg_attr(feature = "mint", serde(skip_serializing_if = "Option::is_none"))]
    pub akid: Option<String>,
    /// The id of the session that was issued together with the token, which Soracom calls `apiKey`.
    #[cfg_attr(feature = "mint", serde(skip_serializing_if = "Option::is_none"))]
    pub sid: Option<String>,
}

/// The claim from which Soracom's clients read the operator id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "mint", derive(Serialize))]
pub struct Operator {
    /// The operator id, such as `OP0123456789`.
    #[cfg_attr(feature = "mint", serde(rename = "operatorId"))]
    pub operator_id: String,
}

impl Claims {
    pub(crate) fn from_object(from: &Object) -> Option<Self> {
        Some(Self {
            iss: optional_string(from, "iss").ok()??.into(),
            sub: visible_ascii(optional_string(from, "sub").ok()??)?,
            aud: audiences(from)??.map(String::from).collect(),
            iat: from.get("iat")?.as_u64()?,
            exp: optional_seconds(from, "exp")?,
            nbf: optional_seconds(from, "nbf")?,
            jti: optional_string(from, "jti").ok()??.into(),
            operator: Operator {
                operator_id: visible_ascii(from.get("operator")?.get("operatorId")?.as_str()?)?,
            },
            akid: optional_string(from, "akid")
                .ok()?
                .map(|id| visible_ascii(id).ok_or(()))
                .transpose()
                .ok()?,
            sid: optional_string(from, "sid").ok()?.map(|id| visible_ascii(id).ok_or(())).transpose().ok()?,
        })
    }
}

/// Returns an optional whole number. The outer `None` is an error: the claim is present and not a whole number; `null`
/// is not permitted.
fn optional_seconds(from: &Object, name: &str) -> Option<Option<u64>> {
    from.get(name).map_or(Some(None), |value| value.as_u64().map(Some))
}

/// The registered time claims of any token, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeClaims {
    pub(crate) exp: Option<u64>,
    pub(crate) nbf: Option<u64>,
    pub(crate) iat: Option<u64>,
}

impl TimeClaims {
    /// Reads the time claims. Returns the name of a registered claim (RFC 7519 section 4.1) that has a wrong type, if any.
    /// All are optional. Fractions are rounded so that the token is valid for less time.
    pub(crate) fn from_object(from: &Object) -> Result<Self, &'static str> {
        for name in ["iss", "sub", "jti"] {
            optional_string(from, name).map_err(|WrongType| name)?;
        }
        audiences(from).ok_or("aud")?;
        let instant = |name| match from.get(name) {
            None => Ok(None),
            Some(date) => numeric_date(date).map(Some).ok_or(name),
        };
        let (exp, nbf, iat) = (instant("exp")?, instant("nbf")?, instant("iat")?);
        let nbf = nbf.map(|(whole, fraction)| whole.saturating_add(fraction.into()));
        Ok(Self { exp: exp.map(|(whole, _)| whole), nbf, iat: iat.map(|(whole, _)| whole) })
    }
}

/// Returns a text that can be sent in a header unchanged: visible ASCII (RFC 9110 section 5.5).
fn visible_ascii(text: &str) -> Option<String> {
    let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    visible.then(|| text.into())
}

/// The error for a claim of the wrong type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongType;

/// Returns an optional string, or an error if the claim is present and not a string. `null` is not permitted.
pub(crate) fn optional_string<'o>(from: &'o Object, name: &str) -> Result<Option<&'o str>, WrongType> {
    from.get(name).map(|value| value.as_str().ok_or(WrongType)).transpose()
}

/// Returns the audiences: one string or an array of strings (RFC 7519 section 4.1.3). The outer `None` is an error: the
/// claim is present and has another type.
pub(crate) fn audiences(from: &Object) -> Option<Option<impl Iterator<Item = &str>>> {
    let Some(audience) = from.get("aud") else { return Some(None) };
    let audiences = match audience {
        Value::Array(audiences) => audiences.as_slice(),
        one => core::slice::from_ref(one),
    };
    audiences.iter().all(Value::is_string).then(|| Some(audiences.iter().filter_map(Value::as_str)))
}

/// Parses a date: seconds, where "non-integer values can be represented" (RFC 7519 section 2). Returns whole seconds
/// and whether there is a fraction.
fn numeric_date(date: &Value) -> Option<(u64, bool)> {
    if let Some(seconds) = date.as_u64() {
        return (seconds < MAX_DATE).then_some((seconds, false));
    }
    let seconds = date.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float of that range is truncated to whole seconds, as intended"
    )]
    let whole = seconds as u64;
    // `-0` is refused like every negative number.
    let is_in_range = seconds.is_sign_positive() && whole < MAX_DATE;
    is_in_range.then_some((whole, whole as f64 != seconds))
}

#[cfg(feature = "mint")]
fn write_audience<S: Serializer>(audience: &Vec<String>, sink: S) -> Result<S::Ok, S::Error> {
    match audience.as_slice() {
        [one] => sink.serialize_str(one),
        several => sink.collect_seq(several),
    }
}

#[cfg(test)]
mod tests {
    use std::{format, string::ToString};

    use super::*;
    use crate::json;

    const COMPLETE: &str = r#"{"iss":"i","sub":"OP1/alice","aud":"api","iat":1,"exp":2,"jti":"j","operator":{"operatorId":"OP1"}}"#;

    fn parse_claims(text: &str) -> Option<Claims> {
        Claims::from_object(json::parse(text.as_bytes()).ok()?.as_object()?)
    }

    #[test]
    fn single_audience_serializes_as_a_string() {
        let mut claims = parse_claims(COMPLETE).unwrap();
        assert_eq!(claims.aud, ["api"]);
        assert_eq!(serde_json::to_string(&claims).unwrap(), COMPLETE);
        claims.aud.push("other".to_string());
        let written = serde_json::to_string(&claims).unwrap();
        assert!(written.contains(r#""aud":["api","other"]"#), "{written}");
        assert_eq!(parse_claims(&written), Some(claims));
    }

    #[test]
    fn exp_is_optional() {
        let endless = COMPLETE.replacen(r#""exp":2,"#, "", 1);
        let claims = parse_claims(&endless).unwrap();
        assert_eq!(claims, Claims { exp: None, ..parse_claims(COMPLETE).unwrap() });
        assert_eq!(serde_json::to_string(&claims).unwrap(), endless);
    }

    #[test]
    fn from_object_rejects_invalid_claims() {
        for (from, to) in [
            (r#""sub":"OP1/alice""#, r#""sub":"OP1/alice","sub":"OP2""#),
            (r#""sub":"OP1/alice""#, r#""sub":"OP1/alice\r\nx: y""#),
            (r#""sub":"OP1/alice""#, r#""sub":"OP1/\u00e9""#),
            (r#""sub":"OP1/alice""#, r#""sub":"""#),
            (r#"{"operatorId":"OP1"}"#, r#"["OP1"]"#),
            (r#""exp":2"#, r#""exp":2,"akid":"a b""#),
            (r#""exp":2"#, r#""exp":2,"other":1,"other":2"#),
            (r#""exp":2"#, r#""exp":"2""#),
            (r#""exp":2"#, r#""exp":2.5"#),
            (r#""exp":2"#, r#""exp":-2"#),
            (r#""exp":2"#, r#""exp":1e400"#),
            (r#""exp":2"#, r#""exp":2.0"#),
            (r#""exp":2"#, r#""exp":18446744073709551616"#),
            (r#""exp":2"#, r#""exp":2,"nbf":null"#),
            (r#""exp":2"#, r#""exp":2,"sid":null"#),
            (r#""exp":2"#, r#""exp":null"#),
            (r#""aud":"api""#, r#""aud":["api",1]"#),
            (r#""aud":"api""#, r#""aud":null"#),
            ("}}", "}} x"),
        ] {
            let bad = COMPLETE.replacen(from, to, 1);
            assert_ne!(bad, COMPLETE);
            assert!(parse_claims(&bad).is_none(), "{bad}");
        }
        let nested = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(parse_claims(&nested).is_none());
    }

    #[test]
    fn time_claims_accept_fractions() {
        let parse_time_claims =
            |text: &str| TimeClaims::from_object(json::parse(text.as_bytes()).unwrap().as_object().unwrap());
        let all = |exp, nbf, iat| Ok(TimeClaims { exp, nbf, iat });
        assert_eq!(parse_time_claims("{}"), all(None, None, None));
        assert_eq!(parse_time_claims(r#"{"exp":9.9,"nbf":9.1,"iat":9.9}"#), all(Some(9), Some(10), Some(9)));
        assert_eq!(parse_time_claims(r#"{"exp":1.7e9,"nbf":9.0}"#), all(Some(1_700_000_000), Some(9), None));
        for bad in [
            r#"{"nbf":true}"#,
            r#"{"exp":-1}"#,
            r#"{"exp":-0.5}"#,
            r#"{"exp":-0}"#,
            r#"{"exp":-0.0}"#,
            r#"{"exp":9007199254740992.0}"#,
            r#"{"exp":"1"}"#,
            r#"{"exp":null}"#,
            r#"{"exp":9007199254740992}"#,
            r#"{"exp":18446744073709551615}"#,
            r#"{"exp":18446744073709551616}"#,
            r#"{"exp":1e300}"#,
            r#"{"iss":1}"#,
            r#"{"sub":null}"#,
            r#"{"jti":["a"]}"#,
            r#"{"aud":["a",1]}"#,
            r#"{"aud":{}}"#,
        ] {
            let name = bad.split('"').nth(1).unwrap();
            assert_eq!(parse_time_claims(bad), Err(name), "{bad}");
        }
    }
}
