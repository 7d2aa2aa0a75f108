//! What becomes of a mail, by what the mail server says and when.

use std::{sync::Arc, time::Duration};

use digitalmistress::platform::mail::{Mail, MailError, Mailer};
use jiff::SignedDuration;
use uuid::Uuid;

use crate::support::{
    app::TestApp,
    smtp::{HANG, MailServer, sender},
};

/// More than any attempt takes, where the timer is paused and costs nothing.
const LONG: Duration = Duration::from_hours(24);

fn mail_to(to: &str) -> Mail {
    Mail {
        to: to.into(),
        subject: "Your code".into(),
        text: "Here it is.\n.\n".into(),
        html: "<p>Here it is.</p>".into(),
    }
}

async fn send(mailer: &impl Mailer) -> Result<(), MailError> {
    mailer.send(Uuid::from_u128(7), &mail_to("ann@example.com")).await
}

#[tokio::test]
async fn a_mail_arrives_whole() {
    let server = MailServer::start(&[]).await;
    send(&server.sender()).await.unwrap();
    let taken = server.taken();
    assert_eq!(taken.len(), 1);
    assert!(taken[0].from.starts_with("MAIL FROM:<no-reply@example.com>"), "{taken:?}");
    assert_eq!(taken[0].to, "RCPT TO:<ann@example.com>");
    assert!(taken[0].text.contains("Message-ID: <00000000-0000-0000-0000-000000000007@example.com>"));
    assert!(taken[0].text.contains("\nHere it is.\n..\n"), "a line with a dot alone is no end: {taken:?}");
    assert_eq!(server.credentials(), ["\0someone\0a p@ssword"]);
}

#[tokio::test]
async fn what_is_about_us_is_tried_again_however_permanent() {
    for (command, answer) in [
        ("greeting", "554 5.3.2 no mail here"),
        ("greeting", "421 too busy"),
        ("greeting", "what is this"),
        ("EHLO", "550 5.7.1 you are on a list"),
        ("EHLO", "502 what?"),
        ("EHLO", "250 no sign-in here"),
        ("AUTH", "535 5.7.8 wrong password"),
        ("AUTH", "454 4.7.0 not now"),
        ("MAIL", "550 5.1.8 no such sender"),
        ("MAIL", "553 5.7.1 not your address"),
        ("MAIL", "501 5.1.7 what an address"),
        ("RCPT", "450 4.2.0 greylisted"),
        ("RCPT", "452 4.2.2 mailbox full"),
        ("RCPT", "421 4.7.0 too many"),
        ("RCPT", "503 5.5.1 out of turn"),
        ("RCPT", "530 5.7.0 sign in first"),
        ("RCPT", "550 5.7.1 relaying denied"),
        ("RCPT", "550-5.7.1 you are on a list\r\n550 5.7.1 ask them"),
        ("RCPT", "554 5.7.1 relay access denied"),
        ("DATA", "554 5.5.1 no valid recipients"),
        ("text", "552 5.3.4 too long"),
        ("text", "554 5.7.1 looks like spam"),
        ("text", "451 4.3.0 disk full"),
    ] {
        let server = MailServer::start(&[(command, answer)]).await;
        let mailer = server.sender();
        let result = send(&mailer).await;
        assert!(matches!(result, Err(MailError::Later(_))), "{command} {answer}: {result:?}");
        assert!(!result.unwrap_err().to_string().contains("5."), "the server's words are not kept");
        assert_eq!(send(&mailer).await, Ok(()), "after {command} {answer}");
    }
}

