//! Self-test of the signing key.

use token::{Claims, Operator, Unverified};

use crate::service::Service;

/// Signs and verifies an expired token that is neither recorded nor released.
pub fn self_test_signing_key(service: &Service) -> Result<(), token::Error> {
    let keyring = service.keys.current();
    let signer = keyring.signer();
    let claims = Claims {
        iss: service.config.tokens.issuer.clone(),
        sub: "OP0000000000".to_owned(),
        aud: vec![service.config.tokens.audience.clone()],
        iat: service.now().seconds().get(),
        exp: Some(0),
        nbf: None,
        jti: "rehearsal".to_owned(),
        operator: Operator { operator_id: "OP0000000000".to_owned() },
        akid: None,
        sid: None,
    };
    let token = signer.mint(&claims);
    Unverified::parse(token.expose().as_bytes())?.verify(signer.verifying_key()).map(drop)
}
