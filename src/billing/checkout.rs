//! Buying, managing and ending a subscription.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use uuid::Uuid;

use super::{
    Billing, BillingError, Reason, Wall,
    gateway::{Checkout, Gateway, GatewayError, Order, SnapshotState, Subject},
    row::{Mode, StoredSubscription},
    store::{
        checkout::{self, IntentRow},
        rows,
    },
};
use crate::platform::{db, digest::sha256, problem::Faults, problem::Invalid, seal::Place, time};

/// How long a checkout is kept that the provider has not answered for.
const UNANSWERED: Duration = Duration::from_mins(10);
/// A page of a checkout is not handed out so shortly before it ends.
const LAST_MINUTES: Duration = Duration::from_mins(5);
/// The longest address of a page that is accepted.
const MAX_URL: usize = 2048;

/// What a buyer wants.
pub struct CheckoutForm {
    /// The plan's id.
    pub plan: String,
    /// Where to come back to.
    pub success_url: String,
    /// Where to come back to without having bought.
    pub cancel_url: String,
}

/// Where a buyer is sent.
pub struct OpenCheckout {
    /// The provider's page.
    pub url: SecretString,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A provider that is in the settings.
#[derive(Clone, Copy)]
struct At<'a> {
    provider: &'a str,
    mode: Mode,
    gateway: &'a Arc<dyn Gateway>,
}

impl Billing {
    /// Begins a checkout, or finds the one that is open for the same plan.
    ///
    /// # Errors
    ///
    /// [`BillingError::Conflict`] where a subscription renews already, [`BillingError::Walled`] on hold.
    pub async fn checkout(&self, user: Uuid, form: &CheckoutForm) -> Result<OpenCheckout, BillingError> {
        let (at, price) = self.judge(form)?;
        self.refuse_second(user).await?;
        let customer = self.customer(user, at).await?;
        // Once more where another request of the user came in between. What was begun under a nonce may have ended since.
        for _ in 0..3 {
            let opened = self.open_checkout(user, at, form, self.0.random.uuid(self.now())).await?;
            let nonce = match opened {
                Opened::Found(found) => return Ok(found),
                Opened::Begun(nonce) => nonce,
                Opened::Overtaken => continue,
            };
            // Once more with the place taken: another checkout may have been paid a moment ago.
            self.refuse_second(user).await?;
            self.count_question(user, at.provider, at.mode).await?;
            let mut order = Order {
                user,
                customer: customer.clone(),
                price: price.clone(),
                success_url: form.success_url.clone(),
                cancel_url: form.cancel_url.clone(),
                nonce,
            };
            let checkout = self.start(at, &mut order).await?;
            if let Some(found) = self.keep_page(user, nonce, checkout).await? {
                return Ok(found);
            }
        }
        Err(conflict("Another checkout was begun at the same moment.", None))
    }

    fn judge(&self, form: &CheckoutForm) -> Result<(At<'_>, String), BillingError> {
        let mut faults = Faults::new();
        let known = self.0.settings.checkout.as_deref();
        let at = known.and_then(|provider| {
            self.gateway(provider).map(|(gateway, mode)| At { provider, mode, gateway })
        });
        let price = at.and_then(|at| self.0.settings.plan(&form.plan)?.prices.get(at.provider).cloned());
        if price.is_none() {
            faults.add("/plan", "unknown_value", "No plan with this id can be bought.");
        }
        faults.take("/success_url", self.own_page(&form.success_url));
        faults.take("/cancel_url", self.own_page(&form.cancel_url));
        match (at, price, faults.into_errors()) {
            (Some(at), Some(price), errors) if errors.is_empty() => Ok((at, price)),
            (_, _, errors) => Err(BillingError::Invalid(errors)),
        }
    }

    /// Refuses an address that is not on a page of the frontend's: callers could send people anywhere.
    pub(super) fn own_page(&self, url: &str) -> Result<(), Invalid> {
        let parsed = Url::parse(url).ok().filter(|parsed| {
            let is_plain = parsed.username().is_empty() && parsed.password().is_none();
            is_plain
                && url.len() <= MAX_URL
                && !url.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        });
        let origin = parsed.map(|parsed| parsed.origin().ascii_serialization());
        match origin {
            Some(origin) if self.0.auth.is_allowed_origin(&origin) => Ok(()),
            _ => Err(Invalid::new("foreign_origin", "The page must be on one of the allowed origins.")),
        }
    }

