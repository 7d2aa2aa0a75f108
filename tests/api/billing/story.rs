//! The way of a new subscriber, from the paywall over the development checkout to chatting, and out again.

use jiff::SignedDuration;
use serde_json::json;

use super::{checkout, is, standing, subscription};
use crate::support::{
    app::TestApp,
    pages::{here, press, submit},
    requests::PAGE,
};

#[tokio::test]
async fn a_new_subscriber_meets_the_paywall_pays_talks_cancels_and_leaves() {
    let t = TestApp::with(&[("DM__CHAT__FREE_MESSAGES_PER_DAY", "1")]).await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "Good evening!").await.ok();
    let wall = ann.say(&t, "c", "m2", "And another thing").await.problem(402, "quota_exhausted");
    assert_eq!((&wall["plan"], &wall["used"], &wall["limit"]), (&json!(null), &json!(1), &json!(1)));
    assert_eq!(wall["upgrade_url"], "http://localhost:5173/subscribe");

    let plans = t.get("/v1/plans").await.ok();
    assert_eq!(plans["data"][0]["id"], "plus");
    assert_eq!(plans["data"][0]["available"], true);
    let opened = checkout(&t, &ann, "plus").await;
    let page = opened["url"].as_str().unwrap();
    assert_eq!(checkout(&t, &ann, "plus").await["url"], opened["url"], "asked twice, it is the same page");
    assert_eq!(press(&t, page, "decline").await, "http://localhost:3000/plans");
    assert_eq!(standing(&t, &ann).await, is("inactive", "free", None));
    assert_eq!(press(&t, page, "pay").await, PAGE);

    let back = ann.post(&t, "/v1/subscription/sync", json!({})).await.ok();
    assert_eq!(
        (&back["state"], &back["plan"], &back["will_renew"]),
        (&json!("active"), &json!("plus"), &json!(true))
    );
    assert_eq!((&back["source"], &back["provider"]), (&json!("provider"), &json!("dev")));
    ann.say(&t, "c", "m2", "And another thing").await.ok();
    let quota = &ann.get(&t, "/v1/session").await.ok()["quota"];
    assert_eq!((&quota["plan"], &quota["used"], &quota["limit"]), (&json!("plus"), &json!(2), &json!(200)));
    assert!(t.mail_to("ann@example.com").await.unwrap().text.contains("Your subscription has started."));
    let twice = ann.post(&t, "/v1/subscription/checkout", super::order("plus")).await;
    twice.problem(409, "already_subscribed");

    let cancelled = ann.post(&t, "/v1/subscription/cancel", json!({})).await.ok();
    assert_eq!((&cancelled["state"], &cancelled["will_renew"]), (&json!("active"), &json!(false)));
    let mail = t.mail_to("ann@example.com").await.unwrap();
    assert!(mail.text.contains("will not renew. You have it until "), "{}", mail.text);
    assert_eq!(mail.subject, "Your account");
    let again = ann.post(&t, "/v1/subscription/cancel", json!({})).await.ok();
    assert_eq!(again["access_until"], cancelled["access_until"], "cancelled twice is cancelled once");

    t.clock.advance(SignedDuration::from_hours(30 * 24 + 1));
    let ann = t.log_in("ann@example.com").await;
    assert_eq!(standing(&t, &ann).await, is("inactive", "ended", None));
    ann.say(&t, "c", "m3", "Still there?").await.ok();
    ann.say(&t, "c", "m4", "And now?").await.problem(402, "quota_exhausted");
}

#[tokio::test]
async fn every_state_can_be_made_by_hand() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    press(&t, checkout(&t, &ann, "plus").await["url"].as_str().unwrap(), "pay").await;
    let portal = ann.post(&t, "/v1/subscription/portal", json!({"return_url": PAGE})).await.ok();
    let page = portal["url"].as_str().unwrap();
    let until = subscription(&t, &ann).await["access_until"].clone();

    press(&t, page, "cancel").await;
    assert_eq!(subscription(&t, &ann).await["will_renew"], false);
    press(&t, page, "uncancel").await;
    assert_eq!(subscription(&t, &ann).await["will_renew"], true);
    press(&t, page, "renew").await;
    assert_ne!(subscription(&t, &ann).await["access_until"], until);
    press(&t, page, "expire").await;
    assert_eq!(standing(&t, &ann).await, is("inactive", "ended", None));
    press(&t, page, "renew").await;
    assert_eq!(standing(&t, &ann).await, is("active", "subscription", Some("plus")));
    press(&t, page, "refund").await;
    assert_eq!(standing(&t, &ann).await, is("inactive", "ended", None));
    press(&t, page, "renew").await;
    assert_eq!(standing(&t, &ann).await, is("active", "subscription", Some("plus")), "paid again");
    press(&t, page, "charge_back").await;
    assert_eq!(standing(&t, &ann).await, is("inactive", "on_hold", None));
    ann.say(&t, "c", "m", "hello").await.problem(402, "payment_on_hold");
    ann.post(&t, "/v1/subscription/checkout", super::order("plus")).await.problem(402, "payment_on_hold");
}

#[tokio::test]
async fn a_page_that_was_altered_or_belongs_to_somebody_else_does_nothing() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let page = here(&t, checkout(&t, &ann, "plus").await["url"].as_str().unwrap());
    for (what, by) in [("dev_plus", "dev_pro"), ("localhost%3A3000", "evil.example"), ("seal=", "seal=0")] {
        assert!(page.contains(what), "{what} in {page}");
        let altered = page.replacen(what, by, 1);
        let answer = submit(&altered, "pay").await;
        assert!(answer.status().is_client_error(), "{altered}");
    }
    assert_eq!(standing(&t, &ann).await, is("inactive", "free", None));
}
