//! Asks providers what they have, one question at a time for each subject, and stores the answers behind a fence.
//!
//! A wish is a number. A worker takes a subject, remembers the number, asks with no transaction open, and stores the answer
//! only if nobody has stored another one meanwhile. A wish that came while it asked has a higher number, so it asks again.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    Billing, BillingError,
    apply::Alert,
    effects::{Effects, HoldChange, NotStored},
    gateway::{GatewayError, HoldState, Snapshot, SnapshotState, Subject},
    row::{Bill, Mode, State, StoredSubscription},
    store::{
        queue::{self, LeasedSubject, NoticeStatus},
        rows,
    },
};
use crate::platform::{db, tasks::Tasks, time};

/// How long a worker has for one subject.
const LEASE: Duration = Duration::from_mins(1);
/// How long the questions about one subject may take together.
const ASKING: Duration = Duration::from_secs(40);
/// How long a notice waits for a provider that does not answer, before an operator is told.
const PATIENCE: Duration = Duration::from_hours(24);
/// How often a caller who waits for an answer looks, when nobody here says that one has come.
const LOOK: Duration = Duration::from_millis(200);

/// What is to be stored of an answer.
struct Answer {
    effects: Effects,
    /// What becomes of the notices that it answers.
    notices: NoticeStatus,
}

impl Billing {
    /// Asks for everything that is due, one after the other, until the program ends.
    ///
    /// # Errors
    ///
    /// When the database fails. A provider that fails is asked again later.
    pub async fn sync_due(&self, tasks: &Tasks) -> Result<(), db::Error> {
        while !tasks.is_stopping() && self.sync_next().await? {}
        Ok(())
    }

    /// Completes when something is to be asked.
    pub async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Asks for what has been due longest. `false` if nothing is.
    async fn sync_next(&self) -> Result<bool, db::Error> {
        let now = self.now();
        let until = time::after(now, LEASE);
        let Some(taken) = self.0.db.write(async move |c| queue::take_due(now, until).opt(&c).await).await?
        else {
            return Ok(false);
        };
        let outcome = match self.sync(&taken).await {
            Ok(true) => "stored",
            Ok(false) => "overtaken",
            Err(error) => {
                self.put_off(&taken, &error).await?;
                "failed"
            }
        };
        let provider = taken.provider.clone();
        metrics::counter!("billing_syncs_total", "provider" => provider, "outcome" => outcome).increment(1);
        self.0.stored.notify_waiters();
        Ok(true)
    }

    /// Asks, and stores the answer. `false`: somebody else stored one meanwhile, and this one is dropped.
    async fn sync(&self, taken: &LeasedSubject) -> Result<bool, BillingError> {
        let misconfigured = |text: &str| GatewayError::Misconfigured(text.to_owned());
        let (gateway, mode) = self
            .gateway(&taken.provider)
            .ok_or_else(|| misconfigured("it is not in the settings any more"))?;
        if mode != taken.mode {
            return Err(misconfigured("it is used in the other mode now").into());
        }
        let subject =
            Subject::from_text(&taken.subject).ok_or_else(|| misconfigured("nobody knows this subject"))?;
        let snapshot = timeout(ASKING, gateway.fetch(&subject))
            .await
            .unwrap_or_else(|_| Err(GatewayError::Unavailable("it took too long".into())))?;
        let answer = self.prepare(taken, &subject, snapshot).await?;
        self.store_answer(taken, answer).await
    }

