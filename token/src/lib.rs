//! Credentials: their formats, strict parsing, fingerprints and signatures.
//!
//! A credential has exactly one accepted spelling, and only [`Unverified::verify`] leads to its claims:
//!
//! ```text
//! bytes --Unverified::parse--> Unverified --verify(key)--> Authentic --claims()--> Claims
//! ```
//!
//! Nothing here knows the time, a network or randomness: they are arguments.
#![no_std]
// This runs inside the proxy, where a panic takes a worker down.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod base64url;
mod claims;
mod error;
mod fingerprint;
mod jwt;
mod key;
#[cfg(feature = "mint")]
pub mod mint;
pub mod secret;

pub use claims::{Claims, Operator};
pub use error::Error;
pub use fingerprint::{Fingerprint, NotAFingerprint};
pub use jwt::{Authentic, MAX_TOKEN_BYTES, Unverified};
pub use key::{Algorithm, BadKey, VerifyingKey};
