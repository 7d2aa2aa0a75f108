//! One answer and one amount of work for everybody who may not come in, whatever the reason.

use digitalmistress::platform::db::Error;
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, TestApp},
    http::Answer,
    requests::{prepared, refuses, with_bodies},
};

digitalmistress::queries! {
    scan fn failures() -> i64 = "SELECT COUNT(*) FROM audit_event WHERE action = 'login' AND outcome = 'failure'";
    scan fn jobs() -> i64 = "SELECT COUNT(*) FROM job";
    fn lock(account: [u8], user_id: uuid::Uuid) =
        "INSERT INTO password_failure (account, user_id, failures, updated_at) VALUES ($1, $2, 100, 0)";
    fn no_password(email_key: str) = "UPDATE app_user SET password_hash = NULL WHERE email_key = $1";
}

/// What an answer shows: all of it but the request's id.
fn shown(answer: &Answer) -> (u16, Value, Vec<(String, String)>) {
    let mut body = answer.json();
    body["request_id"] = Value::Null;
    let headers =
        // What is left of an address's calls differs from one to the next, whoever they are about.
        answer.headers.iter().filter(|(name, _)| !["x-request-id", "date", "ratelimit"].contains(&name.as_str()));
    let mut headers: Vec<(String, String)> =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (answer.code, body, headers)
}

async fn number(t: &TestApp, of: fn() -> digitalmistress::platform::db::Query<'static, i64, 0>) -> i64 {
    let found: Result<i64, Error> = t.db().read_slow(async move |c| of().one(&c).await).await;
    found.unwrap()
}

async fn people(t: &TestApp) {
    t.sign_up("ann@example.com").await;
    let locked: uuid::Uuid = t.sign_up("locked@example.com").await.id.parse().unwrap();
    t.sign_up("passwordless@example.com").await;
    let boss = t.administrator("boss@example.com").await;
    let suspended = t.sign_up("suspended@example.com").await;
    let path = format!("/v1/admin/users/{}/suspend", suspended.id);
    boss.post(t, &path, json!({"reason": "a chargeback"})).await.ok();
    t.post("/v1/auth/signup", t.signup_body("pending@example.com").await).await.status(202);
    t.db()
        .write(async move |c| {
            lock(locked.as_bytes(), locked).exec(&c).await?;
            no_password("passwordless@example.com").exec(&c).await
        })
        .await
        .unwrap();
}

/// As in keycloak#48888 and keycloak#51887: known users were answered faster, and an empty password skipped the hash for them only.
#[tokio::test]
async fn no_state_of_an_account_shows_before_the_right_password() {
    let t = TestApp::start().await;
    people(&t).await;
    let long = "é".repeat(128);
    let mut first = None;
    for (email, password) in [
        ("ann@example.com", "another long enough password"),
        ("ann@example.com", ""),
        ("ann@example.com", "x"),
        ("ann@example.com", &long),
        ("locked@example.com", PASSWORD),
        ("locked@example.com", "another long enough password"),
        ("locked@example.com", ""),
        ("suspended@example.com", "another long enough password"),
        ("suspended@example.com", ""),
        ("passwordless@example.com", PASSWORD),
        ("passwordless@example.com", ""),
        ("pending@example.com", PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("nobody@example.com", ""),
        ("nobody@example.com", &long),
    ] {
        let (hashed, written) = (t.background.auth.passwords_hashed(), number(&t, failures).await);
        let answer = t.post("/v1/auth/login", json!({"email": email, "password": password})).await;
        let shown = shown(&answer);
        assert_eq!(shown.0, 401);
        assert_eq!(*first.get_or_insert(shown.clone()), shown, "{email} {password:?}");
        assert_eq!(t.background.auth.passwords_hashed() - hashed, 1, "{email} {password:?}");
        assert_eq!(number(&t, failures).await - written, 1, "{email} {password:?}");
    }
}

#[tokio::test]
async fn signing_up_costs_the_same_for_every_address() {
    let t = TestApp::start().await;
    people(&t).await;
    let mut first = None;
    for email in ["ann@example.com", "locked@example.com", "pending@example.com", "new@example.com"] {
        let body = t.signup_body(email).await;
        t.background.run_due().await.unwrap();
        let (hashed, waiting) = (t.background.auth.passwords_hashed(), number(&t, jobs).await);
        let answer = t.post("/v1/auth/signup", body).await;
        assert_eq!(t.background.auth.passwords_hashed() - hashed, 1, "{email}");
        assert_eq!(number(&t, jobs).await - waiting, 1, "{email}");

        let (code, mut body, mut headers) = shown(&answer);
        let token = body["signup_token"].take();
        body["signup_token"] = json!(token.as_str().unwrap().len());
        headers.retain(|(name, _)| name != "content-length");
        assert_eq!(
            *first.get_or_insert((code, body.clone(), headers.clone())),
            (code, body, headers),
            "{email}"
        );

        // Verifying and asking again, too: no hash, and the same words.
        let verify =
            t.post("/v1/auth/signup/verify", json!({"signup_token": token, "code": "00000000"})).await;
        verify.problem(400, "invalid_code");
        t.post("/v1/auth/signup/resend", json!({"signup_token": token})).await.problem(429, "rate_limited");
        assert_eq!(t.background.auth.passwords_hashed() - hashed, 1, "{email}");
    }
}

/// What complains about nothing: who leaves, or stops what does not run, has what they wanted.
const NEVER_COMPLAIN: [&str; 3] = ["/v1/auth/logout", "/v1/auth/logout-all", "/v1/chat/{id}/stop"];

/// As in CVE-2026-4634 of Keycloak: a huge field cost work.
#[tokio::test]
async fn a_megabyte_in_any_field_is_refused_before_any_work() {
    let t = TestApp::start().await;
    let document = t.get("/openapi.json").await.ok();
    for (n, operation) in with_bodies(&document).iter().enumerate() {
        let request = prepared(&t, operation, &format!("person{n}")).await;
        let hashed = t.background.auth.passwords_hashed();
        for field in &request.fields {
            let huge = request.with(&t, field, &json!("a".repeat(1024 * 1024))).await;
            huge.problem(413, "payload_too_large");

            let long = request.with(&t, field, &json!("a".repeat(60 * 1024))).await;
            let quiet = long.code == 204 && NEVER_COMPLAIN.contains(&&*request.operation);
            assert!(quiet || refuses(&long, field), "{} {field}: {}", request.name(), long.text);
        }
        assert_eq!(t.background.auth.passwords_hashed(), hashed, "{}", request.name());
        // Nothing else was wrong with it, and nothing was used up.
        let answer = request.call(&t).await;
        assert!((200..300).contains(&answer.code), "{}: {}", request.name(), answer.text);
    }
}
