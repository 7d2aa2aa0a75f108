//! The queries of token buckets. `rate.rs` says what the numbers mean.

use jiff::Timestamp;

use crate::queries;

queries! {
    /// Takes a token. No row: none is left. One statement reads, decides and writes, so that no two can take the same one.
    fn take(key: [u8], now: i64, interval: i64, first: i64, latest: i64) -> i64 =
        "INSERT INTO throttle (key, full_at) VALUES ($1, $4)
         ON CONFLICT (key) DO UPDATE
            SET full_at = CASE WHEN throttle.full_at > $2 THEN throttle.full_at ELSE $2 END + $3
          WHERE throttle.full_at <= $5
         RETURNING full_at";

    /// Puts back what one token is worth.
    fn refund(key: [u8], interval: i64) = "UPDATE throttle SET full_at = full_at - $2 WHERE key = $1";

    fn find_bucket(key: [u8]) -> i64 = "SELECT full_at FROM throttle WHERE key = $1";

    /// A bucket that is full says what one says that is not there.
    fn remove_full_buckets(now: Timestamp) =
        "DELETE FROM throttle WHERE key IN (SELECT key FROM throttle WHERE full_at < $1 LIMIT 500)";
}
