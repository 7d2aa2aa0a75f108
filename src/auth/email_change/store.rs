//! The queries of changes of an address.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{platform::seal::Sealed, queries, record};

queries! {
    /// Stores a new address that waits for its code, in place of an older one of this session.
    fn store_change(
        session_id: Uuid, id: Uuid, user_id: Uuid, decoy: bool, email: Sealed, code_mac: [u8], tries_left: i64,
        expires_at: Timestamp,
    ) =
        "INSERT INTO email_change (session_id, id, user_id, decoy, email, code_mac, tries_left, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (session_id) DO UPDATE
            SET id = $2, user_id = $3, decoy = $4, email = $5, code_mac = $6, tries_left = $7, expires_at = $8";

    /// Spends one try, whatever comes of it. No row: there is nothing to confirm, or no try is left.
    fn spend_try(session_id: Uuid, user_id: Uuid, now: Timestamp) -> TriedChange =
        "UPDATE email_change SET tries_left = tries_left - 1
          WHERE session_id = $1 AND user_id = $2 AND expires_at > $3 AND tries_left > 0
         RETURNING id, decoy, email, code_mac";

    /// Uses a change up. The one that deletes the row is the one that changes the address.
    fn take_change(session_id: Uuid, user_id: Uuid, id: Uuid) =
        "DELETE FROM email_change WHERE session_id = $1 AND user_id = $2 AND id = $3 AND NOT decoy";

    fn remove_changes_of(user_id: Uuid) = "DELETE FROM email_change WHERE user_id = $1";

    fn remove_expired_changes(now: Timestamp) =
        "DELETE FROM email_change
          WHERE session_id IN (SELECT session_id FROM email_change WHERE expires_at < $1 LIMIT 500)";

    /// Stores a way back. The transaction holds the user's row, so that two do not get the same number.
    fn add_undo(token_hash: [u8], user_id: Uuid, email: Sealed, expires_at: Timestamp) =
        "INSERT INTO email_undo (token_hash, user_id, number, email, expires_at)
         VALUES ($1, $2, (SELECT COALESCE(MAX(number), 0) + 1 FROM email_undo WHERE user_id = $2), $3, $4)";

    fn find_undo(token_hash: [u8], now: Timestamp) -> UndoRow =
        "SELECT user_id, email FROM email_undo WHERE token_hash = $1 AND expires_at > $2";

    /// Uses a way back up; returns its number.
    fn take_undo(token_hash: [u8], user_id: Uuid, now: Timestamp) -> i64 =
        "DELETE FROM email_undo WHERE token_hash = $1 AND user_id = $2 AND expires_at > $3 RETURNING number";

    /// The ways back that a user has, from the earliest change on.
    fn undos_of(user_id: Uuid, now: Timestamp) -> OpenUndo =
        "SELECT token_hash, number, email FROM email_undo WHERE user_id = $1 AND expires_at > $2
          ORDER BY number LIMIT 100";

    /// Removes the ways back from this change and from those after it.
    fn remove_undos_from(user_id: Uuid, number: i64) =
        "DELETE FROM email_undo WHERE user_id = $1 AND number >= $2";

    fn remove_expired_undos(now: Timestamp) =
        "DELETE FROM email_undo
          WHERE token_hash IN (SELECT token_hash FROM email_undo WHERE expires_at < $1 LIMIT 500)";
}

record! {
    /// A change whose code is being tried.
    pub struct TriedChange {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) decoy: bool,
        pub(in crate::auth) email: Sealed,
        pub(in crate::auth) code_mac: Vec<u8>,
    }
}

record! {
    /// A way back to an address.
    pub struct UndoRow {
        pub(in crate::auth) user_id: Uuid,
        pub(in crate::auth) email: Sealed,
    }
}

record! {
    /// A way back of a user.
    pub struct OpenUndo {
        pub(in crate::auth) token_hash: Vec<u8>,
        pub(in crate::auth) number: i64,
        pub(in crate::auth) email: Sealed,
    }
}
