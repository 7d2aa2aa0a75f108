//! Work in the background: jobs, and the removal of what has had its time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use digitalmistress::platform::{
    db::Error,
    mail::{Mail, MailError, Mailer},
};
use jiff::SignedDuration;
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::support::app::TestApp;

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mail server that answers when it is let, or not at all.
struct Hanging(Arc<Semaphore>);

#[async_trait]
impl Mailer for Hanging {
    async fn send(&self, _: Uuid, _: &Mail) -> Result<(), MailError> {
        self.0.acquire().await.unwrap().forget();
        Ok(())
    }
}

/// A mailer with a fault in it.
struct Panicking;

#[async_trait]
impl Mailer for Panicking {
    async fn send(&self, _: Uuid, _: &Mail) -> Result<(), MailError> {
        panic!("private words")
    }
}

/// Begins a sign-up, which leaves a mail to be sent.
async fn begin_signup(t: &TestApp, email: &str) {
    t.post("/v1/auth/signup", t.signup_body(email).await).await.status(202);
}

#[tokio::test]
async fn a_mail_server_that_hangs_does_not_hold_up_the_rest() {
    digitalmistress::queries! {
        scan fn all_messages() -> i64 = "SELECT COUNT(*) FROM message";
    }
    let mut t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    begin_signup(&t, "bob@example.com").await;
    ann.delete(&t, "/v1/conversations/c").await.status(204);

    let answers = Arc::new(Semaphore::new(0));
    t.background.mailer = Arc::new(Hanging(answers.clone()));
    let background = t.background.clone();
    let running = tokio::spawn(async move { background.run_due().await });
    let messages = async || {
        let count: Result<i64, Error> = t.db().read(async |c| all_messages().one(&c).await).await;
        count.unwrap()
    };
    let purged = async {
        while messages().await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, purged).await.expect("the messages are removed while the mail hangs");
    assert!(!running.is_finished());

    answers.add_permits(1);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_given_up_and_made_again() {
    let mut t = TestApp::start().await;
    begin_signup(&t, "ann@example.com").await;
    let works = t.background.clone();
    t.background.mailer = Arc::new(Hanging(Arc::new(Semaphore::new(0))));
    t.background.attempt = Duration::from_millis(1);
    tokio::time::timeout(PATIENCE, t.background.run_due()).await.expect("it is given up").unwrap();

    t.background = works;
    assert!(t.mail_to("ann@example.com").await.is_none(), "not at once");
    t.clock.advance(SignedDuration::from_secs(6));
    assert!(t.mail_to("ann@example.com").await.is_some());
}

#[tokio::test]
async fn a_job_that_panics_costs_only_itself_and_is_tried_again() {
    let mut t = TestApp::start().await;
    begin_signup(&t, "ann@example.com").await;
    let works = t.background.clone();
    t.background.mailer = Arc::new(Panicking);
    t.background.run_due().await.unwrap();

    t.background = works;
    t.clock.advance(SignedDuration::from_secs(6));
    assert!(t.mail_to("ann@example.com").await.is_some());
}

#[tokio::test]
async fn no_job_is_begun_when_the_program_ends() {
    let t = TestApp::start().await;
    begin_signup(&t, "ann@example.com").await;
    t.shut_down().await;
    assert!(t.mail_to("ann@example.com").await.is_none());
    let t = t.restart().await;
    assert!(t.mail_to("ann@example.com").await.is_some(), "the next start does it");
}

#[tokio::test]
async fn housekeeping_leaves_nothing_that_is_old() {
    digitalmistress::queries! {
        fn refuse(email_mac: [u8], expires_at: i64) =
            "INSERT INTO age_refusal (email_mac, expires_at) VALUES ($1, $2)";
        fn charge(user_id: Uuid, day: i64) =
            "INSERT INTO quota_day (user_id, day, used, free_stops) VALUES ($1, $2, 1, 0)";
        fn bury(id: Uuid, payload: [u8], run_at: i64) =
            "INSERT INTO job (id, kind, payload, status, attempts, run_at, created_at)
             VALUES ($1, 'mail', $2, 'dead', 12, $3, $3)";
        scan fn old_rows() -> i64 =
            "SELECT (SELECT COUNT(*) FROM age_refusal) + (SELECT COUNT(*) FROM quota_day)
                  + (SELECT COUNT(*) FROM job)";
    }
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let (user, now) = (ann.id.parse::<Uuid>().unwrap(), t.now().as_microsecond());
    t.db()
        .write(async move |c| {
            for n in 0..1200_i64 {
                refuse(&n.to_be_bytes(), now).exec(&c).await?;
                charge(user, n).exec(&c).await?;
                bury(Uuid::from_u128(n.try_into().unwrap()), b"sealed", now).exec(&c).await?;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    let rows = async || {
        let rows: Result<i64, Error> = t.db().read_slow(async |c| old_rows().one(&c).await).await;
        rows.unwrap()
    };
    assert_eq!(rows().await, 3600);

    t.clock.advance(SignedDuration::from_hours(31 * 24));
    t.background.sweep().await.unwrap();
    assert_eq!(rows().await, 0);
    t.post("/v1/auth/login", json!({"email": "ann@example.com", "password": crate::support::app::PASSWORD}))
        .await
        .ok();
}
