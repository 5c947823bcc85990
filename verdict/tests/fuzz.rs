//! One fuzz target per decoder: a short run of each in `cargo test`, a long one by `cargo bolero test`.

use bolero::check;
use verdict::{Lease, Policy};

#[test]
fn policy() {
    check!().for_each(|bytes| assert!(Policy::from_json(bytes).is_err()));
}

#[test]
fn lease() {
    check!().for_each(|bytes| {
        if let Some(lease) = Lease::read(bytes) {
            assert_eq!(lease.bytes(), bytes, "one spelling");
        }
    });
}
