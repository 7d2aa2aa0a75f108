//! What is not a provider's, not of this mode, or not this user's, changes nothing that is.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderValue, Request},
};
use digitalmistress::platform::server::PeerAddress;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::{
    Dice, Hold, Owned, Tables,
    history::{Happening, customer_of, happen, history},
    try_with,
};
use crate::{
    billing::{checkout, shop::Shop},
    support::{
        app::{Person, TestApp},
        postback::{self, SETTINGS, Sale, signed, tell},
        stripe::{Delivery, LIVE_KEY, SECRET},
    },
};

/// A request as it would come through a socket; its status.
async fn send(t: &TestApp, method: &str, uri: String, signature: Option<HeaderValue>, body: Vec<u8>) -> u16 {
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .extension(PeerAddress(std::net::SocketAddr::from(([127, 0, 0, 1], 1))));
    if let Some(signature) = signature {
        request = request.header("stripe-signature", signature);
    }
    let response = t.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    to_bytes(response.into_body(), usize::MAX).await.unwrap();
    status
}

#[derive(Clone, Debug)]
enum Forgery {
    Body(prop::sample::Index, u8),
    Header(prop::sample::Index, u8),
    Query(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Longer(u8),
    Secret(String),
    Time(i64),
}

fn forgery() -> impl Strategy<Value = Forgery> {
    let index = || any::<prop::sample::Index>();
    prop_oneof![
        4 => (index(), 1..=255u8).prop_map(|(at, flip)| Forgery::Body(at, flip)),
        4 => (index(), 1..=255u8).prop_map(|(at, flip)| Forgery::Header(at, flip)),
        4 => (index(), 1..=127u8).prop_map(|(at, flip)| Forgery::Query(at, flip)),
        1 => index().prop_map(Forgery::Cut),
        1 => any::<u8>().prop_map(Forgery::Longer),
        1 => "[a-z]{20}".prop_map(Forgery::Secret),
        2 => prop_oneof![301..100_000i64, -100_000..-301i64].prop_map(Forgery::Time),
    ]
}

#[test]
fn what_nobody_has_signed_changes_no_row() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (shop, event, sale, before) = runtime.block_on(async {
        let shop = shop_with_both().await;
        let (ann, sub) = shop.buyer("ann", "plus").await;
        shop.deliver().await;
        let sale = shop.sale_of(&ann, "s1").await;
        shop.stripe.end(&sub);
        let event = shop.stripe.events().pop().unwrap();
        let before = shop.tables().await;
        (shop, event, sale, before)
    });
    try_with(256, &forgery(), async |forgery| {
        let now = shop.stripe.now();
        let good = Delivery::signed(&event, SECRET, now);
        let (mut body, mut header) = (good.body.clone(), good.signature.clone().into_bytes());
        match forgery {
            Forgery::Body(at, flip) => *at.get_mut(&mut body) ^= flip,
            // The last part of the header, `v0`, counts for nothing.
            Forgery::Header(at, flip) => {
                let end = good.signature.find(",v0").unwrap() + 1;
                *at.get_mut(&mut header[..end]) ^= flip;
            }
            Forgery::Cut(at) => body.truncate(at.index(body.len())),
            Forgery::Longer(byte) => body.push(byte),
            Forgery::Secret(secret) => header = Delivery::signed(&event, &secret, now).signature.into_bytes(),
            Forgery::Time(off) => header = Delivery::signed(&event, SECRET, now + off).signature.into_bytes(),
            Forgery::Query(at, flip) => {
                let query = signed(postback::SECRET, &sale.says("initial", "t1", now - 60));
                let mut altered = query.clone().into_bytes();
                *at.get_mut(&mut altered) ^= flip;
                // Not every text can be an address, and one parameter can be written in two ways.
                let pairs =
                    |query: &[u8]| url::form_urlencoded::parse(query).into_owned().collect::<Vec<_>>();
                if pairs(&altered) == pairs(query.as_bytes()) {
                    return;
                }
                let uri = format!("/v1/webhooks/pay?{}", String::from_utf8_lossy(&altered));
                if uri.parse::<axum::http::Uri>().is_err() || uri.contains('#') {
                    return;
                }
                assert_eq!(send(&shop.t, "GET", uri, None, Vec::new()).await, 400);
                assert_eq!(shop.tables().await, before);
                return;
            }
        }
        let Ok(header) = HeaderValue::from_bytes(&header) else { return };
        assert_eq!(send(&shop.t, "POST", "/v1/webhooks/stripe".into(), Some(header), body).await, 400);
        shop.sync().await;
        assert_eq!(shop.tables().await, before);
    });
    // The same unforged is taken.
    runtime.block_on(async {
        shop.repeat(&event).await;
        tell(&shop.t, &sale.says("initial", "t1", shop.stripe.now() - 60)).await.answers("OK");
        shop.sync().await;
        assert_ne!(shop.tables().await.told(), before.told());
    });
}

