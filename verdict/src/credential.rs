use crate::{CredentialSource, Reason};

/// The one credential of a request. None is different from a wrong one; two are refused, so that no upstream can
/// believe another than the one that was checked.
pub(crate) fn find<'r>(
    sources: &[CredentialSource],
    headers: impl Iterator<Item = (&'r str, &'r [u8])>,
) -> Result<&'r [u8], Reason> {
    let mut found = None;
    for (name, value) in headers {
        for source in sources.iter().filter(|source| source.header.eq_ignore_ascii_case(name)) {
            let Some(credential) = presented(source, value) else { continue };
            // Envoy joins a doubled `Authorization` with a comma before anybody sees it; no credential has one.
            if found.replace(credential).is_some() || credential.contains(&b',') {
                return Err(Reason::CredentialAmbiguous);
            }
        }
    }
    found.ok_or(Reason::CredentialMissing)
}

/// None when the header is empty or has another scheme (RFC 9110 section 11.4: `scheme 1*SP token`).
fn presented<'r>(source: &CredentialSource, value: &'r [u8]) -> Option<&'r [u8]> {
    let credential = match &source.scheme {
        None => value,
        Some(scheme) => {
            let (start, rest) = value.split_at_checked(scheme.len())?;
            let after = rest.strip_prefix(b" ")?;
            if !start.eq_ignore_ascii_case(scheme.as_bytes()) {
                return None;
            }
            after
        }
    };
    let credential = credential.trim_ascii();
    (!credential.is_empty()).then_some(credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> [CredentialSource; 2] {
        [
            CredentialSource { header: "authorization".into(), scheme: Some("Bearer".into()) },
            CredentialSource { header: "x-api-token".into(), scheme: None },
        ]
    }

    #[test]
    fn one_credential_is_found_where_it_may_be() {
        type Headers = &'static [(&'static str, &'static [u8])];
        let cases: [(Headers, Result<&[u8], Reason>); 14] = [
            (&[("authorization", b"Bearer a,Bearer a")], Err(Reason::CredentialAmbiguous)),
            (&[("x-api-token", b"a,b")], Err(Reason::CredentialAmbiguous)),
            (&[("authorization", b"Bearer a")], Ok(b"a")),
            (&[("Authorization", b"bearer  a ")], Ok(b"a")),
            (&[("x-api-token", b"b")], Ok(b"b")),
            (&[("authorization", b"Basic a"), ("x-api-token", b"b")], Ok(b"b")),
            (&[("authorization", b"Basic a")], Err(Reason::CredentialMissing)),
            (&[("authorization", b"Bearer")], Err(Reason::CredentialMissing)),
            (&[("authorization", b"Bearer ")], Err(Reason::CredentialMissing)),
            (&[("authorization", b"Bearera")], Err(Reason::CredentialMissing)),
            (&[("x-api-token", b"")], Err(Reason::CredentialMissing)),
            (&[("other", b"Bearer a")], Err(Reason::CredentialMissing)),
            (
                &[("authorization", b"Bearer a"), ("authorization", b"Bearer a")],
                Err(Reason::CredentialAmbiguous),
            ),
            (&[("authorization", b"Bearer a"), ("x-api-token", b"b")], Err(Reason::CredentialAmbiguous)),
        ];
        for (headers, expected) in cases {
            assert_eq!(find(&sources(), headers.iter().copied()), expected, "{headers:?}");
        }
    }
}
