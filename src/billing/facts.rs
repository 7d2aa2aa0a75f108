//! Facts of providers who cannot be asked: they come together in the subscription's row, in any order and however often.

use super::{
    Billing, BillingError,
    apply::Alert,
    effects::{Effects, HoldChange, NotStored, cause},
    gateway::{Fact, FactEvent},
    row::{Mode, StoredSubscription, Told},
    store::{
        queue::{NoticeStatus, add_notice, take_fact},
        rows,
    },
};
use crate::platform::db;

/// How often a fact is prepared anew because another one about the same subscription came in between.
const TRIES: u32 = 64;

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactOutcome {
    /// It is stored.
    Stored,
    /// It had come before.
    Again,
    /// It concerns nobody.
    Ignored,
}

enum Attempt {
    Done(FactOutcome),
    Overtaken,
}

impl Billing {
    /// Stores a fact with all that follows from it, once.
    pub(super) async fn apply_fact(
        &self,
        provider: &str,
        mode: Mode,
        fact: &Fact,
    ) -> Result<FactOutcome, BillingError> {
        for _ in 0..TRIES {
            if let Attempt::Done(taken) = self.try_fact(provider, mode, fact).await? {
                return Ok(taken);
            }
        }
        Err(db::Error::Unavailable(
            "other facts about the same subscription came in between too often".into(),
        )
        .into())
    }

    async fn try_fact(&self, provider: &str, mode: Mode, fact: &Fact) -> Result<Attempt, BillingError> {
        let now = self.now();
        let read = self.0.db.read(async |c| {
            let row = rows::find_subscription(provider, mode, &fact.subscription).opt(&c).await?;
            let user = match &fact.customer {
                Some(customer) => rows::find_customer(provider, mode, customer).opt(&c).await?,
                None => None,
            };
            Ok::<_, db::Error>((row, user))
        });
        let (old, said) = read.await?;
        let owner = old.as_ref().and_then(|old| old.user_id);
        if let (Some(owner), Some(said)) = (owner, said)
            && owner != said
        {
            Alert::ForeignOwner.raise(provider, &fact.subscription);
            return self.ignore(provider, mode, fact).await;
        }
        if fact.customer.is_some() && said.is_none() {
            return self.ignore(provider, mode, fact).await; // Its user is gone.
        }
        let mut effects = Effects::default();
        let user = owner.or(said);
        if let FactEvent::Held { kind, transaction } = &fact.event {
            let change = HoldChange {
                provider: provider.to_owned(),
                mode,
                // A payment that was given back can be taken back as well.
                reference: format!("{}:{transaction}", kind.as_str()),
                kind: *kind,
                user,
                subscription: Some(fact.subscription.clone()),
                held_since: Some(fact.at),
            };
            self.add_hold(&mut effects, change).await?;
        }
        // Also where money went back: the row says whose sale it is, and its version is the fence of all that is told about it.
        let told =
            old.as_ref().map(StoredSubscription::told).unwrap_or_default().merge_event(&fact.event, fact.at);
        let base = old.clone().unwrap_or_else(|| StoredSubscription::new(provider, mode, &fact.subscription));
        let version = base.version.saturating_add(1);
        let customer = base.customer.clone().or_else(|| fact.customer.clone());
        let new = base.told_anew(&told);
        let new = StoredSubscription { user_id: user, customer, version, observed_at: now, ..new };
        self.add_subscription(&mut effects, old.as_ref(), new, &cause(fact)).await?;
        self.commit_fact(provider, mode, fact, effects).await
    }

    async fn commit_fact(
        &self,
        provider: &str,
        mode: Mode,
        fact: &Fact,
        effects: Effects,
    ) -> Result<Attempt, BillingError> {
        let (name, fact, now) = (provider.to_owned(), fact.clone(), self.now());
        let effects = std::sync::Arc::new(effects);
        let writing = std::sync::Arc::clone(&effects);
        let result = self
            .0
            .db
            .write(async move |c| {
                let subject = Some(fact.subscription.as_str());
                let notice = take_fact(&name, mode, &fact.key, &fact.kind, subject, fact.at, now);
                if notice.exec(&c).await? == 0 {
                    return Err(NotStored::Again);
                }
                if writing.store(&c, now).await? { Ok(()) } else { Err(NotStored::Overtaken) }
            })
            .await;
        match result {
            Ok(()) => {
                effects.announce(&self.0.jobs);
                Ok(Attempt::Done(FactOutcome::Stored))
            }
            Err(NotStored::Again) => Ok(Attempt::Done(FactOutcome::Again)),
            Err(NotStored::Overtaken) => Ok(Attempt::Overtaken),
            Err(NotStored::Storage(error)) => Err(error.into()),
        }
    }

    async fn ignore(&self, provider: &str, mode: Mode, fact: &Fact) -> Result<Attempt, BillingError> {
        let (name, fact, now) = (provider.to_owned(), fact.clone(), self.now());
        let ignored = NoticeStatus::Ignored;
        let added = self
            .0
            .db
            .write(async move |c| {
                let subject = Some(fact.subscription.as_str());
                add_notice(&name, mode, &fact.key, &fact.kind, subject, 0, ignored, fact.at, now)
                    .exec(&c)
                    .await
            })
            .await?;
        Ok(Attempt::Done(if added > 0 { FactOutcome::Ignored } else { FactOutcome::Again }))
    }
}

impl StoredSubscription {
    /// What its provider has told so far.
    fn told(&self) -> Told {
        Told {
            paid_at: self.period_start,
            paid_through: self.period_end,
            price: self.price.clone(),
            price_at: self.price_at,
            cancelled: self.cancelled,
            renewal_at: self.renewal_at,
            expired_at: self.ended_at,
        }
    }

    /// The same row after its provider has told more.
    fn told_anew(self, told: &Told) -> StoredSubscription {
        let bill = told.bill(self.reference.clone());
        StoredSubscription {
            price_at: told.price_at,
            cancelled: told.cancelled,
            renewal_at: told.renewal_at,
            ended_at: told.expired_at,
            ..self.with(bill)
        }
    }
}
