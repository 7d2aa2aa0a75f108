//! Who may administer, and what no administrator can read.

use digitalmistress::{auth::Administrator, billing::GrantForm};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{
    app::{Person, TestApp},
    http::{Answer, Call},
};

/// Every route, with a body that is in order.
async fn routes(t: &TestApp, user: &str) -> Vec<(String, String, Value)> {
    let document = t.get("/openapi.json").await.ok();
    let form =
        GrantForm { plan: "plus".into(), ends_at: "2100-01-01T00:00:00Z".into(), reason: "a reason".into() };
    let given =
        t.background.billing.grant(Administrator::Command, user.parse().unwrap(), &form).await.unwrap();
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().filter(|_| path.starts_with("/v1/admin")) {
            let body = match path.rsplit('/').next().unwrap() {
                "suspend" => json!({"reason": "a reason"}),
                "role" => json!({"role": "user"}),
                "grants" => json!({"plan": "plus", "ends_at": form.ends_at, "reason": "a reason"}),
                _ => json!({}),
            };
            let query = if path.ends_with("/users") { "?query=ann@example.com" } else { "" };
            let path =
                format!("{}{query}", path.replace("{id}", user).replace("{grant_id}", &given.id.to_string()));
            routes.push((method.to_uppercase(), path, body));
        }
    }
    assert_eq!(routes.len(), 9, "{routes:?}");
    routes
}

async fn call(t: &TestApp, by: Option<&Person>, method: &str, path: &str, body: &Value) -> Answer {
    let request = t.request(method, path);
    let request = if method == "GET" { request } else { request.json(body) };
    let call = Call::new(request);
    match by {
        Some(person) => call.bearer(&person.access_token).await,
        None => call.await,
    }
}

#[tokio::test]
async fn every_route_is_for_administrators_who_have_just_signed_in() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let routes = routes(&t, &ann.id).await;
    for (method, path, body) in &routes {
        call(&t, None, method, path, body).await.problem(401, "unauthenticated");
        call(&t, Some(&ann), method, path, body).await.problem(403, "forbidden");
        // Whatever else is wrong, nobody else learns more than that.
        call(&t, Some(&ann), method, path, &json!([7])).await.problem(403, "forbidden");
    }
    t.clock.advance(SignedDuration::from_mins(15));
    let stale = boss.refreshed(&t).await;
    stale.get(&t, "/v1/me").await.ok();
    for (method, path, body) in &routes {
        call(&t, Some(&stale), method, path, body).await.problem(403, "reauthentication_required");
    }
    let fresh = t.log_in("boss@example.com").await;
    for (method, path, body) in &routes {
        let answer = call(&t, Some(&fresh), method, path, body).await;
        assert!(answer.code < 300, "{method} {path}: {}", answer.text);
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn how_long_a_sign_in_is_fresh_is_a_setting() {
    let t = TestApp::with(&[("DM__AUTH__STEP_UP_TTL", "1m")]).await;
    let boss = t.administrator("boss@example.com").await;
    boss.get(&t, "/v1/admin/audit").await.ok();
    t.clock.advance(SignedDuration::from_mins(1));
    boss.get(&t, "/v1/admin/audit").await.problem(403, "reauthentication_required");
}

#[tokio::test]
async fn who_loses_the_role_loses_it_at_once() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let second = t.administrator("second@example.com").await;
    second.get(&t, "/v1/admin/audit").await.ok();
    boss.put(&t, &format!("/v1/admin/users/{}/role", second.id), json!({"role": "user"})).await.ok();
    second.get(&t, "/v1/admin/audit").await.problem(403, "forbidden");
    second.get(&t, "/v1/me").await.ok();
    assert_eq!(second.get(&t, "/v1/me").await.ok()["role"], "user");
}

#[tokio::test]
async fn the_role_is_nobodys_to_take() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ann.put(&t, &format!("/v1/admin/users/{}/role", ann.id), json!({"role": "admin"}))
        .await
        .problem(403, "forbidden");
    ann.patch(&t, "/v1/me", json!({"role": "admin"})).await.invalid("/role", "unknown_field");
    assert_eq!(ann.get(&t, "/v1/me").await.ok()["role"], "user");
}

/// Nobody's words are within an administrator's reach, by any route and any of the ids that there are.
#[tokio::test]
async fn no_message_title_or_birth_date_can_be_read() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let body = json!({"id": "canary-conversation", "title": "canary-title"});
    ann.post(&t, "/v1/conversations", body).await.status(201);
    let reply = ann.say(&t, "canary-conversation", "canary-message-id", "canary-text").await.ok();
    let words = reply["message"]["parts"][0]["text"].as_str().unwrap().to_owned();

    let mut seen = String::new();
    for (method, path, body) in routes(&t, &ann.id).await {
        seen.push_str(&call(&t, Some(&boss), &method, &path, &body).await.text);
    }
    for query in ["limit=100", "action=signup", "action=login"] {
        seen.push_str(&boss.get(&t, &format!("/v1/admin/audit?{query}")).await.text);
    }
    assert!(seen.contains("ann@example.com"), "the walk has seen Ann");
    for private in ["canary", words.as_str(), "1990-12-31", "birth", "octavia", "conversation"] {
        assert!(!seen.contains(private), "{private} can be read");
    }
    // The role opens nothing of the customers' own routes.
    boss.get(&t, "/v1/conversations/canary-conversation").await.problem(404, "not_found");
    boss.get(&t, "/v1/conversations/canary-conversation/messages").await.problem(404, "not_found");
    assert_eq!(boss.get(&t, "/v1/chat/canary-conversation/stream").await.code, 204);
}
