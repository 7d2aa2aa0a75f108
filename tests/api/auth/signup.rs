//! Sign-up: from an address to a user, without telling anybody who has an account.

use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::app::{PASSWORD, TestApp, code_in, other_than};

async fn begin(t: &TestApp, email: &str) -> Value {
    t.post("/v1/auth/signup", t.signup_body(email).await).await.status(202)
}

async fn verify(t: &TestApp, started: &Value, code: &str) -> crate::support::http::Answer {
    t.post("/v1/auth/signup/verify", json!({"signup_token": started["signup_token"], "code": code})).await
}

#[tokio::test]
async fn a_new_person_signs_up_with_the_code_from_the_mail() {
    let t = TestApp::start().await;
    let mut body = t.signup_body("Ann@Example.com").await;
    body["locale"] = json!("en-GB");
    let started = t.post("/v1/auth/signup", body).await.status(202);
    assert_eq!((&started["expires_in"], &started["resend_after_s"]), (&json!(3600), &json!(60)));

    let mail = t.mail_to("Ann@example.com").await.unwrap();
    assert_eq!(mail.subject, "Your code");
    let tokens = verify(&t, &started, &code_in(&mail.text)).await.status(201);
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 600);
    let user = &tokens["user"];
    assert_eq!(user["email"], "Ann@example.com");
    assert_eq!(user["email_verified"], true);
    assert_eq!(
        (&user["role"], &user["locale"], &user["age_assurance"]),
        (&json!("user"), &json!("en-GB"), &json!("declared"))
    );
    assert!(user.get("birth_date").is_none());
    assert_eq!(tokens["session"]["current"], true);
    assert_eq!(tokens["session"]["address"], "127.0.0.0/24");

    let me = t.get("/v1/me").bearer(tokens["access_token"].as_str().unwrap()).await.ok();
    assert_eq!(me, *user);
}

#[tokio::test]
async fn a_known_address_is_answered_alike_and_gets_a_mail_that_says_so() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let new = t.post("/v1/auth/signup", t.signup_body("bob@example.com").await).await;
    let known = t.post("/v1/auth/signup", t.signup_body("ANN@example.com").await).await;
    assert_eq!(new.code, known.code);
    let shape = |answer: &Value| {
        let token = answer["signup_token"].as_str().unwrap();
        (token.len(), token[..6].to_owned(), answer["expires_in"].clone(), answer["resend_after_s"].clone())
    };
    let (new, known) = (new.json(), known.json());
    assert_eq!(shape(&new), shape(&known));

    let mail = t.mail_to("ann@example.com").await.unwrap();
    assert_eq!(mail.subject, "Your sign-up");
    assert!(mail.text.contains("has an account already"), "{}", mail.text);
    assert!(!mail.text.lines().any(|line| line.len() == 8 && line.bytes().all(|b| b.is_ascii_digit())));

    // Tries and resends look the same, too.
    let resend = |started: &Value| json!({"signup_token": started["signup_token"]});
    for started in [&new, &known] {
        verify(&t, started, "00000000").await.problem(400, "invalid_code");
        t.post("/v1/auth/signup/resend", resend(started)).await.problem(429, "rate_limited");
    }
    t.clock.advance(SignedDuration::from_secs(61));
    for started in [&new, &known] {
        assert_eq!(t.post("/v1/auth/signup/resend", resend(started)).await.status(202)["resend_after_s"], 60);
    }
    t.background.run_due().await.unwrap();
    assert_eq!(t.mailbox.mails(Some("ann@example.com")).len(), 3, "code, sign-up, sign-up again");
    for sent in 1..=5 {
        t.clock.advance(SignedDuration::from_secs(60));
        let (code, problem) = if sent < 5 { (202, None) } else { (400, Some("invalid_code")) };
        for started in [&new, &known] {
            let answer = t.post("/v1/auth/signup/resend", resend(started)).await;
            assert_eq!((answer.code, answer.problem_code().as_deref()), (code, problem), "{sent}");
        }
    }
    t.log_in("ann@example.com").await;
}

