//! A provider for development: two pages of this server's own, on which every state of a subscription can be made.
//!
//! It is the postback gateway with a page at the other end. Each button signs a notice and sends it over HTTP to this
//! server's own address for notices, so what a frontend is developed against has come the whole way that a provider's
//! notice does. Nothing is kept between requests: what a page is for stands in its address, under a seal of ours, so that it
//! can neither be altered nor be made to send people elsewhere.
//!
//! A customer has one sale, named after them. Buying again revives it, with the new price.

mod http;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::SecretString;
use url::Url;
use uuid::Uuid;

use super::postback::{Postback, PostbackSettings, wire::Parameters};
use crate::{
    billing::{
        gateway::{
            Capabilities, Checkout, Fact, FactEvent, Gateway, GatewayError, Notice, Order, Received,
            Rejection, Snapshot, Subject, Undelivered,
        },
        row::Mode,
    },
    platform::{
        clock::SharedClock,
        digest::hex,
        extract::ApiQuery,
        http_client,
        random::SharedRandom,
        seal::{DataKey, equal},
        time,
    },
};

/// The page on which something is bought.
const CHECKOUT: &str = "/dev/checkout";
/// The page on which things happen to what was bought.
const MANAGE: &str = "/dev/checkout/manage";
/// The parameters of the two pages, besides their seal.
const CHECKOUT_PARAMETERS: [&str; 5] = ["reference", "price", "success_url", "cancel_url", "expires_at"];
const MANAGE_PARAMETERS: [&str; 2] = ["reference", "return_url"];
/// The parameter that seals the others.
const SEAL: &str = "seal";
/// What a payment pays for.
const PERIOD: Duration = Duration::from_hours(30 * 24);
/// What a sale is called: this, and the customer.
const SALE_PREFIX: &str = "dev_";
/// How long a call to ourselves may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The gateway.
#[derive(Clone)]
pub struct Dev {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    page: Url,
    secret: SecretString,
    postback: Postback,
    key: DataKey,
    clock: SharedClock,
    random: SharedRandom,
    client: reqwest::Client,
    last_second: AtomicI64,
}

/// What a checkout page is for.
struct CheckoutPage {
    customer: String,
    price: String,
    success_url: String,
    cancel_url: String,
}

/// What a page for managing is for.
struct ManagePage {
    customer: String,
    return_url: String,
}

/// Why a notice of ours was not taken. The page shows it.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error("its parameters cannot be signed: {0}")]
    Unsignable(&'static str),
    #[error("this server did not answer itself")]
    Unreachable,
    #[error("this server answered its own notice with status {0}")]
    Status(u16),
}

impl Dev {
    /// A gateway that the settings call `name`, on a server that browsers reach at `public_url`.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be built.
    pub fn new(
        name: &str,
        public_url: &Url,
        key: DataKey,
        clock: SharedClock,
        random: SharedRandom,
    ) -> reqwest::Result<Dev> {
        let mut page = public_url.clone();
        page.set_path(CHECKOUT);
        page.set_query(None);
        page.set_fragment(None);
        let secret = SecretString::from(hex(&random.bytes::<32>()));
        let settings = PostbackSettings {
            base_url: page.clone(),
            manage_url: None,
            webhook_secrets: vec![secret.clone()],
            allowed_peers: Vec::new(),
            path_secret: None,
            reply: "OK".to_owned(),
            mode: Mode::Test,
        };
        let postback = Postback::new(settings, key.clone(), Arc::clone(&clock));
        let client = http_client::build(PATIENCE, PATIENCE)?;
        let (name, last_second) = (name.to_owned(), AtomicI64::new(0));
        let inner = Inner { name, page, secret, postback, key, clock, random, client, last_second };
        Ok(Dev { inner: Arc::new(inner) })
    }

    /// A second that is no earlier than `now` and later than all before. Notices count seconds, and buttons are pressed
    /// faster: of two in one second it could not be told which came last. Five minutes' worth can be pressed in advance.
    fn next_second(&self, now: Timestamp) -> Timestamp {
        let next = |last: i64| now.as_second().max(last.saturating_add(1));
        let last = &self.inner.last_second;
        let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        Timestamp::from_second(next(before.unwrap_or_else(|last| last))).unwrap_or(now)
    }

