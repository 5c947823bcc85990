//! The issuance log: every token is durable in the store before it is released. Tokens that are issued at the same time
//! share a transaction (group commit).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    credentials::queries::issued::{self, IssueOutcome},
    db::{AuditLine, Store, StoreError, with_timeout},
    domain::{Actor, Event, IssuedCredential, UnixMillis},
    platform::clock::Clock,
};

/// The limit of a transaction: longer than the lock timeouts of the databases.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many tokens may wait for a transaction.
const MAX_QUEUED: usize = 1024;

/// How many tokens share a transaction.
const MAX_BATCH: usize = 128;

/// A handle to the task that writes issued tokens. Clones share the task.
#[derive(Debug, Clone)]
pub(crate) struct IssuanceLog {
    sender: mpsc::Sender<PendingInsert>,
    clock: Clock,
}

impl IssuanceLog {
    /// Starts the writing task and returns it too. The task ends when the last handle is dropped.
    pub(crate) fn start(store: Store, clock: Clock) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        let writer = tokio::spawn(write(store, receiver));
        (Self { sender, clock }, writer)
    }

    /// Inserts a token, and returns when it is durable. If the caller is canceled, the entry may remain without the token
    /// being released.
    pub(crate) async fn record(
        &self,
        issuance: IssuedCredential,
        actor: Actor,
    ) -> Result<IssueOutcome, IssuanceLogError> {
        let (answer, outcome) = oneshot::channel();
        let pending = PendingInsert { issuance, actor, at: self.clock.now(), answer };
        self.sender.send(pending).await.map_err(|_| IssuanceLogError::Closed)?;
        outcome.await.map_err(|_| IssuanceLogError::Closed)?
    }
}

/// Why a token could not be recorded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IssuanceLogError {
    /// The transaction failed. All tokens that share it get the same error.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The writing task has ended.
    #[error("the control plane is stopping")]
    Closed,
}

/// A token that waits for a transaction.
struct PendingInsert {
    issuance: IssuedCredential,
    actor: Actor,
    at: UnixMillis,
    answer: oneshot::Sender<Result<IssueOutcome, IssuanceLogError>>,
}

/// Writes batches: tokens that arrive during a transaction share the next one.
async fn write(store: Store, mut receiver: mpsc::Receiver<PendingInsert>) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while receiver.recv_many(&mut batch, MAX_BATCH).await > 0 {
        match with_timeout(COMMIT_TIMEOUT, commit(&store, &batch)).await {
            Ok(outcomes) => {
                for (pending, outcome) in batch.drain(..).zip(outcomes) {
                    let _ = pending.answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for pending in batch.drain(..) {
                    let _ = pending.answer.send(Err(IssuanceLogError::Store(Arc::clone(&error))));
                }
            }
        }
    }
}

/// Inserts a batch with its audit entries in one transaction. Returns the outcome of each insert.
async fn commit(store: &Store, batch: &[PendingInsert]) -> Result<Vec<IssueOutcome>, StoreError> {
    let mut upkeep = store.upkeep().await?;
    let mut outcomes = Vec::with_capacity(batch.len());
    for PendingInsert { issuance, .. } in batch {
        outcomes.push(issued::insert(upkeep.db(), issuance).await?);
    }
    let inserted = batch.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == IssueOutcome::Inserted);
    let events: Vec<(&PendingInsert, Event)> = inserted
        .map(|(pending, _)| (pending, Event::TokenIssued { issuance: Box::new(pending.issuance.clone()) }))
        .collect();
    let lines: Vec<_> = events
        .iter()
        .map(|(PendingInsert { actor, at, .. }, event)| AuditLine { at: *at, actor, event })
        .collect();
    upkeep.commit_with(&lines).await?;
    Ok(outcomes)
}
