//! The queries of checkouts that are open.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{billing::row::Mode, platform::seal::Sealed, queries, record};

queries! {
    fn find_intent(user_id: Uuid) -> IntentRow =
        "SELECT provider, mode, plan, nonce, request, reference, url, expires_at FROM checkout_intent WHERE user_id = $1";

    /// Makes room: removes the user's checkout if it ends by `ending`, or is the one that is replaced and as it was: who has
    /// been given its page meanwhile can pay there.
    fn remove_ending(user_id: Uuid, ending: Timestamp, replaces: Option<Uuid>, reference: str) =
        "DELETE FROM checkout_intent
          WHERE user_id = $1 AND (expires_at <= $2 OR (nonce = $3 AND COALESCE(reference, '') = $4))";

    /// Hands out the page of a checkout no more, because it is about to end.
    fn withdraw_page(user_id: Uuid, nonce: Uuid) =
        "UPDATE checkout_intent SET url = NULL WHERE user_id = $1 AND nonce = $2";

    /// Opens a checkout. No row: there is another one.
    fn open_intent(
        user_id: Uuid, provider: str, mode: Mode, plan: str, nonce: Uuid, request: [u8], now: Timestamp, expires_at: Timestamp,
    ) =
        "INSERT INTO checkout_intent (user_id, provider, mode, plan, nonce, request, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING";

    /// Keeps the page of a checkout. No row: it was closed or replaced, or its page withdrawn.
    fn keep_page(user_id: Uuid, nonce: Uuid, reference: Option<String>, url: Sealed, expires_at: Timestamp) =
        "UPDATE checkout_intent SET reference = $3, url = $4, expires_at = $5
          WHERE user_id = $1 AND nonce = $2 AND (reference IS NULL OR url IS NOT NULL)";

    /// A subscription has come of it.
    fn close_intent(user_id: Uuid, provider: str, mode: Mode) =
        "DELETE FROM checkout_intent WHERE user_id = $1 AND provider = $2 AND mode = $3";

    fn remove_expired_intents(now: Timestamp) =
        "DELETE FROM checkout_intent
          WHERE user_id IN (SELECT user_id FROM checkout_intent WHERE expires_at < $1 LIMIT 500)";
}

record! {
    /// A checkout's row.
    pub struct IntentRow {
        pub provider: String,
        pub mode: Mode,
        pub plan: String,
        pub nonce: Uuid,
        pub request: Vec<u8>,
        pub reference: Option<String>,
        pub url: Option<Sealed>,
        pub expires_at: Timestamp,
    }
}
