//! The queries of identity.

use jiff::Timestamp;
use uuid::Uuid;

use super::{AgeAssurance, Role};
use crate::{platform::seal::Sealed, queries, record};

queries! {
    /// Creates a user, unless the address is taken.
    fn add_user(
        id: Uuid, email: str, email_key: str, password_hash: str, role: Role, locale: Option<String>,
        birth_date: Option<Sealed>, age_assurance: AgeAssurance, created_at: Timestamp,
    ) =
        "INSERT INTO app_user (id, email, email_key, email_verified, password_hash, role, locale, birth_date,
                               age_assurance, created_at)
         VALUES ($1, $2, $3, TRUE, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (email_key) DO NOTHING";

    fn find_user(id: Uuid) -> UserRow =
        "SELECT id, email, email_verified, display_name, locale, time_zone, role, created_at, age_assurance
           FROM app_user WHERE id = $1";

    /// What login compares a password with.
    fn find_credentials(email_key: str) -> Credentials =
        "SELECT id, password_hash FROM app_user WHERE email_key = $1";

    /// Sets the fields whose flag is true and leaves the others, so that two changes at once do not undo each other.
    fn update_profile(
        id: Uuid, set_name: bool, display_name: Option<Sealed>, set_locale: bool, locale: Option<String>,
        set_zone: bool, time_zone: Option<String>,
    ) =
        "UPDATE app_user
            SET display_name = CASE WHEN $2 THEN $3 ELSE display_name END,
                locale = CASE WHEN $4 THEN $5 ELSE locale END,
                time_zone = CASE WHEN $6 THEN $7 ELSE time_zone END
          WHERE id = $1";

    fn add_consent(user_id: Uuid, document: str, version: str, accepted_at: Timestamp) =
        "INSERT INTO consent (user_id, document, version, accepted_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (user_id, document, version) DO NOTHING";

    fn consents_of(user_id: Uuid) -> ConsentRow =
        "SELECT document, version FROM consent WHERE user_id = $1 ORDER BY accepted_at DESC LIMIT 500";

    fn add_session(
        id: Uuid, user_id: Uuid, refresh_hash: [u8], device_name: Option<String>, address: Option<String>,
        now: Timestamp, idle_expires_at: Timestamp, expires_at: Timestamp,
    ) =
        "INSERT INTO session (id, user_id, refresh_hash, token_gen, auth_time, device_name, address, created_at, last_seen_at,
                              idle_expires_at, expires_at)
         VALUES ($1, $2, $3, 1, $6, $4, $5, $6, $6, $7, $8)";

    /// The live session of an access token, joined with its user. Every request runs this.
    fn live_session(id: Uuid, user_id: Uuid, now: Timestamp) -> LiveSession =
        "SELECT s.id, s.user_id, u.role
           FROM session s JOIN app_user u ON u.id = s.user_id
          WHERE s.id = $1 AND s.user_id = $2 AND s.expires_at > $3 AND s.idle_expires_at > $3";

    fn find_session(id: Uuid, user_id: Uuid) -> SessionRow =
        "SELECT id, user_id, token_gen, auth_time, device_name, address, created_at, last_seen_at, idle_expires_at
           FROM session WHERE id = $1 AND user_id = $2";

    /// Exchanges a refresh token. The condition on the old hash decides between two that try at once.
    fn rotate_session(
        id: Uuid, old_hash: [u8], new_hash: [u8], now: Timestamp, idle_expires_at: Timestamp,
    ) -> SessionRow =
        "UPDATE session
            SET refresh_hash = $3, token_gen = token_gen + 1, last_seen_at = $4,
                idle_expires_at = CASE WHEN $5 < expires_at THEN $5 ELSE expires_at END
          WHERE id = $1 AND refresh_hash = $2 AND expires_at > $4 AND idle_expires_at > $4
         RETURNING id, user_id, token_gen, auth_time, device_name, address, created_at, last_seen_at, idle_expires_at";

    fn end_session(id: Uuid, user_id: Uuid) = "DELETE FROM session WHERE id = $1 AND user_id = $2";

    /// Ends the session that a refresh token belongs to.
    fn end_session_by_token(id: Uuid, refresh_hash: [u8]) =
        "DELETE FROM session WHERE id = $1 AND refresh_hash = $2";

    fn remove_ended_sessions(now: Timestamp) =
        "DELETE FROM session WHERE id IN (SELECT id FROM session WHERE idle_expires_at < $1 LIMIT 500)";

    fn add_pending_signup(
        token_hash: [u8], id: Uuid, email_mac: [u8], decoy: bool, details: Sealed, code_mac: [u8],
        code_expires_at: Timestamp, tries_left: i64, resends_left: i64, resend_at: Timestamp, expires_at: Timestamp,
        created_at: Timestamp,
    ) =
        "INSERT INTO pending_signup (token_hash, id, email_mac, decoy, details, code_mac, code_expires_at, tries_left,
                                     resends_left, resend_at, expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

    fn find_pending_signup(token_hash: [u8], now: Timestamp) -> PendingSignup =
        "SELECT id, decoy, details, resends_left, resend_at, expires_at
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
    fn take_pending_signup(token_hash: [u8]) = "DELETE FROM pending_signup WHERE token_hash = $1";

    /// Ends every pending sign-up for an address.
    fn end_pending_signups(email_mac: [u8]) = "DELETE FROM pending_signup WHERE email_mac = $1";

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

    /// Stores the key with this number; an instance that was faster keeps its own.
    fn add_signing_key(
        number: i64, kid: str, public_key: [u8], private_key: Sealed, created_at: Timestamp,
    ) =
        "INSERT INTO signing_key (number, kid, public_key, private_key, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (number) DO NOTHING";

    scan fn signing_keys() -> SigningKeyRow =
        "SELECT kid, public_key, private_key FROM signing_key ORDER BY number DESC LIMIT 100";
}

