//! A change of the address: the new one is proven before it counts.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, Person, TestApp, code_in, other_than},
    http::{Answer, Call, all},
};

async fn ask(t: &TestApp, person: &Person, email: &str) -> Answer {
    person.post(t, "/v1/me/email", json!({"email": email})).await
}

fn confirm(t: &TestApp, person: &Person, code: &str) -> Call {
    person.post(t, "/v1/me/email/confirm", json!({"code": code}))
}

/// As in better-auth#7196: a change that only the old mailbox, or nobody, confirmed.
#[tokio::test]
async fn nothing_changes_before_the_new_address_is_proven() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    assert_eq!(ask(&t, &ann, "Ann@Example.org").await.status(204), Value::Null);
    assert_eq!(ann.get(&t, "/v1/me").await.ok()["email"], "ann@example.com");
    t.log_in("ann@example.com").await;
    t.log_in_with("ann@example.org", PASSWORD).await.problem(401, "invalid_credentials");
    let mail = t.mail_to("Ann@example.org").await.unwrap();
    assert_eq!(mail.subject, "Your code");
    assert!(!mail.text.contains("token="), "only a code: {}", mail.text);
    assert_eq!(t.mailbox.mails(Some("ann@example.com")).len(), 1, "the old mailbox gets nothing to confirm");

    let user = confirm(&t, &ann, &code_in(&mail.text)).await.ok();
    assert_eq!((&user["email"], &user["email_verified"]), (&json!("Ann@example.org"), &json!(true)));
    assert_eq!(user, ann.get(&t, "/v1/me").await.ok());
    t.log_in("ann@example.org").await;
    t.log_in_with("ann@example.com", PASSWORD).await.problem(401, "invalid_credentials");
    let notice = t.mail_to("ann@example.com").await.unwrap();
    assert!(
        notice.text.contains("/email-undo#token=") && !notice.text.contains("example.org"),
        "{}",
        notice.text
    );
    confirm(&t, &ann, &code_in(&mail.text)).await.problem(400, "invalid_code");
}

#[tokio::test]
async fn a_code_has_five_tries_and_ten_minutes() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ask(&t, &ann, "new@example.com").await.status(204);
    let code = t.code_for("new@example.com").await;
    for wrong in ["", "1", "123456789", &other_than(&code), "ⅷⅷⅷ"] {
        confirm(&t, &ann, wrong).await.problem(400, "invalid_code");
    }
    confirm(&t, &ann, &code).await.problem(400, "invalid_code");

    ask(&t, &ann, "new@example.com").await.status(204);
    let code = t.code_for("new@example.com").await;
    t.clock.advance(SignedDuration::from_mins(10));
    confirm(&t, &ann, &code).await.problem(400, "invalid_code");
    assert_eq!(ann.get(&t, "/v1/me").await.ok()["email"], "ann@example.com");
}

#[tokio::test]
async fn a_code_belongs_to_the_session_that_asked_and_a_newer_one_ends_it() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let elsewhere = t.log_in("ann@example.com").await;
    let bob = t.sign_up("bob@example.com").await;
    ask(&t, &ann, "new@example.com").await.status(204);
    let code = t.code_for("new@example.com").await;
    for other in [&elsewhere, &bob] {
        confirm(&t, other, &code).await.problem(400, "invalid_code");
    }
    ask(&t, &ann, "newer@example.com").await.status(204);
    let newer = t.code_for("newer@example.com").await;
    if newer != code {
        confirm(&t, &ann, &code).await.problem(400, "invalid_code");
    }
    assert_eq!(confirm(&t, &ann, &newer).await.ok()["email"], "newer@example.com");
}

#[tokio::test]
async fn an_address_that_is_taken_is_answered_alike_and_told() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.sign_up("bob@example.com").await;
    let free = ask(&t, &ann, "new@example.com").await;
    let code = t.code_for("new@example.com").await;
    let taken = ask(&t, &ann, "BOB@example.com").await;
    assert_eq!((free.code, &free.text), (taken.code, &taken.text));
    let mail = t.mail_to("BOB@example.com").await.unwrap();
    assert!(mail.text.contains("has an account already"), "{}", mail.text);
    assert!(!mail.text.lines().any(|line| line.len() == 8 && line.bytes().all(|b| b.is_ascii_digit())));
    for _ in 0..6 {
        confirm(&t, &ann, &code).await.problem(400, "invalid_code");
    }
    assert_eq!(ann.get(&t, "/v1/me").await.ok()["email"], "ann@example.com");
}

