//! Access as it is now, and what the parts of billing share.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Access, BillingSettings, Charge, Paywall, PlanCard, Quota, Subscription, SubscriptionState, Wall,
    access::{Rows, decide},
    gateway::{Gateway, GatewayError},
    row::Mode,
    store::{
        checkout::remove_expired_intents,
        queue::remove_old_notices,
        quota::{remove_old_days, used},
        rows,
    },
};
use crate::{
    auth::{Auth, AuthError},
    platform::{
        clock::SharedClock,
        db::{Conn, Db, Error, Result},
        job::{Jobs, PrepareError},
        keyring::{KeyError, Keyring},
        problem::FieldError,
        random::SharedRandom,
        seal::DoesNotOpen,
        time,
    },
};

/// Days whose counts are kept.
const DAYS_KEPT: i64 = 40;
/// How long notices are kept, in days: longer than any provider sends one again.
const NOTICE_DAYS: i64 = 90;

/// Billing.
#[derive(Clone)]
pub struct Billing(pub(super) Arc<Parts>);

pub(super) struct Parts {
    pub db: Db,
    pub clock: SharedClock,
    pub random: SharedRandom,
    pub keyring: Keyring,
    pub jobs: Jobs,
    pub auth: Auth,
    pub settings: BillingSettings,
    pub gateways: BTreeMap<String, Arc<dyn Gateway>>,
    /// Something is to be asked.
    pub wake: Notify,
    /// Something was asked, and the answer is stored.
    pub stored: Notify,
}

/// What billing is started with.
pub struct Start {
    /// The database.
    pub db: Db,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub random: SharedRandom,
    /// The keys that pages of checkouts are sealed with.
    pub keyring: Keyring,
    /// Where mails are left.
    pub jobs: Jobs,
    /// Who knows users.
    pub auth: Auth,
    /// What the operator decided.
    pub settings: BillingSettings,
    /// The payment providers, by their names in the settings.
    pub gateways: BTreeMap<String, Arc<dyn Gateway>>,
}

/// Why billing refuses.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// Fields that are not valid.
    #[error("fields are not valid")]
    Invalid(Vec<FieldError>),
    /// It collides with what is there, or the provider cannot do it.
    #[error("{detail}")]
    Conflict {
        /// What, for the caller.
        detail: &'static str,
        /// Where the caller can do it instead.
        manage_url: Option<String>,
    },
    /// A subscription renews already.
    #[error("there is a subscription already")]
    AlreadySubscribed {
        /// Where the caller can change it.
        manage_url: Option<String>,
    },
    /// Nothing can be bought before something is mended.
    #[error("access is on hold")]
    Walled(Box<Paywall>),
    /// The provider was asked too often.
    #[error("asked too often")]
    AskedTooOften {
        /// How long to wait.
        wait: std::time::Duration,
    },
    /// There is no such thing.
    #[error("there is no such thing")]
    NotFound,
    /// The provider failed.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Identity refuses.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A key or a sealed value does not open.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A mail could not be written down.
    #[error(transparent)]
    Job(#[from] PrepareError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl From<DoesNotOpen> for BillingError {
    fn from(error: DoesNotOpen) -> Self {
        BillingError::Key(error.into())
    }
}

impl Billing {
    /// Builds the service.
    pub fn new(start: Start) -> Billing {
        let Start { db, clock, random, keyring, jobs, auth, settings, gateways } = start;
        let (wake, stored) = (Notify::new(), Notify::new());
        Billing(Arc::new(Parts { db, clock, random, keyring, jobs, auth, settings, gateways, wake, stored }))
    }

