//! Signatures that JavaScript verifies by WebCrypto, whose native code takes a tenth of the time of WebAssembly.
//!
//! WebCrypto is asynchronous, and a decision is not. So a decision is made twice: the first time, the signature that it
//! depends on is recorded and counts as invalid, and the decision is discarded. The second time, the answer of WebCrypto is
//! given along with the digest of exactly what it verified: the algorithm, the key, the message and the signature.

use std::cell::RefCell;

use serde::Serialize;
use verdict::{Algorithm, Fingerprint, SignatureVerifier};

/// The answer of WebCrypto.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    /// The digest of the question, or empty.
    pub(crate) digest: &'a str,
    /// `None` if the platform cannot verify it, so that it is verified here.
    pub(crate) is_valid: Option<bool>,
}

/// What is to be verified.
#[derive(Debug)]
pub(crate) struct Question {
    algorithm: Algorithm,
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
    digest: String,
}

/// A question as JavaScript gets it. The bytes follow in another call.
#[derive(Debug, Serialize)]
pub(crate) struct QuestionView<'a> {
    algorithm: &'static str,
    /// Identifies the key, which is imported once.
    key: String,
    digest: &'a str,
}

pub(crate) struct HostSignatures<'a> {
    is_available: bool,
    answer: Answer<'a>,
    question: RefCell<Option<Question>>,
}

impl<'a> HostSignatures<'a> {
    pub(crate) const fn new(is_available: bool, answer: Answer<'a>) -> Self {
        Self { is_available, answer, question: RefCell::new(None) }
    }

    /// Returns what has to be verified before the decision counts.
    pub(crate) fn into_question(self) -> Option<Question> {
        self.question.into_inner()
    }
}

impl SignatureVerifier for HostSignatures<'_> {
    fn verify(&self, algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        if !self.is_available {
            return None;
        }
        let digest = digest(algorithm, &[key, message, signature]);
        if digest == self.answer.digest {
            return self.answer.is_valid;
        }
        let [key, message, signature] = [key, message, signature].map(<[u8]>::to_vec);
        *self.question.borrow_mut() = Some(Question { algorithm, key, message, signature, digest });
        Some(false)
    }
}

impl Question {
    pub(crate) fn into_parts(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [self.key, self.signature, self.message] {
            bytes.extend(length(&part));
            bytes.extend(part);
        }
        bytes
    }
}

impl<'a> From<&'a Question> for QuestionView<'a> {
    fn from(question: &'a Question) -> Self {
        let algorithm = question.algorithm.name();
        Self { algorithm, key: digest(question.algorithm, &[&question.key]), digest: &question.digest }
    }
}

/// Returns a digest from which the algorithm and the parts follow: each has its length in front.
fn digest(algorithm: Algorithm, parts: &[&[u8]]) -> String {
    let mut bytes = Vec::with_capacity(2048);
    for part in [algorithm.name().as_bytes()].iter().chain(parts) {
        bytes.extend(length(part));
        bytes.extend(*part);
    }
    Fingerprint::digest(&bytes).into()
}

/// Encodes a length. Nothing in the memory of an instance is longer.
fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes()
}
