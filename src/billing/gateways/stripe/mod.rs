//! Stripe: checkouts and the customer portal on its pages, notices that are signed, and an API that knows the state of
//! everything. So a notice only says what to ask about.
//!
//! Sources: the API reference, and Stripe's SDKs, which the tests let speak with the same fake (`tests/api/stripe/`). Spoken
//! directly, since nine calls are less than a generated library, and since those fail on objects of another version than theirs.

#[cfg(test)]
mod changes;
mod client;
mod event;
mod form;
mod hold;
mod reading;
mod signature;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use self::{client::Client, form::Form};
use crate::billing::{
    gateway::{
        Capabilities, Checkout, Customer, Fact, Gateway, GatewayError, Notice, Order, Received, Rejection,
        Signal, Snapshot, SnapshotState, Subject, Undelivered,
    },
    row::Mode,
};

/// The longest notice that is read, in bytes.
const MAX_NOTICE: usize = 256 * 1024;
/// The most pages of a customer's subscriptions, of a hundred each.
const MAX_SUBSCRIPTION_PAGES: usize = 20;
/// The most pages of undelivered notices.
const MAX_EVENT_PAGES: usize = 100;
/// What there is of something that there is not.
const GONE: Snapshot = Snapshot { customer: None, state: SnapshotState::Gone };

/// An account at Stripe.
#[derive(Clone, Debug)]
pub struct StripeSettings {
    /// The origin, without the version, as in the SDKs: `https://api.stripe.com`.
    pub base_url: Url,
    /// The key, `sk_…` or `rk_…`.
    pub secret_key: SecretString,
    /// What notices are signed with, `whsec_…`. Several while one is replaced.
    pub webhook_secrets: Vec<SecretString>,
    /// Whether the key is for real money.
    pub mode: Mode,
}

/// Stripe.
pub struct Stripe {
    client: Client,
    webhook_secrets: Vec<SecretString>,
    mode: Mode,
}

impl Stripe {
    /// Prepares calls; nothing is asked yet.
    pub fn new(settings: StripeSettings, client: reqwest::Client) -> Stripe {
        let StripeSettings { base_url, secret_key, webhook_secrets, mode } = settings;
        Stripe { client: Client::new(client, base_url, &secret_key, mode), webhook_secrets, mode }
    }

    /// A customer, and all subscriptions there are or were.
    async fn customer(&self, reference: &str) -> Result<Snapshot, GatewayError> {
        let path = ["customers", segment(reference)?];
        let found = self.client.find(&path, &Form::default()).await?;
        if found.as_ref().is_some_and(|found| reading::is_true(found, "deleted")) {
            return Ok(Snapshot { customer: found.as_ref().and_then(customer), state: SnapshotState::Gone });
        }
        // Without a status, ended ones are left out.
        let form = Form::default().with("customer", reference).with("status", "all");
        let listed = match self.client.list(&["subscriptions"], form, MAX_SUBSCRIPTION_PAGES).await {
            Err(failure) if found.is_none() && failure.is_missing() => return Err(no_such_customer()),
            listed => listed?,
        };
        if listed.is_cut {
            return Err(GatewayError::Protocol("more subscriptions than anybody has".to_owned()));
        }
        let bills: Vec<_> = listed.entries.iter().map(reading::bill).collect::<Result<_, _>>()?;
        if found.is_none() && bills.is_empty() {
            // A customer is never lost, only deleted: with the key of another account nobody would be left a subscription.
            return Err(no_such_customer());
        }
        // Who has subscriptions is there, whatever was said before.
        let unnamed = Customer { reference: reference.to_owned(), user: None };
        let customer = found.as_ref().and_then(customer).or(Some(unnamed));
        Ok(Snapshot { customer, state: SnapshotState::Subscriptions(bills) })
    }

    /// Whether a checkout has ended without having been paid.
    async fn cannot_be_paid(&self, reference: &str) -> Result<bool, GatewayError> {
        let path = ["checkout", "sessions", segment(reference)?];
        let session = self.client.find(&path, &Form::default()).await?;
        Ok(session.is_none_or(|session| reading::text(&session, "status") == "expired"))
    }
}

