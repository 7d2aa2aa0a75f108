//! Reading the audit, for operators.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Action,
    store::{self, AuditRow},
};
use crate::{
    auth::{Auth, AuthError},
    platform::{
        keyring::Service,
        page::{Cursors, Page},
        time,
    },
};

/// The name of the list, for its cursors.
const LIST: &str = "audit";

/// An entry of the audit.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// The entry's id.
    pub id: Uuid,
    /// When it happened.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What was done.
    #[schema(example = "user.suspended")]
    pub action: &'static str,
    /// How it went.
    #[schema(example = "success")]
    pub outcome: &'static str,
    /// Who did it; `null` for a command, the program itself, or somebody unknown.
    pub actor: Option<Uuid>,
    /// To whom.
    pub subject: Option<Uuid>,
    /// In which session, or to which.
    pub session_id: Option<Uuid>,
    /// From where. It is forgotten after a time.
    #[schema(example = "203.0.113.7")]
    pub address: Option<String>,
    /// What the client called itself.
    pub user_agent: Option<String>,
    /// More about it.
    pub details: Map<String, Value>,
}

/// Which entries are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFilter {
    /// Those about this user.
    pub subject: Option<Uuid>,
    /// Those by this user.
    pub actor: Option<Uuid>,
    /// Those of this action.
    pub action: Option<Action>,
}

impl AuditFilter {
    /// What a cursor is bound to: it leads on in the same selection only.
    fn scope(self) -> String {
        let AuditFilter { subject, actor, action } = self;
        format!("{subject:?} {actor:?} {:?}", action.map(Action::as_str))
    }
}

impl Auth {
    /// A page of the audit, newest first.
    ///
    /// # Errors
    ///
    /// [`AuthError::InvalidCursor`] for a cursor that `reader` was not given for this selection.
    pub async fn audit_page(
        &self,
        reader: Uuid,
        filter: AuditFilter,
        cursor: Option<&str>,
        limit: i64,
    ) -> Result<Page<AuditEntry>, AuthError> {
        let cursors = Cursors::new(self.0.keyring.service(Service::Hashes)?, LIST);
        let scope = filter.scope();
        let (at, id) = match cursor {
            Some(cursor) => {
                let place =
                    cursors.read::<24>(reader, &scope, cursor).map_err(|_| AuthError::InvalidCursor)?;
                place_from(place).ok_or(AuthError::InvalidCursor)?
            }
            None => (Timestamp::MAX, Uuid::max()),
        };
        let more = limit.saturating_add(1);
        let AuditFilter { subject, actor, action } = filter;
        // One action among many may be far back.
        let rows = self.0.db.read_slow(async move |c| match (subject, actor) {
            (Some(subject), actor) => {
                store::audit_events_about(subject, at, id, actor, action, more).all(&c).await
            }
            (None, Some(actor)) => store::audit_events_by(actor, at, id, action, more).all(&c).await,
            (None, None) => store::audit_events(at, id, action, more).all(&c).await,
        });
        let mut rows = rows.await?;
        let shown = usize::try_from(limit).unwrap_or(0);
        let has_more = rows.len() > shown;
        rows.truncate(shown);
        let last = rows.last().filter(|_| has_more).map(|row| place_of(row.at, row.id));
        Ok(Page {
            next_cursor: last.map(|place| cursors.issue(reader, &scope, &place)),
            data: rows.into_iter().map(entry).collect::<Result<_, _>>()?,
        })
    }
}

fn entry(row: AuditRow) -> Result<AuditEntry, AuthError> {
    Ok(AuditEntry {
        details: serde_json::from_str(&row.details).map_err(|_| AuthError::Stored("audit_event.details"))?,
        id: row.id,
        at: row.at,
        action: row.action.as_str(),
        outcome: row.outcome.as_str(),
        actor: row.actor,
        subject: row.subject,
        session_id: row.session_id,
        address: row.address,
        user_agent: row.user_agent,
    })
}

fn place_of(at: Timestamp, id: Uuid) -> Vec<u8> {
    [&at.as_microsecond().to_be_bytes()[..], id.as_bytes()].concat()
}

fn place_from(place: [u8; 24]) -> Option<(Timestamp, Uuid)> {
    let (at, id) = place.split_first_chunk::<8>()?;
    let at = Timestamp::from_microsecond(i64::from_be_bytes(*at)).ok()?;
    Some((at, Uuid::from_slice(id).ok()?))
}
