//! Credentials: their formats, strict parsing, fingerprints and signatures.
//!
//! Each credential has exactly one accepted encoding, and its contents are available only after `verify`:
//!
//! ```text
//! token    --Unverified::parse----------> Unverified --verify(VerifyingKey)------> Authentic
//! API key  --api_key::Unverified::parse-> Unverified --verify(GenerationKey, username)--> Authentic
//! ```
//!
//! This crate uses no clock, network or randomness: these are arguments.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::missing_errors_doc)]
// This code runs in the proxy, where a panic crashes a worker.
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

mod algorithm;
pub mod api_key;
mod base62;
pub mod base64url;
mod claims;
mod crc32;
mod ecdsa;
pub mod ed25519;
mod error;
mod fingerprint;
mod hash;
pub mod json;
mod jwt;
mod key;
#[cfg(feature = "mint")]
pub mod mint;
mod rsa;
pub mod secret;
pub mod upstream_assertion;
#[cfg(all(test, feature = "mint"))]
mod vectors;
mod verifier;

pub use algorithm::Algorithm;
pub use claims::{Claims, Operator};
pub use error::Error;
pub use fingerprint::{Fingerprint, InvalidFingerprint};
pub use jwt::{Authentic, DEFAULT_MAX_TOKEN_BYTES, MAX_TOKEN_BYTES, Unverified};
pub use key::{InvalidKey, VerifyingKey};
pub use verifier::{SignatureVerifier, SoftwareVerifier};
