//! Stripe through a subscription's life: what its notices lead to, whatever happens to them on the way.

use serde_json::json;

use super::{
    is,
    shop::{Shop, tells},
    subscription,
};
use crate::support::{
    http::all,
    logs::Logs,
    postback,
    requests::PAGE,
    stripe::{Delivery, Fault, SECRET},
};

#[tokio::test]
async fn a_subscription_from_the_checkout_to_its_end() {
    let shop = Shop::open().await;
    let (ann, sub) = shop.buyer("ann", "plus").await;
    assert_eq!(shop.standing(&ann).await, is("inactive", "free", None), "nothing has been heard yet");
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("active", "subscription", Some("plus")));
    assert_eq!(tells(&shop.mails("ann").await, "has started"), 1);

    let ann = shop.pass_for("ann", 31).await;
    shop.deliver().await;
    assert_eq!(tells(&shop.mails("ann").await, "has been renewed"), 1);
    let shown = subscription(&shop.t, &ann).await;
    assert_eq!((&shown["will_renew"], &shown["provider"]), (&json!(true), &json!("stripe")));

    // In the portal, which says when it ends and not that it does so at the period's end.
    shop.stripe.cancel_in_portal(&sub);
    shop.deliver().await;
    let shown = subscription(&shop.t, &ann).await;
    let end =
        jiff::Timestamp::from_second(shop.stripe.object("subscription", &sub)["cancel_at"].as_i64().unwrap());
    assert_eq!(
        (&shown["will_renew"], &shown["access_until"]),
        (&json!(false), &json!(format!("{:.3}", end.unwrap())))
    );
    assert_eq!(tells(&shop.mails("ann").await, "will not renew"), 1);

    let ann = shop.pass_for("ann", 31).await;
    assert_eq!(shop.standing(&ann).await, is("inactive", "ended", None), "before anybody has said so");
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("inactive", "ended", None));
    assert_eq!(tells(&shop.mails("ann").await, "has ended"), 1);
    assert_eq!(shop.mails("ann").await.len(), 4, "one mail for each change");
}

#[tokio::test]
async fn a_renewal_that_fails_has_its_grace_and_can_be_mended() {
    let shop = Shop::open().await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    shop.stripe.decline(&shop.customer(&sub), true);
    let ann = shop.pass_for("ann", 30).await;
    shop.pass(0, 60);
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("active", "past_due", Some("plus")));
    assert_eq!(tells(&shop.mails("ann").await, "did not go through"), 1);
    shop.deliver().await;
    let ann = shop.pass_for("ann", 7).await;
    assert_eq!(
        shop.standing(&ann).await,
        is("inactive", "past_due", None),
        "grace counts from the period's beginning"
    );
    let shown = subscription(&shop.t, &ann).await;
    assert_eq!(shown["quota"]["limit"], 20, "the free tier is left");
    assert_eq!(shown["will_renew"], true, "the provider goes on trying, and she has to be able to end that");
    ann.post(&shop.t, "/v1/subscription/checkout", super::order("plus"))
        .await
        .problem(409, "already_subscribed");
    shop.stripe.decline(&shop.customer(&sub), false);
    shop.stripe.retry_payment(&sub);
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("active", "subscription", Some("plus")));
}

#[tokio::test]
async fn every_status_and_one_that_nobody_knows() {
    let shop = Shop::open().await;
    let (ann, sub) = shop.buyer("ann", "plus").await;
    for (status, expected) in [
        ("incomplete", is("inactive", "pending", None)),
        ("trialing", is("active", "subscription", Some("plus"))),
        ("active", is("active", "subscription", Some("plus"))),
        ("past_due", is("active", "past_due", Some("plus"))),
        ("paused", is("inactive", "paused", None)),
        ("unpaid", is("inactive", "unpaid", None)),
        ("a_new_word", is("inactive", "free", None)),
        ("canceled", is("inactive", "ended", None)),
        ("incomplete_expired", is("inactive", "ended", None)),
    ] {
        shop.stripe.change(&sub, "customer.subscription.updated", &json!({"status": status}));
        shop.deliver().await;
        assert_eq!(shop.standing(&ann).await, expected, "{status}");
    }
}