#[async_trait]
impl Gateway for Stripe {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { queryable: true, portal: true, cancel: true }
    }

    async fn create_customer(&self, user: Uuid, nonce: Uuid) -> Result<String, GatewayError> {
        let form = Form::default().with("metadata[user_id]", &user.to_string());
        // A key is for one call with one set of parameters, and the nonce may have another use.
        let answer = self.client.post(&["customers"], &form, &format!("customer-{nonce}")).await?;
        let reference = reading::id(&answer);
        reference
            .map(str::to_owned)
            .ok_or_else(|| GatewayError::Protocol("a customer without an id".to_owned()))
    }

    async fn start_checkout(&self, order: &Order) -> Result<Checkout, GatewayError> {
        let user = order.user.to_string();
        let form = Form::default()
            .with("mode", "subscription")
            .with("customer", &order.customer)
            .with("client_reference_id", &user)
            .with("line_items[0][price]", &order.price)
            .with("line_items[0][quantity]", "1")
            .with("success_url", &order.success_url)
            .with("cancel_url", &order.cancel_url)
            .with("subscription_data[metadata][user_id]", &user)
            .with("metadata[user_id]", &user);
        let answer = self.client.post(&["checkout", "sessions"], &form, &order.nonce.to_string()).await?;
        Ok(Checkout {
            url: link(&answer)?,
            reference: reading::id(&answer).map(str::to_owned),
            expires_at: reading::time(&answer, "expires_at")
                .ok_or_else(|| GatewayError::Protocol("a checkout without an end".to_owned()))?,
        })
    }

    async fn expire_checkout(&self, reference: &str) -> Result<bool, GatewayError> {
        let path = ["checkout", "sessions", segment(reference)?, "expire"];
        match self.client.post_once(&path, &Form::default()).await {
            Ok(_) => Ok(true),
            // It had ended before, or was paid.
            Err(failure) if failure.is_bad_request() || failure.is_missing() => {
                self.cannot_be_paid(reference).await
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn portal(&self, customer: &str, return_url: &str) -> Result<SecretString, GatewayError> {
        let form = Form::default().with("customer", customer).with("return_url", return_url);
        link(&self.client.post_once(&["billing_portal", "sessions"], &form).await?)
    }

    fn manage_url(&self) -> Option<String> {
        None
    }

    fn receive(&self, notice: &Notice<'_>, now: Timestamp) -> Result<Received, Rejection> {
        if notice.method.as_str() != "POST" || notice.path_secret.is_some() {
            return Err(Rejection::NotHere);
        }
        if notice.body.len() > MAX_NOTICE {
            return Err(Rejection::NotGenuine("it is too long"));
        }
        let mut headers = notice.headers.get_all("stripe-signature").iter();
        let (Some(header), None) = (headers.next(), headers.next()) else {
            return Err(Rejection::NotGenuine("there is not one signature"));
        };
        signature::check(header.as_bytes(), notice.body, &self.webhook_secrets, now)
            .map_err(Rejection::NotGenuine)?;
        let event: Value =
            serde_json::from_slice(notice.body).map_err(|_| Rejection::NotGenuine("it is not JSON"))?;
        let signal =
            event::read(&event, self.mode, now).ok_or(Rejection::NotGenuine("it is signed and no event"))?;
        Ok(Received { signal, reply: String::new() })
    }

    async fn fetch(&self, subject: &Subject) -> Result<Snapshot, GatewayError> {
        match subject {
            Subject::Customer(reference) => self.customer(reference).await,
            Subject::Dispute(reference) => self.dispute(reference).await,
            Subject::Charge(reference) => self.charge(reference).await,
        }
    }

    async fn undelivered(&self, since: Timestamp) -> Result<Undelivered, GatewayError> {
        let form = Form::default()
            .with("delivery_success", "false")
            .with_list("types", &event::KINDS)
            .with("created[gte]", &since.as_second().to_string());
        let listed = self.client.list(&["events"], form, MAX_EVENT_PAGES).await?;
        let mut touched = Vec::new();
        for event in listed.entries.iter().rev() {
            if let Some(Signal::Touched(one)) = event::read(event, self.mode, since) {
                touched.push(one);
            }
        }
        Ok(Undelivered { touched, is_cut: listed.is_cut })
    }

    async fn cancel(&self, subscription: &str, _now: Timestamp) -> Result<Option<Fact>, GatewayError> {
        let form = Form::default().with("cancel_at_period_end", "true");
        self.client.post_once(&["subscriptions", segment(subscription)?], &form).await?;
        Ok(None)
    }
}

fn no_such_customer() -> GatewayError {
    GatewayError::Misconfigured("it has no such customer; is this the right account?".to_owned())
}

/// A reference that may stand in a path.
fn segment(reference: &str) -> Result<&str, GatewayError> {
    let refused = || GatewayError::Refused("this is none of its references".to_owned());
    reading::is_reference(reference).then_some(reference).ok_or_else(refused)
}

/// A customer, given as a reference or as a whole.
fn customer(value: &Value) -> Option<Customer> {
    let user = value.pointer("/metadata/user_id").and_then(Value::as_str);
    let reference = reading::reference(value)?.to_owned();
    Some(Customer { reference, user: user.and_then(|user| user.parse().ok()) })
}

/// The page that an answer leads to.
fn link(answer: &Value) -> Result<SecretString, GatewayError> {
    let url = reading::text(answer, "url");
    let leads_somewhere = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
    leads_somewhere
        .then(|| SecretString::from(url))
        .ok_or_else(|| GatewayError::Protocol("a page without an address".to_owned()))
}

#[cfg(test)]
mod tests;
