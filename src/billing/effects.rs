//! What news of a provider changes, made ready before the transaction and stored in it as a whole.

use uuid::Uuid;

use super::{
    Billing, BillingError,
    access::renews,
    apply::{Alert, Change, Occasion, compare},
    gateway::Fact,
    letters,
    row::{Bill, HoldKind, Mode, StoredSubscription},
    store::{checkout::close_intent, rows},
};
use crate::{
    auth::{Action, AuditEvent},
    platform::{
        db::{self, Conn, Result},
        job::{Jobs, NewJob},
        mail::MAIL_JOB,
    },
};

/// Who released a hold, as it is stored.
pub const BY_PROVIDER: &str = "provider";
/// See [`BY_PROVIDER`].
pub const BY_OPERATOR: &str = "operator";

/// What is written, sealed and numbered before the transaction begins.
#[derive(Default)]
pub struct Effects {
    puts: Vec<Put>,
    holds: Vec<(Step, HoldChange)>,
    events: Vec<AuditEvent>,
    mails: Vec<NewJob>,
    alerts: Vec<(Alert, String, String)>,
    /// A customer that becomes a user's.
    adopted: Option<(String, Mode, String, Uuid)>,
    /// Whose checkout has come to its end.
    bought: Option<(Uuid, String, Mode)>,
}

/// A subscription that is stored where the row is still what we compared it with.
struct Put {
    row: StoredSubscription,
    expected: i64,
}

/// What becomes of a hold.
#[derive(Clone, Copy)]
enum Step {
    /// It opens, or opens again.
    Open,
    /// It is open, and of a later time than was known.
    Move,
    /// It ends.
    Release,
}

/// A hold as it is to be.
pub struct HoldChange {
    /// The provider.
    pub provider: String,
    /// The mode.
    pub mode: Mode,
    /// The provider's reference.
    pub reference: String,
    /// Its kind.
    pub kind: HoldKind,
    /// Whom it concerns.
    pub user: Option<Uuid>,
    /// What it concerns.
    pub subscription: Option<String>,
    /// Since when; `None`: not any more.
    pub held_since: Option<jiff::Timestamp>,
}

impl Effects {
    /// A customer becomes a user's, if they are nobody's and the user has no other.
    pub fn adopt(&mut self, provider: &str, mode: Mode, customer: &str, user: Uuid) {
        self.adopted = Some((provider.to_owned(), mode, customer.to_owned(), user));
    }

    /// Writes everything. `false`: something has changed since it was prepared, and nothing may be kept of it.
    pub async fn store(&self, conn: &Conn, now: jiff::Timestamp) -> Result<bool> {
        if let Some((provider, mode, customer, user)) = &self.adopted
            && rows::add_customer(provider, *mode, customer, *user, now).exec(conn).await? == 0
        {
            return Ok(false);
        }
        for Put { row, expected } in &self.puts {
            if put(row, *expected).exec(conn).await? == 0 {
                return Ok(false);
            }
        }
        for (step, hold) in &self.holds {
            if hold.store(*step, conn, now).await? == 0 {
                return Ok(false);
            }
        }
        if let Some((user, provider, mode)) = &self.bought {
            close_intent(*user, provider, *mode).exec(conn).await?;
        }
        for mail in &self.mails {
            mail.store(conn).await?;
        }
        for event in &self.events {
            event.store(conn).await?;
        }
        Ok(true)
    }

    /// Tells whom it concerns what has been stored: the operator, and the mails' carrier.
    pub fn announce(&self, jobs: &Jobs) {
        for (alert, provider, subscription) in &self.alerts {
            alert.raise(provider, subscription);
        }
        if !self.mails.is_empty() {
            jobs.wake();
        }
    }
}

/// Why news was not stored.
pub enum NotStored {
    /// It had been before.
    Again,
    /// Other news came in between; it has to be looked at anew.
    Overtaken,
    /// The database failed.
    Storage(db::Error),
}

impl From<db::Error> for NotStored {
    fn from(error: db::Error) -> Self {
        NotStored::Storage(error)
    }
}

impl HoldChange {
    /// Stores it, if the hold is still what the step was chosen for.
    async fn store(&self, step: Step, conn: &Conn, now: jiff::Timestamp) -> Result<u64> {
        let HoldChange { provider, mode, reference, kind, user, subscription, held_since } = self;
        let (subscription, since) = (subscription.as_deref(), held_since.unwrap_or(now));
        match step {
            Step::Open => {
                rows::open_hold(provider, *mode, reference, *kind, *user, subscription, since)
                    .exec(conn)
                    .await
            }
            Step::Move => rows::move_hold(provider, *mode, reference, subscription, since).exec(conn).await,
            Step::Release => {
                rows::release_hold(provider, *mode, reference, now, BY_PROVIDER).exec(conn).await
            }
        }
    }
}

fn put(row: &StoredSubscription, expected: i64) -> db::Query<'_, (), 18> {
    rows::put_subscription(
        &row.provider,
        row.mode,
        &row.reference,
        row.user_id,
        row.customer.as_deref(),
        row.state,
        &row.raw_state,
        row.price.as_deref(),
        row.period_start,
        row.period_end,
        row.cancel_at,
        row.ended_at,
        row.price_at,
        row.cancelled,
        row.renewal_at,
        row.version,
        row.observed_at,
        expected,
    )
}

impl StoredSubscription {
    /// The subscription as the provider had it.
    pub fn bill(&self) -> Bill {
        Bill {
            reference: self.reference.clone(),
            state: self.state,
            raw_state: self.raw_state.clone(),
            price: self.price.clone(),
            period_start: self.period_start,
            period_end: self.period_end,
            cancel_at: self.cancel_at,
            ended_at: self.ended_at,
        }
    }

