//! The limits of operators.

pub mod operator;
mod queries;
pub(crate) mod rates;
mod reached;

pub use operator::{InstallationSize, count_installation};
pub use queries::purge;
pub(crate) use reached::LimitError;
pub use reached::{LimitKind, LimitReached};
