//! Moments as people write them: RFC 3339.

use std::fmt;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Nanoseconds in a millisecond.
const NANOS: i128 = 1_000_000;

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

impl Moment {
    /// Reads `2026-01-31T12:00:00Z`, with any offset and any fraction; what is finer than a millisecond is cut off.
    ///
    /// # Errors
    /// What is wrong with it, for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let moment = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| "not a time like `2026-01-31T12:00:00Z` (RFC 3339)".to_owned())?;
        i64::try_from(moment.unix_timestamp_nanos().div_euclid(NANOS))
            .ok()
            .filter(|millis| *millis >= 0)
            .map(Self)
            .ok_or_else(|| "a time before 1970, from which no record can be".to_owned())
    }
}

impl fmt::Display for Moment {
    /// In UTC, to the millisecond where there is a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * NANOS).ok();
        match moment.and_then(|moment| moment.to_offset(UtcOffset::UTC).format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_written() {
        for (text, millis, back) in [
            ("2026-01-31T12:00:00Z", 1_769_860_800_000, "2026-01-31T12:00:00Z"),
            ("2026-01-31T13:30:00.250+01:30", 1_769_860_800_250, "2026-01-31T12:00:00.25Z"),
            ("1970-01-01T00:00:00.0009Z", 0, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(Moment::parse(text), Ok(Moment(millis)));
            assert_eq!(Moment(millis).to_string(), back);
        }
        assert!(Moment::parse("1969-12-31T23:59:59Z").is_err());
        assert!(Moment::parse("yesterday").is_err());
        assert_eq!(Moment(i64::MAX).to_string(), format!("{} ms", i64::MAX));
    }
}
