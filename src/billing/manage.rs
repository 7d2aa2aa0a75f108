//! Managing a subscription: the provider's page, its end, and what the provider says now.

use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::{
    Billing, BillingError, Subscription,
    checkout::conflict,
    row::{Mode, StoredSubscription},
    store::rows::{self, CustomerRow},
};
use crate::platform::{db, problem::Faults, time};

/// How long a caller waits until the provider's answer is stored.
const SYNC_WAIT: Duration = Duration::from_secs(3);
/// The same for a cancellation, whose effect its caller wants to see.
const CANCEL_WAIT: Duration = Duration::from_secs(10);
/// How often a user can have a provider asked in [`QUESTION_WINDOW`].
const QUESTIONS: i64 = 12;
/// See [`QUESTIONS`].
const QUESTION_WINDOW: Duration = Duration::from_mins(1);

impl Billing {
    /// A page of the provider's on which the user manages the subscription.
    pub async fn portal(&self, user: Uuid, return_url: &str) -> Result<SecretString, BillingError> {
        let mut faults = Faults::new();
        faults.take("/return_url", self.own_page(return_url));
        let errors = faults.into_errors();
        if !errors.is_empty() {
            return Err(BillingError::Invalid(errors));
        }
        let subscribed = self.subscribed_at(user).await?;
        let customers = self.0.db.read(async |c| rows::customers_of(user).all(&c).await).await?;
        let is_there = |row: &CustomerRow| subscribed.as_ref().is_some_and(|there| *there == row.provider);
        let customer = customers.iter().find(|row| is_there(row)).or_else(|| customers.first());
        let nobody = || conflict("There is nothing to manage yet.", None);
        let customer = customer.ok_or_else(nobody)?;
        let (gateway, mode) = self.gateway(&customer.provider).ok_or_else(nobody)?;
        if mode != customer.mode {
            return Err(nobody());
        }
        if !gateway.capabilities().portal {
            return Err(conflict(
                "Subscriptions are managed on the provider's own page.",
                gateway.manage_url(),
            ));
        }
        self.count_question(user, &customer.provider, mode).await?;
        Ok(gateway.portal(&customer.reference, return_url).await?)
    }

    /// The provider of the subscription that decides, or of the newest one.
    async fn subscribed_at(&self, user: Uuid) -> Result<Option<String>, db::Error> {
        if let Some(provider) = self.standing(user).await?.0.provider {
            return Ok(Some(provider));
        }
        let rows = self.rows(user).await?;
        Ok(rows.subscriptions.into_iter().max_by_key(|row| row.period_end).map(|row| row.provider))
    }

    /// Has every subscription of the user's end with the period that is paid.
    ///
    /// # Errors
    ///
    /// After all that could be ended were: [`BillingError::Conflict`] if one is ended on its provider's own page only, and the
    /// first failure of a provider.
    pub async fn cancel(&self, user: Uuid) -> Result<Subscription, BillingError> {
        let renewing = self.renewing(user).await?;
        if renewing.is_empty() && !self.has_cancelled(user).await? {
            return Err(conflict("There is no subscription that renews.", None));
        }
        let mut outcome = Ok(());
        for row in renewing {
            let one = self.cancel_one(user, &row).await;
            outcome = outcome.and(one);
        }
        outcome?;
        Ok(self.subscription(user).await?)
    }

    async fn cancel_one(&self, user: Uuid, row: &StoredSubscription) -> Result<(), BillingError> {
        let Some((gateway, mode)) = self.gateway(&row.provider) else { return Ok(()) };
        if !gateway.capabilities().cancel {
            return Err(conflict("This is ended on the provider's own page.", gateway.manage_url()));
        }
        self.count_question(user, &row.provider, mode).await?;
        let told = gateway.cancel(&row.reference, self.now()).await;
        if let Ok(Some(fact)) = &told {
            self.apply_fact(&row.provider, mode, fact).await?;
        } else if let Some(customer) = &row.customer {
            // Also after a refusal: it may have ended there, and we do not know.
            self.ask_now(&row.provider, mode, customer, CANCEL_WAIT).await?;
        }
        told?;
        Ok(())
    }

    /// Whether a subscription that has not ended yet does not renew.
    async fn has_cancelled(&self, user: Uuid) -> Result<bool, db::Error> {
        let (rows, now) = (self.rows(user).await?, self.now());
        Ok(rows.subscriptions.iter().any(|row| row.cancel_at.is_some_and(|end| now < end)))
    }

    /// Asks the user's providers now, as far as they can be asked, and waits a moment for the answer.
    pub async fn sync_user(&self, user: Uuid) -> Result<Subscription, BillingError> {
        for CustomerRow { provider, mode, reference } in
            self.0.db.read(async |c| rows::customers_of(user).all(&c).await).await?
        {
            let is_asked = self
                .gateway(&provider)
                .is_some_and(|(gateway, current)| current == mode && gateway.capabilities().queryable);
            if !is_asked {
                continue;
            }
            self.count_question(user, &provider, mode).await?;
            self.ask_now(&provider, mode, &reference, SYNC_WAIT).await?;
        }
        Ok(self.subscription(user).await?)
    }

    /// Counts that a user has a provider asked, and refuses when it is too often: providers limit us, not one user.
    pub(super) async fn count_question(
        &self,
        user: Uuid,
        provider: &str,
        mode: Mode,
    ) -> Result<(), BillingError> {
        let is_asked = self.gateway(provider).is_some_and(|(gateway, _)| gateway.capabilities().queryable);
        if !is_asked {
            return Ok(());
        }
        let (name, now) = (provider.to_owned(), self.now());
        let since = time::before(now, QUESTION_WINDOW);
        let count =
            async move |c| rows::count_question(user, &name, mode, now, since, QUESTIONS).exec(&c).await;
        match self.0.db.write(count).await? {
            0 => Err(BillingError::AskedTooOften { wait: QUESTION_WINDOW }),
            _ => Ok(()),
        }
    }
}