    /// Refuses who would pay twice, and whose access is on hold.
    async fn refuse_second(&self, user: Uuid) -> Result<(), BillingError> {
        let (access, quota) = self.standing(user).await?;
        if access.reason == Reason::OnHold {
            return Err(BillingError::Walled(self.paywall(Wall::PaymentOnHold, quota)));
        }
        match self.renewing(user).await?.first() {
            None => Ok(()),
            Some(row) => Err(BillingError::AlreadySubscribed { manage_url: self.manage_url(&row.provider) }),
        }
    }

    /// The user's subscriptions that cost money again if nothing is done.
    pub(super) async fn renewing(&self, user: Uuid) -> Result<Vec<StoredSubscription>, db::Error> {
        let rows = self.0.db.read(async |c| rows::subscriptions_of(user).all(&c).await).await?;
        Ok(rows.into_iter().filter(|row| self.renews(row)).collect())
    }

    pub(super) fn manage_url(&self, provider: &str) -> Option<String> {
        self.gateway(provider).and_then(|(gateway, _)| gateway.manage_url())
    }

    /// Begins a checkout at the provider. A customer who was deleted there is made anew; what the old one had is over.
    async fn start(&self, at: At<'_>, order: &mut Order) -> Result<Checkout, BillingError> {
        let refusal = match at.gateway.start_checkout(order).await {
            Err(refusal @ GatewayError::Refused(_)) if at.gateway.capabilities().queryable => refusal,
            outcome => return Ok(outcome?),
        };
        let old = order.customer.clone();
        if at.gateway.fetch(&Subject::Customer(old.clone())).await?.state != SnapshotState::Gone {
            return Err(refusal.into());
        }
        let new = at.gateway.create_customer(order.user, order.nonce).await?;
        let (provider, mode, user, fresh) = (at.provider.to_owned(), at.mode, order.user, new.clone());
        let now = self.now();
        let replace =
            async move |c| rows::replace_customer(user, &provider, mode, &old, &fresh, now).exec(&c).await;
        if self.0.db.write(replace).await? == 0 {
            return Err(refusal.into());
        }
        order.customer = new;
        Ok(at.gateway.start_checkout(order).await?)
    }

    /// Who a user is at a provider: written down before the provider can tell of anything.
    async fn customer(&self, user: Uuid, at: At<'_>) -> Result<String, BillingError> {
        let (provider, mode) = (at.provider, at.mode);
        let find =
            async || self.0.db.read(async |c| rows::customer_of(user, provider, mode).opt(&c).await).await;
        if let Some(known) = find().await? {
            return Ok(known);
        }
        // The same nonce for an hour: asked twice, the provider makes one customer, and a failure that it remembers is forgotten.
        let hour = u128::try_from(self.now().as_second().div_euclid(3600)).unwrap_or(0);
        let nonce = Uuid::from_u128(user.as_u128() ^ hour);
        let reference = at.gateway.create_customer(user, nonce).await?;
        let (name, now) = (provider.to_owned(), self.now());
        self.0
            .db
            .write(async move |c| rows::add_customer(&name, mode, &reference, user, now).exec(&c).await)
            .await?;
        let taken = || GatewayError::Protocol("it gave one customer to two users".into());
        Ok(find().await?.ok_or_else(taken)?)
    }

