//! The tables that all kinds of credentials share.

pub(super) mod coverage;
pub(super) mod issued;
