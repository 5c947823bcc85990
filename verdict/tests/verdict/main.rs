//! The verdict without a proxy: requests, bundles and clocks are values.

mod answers;
mod caches;
mod credentials;
mod decides;
mod demands;
mod issuers;
mod model;
mod modes;
mod permissions;
mod permissions_model;
mod policy_is_strict;
mod policy_page;
mod policy_schema;
mod refreshes;
mod routes;
mod rules_are_strict;
mod silence;
mod thieves;
mod upstreams;
mod world;