    async fn prepare(
        &self,
        taken: &LeasedSubject,
        subject: &Subject,
        snapshot: Snapshot,
    ) -> Result<Answer, BillingError> {
        let (provider, mode) = (taken.provider.as_str(), taken.mode);
        let mut effects = Effects::default();
        let reference = match (subject, &snapshot.customer) {
            (Subject::Customer(reference), _) => Some(reference.clone()),
            (_, Some(customer)) => Some(customer.reference.clone()),
            (_, None) => None,
        };
        let Some(reference) = reference else {
            return Ok(Answer { effects, notices: NoticeStatus::Ignored });
        };
        let claimed = snapshot.customer.as_ref().and_then(|customer| customer.user);
        let owner = self.owner_of(&mut effects, provider, mode, &reference, claimed).await?;
        let Some(user) = owner else {
            return Ok(Answer { effects, notices: NoticeStatus::Ignored });
        };
        match (snapshot.state, subject) {
            (SnapshotState::Subscriptions(bills), _) => {
                self.prepare_subscriptions(&mut effects, taken, (&reference, user), bills).await?;
            }
            (SnapshotState::Gone, Subject::Customer(_)) => {
                self.prepare_subscriptions(&mut effects, taken, (&reference, user), Vec::new()).await?;
            }
            (SnapshotState::Gone, Subject::Dispute(_) | Subject::Charge(_)) => {}
            (
                SnapshotState::Hold(HoldState { kind, subscription, held_since }),
                Subject::Dispute(id) | Subject::Charge(id),
            ) => {
                let (provider, reference) = (provider.to_owned(), id.clone());
                let user = Some(user);
                let change = HoldChange { provider, mode, reference, kind, user, subscription, held_since };
                self.add_hold(&mut effects, change).await?;
            }
            (SnapshotState::Hold(_), Subject::Customer(_)) => {
                return Err(GatewayError::Protocol("a hold in the place of a customer".into()).into());
            }
        }
        Ok(Answer { effects, notices: NoticeStatus::Done })
    }

    /// Whose customer this is. One that nobody knows is taken for the user's that the provider names, if that user exists and
    /// has no other.
    async fn owner_of(
        &self,
        effects: &mut Effects,
        provider: &str,
        mode: Mode,
        customer: &str,
        claimed: Option<Uuid>,
    ) -> Result<Option<Uuid>, BillingError> {
        let known =
            self.0.db.read(async |c| rows::find_customer(provider, mode, customer).opt(&c).await).await?;
        if known.is_some() {
            return Ok(known);
        }
        // One that its user had before, and whose payments can come back still.
        let had =
            self.0.db.read(async |c| rows::subscriptions_of_customer(provider, mode, customer).all(&c).await);
        if let Some(user) = had.await?.into_iter().find_map(|row| row.user_id) {
            return Ok(Some(user));
        }
        let Some(user) = claimed else { return Ok(None) };
        if self.0.auth.mail_address(user).await?.is_none() {
            return Ok(None);
        }
        if self.0.db.read(async |c| rows::customer_of(user, provider, mode).opt(&c).await).await?.is_some() {
            Alert::SecondCustomer.raise(provider, customer);
            return Ok(None);
        }
        effects.adopt(provider, mode, customer, user);
        Ok(Some(user))
    }

    /// Every subscription of a customer as it is now. One that the provider does not have any more has ended.
    async fn prepare_subscriptions(
        &self,
        effects: &mut Effects,
        taken: &LeasedSubject,
        (customer, user): (&str, Uuid),
        bills: Vec<Bill>,
    ) -> Result<(), BillingError> {
        let (provider, mode, now) = (taken.provider.as_str(), taken.mode, self.now());
        let stored = self
            .0
            .db
            .read(async |c| rows::subscriptions_of_customer(provider, mode, customer).all(&c).await)
            .await?;
        let gone = stored.iter().filter(|row| !bills.iter().any(|bill| bill.reference == row.reference));
        let ended = gone.map(|row| Bill { state: State::Ended, raw_state: "gone".into(), ..row.bill() });
        let mut seen = BTreeSet::new();
        for bill in bills.iter().cloned().chain(ended) {
            // A list that changes while it is read page by page may have one twice.
            if !seen.insert(bill.reference.clone()) {
                continue;
            }
            let old = match stored.iter().find(|row| row.reference == bill.reference) {
                Some(old) => Some(old.clone()),
                None => self.stored_subscription(provider, mode, &bill.reference).await?,
            };
            if old.as_ref().is_some_and(|old| old.user_id.is_some_and(|owner| owner != user)) {
                Alert::ForeignOwner.raise(provider, &bill.reference);
                continue;
            }
            let new = StoredSubscription {
                user_id: Some(user),
                customer: Some(customer.to_owned()),
                version: taken.want_seq,
                observed_at: now,
                ..StoredSubscription::new(provider, mode, &bill.reference)
            };
            self.add_subscription(effects, old.as_ref(), new.with(bill), "sync").await?;
        }
        Ok(())
    }

    async fn stored_subscription(
        &self,
        provider: &str,
        mode: Mode,
        reference: &str,
    ) -> Result<Option<StoredSubscription>, db::Error> {
        self.0.db.read(async |c| rows::find_subscription(provider, mode, reference).opt(&c).await).await
    }

