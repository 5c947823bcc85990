//! A connection that is closed if the client does not read its responses.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// The minimum rate at which a client must read a response, far below that of any network in use.
pub(super) const MIN_BYTES_PER_SECOND: u64 = 4096;

/// Closes a connection that reads no byte of a response for `timeout`, or fewer than [`MIN_BYTES_PER_SECOND`] after
/// that. While a response is blocked, no further request is read.
///
/// Invariant: hyper calls `poll_flush` only when all its output has been written.
#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    timeout: Duration,
    /// `None` while the kernel has accepted everything that was written.
    stall: Option<Stall>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The waker of a read that waits for the end of `stuck`.
    reader: Option<Waker>,
    close_state: Arc<CloseState>,
}

/// How a connection ended.
#[derive(Debug, Default)]
pub(super) struct CloseState {
    stalled: AtomicBool,
    reset: AtomicBool,
}

impl CloseState {
    /// Returns true if the client did not read its responses.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Discards what is still in the kernel's buffers when the connection is closed.
    pub(super) fn reset_on_close(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Stall {
    since: Instant,
    last_progress: Instant,
    written: u64,
}

impl Stall {
    fn deadline(&self, timeout: Duration) -> Instant {
        let earned = Duration::from_millis(self.written.saturating_mul(1000) / MIN_BYTES_PER_SECOND);
        (self.since + timeout + earned).min(self.last_progress + timeout)
    }
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, timeout: Duration, close_state: Arc<CloseState>) -> Self {
        // Responses are small: waiting to fill a packet would only delay them.
        let _ = tcp.set_nodelay(true);
        // Bounds how long the kernel keeps unacknowledged data, even after the process has closed the connection.
        let _ = set_tcp_user_timeout(&tcp, u32::try_from(timeout.as_millis() * 2).unwrap_or(u32::MAX));
        Self { tcp, timeout, stall: None, timer: None, reader: None, close_state }
    }

    /// Records the result of a write, and fails once the deadline of a blocked response has passed.
    fn account(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match done {
            Poll::Ready(Ok(written)) => {
                if let Some(stuck) = &mut self.stall {
                    stuck.written += u64::try_from(written).unwrap_or(u64::MAX);
                    stuck.last_progress = Instant::now();
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let now = Instant::now();
                let stuck = self.stall.get_or_insert(Stall { since: now, last_progress: now, written: 0 });
                let deadline = stuck.deadline(self.timeout);
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                if timer.deadline() != deadline {
                    timer.as_mut().reset(deadline);
                }
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.close_state.stalled.store(true, Ordering::Relaxed);
                self.close_state.reset_on_close();
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client does not read its responses",
                )))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.stall.is_some() {
            this.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut this.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.tcp).poll_write(context, bytes);
        this.account(context, done)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.tcp).poll_write_vectored(context, slices);
        this.account(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.stall = None;
        this.timer = None;
        if let Some(reader) = this.reader.take() {
            reader.wake();
        }
        Pin::new(&mut this.tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.close_state.reset.load(Ordering::Relaxed) {
            let _ = self.tcp.set_zero_linger();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_reads_one_byte_per_second_is_disconnected() {
        let (start, timeout) = (Instant::now(), Duration::from_secs(10));
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let stuck = |progress: u64, written: u64| {
            Stall { since: start, last_progress: after(progress), written }.deadline(timeout)
        };
        // No progress; one byte per second; exactly the minimum rate; fast at first, and then nothing.
        assert_eq!(stuck(0, 0), after(10));
        assert!(stuck(9, 9) < after(11));
        assert_eq!(stuck(100, 100 * MIN_BYTES_PER_SECOND), after(110));
        assert_eq!(stuck(1, 1000 * MIN_BYTES_PER_SECOND), after(11));
    }
}