/// With the settings of both providers, and new checkouts at Stripe.
pub async fn shop_with_both() -> Shop {
    let more: Vec<_> =
        SETTINGS.iter().filter(|(name, _)| *name != "DM__BILLING__CHECKOUT").copied().collect();
    Shop::open_with(&more).await
}

/// All that a user's access comes from.
async fn rows_of(t: &TestApp, person: &Person) -> (Vec<Owned>, Vec<Hold>) {
    let tables = Tables::of(t).await;
    let user: Uuid = person.id.parse().unwrap();
    let subscriptions = tables.subscriptions.into_iter().filter(|row| row.user_id == Some(user));
    let holds = tables.holds.into_iter().filter(|hold| hold.user_id == Some(user));
    (subscriptions.collect(), holds.collect())
}

#[test]
fn news_of_one_users_customers_never_changes_anothers_rows() {
    let facts = prop::collection::vec(
        (
            prop::sample::select(vec!["initial", "rebill", "cancel", "expiry", "credit", "chargeback"]),
            0..3usize,
            any::<bool>(),
        ),
        0..6,
    );
    try_with(10, &(history(1, 40 * 24), facts, any::<u64>()), async |(history, facts, seed)| {
        let shop = shop_with_both().await;
        let (ann, hers) = shop.buyer("ann", "plus").await;
        let (bob, _) = shop.buyer("bob", "plus").await;
        shop.deliver().await;
        let customer = shop.customer(&hers);
        let (her_sale, his_sale) = (shop.sale_of(&ann, "s-ann").await, shop.sale_of(&bob, "s-bob").await);
        let now = shop.stripe.now();
        for (sale, transaction) in [(&her_sale, "t-ann"), (&his_sale, "t-bob")] {
            tell(&shop.t, &sale.says("initial", transaction, now - 1000)).await.answers("OK");
        }
        let his = rows_of(&shop.t, &bob).await;
        assert_eq!(his.0.len(), 2);
        let mut customers = shop.tables().await.customers;

        let dice = &mut Dice(seed);
        let mut facts = facts.into_iter().enumerate();
        for happening in history {
            match happening {
                Happening::Wait(hours) => shop.pass(0, hours * 3600),
                Happening::To(_, act) => happen(&shop.stripe, &customer, act),
            }
            if dice.roll(4) == 0 {
                // Somebody else's customer who says that he is Bob, or Ann.
                let user = if dice.roll(2) == 0 { &ann.id } else { &bob.id };
                let stranger = shop.stripe.add_customer(Some(user));
                shop.stripe.add_subscription(&stranger, "price_pro");
            }
            for notice in shop.stripe.notices() {
                let event: Value = serde_json::from_slice(&notice.body).unwrap();
                let about = customer_of(&shop.stripe, &event);
                if about.as_ref() != Some(&bob_customer(&customers, &bob)) {
                    assert_eq!(shop.post(&notice).await, 200);
                }
            }
            if let Some((n, (event, transaction, as_his))) = facts.next() {
                // Of her sale; or of his, in her name.
                let sale = Sale {
                    id: if as_his { his_sale.id.clone() } else { her_sale.id.clone() },
                    reference: her_sale.reference.clone(),
                    price: "19.99".into(),
                };
                let at = shop.stripe.now() - 500 + i64::try_from(n).unwrap();
                tell(&shop.t, &sale.says(event, &format!("t{transaction}"), at)).await.answers("OK");
            }
            shop.sync().await;
            assert_eq!(rows_of(&shop.t, &bob).await, his);
            let now = shop.tables().await.customers;
            assert!(customers.iter().all(|customer| now.contains(customer)), "{customers:?} became {now:?}");
            customers = now;
        }
    });
}