#[tokio::test]
async fn a_recipient_who_is_refused_for_good_is_not_tried_again() {
    for (answer, code) in [
        ("550 5.1.1 <ann@example.com>: no such user", "550"),
        ("550 no such user", "550"),
        ("550 5.4.1 no such user, says a large provider", "550"),
        ("551 5.1.6 moved", "551"),
        ("552 5.2.2 mailbox full", "552"),
        ("553 5.1.3 what an address", "553"),
        ("501 5.1.3 what an address", "501"),
        ("556 5.1.10 this domain takes no mail", "556"),
    ] {
        let server = MailServer::start(&[("RCPT", answer)]).await;
        assert_eq!(send(&server.sender()).await, Err(MailError::Refused(code.into())), "{answer}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let result = send(&sender(&format!("smtp://{free}"))).await;
    let Err(MailError::Later(reason)) = result else { panic!("{result:?}") };
    assert!(reason.contains("refused"), "the operator reads why: {reason}");
    let server = MailServer::start(&[]).await;
    let encrypted = sender(&format!("smtp://{}?tls=required", server.address()));
    assert!(matches!(send(&encrypted).await, Err(MailError::Later(_))), "it does not go out in clear");
    assert!(server.taken().is_empty());
}

#[tokio::test]
async fn an_address_that_the_server_cannot_read_is_tried_again() {
    let server = MailServer::start(&[]).await;
    let result = server.sender().send(Uuid::nil(), &mail_to("jürgen@example.com")).await;
    assert!(matches!(result, Err(MailError::Later(_))), "{result:?}");
    assert!(server.taken().is_empty());
    let modern =
        MailServer::start(&[("EHLO", "250-m\r\n250-SMTPUTF8\r\n250-8BITMIME\r\n250 AUTH PLAIN")]).await;
    modern.sender().send(Uuid::nil(), &mail_to("jürgen@example.com")).await.unwrap();
    assert_eq!(modern.taken()[0].to, "RCPT TO:<jürgen@example.com>");
    assert!(modern.taken()[0].from.contains("SMTPUTF8"));
}

/// The timer is paused and runs ahead to whatever limit there is.
#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_left_and_tried_again() {
    for command in ["greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "text"] {
        let server = MailServer::start(&[(command, HANG)]).await;
        let mailer = server.sender();
        let sending = tokio::time::timeout(LONG, send(&mailer));
        let result = sending.await.expect("an attempt has an end");
        assert!(matches!(result, Err(MailError::Later(_))), "{command}: {result:?}");
    }
}

#[tokio::test]
async fn a_mail_that_the_server_has_is_not_sent_again_if_it_hangs_then() {
    let server = MailServer::start(&[("QUIT", HANG)]).await;
    let mailer = server.sender();
    let sending = tokio::spawn(async move { tokio::time::timeout(LONG, send(&mailer)).await });
    server.arrival().await;
    tokio::time::pause();
    assert_eq!(sending.await.unwrap().expect("it has an end"), Ok(()));
}

#[tokio::test]
async fn a_greylisted_sign_up_gets_its_mail_at_the_second_try_and_a_dead_address_none() {
    let server =
        MailServer::start(&[("RCPT", "450 4.2.0 greylisted"), ("RCPT", "550 5.1.1 no such user")]).await;
    let mut t = TestApp::start().await;
    t.background.mailer = Arc::new(server.sender());
    let jobs = async |t: &TestApp| {
        let counts = t.background.jobs.counts().await.unwrap();
        counts.into_iter().map(|count| (count.status, count.jobs)).collect::<Vec<_>>()
    };

    let body = t.signup_body("ann@example.com").await;
    t.post("/v1/auth/signup", body).await.status(202);
    t.background.run_due().await.unwrap();
    assert_eq!(jobs(&t).await, [("waiting".to_owned(), 1)]);
    let body = t.signup_body("nobody@example.com").await;
    t.post("/v1/auth/signup", body).await.status(202);
    t.background.run_due().await.unwrap();
    t.clock.advance(SignedDuration::from_mins(1));
    t.background.run_due().await.unwrap();

    assert_eq!(jobs(&t).await, [("dead".to_owned(), 1)]);
    let taken = server.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].to, "RCPT TO:<ann@example.com>");
}