    /// Adds a page's parameters to its address, sealed.
    fn sealed<'v, const N: usize>(&self, page: &str, names: [&'static str; N], values: [&'v str; N]) -> Url {
        let pairs: Vec<(&str, &'v str)> = names.into_iter().zip(values).collect();
        let mut url = self.inner.page.clone();
        url.set_path(page);
        url.query_pairs_mut().extend_pairs(&pairs).append_pair(SEAL, &self.seal(page, &pairs));
        url
    }

    /// A page's parameters, if it was us who made its address.
    fn unsealed<'q, const N: usize>(
        &self,
        page: &str,
        names: [&'static str; N],
        query: &'q ApiQuery,
    ) -> Option<[&'q str; N]> {
        let values = names.map(|name| query.get(name).unwrap_or_default());
        let pairs: Vec<(&str, &str)> = names.into_iter().zip(values).collect();
        equal(query.get(SEAL)?.as_bytes(), self.seal(page, &pairs).as_bytes()).then_some(values)
    }

    fn seal(&self, page: &str, pairs: &[(&str, &str)]) -> String {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        text.append_pair("page", page).extend_pairs(pairs);
        hex(&self.inner.key.mac("billing.dev.page", text.finish().as_bytes()))
    }

    fn checkout_page(&self, query: &ApiQuery) -> Option<CheckoutPage> {
        let [reference, price, success_url, cancel_url, expires_at] =
            self.unsealed(CHECKOUT, CHECKOUT_PARAMETERS, query)?;
        let expires_at: i64 = expires_at.parse().ok()?;
        (self.inner.clock.now().as_second() < expires_at).then_some(CheckoutPage {
            customer: self.inner.postback.customer_of(reference)?.to_owned(),
            price: price.to_owned(),
            success_url: success_url.to_owned(),
            cancel_url: cancel_url.to_owned(),
        })
    }

    fn manage_page(&self, query: &ApiQuery) -> Option<ManagePage> {
        let [reference, return_url] = self.unsealed(MANAGE, MANAGE_PARAMETERS, query)?;
        let customer = self.inner.postback.customer_of(reference)?.to_owned();
        Some(ManagePage { customer, return_url: return_url.to_owned() })
    }

    fn manage_address(&self, customer: &str, return_url: &str) -> Url {
        let reference = self.inner.postback.reference(customer);
        self.sealed(MANAGE, MANAGE_PARAMETERS, [&reference, return_url])
    }

    /// A notice about a customer's sale, as the body of a form.
    fn notice(&self, event: &str, customer: &str, price: Option<&str>) -> Result<String, &'static str> {
        let now = self.inner.clock.now();
        let at = self.next_second(now);
        let is_payment = matches!(event, "initial" | "rebill");
        let through = is_payment.then(|| time::after(at, PERIOD).as_second().to_string());
        let mut parameters = Parameters::default();
        for (name, value) in [
            ("event", Some(event.to_owned())),
            ("at", Some(at.as_second().to_string())),
            ("reference", Some(self.inner.postback.reference(customer))),
            ("sale_id", Some(sale_of(customer))),
            ("transaction_id", Some(self.inner.random.uuid(now).simple().to_string())),
            ("price", price.map(str::to_owned)),
            ("paid_through", through),
        ] {
            if let Some(value) = value {
                parameters.add(name.to_owned(), value)?;
            }
        }
        Ok(parameters.signed_form(&self.inner.secret))
    }

    /// Sends a notice to this server, which is reached at `origin`.
    async fn tell(
        &self,
        mut origin: Url,
        event: &str,
        customer: &str,
        price: Option<&str>,
    ) -> Result<(), Untold> {
        let body = self.notice(event, customer, price).map_err(Untold::Unsignable)?;
        if let Ok(mut path) = origin.path_segments_mut() {
            path.clear().extend(["v1", "webhooks", &self.inner.name]);
        }
        let request = self.inner.client.post(origin);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        match tokio::time::timeout(PATIENCE, request.send()).await {
            Ok(Ok(answer)) if answer.status().as_u16() == 200 => Ok(()),
            Ok(Ok(answer)) => Err(Untold::Status(answer.status().as_u16())),
            Ok(Err(_)) | Err(_) => Err(Untold::Unreachable),
        }
    }
}

