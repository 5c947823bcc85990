//! The vectors by subject.

mod api_keys;
mod issuers;
mod places;
mod requirements;
mod responses;
mod revocations;
mod routes;
mod tokens;
mod upstream;

use super::suite::Suite;

pub(super) fn add_all(suite: &mut Suite) {
    tokens::add(suite);
    api_keys::add(suite);
    issuers::add(suite);
    places::add(suite);
    revocations::add(suite);
    routes::add(suite);
    requirements::add(suite);
    responses::add(suite);
    upstream::add(suite);
}