    /// Takes the user's one place for an open checkout, or finds what is in it.
    async fn open_checkout(
        &self,
        user: Uuid,
        at: At<'_>,
        form: &CheckoutForm,
        nonce: Uuid,
    ) -> Result<Opened, BillingError> {
        let now = self.now();
        let request = sha256(format!("{}\n{}\n{}", form.plan, form.success_url, form.cancel_url).as_bytes());
        let open = self.0.db.read(async |c| checkout::find_intent(user).opt(&c).await).await?;
        let lasts = |open: &IntentRow| now < time::before(open.expires_at, LAST_MINUTES);
        let replaces = match open.filter(|open| now < open.expires_at) {
            None => None,
            Some(open) if is_same(&open, at, &form.plan) && open.url.is_some() && lasts(&open) => {
                return Ok(Opened::Found(self.found(user, &open).await?));
            }
            // Another request is asking the provider, or was lost doing so: the nonce makes it one checkout.
            Some(open)
                if open.reference.is_none()
                    && open.url.is_none()
                    && open.request == request
                    && lasts(&open) =>
            {
                return Ok(Opened::Begun(open.nonce));
            }
            // Another plan; one that is about to end; or one whose end was begun, and who did so was lost.
            Some(open) => {
                self.end_checkout(user, &open).await?;
                Some(open)
            }
        };
        let old_nonce = replaces.as_ref().map(|open| open.nonce);
        let reference = replaces.and_then(|open| open.reference).unwrap_or_default();
        let (provider, mode, plan) = (at.provider.to_owned(), at.mode, form.plan.clone());
        let until = time::after(now, UNANSWERED);
        let opened = self
            .0
            .db
            .write(async move |c| {
                checkout::remove_ending(user, now, old_nonce, &reference).exec(&c).await?;
                checkout::open_intent(user, &provider, mode, &plan, nonce, &request, now, until)
                    .exec(&c)
                    .await
            })
            .await?;
        Ok(if opened > 0 { Opened::Begun(nonce) } else { Opened::Overtaken })
    }

    /// Ends a checkout for another plan, so that nobody pays for both. Its page is withdrawn before that: what comes after
    /// may be lost.
    async fn end_checkout(&self, user: Uuid, open: &IntentRow) -> Result<(), BillingError> {
        let Some(reference) = &open.reference else { return Ok(()) };
        let Some((gateway, mode)) = self.gateway(&open.provider) else { return Ok(()) };
        if mode != open.mode {
            return Ok(());
        }
        let nonce = open.nonce;
        self.0.db.write(async move |c| checkout::withdraw_page(user, nonce).exec(&c).await).await?;
        if !gateway.expire_checkout(reference).await? && gateway.capabilities().queryable {
            let detail = "Another checkout was just paid; look at the subscription first.";
            return Err(conflict(detail, gateway.manage_url()));
        }
        Ok(())
    }

    async fn found(&self, user: Uuid, open: &IntentRow) -> Result<OpenCheckout, BillingError> {
        let sealed = open.url.as_ref().ok_or(BillingError::NotFound)?;
        let url = self.0.keyring.user(user).await?.open_text(url_place(&open.nonce), sealed)?;
        Ok(OpenCheckout { url: url.into(), expires_at: open.expires_at })
    }

    /// Keeps the page. `None`: another request has begun another checkout meanwhile.
    async fn keep_page(
        &self,
        user: Uuid,
        nonce: Uuid,
        page: Checkout,
    ) -> Result<Option<OpenCheckout>, BillingError> {
        let Checkout { url, reference, expires_at } = page;
        let key = self.0.keyring.user(user).await?;
        let sealed = key.seal(url_place(&nonce), url.expose_secret().as_bytes(), &*self.0.random);
        let kept = self
            .0
            .db
            .write(async move |c| {
                checkout::keep_page(user, nonce, reference.as_deref(), &sealed, expires_at).exec(&c).await
            })
            .await?;
        Ok((kept > 0).then_some(OpenCheckout { url, expires_at }))
    }
}

/// What was found in the user's one place for an open checkout.
enum Opened {
    /// A page.
    Found(OpenCheckout),
    /// A nonce to ask the provider for a page with.
    Begun(Uuid),
    /// Another request took it; look again.
    Overtaken,
}

fn is_same(open: &IntentRow, at: At<'_>, plan: &str) -> bool {
    open.provider == at.provider && open.mode == at.mode && open.plan == plan
}

pub(super) fn conflict(detail: &'static str, manage_url: Option<String>) -> BillingError {
    BillingError::Conflict { detail, manage_url }
}

fn url_place(nonce: &Uuid) -> Place<'_> {
    Place::new("checkout_intent.url", nonce.as_bytes())
}
