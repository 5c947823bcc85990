//! Tokens of other issuers.

use alloc::{
    borrow::Cow,
    string::{String, ToString},
    vec::Vec,
};
use core::slice;

use serde::Deserialize;
use token::{
    Authentic,
    json::{Object, Value},
};

use crate::{
    config::{non_empty, one_or_more, pairs},
    decision::Reason,
    identity::claim::{self, ClaimMatcher, ClaimName},
};

/// The claims that RFC 9068 section 2.2 requires.
const REQUIRED_CLAIMS: [&str; 7] = ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"];

/// The types of tokens that are accepted by default: those that mean no more than "a JWT" or
/// "a JWS" (RFC 7519 section 5.1, RFC 7515 section 4.1.9), and access tokens (RFC 9068 section 2.1). Every other type
/// belongs to another purpose (RFC 8725 section 3.11): `dpop+jwt`, `logout+jwt`, `secevent+jwt` and so on.
const ACCEPTED_TYPES: [&str; 4] = ["JWT", "at+jwt", "JOSE", "JWS"];

/// Another issuer whose tokens are accepted. The bundle contains its keys.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ForeignIssuer {
    /// The required `iss`, compared byte by byte, or a pattern with named parts, such as
    /// `https://login.example/{tenant}/v2.0`.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub(crate) issuer: String,
    /// The requirements on each named part of `issuer`.
    #[serde(default, deserialize_with = "pairs")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            with = "alloc::collections::BTreeMap<String, IssuerPart>",
            skip_serializing_if = "Vec::is_empty"
        )
    )]
    issuer_parts: Vec<(String, IssuerPart)>,
    /// The accepted audiences: a token must have at least one of them (RFC 8725 section 3.9). Required without
    /// `required_claims`.
    #[serde(default, deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1), skip_serializing_if = "Vec::is_empty"))]
    pub(crate) audiences: Vec<String>,
    /// The claim that contains the audience, `aud` by default.
    #[serde(default)]
    audience_claim: Option<String>,
    /// The claims that every token must have, and the accepted values of each.
    #[serde(default, deserialize_with = "pairs")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            with = "alloc::collections::BTreeMap<String, crate::identity::claim::shape::ClaimMatcher>",
            skip_serializing_if = "Vec::is_empty"
        )
    )]
    required_claims: Vec<(ClaimName, ClaimMatcher)>,
    /// The claim that contains the subject.
    #[serde(default = "default_subject_claim", deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    subject_claim: String,
    /// The accepted types of tokens (`typ`). A token without `typ` counts as `JWT`.
    #[serde(default = "default_types", deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    typ: Vec<String>,
    /// The requirements on the tokens.
    #[serde(default)]
    profile: Profile,
    /// The maximum time from `iat` to `exp`, in seconds.
    #[serde(default)]
    max_lifetime_seconds: Option<u64>,
}

/// The requirements on a named part of an issuer.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerPart {
    /// The claim that must be equal to the part.
    #[serde(deserialize_with = "non_empty")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    claim: String,
    /// The accepted values. Without it: any.
    #[serde(default, deserialize_with = "one_or_more")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1), skip_serializing_if = "Vec::is_empty"))]
    values: Vec<String>,
}

/// The requirements on the tokens of an issuer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Profile {
    /// A JWT with a subject and `exp`. Only its audience distinguishes it from a token for another purpose, such as an
    /// ID token.
    #[default]
    Jwt,
    /// An access token by RFC 9068: of the type `at+jwt`, with all claims that section 2.2 requires.
    Rfc9068,
}

impl ForeignIssuer {
    /// Returns whether the issuer is a pattern with named parts.
    pub(crate) fn has_parts(&self) -> bool {
        self.issuer.as_bytes().contains(&b'{')
    }

