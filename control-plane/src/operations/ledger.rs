//! Group commit: tokens that are issued at the same time become durable in one transaction.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    clock::{Clock, Time},
    model::{Actor, Issuance},
    store::{
        Store, StoreError, audit, in_time,
        issued::{self, Inserted},
    },
};

/// Where issued tokens are entered before they are released.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    sender: mpsc::Sender<Waiting>,
    clock: Clock,
}

impl Ledger {
    /// Returns with it the task that writes, which ends when the ledger is dropped.
    pub(super) fn start(store: Store, clock: Clock) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write(store, receiver));
        (Self { sender, clock }, writer)
    }

    /// Returns when the entry is durable. A caller that goes away meanwhile leaves a token that nobody holds.
    pub(super) async fn enter(&self, issuance: Issuance, actor: Actor) -> Result<Inserted, LedgerError> {
        let (answer, entered) = oneshot::channel();
        let waiting = Waiting { issuance, actor, at: self.clock.now(), answer };
        self.sender.send(waiting).await.map_err(|_| LedgerError::Closed)?;
        entered.await.map_err(|_| LedgerError::Closed)?
    }
}

#[derive(Debug, Clone)]
pub enum LedgerError {
    /// All that shared the transaction are told the same.
    Store(Arc<StoreError>),
    Closed,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Closed => f.write_str("the control plane is stopping"),
        }
    }
}

impl std::error::Error for LedgerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Closed => None,
        }
    }
}

struct Waiting {
    issuance: Issuance,
    actor: Actor,
    at: Time,
    answer: oneshot::Sender<Result<Inserted, LedgerError>>,
}

/// Whatever gathers while one transaction is synced shares the next.
async fn write(store: Store, mut receiver: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        match in_time(PATIENCE, commit(&store, &batch)).await {
            Ok(outcomes) => {
                for (waiting, outcome) in batch.drain(..).zip(outcomes) {
                    let _ = waiting.answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for waiting in batch.drain(..) {
                    let _ = waiting.answer.send(Err(LedgerError::Store(Arc::clone(&error))));
                }
            }
        }
    }
}

async fn commit(store: &Store, batch: &[Waiting]) -> Result<Vec<Inserted>, StoreError> {
    let mut write = store.write().await?;
    let mut outcomes = Vec::with_capacity(batch.len());
    for Waiting { issuance, .. } in batch {
        outcomes.push(issued::insert(&mut write, issuance).await?);
    }
    let entered = batch.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Inserted::Yes);
    let fingerprints: Vec<_> =
        entered.map(|(waiting, _)| (waiting, waiting.issuance.fingerprint.to_string())).collect();
    let changes =
        fingerprints.iter().map(|(Waiting { issuance, actor, at, .. }, fingerprint)| audit::Change {
            at: *at,
            actor,
            action: "token.issue",
            target: fingerprint,
            detail: json!({
                "subject": issuance.subject.to_string(),
                "auth_key_id": issuance.auth_key.as_ref().map(ToString::to_string),
                "session": issuance.session.as_ref().map(ToString::to_string),
                "expires_at": issuance.expires_at,
            }),
        });
    audit::append_all(&mut write, &changes.collect::<Vec<_>>()).await?;
    write.commit().await?;
    Ok(outcomes)
}

/// Longer than anybody waits for a lock.
const PATIENCE: Duration = Duration::from_secs(10);

const QUEUE: usize = 1024;
const BATCH: usize = 128;
