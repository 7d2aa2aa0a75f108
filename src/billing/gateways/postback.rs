//! A provider that tells what happened by calling an address of ours, and cannot be asked.
//!
//! A buyer is sent to the provider's page with a reference that we signed, and the provider repeats it in its notices. That
//! is how a sale finds its customer: nothing else that passes through a browser is believed. Notices are signed with a
//! secret that the provider shares, carry neither a nonce nor an id, and can be sent again by whoever saw one. So each says
//! what happened and when, and [`super::super::row::Told`] makes the same of them in any order and number.

pub(super) mod wire;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use uuid::Uuid;

use self::wire::{Parameters, SIGNATURE};
use crate::{
    billing::{
        gateway::{
            Capabilities, Checkout, Fact, FactEvent, Gateway, GatewayError, Notice, Order, Received,
            Rejection, Signal, Snapshot, Subject, Touched, Undelivered,
        },
        row::{HoldKind, Mode},
    },
    platform::{
        clock::SharedClock,
        digest::hex,
        proxies::Network,
        seal::{DataKey, equal},
        time,
    },
};

/// How long a checkout is taken to be open: the provider does not say.
const CHECKOUT_OPEN: Duration = Duration::from_hours(24);
/// How far a provider's clock may be ahead of ours. Behind it may be: what happened earlier is merged in as well.
const AHEAD: Duration = Duration::from_mins(5);
/// The seconds since 1970 that a notice may name, 2000 to 2100. Milliseconds lie beyond.
const SECONDS: std::ops::Range<i64> = 946_684_800..4_102_444_800;
/// The longest reference of a sale, transaction or price.
const MAX_REFERENCE: usize = 64;

/// What there is to set.
#[derive(Clone, Debug)]
pub struct PostbackSettings {
    /// The checkout page.
    pub base_url: Url,
    /// Where customers manage subscriptions; the checkout page without its query, if there is no other.
    pub manage_url: Option<Url>,
    /// The secrets that notices may be signed with. The first one signs checkouts.
    pub webhook_secrets: Vec<SecretString>,
    /// Who may send notices; if there is none, everybody.
    pub allowed_peers: Vec<Network>,
    /// What has to end the path of notices.
    pub path_secret: Option<SecretString>,
    /// What the provider expects as an answer.
    pub reply: String,
    /// Whether real money moves.
    pub mode: Mode,
}

/// The gateway.
pub struct Postback {
    settings: PostbackSettings,
    key: DataKey,
    clock: SharedClock,
}

impl Postback {
    /// A gateway that signs its references with `key`. They are good for as long as that is the key.
    pub fn new(mut settings: PostbackSettings, key: DataKey, clock: SharedClock) -> Postback {
        // With an empty secret anybody could sign.
        settings.webhook_secrets.retain(|secret| !secret.expose_secret().is_empty());
        Postback { settings, key, clock }
    }

    /// What a customer is called on the way through the browser: `customer.mac`, the MAC in hexadecimal digits.
    pub(super) fn reference(&self, customer: &str) -> String {
        let signed = format!("{}\0{customer}", self.settings.mode.as_str());
        format!("{customer}.{}", hex(&self.key.mac("billing.postback.reference", signed.as_bytes())))
    }

