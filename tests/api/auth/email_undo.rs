//! The way back to an old address.

use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::json;

use crate::support::{
    app::{PASSWORD, Person, TestApp},
    http::Answer,
};

digitalmistress::queries! {
    scan fn real_again() = "UPDATE pending_signup SET decoy = FALSE";
}

const NEW: &str = "nine loud lanterns at dawn";

async fn switch(t: &TestApp, person: &Person, email: &str) {
    person.post(t, "/v1/me/email", json!({"email": email})).await.status(204);
    let code = t.code_for(email).await;
    person.post(t, "/v1/me/email/confirm", json!({"code": code})).await.ok();
}

async fn undo(t: &TestApp, token: &str) -> Answer {
    t.post("/v1/auth/email/undo", json!({"token": token})).await
}

/// Who took an account back has no password: the mailbox leads to a new one.
async fn back_in(t: &TestApp, email: &str) -> Person {
    t.log_in_with(email, PASSWORD).await.problem(401, "invalid_credentials");
    t.post("/v1/auth/password/forgot", json!({"email": email})).await.status(202);
    let token = t.token_for(email, "reset").await;
    t.post("/v1/auth/password/reset", json!({"token": token, "password": PASSWORD})).await.status(204);
    t.log_in(email).await
}

#[tokio::test]
async fn the_old_address_takes_the_account_back_within_72_hours() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    switch(&t, &ann, "thief@example.com").await;
    let token = t.token_for("ann@example.com", "email-undo").await;
    t.post("/v1/auth/password/forgot", json!({"email": "thief@example.com"})).await.status(202);
    let reset = t.token_for("thief@example.com", "reset").await;
    let thief = t.log_in("thief@example.com").await;
    thief.post(&t, "/v1/me/email", json!({"email": "other@example.com"})).await.status(204);
    t.clock.advance(SignedDuration::from_hours(71));

    t.get(&format!("/v1/auth/email/undo?token={token}")).await.problem(405, "method_not_allowed");
    undo(&t, &token).await.status(204);
    for told in ["ann@example.com", "thief@example.com"] {
        let mail = t.mail_to(told).await.unwrap();
        assert!(mail.text.contains("was undone"), "{}", mail.text);
    }
    thief.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    for session in [&ann, &thief] {
        t.refresh(&session.refresh_token).await.problem(401, "invalid_grant");
    }
    t.post("/v1/auth/password/reset", json!({"token": reset, "password": NEW}))
        .await
        .problem(400, "invalid_code");
    t.log_in_with("thief@example.com", PASSWORD).await.problem(401, "invalid_credentials");
    let back = back_in(&t, "ann@example.com").await;
    assert_eq!(back.id, ann.id);
    undo(&t, &token).await.problem(400, "invalid_code");
}

#[tokio::test]
async fn after_72_hours_a_change_stands() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    switch(&t, &ann, "new@example.com").await;
    let token = t.token_for("ann@example.com", "email-undo").await;
    t.clock.advance(SignedDuration::from_hours(72));
    undo(&t, &token).await.problem(400, "invalid_code");
    for rubbish in ["", "x", "dm_eu_AAAA", &"a".repeat(5000)] {
        undo(&t, rubbish).await.problem(400, "invalid_code");
    }
    t.log_in("new@example.com").await;
}

/// Whoever changed the address could have set a password, too.
#[tokio::test]
async fn a_password_that_was_set_since_does_not_survive() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    switch(&t, &ann, "thief@example.com").await;
    let token = t.token_for("ann@example.com", "email-undo").await;
    let body = json!({"current_password": PASSWORD, "new_password": NEW});
    ann.post(&t, "/v1/me/password", body).await.status(204);
    undo(&t, &token).await.status(204);
    for password in [NEW, PASSWORD] {
        t.log_in_with("ann@example.com", password).await.problem(401, "invalid_credentials");
    }
    t.post("/v1/auth/password/forgot", json!({"email": "ann@example.com"})).await.status(202);
    let reset = t.token_for("ann@example.com", "reset").await;
    t.post("/v1/auth/password/reset", json!({"token": reset, "password": NEW})).await.status(204);
    t.log_in_with("ann@example.com", NEW).await.ok();
}

/// A thief who changes the address twice holds a way back of their own.
#[tokio::test]
async fn an_earlier_change_can_be_undone_after_a_later_one_was() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    switch(&t, &ann, "thief@example.com").await;
    let owners = t.token_for("ann@example.com", "email-undo").await;
    switch(&t, &ann, "second@example.com").await;
    let thiefs = t.token_for("thief@example.com", "email-undo").await;
    undo(&t, &thiefs).await.status(204);
    back_in(&t, "thief@example.com").await;
    undo(&t, &owners).await.status(204);
    back_in(&t, "ann@example.com").await;

    let ann = t.log_in("ann@example.com").await;
    switch(&t, &ann, "third@example.com").await;
    let first = t.token_for("ann@example.com", "email-undo").await;
    switch(&t, &ann, "fourth@example.com").await;
    let later = t.token_for("third@example.com", "email-undo").await;
    undo(&t, &first).await.status(204);
    undo(&t, &later).await.problem(400, "invalid_code");
    back_in(&t, "ann@example.com").await;
}

