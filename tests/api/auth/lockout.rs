//! The hard stop: a hundred wrong passwords in a row, and the way back by mail.

use digitalmistress::platform::db::Error;
use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::json;

use crate::support::{
    app::{PASSWORD, TestApp},
    http::{Answer, Call},
};

digitalmistress::queries! {
    scan fn events(action: str, outcome: str) -> i64 =
        "SELECT COUNT(*) FROM audit_event WHERE action = $1 AND outcome = $2";
    scan fn have_failed(failures: i64) = "UPDATE password_failure SET failures = $1";
}

const WRONG: &str = "another long enough password";

async fn count(t: &TestApp, action: &'static str, outcome: &'static str) -> i64 {
    let found: Result<i64, Error> =
        t.db().read_slow(async move |c| events(action, outcome).one(&c).await).await;
    found.unwrap()
}

fn login(t: &TestApp, password: &str) -> Call {
    t.post("/v1/auth/login", json!({"email": "ann@example.com", "password": password}))
}

async fn fail(t: &TestApp, times: usize) {
    for _ in 0..times {
        login(t, WRONG).await.problem(401, "invalid_credentials");
    }
}

/// As [`fail`], in less time: all but the last two are written into the database.
async fn fail_often(t: &TestApp, times: i64) {
    fail(t, 1).await;
    t.db().write(async move |c| have_failed(times - 2).exec(&c).await).await.unwrap();
    fail(t, 2).await;
}

async fn mails(t: &TestApp) -> Vec<String> {
    t.background.run_due().await.unwrap();
    let all = t.mailbox.mails(Some("ann@example.com"));
    all.into_iter().filter(|mail| mail.text.contains("/unlock#token=")).map(|mail| mail.text).collect()
}

fn token(mail: &str) -> String {
    let link = mail.lines().find(|line| line.contains("#token=")).unwrap();
    let token = link.strip_prefix("http://localhost:5173/unlock#token=").unwrap();
    assert!(token.starts_with("dm_ul_"), "{link}");
    token.to_owned()
}

async fn unlock(t: &TestApp, token: &str) -> Answer {
    t.post("/v1/auth/unlock", json!({"token": token})).await
}

#[tokio::test]
async fn a_hundred_wrong_passwords_lock_and_the_mail_unlocks() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    fail_often(&t, 99).await;
    assert!(mails(&t).await.is_empty());
    login(&t, PASSWORD).await.ok();
    fail_often(&t, 99).await; // A right one begins the count anew.
    login(&t, PASSWORD).await.ok();
    fail_often(&t, 100).await;
    assert_eq!(count(&t, "account.locked", "success").await, 1);

    // The right password is answered like a wrong one; sessions go on.
    let mut right = login(&t, PASSWORD).await.problem(401, "invalid_credentials");
    let mut wrong = login(&t, WRONG).await.problem(401, "invalid_credentials");
    (right["request_id"], wrong["request_id"]) = (json!(0), json!(0));
    assert_eq!(right, wrong);
    ann.get(&t, "/v1/me").await.ok();
    t.refresh(&ann.refresh_token).await.ok();

    let sent = mails(&t).await;
    assert_eq!(sent.len(), 1, "one mail, however many tries follow");
    let token = token(&sent[0]);
    // Programs that open links do not use it up.
    assert_eq!(t.get("/v1/auth/unlock").await.code, 405);
    unlock(&t, &format!("{token}x")).await.problem(400, "invalid_code");
    unlock(&t, &token).await.status(204);
    unlock(&t, &token).await.problem(400, "invalid_code");
    login(&t, PASSWORD).await.ok();
    assert_eq!(count(&t, "account.unlocked", "success").await, 1);
    assert_eq!(count(&t, "login", "failure").await, 3 + 3 + 3 + 2);
}

#[tokio::test]
async fn another_link_is_sent_once_a_day_and_the_older_one_is_void() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    fail_often(&t, 100).await;
    let first = token(&mails(&t).await[0]);
    t.clock.advance(SignedDuration::from_hours(24) - SignedDuration::from_mins(5));
    fail(&t, 3).await;
    assert_eq!(mails(&t).await.len(), 1);
    t.clock.advance(SignedDuration::from_mins(5));
    unlock(&t, &first).await.problem(400, "invalid_code");
    fail(&t, 3).await;
    let sent = mails(&t).await;
    assert_eq!(sent.len(), 2);
    unlock(&t, &first).await.problem(400, "invalid_code");
    unlock(&t, &token(&sent[0])).await.status(204);
    login(&t, PASSWORD).await.ok();
}