#[tokio::test]
async fn the_end_of_an_old_subscription_leaves_the_new_one_alone() {
    let shop = Shop::open().await;
    let (ann, old) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    shop.stripe.end(&old);
    shop.deliver().await;
    super::checkout(&shop.t, &ann, "pro").await;
    shop.stripe.pay(&shop.session()).unwrap();
    shop.deliver().await;
    // The old one's end arrives once more, late.
    let late = shop
        .stripe
        .events()
        .into_iter()
        .find(|event| event["type"] == "customer.subscription.deleted")
        .unwrap();
    let mut late = late;
    late["id"] = json!("evt_late");
    assert_eq!(shop.post(&Delivery::signed(&late, SECRET, shop.stripe.now())).await, 200);
    shop.sync().await;
    assert_eq!(shop.standing(&ann).await, is("active", "subscription", Some("pro")));
}

#[tokio::test]
async fn two_live_subscriptions_keep_access_and_call_for_the_operator() {
    let shop = Shop::open().await;
    let (ann, _) = shop.buyer("ann", "plus").await;
    // A second tab that was opened before the first one was paid for; the provider cannot know.
    let customer = shop.stripe.objects("customer")[0]["id"].clone();
    let gateway = shop.stripe.gateway();
    let order = digitalmistress::billing::gateway::Order {
        user: ann.id.parse().unwrap(),
        customer: customer.as_str().unwrap().into(),
        price: "price_pro".into(),
        success_url: PAGE.into(),
        cancel_url: PAGE.into(),
        nonce: uuid::Uuid::from_u128(7),
    };
    let second = digitalmistress::billing::gateway::Gateway::start_checkout(&gateway, &order).await.unwrap();
    shop.deliver().await;
    let logs = Logs::listen();
    shop.stripe.pay(&second.reference.unwrap()).unwrap();
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("active", "subscription", Some("pro")));
    assert_eq!(logs.lines_with("second_subscription").len(), 1);
}

#[tokio::test]
async fn refunds_and_disputes_hold_access_as_long_as_they_stand() {
    let shop = Shop::open().await;
    let (ann, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    let charge = shop.stripe.charge_of(&sub);
    shop.stripe.refund(&charge, Some(100));
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await.0, "active", "a part of the money is a courtesy");
    shop.stripe.refund(&charge, None);
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("inactive", "ended", None));
    let ann = shop.pass_for("ann", 31).await;
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await.0, "active", "paid again");

    let dispute = shop.stripe.dispute(&shop.stripe.charge_of(&sub), "needs_response");
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("inactive", "on_hold", None));
    ann.say(&shop.t, "c", "m", "hello").await.problem(402, "payment_on_hold");
    shop.stripe.judge_dispute(&dispute, "won");
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await.0, "active");
    let lost = shop.stripe.dispute(&shop.stripe.charge_of(&sub), "needs_response");
    shop.stripe.judge_dispute(&lost, "lost");
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("inactive", "on_hold", None));
    // An operator may let her in again, and the next news of it does not undo that.
    let id = ann.id.parse().unwrap();
    shop.t.background.billing.release(id, &lost).await.unwrap();
    shop.stripe.judge_dispute(&lost, "lost");
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await.0, "active");
}

