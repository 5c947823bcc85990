//! Transactions and connections, as queries use them.

use sqlx::{Any, AnyConnection};

use super::{Engine, StoreError};

/// A write transaction. It is rolled back unless it is committed.
pub struct Write {
    engine: Engine,
    transaction: sqlx::Transaction<'static, Any>,
}

impl Write {
    pub(super) const fn new(engine: Engine, transaction: sqlx::Transaction<'static, Any>) -> Self {
        Self { engine, transaction }
    }

    /// Undoes everything.
    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.transaction.rollback().await?)
    }

    /// Commits, and returns when the changes are durable.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }

    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    pub(crate) const fn engine(&self) -> Engine {
        self.engine
    }
}

impl std::fmt::Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Write")
    }
}

/// A read transaction.
pub struct ReadTransaction {
    transaction: sqlx::Transaction<'static, Any>,
}

impl ReadTransaction {
    pub(super) const fn new(transaction: sqlx::Transaction<'static, Any>) -> Self {
        Self { transaction }
    }
}

impl std::fmt::Debug for ReadTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadTransaction")
    }
}

/// A connection for single queries.
pub struct ReadConnection {
    connection: sqlx::pool::PoolConnection<Any>,
}

impl ReadConnection {
    pub(super) const fn new(connection: sqlx::pool::PoolConnection<Any>) -> Self {
        Self { connection }
    }
}

impl std::fmt::Debug for ReadConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadConnection")
    }
}

/// A transaction or connection that lookups can use.
pub trait Executor: Send {
    /// Returns the connection for queries, within the transaction if there is one.
    fn connection(&mut self) -> &mut AnyConnection;
}

impl Executor for Write {
    fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}

impl Executor for ReadTransaction {
    fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}

impl Executor for ReadConnection {
    fn connection(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}
