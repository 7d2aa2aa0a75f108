//! The process dies at any step: what was begun is whole or absent, nothing is called done that is not stored, and the next
//! attempt ends as the first one would have.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, Method};
use digitalmistress::{
    billing::gateway::Notice,
    platform::{db::Error, tasks::Tasks},
};
use serde_json::json;

use super::{Tables, call, checkouts::page, dies_at, jobs};
use crate::{
    billing::{checkout, order, shop::Shop},
    support::{
        app::TestApp,
        postback::{self, SETTINGS, Sale, signed},
        stripe::Delivery,
    },
};

/// More steps than anything takes.
const MOST: usize = 400;
/// Longer than a worker's lease.
const LEASE_PASSED: i64 = 61;
/// Everything runs at once, so no two passes are the same.
const PASSES: usize = 2;

digitalmistress::queries! {
    scan fn told_of(key: str) -> Taken =
        "SELECT (SELECT COUNT(*) FROM billing_inbox WHERE event_key = $1) AS notices,
                (SELECT CAST(COALESCE(SUM(want_seq), 0) AS BIGINT) FROM billing_sync) AS wishes,
                (SELECT CAST(COALESCE(SUM(version), 0) AS BIGINT) FROM subscription) AS versions,
                (SELECT COUNT(*) FROM billing_inbox) AS all_notices";
    scan fn notices() -> i64 = "SELECT COUNT(*) FROM billing_inbox";
}

digitalmistress::record! {
    #[derive(Debug, PartialEq)]
    struct Taken {
        notices: i64,
        wishes: i64,
        versions: i64,
        all_notices: i64,
    }
}

async fn taken(t: &TestApp, key: &str) -> Taken {
    let key = key.to_owned();
    let read = t.db().read_slow(async move |c| told_of(&key).one(&c).await);
    let read: Result<Taken, Error> = read.await;
    read.unwrap()
}

async fn count(t: &TestApp, what: Counted) -> i64 {
    let read = t.db().read_slow(async move |c| match what {
        Counted::Jobs => jobs().one(&c).await,
        Counted::Notices => notices().one(&c).await,
    });
    let read: Result<i64, Error> = read.await;
    read.unwrap()
}

#[derive(Clone, Copy)]
enum Counted {
    Jobs,
    Notices,
}

/// What is known of the only subscription: the end of its period, and whether everything is held up.
fn told(tables: &Tables) -> (i64, bool) {
    let held = tables.holds.iter().any(|hold| hold.released_at.is_none());
    (tables.subscriptions[0].period_end.unwrap() / 1_000_000, held)
}

#[tokio::test]
async fn a_worker_that_dies_at_any_step_leaves_nothing_done_that_is_not_stored_and_nothing_twice() {
    let shop = Shop::open().await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    let charge = shop.stripe.charge_of(&sub);
    let dispute = shop.stripe.dispute(&charge, "warning_needs_response");
    shop.deliver().await;
    let billing = &shop.t.background.billing;
    let (mut longest, mut held) = (0, false);
    for _ in 0..PASSES {
        let mut steps = 0;
        loop {
            shop.t.background.run_due().await.unwrap();
            // Two things at once: a renewal, and a dispute that is opened or judged.
            shop.pass(30, 60);
            held = !held;
            shop.stripe.judge_dispute(&dispute, if held { "needs_response" } else { "won" });
            for notice in shop.stripe.notices() {
                assert_eq!(shop.post(&notice).await, 200);
            }
            let item = &shop.stripe.object("subscription", &sub)["items"]["data"][0];
            let expected = (item["current_period_end"].as_i64().unwrap(), held);
            let before = shop.tables().await;
            let is_open = |tables: &Tables, of: &str| {
                tables.inbox.iter().any(|notice| {
                    notice.status == "pending"
                        && notice.subject.as_ref().is_some_and(|subject| subject.starts_with(of))
                })
            };
            assert!(is_open(&before, "customer:") && is_open(&before, "dispute:"));

            let ended = dies_at(steps, billing.sync_due(&Tasks::default())).await.is_some();
            let after = shop.tables().await;
            if !is_open(&after, "customer:") {
                assert_eq!(told(&after).0, expected.0, "a notice is done and its effect is not there");
            }
            if !is_open(&after, "dispute:") {
                assert_eq!(told(&after).1, expected.1, "a notice is done and its effect is not there");
            }

            shop.pass(0, LEASE_PASSED);
            shop.sync().await;
            let after = shop.tables().await;
            assert_eq!(told(&after), expected, "after {steps} steps");
            assert!(!is_open(&after, "customer:") && !is_open(&after, "dispute:"));
            assert_eq!(after.audited, before.audited + 2, "each change is audited once");
            assert_eq!(count(&shop.t, Counted::Jobs).await, 1, "one mail for the renewal");
            if ended {
                break;
            }
            steps += 1;
            assert!(steps < MOST);
        }
        longest = longest.max(steps);
    }
    assert!(longest > 10, "{longest} steps are fewer than there are questions and transactions");
}

