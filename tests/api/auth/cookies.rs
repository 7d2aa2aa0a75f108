//! The refresh token in a cookie, and pages that must not use it.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, Person, TestApp},
    http::{Answer, Call},
};

const PAGE: &str = "http://localhost:5173";

/// As a browser sends it from a page of ours.
fn from_page(call: Call) -> Call {
    call.header("origin", PAGE).header("sec-fetch-site", "same-site")
}

fn post(t: &TestApp, path: &str, body: Value, cookie: &str) -> Call {
    let call = from_page(t.post(path, body));
    if cookie.is_empty() { call } else { call.header("cookie", cookie) }
}

/// What an answer sets: the cookie as it is sent back, and its attributes.
fn cookie(answer: &Answer) -> (String, Vec<String>) {
    let mut parts = answer.header("set-cookie").split("; ").map(str::to_owned);
    (parts.next().unwrap_or_default(), parts.collect())
}

async fn log_in(t: &TestApp) -> Answer {
    let body = json!({"email": "ann@example.com", "password": PASSWORD, "token_delivery": "cookie"});
    let answer = post(t, "/v1/auth/login", body, "").await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    answer
}

#[tokio::test]
async fn a_session_can_live_in_a_cookie_that_no_script_reads() {
    let t = TestApp::start().await;
    t.clock.stop();
    t.sign_up("ann@example.com").await;
    let answer = log_in(&t).await;
    let (first, attributes) = cookie(&answer);
    assert!(first.starts_with("__Host-dm_refresh=dm_rt_"), "{first}");
    assert_eq!(attributes, ["HttpOnly", "Secure", "SameSite=Strict", "Path=/", "Max-Age=1209600"]);
    let tokens = answer.json();
    assert_eq!(tokens.get("refresh_token"), None);
    assert!(tokens["refresh_expires_at"].is_string());

    t.clock.advance(SignedDuration::from_hours(17 * 24 - 4 * 24));
    let answer = post(&t, "/v1/auth/refresh", json!({}), &format!("theme=dark; {first}")).await;
    let (second, _) = cookie(&answer);
    assert_ne!(second, first);
    let tokens = answer.ok();
    assert_eq!(tokens.get("refresh_token"), None, "what came in a cookie stays in one");
    t.get("/v1/me").bearer(tokens["access_token"].as_str().unwrap()).await.ok();

    // Without any body, too. The cookie ends with the session.
    t.clock.advance(SignedDuration::from_hours(13 * 24));
    let bare = t.request("POST", "/v1/auth/refresh").header("content-type", "application/json");
    let answer = from_page(Call::new(bare)).header("cookie", &second).await;
    let (third, attributes) = cookie(&answer);
    assert_eq!(attributes.last().unwrap(), &format!("Max-Age={}", 4 * 86_400));

    let answer = post(&t, "/v1/auth/logout", json!({}), &third).await;
    assert_eq!(answer.header("clear-site-data"), r#""cache", "storage""#);
    let (none, attributes) = cookie(&answer);
    assert_eq!((none.as_str(), attributes.last().unwrap().as_str()), ("__Host-dm_refresh=", "Max-Age=0"));
    answer.status(204);
    post(&t, "/v1/auth/refresh", json!({}), &third).await.problem(401, "invalid_grant");
}

#[tokio::test]
async fn every_way_to_sign_in_can_set_the_cookie() {
    let t = TestApp::start().await;
    let started = t.post("/v1/auth/signup", t.signup_body("ann@example.com").await).await.status(202);
    let code = t.code_for("ann@example.com").await;
    let body = json!({"signup_token": started["signup_token"], "code": code, "token_delivery": "cookie"});
    t.post("/v1/auth/signup/verify", body.clone()).await.problem(403, "csrf_rejected");
    let answer = post(&t, "/v1/auth/signup/verify", body, "").await;
    assert!(cookie(&answer).0.starts_with("__Host-dm_refresh=dm_rt_"));
    assert_eq!(answer.status(201).get("refresh_token"), None);

    // A token that came in a body moves into the cookie, never back.
    let ann = t.log_in("ann@example.com").await;
    let body = json!({"refresh_token": ann.refresh_token, "token_delivery": "cookie"});
    t.post("/v1/auth/refresh", body.clone()).await.problem(403, "csrf_rejected");
    let answer = post(&t, "/v1/auth/refresh", body, "").await;
    let (moved, _) = cookie(&answer);
    assert_eq!(answer.ok().get("refresh_token"), None);
    let back = json!({"token_delivery": "body"});
    post(&t, "/v1/auth/refresh", back, &moved).await.problem(400, "bad_request");
    post(&t, "/v1/auth/refresh", json!({}), &moved).await.ok();
    t.post("/v1/auth/login", json!({"email": "a@b.c", "password": PASSWORD, "token_delivery": "header"}))
        .await
        .invalid("/token_delivery", "unknown_value");
}

#[tokio::test]
async fn one_call_has_one_refresh_token() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let (cookie, _) = cookie(&log_in(&t).await);
    for path in ["/v1/auth/refresh", "/v1/auth/logout", "/v1/auth/logout-all"] {
        let both = json!({"refresh_token": ann.refresh_token});
        post(&t, path, both, &cookie).await.problem(400, "bad_request");
        post(&t, path, json!({}), &format!("{cookie}; {cookie}")).await.problem(400, "bad_request");
    }
    t.post("/v1/auth/refresh", json!({})).await.problem(401, "invalid_grant");
    ann.get(&t, "/v1/me").await.ok();
    post(&t, "/v1/auth/refresh", json!({}), &cookie).await.ok();
}

