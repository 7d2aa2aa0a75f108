//! Times as the API writes them.

use std::time::Duration;

use jiff::Timestamp;

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// For `#[serde(serialize_with = "time::serialize")]`.
pub fn serialize<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&rfc3339(*time))
}

/// As [`serialize`], for a time that may be absent.
pub fn serialize_optional<S: serde::Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// `time` plus `duration`, at most the end of time.
pub fn after(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// `time` less `duration`, at least the beginning of time.
pub fn before(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_sub(duration).unwrap_or(Timestamp::MIN)
}

/// How long it is from `now` until `time`; nothing once that has passed.
pub fn until(time: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(now)).unwrap_or_default()
}

/// The number of the UTC day, counted from 1970-01-01.
pub fn utc_day(time: Timestamp) -> i64 {
    time.as_second().div_euclid(86_400)
}

/// The first moment of a UTC day.
pub fn start_of_day(day: i64) -> Timestamp {
    Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_a_z() {
        let time = Timestamp::from_microsecond(1_763_812_345_678_901).unwrap();
        assert_eq!(rfc3339(time), "2025-11-22T11:52:25.678Z");
        assert_eq!(rfc3339(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        let noon: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let day = utc_day(noon);
        assert_eq!(rfc3339(start_of_day(day)), "2026-11-22T00:00:00.000Z");
        assert_eq!(rfc3339(start_of_day(day + 1)), "2026-11-23T00:00:00.000Z");
        assert_eq!(utc_day("1969-12-31T23:59:59Z".parse().unwrap()), -1);
    }
}
