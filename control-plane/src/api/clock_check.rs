//! The comparison of clocks for `/readyz`.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::{
    db::StoreError,
    maintenance::{self, ClockError},
    service::Service,
};

/// The minimum interval between clock comparisons. Each costs a database query, and clocks drift slowly.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Compares the clock of this machine with that of the database server, at most once per [`CLOCK_CHECK_INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct ClockCheck {
    last: Mutex<Option<(Instant, Option<&'static str>)>>,
}

impl ClockCheck {
    /// Returns the error code of a clock difference, or `None` if the clocks agree.
    pub(super) async fn error_code(&self, service: &Service) -> Result<Option<&'static str>, StoreError> {
        let mut last = self.last.lock().await;
        if let Some((at, trouble)) = *last
            && at.elapsed() < CLOCK_CHECK_INTERVAL
        {
            return Ok(trouble);
        }
        let trouble = match maintenance::check_store_clock(service).await {
            Ok(_) => None,
            Err(ClockError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::error!(error.code = error.code(), "this server is not ready: {error}");
                Some(error.code())
            }
        };
        *last = Some((Instant::now(), trouble));
        Ok(trouble)
    }
}