#[tokio::test]
async fn a_code_can_be_tried_five_times() {
    let t = TestApp::start().await;
    let started = begin(&t, "ann@example.com").await;
    let code = t.code_for("ann@example.com").await;
    for _ in 0..5 {
        verify(&t, &started, &other_than(&code)).await.problem(400, "invalid_code");
    }
    verify(&t, &started, &code).await.problem(400, "invalid_code");

    t.clock.advance(SignedDuration::from_secs(61));
    t.post("/v1/auth/signup/resend", json!({"signup_token": started["signup_token"]})).await.status(202);
    let newer = t.code_for("ann@example.com").await;
    verify(&t, &started, &newer).await.status(201);
}

#[tokio::test]
async fn a_new_code_replaces_the_old_one_and_waits_its_time() {
    let t = TestApp::start().await;
    let started = begin(&t, "ann@example.com").await;
    let old = t.code_for("ann@example.com").await;
    let resend = json!({"signup_token": started["signup_token"]});

    let early = t.post("/v1/auth/signup/resend", resend.clone()).await;
    let wait: i64 = early.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    early.problem(429, "rate_limited");
    t.clock.advance(SignedDuration::from_secs(wait));
    t.post("/v1/auth/signup/resend", resend.clone()).await.status(202);
    let new = t.code_for("ann@example.com").await;
    assert_ne!(old, new, "one in a hundred million");
    verify(&t, &started, &old).await.problem(400, "invalid_code");

    // Only so often: then no waiting helps. The last code still works.
    for _ in 0..4 {
        t.clock.advance(SignedDuration::from_secs(60));
        t.post("/v1/auth/signup/resend", resend.clone()).await.status(202);
    }
    t.clock.advance(SignedDuration::from_secs(60));
    t.post("/v1/auth/signup/resend", resend).await.problem(400, "invalid_code");
    let newest = t.code_for("ann@example.com").await;
    verify(&t, &started, &newest).await.status(201);
}

#[tokio::test]
async fn codes_and_signups_expire() {
    let t = TestApp::start().await;
    let started = begin(&t, "ann@example.com").await;
    let code = t.code_for("ann@example.com").await;
    t.clock.advance(SignedDuration::from_mins(10));
    verify(&t, &started, &code).await.problem(400, "invalid_code");
    t.clock.advance(SignedDuration::from_mins(50));
    t.post("/v1/auth/signup/resend", json!({"signup_token": started["signup_token"]}))
        .await
        .problem(400, "invalid_code");
}

#[tokio::test]
async fn several_may_wait_and_the_first_to_be_verified_wins() {
    let t = TestApp::start().await;
    let first = begin(&t, "ann@example.com").await;
    let first_code = t.code_for("ann@example.com").await;
    let second = begin(&t, "ann@example.com").await;
    let second_code = t.code_for("ann@example.com").await;

    verify(&t, &second, &second_code).await.status(201);
    verify(&t, &first, &first_code).await.problem(400, "invalid_code");
    verify(&t, &second, &second_code).await.problem(400, "invalid_code");
    t.log_in("ann@example.com").await;
}

/// As in GHSA-qq9h-g4jm-xgf3 of Better Auth: a stranger's password, set before the mailbox was proven, outlived the proof.
#[tokio::test]
async fn only_who_proves_the_mailbox_chose_the_password() {
    const STRANGERS: &str = "another long enough password";
    let t = TestApp::start().await;
    for (email, stranger_is_first) in [("ann@example.com", true), ("bob@example.com", false)] {
        let mut body = t.signup_body(email).await;
        body["password"] = json!(STRANGERS);
        let stranger = async || t.post("/v1/auth/signup", body.clone()).await.status(202);
        let (strangers, owners, code);
        if stranger_is_first {
            strangers = stranger().await;
            owners = begin(&t, email).await;
            code = t.code_for(email).await;
        } else {
            owners = begin(&t, email).await;
            code = t.code_for(email).await;
            strangers = stranger().await;
        }
        verify(&t, &strangers, &code).await.problem(400, "invalid_code");
        verify(&t, &owners, &code).await.status(201);
        t.log_in_with(email, STRANGERS).await.problem(401, "invalid_credentials");
        t.log_in_with(email, PASSWORD).await.ok();
    }
}

