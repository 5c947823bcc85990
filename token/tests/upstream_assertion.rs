//! Upstream assertions are valid JWTs.

use token::{InvalidKey, Unverified, VerifyingKey, upstream_assertion::AssertionSigner};

#[test]
fn assertions_are_valid_tokens() {
    let signer = AssertionSigner::new(&[7; 32]).unwrap();
    let assertion = signer.sign(r#"{"iss":"edge","aud":"upstream"}"#);
    let key = VerifyingKey::foreign("edge", "", token::Algorithm::Hs256, &[7; 32]).unwrap();
    let opened = Unverified::parse(assertion.as_bytes()).unwrap().verify(&key).unwrap();
    assert_eq!(opened.issuer(), Some("edge"));
    assert_eq!(opened.audiences().collect::<Vec<_>>(), ["upstream"]);
    let other = VerifyingKey::foreign("edge", "", token::Algorithm::Hs256, &[8; 32]).unwrap();
    assert!(Unverified::parse(assertion.as_bytes()).unwrap().verify(&other).is_err());
}

#[test]
fn short_secrets_are_refused() {
    assert_eq!(AssertionSigner::new(&[7; 31]).unwrap_err(), InvalidKey::Weak);
    assert_eq!(format!("{:?}", AssertionSigner::new(&[7; 32]).unwrap()), "AssertionSigner(..)");
}
