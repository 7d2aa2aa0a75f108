//! Login: one answer for everybody who may not come in.

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::json;

use crate::support::app::{PASSWORD, TestApp};

#[tokio::test]
async fn the_right_password_opens_a_session() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let body = json!({"email": " ANN@example.com ", "password": PASSWORD, "device_name": " Ann's phone "});
    let tokens = t.post("/v1/auth/login", body).await.ok();
    assert_eq!(tokens["user"]["id"], ann.id);
    assert_eq!(tokens["session"]["device_name"], "Ann's phone");

    let session = t.get("/v1/session").bearer(tokens["access_token"].as_str().unwrap()).await.ok();
    assert_eq!(session["session"], tokens["session"]);
    assert_eq!(session["user"], tokens["user"]);
    assert_eq!(session["subscription"]["state"], "inactive");
    assert_eq!(session["subscription"]["reason"], "free");
    assert_eq!(session["quota"]["limit"], 20);
    assert_eq!(session["quota"], session["subscription"]["quota"]);
}

#[tokio::test]
async fn unknown_and_wrong_look_the_same() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let try_with = async |email: &str, password: &str| {
        let mut body = t
            .post("/v1/auth/login", json!({"email": email, "password": password}))
            .await
            .problem(401, "invalid_credentials");
        body["request_id"].take();
        body
    };
    let wrong = try_with("ann@example.com", "another long enough password").await;
    assert_eq!(try_with("nobody@example.com", PASSWORD).await, wrong);
    assert_eq!(try_with("ann@example.com", "").await, wrong);
    assert_eq!(try_with("nobody@example.com", "").await, wrong);
    assert_eq!(try_with("ann@example.com", "x").await, wrong);
}

#[tokio::test]
async fn a_pending_signup_cannot_log_in() {
    let t = TestApp::start().await;
    t.post("/v1/auth/signup", t.signup_body("ann@example.com").await).await.status(202);
    t.post("/v1/auth/login", json!({"email": "ann@example.com", "password": PASSWORD}))
        .await
        .problem(401, "invalid_credentials");
}

#[tokio::test]
async fn a_password_is_the_same_from_every_keyboard() {
    let t = TestApp::start().await;
    let mut body = t.signup_body("ann@example.com").await;
    body["password"] = json!("cafe\u{301} au lait, s'il vous plaît");
    let started = t.post("/v1/auth/signup", body).await.status(202);
    let code = t.code_for("ann@example.com").await;
    t.post("/v1/auth/signup/verify", json!({"signup_token": started["signup_token"], "code": code}))
        .await
        .status(201);
    let composed = json!({"email": "ann@example.com", "password": "café au lait, s'il vous plaît"});
    t.post("/v1/auth/login", composed).await.ok();
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_any_hash() {
    let t = TestApp::start().await;
    let login = |email: &str, password: &str, device: &str| {
        t.post("/v1/auth/login", json!({"email": email, "password": password, "device_name": device}))
    };
    login("ann@example.com", &"a".repeat(129), "d").await.invalid("/password", "too_long");
    login("ann@example.com", &"é".repeat(600), "d").await.invalid("/password", "too_long");
    login(&format!("{}@example.com", "a".repeat(300)), "p", "d").await.invalid("/email", "too_long");
    login("ann@example.com", "p", &"d".repeat(65)).await.invalid("/device_name", "too_long");
    login("ann@example.com", "p", "").await.invalid("/device_name", "too_short");
    login("ann@example.com", "p", " \t ").await.invalid("/device_name", "too_short");
    login("ann@example.com", "p", "line\nbreak").await.invalid("/device_name", "invalid_format");
}

/// As in keycloak#28477 and authelia#1044: a crowd that signed in took all the memory, and the program with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_signs_in_is_turned_away_and_everybody_else_is_served() {
    let t = TestApp::with(&[("DM__AUTH__THROTTLE__LOGIN_ADDRESS__BURST", "10000")]).await;
    let ann = t.sign_up("ann@example.com").await;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sign_in = |n| t.log_in_with(&format!("person{n}@example.com"), PASSWORD).into_future();
    let mut crowd: FuturesUnordered<_> = (0..cores * 32 + 60).map(sign_in).collect();
    let mut answers = Vec::new();
    while let Some(answer) = crowd.next().await {
        let full = answer.code == 503;
        answers.push(answer);
        if full {
            break;
        }
    }
    // Now nobody else can sign in; whoever is in notices nothing.
    t.get("/v1/policies").await.ok();
    ann.get(&t, "/v1/me").await.ok();
    ann.say(&t, "c", "m", "hello").await.ok();
    answers.extend(crowd.collect::<Vec<_>>().await);

    let (refused, tried): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.code == 503);
    assert!(!refused.is_empty(), "nobody was turned away");
    for answer in refused {
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
        answer.problem(503, "overloaded");
    }
    // Only a password that was looked at is a try.
    let failures = t.audited("login").await.into_iter().filter(|entry| entry.0 == "failure").count();
    assert_eq!(failures, tried.len());
    for answer in tried {
        answer.problem(401, "invalid_credentials");
    }
    t.log_in("ann@example.com").await;
}
