//! The open streams of one worker, and when each is checked again.
//!
//! A stream is added when its request is admitted, and removed when it ends. Most end at once: until a stream is
//! [`RECENT_MS`] old, or the bundle changes, only what its request consisted of is stored. After that it is checked
//!
//! * in a **pass** over all streams when the bundle has another version: at most [`CHECKS_PER_TICK`] per call, so that
//!   a worker with many streams goes on to serve requests. The version counts as enforced when the pass is complete;
//! * once a second for whatever depends on time. Beyond `max` streams, those that were opened first are checked in
//!   every [`OLDER_INTERVAL`]th second only.
//!
//! A stream that is refused leaves the table together with its handle, which is the only right to end it.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::net::IpAddr;

use bundle::Snapshot;

use crate::{Gate, Identity, OpenStream, Reason, Refusal, open_stream::Treatment};

/// The age at which a stream is checked for the first time, in milliseconds. Most requests have been answered by then.
const RECENT_MS: u64 = 250;

/// The interval between two checks of a stream while the bundle does not change, in milliseconds.
const PASS_INTERVAL_MS: u64 = 1000;

/// The number of seconds between two checks of a stream beyond the maximum while the bundle does not change.
const OLDER_INTERVAL: u64 = 10;

/// The maximum number of checks per call. A check takes about two microseconds.
const CHECKS_PER_TICK: usize = 1024;

/// The maximum number of streams that are stored completely per call. Each is routed once more for this.
const PROMOTIONS_PER_TICK: usize = 256;

/// The maximum number of streams that are ended per call. Ending one takes the host some 30 microseconds.
const ENDS_PER_TICK: usize = 128;

/// A pass without a change of the bundle is spread over this number of calls, half a second with ticks of 25 ms.
const CALLS_PER_TIMED_PASS: usize = 20;

/// The open streams of one worker. `H` is the right to end a stream.
#[derive(Debug)]
pub struct OpenStreams<H> {
    max: usize,
    /// The streams with the numbers from `first_recent`. `None` if one has ended.
    recent: VecDeque<Option<Admitted<H>>>,
    first_recent: u64,
    watched: BTreeMap<u64, Watched<H>>,
    /// The streams beyond the maximum: those that were opened first.
    older: BTreeMap<u64, Watched<H>>,
    pass: Option<Pass>,
    last_pass_at: u64,
    passes: u64,
    enforced_version: Option<u64>,
    kept: usize,
    over_max: u64,
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
    watched_cursor: u64,
    older_cursor: u64,
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
    /// Returns the id of the request, for the response.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.stream.as_ref()?.request_id()
    }
}

