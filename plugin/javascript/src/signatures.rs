//! Signatures that JavaScript verifies by WebCrypto, whose native code takes a tenth of the time of WebAssembly.
//!
//! WebCrypto is asynchronous, and a decision is not. So a decision is made twice: the first time, the signature that it
//! depends on is recorded and counts as invalid, and the decision is discarded. The second time, the answer of WebCrypto is
//! given, and counts only for exactly the same algorithm, key, message and signature.

use std::{cell::RefCell, collections::VecDeque};

use serde::Serialize;
use verdict::{Algorithm, SignatureVerifier};

/// The maximum number of questions without an answer. A request that loses its question asks again.
const MAX_PENDING: usize = 256;

/// The maximum number of keys that are remembered. More keys than any deployment has.
const MAX_KEYS: usize = 1000;

/// What has to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    algorithm: Algorithm,
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

/// A question as JavaScript gets it. The bytes follow in another call.
#[derive(Debug, Serialize)]
pub(crate) struct QuestionView {
    algorithm: &'static str,
    /// The number of the key, which is imported once.
    key: usize,
    /// The number of the question.
    number: u32,
}

/// The questions whose answers have not arrived yet.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    pending: VecDeque<(u32, Question)>,
    last: u32,
    keys: Vec<(Algorithm, Vec<u8>)>,
}

impl Questions {
    /// Returns the question with this number, which is then not pending any more.
    pub(crate) fn take(&mut self, number: u32) -> Option<Question> {
        let at = self.pending.iter().position(|(pending, _)| *pending == number)?;
        self.pending.remove(at).map(|(_, question)| question)
    }

    pub(crate) fn add(&mut self, question: Question) -> QuestionView {
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        // 0 is not the number of a question.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let (algorithm, key) = (question.algorithm.name(), self.key_number(&question));
        self.pending.push_back((self.last, question));
        QuestionView { algorithm, key, number: self.last }
    }

    /// Returns the key, the signature and the message of the last question, each with its length in front as 32 bits,
    /// big-endian.
    pub(crate) fn last_parts(&self) -> Vec<u8> {
        let Some((_, Question { key, signature, message, .. })) = self.pending.back() else {
            return Vec::new();
        };
        let mut bytes = Vec::with_capacity(key.len().saturating_add(message.len()).saturating_add(1024));
        for part in [key, signature, message] {
            // Nothing in the memory of an instance is longer.
            bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    /// Returns the number of the key. After [`MAX_KEYS`], numbers are not used again.
    fn key_number(&mut self, question: &Question) -> usize {
        let is_same = |(algorithm, key): &(Algorithm, Vec<u8>)| {
            *algorithm == question.algorithm && *key == question.key
        };
        self.keys.iter().position(is_same).unwrap_or_else(|| {
            if self.keys.len() < MAX_KEYS {
                self.keys.push((question.algorithm, question.key.clone()));
                return self.keys.len().saturating_sub(1);
            }
            MAX_KEYS.saturating_add(usize::try_from(self.last).unwrap_or_default())
        })
    }
}

pub(crate) struct HostSignatures<'a> {
    is_available: bool,
    /// `None` inside: the platform cannot verify it, so that it is verified here.
    answer: Option<(&'a Question, Option<bool>)>,
    asked: RefCell<Option<Question>>,
}

impl<'a> HostSignatures<'a> {
    pub(crate) const fn new(is_available: bool, answer: Option<(&'a Question, Option<bool>)>) -> Self {
        Self { is_available, answer, asked: RefCell::new(None) }
    }

    /// Returns what has to be verified before the decision counts.
    pub(crate) fn into_question(self) -> Option<Question> {
        self.asked.into_inner()
    }
}

impl SignatureVerifier for HostSignatures<'_> {
    fn verify(&self, algorithm: Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
        if !self.is_available {
            return None;
        }
        if let Some((question, is_valid)) = self.answer
            && question.algorithm == algorithm
            && question.key == key
            && question.message == message
            && question.signature == signature
        {
            return is_valid;
        }
        let [key, message, signature] = [key, message, signature].map(<[u8]>::to_vec);
        *self.asked.borrow_mut() = Some(Question { algorithm, key, message, signature });
        Some(false)
    }
}
