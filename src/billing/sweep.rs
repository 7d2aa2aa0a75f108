//! What is asked for without a notice: what should have changed by now, what has not been looked at for long, and notices
//! that never arrived.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Billing, BillingError,
    access::allowed_until,
    gateway::{Gateway, GatewayError, Subject, Undelivered},
    row::{Mode, StoredSubscription},
    store::{queue, rows},
};
use crate::platform::{db, time};

/// Customers that one sweep asks for at most, for each reason.
const BATCH: i64 = 400;
/// How far apart the questions of a sweep are: at most five a second, of the hundred that providers allow.
const PACE: Duration = Duration::from_millis(200);
/// How long a subscription goes without being looked at.
const STALE: Duration = Duration::from_hours(24);
/// How long a checkout is open before its customer is asked for.
const OPEN_CHECKOUT: Duration = Duration::from_mins(2);
/// How far back a look for undelivered notices overlaps the one before.
const OVERLAP: Duration = Duration::from_hours(1);
/// How shortly before a refusal access must have ended for the provider to be asked whether it has.
const JUST_ENDED: Duration = Duration::from_mins(5);
/// How long a customer has not been asked for who is asked for after a refusal.
const IDLE: Duration = Duration::from_mins(1);
/// How far back the first look goes: as long as providers keep notices.
const MEMORY: Duration = Duration::from_hours(30 * 24);

impl Billing {
    /// How often to sweep.
    pub fn sweep_interval(&self) -> Duration {
        self.0.settings.sweep_interval
    }

    /// Whether each payment provider that can be asked answers us, by name.
    pub async fn check_providers(&self) -> Vec<(String, Result<String, GatewayError>)> {
        let mut answers = Vec::new();
        for (name, gateway) in &self.0.gateways {
            let mode = gateway.mode().as_str();
            let answer = if gateway.capabilities().queryable {
                // There are none from now on: to be told so, the key has to be accepted.
                let asked = gateway.undelivered(self.now()).await;
                asked.map(|_| format!("answers, in {mode} mode"))
            } else {
                Ok(format!("cannot be asked, in {mode} mode"))
            };
            answers.push((name.clone(), answer));
        }
        answers
    }

    /// One sweep over every provider that can be asked. What one of them fails at does not keep the others from theirs.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn sweep_providers(&self) -> Result<(), db::Error> {
        for (name, gateway) in &self.0.gateways {
            if !gateway.capabilities().queryable {
                continue;
            }
            self.sweep_customers(name, gateway.mode()).await?;
            match self.sweep_notices(name, &**gateway).await {
                Ok(()) => {}
                Err(BillingError::Storage(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(provider = name, %error, "undelivered notices could not be looked for");
                }
            }
        }
        self.0.wake.notify_one();
        Ok(())
    }

    /// A message was refused: if the user's access has ended just now, the provider may know better. The answer serves the
    /// next message.
    pub async fn ask_after_refusal(&self, user: Uuid) -> Result<(), db::Error> {
        let (now, bounds) = (self.now(), (self.0.settings.slack, self.0.settings.grace));
        let idle_since = time::before(now, IDLE);
        let rows = self.0.db.read(async |c| rows::subscriptions_of(user).all(&c).await).await?;
        for StoredSubscription {
            provider, mode, customer, state, period_start, period_end, cancel_at, ..
        } in rows
        {
            let until = allowed_until(state, (period_start, period_end), cancel_at, bounds);
            let has_just_ended =
                until.is_some_and(|until| until <= now && now < time::after(until, JUST_ENDED));
            let (true, Some(customer)) = (has_just_ended, customer) else { continue };
            let subject = Subject::Customer(customer).text();
            self.0
                .db
                .write(async move |c| {
                    queue::wish_if_idle(&provider, mode, &subject, now, idle_since).exec(&c).await
                })
                .await?;
            self.0.wake.notify_one();
        }
        Ok(())
    }

    async fn sweep_customers(&self, provider: &str, mode: Mode) -> Result<(), db::Error> {
        let now = self.now();
        let (stale, begun) = (time::before(now, STALE), time::before(now, OPEN_CHECKOUT));
        let read = self.0.db.read(async |c| {
            let mut due = queue::due_customers(provider, mode, now, stale, BATCH).all(&c).await?;
            due.extend(queue::waiting_customers(provider, mode, begun, BATCH).all(&c).await?);
            Ok::<_, db::Error>(due)
        });
        let mut at = now;
        for customer in read.await?.into_iter().filter_map(|row| row.customer) {
            let (name, subject) = (provider.to_owned(), Subject::Customer(customer).text());
            self.0.db.write(async move |c| queue::wish(&name, mode, &subject, at).one(&c).await).await?;
            at = time::after(at, PACE);
        }
        Ok(())
    }

    /// Takes the notices that the provider could not deliver, as if they had come.
    async fn sweep_notices(&self, provider: &str, gateway: &dyn Gateway) -> Result<(), BillingError> {
        let (now, mode) = (self.now(), gateway.mode());
        let looked = self.0.db.read(async |c| queue::looked_at(provider, mode).opt(&c).await).await?;
        let looked = looked.and_then(|time| Timestamp::from_microsecond(time).ok());
        let since = looked.map_or_else(|| time::before(now, MEMORY), |looked| time::before(looked, OVERLAP));
        let Undelivered { touched, is_cut } = gateway.undelivered(since).await?;
        for touched in touched {
            self.take_notice(provider, mode, &touched).await?;
        }
        if is_cut {
            // The oldest may be about disputes, which nothing else finds: whoever mends the delivery makes them come again.
            tracing::error!(provider, "there are more undelivered notices than are read");
            return Ok(());
        }
        let name = provider.to_owned();
        self.0.db.write(async move |c| queue::set_looked_at(&name, mode, now).exec(&c).await).await?;
        Ok(())
    }
}
