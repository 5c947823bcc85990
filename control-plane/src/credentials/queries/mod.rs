//! The tables that all kinds of credentials share.

pub mod coverage;
pub mod issued;
