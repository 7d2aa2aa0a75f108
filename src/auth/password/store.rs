//! The queries of ways to a new password.

use jiff::Timestamp;
use uuid::Uuid;

use crate::queries;

queries! {
    /// Stores a way to a new password, in place of an older one for this address. Without a user it is a decoy.
    fn store_reset(email_mac: [u8], user_id: Option<Uuid>, token_hash: [u8], expires_at: Timestamp) =
        "INSERT INTO password_reset (email_mac, user_id, token_hash, expires_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (email_mac) DO UPDATE SET user_id = $2, token_hash = $3, expires_at = $4";

    /// Whose password a token may set.
    fn find_reset(token_hash: [u8], now: Timestamp) -> Uuid =
        "SELECT user_id FROM password_reset WHERE token_hash = $1 AND expires_at > $2 AND user_id IS NOT NULL";

    /// Uses a token up. The one that deletes the row is the one that sets the password.
    fn take_reset(token_hash: [u8], user_id: Uuid, now: Timestamp) =
        "DELETE FROM password_reset WHERE token_hash = $1 AND user_id = $2 AND expires_at > $3";

    fn remove_resets_of(user_id: Uuid) = "DELETE FROM password_reset WHERE user_id = $1";

    fn remove_expired_resets(now: Timestamp) =
        "DELETE FROM password_reset
          WHERE email_mac IN (SELECT email_mac FROM password_reset WHERE expires_at < $1 LIMIT 500)";
}
