//! The queries of pending sign-ups and of refusals for age.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{platform::seal::Sealed, queries, record};

queries! {
    fn add_pending_signup(
        token_hash: [u8], id: Uuid, email_mac: [u8], decoy: bool, details: Sealed, code_mac: [u8],
        code_expires_at: Timestamp, tries_left: i64, resends_left: i64, resend_at: Timestamp, expires_at: Timestamp,
        created_at: Timestamp,
    ) =
        "INSERT INTO pending_signup (token_hash, id, email_mac, decoy, details, code_mac, code_expires_at, tries_left,
                                     resends_left, resend_at, expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

    fn find_pending_signup(token_hash: [u8], now: Timestamp) -> PendingSignup =
        "SELECT id, decoy, details, resends_left, resend_at
           FROM pending_signup WHERE token_hash = $1 AND expires_at > $2";

    /// Spends one try, whatever comes of it. No row: unknown, expired, or no try is left.
    fn spend_try(token_hash: [u8], now: Timestamp) -> TriedSignup =
        "UPDATE pending_signup SET tries_left = tries_left - 1
          WHERE token_hash = $1 AND expires_at > $2 AND code_expires_at > $2 AND tries_left > 0
         RETURNING id, decoy, email_mac, details, code_mac";

    /// Gives a new code, once per waiting time.
    fn renew_code(
        token_hash: [u8], code_mac: [u8], code_expires_at: Timestamp, tries_left: i64, resend_at: Timestamp,
        now: Timestamp,
    ) =
        "UPDATE pending_signup
            SET code_mac = $2, code_expires_at = $3, tries_left = $4, resend_at = $5, resends_left = resends_left - 1
          WHERE token_hash = $1 AND expires_at > $6 AND resend_at <= $6 AND resends_left > 0";

    /// Takes a pending sign-up for good. The one that deletes the row is the one that creates the user.
    fn take_pending_signup(token_hash: [u8]) =
        "DELETE FROM pending_signup WHERE token_hash = $1 AND NOT decoy";

    /// Makes decoys of all pending sign-ups for an address. Who polls one must not learn that it lost.
    fn make_decoys(email_mac: [u8]) =
        "UPDATE pending_signup SET decoy = TRUE WHERE email_mac = $1 AND NOT decoy";

    fn remove_expired_signups(now: Timestamp) =
        "DELETE FROM pending_signup
          WHERE token_hash IN (SELECT token_hash FROM pending_signup WHERE expires_at < $1 LIMIT 500)";

    fn remember_age_refusal(email_mac: [u8], expires_at: Timestamp) =
        "INSERT INTO age_refusal (email_mac, expires_at) VALUES ($1, $2)
         ON CONFLICT (email_mac) DO UPDATE SET expires_at = $2";

    fn find_age_refusal(email_mac: [u8], now: Timestamp) -> i64 =
        "SELECT expires_at FROM age_refusal WHERE email_mac = $1 AND expires_at > $2";

    fn remove_expired_age_refusals(now: Timestamp) =
        "DELETE FROM age_refusal
          WHERE email_mac IN (SELECT email_mac FROM age_refusal WHERE expires_at < $1 LIMIT 500)";
}

record! {
    /// A sign-up that waits for its code.
    pub struct PendingSignup {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) decoy: bool,
        pub(in crate::auth) details: Sealed,
        pub(in crate::auth) resends_left: i64,
        pub(in crate::auth) resend_at: Timestamp,
    }
}

record! {
    /// A sign-up whose code is being tried.
    pub struct TriedSignup {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) decoy: bool,
        pub(in crate::auth) email_mac: Vec<u8>,
        pub(in crate::auth) details: Sealed,
        pub(in crate::auth) code_mac: Vec<u8>,
    }
}