fn sale_of(customer: &str) -> String {
    format!("{SALE_PREFIX}{customer}")
}

/// The origin that a `Host` header names, if it is on this machine.
fn loopback(host: &str) -> Option<Url> {
    let host = host.to_ascii_lowercase();
    let names = ["localhost", "127.0.0.1", "[::1]"];
    let rest = names.into_iter().find_map(|name| host.strip_prefix(name))?;
    let is_port =
        |port: &str| port.parse::<u16>().is_ok() && port.bytes().all(|digit| digit.is_ascii_digit());
    let is_all = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    is_all.then(|| Url::parse(&format!("http://{host}/")).ok()).flatten()
}

/// An address that a page may send a browser to, as it is written in headers.
fn destination(url: &str) -> Result<String, GatewayError> {
    match Url::parse(url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url.into()),
        _ => Err(GatewayError::Refused("the way back is no web address".to_owned())),
    }
}

#[async_trait]
impl Gateway for Dev {
    fn mode(&self) -> Mode {
        self.inner.postback.mode()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { queryable: false, portal: true, cancel: true }
    }

    async fn create_customer(&self, user: Uuid, nonce: Uuid) -> Result<String, GatewayError> {
        self.inner.postback.create_customer(user, nonce).await
    }

    /// The page that the postback gateway would send to, with the ways back and the end in its address. The seal takes the
    /// place of the order's signature: it covers more and outlives a restart.
    async fn start_checkout(&self, order: &Order) -> Result<Checkout, GatewayError> {
        let (success_url, cancel_url) = (destination(&order.success_url)?, destination(&order.cancel_url)?);
        let begun = self.inner.postback.start_checkout(order).await?;
        let reference = self.inner.postback.reference(&order.customer);
        let expires_at = begun.expires_at.as_second().to_string();
        let values = [reference.as_str(), &order.price, &success_url, &cancel_url, &expires_at];
        let url = self.sealed(CHECKOUT, CHECKOUT_PARAMETERS, values);
        Ok(Checkout { url: String::from(url).into(), ..begun })
    }

    /// It cannot: nothing is kept of a checkout, and its page works until the time in its address.
    async fn expire_checkout(&self, reference: &str) -> Result<bool, GatewayError> {
        self.inner.postback.expire_checkout(reference).await
    }

    async fn portal(&self, customer: &str, return_url: &str) -> Result<SecretString, GatewayError> {
        let url = self.manage_address(customer, &destination(return_url)?);
        Ok(String::from(url).into())
    }

    fn manage_url(&self) -> Option<String> {
        None
    }

    // Of many notices at once the later ones are ahead of the clock, each by a second.
    fn receive(&self, notice: &Notice<'_>, now: Timestamp) -> Result<Received, Rejection> {
        let last = Timestamp::from_second(self.inner.last_second.load(Ordering::Relaxed)).unwrap_or(now);
        self.inner.postback.receive(notice, now.max(last))
    }

    async fn fetch(&self, subject: &Subject) -> Result<Snapshot, GatewayError> {
        self.inner.postback.fetch(subject).await
    }

    async fn undelivered(&self, since: Timestamp) -> Result<Undelivered, GatewayError> {
        self.inner.postback.undelivered(since).await
    }

    async fn cancel(&self, subscription: &str, now: Timestamp) -> Result<Option<Fact>, GatewayError> {
        let customer = subscription.strip_prefix(SALE_PREFIX);
        let customer = customer.ok_or_else(|| GatewayError::Refused("there is no such sale".to_owned()))?;
        Ok(Some(Fact {
            key: self.inner.random.uuid(now).simple().to_string(),
            kind: "cancel".to_owned(),
            customer: Some(customer.to_owned()),
            subscription: subscription.to_owned(),
            event: FactEvent::Cancelled,
            at: self.next_second(now),
        }))
    }
}
