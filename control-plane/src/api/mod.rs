//! The HTTP API. Each module has one group of paths; all call the functions of the contexts.

mod admin;
mod clock_check;
mod edge;
mod extract;
mod health;
mod middleware;
mod openapi;
mod problem;
mod router;
mod soracom;
mod state;

pub use router::{RouterError, router};
use state::AppState;
