use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Repeats `attempt` until it succeeds; panics with the last error after [`DEADLINE`].
pub async fn eventually<T, E: Debug>(what: &str, attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(DEADLINE, what, attempt).await
}

/// [`eventually`] with a deadline of its own.
pub async fn within<T, E: Debug>(
    deadline: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if started.elapsed() > deadline => {
                panic!("not within {deadline:?}: {what}; last: {error:?}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Generous: a busy machine is not a broken promise. Promises about time measure it themselves.
pub const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
