//! Suspension: the sessions end, and only who knows the password hears why.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, Person, TestApp},
    http::Answer,
};

async fn suspend(t: &TestApp, by: &Person, who: &Person, until: Value) -> Value {
    let body = json!({"reason": "a chargeback", "until": until});
    by.post(t, &format!("/v1/admin/users/{}/suspend", who.id), body).await.ok()
}

async fn log_in(t: &TestApp, password: &str) -> Answer {
    t.post("/v1/auth/login", json!({"email": "ann@example.com", "password": password})).await
}

/// As in CVE-2023-32682 of Synapse: who had been locked out could sign in again.
#[tokio::test]
async fn a_suspended_user_is_signed_out_everywhere_and_cannot_come_back() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let other = t.log_in("ann@example.com").await;
    let user = suspend(&t, &boss, &ann, Value::Null).await;
    assert_eq!((&user["id"], &user["suspension_reason"]), (&json!(ann.id), &json!("a chargeback")));
    assert_eq!(user["suspended_until"], Value::Null);
    assert!(user["suspended_at"].is_string());

    for person in [&ann, &other] {
        person.get(&t, "/v1/me").await.problem(401, "unauthenticated");
        t.refresh(&person.refresh_token).await.problem(401, "invalid_grant");
    }
    log_in(&t, PASSWORD).await.problem(403, "account_suspended");
    log_in(&t, "another long enough password").await.problem(401, "invalid_credentials");
    log_in(&t, "").await.problem(401, "invalid_credentials");
    let t = t.restart().await;
    log_in(&t, PASSWORD).await.problem(403, "account_suspended");
    // An operator sees that somebody knows the password.
    let id = ann.id.parse().ok();
    let refused = t.audited("login").await.into_iter().filter(|entry| entry.0 == "failure" && entry.1 == id);
    assert_eq!(refused.count(), 4);
    boss.get(&t, "/v1/me").await.ok();

    let user = boss.post(&t, &format!("/v1/admin/users/{}/unsuspend", ann.id), json!({})).await.ok();
    assert_eq!((&user["suspended_at"], &user["suspension_reason"]), (&Value::Null, &Value::Null));
    log_in(&t, PASSWORD).await.ok();
    ann.get(&t, "/v1/me").await.problem(401, "unauthenticated"); // What was ended stays so.
}

#[tokio::test]
async fn a_suspension_with_an_end_ends_by_itself() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let until = t.now() + SignedDuration::from_mins(10);
    let user = suspend(&t, &boss, &ann, json!(until.to_string())).await;
    assert!(user["suspended_until"].is_string());
    t.clock.advance(SignedDuration::from_mins(9));
    log_in(&t, PASSWORD).await.problem(403, "account_suspended");
    t.clock.advance(SignedDuration::from_mins(1));
    let ann = Person::from(log_in(&t, PASSWORD).await.ok());
    ann.get(&t, "/v1/me").await.ok();
    let boss = t.log_in("boss@example.com").await;
    let user = boss.get(&t, &format!("/v1/admin/users/{}", ann.id)).await.ok();
    assert_eq!((&user["suspended_at"], &user["suspended_until"]), (&Value::Null, &Value::Null));
    assert_eq!(user["suspension_reason"], Value::Null);
}

/// The row of the user decides, and not only that the sessions are gone.
#[tokio::test]
async fn a_session_that_is_left_is_no_way_around() {
    digitalmistress::queries! {
        fn suspend_only(id: uuid::Uuid) = "UPDATE app_user SET suspended_at = 1 WHERE id = $1";
    }
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let id = ann.id.parse().unwrap();
    t.db().write(async move |c| suspend_only(id).exec(&c).await).await.unwrap();
    ann.get(&t, "/v1/me").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn an_open_stream_gives_no_way_in() {
    let t = TestApp::with(&[("DM__CHAT__PROVIDERS__DEMO__PACE", "20ms")]).await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let stream = ann.stream(&t, "c", "m1", "Good evening!").await;
    suspend(&t, &boss, &ann, Value::Null).await;
    ann.get(&t, "/v1/conversations").await.problem(401, "unauthenticated");
    ann.get(&t, "/v1/chat/c/stream").await.problem(401, "unauthenticated");
    ann.say(&t, "c", "m2", "and more").await.problem(401, "unauthenticated");
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_at_the_moment_of_a_suspension_leave_no_session() {
    let t = TestApp::with(&[("DM__AUTH__THROTTLE__LOGIN_ACCOUNT__BURST", "100")]).await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    for _ in 0..3 {
        let logins = futures_util::future::join_all((0..4).map(|_| log_in(&t, PASSWORD)));
        let (answers, _) = tokio::join!(logins, suspend(&t, &boss, &ann, Value::Null));
        for answer in answers {
            if answer.code == 200 {
                let token = answer.json()["access_token"].as_str().unwrap().to_owned();
                t.get("/v1/me").bearer(&token).await.problem(401, "unauthenticated");
            } else {
                answer.problem(403, "account_suspended");
            }
        }
        assert_eq!(sessions(&t, &ann).await, 0);
        boss.post(&t, &format!("/v1/admin/users/{}/unsuspend", ann.id), json!({})).await.ok();
    }
}

async fn sessions(t: &TestApp, person: &Person) -> i64 {
    digitalmistress::queries! {
        fn sessions_of(user: uuid::Uuid) -> i64 = "SELECT COUNT(*) FROM session WHERE user_id = $1";
    }
    let id = person.id.parse().unwrap();
    let count: Result<i64, digitalmistress::platform::db::Error> =
        t.db().read(async |c| sessions_of(id).one(&c).await).await;
    count.unwrap()
}

#[tokio::test]
async fn what_a_suspension_needs_is_checked() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let path = format!("/v1/admin/users/{}/suspend", ann.id);
    for (body, pointer, code) in [
        (json!({}), "/reason", "missing"),
        (json!({"reason": " "}), "/reason", "too_short"),
        (json!({"reason": "x".repeat(501)}), "/reason", "too_long"),
        (json!({"reason": "r", "until": "tomorrow"}), "/until", "invalid_format"),
        (json!({"reason": "r", "until": "2020-01-01T00:00:00Z"}), "/until", "in_past"),
        (json!({"reason": "r", "role": "user"}), "/role", "unknown_field"),
    ] {
        boss.post(&t, &path, body).await.invalid(pointer, code);
    }
    ann.get(&t, "/v1/me").await.ok();
}

#[tokio::test]
async fn the_reason_is_sealed_and_the_user_never_sees_it() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    suspend(&t, &boss, &ann, Value::Null).await;
    digitalmistress::queries! {
        fn reason_of(id: uuid::Uuid) -> Vec<u8> = "SELECT suspension_reason FROM app_user WHERE id = $1";
    }
    let id = ann.id.parse().unwrap();
    let stored: Result<Vec<u8>, digitalmistress::platform::db::Error> =
        t.db().read(async |c| reason_of(id).one(&c).await).await;
    assert!(!String::from_utf8_lossy(&stored.unwrap()).contains("chargeback"));
    assert!(!log_in(&t, PASSWORD).await.text.contains("chargeback"));
}
