//! A forgotten password: a link by mail, which works once.

use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::json;

use crate::support::{
    app::{PASSWORD, TestApp, token_in},
    http::Answer,
};

const NEW: &str = "nine loud lanterns at dawn";

async fn forget(t: &TestApp, email: &str) -> Answer {
    t.post("/v1/auth/password/forgot", json!({"email": email})).await
}

async fn reset(t: &TestApp, token: &str, password: &str) -> Answer {
    t.post("/v1/auth/password/reset", json!({"token": token, "password": password})).await
}

async fn token(t: &TestApp, email: &str) -> String {
    forget(t, email).await.status(202);
    t.token_for(email, "reset").await
}

/// As in CVE-2025-62174 of Mastodon, Rauthy and matrix-authentication-service: a reset left sessions or refresh tokens alive.
#[tokio::test]
async fn a_reset_sets_the_password_ends_every_session_and_tells_the_owner() {
    let t = TestApp::start().await;
    let here = t.sign_up("ann@example.com").await;
    let there = t.log_in("ann@example.com").await;
    let bob = t.sign_up("bob@example.com").await;
    let token = token(&t, "ANN@example.com").await;
    here.get(&t, "/v1/me").await.ok();

    assert_eq!(
        reset(&t, &token, NEW).await.status(204),
        serde_json::Value::Null,
        "nobody is signed in by it"
    );
    for session in [&here, &there] {
        session.get(&t, "/v1/me").await.problem(401, "unauthenticated");
        t.refresh(&session.refresh_token).await.problem(401, "invalid_grant");
    }
    bob.get(&t, "/v1/me").await.ok();
    t.log_in_with("ann@example.com", PASSWORD).await.problem(401, "invalid_credentials");
    t.log_in_with("ann@example.com", NEW).await.ok();
    let notice = t.mail_to("ann@example.com").await.unwrap();
    assert_eq!(notice.subject, "Your account");
    assert!(notice.text.contains("password was changed"), "{}", notice.text);
    assert!(!notice.text.contains("token="));
}

#[tokio::test]
async fn known_and_unknown_addresses_look_the_same() {
    digitalmistress::queries! {
        scan fn resets() -> i64 = "SELECT COUNT(*) FROM password_reset";
        scan fn jobs() -> i64 = "SELECT COUNT(*) FROM job";
        scan fn entries() -> i64 =
            "SELECT COUNT(*) FROM audit_event WHERE action = 'password.reset_requested'";
    }
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let counts = async || {
        let counts: Result<_, digitalmistress::platform::db::Error> = t
            .db()
            .read(async |c| Ok((resets().one(&c).await?, jobs().one(&c).await?, entries().one(&c).await?)))
            .await;
        counts.unwrap()
    };
    assert_eq!(counts().await, (0, 0, 0));
    let known = forget(&t, "ann@example.com").await;
    assert_eq!(counts().await, (1, 1, 1));
    let unknown = forget(&t, "nobody@example.com").await;
    assert_eq!(counts().await, (2, 2, 2), "a decoy is written as the real one is");
    let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((known.code, &known.text, names(&known)), (unknown.code, &unknown.text, names(&unknown)));
    assert_eq!(known.code, 202);

    assert!(t.mail_to("nobody@example.com").await.is_none());
    assert_eq!(counts().await.1, 0, "the decoy's job is dropped");
    forget(&t, "not an address").await.invalid("/email", "invalid_format");
}

#[tokio::test]
async fn a_link_works_once_for_half_an_hour_and_the_newest_ends_the_others() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let first = token(&t, "ann@example.com").await;
    let second = token(&t, "ann@example.com").await;
    reset(&t, &first, NEW).await.problem(400, "invalid_code");
    reset(&t, &second, NEW).await.status(204);
    reset(&t, &second, NEW).await.problem(400, "invalid_code");

    let late = token(&t, "ann@example.com").await;
    t.clock.advance(SignedDuration::from_mins(30));
    reset(&t, &late, PASSWORD).await.problem(400, "invalid_code");
    for rubbish in ["", "x", "dm_pr_AAAA", "dm_su_AAAA", &"a".repeat(5000)] {
        reset(&t, rubbish, PASSWORD).await.problem(400, "invalid_code");
    }
    t.log_in_with("ann@example.com", NEW).await.ok();
}

#[tokio::test]
async fn looking_at_a_link_does_not_use_it_up() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let token = token(&t, "ann@example.com").await;
    for path in ["/v1/auth/password/reset", &format!("/v1/auth/password/reset?token={token}")] {
        t.get(path).await.problem(405, "method_not_allowed");
    }
    t.request("HEAD", &format!("/v1/auth/password/reset?token={token}")).send().await.unwrap();
    reset(&t, &token, NEW).await.status(204);
}

