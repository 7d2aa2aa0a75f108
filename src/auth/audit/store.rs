//! The queries of the audit. There is none that changes an entry.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Action, AuditOutcome};
use crate::queries;

queries! {
    fn add_audit_event(
        id: Uuid, at: Timestamp, action: Action, outcome: AuditOutcome, actor: Option<Uuid>, subject: Option<Uuid>,
        session_id: Option<Uuid>, address: Option<String>, user_agent: Option<String>, details: str,
    ) =
        "INSERT INTO audit_event (id, at, action, outcome, actor, subject, session_id, address, user_agent, details)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
}
