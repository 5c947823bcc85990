//! The open streams of one worker, and when each is checked again.
//!
//! A stream is added when its request is admitted, and removed when it ends. Most end at once: until a stream is
//! [`RECENT_MS`] old, or the bundle changes, only what its request consisted of is stored. After that it is checked
//!
//! * in a **pass** over all streams when the bundle has another version: at most [`CHECKS_PER_TICK`] per call, so that
//!   a worker with many streams continues to serve requests. The version counts as enforced when the pass is complete;
//! * once a second because of conditions that depend on time. Beyond `max` streams, those that were opened first are checked in
//!   every [`OLDER_INTERVAL`]th second only.
//!
//! A stream that is refused leaves the table together with its handle, which is the only right to end it.
//!
//! A request that ends at once costs 193 WebAssembly instructions for this, measured with and without the table in one filter.

use alloc::{sync::Arc, vec::Vec};
use core::net::IpAddr;

use bundle::Snapshot;

use crate::{
    decision::{Gate, OpenStream, Reason, Refusal, open_stream::Treatment},
    identity::Identity,
    response::Response,
};

/// The age at which a stream is checked for the first time, in milliseconds. Most requests have been answered by then.
const RECENT_MS: u64 = 250;

/// The interval between two checks of a stream while the bundle does not change, in milliseconds.
const PASS_INTERVAL_MS: u64 = 1000;

/// The number of recent streams for which there is room before the first request.
const INITIAL_CAPACITY: usize = 64;

/// The number of seconds between two checks of a stream beyond the maximum while the bundle does not change.
const OLDER_INTERVAL: u64 = 10;

/// The maximum number of checks per call. A check takes about two microseconds.
const CHECKS_PER_TICK: usize = 1024;

/// The maximum number of streams that are stored completely per call. Each is routed once more for this.
const PROMOTIONS_PER_TICK: usize = 256;

/// The maximum number of streams that are ended per call. Ending one takes Envoy 40 microseconds (measured), so that a
/// worker is busy for two milliseconds.
const ENDS_PER_TICK: usize = 48;

/// A pass without a change of the bundle is spread over this number of calls, half a second with ticks of 25 ms.
const CALLS_PER_TIMED_PASS: usize = 20;

/// The open streams of one worker. `H` is the right to end a stream.
#[derive(Debug)]
pub struct OpenStreams<H> {
    max: usize,
    /// The streams with the numbers from `first_recent`. `None` if one has ended.
    recent: Vec<Option<Admitted<H>>>,
    first_recent: u64,
    /// The other streams, in the order in which they were opened. `None` if one has ended.
    watched: Vec<(u64, Option<Watched<H>>)>,
    /// The number of entries of `watched` that are not `None`.
    watched_count: usize,
    pass: Option<Pass>,
    last_pass_at: u64,
    passes: u64,
    enforced_version: Option<u64>,
    /// Whether there may be a stream that the host did not end.
    has_unended: bool,
    kept: usize,
    over_max: u64,
    has_more_to_end: bool,
}

/// A request that was admitted.
#[derive(Debug)]
pub struct Admitted<H> {
    /// The right to end the stream.
    pub handle: H,
    /// The identity of the credential.
    pub identity: Arc<Identity>,
    /// The headers of the request, as the host serializes them.
    pub headers: Vec<u8>,
    /// The client address as reported by the host.
    pub peer: Option<IpAddr>,
    /// The time of the decision, in milliseconds since the Unix epoch.
    pub now: u64,
}

#[derive(Debug)]
struct Watched<H> {
    handle: H,
    stream: OpenStream,
    is_refused: bool,
}

/// A stream to end: its credential would be refused now.
#[derive(Debug)]
pub struct Ended<H> {
    /// The right to end the stream.
    pub handle: H,
    /// Why it ends.
    pub refusal: Refusal,
    /// `None` if no rule matches the headers any more, which an admitted stream does not have.
    stream: Option<OpenStream>,
    number: u64,
}

/// The result of a round of checks.
#[derive(Debug)]
pub struct Checked<H> {
    /// The streams to end.
    pub ended: Vec<Ended<H>>,
    /// Why streams would be ended that are in mode `report`. Each stream is reported once.
    pub reported: Vec<Reason>,
}