fn bob_customer(customers: &[super::Customer], bob: &Person) -> String {
    let user: Uuid = bob.id.parse().unwrap();
    let his = customers.iter().find(|customer| customer.user_id == user && customer.provider == "stripe");
    his.unwrap().reference.clone()
}

impl Shop {
    /// A sale at the processor to somebody who has a subscription here and has said that it ends.
    async fn sale_of(&self, person: &Person, id: &str) -> Sale {
        for subscription in self.stripe.objects("subscription") {
            if subscription["metadata"]["user_id"] == person.id.as_str() {
                self.stripe.cancel_in_portal(subscription["id"].as_str().unwrap());
            }
        }
        self.deliver().await;
        let there = self.t.beside_with(&[("DM__BILLING__CHECKOUT", "pay")]).await;
        Sale::of(&checkout(&there, person, "plus").await, id)
    }
}

/// The settings of a program for real money.
fn live() -> Vec<(&'static str, &'static str)> {
    vec![
        ("DM__BILLING__PROVIDERS__STRIPE__MODE", "live"),
        ("DM__BILLING__PROVIDERS__STRIPE__SECRET_KEY", LIVE_KEY),
    ]
}

#[test]
fn news_of_the_other_mode_changes_nothing() {
    let cases = (any::<bool>(), history(1, 60 * 24), any::<u64>());
    try_with(10, &cases, async |(is_live, history, seed)| {
        let shop = Shop::open_with(if is_live { live() } else { Vec::new() }.as_slice()).await;
        if is_live {
            shop.stripe.go_live();
        }
        let (_, sub) = shop.buyer("ann", "plus").await;
        shop.deliver().await;
        let customer = shop.customer(&sub);
        let before = shop.tables().await;
        assert_eq!(before.subscriptions[0].mode, if is_live { "live" } else { "test" });
        let dice = &mut Dice(seed);
        for happening in history {
            match happening {
                Happening::Wait(hours) => shop.pass(0, hours * 3600),
                Happening::To(_, act) => happen(&shop.stripe, &customer, act),
            }
            // Signed, about the same customer, and of the other mode; or it does not say, which is no real money.
            for mut event in shop.stripe.events() {
                event["id"] = json!(format!("{}_other_{}", event["id"].as_str().unwrap(), dice.roll(1000)));
                event["livemode"] = if is_live && dice.roll(4) == 0 { Value::Null } else { json!(!is_live) };
                if dice.roll(3) == 0 {
                    shop.repeat(&event).await;
                }
            }
            shop.stripe.take_requests();
            shop.sync().await;
            assert!(shop.stripe.take_requests().is_empty(), "somebody was asked");
            let after = shop.tables().await;
            let unread = |tables: Tables| Tables { inbox: Vec::new(), ..tables };
            let known =
                |tables: &Tables| tables.inbox.iter().filter(|notice| notice.status != "ignored").count();
            assert_eq!(known(&after), known(&before));
            assert_eq!(unread(after), unread(before.clone()));
        }
    });
}

#[tokio::test]
async fn a_program_that_goes_live_leaves_what_was_a_test_alone() {
    let shop = Shop::open().await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    let dispute = shop.stripe.dispute(&shop.stripe.charge_of(&sub), "needs_response");
    for notice in shop.stripe.notices() {
        shop.post(&notice).await;
    }
    let before = shop.tables().await;
    let Shop { t, stripe } = shop;
    let shop = Shop { t: t.restart_with(&live()).await, stripe };
    shop.stripe.go_live();
    shop.stripe.judge_dispute(&dispute, "won");
    shop.stripe.end(&sub);
    for notice in shop.stripe.notices() {
        shop.post(&notice).await;
    }
    shop.sync().await;
    shop.sweep().await;
    let after = shop.tables().await;
    let of_test = |tables: &Tables| {
        let subscriptions = tables.subscriptions.iter().filter(|row| row.mode == "test").cloned();
        (subscriptions.collect::<Vec<_>>(), tables.holds.clone(), tables.customers.clone())
    };
    assert_eq!(of_test(&after), of_test(&before));
    assert_eq!(after.subscriptions.len(), before.subscriptions.len());
    let ann = shop.t.log_in("ann@example.com").await;
    assert_eq!(shop.standing(&ann).await.0, "inactive", "no real money was paid");
}
