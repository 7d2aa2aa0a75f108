//! What an operator sees of a user's access, and holds up or lets go.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Billing, BillingError, Grant, Subscription,
    effects::BY_OPERATOR,
    row::{HoldKind, Mode, StoredSubscription},
    store::rows::{self, StoredHold},
};
use crate::{
    auth::{Action, Administrator},
    platform::{db, problem::Faults, time, valid::single_line},
};

/// The provider of holds that operators open.
const OPERATOR: &str = "operator";

/// Characters of a reason.
const MAX_REASON: usize = 500;

/// Why access is as it is, for an operator.
#[derive(Debug, Serialize)]
pub struct Insight {
    /// What the user is told.
    pub access: Subscription,
    /// Every subscription there ever was.
    pub subscriptions: Vec<ShownSubscription>,
    /// Every hold.
    pub holds: Vec<ShownHold>,
    /// Every grant.
    pub grants: Vec<Grant>,
    /// Who the user is at providers.
    pub customers: Vec<ShownCustomer>,
}

/// A subscription, for an operator.
#[derive(Debug, Serialize)]
pub struct ShownSubscription {
    provider: String,
    mode: &'static str,
    reference: String,
    state: &'static str,
    raw_state: String,
    price: Option<String>,
    plan: Option<String>,
    #[serde(serialize_with = "time::serialize_optional")]
    period_start: Option<Timestamp>,
    #[serde(serialize_with = "time::serialize_optional")]
    period_end: Option<Timestamp>,
    #[serde(serialize_with = "time::serialize_optional")]
    cancel_at: Option<Timestamp>,
    #[serde(serialize_with = "time::serialize_optional")]
    ended_at: Option<Timestamp>,
    #[serde(serialize_with = "time::serialize")]
    observed_at: Timestamp,
}

/// A hold, for an operator.
#[derive(Debug, Serialize)]
pub struct ShownHold {
    provider: String,
    mode: &'static str,
    reference: String,
    kind: &'static str,
    subscription: Option<String>,
    #[serde(serialize_with = "time::serialize")]
    opened_at: Timestamp,
    #[serde(serialize_with = "time::serialize_optional")]
    released_at: Option<Timestamp>,
    released_by: Option<String>,
}

/// Who a user is at a provider.
#[derive(Debug, Serialize)]
pub struct ShownCustomer {
    provider: String,
    mode: &'static str,
    reference: String,
}

impl Billing {
    /// Why a user's access is as it is.
    pub async fn insight(&self, user: Uuid) -> Result<Insight, BillingError> {
        let key = self.0.auth.key_of(user).await?;
        let (access, grants) = (self.subscription(user).await?, self.grants(user, &key).await?);
        let read = self.0.db.read(async |c| {
            let subscriptions = rows::subscriptions_of(user).all(&c).await?;
            let holds = rows::all_holds_of(user).all(&c).await?;
            let customers = rows::customers_of(user).all(&c).await?;
            Ok::<_, db::Error>((subscriptions, holds, customers))
        });
        let (subscriptions, holds, customers) = read.await?;
        Ok(Insight {
            access,
            subscriptions: subscriptions.into_iter().map(|row| self.shown(row)).collect(),
            holds: holds.into_iter().map(ShownHold::from).collect(),
            grants,
            customers: customers
                .into_iter()
                .map(|row| ShownCustomer {
                    provider: row.provider,
                    mode: row.mode.as_str(),
                    reference: row.reference,
                })
                .collect(),
        })
    }

    fn shown(&self, row: StoredSubscription) -> ShownSubscription {
        let price = row.price.as_deref();
        let plan = price.and_then(|price| self.0.settings.plan_of_price(&row.provider, price));
        ShownSubscription {
            plan: plan.map(|plan| plan.id.clone()),
            mode: row.mode.as_str(),
            state: row.state.as_str(),
            provider: row.provider,
            reference: row.reference,
            raw_state: row.raw_state,
            price: row.price,
            period_start: row.period_start,
            period_end: row.period_end,
            cancel_at: row.cancel_at,
            ended_at: row.ended_at,
            observed_at: row.observed_at,
        }
    }

    /// Holds up everything that a user may use; returns the hold's reference.
    pub async fn hold(&self, user: Uuid, reason: &str) -> Result<String, BillingError> {
        let mut faults = Faults::new();
        let Some(reason) = faults.take("/reason", single_line(reason, MAX_REASON)) else {
            return Err(BillingError::Invalid(faults.into_errors()));
        };
        self.0.auth.key_of(user).await?; // There is such a user.
        let now = self.now();
        let reference = self.0.random.uuid(now).to_string();
        let event = self.0.auth.act(Action::HoldOpened, Administrator::Command, user);
        let event = event.with("reference", reference.as_str()).with("reason", reason);
        let stored = reference.clone();
        self.0
            .db
            .write(async move |c| {
                let (mode, kind) = (Mode::Live, HoldKind::Manual);
                rows::open_hold(OPERATOR, mode, &stored, kind, Some(user), None, now).exec(&c).await?;
                event.store(&c).await
            })
            .await?;
        Ok(reference)
    }

    /// Lets go of what a hold holds up, whoever opened it. A provider's does not come back by itself.
    pub async fn release(&self, user: Uuid, reference: &str) -> Result<(), BillingError> {
        let holds = self.0.db.read(async |c| rows::all_holds_of(user).all(&c).await).await?;
        let hold = holds.into_iter().find(|hold| hold.reference == reference && hold.released_at.is_none());
        let StoredHold { provider, mode, reference, .. } = hold.ok_or(BillingError::NotFound)?;
        let event = self.0.auth.act(Action::HoldReleased, Administrator::Command, user);
        let event = event.with("reference", reference.as_str());
        let now = self.now();
        self.0
            .db
            .write(async move |c| {
                if rows::release_hold(&provider, mode, &reference, now, BY_OPERATOR).exec(&c).await? > 0 {
                    event.store(&c).await?;
                }
                Ok::<_, db::Error>(())
            })
            .await?;
        Ok(())
    }
}

impl From<StoredHold> for ShownHold {
    fn from(row: StoredHold) -> ShownHold {
        ShownHold {
            provider: row.provider,
            mode: row.mode.as_str(),
            reference: row.reference,
            kind: row.kind.as_str(),
            subscription: row.subscription,
            opened_at: row.opened_at,
            released_at: row.released_at,
            released_by: row.released_by,
        }
    }
}