#[tokio::test]
async fn cancelled_here_it_lasts_to_the_end_of_what_is_paid() {
    let shop = Shop::open().await;
    let (ann, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    let _asking = shop.asking();
    let shown = ann.post(&shop.t, "/v1/subscription/cancel", json!({})).await.ok();
    assert_eq!((&shown["state"], &shown["will_renew"]), (&json!("active"), &json!(false)));
    assert_eq!(shop.stripe.object("subscription", &sub)["cancel_at_period_end"], true);
    let mails = shop.mails("ann").await;
    assert_eq!(tells(&mails, "You have it until 9 April 2027"), 1, "{mails:?}");
    // Whoever has said that it ends may buy anew.
    super::checkout(&shop.t, &ann, "pro").await;
}

#[tokio::test]
async fn on_return_from_the_checkout_the_provider_is_asked() {
    let shop = Shop::open().await;
    let (ann, _) = shop.buyer("ann", "plus").await;
    let _asking = shop.asking();
    let shown = ann.post(&shop.t, "/v1/subscription/sync", json!({})).await.ok();
    assert_eq!((&shown["state"], &shown["plan"]), (&json!("active"), &json!("plus")));
    let portal = ann.post(&shop.t, "/v1/subscription/portal", json!({"return_url": PAGE})).await.ok();
    assert!(portal["url"].as_str().unwrap().starts_with("https://billing.stripe.example/"), "{portal}");
    // Again and again, and it is enough; another user is none the worse.
    let answers = all((0..20).map(|_| ann.post(&shop.t, "/v1/subscription/sync", json!({})))).await;
    let refused: Vec<_> = answers.into_iter().filter(|answer| answer.code != 200).collect();
    // Twelve a minute, of which checkout, sync and portal have taken one each.
    assert_eq!(refused.len(), 11);
    for answer in refused {
        assert_ne!(answer.header("retry-after"), "");
        answer.problem(429, "rate_limited");
    }
    let (bob, _) = shop.buyer("bob", "plus").await;
    bob.post(&shop.t, "/v1/subscription/sync", json!({})).await.ok();
}

#[tokio::test]
async fn a_checkout_is_one_however_often_it_is_begun_and_another_plan_ends_it() {
    let shop = Shop::open().await;
    let ann = shop.person("ann").await;
    let order = || ann.post(&shop.t, "/v1/subscription/checkout", super::order("plus"));
    let answers = all((0..8).map(|_| order())).await;
    let url = answers[0].json()["url"].clone();
    assert!(answers.into_iter().all(|answer| answer.ok()["url"] == url));
    assert_eq!(
        (shop.stripe.objects("checkout.session").len(), shop.stripe.objects("customer").len()),
        (1, 1)
    );
    let first = shop.session();
    super::checkout(&shop.t, &ann, "pro").await;
    assert_eq!(shop.stripe.object("checkout.session", &first)["status"], "expired");
    let second = shop.session();
    shop.pass(0, 23 * 3600 + 57 * 60);
    let ann = shop.t.log_in("ann@example.com").await;
    super::checkout(&shop.t, &ann, "pro").await;
    assert_ne!(shop.session(), second, "a page that is about to end is not handed out");
    // Paid meanwhile: no second one for another plan.
    shop.stripe.pay(&shop.session()).unwrap();
    ann.post(&shop.t, "/v1/subscription/checkout", super::order("plus")).await.problem(409, "conflict");
}

#[tokio::test]
async fn a_provider_that_is_down_for_a_day_costs_nobody_access() {
    let shop = Shop::open().await;
    shop.buyer("ann", "plus").await;
    shop.deliver().await;
    shop.pass(30, 60); // The renewal's notices are waiting.
    let rows = shop.rows().await;
    let logs = Logs::listen();
    shop.stripe.fail_next(10_000, 503);
    for notice in shop.stripe.notices() {
        assert_eq!(shop.post(&notice).await, 200);
    }
    for _ in 0..26 {
        shop.sync().await;
        shop.pass(0, 3600);
        shop.sync().await;
    }
    assert_eq!(shop.rows().await, rows);
    assert!(shop.notices("dead").await > 0 && shop.notices("pending").await == 0);
    assert!(!logs.lines_with("were given up for now").is_empty());
    let ann = shop.t.log_in("ann@example.com").await;
    assert_eq!(shop.standing(&ann).await.0, "active", "slack covers it");
    assert!(!shop.t.background.billing.dead().await.unwrap().is_empty());

    shop.stripe.recover();
    shop.t.background.billing.replay().await.unwrap();
    shop.sync().await;
    assert_ne!(shop.rows().await, rows);
    assert_eq!((shop.notices("dead").await, shop.notices("pending").await), (0, 0));
    assert_eq!(tells(&shop.mails("ann").await, "has been renewed"), 1);
}

#[tokio::test]
async fn what_no_notice_told_a_sweep_finds_and_twice_is_once() {
    let shop = Shop::open().await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.pass(0, 180);
    shop.sweep().await; // A checkout that has been open for some minutes.
    let ann = shop.t.log_in("ann@example.com").await;
    assert_eq!(shop.standing(&ann).await, is("active", "subscription", Some("plus")));
    shop.stripe.dispute(&shop.stripe.charge_of(&sub), "needs_response");
    shop.sweep().await; // Of that only an undelivered notice tells.
    let ann = shop.t.log_in("ann@example.com").await;
    assert_eq!(shop.standing(&ann).await, is("inactive", "on_hold", None));
    let (rows, audited) = (shop.rows().await, shop.t.audited("subscription.changed").await.len());
    shop.sweep().await;
    assert_eq!((shop.rows().await, shop.t.audited("subscription.changed").await.len()), (rows, audited));
    shop.pass(31, 0);
    shop.sweep().await;
    assert_eq!(shop.t.audited("subscription.changed").await.len(), audited + 1, "the renewal");
}

#[tokio::test]
async fn an_unknown_customer_becomes_a_users_only_if_it_says_so_and_there_is_no_other() {
    let shop = Shop::open().await;
    let (ann, bob) = (shop.person("ann").await, shop.person("bob").await);
    // Made in the provider's dashboard: two name Ann, one nobody.
    for user in [Some(&ann.id), None, Some(&ann.id)] {
        let customer = shop.stripe.add_customer(user.map(String::as_str));
        shop.stripe.add_subscription(&customer, "price_plus");
        shop.deliver().await;
    }
    assert_eq!(shop.rows().await.len(), 1);
    assert_eq!(shop.standing(&ann).await.0, "active");
    assert_eq!(shop.standing(&bob).await.0, "inactive");
    assert!(shop.notices("ignored").await > 0);
}

#[tokio::test]
async fn a_deleted_customer_has_nothing_any_more() {
    let shop = Shop::open().await;
    let (ann, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    shop.stripe.delete_customer(&shop.customer(&sub));
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("inactive", "ended", None));
    // She can buy again, as another customer.
    super::checkout(&shop.t, &ann, "pro").await;
    shop.stripe.pay(&shop.session()).unwrap();
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("active", "subscription", Some("pro")));
}