/// A device that signed in before counts, too: no path has tries of its own beyond the hundred.
#[tokio::test]
async fn a_known_device_is_stopped_like_everybody() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let set = login(&t, PASSWORD).await.header("set-cookie").to_owned();
    let cookie = set.split(';').next().unwrap();
    fail_often(&t, 100).await;
    login(&t, PASSWORD).header("cookie", cookie).await.problem(401, "invalid_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_at_once_are_all_counted() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    for _ in 0..10 {
        for answer in crate::support::http::all((0..10).map(|_| login(&t, WRONG))).await {
            answer.problem(401, "invalid_credentials");
        }
    }
    login(&t, PASSWORD).await.problem(401, "invalid_credentials");
    assert_eq!(mails(&t).await.len(), 1);
    assert_eq!(count(&t, "account.locked", "success").await, 1);
}

/// As in better-auth#9096: check, then delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_uses_of_one_link_at_once_one_unlocks() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    t.connect(50).await;
    for round in 1..=4 {
        fail_often(&t, 100).await;
        let link = token(&mails(&t).await[0]);
        let answers = join_all((0..50).map(|_| unlock(&t, &link))).await;
        assert_eq!(answers.iter().filter(|answer| answer.code == 204).count(), 1);
        assert!(answers.iter().all(|answer| matches!(answer.code, 204 | 400)), "{answers:?}");
        assert_eq!(count(&t, "account.unlocked", "success").await, round);
    }
    login(&t, PASSWORD).await.ok();
}

/// Who sets a new password by mail has shown as much as the mail that unlocks asks for.
#[tokio::test]
async fn a_new_password_by_mail_unlocks() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    fail_often(&t, 100).await;
    let link = token(&mails(&t).await[0]);
    t.post("/v1/auth/password/forgot", json!({"email": "ann@example.com"})).await.status(202);
    let reset = json!({"token": t.token_for("ann@example.com", "reset").await, "password": "nine loud lanterns at dawn"});
    t.post("/v1/auth/password/reset", reset).await.status(204);
    t.log_in_with("ann@example.com", "nine loud lanterns at dawn").await.ok();
    unlock(&t, &link).await.problem(400, "invalid_code");
}

/// As in CVE-2026-9798 of Keycloak: one way to show a password ignored the lock. Here all of them count, too.
#[tokio::test]
async fn every_way_to_show_a_password_is_locked() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    fail_often(&t, 99).await;
    let again = |password: &str| {
        ann.post(&t, "/v1/auth/reauthenticate", json!({"method": "password", "password": password}))
    };
    again(WRONG).await.problem(401, "invalid_credentials");
    again(PASSWORD).await.problem(401, "invalid_credentials");
    let change = json!({"current_password": PASSWORD, "new_password": "nine loud lanterns at dawn"});
    ann.post(&t, "/v1/me/password", change).await.problem(401, "invalid_credentials");
    login(&t, PASSWORD).await.problem(401, "invalid_credentials");
    assert_eq!(mails(&t).await.len(), 1);
}

#[tokio::test]
async fn a_restart_does_not_unlock() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    fail_often(&t, 100).await;
    let sent = mails(&t).await;
    let t = t.restart().await;
    login(&t, PASSWORD).await.problem(401, "invalid_credentials");
    unlock(&t, &token(&sent[0])).await.status(204);
    login(&t, PASSWORD).await.ok();
}

#[tokio::test]
async fn what_the_throttles_refuse_is_not_written_down() {
    let t = super::throttle::limited().await;
    t.sign_up("ann@example.com").await;
    for _ in 0..30 {
        login(&t, WRONG).await;
    }
    assert_eq!(count(&t, "login", "failure").await, 5);
}

#[tokio::test]
async fn an_address_that_is_nobodys_gets_no_mail_and_is_forgotten() {
    digitalmistress::queries! {
        scan fn counted() -> i64 = "SELECT COUNT(*) FROM password_failure";
    }
    let t = TestApp::start().await;
    fail_often(&t, 101).await;
    t.background.run_due().await.unwrap();
    assert!(t.mailbox.mails(None).is_empty());
    assert_eq!(count(&t, "account.locked", "success").await, 0);
    t.clock.advance(SignedDuration::from_hours(25));
    t.background.sweep().await.unwrap();
    let left: Result<i64, Error> = t.db().read_slow(async |c| counted().one(&c).await).await;
    assert_eq!(left.unwrap(), 0);
}
