//! The queries of wrong passwords in a row.

use jiff::Timestamp;
use uuid::Uuid;

use crate::queries;

queries! {
    fn find_failures(account: [u8]) -> i64 = "SELECT failures FROM password_failure WHERE account = $1";

    /// Counts a wrong password and says how many there are in a row now.
    fn count_failure(account: [u8], user_id: Option<Uuid>, now: Timestamp) -> i64 =
        "INSERT INTO password_failure (account, user_id, failures, updated_at) VALUES ($1, $2, 1, $3)
         ON CONFLICT (account) DO UPDATE SET failures = password_failure.failures + 1, updated_at = $3
         RETURNING failures";

    /// Begins to count anew after a right password. No row: the account is locked, and this one comes too late.
    fn forget_failures(account: [u8], user_id: Uuid, max: i64, now: Timestamp) -> i64 =
        "INSERT INTO password_failure (account, user_id, failures, updated_at) VALUES ($1, $2, 0, $4)
         ON CONFLICT (account) DO UPDATE SET failures = 0, updated_at = $4 WHERE password_failure.failures < $3
         RETURNING failures";

    /// Stores the hash of a new link, unless one was mailed after `before`. Nobody's account gets none.
    fn renew_unlock_link(account: [u8], unlock_hash: [u8], now: Timestamp, before: Timestamp) =
        "UPDATE password_failure SET unlock_hash = $2, mailed_at = $3
          WHERE account = $1 AND user_id IS NOT NULL AND (mailed_at IS NULL OR mailed_at <= $4)";

    /// Unlocks by a link that was mailed after `after`; it works once.
    fn unlock(unlock_hash: [u8], after: Timestamp, now: Timestamp) -> Uuid =
        "UPDATE password_failure SET failures = 0, unlock_hash = NULL, mailed_at = NULL, updated_at = $3
          WHERE unlock_hash = $1 AND mailed_at > $2 AND user_id IS NOT NULL
         RETURNING user_id";

    /// Unlocks an account whose owner has shown by another mail who they are.
    fn unlock_user(user_id: Uuid, now: Timestamp) =
        "UPDATE password_failure SET failures = 0, unlock_hash = NULL, mailed_at = NULL, updated_at = $2
          WHERE user_id = $1";

    fn remove_failures_of_nobody(before: Timestamp) =
        "DELETE FROM password_failure
          WHERE account IN (SELECT account FROM password_failure WHERE user_id IS NULL AND updated_at < $1 LIMIT 500)";
}
