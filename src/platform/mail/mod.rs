//! Mail: what one says, and who carries it.
//!
//! Mails are written as jobs in the transaction that makes them necessary, so a sign-up does not fail because a mail
//! server is down. Slices write the texts; this module lays them out and sends them.

mod mailbox;
mod smtp;

use std::sync::LazyLock;

use async_trait::async_trait;
use minijinja::{AutoEscape, Environment, context};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::{
    mailbox::{Mailbox, StoredMail},
    smtp::{Smtp, SmtpSettings},
};

/// The kind of job that carries a mail.
pub const MAIL_JOB: &str = "mail";

/// A mail that is ready to be sent. No `Debug`: it holds an address and often a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Mail {
    /// The recipient.
    pub to: String,
    /// The subject: neutral, because it shows on locked screens.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// Carries mail.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Sends a mail. `id` stays the same when a mail is sent again, so that receivers can recognise it.
    async fn send(&self, id: Uuid, mail: &Mail) -> Result<(), MailError>;
}

/// Why a mail was not sent. The texts hold no address.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MailError {
    /// It may work later.
    #[error("the mail server is not available: {0}")]
    Later(String),
    /// This mail will never be accepted.
    #[error("the mail was refused: {0}")]
    Refused(String),
}

static LAYOUT: LazyLock<Environment<'static>> =
    LazyLock::new(|| {
        let mut layout = Environment::new();
        layout.set_auto_escape_callback(|name| {
            if name == "mail.html" { AutoEscape::Html } else { AutoEscape::None }
        });
        // The sources are compiled in and rendered by tests: adding them cannot fail at run time.
        let _ = layout.add_template("mail.txt", include_str!("layout.txt"));
        let _ = layout.add_template("mail.html", include_str!("layout.html"));
        layout
    });

/// What a slice wants to say, before it is laid out.
pub struct Letter<'a> {
    /// The recipient.
    pub to: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// What is said first.
    pub opening: &'a str,
    /// Something to copy, such as a code, on a line of its own.
    pub code: Option<&'a str>,
    /// Where to go, on a line of its own.
    pub link: Option<&'a str>,
    /// What is said after that.
    pub closing: &'a str,
}

impl Letter<'_> {
    /// Lays the letter out as text and as HTML.
    pub fn lay_out(&self) -> Mail {
        let Letter { subject, opening, code, link, closing, .. } = *self;
        let values = context! { subject, opening, code, link, closing };
        let render = |name| {
            let template = LAYOUT.get_template(name);
            template.and_then(|template| template.render(&values)).unwrap_or_else(|_| self.opening.to_owned())
        };
        Mail {
            to: self.to.to_owned(),
            subject: self.subject.to_owned(),
            text: render("mail.txt"),
            html: render("mail.html"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_laid_out_as_text_and_escaped_html() {
        let letter = Letter {
            to: "ann@example.com",
            subject: "Your code",
            opening: "Hello <b>Ann</b> & co.",
            code: Some("12345678"),
            link: Some("https://www.example.com/reset#token=dm_a&b"),
            closing: "It is valid for ten minutes.",
        };
        let mail = letter.lay_out();
        assert!(mail.text.contains("Hello <b>Ann</b> & co.\n"));
        assert!(mail.text.lines().any(|line| line == "12345678"), "the code has a line of its own");
        assert!(
            mail.html.contains("Hello &lt;b&gt;Ann&lt;&#x2f;b&gt; &amp; co.")
                || mail.html.contains("&lt;b&gt;Ann")
        );
        assert!(mail.html.contains("12345678") && !mail.html.contains("<b>Ann"));
        let link = "https://www.example.com/reset#token=dm_a&b";
        assert!(mail.text.lines().any(|line| line == link), "the link has a line of its own");
        let escaped = link.replace('/', "&#x2f;").replace('&', "&amp;").replace("&amp;#x2f;", "&#x2f;");
        assert_eq!(mail.html.matches(&escaped).count(), 2, "to click and to copy: {}", mail.html);
    }

    #[test]
    fn a_letter_without_a_code_has_no_gap() {
        let letter =
            Letter { to: "a@b.c", subject: "s", opening: "One.", code: None, link: None, closing: "Two." };
        assert_eq!(letter.lay_out().text, "One.\n\nTwo.\n");
    }
}
