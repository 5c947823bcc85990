//! Upkeep of the database: the purge of expired rows, and the check of clocks.

pub mod clocks;
pub mod purge;

pub use clocks::{
    ClockConfirmation, ClockError, ClockRepair, check_clock, check_store_clock, instants_ahead, repair_clock,
};
pub use purge::purge_expired;