/// A browser sends the cookie along whoever asks it to.
#[tokio::test]
async fn another_page_cannot_use_the_cookie() {
    let t = TestApp::start().await;
    t.clock.stop();
    t.sign_up("ann@example.com").await;
    let answer = log_in(&t).await;
    let (cookie, _) = cookie(&answer);
    let access = answer.json()["access_token"].as_str().unwrap().to_owned();
    for (origin, site, content_type) in [
        (None, Some("same-site"), "application/json"),
        (Some("https://evil.example"), Some("cross-site"), "application/json"),
        (Some("https://evil.example"), Some("same-site"), "application/json"),
        (Some("http://localhost:5174"), Some("same-site"), "application/json"),
        (Some("http://localhost:5173.evil.example"), Some("same-site"), "application/json"),
        (Some("null"), Some("same-origin"), "application/json"),
        (Some(PAGE), None, "application/json"),
        (Some(PAGE), Some("cross-site"), "application/json"),
        (Some(PAGE), Some("none"), "application/json"),
        (Some(PAGE), Some("same-site"), "text/plain"),
        (Some(PAGE), Some("same-site"), "application/x-www-form-urlencoded"),
        (Some(PAGE), Some("same-site"), ""),
    ] {
        for path in ["/v1/auth/refresh", "/v1/auth/logout", "/v1/auth/logout-all"] {
            let mut call = t.request("POST", path).header("cookie", &cookie).body("{}");
            for (name, value) in
                [("origin", origin), ("sec-fetch-site", site), ("content-type", Some(content_type))]
            {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    call = call.header(name, value);
                }
            }
            let answer = Call::new(call).await;
            assert_eq!(answer.header("set-cookie"), "");
            answer.problem(403, "csrf_rejected");
        }
    }
    let twice = from_page(post(&t, "/v1/auth/refresh", json!({}), &cookie)).await;
    twice.problem(403, "csrf_rejected");
    t.get("/v1/me").bearer(&access).await.ok();
    let login = json!({"email": "ann@example.com", "password": PASSWORD, "token_delivery": "cookie"});
    t.post("/v1/auth/login", login).await.problem(403, "csrf_rejected");
    post(&t, "/v1/auth/refresh", json!({}), &cookie).await.ok();
}

/// What does not use the cookie does not mind one that lies about.
#[tokio::test]
async fn a_cookie_in_passing_changes_nothing() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let (cookie, _) = cookie(&log_in(&t).await);
    t.get("/v1/me").header("cookie", &cookie).await.problem(401, "unauthenticated");
    let body = json!({"email": "ann@example.com", "password": PASSWORD});
    let answer = t.post("/v1/auth/login", body).header("cookie", &cookie).await;
    let mut set = answer.headers.get_all("set-cookie").iter();
    assert!(set.all(|cookie| !cookie.to_str().unwrap().starts_with("__Host-dm_refresh")));
    let ann = Person::from(answer.ok());
    for other in ["__Host-dm_refresh", "__Host-dm_refresh=", "dm_refresh=x; __host-dm_refresh=x", "\u{e9}"] {
        let body = json!({"refresh_token": ann.refresh_token});
        t.post("/v1/auth/refresh", body).header("cookie", other).await.ok();
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_send_and_get_cookies() {
    let t = TestApp::start().await;
    let preflight = |origin: &str| {
        Call::new(
            t.request("OPTIONS", "/v1/auth/refresh")
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "content-type"),
        )
    };
    let allowed = preflight(PAGE).await;
    assert_eq!(allowed.header("access-control-allow-origin"), PAGE);
    assert_eq!(allowed.header("access-control-allow-credentials"), "true");
    let refused = preflight("https://evil.example").await;
    assert_eq!(refused.header("access-control-allow-origin"), "");
}