/// A pass over all streams.
#[derive(Debug)]
struct Pass {
    /// The version of the bundle that the pass enforces, or `None` if only time has passed.
    version: Option<u64>,
    /// The number of the first stream that was admitted after the pass began.
    end: u64,
    /// The number of the next stream to check among the `max` streams that were opened last.
    cursor: u64,
    /// The number of the next stream to check among the other streams, which are checked afterwards.
    older_cursor: u64,
    older_end: u64,
    checks_older: bool,
    /// Whether a stream was put back since the pass began.
    has_unended: bool,
}

/// What the checks of one call need and may still do.
struct Round<'a, H> {
    gate: &'a Gate,
    snapshot: &'a Snapshot,
    now: u64,
    checks: usize,
    kept: usize,
    checked: Checked<H>,
}

impl<H> Ended<H> {
    /// Returns the names and values for the host's filter state, from which access logs tell why the stream ended.
    pub fn filter_state(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let identity = self.refusal.identity();
        [
            ("keystile.reason", Some(self.refusal.reason().code())),
            ("keystile.subject", identity.map(Identity::subject)),
            ("keystile.key_id", identity.and_then(Identity::key_id)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Returns the response, for a stream whose response has not begun.
    pub fn response(&self, gate: &Gate) -> Response {
        let stream = self.stream.as_ref();
        let request_id = stream.and_then(|stream| stream.request_id());
        gate.refusal_response_as(&self.refusal, request_id, stream.is_some_and(|stream| stream.is_grpc()))
    }
}

impl<H> OpenStreams<H> {
    /// Creates an empty table, of which `max` streams are checked every second.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            recent: Vec::with_capacity(INITIAL_CAPACITY),
            first_recent: 0,
            watched: Vec::new(),
            watched_count: 0,
            pass: None,
            last_pass_at: 0,
            passes: 0,
            enforced_version: None,
            has_unended: false,
            kept: 0,
            over_max: 0,
            has_more_to_end: false,
        }
    }

    /// Changes the number of streams that are checked every second.
    pub const fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Adds a stream. Returns its number, for [`Self::remove`].
    // Inlined, the caller writes the stream into the table at once. A size-optimized filter would copy it once more.
    #[inline(always)]
    pub fn add(&mut self, admitted: Admitted<H>) -> u64 {
        let number = self.next_number();
        self.recent.push(Some(admitted));
        number
    }

    /// Forgets a stream that has ended.
    pub fn forget(&mut self, number: u64) {
        // Most streams end soon after they began, so that the last entry is dropped in place.
        match self.recent_index(number) {
            Some(index) if self.recent.len().wrapping_sub(1) == index => self.truncate_recent(index),
            _ => drop(self.remove(number)),
        }
    }

    /// Removes a stream, and returns the right to end it, if the table still has it.
    pub fn remove(&mut self, number: u64) -> Option<H> {
        let Some(index) = self.recent_index(number) else {
            let index = self.watched.binary_search_by_key(&number, |(number, _)| *number).ok()?;
            let watched = self.watched.get_mut(index)?.1.take()?;
            self.watched_count = self.watched_count.saturating_sub(1);
            self.kept = self.kept.saturating_sub(usize::from(watched.is_kept()));
            return Some(watched.handle);
        };
        let removed = self.recent.get_mut(index)?.take();
        if index.saturating_add(1) == self.recent.len() {
            self.truncate_recent(index);
        }
        removed.map(|admitted| admitted.handle)
    }

    /// Returns the index in `recent`, or `None` if the stream is older than these.
    fn recent_index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.wrapping_sub(self.first_recent)).ok().filter(|_| number >= self.first_recent)
    }

    /// Removes the entries from `index` on, and those before it whose streams have ended.
    fn truncate_recent(&mut self, mut index: usize) {
        while let Some(before) = index.checked_sub(1)
            && let Some(None) = self.recent.get(before)
        {
            index = before;
        }
        self.recent.truncate(index);
    }

    /// Adds a stream again that the host did not end, so that ending it is tried again.
    pub fn put_back(&mut self, ended: Ended<H>) {
        self.has_unended = true;
        if let Some(pass) = &mut self.pass {
            pass.has_unended = true;
        }
        let Ended { handle, stream: Some(stream), number, .. } = ended else { return };
        let watched = Some(Watched { handle, stream, is_refused: false });
        match self.watched.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(index) => {
                if let Some((_, slot)) = self.watched.get_mut(index) {
                    *slot = watched;
                }
            }
            Err(index) => self.watched.insert(index, (number, watched)),
        }
        self.watched_count = self.watched_count.saturating_add(1);
    }

    /// Returns the number of open streams.
    pub fn len(&self) -> usize {
        self.recent.iter().flatten().count().saturating_add(self.watched_count)
    }

    /// Returns whether the last call of [`Self::check`] ended as many streams as one call may. The next call should not
    /// wait for long.
    pub const fn has_more_to_end(&self) -> bool {
        self.has_more_to_end
    }

    /// Returns whether there are no open streams.
    pub fn is_empty(&self) -> bool {
        self.watched_count == 0 && self.recent.iter().all(Option::is_none)
    }

    /// Returns the right to end one of the open streams, usually the one that was added last. A host without timers has to
    /// wake a stream to call [`Self::check`].
    pub fn any_handle(&self) -> Option<&H> {
        // The last of the recent streams is open: see `truncate_recent`.
        let recent = self.recent.iter().rev().flatten().next().map(|admitted| &admitted.handle);
        recent.or_else(|| self.watched.iter().rev().find_map(|(_, slot)| Some(&slot.as_ref()?.handle)))
    }

    /// Returns the number of streams whose credential is refused, but whose rule keeps them open.
    pub const fn kept(&self) -> usize {
        self.kept
    }

    /// Returns the number of streams that exceeded the maximum since the last call.
    pub fn take_over_max(&mut self) -> u64 {
        core::mem::take(&mut self.over_max)
    }

    /// Returns the version of the bundle by which every open stream has been checked, or `None` before the first one and
    /// while the host does not end a stream. Without open streams it is `current`.
    pub fn enforced_version(&mut self, current: u64) -> Option<u64> {
        if self.is_empty() {
            self.pass = None;
            self.has_unended = false;
            self.enforced_version = Some(current);
        }
        self.enforced_version.filter(|_| !self.has_unended)
    }

    /// Checks the streams that are due. To be called on every tick. `now` is in milliseconds since the Unix epoch, and
    /// `decode` reads serialized headers.
    pub fn check(
        &mut self,
        gate: &Gate,
        snapshot: &Snapshot,
        now: u64,
        decode: impl for<'h> Fn(&'h [u8]) -> Option<Vec<(&'h str, &'h [u8])>>,
    ) -> Checked<H> {
        let checked = Checked { ended: Vec::new(), reported: Vec::new() };
        let mut round = Round { gate, snapshot, now, checks: CHECKS_PER_TICK, kept: self.kept, checked };
        self.begin_pass(snapshot.manifest().version(), now);
        self.promote(&mut round, decode);
        self.continue_pass(&mut round);
        self.kept = round.kept;
        self.has_more_to_end = round.checked.ended.len() >= ENDS_PER_TICK;
        round.checked
    }

    fn next_number(&self) -> u64 {
        self.first_recent.wrapping_add(u64::try_from(self.recent.len()).unwrap_or(u64::MAX))
    }

    /// Begins a pass if the bundle has another version or a second has passed. A pass for a version is completed even
    /// if there is a newer one meanwhile, so that frequent changes do not keep the last streams from being checked.
    fn begin_pass(&mut self, version: u64, now: u64) {
        let is_changed = self.enforced_version != Some(version);
        let version = match &self.pass {
            Some(Pass { version: Some(_), .. }) => return,
            _ if is_changed => Some(version),
            None if now.abs_diff(self.last_pass_at) >= PASS_INTERVAL_MS => None,
            Some(_) | None => return,
        };
        self.watched.retain(|(_, watched)| watched.is_some());
        self.last_pass_at = now;
        self.passes = self.passes.wrapping_add(1);
        let checks_older = version.is_some() || self.passes.is_multiple_of(OLDER_INTERVAL);
        let end = self.next_number();
        let first_young = self.watched.len().saturating_sub(self.max);
        let cursor = self.watched.get(first_young).map_or(end, |(number, _)| *number);
        // Streams up to the first young one are older. Without a check of these, the cursor is behind all of them.
        let older_cursor = if checks_older { 0 } else { cursor };
        self.pass = Some(Pass {
            version,
            end,
            cursor,
            older_cursor,
            older_end: cursor,
            checks_older,
            has_unended: false,
        });
    }

    /// Checks recent streams for the first time, if they are old enough or the bundle has another version.
    fn promote(
        &mut self,
        round: &mut Round<'_, H>,
        decode: impl for<'h> Fn(&'h [u8]) -> Option<Vec<(&'h str, &'h [u8])>>,
    ) {
        let changed_before = match &self.pass {
            Some(Pass { version: Some(_), end, .. }) => *end,
            _ => 0,
        };
        let mut passed = 0_usize;
        let mut promotions = PROMOTIONS_PER_TICK;
        for (index, slot) in self.recent.iter_mut().enumerate() {
            let number = self.first_recent.saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
            let is_due = |admitted: &Admitted<H>| {
                number < changed_before || round.now.abs_diff(admitted.now) >= RECENT_MS
            };
            let is_full = promotions == 0 || round.is_full();
            if slot.as_ref().is_some_and(|admitted| is_full || !is_due(admitted)) {
                break;
            }
            passed = index.saturating_add(1);
            // Streams that have ended do not count: there may be more of them than of open ones.
            let Some(Admitted { handle, identity, headers, peer, .. }) = slot.take() else { continue };
            promotions = promotions.saturating_sub(1);
            let headers = decode(&headers).unwrap_or_default();
            let stream = match round.gate.open_stream(identity, &headers, peer) {
                Ok(stream) => stream,
                Err(refusal) => {
                    round.checked.ended.push(Ended { handle, refusal, stream: None, number });
                    continue;
                }
            };
            let mut watched = Watched { handle, stream, is_refused: false };
            if let Err(refusal) = round.check(&mut watched) {
                round.end(number, watched, refusal);
                continue;
            }
            if self.watched_count >= self.max {
                self.over_max = self.over_max.saturating_add(1);
            }
            self.watched.push((number, Some(watched)));
            self.watched_count = self.watched_count.saturating_add(1);
        }
        self.recent.drain(..passed);
        self.first_recent = self.first_recent.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX));
    }

    fn continue_pass(&mut self, round: &mut Round<'_, H>) {
        let Some(pass) = &mut self.pass else { return };
        if pass.version.is_none() {
            round.checks = round.checks.min(self.watched.len().div_ceil(CALLS_PER_TIMED_PASS));
        }
        let ended_before = round.checked.ended.len();
        round.check_range(&mut self.watched, &mut pass.cursor, pass.end);
        if pass.cursor >= pass.end {
            round.check_range(&mut self.watched, &mut pass.older_cursor, pass.older_end);
        }
        let ended = round.checked.ended.len().saturating_sub(ended_before);
        self.watched_count = self.watched_count.saturating_sub(ended);
        let has_checked_recent = pass.version.is_none() || self.first_recent >= pass.end;
        if pass.cursor >= pass.end && pass.older_cursor >= pass.older_end && has_checked_recent {
            self.enforced_version = pass.version.or(self.enforced_version);
            if pass.checks_older {
                self.has_unended = pass.has_unended;
            }
            self.pass = None;
        }
    }
}