    /// The customer that a reference of ours was made for.
    pub(super) fn customer_of<'r>(&self, reference: &'r str) -> Option<&'r str> {
        let (customer, _) = reference.rsplit_once('.')?;
        equal(reference.as_bytes(), self.reference(customer).as_bytes()).then_some(customer)
    }

    /// The parameters that send a buyer to the provider, signed among themselves. Those that the page's address has already
    /// are not signed: they are the operator's, and the signature is of API.md's three parameters.
    fn order_parameters(&self, order: &Order) -> Result<Parameters, GatewayError> {
        let refused = |why: &str| GatewayError::Refused(why.to_owned());
        if !is_price(&order.price) {
            return Err(refused("a price reference is 1 to 64 letters, digits, -, _ or ."));
        }
        let mut parameters = Parameters::default();
        for (name, value) in [("reference", self.reference(&order.customer)), ("price", order.price.clone())]
        {
            parameters.add(name.to_owned(), value).map_err(refused)?;
        }
        Ok(parameters)
    }

    fn check_sender(&self, notice: &Notice<'_>) -> Result<(), Rejection> {
        let is_here = match (&self.settings.path_secret, notice.path_secret) {
            (None, None) => true,
            (Some(secret), Some(given)) => equal(secret.expose_secret().as_bytes(), given.as_bytes()),
            _ => false,
        };
        if !is_here || !matches!(notice.method.as_str(), "GET" | "POST") {
            return Err(Rejection::NotHere);
        }
        let peers = &self.settings.allowed_peers;
        let may_send = |peer| peers.iter().any(|network| network.contains(peer));
        if peers.is_empty() || notice.peer.is_some_and(may_send) {
            Ok(())
        } else {
            Err(Rejection::ForeignPeer)
        }
    }

    /// The signed parameters: of the query, or of a form. A form's query is not looked at.
    fn signed_parameters(&self, notice: &Notice<'_>) -> Result<Parameters, &'static str> {
        let text = match notice.method.as_str() {
            "GET" => notice.query.as_bytes(),
            _ if is_form(notice) => notice.body,
            _ => return Err("its body is not a form"),
        };
        let (parameters, signature) = Parameters::read(text)?;
        if parameters.are_signed(&signature, &self.settings.webhook_secrets) {
            Ok(parameters)
        } else {
            Err("its signature is not by any of the secrets")
        }
    }

    /// What signed parameters say. Those of a checkout are signed with the same secret and shown to the buyer: they are no
    /// notice, because they name no event.
    fn signal(&self, parameters: &Parameters, now: Timestamp) -> Result<Signal, &'static str> {
        let kind = parameters.get("event").ok_or("it names no event")?;
        let at = parameters.get("at").map(seconds).transpose()?;
        if at.is_some_and(|at| at > time::after(now, AHEAD)) {
            return Err("it comes from the future");
        }
        let key = parameters.key();
        let Some(event) = event(kind, parameters)? else {
            let kind = kind.chars().take(64).collect();
            return Ok(Signal::Ignored(Touched { key, kind, subject: None, at: at.unwrap_or(now) }));
        };
        let customer = match parameters.get("reference") {
            Some(reference) => {
                Some(self.customer_of(reference).ok_or("its reference is not ours")?.to_owned())
            }
            None => None,
        };
        Ok(Signal::Fact(Fact {
            key,
            kind: kind.to_owned(),
            customer,
            subscription: name(parameters, "sale_id")?.ok_or("it names no sale")?,
            event,
            at: at.ok_or("it has no time")?,
        }))
    }
}

/// What happened; nothing where the event is none that concerns us.
fn event(kind: &str, parameters: &Parameters) -> Result<Option<FactEvent>, &'static str> {
    let transaction = name(parameters, "transaction_id")?;
    let price = match parameters.get("price") {
        Some(price) if is_price(price) => Some(price.to_owned()),
        Some(_) => return Err("its price is no reference"),
        None => None,
    };
    let through = || seconds(parameters.get("paid_through").ok_or("it does not say until when it is paid")?);
    let held = |kind| {
        let transaction = transaction.ok_or("it names no transaction")?;
        Ok::<_, &'static str>(FactEvent::Held { kind, transaction })
    };
    Ok(Some(match kind {
        "initial" => {
            let price = Some(price.ok_or("a sale without a price")?);
            FactEvent::Paid { price, through: through()? }
        }
        "rebill" => FactEvent::Paid { price, through: through()? },
        "cancel" => FactEvent::Cancelled,
        "uncancel" => FactEvent::Uncancelled,
        "expiry" => FactEvent::Expired,
        "credit" => held(HoldKind::Refund)?,
        "chargeback" => held(HoldKind::Chargeback)?,
        _ => return Ok(None),
    }))
}

