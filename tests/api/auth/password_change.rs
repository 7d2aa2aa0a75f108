//! A new password in place of a known one.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, Person, TestApp},
    http::Call,
};

const NEW: &str = "nine loud lanterns at dawn";

fn change(t: &TestApp, person: &Person, current: &str, new: &str) -> Call {
    person.post(t, "/v1/me/password", json!({"current_password": current, "new_password": new}))
}

/// As in CVE-2025-62174 of Mastodon: a change that left sessions alive.
#[tokio::test]
async fn a_change_keeps_this_session_ends_the_others_and_tells_the_owner() {
    let t = TestApp::start().await;
    let there = t.sign_up("ann@example.com").await;
    let here = t.log_in("ann@example.com").await;
    assert_eq!(change(&t, &here, PASSWORD, NEW).await.status(204), Value::Null);
    here.get(&t, "/v1/me").await.ok();
    there.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    for (session, code) in [(&here, 200), (&there, 401)] {
        let answer = t.refresh(&session.refresh_token).await;
        assert_eq!(answer.code, code);
    }
    t.log_in_with("ann@example.com", PASSWORD).await.problem(401, "invalid_credentials");
    t.log_in_with("ann@example.com", NEW).await.ok();
    let notice = t.mail_to("ann@example.com").await.unwrap();
    assert!(notice.text.contains("password was changed"), "{}", notice.text);
}

#[tokio::test]
async fn a_change_closes_ways_to_another_password() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.post("/v1/auth/password/forgot", json!({"email": "ann@example.com"})).await.status(202);
    let token = t.token_for("ann@example.com", "reset").await;
    change(&t, &ann, PASSWORD, NEW).await.status(204);
    let body = json!({"token": token, "password": "another long enough password"});
    t.post("/v1/auth/password/reset", body).await.problem(400, "invalid_code");
    t.log_in_with("ann@example.com", NEW).await.ok();
}

/// As in keycloak#48888: empty, one-character and longest passwords take the same path as any other.
#[tokio::test]
async fn the_current_password_has_to_be_right() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    for wrong in ["", "x", "another long enough password", &"a".repeat(128)] {
        change(&t, &ann, wrong, NEW).await.problem(401, "invalid_credentials");
        t.log_in_with("ann@example.com", wrong).await.problem(401, "invalid_credentials");
        t.log_in_with("nobody@example.com", wrong).await.problem(401, "invalid_credentials");
    }
    change(&t, &ann, &"a".repeat(129), NEW).await.invalid("/current_password", "too_long");
    for missing in [json!({"new_password": NEW}), json!({"current_password": null, "new_password": NEW})] {
        ann.post(&t, "/v1/me/password", missing).await.invalid("/current_password", "missing");
    }
    for (new, code) in [
        ("", "too_short"),
        ("x", "too_short"),
        ("passwordpassword", "too_common"),
        ("ann@example.com", "too_guessable"),
        (&*"a".repeat(129), "too_long"),
    ] {
        change(&t, &ann, PASSWORD, new).await.invalid("/new_password", code);
    }
    t.log_in("ann@example.com").await;
    change(&t, &ann, PASSWORD, &"lantern ".repeat(16)).await.status(204);
    t.log_in_with("ann@example.com", &"lantern ".repeat(16)).await.ok();
}

#[tokio::test]
async fn who_has_no_password_sets_a_first_one_after_a_fresh_sign_in() {
    digitalmistress::queries! {
        fn forget_password(email_key: str) = "UPDATE app_user SET password_hash = NULL WHERE email_key = $1";
    }
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.db().write(async |c| forget_password("ann@example.com").exec(&c).await).await.unwrap();
    change(&t, &ann, PASSWORD, NEW).await.problem(401, "invalid_credentials");
    ann.post(&t, "/v1/me/password", json!({"new_password": NEW})).await.status(204);
    ann.post(&t, "/v1/me/password", json!({"new_password": PASSWORD}))
        .await
        .invalid("/current_password", "missing");
    t.log_in_with("ann@example.com", NEW).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_changes_at_once_one_succeeds() {
    let t = TestApp::with(&[("DM__AUTH__THROTTLE__LOGIN_ACCOUNT__BURST", "100")]).await;
    let ann = t.sign_up("ann@example.com").await;
    let passwords: Vec<String> = (0..12).map(|n| format!("{n} lanterns swing in the wind")).collect();
    let answers = join_all(passwords.iter().map(|new| async { change(&t, &ann, PASSWORD, new).await })).await;
    let won: Vec<usize> = (0..12).filter(|n| answers[*n].code == 204).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| matches!(answer.code, 204 | 401 | 503)), "{answers:?}");
    t.log_in_with("ann@example.com", &passwords[won[0]]).await.ok();
}