impl<H> OpenStreams<H> {
    /// Creates an empty table, of which `max` streams are checked every second.
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            recent: VecDeque::new(),
            first_recent: 0,
            watched: BTreeMap::new(),
            older: BTreeMap::new(),
            pass: None,
            last_pass_at: 0,
            passes: 0,
            enforced_version: None,
            kept: 0,
            over_max: 0,
        }
    }

    /// Adds a stream. Returns its number, for [`Self::remove`].
    pub fn add(&mut self, admitted: Admitted<H>) -> u64 {
        let number = self.next_number();
        self.recent.push_back(Some(admitted));
        number
    }

    /// Removes a stream that has ended, and returns the right to end it, if the table still has it.
    pub fn remove(&mut self, number: u64) -> Option<H> {
        let Some(index) = number.checked_sub(self.first_recent) else {
            let watched = self.watched.remove(&number).or_else(|| self.older.remove(&number))?;
            self.kept = self.kept.saturating_sub(usize::from(watched.is_kept()));
            return Some(watched.handle);
        };
        let removed = self.recent.get_mut(usize::try_from(index).ok()?)?.take();
        while let Some(None) = self.recent.back() {
            self.recent.pop_back();
        }
        removed.map(|admitted| admitted.handle)
    }

    /// Adds a stream again that the host did not end, so that ending it is tried again.
    pub fn put_back(&mut self, ended: Ended<H>) {
        let Ended { handle, stream: Some(stream), number, .. } = ended else { return };
        self.watched.insert(number, Watched { handle, stream, is_refused: false });
    }

    /// Returns the number of open streams.
    pub fn len(&self) -> usize {
        let recent = self.recent.iter().flatten().count();
        recent.saturating_add(self.watched.len()).saturating_add(self.older.len())
    }

    /// Returns whether there are no open streams.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty() && self.older.is_empty() && self.recent.iter().all(Option::is_none)
    }

    /// Returns the number of streams whose credential is refused, but whose rule keeps them open.
    pub const fn kept(&self) -> usize {
        self.kept
    }

    /// Returns the number of streams that exceeded the maximum since the last call.
    pub fn take_over_max(&mut self) -> u64 {
        core::mem::take(&mut self.over_max)
    }

    /// Returns the version of the bundle by which every open stream has been checked, or `None` before the first one.
    /// Without open streams it is `current`.
    pub fn enforced_version(&mut self, current: u64) -> Option<u64> {
        if self.is_empty() {
            self.pass = None;
            self.enforced_version = Some(current);
        }
        self.enforced_version
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
        self.promote(&mut round, |headers| decode(headers));
        self.continue_pass(&mut round);
        self.kept = round.kept;
        round.checked
    }

    fn next_number(&self) -> u64 {
        self.first_recent.saturating_add(u64::try_from(self.recent.len()).unwrap_or(u64::MAX))
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
        self.balance();
        self.last_pass_at = now;
        self.passes = self.passes.wrapping_add(1);
        let checks_older = version.is_some() || self.passes.is_multiple_of(OLDER_INTERVAL);
        let end = self.next_number();
        let older_cursor = if checks_older { 0 } else { end };
        self.pass = Some(Pass { version, end, watched_cursor: 0, older_cursor });
    }

    /// Moves streams so that `watched` has the `max` streams that were opened last. It must not be called during a pass
    /// for a version, which would miss a stream that moves behind its cursor.
    fn balance(&mut self) {
        while self.watched.len() > self.max
            && let Some((number, oldest)) = self.watched.pop_first()
        {
            self.older.insert(number, oldest);
            self.over_max = self.over_max.saturating_add(1);
        }
        while self.watched.len() < self.max
            && let Some((number, youngest)) = self.older.pop_last()
        {
            self.watched.insert(number, youngest);
        }
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
        for _ in 0..PROMOTIONS_PER_TICK {
            let number = self.first_recent;
            match self.recent.front() {
                None => return,
                Some(Some(admitted))
                    if number >= changed_before && round.now.abs_diff(admitted.now) < RECENT_MS =>
                {
                    return;
                }
                Some(Some(_)) if round.is_full() => return,
                Some(_) => {}
            }
            self.first_recent = number.saturating_add(1);
            let Some(Some(Admitted { handle, identity, headers, peer, .. })) = self.recent.pop_front() else {
                continue;
            };
            let headers = decode(&headers).unwrap_or_default();
            match round.gate.open_stream(identity, &headers, peer) {
                Ok(stream) => {
                    let mut watched = Watched { handle, stream, is_refused: false };
                    match round.check(&mut watched) {
                        Ok(()) => {
                            self.watched.insert(number, watched);
                        }
                        Err(refusal) => round.end(number, watched, refusal),
                    }
                }
                Err(refusal) => {
                    round.checked.ended.push(Ended { handle, refusal, stream: None, number });
                }
            }
        }
    }

    fn continue_pass(&mut self, round: &mut Round<'_, H>) {
        let Some(pass) = &mut self.pass else { return };
        if pass.version.is_none() {
            let streams = self.watched.len().saturating_add(self.older.len());
            round.checks = round.checks.min(streams.div_ceil(CALLS_PER_TIMED_PASS));
        }
        round.check_from(&mut self.watched, &mut pass.watched_cursor, pass.end);
        if pass.watched_cursor >= pass.end {
            round.check_from(&mut self.older, &mut pass.older_cursor, pass.end);
        }
        let has_checked_recent = pass.version.is_none() || self.first_recent >= pass.end;
        if pass.watched_cursor >= pass.end && pass.older_cursor >= pass.end && has_checked_recent {
            self.enforced_version = pass.version.or(self.enforced_version);
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

    /// Returns the refusal if the stream is to be ended.
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

    /// Checks streams from the cursor on, and moves the cursor.
    fn check_from(&mut self, streams: &mut BTreeMap<u64, Watched<H>>, cursor: &mut u64, end: u64) {
        let mut refused = Vec::new();
        let mut next = end;
        for (number, watched) in streams.range_mut(*cursor..end.max(*cursor)) {
            if self.checks == 0 || self.checked.ended.len().saturating_add(refused.len()) >= ENDS_PER_TICK {
                next = *number;
                break;
            }
            if let Err(refusal) = self.check(watched) {
                refused.push((*number, refusal));
            }
        }
        *cursor = next;
        for (number, refusal) in refused {
            if let Some(watched) = streams.remove(&number) {
                self.end(number, watched, refusal);
            }
        }
    }

    fn end(&mut self, number: u64, watched: Watched<H>, refusal: Refusal) {
        let Watched { handle, stream, .. } = watched;
        self.checked.ended.push(Ended { handle, refusal, stream: Some(stream), number });
    }
}
