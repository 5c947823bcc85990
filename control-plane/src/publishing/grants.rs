//! The grants in the bundle.

use bundle::builder::{Builder, TooLarge};

use crate::{
    accounts::grants,
    db::{ReadTransaction, StoreError},
    domain::{Grant, Version},
};

/// Reads the grants that have changed since a version.
pub(super) async fn load(read: &mut ReadTransaction, since: Version) -> Result<Vec<Grant>, StoreError> {
    grants::since(read, since).await
}

/// Replaces the changed grants.
pub(super) fn apply(changed: Vec<Grant>, builder: &mut Builder) -> Result<(), TooLarge> {
    for Grant { subject, statements } in changed {
        let subject = subject.to_string();
        match statements {
            Some(statements) => builder.set_grant(&subject, &statements)?,
            None => builder.remove_grant(&subject),
        };
    }
    Ok(())
}