/// A notice of Stripe's without a socket.
async fn receive_stripe(t: &TestApp, notice: &Delivery) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("stripe-signature", notice.signature.parse().unwrap());
    let notice = Notice {
        method: &Method::POST,
        path_secret: None,
        query: "",
        headers: &headers,
        peer: None,
        body: &notice.body,
    };
    t.background.billing.receive("stripe", &notice).await.is_ok()
}

#[tokio::test]
async fn a_notice_that_is_lost_at_any_step_of_its_taking_counts_once_when_it_comes_again() {
    let shop = Shop::open().await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    let start = shop.stripe.now();
    let mut steps = 0;
    for round in 1i64.. {
        let end = start + round * 3600;
        shop.stripe.change(&sub, "customer.subscription.updated", &json!({"cancel_at": end}));
        let notice = shop.stripe.notices().remove(0);
        let before = taken(&shop.t, &notice.id).await;
        assert_eq!(before.notices, 0);

        let ended = dies_at(steps, receive_stripe(&shop.t, &notice)).await.is_some();
        let now = taken(&shop.t, &notice.id).await;
        assert_eq!(now.wishes - before.wishes, now.notices, "after {steps} steps: both or neither");

        assert!(receive_stripe(&shop.t, &notice).await);
        shop.stripe.mark_delivered(&notice.id);
        let now = taken(&shop.t, &notice.id).await;
        assert_eq!((now.notices, now.wishes - before.wishes), (1, 1), "after {steps} steps");
        shop.sync().await;
        let tables = shop.tables().await;
        assert_eq!(tables.subscriptions[0].cancel_at, Some(end * 1_000_000));
        assert!(tables.inbox.iter().all(|notice| notice.status != "pending"));
        if ended {
            break;
        }
        steps += 1;
        assert!(steps < MOST);
    }
    assert!(steps > 0);
}

/// A processor's notice without a socket.
async fn receive_postback(t: &TestApp, query: &str) -> bool {
    let notice = Notice {
        method: &Method::GET,
        path_secret: None,
        query,
        headers: &HeaderMap::new(),
        peer: None,
        body: b"",
    };
    t.background.billing.receive("pay", &notice).await.is_ok()
}

