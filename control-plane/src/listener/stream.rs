//! A connection whose other end must take what it asked for.

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

/// Ends a connection that takes no byte of an answer for `patience`, or less than [`SLOWEST`] bytes a second after
/// that. While an answer is stuck, no further request is read.
///
/// Invariant: hyper calls `poll_flush` only when all its output has been written.
#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    patience: Duration,
    /// None while everything written has been taken by the kernel.
    stuck: Option<Stuck>,
    timer: Option<Pin<Box<Sleep>>>,
    /// A read that waits for the end of `stuck`.
    reader: Option<Waker>,
    fate: Arc<Fate>,
}

/// How a connection came to its end.
#[derive(Debug, Default)]
pub(super) struct Fate {
    stalled: AtomicBool,
    reset: AtomicBool,
}

impl Fate {
    /// The other end did not read.
    pub(super) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// What is still in the kernel's buffers is thrown away with the connection.
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Stuck {
    since: Instant,
    progress: Instant,
    written: u64,
}

impl Stuck {
    fn deadline(&self, patience: Duration) -> Instant {
        let earned = Duration::from_millis(self.written.saturating_mul(1000) / SLOWEST);
        (self.since + patience + earned).min(self.progress + patience)
    }
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, patience: Duration, fate: Arc<Fate>) -> Self {
        // Answers are small: waiting to fill a packet only delays them.
        let _ = tcp.set_nodelay(true);
        // What the kernel holds is bounded too, after the process has let go of the connection as well.
        let _ = set_tcp_user_timeout(&tcp, u32::try_from(patience.as_millis() * 2).unwrap_or(u32::MAX));
        Self { tcp, patience, stuck: None, timer: None, reader: None, fate }
    }

    fn account(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match done {
            Poll::Ready(Ok(written)) => {
                if let Some(stuck) = &mut self.stuck {
                    stuck.written += u64::try_from(written).unwrap_or(u64::MAX);
                    stuck.progress = Instant::now();
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let now = Instant::now();
                let stuck = self.stuck.get_or_insert(Stuck { since: now, progress: now, written: 0 });
                let deadline = stuck.deadline(self.patience);
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                if timer.deadline() != deadline {
                    timer.as_mut().reset(deadline);
                }
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.fate.stalled.store(true, Ordering::Relaxed);
                self.fate.reset();
                Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client does not read its answers",
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
        if this.stuck.is_some() {
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
        this.stuck = None;
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
        if self.fate.reset.load(Ordering::Relaxed) {
            let _ = self.tcp.set_zero_linger();
        }
    }
}

/// Bytes a second: what a line of the last century takes, many times over.
pub(super) const SLOWEST: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_a_byte_a_second_is_not_waited_for() {
        let (start, patience) = (Instant::now(), Duration::from_secs(10));
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let stuck = |progress: u64, written: u64| {
            Stuck { since: start, progress: after(progress), written }.deadline(patience)
        };
        // Nothing at all; a byte a second; just enough; much at first, and then nothing.
        assert_eq!(stuck(0, 0), after(10));
        assert!(stuck(9, 9) < after(11));
        assert_eq!(stuck(100, 100 * SLOWEST), after(110));
        assert_eq!(stuck(1, 1000 * SLOWEST), after(11));
    }
}