#[tokio::test]
async fn a_refusal_right_after_the_end_has_the_provider_asked_once() {
    let shop = Shop::open_with(&[("DM__CHAT__FREE_MESSAGES_PER_DAY", "0")]).await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.stripe.cancel_in_portal(&sub);
    shop.deliver().await;
    // She changed her mind in the portal, and the notice of that was lost.
    shop.stripe.change(
        &sub,
        "customer.subscription.updated",
        &json!({"cancel_at": null, "canceled_at": null}),
    );
    let ann = shop.pass_for("ann", 30).await;
    shop.stripe.take_requests();
    ann.say(&shop.t, "c", "m", "hello").await.problem(402, "subscription_required");
    ann.say(&shop.t, "c", "m", "hello").await.problem(402, "subscription_required");
    shop.sync().await;
    let asked = shop.stripe.take_requests();
    assert_eq!(asked.iter().filter(|request| request.path == "/v1/subscriptions").count(), 1);
    ann.say(&shop.t, "c", "m", "hello").await.ok();
}

#[tokio::test]
async fn the_refund_of_an_older_period_leaves_the_running_one_alone() {
    let shop = Shop::open().await;
    let (_, sub) = shop.buyer("ann", "plus").await;
    shop.deliver().await;
    let first = shop.stripe.charge_of(&sub);
    let ann = shop.pass_for("ann", 31).await;
    shop.deliver().await;
    shop.stripe.refund(&first, None);
    shop.deliver().await;
    assert_eq!(shop.standing(&ann).await, is("active", "subscription", Some("plus")));
}