/// As in better-auth#8067: check, then delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_uses_of_one_code_at_once_one_makes_a_user() {
    let t = TestApp::start().await;
    let started = begin(&t, "ann@example.com").await;
    let code = t.code_for("ann@example.com").await;
    t.connect(50).await;
    let answers = join_all((0..50).map(|_| verify(&t, &started, &code))).await;
    let created = answers.iter().filter(|answer| answer.code == 201).count();
    assert_eq!(created, 1);
    assert!(answers.iter().all(|answer| matches!(answer.code, 201 | 400)), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_signups_for_one_address_verified_at_once_make_one_user() {
    let t = TestApp::start().await;
    for round in 0..5 {
        let email = format!("ann{round}@example.com");
        let (first, second) = (begin(&t, &email).await, begin(&t, &email).await);
        t.background.run_due().await.unwrap();
        let codes: Vec<String> =
            t.mailbox.mails(Some(&email)).iter().map(|mail| code_in(&mail.text)).collect();
        let (a, b) = tokio::join!(verify(&t, &first, &codes[1]), verify(&t, &second, &codes[0]));
        let mut statuses = [a.code, b.code];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 400]);
    }
}

#[tokio::test]
async fn every_required_policy_has_to_be_accepted_in_its_current_version() {
    let t = TestApp::start().await;
    let good = t.signup_body("ann@example.com").await;
    let with = |consents: Value| {
        let mut body = good.clone();
        body["consents"] = consents;
        body
    };
    t.post("/v1/auth/signup", with(json!([]))).await.invalid("/consents", "missing");
    let one = json!([good["consents"][0]]);
    t.post("/v1/auth/signup", with(one)).await.invalid("/consents", "missing");
    let mut outdated = good["consents"].clone();
    outdated[0]["version"] = json!("2020-01-01");
    t.post("/v1/auth/signup", with(outdated)).await.problem(400, "policy_outdated");
    let mut unknown = good["consents"].clone();
    unknown.as_array_mut().unwrap().push(json!({"document": "cookies", "version": "1"}));
    t.post("/v1/auth/signup", with(unknown)).await.problem(400, "policy_outdated");
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_form_is_named_at_once() {
    let t = TestApp::start().await;
    let answer = t
        .post(
            "/v1/auth/signup",
            json!({"email": "nobody", "password": "short", "birth_date": "2999-01-01", "consents": t.consents().await, "locale": "?"}),
        )
        .await;
    let body = answer.problem(422, "validation_failed");
    let mut named: Vec<(&str, &str)> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["pointer"].as_str().unwrap(), error["code"].as_str().unwrap()))
        .collect();
    named.sort_unstable();
    assert_eq!(
        named,
        [
            ("/birth_date", "in_future"),
            ("/email", "invalid_format"),
            ("/locale", "invalid_format"),
            ("/password", "too_short")
        ]
    );

    for (password, code) in [
        ("short", "too_short"),
        ("passwordpassword", "too_common"),
        ("digitalmistress!!", "too_guessable"),
        ("ann@example.com", "too_guessable"),
    ] {
        let mut body = t.signup_body("ann@example.com").await;
        body["password"] = json!(password);
        t.post("/v1/auth/signup", body).await.invalid("/password", code);
    }
}

#[tokio::test]
async fn tokens_that_we_did_not_make_are_just_wrong() {
    let t = TestApp::start().await;
    for token in ["", "x", "dm_su_AAAA", "dm_rt_AAAA", &"a".repeat(5000)] {
        let body = json!({"signup_token": token, "code": "12345678"});
        t.post("/v1/auth/signup/verify", body).await.problem(400, "invalid_code");
        t.post("/v1/auth/signup/resend", json!({"signup_token": token})).await.problem(400, "invalid_code");
    }
}

