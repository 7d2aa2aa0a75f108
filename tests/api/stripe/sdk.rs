//! Stripe's own SDKs as judges of both sides: they make the same calls as we do, of a fake that has the same history, and read
//! and write the same signatures. Each runs in a process of its own and says what it found.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use digitalmistress::billing::{
    gateway::{Gateway as _, GatewayError, HoldState, Signal, SnapshotState, Subject},
    gateways::stripe::Stripe,
    row::Bill,
};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{DAY, NONCE, USER, buyer, fetched, notices::receive, order};
use crate::support::stripe::{Delivery, KEY, MONTH, Request, SECRET, StripeFake};

const OTHER_USER: Uuid = Uuid::from_u128(7);
const RETURN_URL: &str = "https://app.example/account?tab=plan";

/// A fake with a history, and the references of what is asked for.
struct Scene {
    fake: StripeFake,
    gateway: Stripe,
    customer: String,
    deleted: String,
    subscription: String,
    charge: String,
    dispute: String,
    began: i64,
}

impl Scene {
    /// The same each time, up to `now`, with so much that lists have several pages.
    async fn until(now: i64) -> Scene {
        let began = now - 40 * DAY;
        let fake = StripeFake::start(began).await;
        let gateway = fake.gateway();
        let (customer, refunded) = buyer(&fake, &gateway, 1).await;
        let (deleted, _) = buyer(&fake, &gateway, 2).await;
        for number in 3..110 {
            let checkout = gateway.start_checkout(&order(&customer, Uuid::from_u128(number))).await.unwrap();
            let bought = fake.pay(&checkout.reference.unwrap()).unwrap();
            fake.end(&bought);
        }
        fake.advance(MONTH);
        let checkout = gateway.start_checkout(&order(&customer, Uuid::from_u128(2))).await.unwrap();
        let subscription = fake.begin_trial(&checkout.reference.unwrap(), 30).unwrap();
        let charge = fake.charge_of(&refunded);
        fake.refund(&charge, Some(1));
        fake.advance(DAY);
        fake.refund(&charge, None);
        let dispute = fake.dispute(&fake.charge_of(&refunded), "needs_response");
        fake.delete_customer(&deleted);
        fake.set_now(now);
        fake.take_requests();
        Scene { fake, gateway, customer, deleted, subscription, charge, dispute, began }
    }

    /// All that a judge has to know.
    fn told(&self, kinds: &[&str]) -> Value {
        let texts = |notices: Vec<Delivery>| -> Vec<Value> {
            let text = |notice: Delivery| json!({"body": String::from_utf8(notice.body).unwrap(), "signature": notice.signature});
            notices.into_iter().map(text).collect()
        };
        let order = order("", NONCE);
        json!({
            "url": self.fake.url, "key": KEY, "secret": SECRET, "user": USER, "other_user": OTHER_USER,
            "nonce": NONCE, "customer": self.customer, "deleted": self.deleted,
            "subscription": self.subscription, "charge": self.charge, "dispute": self.dispute,
            "return_url": RETURN_URL, "since": self.began, "kinds": kinds,
            "order": {"price": order.price, "success_url": order.success_url, "cancel_url": order.cancel_url},
            "notices": texts(self.fake.notices()), "thin": texts(self.fake.thin_notices()),
        })
    }

    /// The calls of a judge, made by us; what we understand of the answers.
    async fn our_answers(&self) -> Value {
        let Scene { gateway, .. } = self;
        let customer = gateway.create_customer(USER, NONCE).await.unwrap();
        let again = gateway.create_customer(USER, NONCE).await.unwrap();
        refused(gateway.create_customer(OTHER_USER, NONCE).await);
        let checkout = gateway.start_checkout(&order(&customer, NONCE)).await.unwrap();
        let session = checkout.reference.unwrap();
        assert_eq!(gateway.expire_checkout(&session).await, Ok(true));
        assert_eq!(gateway.expire_checkout(&session).await, Ok(true));
        let portal = gateway.portal(&self.customer, RETURN_URL).await.unwrap();
        gateway.cancel(&self.subscription, Timestamp::UNIX_EPOCH).await.unwrap();
        let found = fetched(gateway, Subject::Customer(self.customer.clone())).await;
        let SnapshotState::Subscriptions(bills) = found.state else { panic!() };
        let charge = self.hold(Subject::Charge(self.charge.clone())).await;
        let dispute = self.hold(Subject::Dispute(self.dispute.clone())).await;
        let deleted = fetched(gateway, Subject::Customer(self.deleted.clone())).await;
        assert_eq!(deleted.state, SnapshotState::Gone);
        refused(gateway.fetch(&Subject::Customer("cus_unknown".into())).await);
        let stranger = self.fake.gateway_with("sk_test_wrong", gateway.mode());
        refused(stranger.fetch(&Subject::Customer(self.customer.clone())).await);
        let undelivered = gateway.undelivered(Timestamp::from_second(self.began).unwrap()).await.unwrap();
        json!({
            "customer": customer, "again": again, "portal": portal.expose_secret(),
            "checkout": [session, checkout.url.expose_secret(), checkout.expires_at.as_second()],
            "owner": found.customer.unwrap().user,
            "subscriptions": bills.iter().map(told).collect::<Vec<_>>(),
            "refunded": [charge.1.subscription, charge.0, charge.1.held_since.unwrap().as_second()],
            "disputed": [dispute.1.held_since.unwrap().as_second(), dispute.0],
            "undelivered": undelivered.touched.iter().rev()
                .map(|touched| json!([touched.key, touched.kind, touched.at.as_second()])).collect::<Vec<_>>(),
        })
    }

