//! Sensitive changes need a fresh sign-in, and showing the password again is one.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, Person, TestApp, claims};

/// Somebody whose session is a while old.
async fn signed_in_long_ago(t: &TestApp) -> Person {
    let ann = t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_mins(15));
    ann.refreshed(t).await
}

fn again(password: &str) -> Value {
    json!({"method": "password", "password": password})
}

#[tokio::test]
async fn an_old_sign_in_does_not_do_for_sensitive_changes() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_mins(14));
    let ann = ann.refreshed(&t).await;
    ann.post(&t, "/v1/me/email", json!({"email": "new@example.com"})).await.status(204);
    t.clock.advance(SignedDuration::from_mins(1));
    let ann = ann.refreshed(&t).await;

    let password = json!({"current_password": PASSWORD, "new_password": "nine loud lanterns at dawn"});
    for (path, body) in [("/v1/me/email", json!({"email": "new@example.com"})), ("/v1/me/password", password)]
    {
        ann.post(&t, path, body.clone()).await.problem(403, "reauthentication_required");
        let fresh = ann.post(&t, "/v1/auth/reauthenticate", again(PASSWORD)).await.ok();
        t.post(path, body).bearer(fresh["access_token"].as_str().unwrap()).await.status(204);
    }
    t.log_in_with("ann@example.com", "nine loud lanterns at dawn").await.ok();
}

#[tokio::test]
async fn the_operator_decides_what_is_fresh() {
    let t = TestApp::with(&[("DM__AUTH__STEP_UP_TTL", "1m")]).await;
    let ann = t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_secs(60));
    ann.post(&t, "/v1/me/email", json!({"email": "new@example.com"}))
        .await
        .problem(403, "reauthentication_required");
}

#[tokio::test]
async fn the_password_buys_a_token_with_a_new_auth_time_and_nothing_else() {
    let t = TestApp::start().await;
    let ann = signed_in_long_ago(&t).await;
    let answer = ann.post(&t, "/v1/auth/reauthenticate", again(PASSWORD)).await.ok();
    assert_eq!(answer["expires_in"], 600);
    assert_eq!(answer.as_object().unwrap().len(), 2, "no refresh token");
    let fresh = answer["access_token"].as_str().unwrap();
    let (before, after) = (claims(&ann.access_token), claims(fresh));
    for same in ["sub", "sid", "gen", "iss", "aud"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_eq!(after["gen"], 2);
    let seconds = |claims: &Value| claims["auth_time"].as_i64().unwrap();
    assert!(seconds(&after) >= seconds(&before) + 900);

    // The refresh token works on, and a refresh goes back to the time of the session's own sign-in.
    let next = ann.refreshed(&t).await;
    assert_eq!(claims(&next.access_token)["auth_time"], before["auth_time"]);
    next.post(&t, "/v1/me/email", json!({"email": "new@example.com"}))
        .await
        .problem(403, "reauthentication_required");
}

#[tokio::test]
async fn another_password_buys_nothing() {
    let t = TestApp::start().await;
    let ann = signed_in_long_ago(&t).await;
    for wrong in ["", "x", "another long enough password", &"a".repeat(128)] {
        ann.post(&t, "/v1/auth/reauthenticate", again(wrong)).await.problem(401, "invalid_credentials");
    }
    ann.post(&t, "/v1/auth/reauthenticate", again(&"a".repeat(129))).await.invalid("/password", "too_long");
    for method in ["passkey", "oidc", "totp", ""] {
        ann.post(&t, "/v1/auth/reauthenticate", json!({"method": method, "password": PASSWORD}))
            .await
            .problem(422, "validation_failed");
    }
    t.post("/v1/auth/reauthenticate", again(PASSWORD)).await.problem(401, "unauthenticated");
}