    /// What a user may use now, and how much of today is used: all that a message has to know, in one read.
    pub async fn standing(&self, user: Uuid) -> Result<(Access, Quota)> {
        let now = self.now();
        let charge = Charge::at(user, now);
        let read = self.0.db.read(async |c| {
            let rows = read_rows(&c, user, now).await?;
            let charged = used(user, charge.day).opt(&c).await?;
            Ok::<_, Error>((rows, charged.unwrap_or(0)))
        });
        let (rows, charged) = read.await?;
        let access = decide(&self.0.settings, &rows, now);
        let quota = self.quota_after(charge, charged, &access);
        Ok((access, quota))
    }

    /// How much of today is used.
    pub async fn quota(&self, user: Uuid) -> Result<Quota> {
        Ok(self.standing(user).await?.1)
    }

    /// How much of a day is used, read inside a transaction.
    pub async fn quota_in(&self, conn: &Conn, charge: Charge) -> Result<Quota> {
        let now = self.now();
        let rows = read_rows(conn, charge.user_id, now).await?;
        let used = used(charge.user_id, charge.day).opt(conn).await?;
        Ok(self.quota_after(charge, used.unwrap_or(0), &decide(&self.0.settings, &rows, now)))
    }

    /// The day of a charge, of which so much is used.
    pub fn quota_after(&self, charge: Charge, used: i64, access: &Access) -> Quota {
        Quota {
            plan: access.plan.clone(),
            used,
            limit: access.messages_per_day,
            resets_at: time::start_of_day(charge.day.saturating_add(1)),
        }
    }

    /// What somebody is shown who has to pay.
    pub fn paywall(&self, wall: Wall, quota: Quota) -> Box<Paywall> {
        Box::new(Paywall { wall, quota, upgrade_url: self.0.settings.upgrade_url.clone() })
    }

    /// A user's access, as the user sees it.
    pub async fn subscription(&self, user: Uuid) -> Result<Subscription> {
        let (access, quota) = self.standing(user).await?;
        let state = match access.source {
            Some(_) => SubscriptionState::Active,
            None => SubscriptionState::Inactive,
        };
        Ok(Subscription {
            state,
            reason: access.reason,
            plan: access.plan,
            access_until: access.until,
            will_renew: access.renews,
            source: access.source,
            provider: access.provider,
            quota,
        })
    }

    /// The plans.
    pub fn plans(&self) -> Vec<PlanCard> {
        let checkout = self.0.settings.checkout.as_deref();
        self.0.settings.plans.iter().map(|plan| plan.card(checkout)).collect()
    }

    /// Removes up to 500 of each kind of row that has had its time; returns the most that was removed of one.
    pub async fn sweep(&self) -> Result<u64> {
        let (db, now) = (&self.0.db, self.now());
        let days_before = time::utc_day(now).saturating_sub(DAYS_KEPT);
        let notices_before = time::start_of_day(time::utc_day(now).saturating_sub(NOTICE_DAYS));
        let removed = [
            db.write(async move |c| remove_old_days(days_before).exec(&c).await).await?,
            db.write(async move |c| remove_old_notices(notices_before).exec(&c).await).await?,
            db.write(async move |c| remove_expired_intents(now).exec(&c).await).await?,
        ];
        Ok(removed.into_iter().max().unwrap_or(0))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// A provider that is in the settings, and how it is used.
    pub(super) fn gateway(&self, provider: &str) -> Option<(&Arc<dyn Gateway>, Mode)> {
        self.0.gateways.get(provider).map(|gateway| (gateway, gateway.mode()))
    }

    /// Everything that access is decided from.
    pub(super) async fn rows(&self, user: Uuid) -> Result<Rows> {
        let now = self.now();
        self.0.db.read(async |c| read_rows(&c, user, now).await).await
    }
}

/// Reads what access is decided from.
async fn read_rows(conn: &Conn, user: Uuid, now: Timestamp) -> Result<Rows> {
    Ok(Rows {
        subscriptions: rows::subscriptions_of(user).all(conn).await?,
        grants: rows::grants_of(user, now).all(conn).await?,
        holds: rows::holds_of(user).all(conn).await?,
    })
}
