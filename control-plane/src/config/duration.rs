use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The units in milliseconds, largest first, so that a duration is written in the largest unit that divides it.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A duration in the settings: `500ms`, `5s`, `2m`, `1h`, `30d`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigDuration(Duration);

impl ConfigDuration {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for ConfigDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| InvalidDuration)?;
        let millis = match unit {
            "" => 1000,
            _ => UNITS.iter().find(|(name, _)| *name == unit).ok_or(InvalidDuration)?.1,
        };
        Ok(Self(Duration::from_millis(number.checked_mul(millis).ok_or(InvalidDuration)?)))
    }
}

impl fmt::Display for ConfigDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (name, unit) =
            UNITS.iter().find(|(_, unit)| millis.is_multiple_of(u128::from(*unit))).unwrap_or(&("ms", 1));
        write!(f, "{}{name}", millis / u128::from(*unit))
    }
}

impl Serialize for ConfigDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConfigDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = ConfigDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number with a unit (`500ms`, `5s`, `2m`, `1h`, `30d`) or of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ConfigDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<ConfigDuration, E> {
                u64::try_from(seconds).map(ConfigDuration::from_secs).map_err(|_| E::custom(InvalidDuration))
            }
        }

        from.deserialize_any(Visitor)
    }
}

/// The error of a malformed duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number with a unit (`500ms`, `5s`, `2m`, `1h`, `30d`) or of seconds")]
pub struct InvalidDuration;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_formatted() {
        for (text, millis, written) in [
            ("5s", 5000, "5s"),
            ("60", 60_000, "1m"),
            ("500ms", 500, "500ms"),
            ("36h", 129_600_000, "36h"),
            ("0s", 0, "0d"),
        ] {
            let period: ConfigDuration = text.parse().unwrap();
            assert_eq!((period.get().as_millis(), period.to_string().as_str()), (millis, written));
        }
        for bad in ["", "s", "5 s", "-5s", "5.5s", "5w", "99999999999999999999s", "300000000000d"] {
            assert_eq!(bad.parse::<ConfigDuration>(), Err(InvalidDuration), "{bad}");
        }
    }
}
