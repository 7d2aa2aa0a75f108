//! The queries of the daily quota.

use uuid::Uuid;

use crate::queries;

queries! {
    /// Counts one message against a day. No row: the limit is reached. Also locks the user's day until commit, so
    /// what follows in the transaction happens one after the other for each user.
    fn charge(user_id: Uuid, day: i64, limit: i64) -> i64 =
        "INSERT INTO quota_day (user_id, day, used, free_stops) VALUES ($1, $2, 1, 0)
         ON CONFLICT (user_id, day) DO UPDATE SET used = quota_day.used + 1 WHERE quota_day.used < $3
         RETURNING used";

    fn used(user_id: Uuid, day: i64) -> i64 = "SELECT used FROM quota_day WHERE user_id = $1 AND day = $2";

    fn give_back(user_id: Uuid, day: i64) =
        "UPDATE quota_day SET used = used - 1 WHERE user_id = $1 AND day = $2 AND used > 0";

    /// Gives back a message that was stopped before its first word, as often as `most` a day.
    fn give_back_stopped(user_id: Uuid, day: i64, most: i64) =
        "UPDATE quota_day SET used = used - 1, free_stops = free_stops + 1
          WHERE user_id = $1 AND day = $2 AND used > 0 AND free_stops < $3";

    /// Gives back a message whose reply came to nothing, which it can have brought about itself, as often as `most` a day.
    fn give_back_failed(user_id: Uuid, day: i64, most: i64) =
        "UPDATE quota_day SET used = used - 1, free_failures = free_failures + 1
          WHERE user_id = $1 AND day = $2 AND used > 0 AND free_failures < $3";

    fn remove_old_days(before: i64) =
        "DELETE FROM quota_day
          WHERE (user_id, day) IN (SELECT user_id, day FROM quota_day WHERE day < $1 LIMIT 500)";
}
