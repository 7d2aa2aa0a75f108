//! The queries of the audit. An entry is never changed but for the two at the end, which let go of what has had its time.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Action, AuditOutcome};
use crate::{queries, record};

queries! {
    fn add_audit_event(
        id: Uuid, at: Timestamp, action: Action, outcome: AuditOutcome, actor: Option<Uuid>, subject: Option<Uuid>,
        session_id: Option<Uuid>, address: Option<String>, user_agent: Option<String>, details: str,
    ) =
        "INSERT INTO audit_event (id, at, action, outcome, actor, subject, session_id, address, user_agent, details)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

    /// Entries before a place, newest first, where `action` is given only of that one.
    fn audit_events(at: Timestamp, id: Uuid, action: Option<Action>, limit: i64) -> AuditRow =
        "SELECT id, at, action, outcome, actor, subject, session_id, address, user_agent, details
           FROM audit_event
          WHERE (at, id) < ($1, $2) AND (action = $3 OR $3 IS NULL)
          ORDER BY at DESC, id DESC LIMIT $4";

    /// As [`audit_events`], about one user.
    fn audit_events_about(
        subject: Uuid, at: Timestamp, id: Uuid, actor: Option<Uuid>, action: Option<Action>, limit: i64,
    ) -> AuditRow =
        "SELECT id, at, action, outcome, actor, subject, session_id, address, user_agent, details
           FROM audit_event
          WHERE subject = $1 AND (at, id) < ($2, $3) AND (actor = $4 OR $4 IS NULL)
            AND (action = $5 OR $5 IS NULL)
          ORDER BY at DESC, id DESC LIMIT $6";

    /// As [`audit_events`], by one user.
    fn audit_events_by(actor: Uuid, at: Timestamp, id: Uuid, action: Option<Action>, limit: i64) -> AuditRow =
        "SELECT id, at, action, outcome, actor, subject, session_id, address, user_agent, details
           FROM audit_event
          WHERE actor = $1 AND (at, id) < ($2, $3) AND (action = $4 OR $4 IS NULL)
          ORDER BY at DESC, id DESC LIMIT $5";

    /// Forgets where old entries came from.
    fn forget_addresses(before: Timestamp) =
        "UPDATE audit_event SET address = NULL
          WHERE id IN (SELECT id FROM audit_event WHERE address IS NOT NULL AND at < $1 LIMIT 500)";

    fn remove_old_audit_events(before: Timestamp) =
        "DELETE FROM audit_event WHERE id IN (SELECT id FROM audit_event WHERE at < $1 LIMIT 500)";
}

record! {
    /// An entry's row.
    pub struct AuditRow {
        pub(super) id: Uuid,
        pub(super) at: Timestamp,
        pub(super) action: Action,
        pub(super) outcome: AuditOutcome,
        pub(super) actor: Option<Uuid>,
        pub(super) subject: Option<Uuid>,
        pub(super) session_id: Option<Uuid>,
        pub(super) address: Option<String>,
        pub(super) user_agent: Option<String>,
        pub(super) details: String,
    }
}
