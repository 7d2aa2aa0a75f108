//! Stripe, as far as we use it: it keeps what it is told, its time passes when a test says so, and what happens in it leaves
//! events, which the test delivers as it likes. `tests/api/stripe/sdk.rs` lets Stripe's own SDKs judge it.

mod calls;
mod objects;
mod params;
mod server;
mod state;

use std::sync::{Arc, Mutex, MutexGuard};

use aws_lc_rs::hmac;
use digitalmistress::{
    billing::{
        gateways::stripe::{Stripe, StripeSettings},
        row::Mode,
    },
    platform::http_client,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::server::Shared;
pub use self::{
    objects::{AMOUNT, CHECKOUT_LIFE, MONTH},
    server::{Fault, Late, Request},
};

/// The key that is accepted.
pub const KEY: &str = "sk_test_51FakeFakeFakeFakeFakeFake";
/// Another one, for when money is real.
pub const LIVE_KEY: &str = "sk_live_51FakeFakeFakeFakeFakeFake";
/// What its notices are signed with.
pub const SECRET: &str = "whsec_fake0123456789fake0123456789";

pub struct StripeFake {
    /// The origin.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

/// A notice on its way.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event's id.
    pub id: String,
    pub body: Vec<u8>,
    /// The value of the `Stripe-Signature` header.
    pub signature: String,
}

impl StripeFake {
    /// Without money that is real. It is `now` there, in Unix seconds.
    pub async fn start(now: i64) -> StripeFake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared: Arc<Mutex<Shared>> = Arc::default();
        shared.lock().unwrap().state.now = now;
        tokio::spawn(server::serve(listener, shared.clone()));
        StripeFake { url, shared }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Our side of it.
    pub fn gateway(&self) -> Stripe {
        self.gateway_with(KEY, Mode::Test)
    }

    pub fn gateway_with(&self, key: &str, mode: Mode) -> Stripe {
        let settings = StripeSettings {
            base_url: self.url.parse().unwrap(),
            secret_key: key.into(),
            webhook_secrets: vec![SECRET.into()],
            mode,
        };
        let (connect, idle) = (std::time::Duration::from_secs(2), std::time::Duration::from_secs(30));
        Stripe::new(settings, http_client::build(connect, idle).unwrap())
    }

    /// Makes everything from here on about real money.
    pub fn go_live(&self) {
        self.shared().state.livemode = true;
    }

    // Time.

    pub fn now(&self) -> i64 {
        self.shared().state.now
    }

    /// Lets time pass, with renewals, ends of trials, of subscriptions and of checkouts as they are due.
    pub fn set_now(&self, now: i64) {
        self.shared().state.pass(now);
    }

    pub fn advance(&self, seconds: i64) {
        self.set_now(self.now() + seconds);
    }

    // What people do.

    /// A buyer pays a checkout; the subscription, or `None` if it is not open any more.
    pub fn pay(&self, session: &str) -> Option<String> {
        self.shared().state.complete(session, None)
    }

    /// A buyer begins a trial.
    pub fn begin_trial(&self, session: &str, days: i64) -> Option<String> {
        self.shared().state.complete(session, Some(days))
    }

    /// From now on the card of a customer is declined, or accepted again.
    pub fn decline(&self, customer: &str, declined: bool) {
        let set = &mut self.shared().state.declined;
        if declined {
            set.insert(customer.to_owned())
        } else {
            set.remove(customer)
        };
    }

    /// Stripe tries again to take the money of the newest invoice.
    pub fn retry_payment(&self, subscription: &str) {
        self.shared().state.retry_payment(subscription);
    }

    /// Cancels in the portal, which sets `cancel_at` and not `cancel_at_period_end`.
    pub fn cancel_in_portal(&self, subscription: &str) {
        let end = self.object("subscription", subscription)["items"]["data"][0]["current_period_end"].clone();
        let fields = json!({"cancel_at": end, "canceled_at": self.now()});
        self.change(subscription, "customer.subscription.updated", &fields);
    }

    /// Ends a subscription now.
    pub fn end(&self, subscription: &str) {
        self.shared().state.end(subscription, "canceled");
    }

    /// Sets fields of a subscription and leaves an event of some kind.
    pub fn change(&self, subscription: &str, kind: &str, fields: &Value) {
        self.shared().state.change(subscription, kind, fields);
    }

    /// Sets fields of any object and leaves no event.
    pub fn set(&self, kind: &'static str, id: &str, fields: &Value) {
        self.shared().state.set(kind, id, fields);
    }

    /// A customer that was not made by us, and may name a user in its metadata.
    pub fn add_customer(&self, user: Option<&str>) -> String {
        self.shared().state.add_customer(user)
    }

    /// A subscription that was not made by us.
    pub fn add_subscription(&self, customer: &str, price: &str) -> String {
        self.shared().state.add_subscription(customer, price)
    }

    pub fn delete_customer(&self, customer: &str) {
        self.shared().state.delete_customer(customer);
    }

    // Money that comes back.

    /// Takes money for nothing that renews; the charge.
    pub fn charge(&self, customer: &str) -> String {
        self.shared().state.charge(customer).0
    }

    /// The newest charge of a subscription.
    pub fn charge_of(&self, subscription: &str) -> String {
        self.shared().state.charge_of(subscription).expect("it was paid")
    }

    /// Gives back a part of a charge, or the rest of it; the refund.
    pub fn refund(&self, charge: &str, amount: Option<i64>) -> String {
        self.shared().state.refund(charge, amount)
    }

    /// A refund fails later, and the money is ours again.
    pub fn fail_refund(&self, refund: &str) {
        self.shared().state.fail_refund(refund);
    }

    /// The bank asks for a charge back; the dispute.
    pub fn dispute(&self, charge: &str, status: &str) -> String {
        self.shared().state.dispute(charge, status)
    }

    pub fn judge_dispute(&self, dispute: &str, status: &str) {
        self.shared().state.judge_dispute(dispute, status);
    }

    // What it knows.

    /// An object by its kind, such as `subscription` or `checkout.session`.
    #[track_caller]
    pub fn object(&self, kind: &str, id: &str) -> Value {
        self.shared().state.get(kind, id).expect("there is such an object").clone()
    }

    /// All objects of a kind, newest first.
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        self.shared().state.all(kind).cloned().collect()
    }

    // What goes wrong, and what arrived.

    /// The next requests go wrong, each in its way.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared().faults.extend(faults);
    }

    /// The next so many requests are answered with a status, and nothing is done.
    pub fn fail_next(&self, requests: usize, status: u16) {
        let body =
            br#"{"error":{"type":"api_error","message":"sk_test_51FakeFakeFakeFakeFakeFake cus_000001"}}"#;
        self.fail(std::iter::repeat_n(Fault::Answer(status, Vec::new(), body.to_vec()), requests));
    }

    /// From now on requests go well again.
    pub fn recover(&self) {
        self.shared().faults.clear();
    }

    /// The requests since this was asked last.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared().requests)
    }

    // Notices.

    /// All events, oldest first, delivered or not.
    pub fn events(&self) -> Vec<Value> {
        self.shared().state.events.iter().map(|event| event.value.clone()).collect()
    }

    /// The notices that were not delivered yet, oldest first, signed now.
    pub fn notices(&self) -> Vec<Delivery> {
        let (now, shared) = (self.now(), self.shared());
        let waiting = shared.state.events.iter().filter(|event| !event.is_delivered);
        waiting.map(|event| Delivery::signed(&event.value, SECRET, now)).collect()
    }

    /// The notices of thin events instead.
    pub fn thin_notices(&self) -> Vec<Delivery> {
        let now = self.now();
        self.events().iter().map(|event| Delivery::signed(&objects::thin(event), SECRET, now)).collect()
    }

    /// Posts a notice. If it is accepted, Stripe counts it as delivered.
    pub async fn deliver(&self, client: &reqwest::Client, url: &str, notice: &Delivery) -> u16 {
        let request = client.post(url).header("content-type", "application/json; charset=utf-8");
        let request = request.header("stripe-signature", &notice.signature).body(notice.body.clone());
        let status = request.send().await.expect("the server answers").status();
        if status.is_success() {
            self.mark_delivered(&notice.id);
        }
        status.as_u16()
    }

    pub fn mark_delivered(&self, id: &str) {
        for event in &mut self.shared().state.events {
            event.is_delivered |= event.value["id"] == id;
        }
    }
}

impl Delivery {
    /// An event of any shape, signed with a secret at a time: late or forged, if the test wants.
    pub fn signed(event: &Value, secret: &str, time: i64) -> Delivery {
        let body = serde_json::to_vec_pretty(event).unwrap();
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        Delivery { id, signature: sign(secret, time, &body), body }
    }
}

/// The header that Stripe sends.
pub fn sign(secret: &str, time: i64, body: &[u8]) -> String {
    let signed = [time.to_string().as_bytes(), b".", body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &signed);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={time},v1={hex},v0={}", "0".repeat(64))
}
