//! The thread that wakes the others: Envoy has no timers for modules.
//!
//! It wakes each worker that has open streams, so that it checks them, and the main thread. It decides nothing, and it runs
//! only while a configuration uses its source.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::worker::{Edge, Period, TICK_EVENT, Worker};

/// The period while there are open streams: `verdict` spreads its checks over ticks of this period.
const STREAMS_PERIOD: Duration = Duration::from_millis(25);

/// The period while many streams are ended, a few in each check: clients need time to read their responses.
const ENDING_PERIOD: Duration = Duration::from_millis(10);

/// The period of the main thread, and of the thread itself without open streams. A response of the control plane wakes the
/// main thread at once, so that this is only how late metrics, retries and log lines are.
const MAIN_PERIOD: Duration = Duration::from_millis(100);

/// Whom the timer wakes, and the users of the source of a bundle.
#[derive(Default)]
pub(crate) struct Members {
    edges: Mutex<Vec<Weak<Edge>>>,
    workers: Mutex<Vec<Weak<Worker>>>,
    signal: Mutex<Signal>,
    signaled: Condvar,
}

#[derive(Default)]
struct Signal {
    stops: bool,
    /// There is a newer bundle.
    is_due: bool,
}

impl Members {
    pub(crate) fn add(&self, edge: &Arc<Edge>, workers: &[Arc<Worker>]) {
        lock(&self.edges).push(Arc::downgrade(edge));
        lock(&self.workers).extend(workers.iter().map(Arc::downgrade));
    }

    /// Makes the timer wake all workers now.
    pub(crate) fn wake_now(&self) {
        lock(&self.signal).is_due = true;
        self.signaled.notify_all();
    }

    /// Returns the workers of all configurations.
    pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
        let mut workers = lock(&self.workers);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.iter().filter_map(Weak::upgrade).collect()
    }

    fn edges(&self) -> Vec<Arc<Edge>> {
        let mut edges = lock(&self.edges);
        edges.retain(|edge| edge.strong_count() > 0);
        edges.iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits for a period or a signal. Returns false if the thread has to stop.
    fn wait(&self, period: Duration) -> bool {
        let signal = lock(&self.signal);
        let waits = |signal: &mut Signal| !signal.stops && !signal.is_due;
        let waited = self.signaled.wait_timeout_while(signal, period, waits);
        let (mut signal, _) = waited.unwrap_or_else(PoisonError::into_inner);
        signal.is_due = false;
        !signal.stops
    }

    fn run(&self) {
        let mut main_at = Instant::now();
        let mut period = MAIN_PERIOD;
        while self.wait(period) {
            period = match self.workers().iter().map(|worker| worker.wake()).max() {
                Some(Period::Ending) => ENDING_PERIOD,
                Some(Period::Streams) => STREAMS_PERIOD,
                Some(Period::Idle) | None => MAIN_PERIOD,
            };
            if main_at.elapsed() >= MAIN_PERIOD {
                main_at = Instant::now();
                self.edges().iter().for_each(|edge| edge.wake.commit(TICK_EVENT));
            }
        }
    }
}

/// The running thread. It ends with this object.
pub(crate) struct Timer {
    members: Arc<Members>,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    /// Returns `None` if the process can have no more threads.
    pub(crate) fn start(members: &Arc<Members>) -> Option<Self> {
        lock(&members.signal).stops = false;
        let shared = Arc::clone(members);
        let thread = thread::Builder::new().name("keystile".to_owned()).spawn(move || shared.run()).ok()?;
        Some(Self { members: Arc::clone(members), thread: Some(thread) })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        lock(&self.members.signal).stops = true;
        self.members.signaled.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread does not panic.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
