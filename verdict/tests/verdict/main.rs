//! The verdict without a proxy: requests, bundles and clocks are values.

mod answers;
mod decides;
mod demands;
mod permissions;
mod permissions_model;
mod policy_is_strict;
mod policy_page;
mod refreshes;
mod routes;
mod rules_are_strict;
mod world;