    async fn store_answer(&self, taken: &LeasedSubject, answer: Answer) -> Result<bool, BillingError> {
        let (taken, now) = (taken.clone(), self.now());
        let answer = std::sync::Arc::new(answer);
        let writing = std::sync::Arc::clone(&answer);
        let stored = self
            .0
            .db
            .write(async move |c| {
                let LeasedSubject { provider, mode, subject, want_seq, done_seq, .. } = &taken;
                let fence = queue::fulfil(provider, *mode, subject, *want_seq, *done_seq, now);
                if fence.exec(&c).await? == 0 {
                    return Err(NotStored::Overtaken);
                }
                if !writing.effects.store(&c, now).await? {
                    // Not by another answer to this question: let it come later, and be seen.
                    return Err(db::Error::Unavailable("its rows are not what they were".into()).into());
                }
                queue::close_notices(provider, *mode, subject, *want_seq, writing.notices).exec(&c).await?;
                Ok(())
            })
            .await;
        match stored {
            Ok(()) => {
                answer.effects.announce(&self.0.jobs);
                Ok(true)
            }
            Err(NotStored::Again | NotStored::Overtaken) => Ok(false),
            Err(NotStored::Storage(error)) => Err(error.into()),
        }
    }

    /// Has a subject asked for again later, with longer and longer pauses.
    async fn put_off(&self, taken: &LeasedSubject, error: &BillingError) -> Result<(), db::Error> {
        let (taken, now, text) = (taken.clone(), self.now(), error.to_string());
        let failing_since = taken.failing_since.unwrap_or(now);
        let next_at = time::after(now, self.pause(taken.attempts));
        let given_up = time::before(now, PATIENCE);
        let (attempts, provider) = (taken.attempts, taken.provider.clone());
        tracing::warn!(
            provider,
            subject = taken.subject,
            attempts,
            error = text,
            "a payment provider was not asked"
        );
        let buried = self
            .0
            .db
            .write(async move |c| {
                let LeasedSubject { provider, mode, subject, done_seq, .. } = &taken;
                let put_off =
                    queue::put_off(provider, *mode, subject, *done_seq, next_at, failing_since, &text);
                put_off.exec(&c).await?;
                queue::bury_notices(provider, *mode, subject, given_up).exec(&c).await
            })
            .await?;
        if buried > 0 {
            metrics::counter!("billing_alerts_total", "alert" => "dead_notice", "provider" => provider.clone())
                .increment(buried);
            tracing::error!(
                provider,
                notices = buried,
                "notices of a payment provider were given up for now"
            );
        }
        Ok(())
    }

    /// Doubles with every attempt, with up to a quarter less, so that subjects that failed together come apart.
    fn pause(&self, attempts: i64) -> Duration {
        let doublings = u32::try_from(attempts.saturating_sub(1).clamp(0, 20)).unwrap_or(0);
        let longest = self.0.settings.retry_min.saturating_mul(2u32.saturating_pow(doublings));
        let pause = longest.min(self.0.settings.retry_max);
        let [drawn] = self.0.random.bytes::<1>();
        pause.mul_f64(1.0 - f64::from(drawn) / 1024.0)
    }

    /// Wishes that a customer be asked for, and waits until the answer is stored, at most `wait`. `false`: not yet.
    pub(super) async fn ask_now(
        &self,
        provider: &str,
        mode: Mode,
        customer: &str,
        wait: Duration,
    ) -> Result<bool, db::Error> {
        let (name, now) = (provider.to_owned(), self.now());
        let subject = Subject::Customer(customer.to_owned()).text();
        let wished = subject.clone();
        let seq = self
            .0
            .db
            .write(async move |c| {
                let seq = queue::wish(&name, mode, &wished, now).one(&c).await?;
                queue::hurry(&name, mode, &wished, now).exec(&c).await?;
                Ok::<_, db::Error>(seq)
            })
            .await?;
        self.0.wake.notify_one();
        let begun = Instant::now();
        loop {
            let stored = self.0.stored.notified();
            let done =
                self.0.db.read(async |c| queue::fulfilled(provider, mode, &subject).opt(&c).await).await?;
            if done.is_some_and(|done| done >= seq) {
                return Ok(true);
            }
            let left = wait.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            // Another instance may be the one that asks.
            let _ = timeout(left.min(LOOK), stored).await;
        }
    }
}
