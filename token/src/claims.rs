use alloc::{string::String, vec::Vec};

#[cfg(feature = "mint")]
use serde::{Serialize, Serializer};

use crate::json::{Object, Value};

/// What a token of our own says of its bearer (RFC 7519 section 4). Instants are whole seconds since the Unix epoch.
///
/// A member named twice is refused; members not named here are other readers' business.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "mint", derive(Serialize))]
pub struct Claims {
    /// Issuer (RFC 7519 section 4.1.1).
    pub iss: String,
    /// `OP0123456789` for the root user of an operator, `OP0123456789/alice` for a user in it.
    pub sub: String,
    /// Audiences (section 4.1.3); a single one is written as a string.
    #[cfg_attr(feature = "mint", serde(serialize_with = "write_audience"))]
    pub aud: Vec<String>,
    /// Issued at (section 4.1.6), in seconds.
    pub iat: u64,
    /// None: it is good until it is revoked.
    #[cfg_attr(feature = "mint", serde(skip_serializing_if = "Option::is_none"))]
    pub exp: Option<u64>,
    /// Not before (section 4.1.5), in seconds.
    #[cfg_attr(feature = "mint", serde(skip_serializing_if = "Option::is_none"))]
    pub nbf: Option<u64>,
    /// Id of the token (section 4.1.7).
    pub jti: String,
    /// The operator that the subject belongs to.
    pub operator: Operator,
    /// Id of the AuthKey that the token was exchanged for.
    #[cfg_attr(feature = "mint", serde(skip_serializing_if = "Option::is_none"))]
    pub akid: Option<String>,
    /// Session: the id of the API key issued together with the token.
    #[cfg_attr(feature = "mint", serde(skip_serializing_if = "Option::is_none"))]
    pub sid: Option<String>,
}

/// Soracom's clients read the operator id from here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "mint", derive(Serialize))]
pub struct Operator {
    /// `OP0123456789`.
    #[cfg_attr(feature = "mint", serde(rename = "operatorId"))]
    pub operator_id: String,
}

impl Claims {
    pub(crate) fn read(from: &Object) -> Option<Self> {
        Some(Self {
            iss: text(from, "iss")??.into(),
            sub: identity(text(from, "sub")??)?,
            aud: audiences(from)??.map(String::from).collect(),
            iat: from.get("iat")?.as_u64()?,
            exp: second(from, "exp")?,
            nbf: second(from, "nbf")?,
            jti: text(from, "jti")??.into(),
            operator: Operator { operator_id: identity(from.get("operator")?.get("operatorId")?.as_str()?)? },
            akid: text(from, "akid")?.map(|id| identity(id).ok_or(())).transpose().ok()?,
            sid: text(from, "sid")?.map(|id| identity(id).ok_or(())).transpose().ok()?,
        })
    }
}

/// None if it is there and no whole number; `null` is not a way to leave a claim out.
fn second(from: &Object, name: &str) -> Option<Option<u64>> {
    from.get(name).map_or(Some(None), |second| second.as_u64().map(Some))
}

/// The instants that any token may name, whoever issued it, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instants {
    pub(crate) exp: Option<u64>,
    pub(crate) nbf: Option<u64>,
    pub(crate) iat: Option<u64>,
}

impl Instants {
    /// None if a claim that RFC 7519 section 4.1 names has another type than there: all are optional, none may be
    /// nonsense. Fractions are cut to the side on which the token holds for less time.
    pub(crate) fn read(from: &Object) -> Option<Self> {
        for name in ["iss", "sub", "jti"] {
            text(from, name)?;
        }
        audiences(from)?;
        let instant = |name| match from.get(name) {
            None => Some(None),
            Some(date) => numeric_date(date).map(Some),
        };
        let (exp, nbf, iat) = (instant("exp")?, instant("nbf")?, instant("iat")?);
        let nbf = nbf.map(|(whole, fraction)| whole.saturating_add(fraction.into()));
        Some(Self { exp: exp.map(|(whole, _)| whole), nbf, iat: iat.map(|(whole, _)| whole) })
    }
}

