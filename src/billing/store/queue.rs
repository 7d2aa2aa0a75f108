//! The queries of notices and of the queue of what providers are to be asked.

use jiff::Timestamp;

use crate::{billing::row::Mode, queries, record, text_column};

/// What has become of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeStatus {
    /// The provider is to be asked.
    Pending,
    /// Its effect is stored.
    Done,
    /// It had none.
    Ignored,
    /// The provider could not be asked for a day. The queue goes on trying.
    Dead,
}

text_column!(NoticeStatus { Pending = "pending", Done = "done", Ignored = "ignored", Dead = "dead" });

queries! {
    /// No row: it came before.
    fn add_notice(
        provider: str, mode: Mode, event_key: str, kind: str, subject: Option<String>, seq: i64, status: NoticeStatus,
        occurred_at: Timestamp, received_at: Timestamp,
    ) =
        "INSERT INTO billing_inbox (provider, mode, event_key, kind, subject, seq, status, occurred_at, received_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";

    /// Takes a fact: no row if it was stored before. One that was ignored may have its user now, and counts.
    fn take_fact(
        provider: str, mode: Mode, event_key: str, kind: str, subject: Option<String>, occurred_at: Timestamp,
        received_at: Timestamp,
    ) =
        "INSERT INTO billing_inbox (provider, mode, event_key, kind, subject, seq, status, occurred_at, received_at)
         VALUES ($1, $2, $3, $4, $5, 0, 'done', $6, $7)
         ON CONFLICT (provider, mode, event_key) DO UPDATE SET status = 'done' WHERE billing_inbox.status = 'ignored'";

    /// Says which wish a notice became.
    fn number_notice(provider: str, mode: Mode, event_key: str, seq: i64) =
        "UPDATE billing_inbox SET seq = $4 WHERE provider = $1 AND mode = $2 AND event_key = $3";

    /// The notices that a stored snapshot covers, also those that had been given up.
    fn close_notices(provider: str, mode: Mode, subject: str, seq: i64, status: NoticeStatus) =
        "UPDATE billing_inbox SET status = $5
          WHERE provider = $1 AND mode = $2 AND subject = $3 AND seq <= $4 AND status IN ('pending', 'dead')";

    fn bury_notices(provider: str, mode: Mode, subject: str, received_before: Timestamp) =
        "UPDATE billing_inbox SET status = 'dead'
          WHERE provider = $1 AND mode = $2 AND subject = $3 AND received_at < $4 AND status = 'pending'
            AND status IN ('pending', 'dead')";

    scan fn dead_notices(limit: i64) -> NoticeRow =
        "SELECT provider, mode, event_key, kind, subject, occurred_at, received_at FROM billing_inbox
          WHERE status = 'dead' ORDER BY received_at DESC LIMIT $1";

    scan fn open_subjects() -> SubjectRow =
        "SELECT provider, mode, subject FROM billing_sync WHERE want_seq > done_seq";

    fn remove_old_notices(before: Timestamp) =
        "DELETE FROM billing_inbox
          WHERE (provider, mode, event_key) IN (SELECT provider, mode, event_key FROM billing_inbox
                 WHERE received_at < $1 AND status <> 'pending' ORDER BY received_at LIMIT 500)";

    /// Wishes that a subject be asked for, at `next_at` or as soon as it is anyway; one that fails keeps its pause.
    fn wish(provider: str, mode: Mode, subject: str, next_at: Timestamp) -> i64 =
        "INSERT INTO billing_sync (provider, mode, subject, want_seq, done_seq, next_at, lease_until, attempts)
         VALUES ($1, $2, $3, 1, 0, $4, 0, 0)
         ON CONFLICT (provider, mode, subject) DO UPDATE
            SET want_seq = billing_sync.want_seq + 1,
                next_at = CASE WHEN billing_sync.attempts > 0 AND billing_sync.want_seq > billing_sync.done_seq
                               THEN billing_sync.next_at
                               WHEN billing_sync.want_seq > billing_sync.done_seq AND billing_sync.next_at < $4
                               THEN billing_sync.next_at
                               ELSE $4 END
         RETURNING want_seq";

    /// As [`wish`], where nothing is wished for already, and nothing was stored in the last moments. Subjects that nobody has
    /// asked for are none of ours.
    fn wish_if_idle(provider: str, mode: Mode, subject: str, now: Timestamp, idle_since: Timestamp) =
        "UPDATE billing_sync SET want_seq = want_seq + 1, next_at = $4
          WHERE provider = $1 AND mode = $2 AND subject = $3 AND want_seq = done_seq AND next_at < $5";

    /// Has a subject that fails tried at once.
    fn hurry(provider: str, mode: Mode, subject: str, now: Timestamp) =
        "UPDATE billing_sync SET next_at = $4 WHERE provider = $1 AND mode = $2 AND subject = $3 AND next_at > $4";

    /// Takes the subject that has been due longest. The second conditions decide between two workers.
    fn take_due(now: Timestamp, lease_until: Timestamp) -> LeasedSubject =
        "UPDATE billing_sync SET lease_until = $2, attempts = attempts + 1
          WHERE (provider, mode, subject) = (SELECT provider, mode, subject FROM billing_sync
                 WHERE want_seq > done_seq AND next_at <= $1 AND lease_until <= $1 ORDER BY next_at LIMIT 1)
            AND want_seq > done_seq AND next_at <= $1 AND lease_until <= $1
         RETURNING provider, mode, subject, want_seq, done_seq, attempts, failing_since";

    /// The fence: stores that the wishes up to `seq` are fulfilled. No row: somebody else stored something meanwhile.
    fn fulfil(provider: str, mode: Mode, subject: str, seq: i64, expected: i64, now: Timestamp) =
        "UPDATE billing_sync
            SET done_seq = $4, lease_until = 0, attempts = 0, failing_since = NULL, last_error = NULL, next_at = $6
          WHERE provider = $1 AND mode = $2 AND subject = $3 AND done_seq = $5 AND done_seq < $4";

    fn put_off(
        provider: str, mode: Mode, subject: str, expected: i64, next_at: Timestamp, failing_since: Timestamp, last_error: str,
    ) =
        "UPDATE billing_sync SET lease_until = 0, next_at = $5, failing_since = $6, last_error = $7
          WHERE provider = $1 AND mode = $2 AND subject = $3 AND done_seq = $4";

    fn fulfilled(provider: str, mode: Mode, subject: str) -> i64 =
        "SELECT done_seq FROM billing_sync WHERE provider = $1 AND mode = $2 AND subject = $3";

    /// Subscriptions that should have changed by now, or have not been looked at for long.
    fn due_customers(provider: str, mode: Mode, now: Timestamp, observed_before: Timestamp, limit: i64) -> CustomerDue =
        "SELECT customer FROM subscription
          WHERE provider = $1 AND mode = $2 AND customer IS NOT NULL
            AND (observed_at < $4 OR state = 'past_due' OR (state IN ('active', 'trialing') AND period_end < $3))
            AND state <> 'ended'
          GROUP BY customer ORDER BY MIN(observed_at) LIMIT $5";

    /// Customers whose checkout has been open for a while.
    fn waiting_customers(provider: str, mode: Mode, begun_before: Timestamp, limit: i64) -> CustomerDue =
        "SELECT billing_customer.reference AS customer FROM checkout_intent
           JOIN billing_customer ON billing_customer.user_id = checkout_intent.user_id
                AND billing_customer.provider = checkout_intent.provider AND billing_customer.mode = checkout_intent.mode
          WHERE checkout_intent.provider = $1 AND checkout_intent.mode = $2 AND checkout_intent.created_at < $3
          ORDER BY checkout_intent.created_at DESC LIMIT $4";

    fn looked_at(provider: str, mode: Mode) -> i64 =
        "SELECT looked_at FROM billing_cursor WHERE provider = $1 AND mode = $2";

    fn set_looked_at(provider: str, mode: Mode, looked_at: Timestamp) =
        "INSERT INTO billing_cursor (provider, mode, looked_at) VALUES ($1, $2, $3)
         ON CONFLICT (provider, mode) DO UPDATE SET looked_at = $3 WHERE billing_cursor.looked_at < $3";
}

record! {
    /// A notice's row.
    pub struct NoticeRow {
        pub provider: String,
        pub mode: Mode,
        pub event_key: String,
        pub kind: String,
        pub subject: Option<String>,
        pub occurred_at: Timestamp,
        pub received_at: Timestamp,
    }
}

record! {
    /// Something that a provider is to be asked for.
    pub struct SubjectRow {
        pub provider: String,
        pub mode: Mode,
        pub subject: String,
    }
}

record! {
    /// A subject that a worker has a lease on.
    #[derive(Clone, Debug)]
    pub struct LeasedSubject {
        pub provider: String,
        pub mode: Mode,
        pub subject: String,
        pub want_seq: i64,
        pub done_seq: i64,
        pub attempts: i64,
        pub failing_since: Option<Timestamp>,
    }
}

record! {
    /// A customer that is to be asked for.
    pub struct CustomerDue {
        pub customer: Option<String>,
    }
}
