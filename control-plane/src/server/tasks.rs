//! Background tasks, which run until the server stops. None of them may end by itself.

use std::{collections::HashMap, future::Future, panic::resume_unwind};

use tokio::task::{Id, JoinError, JoinHandle, JoinSet};

/// A set of named background tasks. Dropping the set does not abort the tasks: one may be writing.
#[derive(Debug, Default)]
pub(super) struct BackgroundTasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl BackgroundTasks {
    /// Spawns a task.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Adds a task that was spawned elsewhere.
    pub(super) fn adopt(&mut self, name: &'static str, task: JoinHandle<()>) {
        self.spawn(name, async move {
            if let Err(error) = task.await
                && let Ok(panic) = error.try_into_panic()
            {
                resume_unwind(panic);
            }
        });
    }

    /// Returns the first task that ends or panics. Never returns if there is no task.
    pub(super) async fn wait_first_ended(&mut self) -> TaskEnded {
        match self.running.join_next_with_id().await {
            Some(joined) => self.name_ended(joined),
            None => std::future::pending().await,
        }
    }

    /// Waits until all tasks have ended. Returns the first one that panicked.
    pub(super) async fn wait_all(&mut self) -> Result<(), TaskEnded> {
        let mut outcome = Ok(());
        while let Some(joined) = self.running.join_next_with_id().await {
            let ended = self.name_ended(joined);
            if ended.panicked && outcome.is_ok() {
                outcome = Err(ended);
            }
        }
        outcome
    }

    fn name_ended(&mut self, joined: Result<(Id, ()), JoinError>) -> TaskEnded {
        let (id, panicked) = match joined {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        TaskEnded { name: self.names.remove(&id).unwrap_or("unknown"), panicked }
    }
}

impl Drop for BackgroundTasks {
    fn drop(&mut self) {
        self.running.detach_all();
    }
}

/// A background task that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the background task `{name}` {}", if *.panicked { "panicked" } else { "ended by itself" })]
pub struct TaskEnded {
    pub name: &'static str,
    pub panicked: bool,
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use tokio::{sync::oneshot, time::sleep};

    use super::*;

    fn broken(holds: bool) {
        assert!(holds, "a defect");
    }

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named() {
        let mut tasks = BackgroundTasks::default();
        tasks.spawn("steady", std::future::pending());
        tasks.spawn("brief", async {});
        assert_eq!(tasks.wait_first_ended().await, TaskEnded { name: "brief", panicked: false });
        tasks.spawn("broken", async { broken(false) });
        assert_eq!(tasks.wait_first_ended().await, TaskEnded { name: "broken", panicked: true });
        tasks.adopt("adopted", tokio::spawn(async { broken(false) }));
        assert_eq!(tasks.wait_first_ended().await, TaskEnded { name: "adopted", panicked: true });
    }

    #[tokio::test]
    async fn drain_waits_for_all_tasks_and_reports_a_panic() {
        let mut tasks = BackgroundTasks::default();
        let written = Arc::<AtomicBool>::default();
        let writes = Arc::clone(&written);
        tasks.spawn("broken", async { broken(false) });
        tasks.spawn("slow", async move {
            sleep(Duration::from_millis(100)).await;
            writes.store(true, Ordering::SeqCst);
        });
        assert_eq!(tasks.wait_all().await, Err(TaskEnded { name: "broken", panicked: true }));
        assert!(written.load(Ordering::SeqCst));
        assert_eq!(tasks.wait_all().await, Ok(()));
    }

    #[tokio::test]
    async fn dropping_the_set_aborts_no_task() {
        let mut tasks = BackgroundTasks::default();
        let (sender, receiver) = oneshot::channel();
        tasks.spawn("slow", async move {
            sleep(Duration::from_millis(50)).await;
            let _ = sender.send(());
        });
        drop(tasks);
        assert_eq!(receiver.await, Ok(()));
    }
}