#[tokio::test]
async fn who_comes_second_to_an_address_does_not_get_it() {
    let t = TestApp::start().await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    let signup = t.post("/v1/auth/signup", t.signup_body("new@example.com").await).await.status(202);
    let signup_code = t.code_for("new@example.com").await;
    ask(&t, &ann, "new@example.com").await.status(204);
    let anns = t.code_for("new@example.com").await;
    ask(&t, &bob, "new@example.com").await.status(204);
    let bobs = t.code_for("new@example.com").await;
    confirm(&t, &bob, &bobs).await.ok();
    confirm(&t, &ann, &anns).await.problem(400, "invalid_code");
    let verify = json!({"signup_token": signup["signup_token"], "code": signup_code});
    t.post("/v1/auth/signup/verify", verify).await.problem(400, "invalid_code");
    assert_eq!(ann.get(&t, "/v1/me").await.ok()["email"], "ann@example.com");
}

/// As in better-auth#9096: check, then delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_uses_of_one_code_at_once_one_succeeds() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ask(&t, &ann, "new@example.com").await.status(204);
    let code = t.code_for("new@example.com").await;
    t.connect(50).await;
    let answers = all((0..50).map(|_| confirm(&t, &ann, &code))).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 200).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer.code, 200 | 400)), "{answers:?}");
    t.mail_to("ann@example.com").await;
    let notices = t.mailbox.mails(Some("ann@example.com"));
    assert_eq!(notices.iter().filter(|mail| mail.text.contains("/email-undo#")).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_want_one_address_at_once_do_not_both_get_it() {
    let t = TestApp::start().await;
    for round in 0..6 {
        let wanted = format!("wanted{round}@example.com");
        let (ann, bob) = (
            t.sign_up(&format!("ann{round}@example.com")).await,
            t.sign_up(&format!("bob{round}@example.com")).await,
        );
        let signup = t.post("/v1/auth/signup", t.signup_body(&wanted).await).await.status(202);
        let signup_code = t.code_for(&wanted).await;
        ask(&t, &ann, &wanted).await.status(204);
        let anns = t.code_for(&wanted).await;
        ask(&t, &bob, &wanted).await.status(204);
        let bobs = t.code_for(&wanted).await;
        let verify = json!({"signup_token": signup["signup_token"], "code": signup_code});
        let answers = all([
            confirm(&t, &ann, &anns),
            confirm(&t, &bob, &bobs),
            t.post("/v1/auth/signup/verify", verify),
        ])
        .await;
        let won = answers.iter().filter(|answer| answer.code < 300).count();
        assert_eq!(won, 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.code < 500), "{answers:?}");
    }
}

/// Whoever reads the old mailbox has no way in left.
#[tokio::test]
async fn a_reset_that_was_mailed_to_the_old_address_ends_with_the_switch() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.post("/v1/auth/password/forgot", json!({"email": "ann@example.com"})).await.status(202);
    let token = t.token_for("ann@example.com", "reset").await;
    ask(&t, &ann, "new@example.com").await.status(204);
    let code = t.code_for("new@example.com").await;
    confirm(&t, &ann, &code).await.ok();
    let body = json!({"token": token, "password": "nine loud lanterns at dawn"});
    t.post("/v1/auth/password/reset", body).await.problem(400, "invalid_code");
    let mails = t.mailbox.mails(Some("ann@example.com")).len();
    t.post("/v1/auth/password/forgot", json!({"email": "ann@example.com"})).await.status(202);
    t.mail_to("ann@example.com").await;
    assert_eq!(t.mailbox.mails(Some("ann@example.com")).len(), mails + 1, "only the notice of the change");
}

#[tokio::test]
async fn no_address_but_the_users_own_is_readable_in_the_database() {
    digitalmistress::queries! {
        scan fn changes() -> Vec<u8> = "SELECT email FROM email_change";
        scan fn undos() -> Vec<u8> = "SELECT email FROM email_undo";
    }
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ask(&t, &ann, "new@example.com").await.status(204);
    confirm(&t, &ann, &t.code_for("new@example.com").await).await.ok();
    ask(&t, &ann, "newer@example.com").await.status(204);
    let sealed: Result<_, digitalmistress::platform::db::Error> =
        t.db().read_slow(async |c| Ok([changes().all(&c).await?, undos().all(&c).await?].concat())).await;
    let sealed = sealed.unwrap();
    assert_eq!(sealed.len(), 2);
    assert!(sealed.iter().all(|bytes| !String::from_utf8_lossy(bytes).contains("example.com")));
}