    /// Returns the member that is invalid and what is wrong with it, if members contradict each other.
    pub(crate) fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        let Self { issuer, issuer_parts, audiences, audience_claim, required_claims, .. } = self;
        if let Err(message) = self.check_pattern() {
            return Some(("issuer", message));
        }
        let is_used = |(name, _): &(String, IssuerPart)| {
            issuer.split('{').any(|text| text.split_once('}').is_some_and(|(used, _)| used == name))
        };
        if !issuer_parts.iter().all(is_used) {
            return Some(("issuer_parts", "has a part that `issuer` does not contain"));
        }
        if required_claims.iter().any(|(_, matcher)| matcher.path_variable().is_some()) {
            return Some(("required_claims", "an issuer has no path variables"));
        }
        if !audiences.is_empty() {
            return None;
        }
        if audience_claim.is_some() {
            return Some(("audiences", "is required with `audience_claim`: list its accepted values"));
        }
        // Every accepted token has this `iss`, so that requiring it requires nothing.
        required_claims.iter().all(|(name, matcher)| claim::needs_member(&name.0, "iss") || matcher.accepts_any()).then_some((
            "audiences",
            "is required: the values of `aud` for your service. Name another claim in `audience_claim` (`client_id` for \
             Cognito), or demand claims of tokens without an audience in `required_claims`",
        ))
    }

    /// Checks that each part has a name, requirements, and one possible end: the character that follows it.
    fn check_pattern(&self) -> Result<(), &'static str> {
        let mut rest = self.issuer.as_str();
        if rest.starts_with('{') {
            return Err("must not start with a named part");
        }
        while let Some((_, from_name)) = rest.split_once('{') {
            let (name, after) = from_name.split_once('}').ok_or("has `{` without `}`")?;
            if after.starts_with('{') {
                return Err("has two named parts without a character between them");
            }
            if !self.issuer_parts.iter().any(|(known, _)| known == name) {
                return Err("has a named part that `issuer_parts` does not contain");
            }
            rest = after;
        }
        if rest.contains('}') { Err("has `}` without `{`") } else { Ok(()) }
    }

    /// Returns the issuer of a token. An exact issuer takes precedence over patterns, and an earlier pattern over a later
    /// one, so that the key set depends on `iss` alone.
    pub(crate) fn find<'p>(issuers: &'p [Self], issuer: &str) -> Option<&'p Self> {
        let exact = issuers.iter().find(|known| known.issuer_parts.is_empty() && known.issuer == issuer);
        let accepts = |part: &IssuerPart, value: &str| {
            part.values.is_empty() || part.values.iter().any(|known| known == value)
        };
        exact.or_else(|| {
            let mut patterns = issuers.iter().filter(|known| !known.issuer_parts.is_empty());
            patterns.find(|known| known.match_parts(issuer, &accepts).is_ok())
        })
    }

    /// Matches an `iss` with the pattern. Returns an error if it does not match, with the part if `accepts` returns false
    /// for it. A part ends before the first occurrence of the character that follows it in the pattern, so there is one
    /// way to match.
    fn match_parts<'p>(
        &'p self,
        issuer: &str,
        accepts: &dyn Fn(&IssuerPart, &str) -> bool,
    ) -> Result<(), Option<&'p IssuerPart>> {
        let (mut pattern, mut rest) = (self.issuer.as_str(), issuer);
        while let Some((literal, from_name)) = pattern.split_once('{') {
            let (name, after) = from_name.split_once('}').ok_or(None)?;
            let from_value = rest.strip_prefix(literal).ok_or(None)?;
            let end = after.chars().next().and_then(|next| from_value.find(next));
            let (value, from_end) = from_value.split_at(end.unwrap_or(from_value.len()));
            let mut parts = self.issuer_parts.iter().filter(|(known, _)| known == name);
            let (_, part) = parts.next().filter(|_| is_part(value)).ok_or(None)?;
            if !accepts(part, value) {
                return Err(Some(part));
            }
            (pattern, rest) = (after, from_end);
        }
        if rest == pattern { Ok(()) } else { Err(None) }
    }

    /// Checks the requirements that do not depend on the current time. Returns the reason for a refusal, with the name of
    /// the claim if it is because of one, else an empty name.
    pub(crate) fn check(&self, token: &Authentic) -> Result<(), (Reason, &str)> {
        let members = token.members();
        // RFC 7519 section 5.1: `typ` is not required.
        let typ = token.typ().unwrap_or("JWT");
        let is_accepted = self.typ.iter().any(|known| is_same_media_type(known, typ));
        let is_rfc9068 = self.profile == Profile::Rfc9068;
        if !is_accepted || (is_rfc9068 && !is_same_media_type("at+jwt", typ)) {
            return Err((Reason::TokenTypeWrong, ""));
        }
        let required = if is_rfc9068 { &REQUIRED_CLAIMS[..] } else { &[] };
        let required = required.iter().chain(&["exp"]).chain(self.max_lifetime_seconds.and(Some(&"iat")));
        for name in required {
            if !members.contains_key(*name) {
                return Err((Reason::TokenIncomplete, name));
            }
        }
        let (issued_at, expires_at) = (token.issued_at(), token.expires_at().unwrap_or_default());
        let lifetime = expires_at.saturating_sub(issued_at.unwrap_or_default());
        if self.max_lifetime_seconds.is_some_and(|max_lifetime| lifetime > max_lifetime) {
            return Err((Reason::LifetimeTooLong, ""));
        }
        let is_claimed = |part: &IssuerPart, value: &str| {
            claim::get(members, &part.claim).and_then(Value::as_str) == Some(value)
        };
        if !self.issuer_parts.is_empty() {
            self.match_parts(token.issuer().unwrap_or_default(), &is_claimed).map_err(|part| {
                let name = part.map_or("", |part| &part.claim);
                let is_missing = claim::get(members, name).is_none();
                (if is_missing { Reason::TokenIncomplete } else { Reason::IssuerUnknown }, name)
            })?;
        }
        if !self.audiences.is_empty() && !claim::has_audience(self.audience(members), &self.audiences) {
            return Err((Reason::AudienceMismatch, self.audience_claim()));
        }
        for required in &self.required_claims {
            claim::check_claims(members, slice::from_ref(required), &[])
                .map_err(|reason| (reason, required.0.0.as_str()))?;
        }
        Ok(())
    }

    fn audience_claim(&self) -> &str {
        self.audience_claim.as_deref().unwrap_or("aud")
    }

    /// Returns the claim that contains the audience.
    pub(crate) fn audience<'t>(&self, members: &'t Object) -> Option<&'t Value> {
        claim::get(members, self.audience_claim())
    }

    /// Returns whether the audience is in another claim than `aud`.
    pub(crate) const fn has_audience_claim(&self) -> bool {
        self.audience_claim.is_some()
    }

    pub(crate) fn subject_claim(&self) -> &str {
        &self.subject_claim
    }

    /// Returns the subject: any text without control characters, or a whole number. An error is that of
    /// [`Self::check`].
    pub(crate) fn subject<'t>(&self, members: &'t Object) -> Result<Cow<'t, str>, (Reason, &str)> {
        let subject = match claim::get(members, &self.subject_claim) {
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            other => match other.and_then(Value::as_u64) {
                Some(number) => Cow::Owned(number.to_string()),
                None => Cow::Borrowed(""),
            },
        };
        let reason = if subject.is_empty() {
            Reason::TokenIncomplete
        } else if subject.chars().any(char::is_control) {
            Reason::SubjectMalformed
        } else {
            return Ok(subject);
        };
        Err((reason, &self.subject_claim))
    }
}