#[tokio::test]
async fn a_fact_that_is_lost_at_any_step_of_its_taking_counts_once_when_it_comes_again() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
    let now = t.now().as_second();
    assert!(
        receive_postback(&t, &signed(postback::SECRET, &sale.says("initial", "first", now - 500_000))).await
    );
    let mut steps = 0;
    for (round, event) in (1i64..).zip(["rebill", "credit"].into_iter().cycle()) {
        t.background.run_due().await.unwrap();
        let told = sale.says(event, &format!("t{round}"), now - 500_000 + round * 60);
        let query = signed(postback::SECRET, &told);
        let (before, had) = (Tables::of(&t).await, count(&t, Counted::Notices).await);

        let ended = dies_at(steps, receive_postback(&t, &query)).await.is_some();
        // One statement sees both, or neither.
        let now = taken(&t, "").await;
        assert_eq!(now.versions, now.all_notices, "after {steps} steps");

        assert!(receive_postback(&t, &query).await && receive_postback(&t, &query).await);
        let after = Tables::of(&t).await;
        assert_eq!(count(&t, Counted::Notices).await, had + 1);
        assert_eq!(after.subscriptions[0].version, before.subscriptions[0].version + 1);
        assert_eq!(after.audited, before.audited + 1, "{event} after {steps} steps");
        let mails = i64::from(event == "rebill");
        assert_eq!(count(&t, Counted::Jobs).await, mails, "{event} after {steps} steps");
        assert_eq!(after.holds.len() - before.holds.len(), usize::from(event == "credit"));
        if ended && event == "credit" {
            break;
        }
        steps += usize::from(event == "credit");
        assert!(steps < MOST);
    }
    assert!(steps > 0);
}

#[tokio::test]
async fn a_sweep_that_dies_at_any_step_hides_nothing_from_the_next_one() {
    let shop = Shop::open().await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    let dispute = shop.stripe.dispute(&shop.stripe.charge_of(&sub), "warning_needs_response");
    let (mut steps, mut held) = (0, false);
    loop {
        held = !held;
        shop.pass(1, 0);
        // Only an undelivered notice tells of it.
        shop.stripe.judge_dispute(&dispute, if held { "needs_response" } else { "won" });
        let ended = dies_at(steps, shop.t.background.billing.sweep_providers()).await.is_some();
        shop.pass(0, LEASE_PASSED);
        shop.sweep().await;
        assert_eq!(told(&shop.tables().await).1, held, "after {steps} steps");
        if ended {
            break;
        }
        steps += 1;
        assert!(steps < MOST);
    }
    assert!(steps > 3);
}

#[tokio::test]
async fn a_checkout_that_is_lost_at_any_step_is_the_same_when_it_is_begun_again() {
    let shop = Shop::open().await;
    let ann = shop.person("ann").await;
    let (mut given, mut longest) = (BTreeSet::new(), 0);
    // `lost` is begun where nothing is open or `before` is, and then `after` is begun.
    for (before, lost, after) in
        [("plus", "plus", "plus"), ("pro", "plus", "plus"), ("pro", "plus", "pro"), ("plus", "pro", "pro")]
    {
        for step in 0.. {
            shop.forget_questions().await;
            if before != lost {
                given.insert(page(&checkout(&shop.t, &ann, before).await));
            }
            let path = "/v1/subscription/checkout";
            let begun = dies_at(step, call(&shop.t, &ann.access_token, path, order(lost))).await.map(
                |(code, body)| {
                    assert_eq!(code, 200, "{body}");
                    given.insert(page(&body));
                },
            );
            shop.stripe.take_requests();
            let opened = checkout(&shop.t, &ann, after).await;
            given.insert(page(&opened));
            let what = format!("{after} instead of {lost} after {step} steps, when {before} was open");
            assert_eq!(shop.payable(&given), [page(&opened)], "{what}");
            assert_eq!(checkout(&shop.t, &ann, after).await, opened, "{what}");
            let tried = shop.stripe.take_requests();
            let made = tried.iter().filter(|request| request.path == "/v1/checkout/sessions").count();
            assert!(made <= 1, "{what}: {made} checkouts were asked for again");
            assert_eq!(shop.intents().await, 1);
            if begun.is_some() {
                longest = longest.max(step);
                break;
            }
            assert!(step < MOST);
        }
    }
    let customers: BTreeSet<_> = shop
        .stripe
        .objects("checkout.session")
        .iter()
        .map(|session| session["customer"].to_string())
        .collect();
    assert_eq!((customers.len(), shop.stripe.objects("customer").len()), (1, 1));
    assert!(longest > 8, "{longest} steps");
}