/// As in keycloak#48888, for this path: empty, short and too long passwords, and those that the account's address gives away.
#[tokio::test]
async fn a_password_that_is_not_accepted_leaves_the_link_as_it_was() {
    let t = TestApp::start().await;
    t.sign_up("annabel-lee@example.com").await;
    let token = token(&t, "annabel-lee@example.com").await;
    for (password, code) in [
        ("", "too_short"),
        ("x", "too_short"),
        (&*"a".repeat(129), "too_long"),
        ("passwordpassword", "too_common"),
        ("annabel-lee@example.com", "too_guessable"),
    ] {
        reset(&t, &token, password).await.invalid("/password", code);
    }
    reset(&t, &token, &"lantern ".repeat(16)).await.status(204);
    t.log_in_with("annabel-lee@example.com", &"lantern ".repeat(16)).await.ok();
}

/// As in better-auth#9096: check, then delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_uses_of_one_link_at_once_one_succeeds() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let token = token(&t, "ann@example.com").await;
    let passwords: Vec<String> = (0..50).map(|n| format!("{n} lanterns swing in the wind")).collect();
    t.connect(50).await;
    let answers = join_all(passwords.iter().map(|password| reset(&t, &token, password))).await;
    let won: Vec<usize> = (0..50).filter(|n| answers[*n].code == 204).collect();
    assert_eq!(won.len(), 1);
    // Those for whom the queue of hashes was full are told to come back; nobody else gets anything but a refusal.
    assert!(answers.iter().all(|answer| matches!(answer.code, 204 | 400 | 503)), "{answers:?}");
    t.log_in_with("ann@example.com", &passwords[won[0]]).await.ok();
    t.mail_to("ann@example.com").await;
    let notices = t.mailbox.mails(Some("ann@example.com"));
    assert_eq!(notices.iter().filter(|mail| mail.text.contains("password was changed")).count(), 1);
}

/// As in GHSA-3529-5m8x-rpv3 of GoTrue: links built from what a request says about hosts.
#[tokio::test]
async fn links_lead_to_the_configured_frontend_whatever_a_request_says() {
    let t = TestApp::with(&[("DM__SERVER__FRONTEND_URL", "https://app.example.com/hello/")]).await;
    let ann = t.sign_up("ann@example.com").await;
    let evil = "evil.example.net";
    let forwarded = format!("for=1.2.3.4;host={evil};proto=https");
    for (name, value) in [
        ("x-forwarded-host", evil),
        ("x-forwarded-server", evil),
        ("x-original-host", evil),
        ("x-host", evil),
        ("x-forwarded-proto", "gopher"),
        ("forwarded", &*forwarded),
        ("origin", "https://evil.example.net"),
        ("referer", "https://evil.example.net/reset"),
    ] {
        let call = t.post("/v1/auth/password/forgot", json!({"email": "ann@example.com"}));
        call.header(name, value).await.status(202);
        let mail = t.mail_to("ann@example.com").await.unwrap();
        assert!(
            mail.text.contains("\nhttps://app.example.com/hello/reset#token=dm_pr_"),
            "{name}: {}",
            mail.text
        );
        assert!(!mail.text.contains("evil") && !mail.html.contains("evil") && !mail.text.contains("gopher"));
    }
    // Development answers to its own name only; an absolute address or another Host does not get as far.
    let call = t.post("/v1/auth/password/forgot", json!({"email": "ann@example.com"})).header("host", evil);
    assert!(call.await.code >= 400);
    ann.post(&t, "/v1/me/email", json!({"email": "new@example.com"}))
        .header("x-forwarded-host", evil)
        .await
        .status(204);
    let code = t.code_for("new@example.com").await;
    ann.post(&t, "/v1/me/email/confirm", json!({"code": code})).header("forwarded", &forwarded).await.ok();
    let mail = t.mail_to("ann@example.com").await.unwrap();
    assert!(mail.text.contains("\nhttps://app.example.com/hello/email-undo#token=dm_eu_"), "{}", mail.text);
    assert!(!mail.html.contains("evil"));
}

#[tokio::test]
async fn a_mail_is_text_and_html_with_a_neutral_subject() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    forget(&t, "ann@example.com").await.status(202);
    let mail = t.mail_to("ann@example.com").await.unwrap();
    assert_eq!(mail.subject, "Your request");
    let token = token_in(&mail.text, "reset");
    let shown = mail.html.replace("&#x2f;", "/");
    assert!(shown.contains(&format!("href=\"http://localhost:5173/reset#token={token}\"")), "{shown}");
    let page = t.get("/dev/mailbox/messages?to=ann@example.com").await.ok();
    assert_eq!(page["data"][0]["text"], mail.text.as_str());
}