/// Returns whether a text can be a part of an issuer: the unreserved characters of URIs (RFC 3986 section 2.3), which
/// need no encoding. So no part contains a slash, in any form, or is a dot segment.
fn is_part(text: &str) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().all(is_permitted) && text.bytes().any(|byte| byte != b'.')
}

/// Returns whether two values of `typ` are the same media type: letter case has no significance (RFC 2045 section 5.1),
/// and neither has `application/` if no other slash follows (RFC 7515 section 4.1.9).
fn is_same_media_type(one: &str, other: &str) -> bool {
    short_media_type(one).eq_ignore_ascii_case(short_media_type(other))
}

fn short_media_type(typ: &str) -> &str {
    const APPLICATION: &str = "application/";
    match typ.split_at_checked(APPLICATION.len()) {
        Some((start, subtype)) if start.eq_ignore_ascii_case(APPLICATION) && !subtype.contains('/') => {
            subtype
        }
        _ => typ,
    }
}

fn default_types() -> Vec<String> {
    ACCEPTED_TYPES.map(String::from).into()
}

fn default_subject_claim() -> String {
    "sub".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515 section 4.1.9: letter case has no significance, and neither has `application/` without another slash.
    #[test]
    fn media_types_are_compared_as_rfc_7515_says() {
        for (one, other, expected) in [
            ("at+jwt", "at+jwt", true),
            ("at+jwt", "AT+JWT", true),
            ("application/at+jwt", "at+jwt", true),
            ("Application/AT+JWT", "application/at+jwt", true),
            ("JWT", "at+jwt", false),
            ("JWT", "", false),
            ("JWT", "JWT ", false),
            ("JWT", " JWT", false),
            ("JWT", "JWT;v=1", false),
            ("JWT", "application/jwt;v=1", false),
            ("JWT", "application/ jwt", false),
            ("JWT", "application/application/jwt", false),
            ("JWT", "text/jwt", false),
            ("JWT", "/jwt", false),
            ("JWT", "jwt/", false),
            ("application/", "", true),
            ("JWT", "J\u{2003}WT", false),
            // The long s, which is an S in upper case.
            ("JOSE", "JO\u{17f}E", false),
            ("applicat\u{131}on/jwt", "jwt", false),
        ] {
            assert_eq!(is_same_media_type(one, other), expected, "{one:?} {other:?}");
            assert_eq!(is_same_media_type(other, one), expected, "{other:?} {one:?}");
        }
    }
}