    async fn hold(&self, subject: Subject) -> (String, HoldState) {
        let found = fetched(&self.gateway, subject).await;
        let SnapshotState::Hold(hold) = found.state else { panic!() };
        (found.customer.unwrap().reference, hold)
    }
}

fn told(bill: &Bill) -> Value {
    let second = |time: Option<Timestamp>| time.map(Timestamp::as_second);
    json!([
        bill.reference,
        bill.raw_state,
        bill.price,
        second(bill.period_start),
        second(bill.period_end),
        second(bill.cancel_at),
        second(bill.ended_at)
    ])
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, GatewayError>) {
    let expected = matches!(answer, Err(GatewayError::Refused(_) | GatewayError::Misconfigured(_)));
    assert!(expected, "{answer:?}");
}

/// Asks a judge, in a thread of its own: the fake needs ours.
async fn judged(program: &str, script: &str, told: &Value) -> Value {
    let mut command = Command::new(program);
    command.arg(script).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let told = told.to_string();
    let run = tokio::task::spawn_blocking(move || {
        child.stdin.take().unwrap().write_all(told.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let output = run.await.unwrap();
    assert!(output.status.success(), "{script} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn headers(request: &Request) -> [&str; 3] {
    let key = request.header("idempotency-key");
    // Where it is drawn, any will do.
    let key = if key.ends_with(&NONCE.to_string()) || key.is_empty() { key } else { "some" };
    [request.header("stripe-version"), key, request.header("authorization")]
}

/// Lets a judge make our calls. `spelled` writes a request of its as we would, where the same can be written in two ways.
async fn agrees(program: &str, script: &str, spelled: fn(&str) -> String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap();
    let (theirs, ours) = (Scene::until(now).await, Scene::until(now).await);
    let our_answers = ours.our_answers().await;
    let our_requests = ours.fake.take_requests();
    let query = &our_requests.last().unwrap().query;
    let kinds: Vec<&str> =
        query.split('&').filter_map(|pair| Some(pair.strip_prefix("types[")?.split_once('=')?.1)).collect();

    let told = theirs.told(&kinds);
    let found = judged(program, script, &told).await;
    let their_requests = theirs.fake.take_requests();
    for (ours, theirs) in our_requests.iter().zip(&their_requests) {
        assert_eq!(ours.line(), spelled(&theirs.line()));
        assert_eq!(headers(ours), headers(theirs), "{}", ours.line());
    }
    assert_eq!(our_requests.len(), their_requests.len());

    let answers = &found["answers"];
    for same in ["customer", "again", "portal", "checkout", "owner", "subscriptions", "undelivered"] {
        assert_eq!(our_answers[same], answers[same], "{same}");
    }
    assert_eq!((answers["expired"].as_str(), &answers["deleted"]), (Some("expired"), &json!(true)));
    assert_eq!(answers["cancelled"], json!(theirs.subscription));
    let (refunded, disputed) = (&answers["refunded"], &answers["disputed"]);
    assert_eq!((&refunded[0], &refunded[1]), (&json!(true), &json!(USER)));
    assert_eq!(our_answers["refunded"], json!([refunded[2], theirs.customer, refunded[3][0]]));
    assert_eq!(our_answers["disputed"], json!([disputed[1], disputed[2]]));
    for (error, expected) in [
        ("mismatch", json!(["StripeIdempotencyError", null, 400, "string"])),
        ("expired_again", json!(["StripeInvalidRequestError", null, 400, "string"])),
        ("missing", json!(["StripeInvalidRequestError", "resource_missing", 404, "string"])),
        ("stranger", json!(["StripeAuthenticationError", null, 401, "string"])),
    ] {
        assert_eq!(answers[error], expected, "{error}");
    }
    assert_eq!(found["unknown"], json!([]), "the fake has fields that the SDK does not know");
    signatures_agree(&theirs, &told, &found, now);
}

/// They accept what we sign, and we accept what they sign.
fn signatures_agree(scene: &Scene, told: &Value, found: &Value, now: i64) {
    let ids: Vec<Value> = scene.fake.events().iter().map(|event| event["id"].clone()).collect();
    // What happened since they were told is no matter.
    let ids = json!(ids[..told["notices"].as_array().unwrap().len()]);
    assert_eq!((&found["answers"]["notices"], &found["answers"]["thin"]), (&ids, &ids));
    assert_eq!(found["answers"]["forged"], "StripeSignatureVerificationError");

    let signed = found["signed"].as_array().unwrap();
    assert_eq!(signed.len(), ids.as_array().unwrap().len());
    for (notice, id) in signed.iter().zip(ids.as_array().unwrap()) {
        let text = |name: &str| notice[name].as_str().unwrap().to_owned();
        let delivery =
            Delivery { id: String::new(), body: text("body").into_bytes(), signature: text("signature") };
        let (Signal::Touched(read) | Signal::Ignored(read)) =
            receive(&scene.gateway, &delivery, now).unwrap().signal
        else {
            panic!("a fact")
        };
        assert_eq!(read.key, *id);
    }
}

#[tokio::test]
#[ignore = "needs `npm ci` in tests/js; scripts/test runs it"]
async fn the_node_sdk_agrees() {
    agrees("node", "tests/js/stripe.mjs", str::to_owned).await;
}

#[tokio::test]
#[ignore = "needs PyPI's stripe in the Python that DM_STRIPE_PYTHON names; make test-peers runs it"]
async fn the_python_sdk_agrees() {
    let python = std::env::var("DM_STRIPE_PYTHON").unwrap_or_else(|_| "python3".into());
    // It escapes brackets in queries and writes a blank as a plus.
    let spelled = |line: &str| line.replace("%5B", "[").replace("%5D", "]").replace('+', "%20");
    agrees(&python, "tests/peers/stripe_sdk.py", spelled).await;
}
