//! The verdict without a proxy: requests, bundles and clocks are values.

mod answers;
mod decides;
mod permissions;
mod policy_is_strict;
mod policy_page;
mod refreshes;
mod routes;
mod world;
