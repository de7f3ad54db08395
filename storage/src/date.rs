//! The internal date of a message (RFC 9051 §2.3.3).

use serde::{Deserialize, Serialize};

/// When a message was received, with the time zone to show it in: APPEND gives a zone, and clients expect it back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct InternalDate(i64);

const ZONE_STEPS: i64 = 4096;
const ZONE_BIAS: i64 = 2048;
const SECONDS_MAX: i64 = 1 << 50;

impl InternalDate {
    /// Seconds since 1970-01-01T00:00:00Z, and minutes east of UTC. What no calendar holds is cut to the nearest.
    pub fn new(unix_seconds: i64, offset_minutes: i16) -> Self {
        let seconds = unix_seconds.clamp(-SECONDS_MAX, SECONDS_MAX);
        let zone = i64::from(offset_minutes).clamp(-1439, 1439) + ZONE_BIAS;
        Self(seconds * ZONE_STEPS + zone)
    }

    /// The moment, in UTC.
    pub fn utc(unix_seconds: i64) -> Self {
        Self::new(unix_seconds, 0)
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(ZONE_STEPS)
    }

    /// Minutes east of UTC.
    pub fn offset_minutes(self) -> i16 {
        (self.0.rem_euclid(ZONE_STEPS) - ZONE_BIAS) as i16
    }

    pub(crate) fn packed(self) -> i64 {
        self.0
    }

    pub(crate) fn from_packed(packed: i64) -> Self {
        Self(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_and_zone_survive() {
        for seconds in [i64::from(i32::MIN), -1, 0, 1, 1_700_000_000, 1 << 40] {
            for zone in [-1439, -720, -1, 0, 330, 1439] {
                let date = InternalDate::new(seconds, zone);
                assert_eq!((date.unix_seconds(), date.offset_minutes()), (seconds, zone));
            }
        }
        assert!(InternalDate::new(5, -700) < InternalDate::new(6, 700));
        assert_eq!(InternalDate::new(i64::MAX, i16::MAX).offset_minutes(), 1439);
    }
}
