use std::collections::{BTreeMap, VecDeque};

/// The shared queues of a process, as in Envoy 1.40: an entry stays until it is removed, and causes one callback on the
/// thread of the VM that registered the queue last, whether it is removed or not.
#[derive(Debug, Default)]
pub struct Queues {
    ids: BTreeMap<String, u32>,
    queues: BTreeMap<u32, Queue>,
    callbacks: VecDeque<Callback>,
    threads: u32,
    longest: usize,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Vec<u8>>,
    /// The thread and the context that registered it last.
    owner: (u32, u32),
}

/// A callback that its thread has not run yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Callback {
    thread: u32,
    pub(super) context: u32,
    pub(super) queue: u32,
}

impl Queues {
    /// Registers a queue, or takes it over. Its entries remain.
    pub fn register(&mut self, name: String, thread: u32, context: u32) -> u32 {
        let next = u32::try_from(self.ids.len()).expect("few") + 1;
        let id = *self.ids.entry(name).or_insert(next);
        self.queues.entry(id).or_default().owner = (thread, context);
        id
    }

    pub fn resolve(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// Adds an entry, as any filter of the process can do. Returns false if there is no such queue.
    pub fn enqueue(&mut self, id: u32, entry: Vec<u8>) -> bool {
        let Some(Queue { entries, owner: (thread, context) }) = self.queues.get_mut(&id) else {
            return false;
        };
        entries.push_back(entry);
        self.longest = self.longest.max(entries.len());
        self.callbacks.push_back(Callback { thread: *thread, context: *context, queue: id });
        true
    }

    /// Returns the first entry, or `None` if the queue is empty; an error if there is no such queue.
    pub(super) fn dequeue(&mut self, id: u32) -> Result<Option<Vec<u8>>, ()> {
        Ok(self.queues.get_mut(&id).ok_or(())?.entries.pop_front())
    }

    /// Returns the next callback of a thread.
    pub(super) fn next_callback(&mut self, thread: u32) -> Option<Callback> {
        let at = self.callbacks.iter().position(|callback| callback.thread == thread)?;
        self.callbacks.remove(at)
    }

    /// Drops the callbacks of a thread, as Envoy does while its VM has failed.
    pub(super) fn lose_callbacks(&mut self, thread: u32) {
        self.callbacks.retain(|callback| callback.thread != thread);
    }

    pub(super) fn new_thread(&mut self) -> u32 {
        self.threads += 1;
        self.threads
    }

    /// Returns the lengths of all queues by name.
    pub fn lengths(&self) -> BTreeMap<String, usize> {
        self.ids.iter().map(|(name, id)| (name.clone(), self.queues[id].entries.len())).collect()
    }

    /// Returns the greatest length that any queue has ever had.
    pub fn longest(&self) -> usize {
        self.longest
    }
}