/// As in CVE-2026-27946 of Zitadel: fields that are not the caller's to set.
#[tokio::test]
async fn nobody_can_sign_up_as_an_admin() {
    let t = TestApp::start().await;
    for field in ["role", "email_verified", "is_admin", "id", "plan", "age_assurance"] {
        let mut body = t.signup_body("ann@example.com").await;
        body[field] = json!("admin");
        t.post("/v1/auth/signup", body).await.invalid(&format!("/{field}"), "unknown_field");
    }
}

/// A failure after the commit would spend the sign-up and hand out nothing.
#[tokio::test]
async fn nothing_is_read_after_the_user_came_to_exist() {
    digitalmistress::queries! {
        fn hide() = "ALTER TABLE app_user RENAME COLUMN display_name TO hidden";
        fn show() = "ALTER TABLE app_user RENAME COLUMN hidden TO display_name";
    }
    let t = TestApp::start().await;
    let started = begin(&t, "ann@example.com").await;
    let code = t.code_for("ann@example.com").await;
    t.db().write(async |c| hide().exec(&c).await).await.unwrap();
    let tokens = verify(&t, &started, &code).await.status(201);
    t.db().write(async |c| show().exec(&c).await).await.unwrap();
    let me = t.get("/v1/me").bearer(tokens["access_token"].as_str().unwrap()).await.ok();
    assert_eq!(me, tokens["user"]);
}

/// Who polls a sign-up of their own for a stranger's address does not learn when the stranger gets an account.
#[tokio::test]
async fn a_signup_that_lost_answers_as_before() {
    let t = TestApp::start().await;
    let spy = begin(&t, "ann@example.com").await;
    let other = begin(&t, "bob@example.com").await;
    t.sign_up("ann@example.com").await;
    let mails = t.mailbox.mails(Some("ann@example.com")).len();

    let resend =
        |started: &Value| t.post("/v1/auth/signup/resend", json!({"signup_token": started["signup_token"]}));
    for started in [&spy, &other] {
        resend(started).await.problem(429, "rate_limited");
        verify(&t, started, "00000000").await.problem(400, "invalid_code");
    }
    t.clock.advance(SignedDuration::from_secs(60));
    for started in [&spy, &other] {
        resend(started).await.status(202);
    }
    t.background.run_due().await.unwrap();
    let new = t.mailbox.mails(Some("ann@example.com"));
    assert_eq!(new.len(), mails + 1);
    assert!(new[0].text.contains("has an account already"), "{}", new[0].text);
}

#[tokio::test]
async fn a_document_is_consented_to_once() {
    let t = TestApp::start().await;
    let mut body = t.signup_body("ann@example.com").await;
    let first = body["consents"][0].clone();
    body["consents"].as_array_mut().unwrap().push(first.clone());
    t.post("/v1/auth/signup", body).await.invalid("/consents", "duplicate");

    let ann = t.sign_up("ann@example.com").await;
    ann.post(&t, "/v1/me/consents", json!({"consents": [first.clone(), first]}))
        .await
        .invalid("/consents", "duplicate");
    // So no more than there are policies: whatever else is named, is unknown.
    let many: Value = (0..1000).map(|n| json!({"document": format!("d{n}"), "version": "1"})).collect();
    ann.post(&t, "/v1/me/consents", json!({"consents": many})).await.problem(400, "policy_outdated");
}

#[tokio::test]
async fn housekeeping_removes_all_that_has_had_its_time() {
    digitalmistress::queries! {
        fn refuse(email_mac: [u8], expires_at: i64) =
            "INSERT INTO age_refusal (email_mac, expires_at) VALUES ($1, $2)";
        scan fn left() -> i64 = "SELECT COUNT(*) FROM age_refusal";
    }
    let t = TestApp::start().await;
    let now = t.now().as_microsecond();
    t.db()
        .write(async move |c| {
            for n in 0..1200_i64 {
                refuse(&n.to_be_bytes(), now - 1).exec(&c).await?;
            }
            refuse(b"still counts", now + 3_600_000_000).exec(&c).await
        })
        .await
        .unwrap();
    t.background.sweep().await.unwrap();
    let left: Result<i64, digitalmistress::platform::db::Error> =
        t.db().read(async |c| left().one(&c).await).await;
    assert_eq!(left.unwrap(), 1);
}
