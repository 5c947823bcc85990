//! The limits of operators.

pub mod operator;
mod queries;
pub(crate) mod rates;

pub use operator::{InstallationSize, LimitKind, LimitReached, count_installation};
pub use queries::purge;