#[tokio::test]
async fn the_key_of_another_account_ends_nobodys_subscription() {
    let shop = Shop::open().await;
    shop.buyer("ann", "plus").await;
    shop.deliver().await;
    let (rows, mails) = (shop.rows().await, shop.mails("ann").await.len());
    let missing = br#"{"error":{"type":"invalid_request_error","code":"resource_missing"}}"#;
    shop.stripe.fail((0..1000).map(|_| Fault::Answer(404, Vec::new(), missing.to_vec())));
    shop.pass(31, 0);
    let logs = Logs::listen();
    for notice in shop.stripe.notices() {
        assert_eq!(shop.post(&notice).await, 200);
    }
    shop.sync().await;
    assert_eq!((shop.rows().await, shop.mails("ann").await.len()), (rows, mails));
    assert!(!logs.lines_with("is this the right account?").is_empty());
    let ann = shop.t.log_in("ann@example.com").await;
    assert_eq!(shop.standing(&ann).await.0, "active");
    // Nor can she be sold another one, however long it lasts.
    let ann = shop.pass_for("ann", 10).await;
    ann.post(&shop.t, "/v1/subscription/checkout", super::order("pro"))
        .await
        .problem(409, "already_subscribed");
}

#[tokio::test]
async fn what_can_be_ended_here_is_ended_though_another_provider_cannot() {
    let shop = Shop::open_with(&[
        ("DM__BILLING__PROVIDERS__PAY__KIND", "postback"),
        ("DM__BILLING__PROVIDERS__PAY__MODE", "live"),
        ("DM__BILLING__PROVIDERS__PAY__BASE_URL", "https://pay.example.com/join"),
        ("DM__BILLING__PROVIDERS__PAY__WEBHOOK_SECRETS", postback::SECRET),
        ("DM__BILLING__PLANS__PLUS__PRICES__PAY", "9.99"),
        ("DM__BILLING__CHECKOUT", "pay"),
    ])
    .await;
    let ann = shop.person("ann").await;
    let sale = postback::Sale::of(&super::checkout(&shop.t, &ann, "plus").await, "s1");
    let customer = shop.stripe.add_customer(Some(&ann.id));
    let sub = shop.stripe.add_subscription(&customer, "price_pro");
    shop.deliver().await;
    let logs = Logs::listen();
    postback::tell(&shop.t, &sale.says("initial", "t1", shop.t.now().as_second())).await.answers("OK");
    assert_eq!(logs.lines_with("second_subscription").len(), 1, "both renew");
    let _asking = shop.asking();
    let refused = ann.post(&shop.t, "/v1/subscription/cancel", json!({})).await.problem(409, "conflict");
    assert_eq!(refused["manage_url"], "https://pay.example.com/join");
    assert_eq!(shop.stripe.object("subscription", &sub)["cancel_at_period_end"], true);
}

#[tokio::test]
async fn what_stripe_did_not_send_gets_one_answer_and_changes_nothing() {
    let shop = Shop::open().await;
    shop.buyer("ann", "plus").await;
    let (now, event) = (shop.stripe.now(), shop.stripe.events().last().unwrap().clone());
    let good = Delivery::signed(&event, SECRET, now);
    let compact = serde_json::to_vec(&event).unwrap();
    for (what, notice) in [
        ("unsigned", Delivery { signature: String::new(), ..good.clone() }),
        ("signed with another secret", Delivery::signed(&event, "whsec_another0123456789", now)),
        ("old", Delivery::signed(&event, SECRET, now - 400)),
        ("from the future", Delivery::signed(&event, SECRET, now + 400)),
        ("written anew by a proxy", Delivery { body: compact, ..good.clone() }),
        ("signed and no event", Delivery::signed(&json!({"id": "evt_x"}), SECRET, now)),
    ] {
        assert_eq!(shop.post(&notice).await, 400, "{what}");
    }
    let huge = json!({"id": "evt_huge", "object": "event", "padding": "x".repeat(300 * 1024)});
    assert_eq!(shop.post(&Delivery::signed(&huge, SECRET, now)).await, 413);
    assert_eq!((shop.rows().await, shop.notices("pending").await), (Vec::new(), 0));

    // The same hundred times at once is one, and so is the question that it leads to.
    let url = format!("{}/v1/webhooks/stripe", shop.t.base);
    let deliveries = (0..100).map(|_| shop.stripe.deliver(&shop.t.client, &url, &good));
    let answers = futures_util::future::join_all(deliveries).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(shop.notices("pending").await, 1);
    shop.stripe.take_requests();
    shop.sync().await;
    let asked = shop.stripe.take_requests();
    assert_eq!(asked.iter().filter(|request| request.path == "/v1/subscriptions").count(), 1);
    assert_eq!(shop.notices("done").await, 1);
}
