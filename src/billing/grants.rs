//! Access that an operator gives, with a plan, an end and a reason.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Billing, BillingError,
    store::rows::{self, StoredGrant},
};
use crate::{
    auth::{Action, Administrator},
    platform::{
        problem::{Faults, Invalid},
        seal::{DataKey, Place},
        time,
        valid::single_line,
    },
};

/// Characters of a reason.
const MAX_REASON: usize = 500;

/// A grant, as an operator sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Grant {
    /// Its id.
    pub id: Uuid,
    /// The plan.
    #[schema(example = "plus")]
    pub plan: String,
    /// Since when.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub starts_at: Timestamp,
    /// Until when.
    #[serde(serialize_with = "time::serialize")]
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
    /// Why. The user does not see it.
    pub reason: String,
    /// Who gave it; `null`: an operator's command.
    pub granted_by: Option<Uuid>,
    /// When it was taken back, if it was.
    #[serde(serialize_with = "time::serialize_optional", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
}

/// What an operator gives.
pub struct GrantForm {
    /// The plan's id.
    pub plan: String,
    /// Until when, in RFC 3339.
    pub ends_at: String,
    /// Why.
    pub reason: String,
}

impl Billing {
    /// Gives a user a plan until some time.
    pub async fn grant(
        &self,
        by: Administrator<'_>,
        user: Uuid,
        form: &GrantForm,
    ) -> Result<Grant, BillingError> {
        let now = self.now();
        let (ends_at, reason) = self.judge_grant(form, now)?;
        let key = self.0.auth.key_of(user).await?;
        let id = self.0.random.uuid(now);
        let sealed = key.seal(reason_place(&id), reason.as_bytes(), &*self.0.random);
        let event = self.0.auth.act(Action::AccessGranted, by, user).with("grant", id.to_string());
        let event = event.with("plan", form.plan.as_str()).with("ends_at", time::rfc3339(ends_at));
        let (plan, granted_by) = (form.plan.clone(), by.caller().map(|caller| caller.user_id));
        let actor = by.caller();
        self.0
            .db
            .write(async move |c| {
                crate::auth::begin_act(&c, actor, now).await?;
                rows::add_grant(id, user, &plan, now, ends_at, &sealed, granted_by).exec(&c).await?;
                event.store(&c).await?;
                Ok::<_, BillingError>(())
            })
            .await?;
        let plan = form.plan.clone();
        Ok(Grant { id, plan, starts_at: now, ends_at, reason, granted_by, revoked_at: None })
    }

    fn judge_grant(&self, form: &GrantForm, now: Timestamp) -> Result<(Timestamp, String), BillingError> {
        let mut faults = Faults::new();
        if self.0.settings.plan(&form.plan).is_none() {
            faults.add("/plan", "unknown_value", "No plan has this id.");
        }
        let ends_at = faults.take("/ends_at", future(&form.ends_at, now));
        let reason = faults.take("/reason", single_line(&form.reason, MAX_REASON));
        match (ends_at, reason, faults.into_errors()) {
            (Some(ends_at), Some(reason), errors) if errors.is_empty() => Ok((ends_at, reason)),
            (_, _, errors) => Err(BillingError::Invalid(errors)),
        }
    }

    /// Takes a grant back. Taken back twice is taken back once.
    pub async fn revoke_grant(
        &self,
        by: Administrator<'_>,
        user: Uuid,
        grant: Uuid,
    ) -> Result<(), BillingError> {
        let (now, actor) = (self.now(), by.caller());
        let event = self.0.auth.act(Action::GrantRevoked, by, user).with("grant", grant.to_string());
        self.0
            .db
            .write(async move |c| {
                crate::auth::begin_act(&c, actor, now).await?;
                rows::find_grant(user, grant).opt(&c).await?.ok_or(BillingError::NotFound)?;
                if rows::revoke_grant(user, grant, now).exec(&c).await? > 0 {
                    event.store(&c).await?;
                }
                Ok(())
            })
            .await
    }

    /// Every grant that a user ever had, with the reasons: for operators.
    pub(super) async fn grants(&self, user: Uuid, key: &DataKey) -> Result<Vec<Grant>, BillingError> {
        let stored = self.0.db.read(async |c| rows::all_grants_of(user).all(&c).await).await?;
        let open = |row: StoredGrant| {
            Ok(Grant {
                reason: key.open_text(reason_place(&row.id), &row.reason)?,
                id: row.id,
                plan: row.plan,
                starts_at: row.starts_at,
                ends_at: row.ends_at,
                granted_by: row.granted_by,
                revoked_at: row.revoked_at,
            })
        };
        stored.into_iter().map(open).collect()
    }
}

fn future(text: &str, now: Timestamp) -> Result<Timestamp, Invalid> {
    let time: Timestamp = text
        .trim()
        .parse()
        .map_err(|_| Invalid::new("invalid_format", "A time looks like 2026-12-31T00:00:00Z."))?;
    if time <= now {
        return Err(Invalid::new("in_past", "A grant ends in the future."));
    }
    Ok(time)
}

fn reason_place(grant: &Uuid) -> Place<'_> {
    Place::new("access_grant.reason", grant.as_bytes())
}
