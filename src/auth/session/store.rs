//! The queries of sessions.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{auth::Role, queries, record};

queries! {
    fn add_session(
        id: Uuid, user_id: Uuid, refresh_hash: [u8], device_name: Option<String>, address: Option<String>,
        now: Timestamp, idle_expires_at: Timestamp, expires_at: Timestamp,
    ) =
        "INSERT INTO session (id, user_id, refresh_hash, token_gen, auth_time, device_name, address, created_at, last_seen_at,
                              idle_expires_at, expires_at)
         VALUES ($1, $2, $3, 1, $6, $4, $5, $6, $6, $7, $8)";

    /// Ends all sessions of a user but the `keep` newest. Those that are over go first.
    fn end_oldest_sessions(user_id: Uuid, now: Timestamp, keep: i64) =
        "DELETE FROM session
          WHERE user_id = $1
            AND id IN (SELECT id FROM session WHERE user_id = $1
                        ORDER BY CASE WHEN idle_expires_at > $2 THEN 0 ELSE 1 END, created_at DESC, id DESC
                        LIMIT 500 OFFSET $3)";

    /// The live session of an access token, joined with its user. Every request runs this. A suspended user has none, and
    /// a token whose key was revoked names none, on whichever instance and from this moment on.
    fn live_session(id: Uuid, user_id: Uuid, now: Timestamp, kid: str) -> LiveSession =
        "SELECT s.id, s.user_id, u.role
           FROM session s JOIN app_user u ON u.id = s.user_id
          WHERE s.id = $1 AND s.user_id = $2 AND s.expires_at > $3 AND s.idle_expires_at > $3
            AND (u.suspended_at IS NULL OR u.suspended_until <= $3)
            AND EXISTS (SELECT 1 FROM signing_key k WHERE k.kid = $4 AND k.revoked_at IS NULL)";

    /// Whether a session still lives, whatever key its access token was signed with.
    fn session_lives(id: Uuid, user_id: Uuid, now: Timestamp) -> Uuid =
        "SELECT s.id
           FROM session s JOIN app_user u ON u.id = s.user_id
          WHERE s.id = $1 AND s.user_id = $2 AND s.expires_at > $3 AND s.idle_expires_at > $3
            AND (u.suspended_at IS NULL OR u.suspended_until <= $3)";

    fn find_session(id: Uuid, user_id: Uuid) -> SessionRow =
        "SELECT id, user_id, token_gen, auth_time, device_name, address, created_at, last_seen_at, idle_expires_at,
                expires_at
           FROM session WHERE id = $1 AND user_id = $2";

    /// The live session that a refresh token belongs to.
    fn find_session_to_refresh(id: Uuid, refresh_hash: [u8], now: Timestamp) -> SessionRow =
        "SELECT id, user_id, token_gen, auth_time, device_name, address, created_at, last_seen_at, idle_expires_at,
                expires_at
           FROM session WHERE id = $1 AND refresh_hash = $2 AND expires_at > $3 AND idle_expires_at > $3";

    /// Exchanges a refresh token. The condition on the old hash decides between two that try at once.
    fn rotate_session(
        id: Uuid, old_hash: [u8], new_hash: [u8], now: Timestamp, idle_expires_at: Timestamp,
    ) =
        "UPDATE session
            SET refresh_hash = $3, token_gen = token_gen + 1, last_seen_at = $4, idle_expires_at = $5
          WHERE id = $1 AND refresh_hash = $2 AND expires_at > $4 AND idle_expires_at > $4";

    fn end_session(id: Uuid, user_id: Uuid) = "DELETE FROM session WHERE id = $1 AND user_id = $2";

    /// Ends the session that a refresh token belongs to; returns its user.
    fn end_session_by_token(id: Uuid, refresh_hash: [u8]) -> Uuid =
        "DELETE FROM session WHERE id = $1 AND refresh_hash = $2 RETURNING user_id";

    fn end_all_sessions(user_id: Uuid) = "DELETE FROM session WHERE user_id = $1";

    /// Ends all sessions of a user.
    fn end_sessions_of(user_id: Uuid) = "DELETE FROM session WHERE user_id = $1";

    /// Ends all sessions of a user but one.
    fn end_other_sessions(user_id: Uuid, keep: Uuid) = "DELETE FROM session WHERE user_id = $1 AND id <> $2";

    fn remove_ended_sessions(now: Timestamp) =
        "DELETE FROM session WHERE id IN (SELECT id FROM session WHERE idle_expires_at < $1 LIMIT 500)";
}

record! {
    /// What every request reads of its session.
    pub struct LiveSession {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) user_id: Uuid,
        pub(in crate::auth) role: Role,
    }
}

record! {
    /// A session's row.
    #[derive(Clone)]
    pub struct SessionRow {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) user_id: Uuid,
        pub(in crate::auth) token_gen: i64,
        pub(in crate::auth) auth_time: Timestamp,
        pub(in crate::auth) device_name: Option<String>,
        pub(in crate::auth) address: Option<String>,
        pub(in crate::auth) created_at: Timestamp,
        pub(in crate::auth) last_seen_at: Timestamp,
        pub(in crate::auth) idle_expires_at: Timestamp,
        pub(in crate::auth) expires_at: Timestamp,
    }
}
