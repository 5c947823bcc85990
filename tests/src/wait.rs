use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Repeats `attempt` until it succeeds; panics with the last error after [`DEADLINE`].
pub async fn eventually<T, E: Debug>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if started.elapsed() > DEADLINE => {
                panic!("not within {DEADLINE:?}: {what}; last: {error:?}")
            }
            Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}

/// A generous limit, so that a busy machine fails no test. Tests of durations measure them.
pub const DEADLINE: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
