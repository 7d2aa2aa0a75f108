//! Sessions: refreshed by tokens that work once, ended by logout or time.

use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::json;

use crate::support::app::{Person, TestApp};

async fn refresh(t: &TestApp, token: &str) -> crate::support::http::Answer {
    t.post("/v1/auth/refresh", json!({"refresh_token": token})).await
}

#[tokio::test]
async fn each_refresh_token_works_once() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let next = Person::from(refresh(&t, &ann.refresh_token).await.ok());
    assert_ne!(next.refresh_token, ann.refresh_token);
    refresh(&t, &ann.refresh_token).await.problem(401, "invalid_grant");
    next.get(&t, "/v1/me").await.ok();
    ann.get(&t, "/v1/me").await.ok(); // The older access token lives out its ten minutes.
    refresh(&t, &next.refresh_token).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_refreshes_at_once_one_succeeds() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let answers = join_all((0..30).map(|_| refresh(&t, &ann.refresh_token))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.code == 200);
    assert_eq!(won.len(), 1);
    for answer in lost {
        answer.problem(401, "invalid_grant");
    }
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_or_old() {
    let t = TestApp::start().await;
    let day = SignedDuration::from_hours(24);
    let idle = t.sign_up("idle@example.com").await;
    t.clock.advance(day * 14);
    refresh(&t, &idle.refresh_token).await.problem(401, "invalid_grant");

    let mut busy = t.sign_up("busy@example.com").await;
    for _ in 0..2 {
        t.clock.advance(day * 13);
        busy = Person::from(refresh(&t, &busy.refresh_token).await.ok());
    }
    t.clock.advance(day * 3);
    let last = refresh(&t, &busy.refresh_token).await.ok();
    let end: jiff::Timestamp = last["refresh_expires_at"].as_str().unwrap().parse().unwrap();
    assert!(end.duration_since(t.now()) <= day, "the absolute end does not move");
    t.clock.advance(day);
    refresh(&t, last["refresh_token"].as_str().unwrap()).await.problem(401, "invalid_grant");
}

#[tokio::test]
async fn an_access_token_ends_with_its_time_or_its_session() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_mins(10));
    ann.get(&t, "/v1/me").await.ok(); // Within the leeway of clocks.
    t.clock.advance(SignedDuration::from_secs(30));
    ann.get(&t, "/v1/me").await.problem(401, "unauthenticated");

    let bob = t.sign_up("bob@example.com").await;
    t.post("/v1/auth/logout", json!({"refresh_token": bob.refresh_token})).await.status(204);
    bob.get(&t, "/v1/me").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn logout_takes_either_token_expired_or_not_and_never_complains() {
    let t = TestApp::start().await;
    let by_header = t.sign_up("header@example.com").await;
    t.clock.advance(SignedDuration::from_hours(1));
    let logout = t.request("POST", "/v1/auth/logout").bearer_auth(&by_header.access_token);
    assert_eq!(logout.send().await.unwrap().status(), 204);
    refresh(&t, &by_header.refresh_token).await.problem(401, "invalid_grant");

    let by_body = t.log_in("header@example.com").await;
    let other = t.log_in("header@example.com").await;
    for _ in 0..2 {
        t.post("/v1/auth/logout", json!({"refresh_token": by_body.refresh_token})).await.status(204);
    }
    by_body.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    other.get(&t, "/v1/me").await.ok(); // Another session of the same user goes on.

    assert_eq!(t.request("POST", "/v1/auth/logout").send().await.unwrap().status(), 204);
    t.post("/v1/auth/logout", json!({"refresh_token": "rubbish"})).bearer("rubbish").await.status(204);
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let t = t.restart().await;
    ann.get(&t, "/v1/me").await.ok();
    let next = Person::from(refresh(&t, &ann.refresh_token).await.ok());
    let t = t.restart().await;
    refresh(&t, &ann.refresh_token).await.problem(401, "invalid_grant");
    refresh(&t, &next.refresh_token).await.ok();
}

#[tokio::test]
async fn tokens_that_we_did_not_make_are_invalid() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let (text, last) = ann.refresh_token.split_at(ann.refresh_token.len() - 1);
    let mistyped = format!("{text}{}", if last == "0" { '1' } else { '0' });
    for token in ["", "x", "dm_rt_AAAA00000000", &mistyped, &ann.access_token, &"a".repeat(5000)] {
        refresh(&t, token).await.problem(401, "invalid_grant");
    }
}

/// A failure after the exchange would lose the only refresh token that there is.
#[tokio::test]
async fn a_refresh_that_fails_leaves_the_token_as_it_was() {
    digitalmistress::queries! {
        fn hide() = "ALTER TABLE app_user RENAME COLUMN display_name TO hidden";
        fn show() = "ALTER TABLE app_user RENAME COLUMN hidden TO display_name";
    }
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.db().write(async |c| hide().exec(&c).await).await.unwrap();
    refresh(&t, &ann.refresh_token).await.problem(500, "internal");
    t.db().write(async |c| show().exec(&c).await).await.unwrap();
    refresh(&t, &ann.refresh_token).await.ok();
}

#[tokio::test]
async fn the_oldest_of_more_than_twenty_sessions_ends() {
    let t = TestApp::start().await;
    let first = t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_secs(1));
    let second = t.log_in("ann@example.com").await;
    for _ in 0..18 {
        t.clock.advance(SignedDuration::from_secs(1));
        t.log_in("ann@example.com").await;
    }
    first.get(&t, "/v1/me").await.ok();
    t.clock.advance(SignedDuration::from_secs(1));
    let newest = t.log_in("ann@example.com").await;
    first.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    refresh(&t, &first.refresh_token).await.problem(401, "invalid_grant");
    second.get(&t, "/v1/me").await.ok();
    newest.get(&t, "/v1/me").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_at_once_leave_twenty_sessions() {
    digitalmistress::queries! {
        scan fn sessions() -> i64 = "SELECT COUNT(*) FROM session";
    }
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    for _ in 0..4 {
        join_all((0..6).map(|_| t.log_in("ann@example.com"))).await;
    }
    let left: Result<i64, digitalmistress::platform::db::Error> =
        t.db().read(async |c| sessions().one(&c).await).await;
    assert_eq!(left.unwrap(), 20);
}