/// What goes to the upstream in a header: visible ASCII, so that it arrives as it was signed (RFC 9110 section 5.5).
fn identity(text: &str) -> Option<String> {
    let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    visible.then(|| text.into())
}

/// None if it is there and no string; `null` is not a way to leave a claim out.
pub(crate) fn text<'o>(from: &'o Object, name: &str) -> Option<Option<&'o str>> {
    from.get(name).map_or(Some(None), |text| text.as_str().map(Some))
}

/// RFC 7519 section 4.1.3: one string, or an array of them. None if it is there and neither.
pub(crate) fn audiences(from: &Object) -> Option<Option<impl Iterator<Item = &str>>> {
    let Some(audience) = from.get("aud") else { return Some(None) };
    let several = match audience {
        Value::Array(several) => several.as_slice(),
        one => core::slice::from_ref(one),
    };
    several.iter().all(Value::is_string).then(|| Some(several.iter().filter_map(Value::as_str)))
}

/// RFC 7519 section 2: seconds, "non-integer values can be represented". Whole seconds and whether there is more.
fn numeric_date(date: &Value) -> Option<(u64, bool)> {
    if let Some(seconds) = date.as_u64() {
        return (seconds < LAST_DATE).then_some((seconds, false));
    }
    let seconds = date.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float of that range is cut to its whole seconds, which is what is asked for"
    )]
    let whole = seconds as u64;
    // `-0` is no date, as no negative number is.
    let is_in_range = seconds.is_sign_positive() && whole < LAST_DATE;
    is_in_range.then_some((whole, whole as f64 != seconds))
}

#[cfg(feature = "mint")]
fn write_audience<S: Serializer>(audience: &Vec<String>, sink: S) -> Result<S::Ok, S::Error> {
    match audience.as_slice() {
        [one] => sink.serialize_str(one),
        several => sink.collect_seq(several),
    }
}

/// Up to 2^53 every reader of JSON sees the same number (RFC 8259 section 6).
const LAST_DATE: u64 = 1 << 53;

#[cfg(test)]
mod tests {
    use std::{format, string::ToString};

    use super::*;
    use crate::json;

    const COMPLETE: &str = r#"{"iss":"i","sub":"OP1/alice","aud":"api","iat":1,"exp":2,"jti":"j","operator":{"operatorId":"OP1"}}"#;

    fn read(text: &str) -> Option<Claims> {
        Claims::read(json::parse(text.as_bytes()).ok()?.as_object()?)
    }

    #[test]
    fn one_audience_is_a_string_and_several_are_an_array() {
        let mut claims = read(COMPLETE).unwrap();
        assert_eq!(claims.aud, ["api"]);
        assert_eq!(serde_json::to_string(&claims).unwrap(), COMPLETE);
        claims.aud.push("other".to_string());
        let written = serde_json::to_string(&claims).unwrap();
        assert!(written.contains(r#""aud":["api","other"]"#), "{written}");
        assert_eq!(read(&written), Some(claims));
    }

    #[test]
    fn a_token_that_lives_until_it_is_revoked_names_no_end() {
        let endless = COMPLETE.replacen(r#""exp":2,"#, "", 1);
        let claims = read(&endless).unwrap();
        assert_eq!(claims, Claims { exp: None, ..read(COMPLETE).unwrap() });
        assert_eq!(serde_json::to_string(&claims).unwrap(), endless);
    }

    #[test]
    fn bad_claims_are_refused() {
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
            assert!(read(&bad).is_none(), "{bad}");
        }
        let nested = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(read(&nested).is_none());
    }

    #[test]
    fn dates_of_other_issuers_may_have_fractions() {
        let read = |text: &str| Instants::read(json::parse(text.as_bytes()).unwrap().as_object().unwrap());
        let all = |exp, nbf, iat| Some(Instants { exp, nbf, iat });
        assert_eq!(read("{}"), all(None, None, None));
        assert_eq!(read(r#"{"exp":9.9,"nbf":9.1,"iat":9.9}"#), all(Some(9), Some(10), Some(9)));
        assert_eq!(read(r#"{"exp":1.7e9,"nbf":9.0}"#), all(Some(1_700_000_000), Some(9), None));
        for bad in [
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
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