    /// The same row with what the provider has now.
    pub fn with(self, bill: Bill) -> StoredSubscription {
        let Bill { reference, state, raw_state, price, period_start, period_end, cancel_at, ended_at } = bill;
        StoredSubscription {
            reference,
            state,
            raw_state,
            price,
            period_start,
            period_end,
            cancel_at,
            ended_at,
            ..self
        }
    }
}

impl Billing {
    /// Adds a subscription that replaces `old`, with all that follows from the difference.
    pub(super) async fn add_subscription(
        &self,
        effects: &mut Effects,
        old: Option<&StoredSubscription>,
        new: StoredSubscription,
        cause: &str,
    ) -> std::result::Result<(), BillingError> {
        let change =
            compare(&self.0.settings, &new.provider, old.map(StoredSubscription::bill).as_ref(), &new.bill());
        if let (Some(change), Some(user)) = (change, new.user_id) {
            self.add_change(effects, user, &new, change, cause).await?;
            let begins_to_renew = self.renews(&new) && !old.is_some_and(|old| self.renews(old));
            if begins_to_renew && self.has_another(effects, user, &new).await? {
                let (provider, reference) = (new.provider.clone(), new.reference.clone());
                effects.alerts.push((Alert::SecondSubscription, provider, reference));
            }
        }
        effects.puts.push(Put { expected: old.map_or(0, |old| old.version), row: new });
        Ok(())
    }

    async fn add_change(
        &self,
        effects: &mut Effects,
        user: Uuid,
        new: &StoredSubscription,
        change: Change,
        cause: &str,
    ) -> std::result::Result<(), BillingError> {
        let event = self.0.auth.audit(Action::SubscriptionChanged, None).about(user);
        let event = event.with("provider", new.provider.as_str()).with("mode", new.mode.as_str());
        let event = event.with("subscription", new.reference.as_str()).with("cause", cause);
        effects
            .events
            .push(change.details.into_iter().fold(event, |event, (name, value)| event.with(name, value)));
        if let Some(alert) = change.alert {
            effects.alerts.push((alert, new.provider.clone(), new.reference.clone()));
        }
        if let Some(occasion) = change.occasion {
            self.write_to(effects, user, occasion).await?;
            if occasion == Occasion::Started {
                effects.bought = Some((user, new.provider.clone(), new.mode));
            }
        }
        Ok(())
    }

    /// Adds a hold, where it is not as it should be already.
    pub(super) async fn add_hold(
        &self,
        effects: &mut Effects,
        change: HoldChange,
    ) -> std::result::Result<(), BillingError> {
        let (provider, mode, reference) = (change.provider.clone(), change.mode, change.reference.clone());
        let stored =
            self.0.db.read(async |c| rows::find_hold(&provider, mode, &reference).opt(&c).await).await?;
        let (step, action) = match (&stored, change.held_since) {
            (None, Some(_)) => (Step::Open, Action::HoldOpened),
            (Some(hold), Some(since)) if hold.released_at.is_none() => {
                // Money that was given back anew: only the newest time tells which periods it was for.
                if since > hold.opened_at {
                    effects.holds.push((Step::Move, change));
                }
                return Ok(());
            }
            (Some(hold), Some(_)) if hold.released_by.as_deref() != Some(BY_OPERATOR) => {
                (Step::Open, Action::HoldOpened)
            }
            (Some(hold), None) if hold.released_at.is_none() => (Step::Release, Action::HoldReleased),
            _ => return Ok(()),
        };
        let mut event = self.0.auth.audit(action, None).with("kind", change.kind.as_str());
        if let Some(user) = change.user {
            event = event.about(user);
        }
        let event =
            event.with("provider", change.provider.as_str()).with("reference", change.reference.as_str());
        effects.events.push(event);
        effects.holds.push((step, change));
        Ok(())
    }

    /// Adds a letter to a user. Somebody who is gone gets none.
    async fn write_to(
        &self,
        effects: &mut Effects,
        user: Uuid,
        occasion: Occasion,
    ) -> std::result::Result<(), BillingError> {
        if let Some(address) = self.0.auth.mail_address(user).await? {
            effects.mails.push(self.0.jobs.prepare(MAIL_JOB, &letters::about(occasion, &address))?);
        }
        Ok(())
    }

    /// Whether a user has a subscription that renews, beside this one: stored, or about to be.
    async fn has_another(&self, effects: &Effects, user: Uuid, this: &StoredSubscription) -> Result<bool> {
        let stored = self.0.db.read(async |c| rows::subscriptions_of(user).all(&c).await).await?;
        let identity = |row: &StoredSubscription| (row.provider.clone(), row.mode, row.reference.clone());
        let (this, coming) = (identity(this), effects.puts.iter().map(|put| &put.row));
        let is_replaced =
            |row: &StoredSubscription| effects.puts.iter().any(|put| identity(&put.row) == identity(row));
        let others = stored.iter().filter(|row| !is_replaced(row)).chain(coming);
        Ok(others.into_iter().any(|row| identity(row) != this && self.renews(row)))
    }

    /// Whether a subscription costs money again if nothing is done.
    pub(super) fn renews(&self, row: &StoredSubscription) -> bool {
        renews(&self.0.settings, row, self.now())
    }
}

/// What caused a change, for the audit.
pub fn cause(fact: &Fact) -> String {
    format!("notice {}", fact.kind)
}
