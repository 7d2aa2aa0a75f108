//! Passwords that have become known elsewhere, as a service that knows breaches says.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use digitalmistress::auth::{AuthError, Email, Password, Role};
use secrecy::SecretString;
use serde_json::json;

use crate::support::{
    app::{PASSWORD, TestApp},
    upstream::{Step, Upstream, bytes},
};

const BREACHED: &str = "eleven rusty lanterns in the fog";
const OTHER: &str = "0018A45C4D1DEF81644B54AB7F969B88D65";

fn sha1(password: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn answer(status: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    vec![bytes(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"))]
}

/// A service that knows one password, and pads its answers.
async fn service() -> Upstream {
    Upstream::answering(|request| {
        let asked = request.head.split_whitespace().nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        let (breached, padding) = (sha1(BREACHED), sha1(PASSWORD));
        let known = if asked == breached[..5] { format!("{}:17\r\n", &breached[5..]) } else { String::new() };
        answer("200 OK", &format!("{OTHER}:3\r\n{known}{}:0\r\n", &padding[5..]))
    })
    .await
}

#[tokio::test]
async fn a_breached_password_is_refused_wherever_one_is_set() {
    let service = service().await;
    let t = TestApp::with(&[("DM__AUTH__BREACH_CHECK_URL", &service.url)]).await;
    let mut body = t.signup_body("ann@example.com").await;
    body["password"] = json!(BREACHED);
    t.post("/v1/auth/signup", body).await.invalid("/password", "breached");

    let ann = t.sign_up("ann@example.com").await;
    let change = json!({"current_password": PASSWORD, "new_password": BREACHED});
    ann.post(&t, "/v1/me/password", change).await.invalid("/new_password", "breached");
    t.post("/v1/auth/password/forgot", json!({"email": "ann@example.com"})).await.status(202);
    let token = t.token_for("ann@example.com", "reset").await;
    t.post("/v1/auth/password/reset", json!({"token": token, "password": BREACHED}))
        .await
        .invalid("/password", "breached");
    t.log_in("ann@example.com").await;

    // Nor does an operator choose one for somebody.
    let create = |password: &str| {
        let email = Email::parse("bob@example.com").unwrap();
        let password = Password::parse(&SecretString::from(password)).unwrap();
        t.background.auth.create_user(email, password, Role::User)
    };
    let Err(AuthError::Invalid(errors)) = create(BREACHED).await else { panic!("it was accepted") };
    assert_eq!((&*errors[0].pointer, errors[0].code), ("/password", "breached"));
    create(PASSWORD).await.unwrap();
    t.log_in("bob@example.com").await;
}

#[tokio::test]
async fn the_service_learns_five_digits_and_nothing_about_the_person() {
    let service = service().await;
    let t = TestApp::with(&[("DM__AUTH__BREACH_CHECK_URL", &service.url)]).await;
    t.sign_up("ann@example.com").await;
    t.log_in("ann@example.com").await;
    let received = service.received();
    assert_eq!(received.len(), 1, "a login asks nothing");
    let head = received[0].head.to_lowercase();
    let first = head.lines().next().unwrap();
    assert_eq!(first, format!("get /v1/{} http/1.1", &sha1(PASSWORD)[..5].to_lowercase()));
    assert!(head.contains("\r\nadd-padding: true"));
    assert!(!head.contains("ann") && !head.contains(&sha1(PASSWORD)[5..12].to_lowercase()), "{head}");
}

#[tokio::test]
async fn nobody_is_kept_out_because_the_service_fails() {
    let huge = format!("{OTHER}:3\r\n").repeat(20_000);
    let breached = format!("{}:17\r\n", &sha1(BREACHED)[5..]);
    for (what, steps) in [
        ("it hangs", vec![Step::Hang]),
        ("it hangs half-way", vec![bytes("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n0018"), Step::Hang]),
        ("it fails", answer("500 Oops", &breached)),
        ("it sends elsewhere", answer("302 Found", &breached)),
        ("it says something else", answer("200 OK", "<html>captive portal</html>")),
        ("it says half a line", answer("200 OK", &format!("{breached}0018A45C"))),
        ("it says too much", answer("200 OK", &format!("{huge}{breached}"))),
        ("it breaks off", vec![bytes("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n"), Step::Reset]),
        ("it is gone", vec![Step::Reset]),
    ] {
        let service = Upstream::start(steps).await;
        let t = TestApp::with(&[("DM__AUTH__BREACH_CHECK_URL", &service.url)]).await;
        let mut body = t.signup_body("ann@example.com").await;
        body["password"] = json!(BREACHED);
        assert_eq!(t.post("/v1/auth/signup", body).await.code, 202, "{what}");
        assert_eq!(service.received().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn nobody_is_asked_unless_the_operator_wants_it() {
    let defaults = std::fs::read_to_string("config/default.toml").unwrap();
    assert!(defaults.lines().any(|line| line == "breach_check_url = \"\""), "nobody is named by default");
    let t = TestApp::start().await;
    let mut body = t.signup_body("ann@example.com").await;
    body["password"] = json!(BREACHED);
    t.post("/v1/auth/signup", body).await.status(202);
}

/// Whoever has a session could otherwise keep the service busy, and what is busy lets everything through.
#[tokio::test]
async fn a_wrong_current_password_asks_nothing_and_a_bad_new_one_costs_no_try() {
    let service = service().await;
    let pair =
        [("DM__AUTH__THROTTLE__LOGIN_PAIR__BURST", "5"), ("DM__AUTH__THROTTLE__LOGIN_PAIR__EVERY", "1m")];
    let t = TestApp::with(&[&pair[..], &[("DM__AUTH__BREACH_CHECK_URL", &service.url)]].concat()).await;
    t.clock.stop();
    let ann = t.sign_up("ann@example.com").await;
    let asked = service.received().len();
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    ann.post(&t, "/v1/me/password", change(BREACHED, BREACHED)).await.problem(401, "invalid_credentials");
    assert_eq!(service.received().len(), asked);
    for _ in 0..5 {
        ann.post(&t, "/v1/me/password", change(PASSWORD, BREACHED))
            .await
            .invalid("/new_password", "breached");
    }
    assert_eq!(service.received().len(), asked + 5);
    // The pair of account and address has five tries; only the wrong password took one.
    for _ in 0..4 {
        ann.post(&t, "/v1/me/password", change(BREACHED, BREACHED)).await.problem(401, "invalid_credentials");
    }
    ann.post(&t, "/v1/me/password", change(BREACHED, BREACHED)).await.problem(429, "rate_limited");
}