impl<H> Watched<H> {
    fn is_kept(&self) -> bool {
        self.is_refused && self.stream.treatment() == Treatment::Keep
    }
}

impl<H> Round<'_, H> {
    fn is_full(&self) -> bool {
        self.checks == 0 || self.checked.ended.len() >= ENDS_PER_TICK
    }

    /// Returns the refusal if the stream must be ended.
    fn check(&mut self, watched: &mut Watched<H>) -> Result<(), Refusal> {
        self.checks = self.checks.saturating_sub(1);
        let was_refused = watched.is_refused;
        let was_kept = watched.is_kept();
        let result = self.gate.recheck(&watched.stream, self.snapshot, self.now);
        watched.is_refused = result.is_err();
        self.kept = self.kept.saturating_sub(usize::from(was_kept));
        match (result, watched.stream.treatment()) {
            (Err(refusal), Treatment::End) => return Err(refusal),
            (Err(refusal), Treatment::Report) if !was_refused => {
                self.checked.reported.push(refusal.reason());
            }
            _ => {}
        }
        self.kept = self.kept.saturating_add(usize::from(watched.is_kept()));
        Ok(())
    }

    /// Checks streams from the cursor up to `end`, and moves the cursor.
    fn check_range(&mut self, streams: &mut [(u64, Option<Watched<H>>)], cursor: &mut u64, end: u64) {
        let start = streams.partition_point(|(number, _)| *number < *cursor);
        for (number, slot) in streams.iter_mut().skip(start).take_while(|(number, _)| *number < end) {
            if self.is_full() {
                *cursor = *number;
                return;
            }
            let Some(watched) = slot else { continue };
            if let Err(refusal) = self.check(watched)
                && let Some(watched) = slot.take()
            {
                self.end(*number, watched, refusal);
            }
        }
        *cursor = end;
    }

    fn end(&mut self, number: u64, watched: Watched<H>, refusal: Refusal) {
        let Watched { handle, stream, .. } = watched;
        self.checked.ended.push(Ended { handle, refusal, stream: Some(stream), number });
    }
}
