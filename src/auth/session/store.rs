//! The queries of sessions. Whatever changes what a refresh token is worth is one guarded statement: `token_gen` in its
//! condition says that nobody else has exchanged a token since the row was read.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{auth::Role, platform::seal::Sealed, queries, record};

queries! {
    fn add_session(
        id: Uuid, user_id: Uuid, refresh_hash: [u8], device_name: Option<String>, address: Option<String>,
        now: Timestamp, idle_expires_at: Timestamp, expires_at: Timestamp,
    ) =
        "INSERT INTO session (id, user_id, token_gen, refresh_hash, prev_replays, seen_gen, min_gen, auth_time, device_name,
                              address, created_at, last_seen_at, idle_expires_at, expires_at)
         VALUES ($1, $2, 1, $3, 0, 0, 1, $6, $4, $5, $6, $6, $7, $8)";

    /// Ends all sessions of a user but the `keep` newest, and says which and whether they were over. Those go first.
    fn end_oldest_sessions(user_id: Uuid, now: Timestamp, keep: i64) -> EndedSession =
        "DELETE FROM session
          WHERE user_id = $1
            AND id IN (SELECT id FROM session WHERE user_id = $1
                        ORDER BY CASE WHEN idle_expires_at > $2 THEN 0 ELSE 1 END, created_at DESC, id DESC
                        LIMIT 500 OFFSET $3)
         RETURNING id, idle_expires_at";

    /// The live session of an access token, joined with its user. Every request runs this. A suspended user has none, and
    /// a token whose key was revoked names none, on whichever instance and from this moment on.
    fn live_session(id: Uuid, user_id: Uuid, token_gen: i64, now: Timestamp, kid: str) -> LiveSession =
        "SELECT s.id, s.user_id, u.role, s.seen_gen, s.last_seen_at
           FROM session s JOIN app_user u ON u.id = s.user_id
          WHERE s.id = $1 AND s.user_id = $2 AND s.min_gen <= $3 AND s.token_gen >= $3
            AND s.expires_at > $4 AND s.idle_expires_at > $4
            AND (u.suspended_at IS NULL OR u.suspended_until <= $4)
            AND EXISTS (SELECT 1 FROM signing_key k WHERE k.kid = $5 AND k.revoked_at IS NULL)";

    /// Whether a session still lives, whatever key its access token was signed with.
    fn session_lives(id: Uuid, user_id: Uuid, now: Timestamp) -> Uuid =
        "SELECT s.id
           FROM session s JOIN app_user u ON u.id = s.user_id
          WHERE s.id = $1 AND s.user_id = $2 AND s.expires_at > $3 AND s.idle_expires_at > $3
            AND (u.suspended_at IS NULL OR u.suspended_until <= $3)";

    /// Holds a session that lives until the transaction ends. No row: it is over.
    fn hold_session(id: Uuid, user_id: Uuid, now: Timestamp) -> Uuid =
        "UPDATE session SET last_seen_at = last_seen_at
          WHERE id = $1 AND user_id = $2 AND expires_at > $3 AND idle_expires_at > $3
         RETURNING id";

    /// Notes that the client has the tokens of this generation, and now and then that it is there. Forgets a successor
    /// that is not handed out any more.
    fn note_presence(
        id: Uuid, user_id: Uuid, token_gen: i64, now: Timestamp, seen_before: Timestamp, forget_before: Timestamp,
    ) =
        "UPDATE session
            SET seen_gen = CASE WHEN seen_gen < $3 THEN $3 ELSE seen_gen END,
                last_seen_at = CASE WHEN last_seen_at < $5 THEN $4 ELSE last_seen_at END,
                sealed_succ = CASE WHEN prev_used_at < $6 THEN NULL ELSE sealed_succ END,
                prev_used_at = CASE WHEN prev_used_at < $6 THEN NULL ELSE prev_used_at END
          WHERE id = $1 AND user_id = $2 AND min_gen <= $3 AND token_gen >= $3
            AND (seen_gen < $3 OR last_seen_at < $5)";

    fn find_session(id: Uuid, user_id: Uuid) -> SessionRow =
        "SELECT id, user_id, token_gen, auth_time, device_name, address, created_at, last_seen_at, idle_expires_at,
                expires_at
           FROM session WHERE id = $1 AND user_id = $2";

    /// The live sessions of a user, newest first.
    fn sessions_of_user(user_id: Uuid, now: Timestamp) -> SessionRow =
        "SELECT id, user_id, token_gen, auth_time, device_name, address, created_at, last_seen_at, idle_expires_at,
                expires_at
           FROM session WHERE user_id = $1 AND expires_at > $2 AND idle_expires_at > $2
          ORDER BY created_at DESC, id DESC LIMIT 100";

    /// Whose session this is. A refresh token names no more than the session, and its own mark shows that it was one of it.
    fn find_session_owner(id: Uuid) -> Uuid = "SELECT user_id FROM session WHERE id = $1";

    /// A live session, with what decides about a refresh token of it.
    fn session_to_refresh(id: Uuid, now: Timestamp) -> RefreshableSession =
        "SELECT id, user_id, token_gen, auth_time, device_name, address, created_at, last_seen_at, idle_expires_at,
                expires_at, refresh_hash, prev_hash, prev_used_at, prev_replays, sealed_succ, seen_gen
           FROM session WHERE id = $1 AND expires_at > $2 AND idle_expires_at > $2";

    /// Exchanges the newest token.
    fn rotate_session(
        id: Uuid, user_id: Uuid, token_gen: i64, presented: [u8], successor: [u8], sealed_succ: Sealed, now: Timestamp,
        idle_expires_at: Timestamp,
    ) -> Uuid =
        "UPDATE session
            SET token_gen = token_gen + 1, refresh_hash = $5, prev_hash = $4, prev_used_at = $7, prev_replays = 0,
                sealed_succ = $6, last_seen_at = $7, idle_expires_at = $8
          WHERE id = $1 AND user_id = $2 AND token_gen = $3 AND refresh_hash = $4 AND expires_at > $7
            AND idle_expires_at > $7
         RETURNING id";

    /// Counts that the successor is handed out once more. As long as nobody has shown to have it, that may have been
    /// for nothing too, and the window begins anew.
    fn count_replay(
        id: Uuid, user_id: Uuid, token_gen: i64, presented: [u8], now: Timestamp, used_since: Timestamp, most: i64,
    ) -> Uuid =
        "UPDATE session
            SET prev_replays = prev_replays + 1,
                prev_used_at = CASE WHEN seen_gen < token_gen AND prev_used_at < $5 THEN $5 ELSE prev_used_at END
          WHERE id = $1 AND user_id = $2 AND token_gen = $3 AND prev_hash = $4 AND prev_used_at >= $6
            AND prev_replays < $7 AND sealed_succ IS NOT NULL AND expires_at > $5 AND idle_expires_at > $5
         RETURNING id";

    /// Gives the token before the newest another successor, because nobody has ever shown to have the first one. That
    /// one dies, and with it every access token of before.
    fn recover_session(
        id: Uuid, user_id: Uuid, token_gen: i64, presented: [u8], successor: [u8], sealed_succ: Sealed, now: Timestamp,
        idle_expires_at: Timestamp, used_before: Timestamp,
    ) -> Uuid =
        "UPDATE session
            SET token_gen = token_gen + 1, min_gen = token_gen + 1, refresh_hash = $5, prev_used_at = $7,
                prev_replays = 0, sealed_succ = $6, last_seen_at = $7, idle_expires_at = $8
          WHERE id = $1 AND user_id = $2 AND token_gen = $3 AND prev_hash = $4 AND seen_gen < token_gen
            AND (prev_used_at IS NULL OR prev_used_at < $9) AND expires_at > $7 AND idle_expires_at > $7
         RETURNING id";

    /// Ends a session one of whose tokens was presented when nobody honest could.
    fn end_stolen_session(
        id: Uuid, user_id: Uuid, token_gen: i64, presented: [u8], now: Timestamp, used_before: Timestamp,
    ) -> Uuid =
        "DELETE FROM session
          WHERE id = $1 AND user_id = $2 AND token_gen = $3 AND refresh_hash <> $4 AND expires_at > $5
            AND idle_expires_at > $5
            AND (prev_hash IS NULL OR prev_hash <> $4
                 OR (seen_gen >= token_gen AND (prev_used_at IS NULL OR prev_used_at < $6)))
         RETURNING id";

    fn end_session(id: Uuid, user_id: Uuid) = "DELETE FROM session WHERE id = $1 AND user_id = $2";

    /// Ends this session and all others of its user. One that has ended itself has no say any more.
    fn end_session_and_others(id: Uuid, user_id: Uuid) =
        "DELETE FROM session
          WHERE user_id = $2 AND EXISTS (SELECT 1 FROM session WHERE id = $1 AND user_id = $2)";

    /// Ends all sessions of a user.
    fn end_sessions_of(user_id: Uuid) = "DELETE FROM session WHERE user_id = $1";

    /// Ends all sessions of a user but one.
    fn end_other_sessions(user_id: Uuid, keep: Uuid) = "DELETE FROM session WHERE user_id = $1 AND id <> $2";

    fn remove_ended_sessions(now: Timestamp) =
        "DELETE FROM session WHERE id IN (SELECT id FROM session WHERE idle_expires_at < $1 LIMIT 500)";

    /// Forgets successors that are not handed out any more.
    fn forget_successors(used_before: Timestamp) =
        "UPDATE session SET sealed_succ = NULL, prev_used_at = NULL
          WHERE id IN (SELECT id FROM session WHERE prev_used_at < $1 LIMIT 500) AND prev_used_at < $1";
}

record! {
    /// What every request reads of its session.
    pub struct LiveSession {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) user_id: Uuid,
        pub(in crate::auth) role: Role,
        pub(in crate::auth) seen_gen: i64,
        pub(in crate::auth) last_seen_at: Timestamp,
    }
}

record! {
    /// A session that was ended.
    pub struct EndedSession {
        pub(in crate::auth) id: Uuid,
        pub(in crate::auth) idle_expires_at: Timestamp,
    }
}

record! {
    /// A session's row, as far as its user sees it.
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

record! {
    /// A session's row with what decides about a refresh token.
    pub struct RefreshableSession {
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
        pub(in crate::auth) refresh_hash: Vec<u8>,
        pub(in crate::auth) prev_hash: Option<Vec<u8>>,
        pub(in crate::auth) prev_used_at: Option<Timestamp>,
        pub(in crate::auth) prev_replays: i64,
        pub(in crate::auth) sealed_succ: Option<Sealed>,
        pub(in crate::auth) seen_gen: i64,
    }
}
