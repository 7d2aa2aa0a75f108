//! Age: nobody under eighteen, and nobody who tries another date.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{
    app::TestApp,
    http::{Answer, all},
};

/// The form of somebody who is seventeen.
async fn minor(t: &TestApp, email: &str) -> Value {
    let mut body = t.signup_body(email).await;
    let today = t.now().to_zoned(jiff::tz::TimeZone::UTC).date();
    body["birth_date"] = json!(today.checked_sub(jiff::Span::new().years(17)).unwrap().to_string());
    body
}

async fn verify(t: &TestApp, started: &Value, code: &str) -> Answer {
    t.post("/v1/auth/signup/verify", json!({"signup_token": started["signup_token"], "code": code})).await
}

#[tokio::test]
async fn somebody_under_eighteen_is_refused_and_cannot_retry_with_another_date() {
    let t = TestApp::start().await;
    t.post("/v1/auth/signup", minor(&t, "kid@example.com").await).await.problem(403, "age_restricted");
    assert!(t.mail_to("kid@example.com").await.is_none());

    // Any caller gets the same answer for any address, so nobody learns who was refused; but there is no code.
    let older = t.signup_body("KID@example.com").await;
    let started = t.post("/v1/auth/signup", older.clone()).await.status(202);
    let mail = t.mail_to("KID@example.com").await.unwrap();
    assert_eq!(mail.subject, "Your sign-up");
    assert!(mail.text.contains("cannot open an account"), "{}", mail.text);
    assert!(!mail.text.lines().any(|line| line.len() == 8 && line.bytes().all(|b| b.is_ascii_digit())));
    verify(&t, &started, "00000000").await.problem(400, "invalid_code");
    let resend = || t.post("/v1/auth/signup/resend", json!({"signup_token": started["signup_token"]}));
    resend().await.problem(429, "rate_limited");
    t.clock.advance(SignedDuration::from_secs(60));
    resend().await.status(202);
    assert_eq!(t.mail_to("KID@example.com").await.unwrap().subject, "Your sign-up");

    t.clock.advance(SignedDuration::from_hours(30 * 24));
    t.sign_up("kid@example.com").await;
}

#[tokio::test]
async fn a_refusal_stands_against_a_signup_that_began_before_it() {
    let t = TestApp::start().await;
    let started = t.post("/v1/auth/signup", t.signup_body("kid@example.com").await).await.status(202);
    let code = t.code_for("kid@example.com").await;
    t.post("/v1/auth/signup", minor(&t, "kid@example.com").await).await.problem(403, "age_restricted");
    verify(&t, &started, &code).await.problem(403, "age_restricted");
    t.post("/v1/auth/login", json!({"email": "kid@example.com", "password": crate::support::app::PASSWORD}))
        .await
        .problem(401, "invalid_credentials");
}

#[tokio::test]
async fn a_refusal_does_not_touch_somebody_who_has_an_account() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    t.post("/v1/auth/signup", minor(&t, "ann@example.com").await).await.problem(403, "age_restricted");
    t.log_in("ann@example.com").await;
    t.post("/v1/auth/signup", t.signup_body("ann@example.com").await).await.status(202);
    let mail = t.mail_to("ann@example.com").await.unwrap();
    assert!(mail.text.contains("has an account already"), "{}", mail.text);
}

/// Each refusal is a row; the queue of hashes bounds how many a second there can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_costs_what_a_signup_costs() {
    let t = TestApp::with(&[
        ("DM__AUTH__THROTTLE__SIGNUP_ADDRESS__BURST", "10000"),
        ("DM__AUTH__THROTTLE__MAIL_RECIPIENT__BURST", "10000"),
        ("DM__AUTH__THROTTLE__MAIL_ADDRESS__BURST", "10000"),
    ])
    .await;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let form = minor(&t, "kid@example.com").await;
    let answers = all((0..cores * 32 + 60).map(|_| t.post("/v1/auth/signup", form.clone()))).await;
    let count = |code: &str| answers.iter().filter(|a| a.problem_code().as_deref() == Some(code)).count();
    assert!(count("overloaded") > 0, "nobody had to wait");
    assert_eq!(count("overloaded") + count("age_restricted"), answers.len());
}
