//! The limits of operators.

pub mod operator;
pub mod queries;

pub use operator::{InstallationSize, LimitKind, LimitReached, count_installation};
