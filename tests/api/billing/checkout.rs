//! What can be bought, where a buyer may be sent, and what happens when one asks twice.

use serde_json::json;

use super::{checkout, order};
use crate::support::{
    app::TestApp,
    http::all,
    postback::{SETTINGS, Sale, tell},
    requests::PAGE,
};

#[tokio::test]
async fn a_buyer_is_sent_to_pages_of_the_frontend_only() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    for url in [
        "https://evil.example/",
        "http://localhost:3000@evil.example/",
        "http://localhost:3000.evil.example/",
        "//localhost:3000/",
        "javascript:alert(1)",
        "http://ann@localhost:3000/",
        "http://localhost:3001/",
        "",
    ] {
        let mut body = order("plus");
        body["success_url"] = json!(url);
        ann.post(&t, "/v1/subscription/checkout", body).await.invalid("/success_url", "foreign_origin");
        let portal = ann.post(&t, "/v1/subscription/portal", json!({"return_url": url})).await;
        assert!(portal.is_about("/return_url"), "{url}");
    }
    ann.post(&t, "/v1/subscription/checkout", order("gold")).await.invalid("/plan", "unknown_value");
}

#[tokio::test]
async fn where_nothing_is_sold_nothing_can_be_bought() {
    let t = TestApp::with(&[("DM__BILLING__CHECKOUT", "")]).await;
    let ann = t.sign_up("ann@example.com").await;
    assert_eq!(t.get("/v1/plans").await.ok()["data"][0]["available"], false);
    ann.post(&t, "/v1/subscription/checkout", order("plus")).await.invalid("/plan", "unknown_value");
    ann.post(&t, "/v1/subscription/portal", json!({"return_url": PAGE})).await.problem(409, "conflict");
    ann.post(&t, "/v1/subscription/cancel", json!({})).await.problem(409, "conflict");
    ann.post(&t, "/v1/subscription/sync", json!({})).await.ok();
}

#[tokio::test]
async fn many_checkouts_at_once_are_one() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let answers = all((0..10).map(|_| ann.post(&t, "/v1/subscription/checkout", order("plus")))).await;
    let first = answers[0].json()["url"].clone();
    for answer in answers {
        assert_eq!(answer.ok()["url"], first);
    }
    let pro = checkout(&t, &ann, "pro").await;
    assert_ne!(pro["url"], first, "another plan is another checkout");
}

#[tokio::test]
async fn what_a_processor_cannot_do_is_done_on_its_own_page() {
    let t = TestApp::with(SETTINGS).await;
    let ann = t.sign_up("ann@example.com").await;
    let sale = Sale::of(&checkout(&t, &ann, "plus").await, "s1");
    tell(&t, &sale.says("initial", "t1", t.now().as_second())).await.answers("OK");
    for (path, body, code) in [
        ("/v1/subscription/cancel", json!({}), "conflict"),
        ("/v1/subscription/portal", json!({"return_url": PAGE}), "conflict"),
        ("/v1/subscription/checkout", order("pro"), "already_subscribed"),
    ] {
        let problem = ann.post(&t, path, body).await.problem(409, code);
        assert_eq!(problem["manage_url"], "https://pay.example.com/my", "{path}");
    }
    let synced = ann.post(&t, "/v1/subscription/sync", json!({})).await.ok();
    assert_eq!(synced["state"], "active", "what is stored");
}
