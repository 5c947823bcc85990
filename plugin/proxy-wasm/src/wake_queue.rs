//! How the workers of one process wake each other: each has a shared queue, and for an entry in it the host calls
//! `proxy_on_queue_ready` on the thread of the worker that registered the queue last.
//!
//! An entry means only that there is something new in shared data. Each queue is emptied before an entry is added, so
//! that it never has more than one (two, if two workers do this at once), even while its worker cannot take any: the
//! host keeps every entry permanently.
//!
//! The queue is named by the row of the worker in the table of workers. A worker that replaces one that has ended takes
//! its row, and with it the queue, so there are never more queues than rows. The names are not registered in
//! `proxy_on_configure`, which a host also calls in a VM that only validates the configuration.
//!
//! # What can go wrong
//!
//! | Case | Consequence |
//! |---|---|
//! | The host has no queues, or delivers no callbacks | The queue is never confirmed, and ticks remain frequent. |
//! | The VM of a worker has crashed | The callbacks are lost until the new VM has registered a queue in its first tick. |
//! | Another filter, or a worker in the same row, registers the name | A tick finds what no entry has announced. The queue is no longer confirmed, and the worker registers it again. |
//! | The plugin configuration is replaced | The new plugin context has its own row and queue. Those of the old one end with it. |

use crate::hostcalls::{self, HostError};

/// The maximum number of entries that are removed at a time. There are more only if another filter adds them.
const MAX_REMOVED: usize = 16;

/// Any byte: only its arrival counts.
const ENTRY: &[u8] = &[0];

pub(crate) struct WakeQueue {
    prefix: String,
    /// The row whose queue this worker has registered last.
    row: Option<usize>,
    /// The ID of that queue, if the host has queues.
    queue: Option<u32>,
    /// Whether the host has called back for an entry, and no entry has been missed since.
    is_confirmed: bool,
}

impl WakeQueue {
    pub(crate) const fn new(prefix: String) -> Self {
        Self { prefix, row: None, queue: None, is_confirmed: false }
    }

    /// Returns whether a worker that adds an entry wakes this one.
    pub(crate) const fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// Registers the queue of a row of the table, unless this has been done and is known to work. An entry of its own
    /// confirms that it does.
    pub(crate) fn register(&mut self, row: usize) {
        if self.is_confirmed && self.row == Some(row) {
            return;
        }
        self.is_confirmed = false;
        self.row = Some(row);
        self.queue = hostcalls::register_shared_queue(&self.name(row)).ok();
        if self.queue.is_some() {
            self.wake(row);
        }
    }

    /// To be called when the host reports an entry. After a crash, this can be the queue of the previous VM.
    pub(crate) fn on_ready(&mut self, queue: u32) {
        if self.queue == Some(queue) {
            self.is_confirmed = true;
        }
    }

    /// To be called when a tick finds what an entry should have announced.
    pub(crate) const fn on_missed(&mut self) {
        self.is_confirmed = false;
    }

    /// Wakes the worker in a row of the table. If that fails, for example because it has not registered its queue yet, it
    /// finds what is new in its next tick.
    pub(crate) fn wake(&self, row: usize) {
        if let Ok(queue) = hostcalls::resolve_shared_queue(&self.name(row))
            && empty(queue)
        {
            let _ = hostcalls::enqueue_shared_queue(queue, ENTRY);
        }
    }

    fn name(&self, row: usize) -> String {
        format!("{}/{row}", self.prefix)
    }
}

/// Removes the entries of a queue. Returns whether it is empty.
pub(crate) fn empty(queue: u32) -> bool {
    (0..=MAX_REMOVED).find_map(|_| hostcalls::dequeue_shared_queue(queue).err()) == Some(HostError::EMPTY)
}