/// A reference of the provider's: of a sale or transaction.
fn name(parameters: &Parameters, parameter: &str) -> Result<Option<String>, &'static str> {
    match parameters.get(parameter) {
        Some(value) if is_reference(value, "-_") => Ok(Some(value.to_owned())),
        Some(_) => Err("the name of its sale or transaction is no reference"),
        None => Ok(None),
    }
}

fn is_price(text: &str) -> bool {
    is_reference(text, "-_.")
}

fn is_reference(text: &str, also: &str) -> bool {
    (1..=MAX_REFERENCE).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

fn seconds(text: &str) -> Result<Timestamp, &'static str> {
    let second = text.parse().ok().filter(|second| SECONDS.contains(second));
    let is_plain = text.bytes().all(|digit| digit.is_ascii_digit());
    let time = second.filter(|_| is_plain).and_then(|second| Timestamp::from_second(second).ok());
    time.ok_or("a time is not in seconds, or too far away")
}

fn is_form(notice: &Notice<'_>) -> bool {
    let given = notice.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[async_trait]
impl Gateway for Postback {
    fn mode(&self) -> Mode {
        self.settings.mode
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { queryable: false, portal: false, cancel: false }
    }

    async fn create_customer(&self, _: Uuid, nonce: Uuid) -> Result<String, GatewayError> {
        Ok(nonce.simple().to_string())
    }

    async fn start_checkout(&self, order: &Order) -> Result<Checkout, GatewayError> {
        let misconfigured = |why: &str| GatewayError::Misconfigured(why.to_owned());
        let secrets = &self.settings.webhook_secrets;
        let secret = secrets.first().ok_or_else(|| misconfigured("there is no secret to sign with"))?;
        let parameters = self.order_parameters(order)?;
        let mut url = self.settings.base_url.clone();
        let ours = |name: &str| parameters.get(name).is_some() || name == SIGNATURE;
        if url.query_pairs().any(|(name, _)| ours(&name)) {
            return Err(misconfigured("the checkout page's address has a parameter that we set"));
        }
        let signed = parameters.signed_form(secret);
        url.query_pairs_mut().extend_pairs(url::form_urlencoded::parse(signed.as_bytes()));
        Ok(Checkout {
            url: String::from(url).into(),
            reference: None,
            expires_at: time::after(self.clock.now(), CHECKOUT_OPEN),
        })
    }

    /// It cannot: its page knows nothing of us until somebody pays.
    async fn expire_checkout(&self, _: &str) -> Result<bool, GatewayError> {
        Ok(false)
    }

    async fn portal(&self, _: &str, _: &str) -> Result<SecretString, GatewayError> {
        Err(GatewayError::Unsupported)
    }

    fn manage_url(&self) -> Option<String> {
        let url = self.settings.manage_url.clone().unwrap_or_else(|| {
            let mut page = self.settings.base_url.clone();
            page.set_query(None);
            page.set_fragment(None);
            page
        });
        Some(url.into())
    }

    fn receive(&self, notice: &Notice<'_>, now: Timestamp) -> Result<Received, Rejection> {
        self.check_sender(notice)?;
        let signed = self.signed_parameters(notice).map_err(Rejection::NotGenuine)?;
        let signal = self.signal(&signed, now).map_err(Rejection::NotGenuine)?;
        Ok(Received { signal, reply: self.settings.reply.clone() })
    }

    async fn fetch(&self, _: &Subject) -> Result<Snapshot, GatewayError> {
        Err(GatewayError::Unsupported)
    }

    async fn undelivered(&self, _: Timestamp) -> Result<Undelivered, GatewayError> {
        Err(GatewayError::Unsupported)
    }

    async fn cancel(&self, _: &str, _: Timestamp) -> Result<Option<Fact>, GatewayError> {
        Err(GatewayError::Unsupported)
    }
}

#[cfg(test)]
mod tests;