#[tokio::test]
async fn an_old_address_is_nobody_elses_for_72_hours() {
    let t = TestApp::start().await;
    let earlier = t.post("/v1/auth/signup", t.signup_body("ann@example.com").await).await.status(202);
    let code = t.code_for("ann@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let bob = t.sign_up("bob@example.com").await;
    switch(&t, &ann, "new@example.com").await;
    let token = t.token_for("ann@example.com", "email-undo").await;

    // A sign-up that began while it was free comes to nothing, even if it were no decoy since Ann's.
    t.db().write(async |c| real_again().exec(&c).await).await.unwrap();
    let verify = json!({"signup_token": earlier["signup_token"], "code": code});
    t.post("/v1/auth/signup/verify", verify).await.problem(400, "invalid_code");
    // One that begins now answers as any other, and tells its owner.
    t.post("/v1/auth/signup", t.signup_body("ann@example.com").await).await.status(202);
    let mail = t.mail_to("ann@example.com").await.unwrap();
    assert!(mail.text.contains("cannot open an account"), "{}", mail.text);
    bob.post(&t, "/v1/me/email", json!({"email": "ann@example.com"})).await.status(204);
    let mail = t.mail_to("ann@example.com").await.unwrap();
    assert!(mail.text.contains("gave it up lately"), "{}", mail.text);
    t.background.sweep().await.unwrap();
    undo(&t, &token).await.status(204);
    back_in(&t, "ann@example.com").await;

    // Given up once more, and not taken back: after three days and an hour it is free.
    let ann = t.log_in("ann@example.com").await;
    switch(&t, &ann, "new@example.com").await;
    t.clock.advance(SignedDuration::from_hours(73));
    assert_ne!(t.sign_up("ann@example.com").await.id, ann.id);
}

/// The address that the owner leaves may be the thief's: a way back for it would outlive the owner's own.
#[tokio::test]
async fn who_goes_back_to_an_old_address_leaves_no_way_back_behind() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    switch(&t, &ann, "thief@example.com").await;
    let owners = t.token_for("ann@example.com", "email-undo").await;
    switch(&t, &ann, "second@example.com").await;
    let thiefs = t.token_for("thief@example.com", "email-undo").await;
    switch(&t, &ann, "Ann@example.com").await;

    assert_eq!(ann.get(&t, "/v1/me").await.ok()["email"], "Ann@example.com");
    let told = t.mail_to("second@example.com").await.unwrap();
    assert!(told.text.contains("uses again") && !told.text.contains("token="), "{}", told.text);
    for token in [&owners, &thiefs] {
        undo(&t, token).await.problem(400, "invalid_code");
    }
    t.log_in("ann@example.com").await;
    // From here on the next change can be undone as the first one could.
    switch(&t, &ann, "third@example.com").await;
    undo(&t, &t.token_for("ann@example.com", "email-undo").await).await.status(204);
}

#[tokio::test]
async fn another_spelling_is_no_other_address() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    switch(&t, &ann, "Ann@example.com").await;
    assert_eq!(ann.get(&t, "/v1/me").await.ok()["email"], "Ann@example.com");
    let newest = t.mail_to("Ann@example.com").await.unwrap();
    assert!(newest.text.contains("the code to use this address"), "{}", newest.text);
}

/// As in better-auth#9096: check, then delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_undos_at_once_one_succeeds() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    switch(&t, &ann, "new@example.com").await;
    let token = t.token_for("ann@example.com", "email-undo").await;
    t.connect(50).await;
    let answers = join_all((0..50).map(|_| undo(&t, &token))).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 204).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer.code, 204 | 400)), "{answers:?}");
}

/// A sign-up that began while the address was free ends at the moment at which it is given up and held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_given_up_is_not_taken_at_the_same_moment() {
    let t = TestApp::start().await;
    for round in 0..6 {
        let (old, new) = (format!("old{round}@example.com"), format!("new{round}@example.com"));
        let waiting = t.post("/v1/auth/signup", t.signup_body(&old).await).await.status(202);
        let signup_code = t.code_for(&old).await;
        // Somebody else gets the address by a change, which makes a decoy of the sign-up; this one is kept real to race.
        let ann = t.sign_up(&format!("ann{round}@example.com")).await;
        switch(&t, &ann, &old).await;
        t.db().write(async |c| real_again().exec(&c).await).await.unwrap();
        ann.post(&t, "/v1/me/email", json!({"email": new})).await.status(204);
        let code = t.code_for(&new).await;
        let verify = json!({"signup_token": waiting["signup_token"], "code": signup_code});
        let (switched, verified) = tokio::join!(
            async { ann.post(&t, "/v1/me/email/confirm", json!({"code": code})).await },
            async { t.post("/v1/auth/signup/verify", verify).await },
        );
        switched.ok();
        verified.problem(400, "invalid_code");
        let token = t.token_for(&old, "email-undo").await;
        undo(&t, &token).await.status(204);
    }
}
