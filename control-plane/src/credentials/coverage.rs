//! What other contexts may do with the coverage of the base, within their transactions.

pub use super::queries::coverage::{
    floor_for, floors_after, latest_issued_second, lock_issuance, lower_floors, raise_floor,
};
