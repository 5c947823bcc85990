//! Points in time, in the two units that records have.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis {
    millis: u64,
}

impl UnixMillis {
    /// Returns the time `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// Returns the time at the beginning of a second.
    pub const fn from_seconds(seconds: UnixSeconds) -> Self {
        Self { millis: seconds.get().saturating_mul(1000) }
    }

    /// Returns the milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// Returns the second that the time is in.
    pub const fn seconds(self) -> UnixSeconds {
        UnixSeconds::new(self.millis / 1000)
    }

    /// Returns the time `duration` later.
    pub fn plus(self, duration: Duration) -> Self {
        Self { millis: self.millis.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)) }
    }
}

/// A second, counted from the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(u64);

impl UnixSeconds {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// Returns the second of a number.
    pub const fn new(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the second that is this number of seconds later.
    #[must_use]
    pub const fn saturating_add(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Returns the second that is this number of seconds earlier.
    #[must_use]
    pub const fn saturating_sub(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// Returns the number of seconds since an earlier second; 0 if that is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the number of seconds between two seconds.
    pub const fn abs_diff(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for UnixSeconds {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl From<u64> for UnixSeconds {
    fn from(seconds: u64) -> Self {
        Self(seconds)
    }
}

impl From<UnixSeconds> for u64 {
    fn from(seconds: UnixSeconds) -> Self {
        seconds.0
    }
}
