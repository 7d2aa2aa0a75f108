//! Access and the daily quota.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    BillingSettings, Paywall, Quota, Subscription, SubscriptionState,
    access::{Access, decide},
    store,
};
use crate::platform::{
    clock::SharedClock,
    db::{Conn, Db, Result},
    time,
};

/// Stops before the first word that give the message back, each day.
const FREE_STOPS: i64 = 5;
/// Replies that came to nothing, which their messages can have brought about, and that give the message back, each day. Each of
/// them was paid for at the vendor.
const FREE_FAILURES: i64 = 20;
/// Days whose counts are kept.
const DAYS_KEPT: i64 = 40;

/// Billing.
#[derive(Clone)]
pub struct Billing {
    db: Db,
    clock: SharedClock,
    settings: std::sync::Arc<BillingSettings>,
}

/// One message, charged to the day on which it was sent. It is given back to that day, whenever that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Who pays.
    pub user_id: Uuid,
    /// The UTC day, counted from 1970.
    pub day: i64,
}

impl Charge {
    /// A charge for a message sent at `now`.
    pub fn at(user_id: Uuid, now: Timestamp) -> Charge {
        Charge { user_id, day: time::utc_day(now) }
    }

    /// Takes the message from the day's quota; `None` when that is used up, and nothing was taken.
    pub async fn take(self, conn: &Conn, access: &Access) -> Result<Option<i64>> {
        if access.messages_per_day <= 0 {
            return Ok(None);
        }
        store::charge(self.user_id, self.day, access.messages_per_day).opt(conn).await
    }

    /// Gives it back: nothing was delivered.
    pub async fn give_back(self, conn: &Conn) -> Result<bool> {
        Ok(store::give_back(self.user_id, self.day).exec(conn).await? > 0)
    }

    /// Gives it back after a stop before the first word; only so often a day.
    pub async fn give_back_stopped(self, conn: &Conn) -> Result<bool> {
        Ok(store::give_back_stopped(self.user_id, self.day, FREE_STOPS).exec(conn).await? > 0)
    }

    /// Gives it back after a failure that the message can have brought about; only so often a day.
    pub async fn give_back_failed(self, conn: &Conn) -> Result<bool> {
        Ok(store::give_back_failed(self.user_id, self.day, FREE_FAILURES).exec(conn).await? > 0)
    }
}

impl Billing {
    /// Builds the service.
    pub fn new(db: Db, clock: SharedClock, settings: BillingSettings) -> Billing {
        Billing { db, clock, settings: std::sync::Arc::new(settings) }
    }

    /// What a user may use now.
    pub fn access(&self) -> Access {
        decide(&self.settings)
    }

    /// What somebody is shown who has to pay.
    pub fn paywall(&self, quota: Quota) -> Box<Paywall> {
        Box::new(Paywall { quota, upgrade_url: self.settings.upgrade_url.clone() })
    }

    /// How much of today is used.
    pub async fn quota(&self, user: Uuid) -> Result<Quota> {
        let day = time::utc_day(self.clock.now());
        let charged = self.db.read(async |c| store::used(user, day).opt(&c).await).await?;
        Ok(self.quota_of(day, charged.unwrap_or(0)))
    }

    /// How much of a day is used, read inside a transaction.
    pub async fn quota_in(&self, conn: &Conn, charge: Charge) -> Result<Quota> {
        let used = store::used(charge.user_id, charge.day).opt(conn).await?;
        Ok(self.quota_of(charge.day, used.unwrap_or(0)))
    }

    /// A user's access, as the user sees it.
    pub async fn subscription(&self, user: Uuid) -> Result<Subscription> {
        Ok(Subscription {
            state: SubscriptionState::Inactive,
            reason: self.access().reason,
            plan: None,
            access_until: None,
            will_renew: false,
            source: None,
            provider: None,
            quota: self.quota(user).await?,
        })
    }

    /// Removes up to 500 counts of days long gone; returns how many.
    pub async fn sweep(&self) -> Result<u64> {
        let before = time::utc_day(self.clock.now()).saturating_sub(DAYS_KEPT);
        self.db.write(async move |c| store::remove_old_days(before).exec(&c).await).await
    }

    /// The day of a charge, of which so much is used.
    pub fn quota_after(&self, charge: Charge, used: i64) -> Quota {
        self.quota_of(charge.day, used)
    }

    fn quota_of(&self, day: i64, used: i64) -> Quota {
        Quota {
            plan: None,
            used,
            limit: self.access().messages_per_day,
            resets_at: time::start_of_day(day.saturating_add(1)),
        }
    }
}