record! {
    /// A user's row.
    pub struct UserRow {
        pub(super) id: Uuid,
        pub(super) email: String,
        pub(super) email_verified: bool,
        pub(super) display_name: Option<Sealed>,
        pub(super) locale: Option<String>,
        pub(super) time_zone: Option<String>,
        pub(super) role: Role,
        pub(super) created_at: Timestamp,
        pub(super) age_assurance: AgeAssurance,
    }
}

record! {
    /// What a password is compared with.
    pub struct Credentials {
        pub(super) id: Uuid,
        pub(super) password_hash: Option<String>,
    }
}

record! {
    /// A consent that was given.
    pub struct ConsentRow {
        pub(super) document: String,
        pub(super) version: String,
    }
}

record! {
    /// What every request reads of its session.
    pub struct LiveSession {
        pub(super) id: Uuid,
        pub(super) user_id: Uuid,
        pub(super) role: Role,
    }
}

record! {
    /// A session's row.
    #[derive(Clone)]
    pub struct SessionRow {
        pub(super) id: Uuid,
        pub(super) user_id: Uuid,
        pub(super) token_gen: i64,
        pub(super) auth_time: Timestamp,
        pub(super) device_name: Option<String>,
        pub(super) address: Option<String>,
        pub(super) created_at: Timestamp,
        pub(super) last_seen_at: Timestamp,
        pub(super) idle_expires_at: Timestamp,
    }
}

record! {
    /// A sign-up that waits for its code.
    pub struct PendingSignup {
        pub(super) id: Uuid,
        pub(super) decoy: bool,
        pub(super) details: Sealed,
        pub(super) resends_left: i64,
        pub(super) resend_at: Timestamp,
        pub(super) expires_at: Timestamp,
    }
}

record! {
    /// A sign-up whose code is being tried.
    pub struct TriedSignup {
        pub(super) id: Uuid,
        pub(super) decoy: bool,
        pub(super) email_mac: Vec<u8>,
        pub(super) details: Sealed,
        pub(super) code_mac: Vec<u8>,
    }
}

record! {
    /// A key that signs access tokens.
    pub struct SigningKeyRow {
        pub(super) kid: String,
        pub(super) public_key: Vec<u8>,
        pub(super) private_key: Sealed,
    }
}
