//! Mail: what one says, and who carries it.
//!
//! Mails are written as jobs in the transaction that makes them necessary, so a sign-up does not fail because a mail
//! server is down. Slices write the texts; this module lays them out and sends them.

mod mailbox;
mod smtp;

use async_trait::async_trait;
use minijinja::HtmlEscape;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::{
    mailbox::{Mailbox, StoredMail},
    smtp::{Smtp, SmtpSettings},
};

/// The kind of job that carries a mail.
pub const MAIL_JOB: &str = "mail";

/// The kind of job that stands in for a mail where nobody is to get one, so that the work before it is the same. It is
/// dropped.
pub const NO_MAIL_JOB: &str = "no_mail";

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
    ///
    /// The layouts are format strings, so that one which lost its code or has a place that nobody fills does not compile.
    pub fn lay_out(&self) -> Mail {
        Mail {
            to: self.to.to_owned(),
            subject: self.subject.to_owned(),
            text: self.text(),
            html: self.html(),
        }
    }

    fn text(&self) -> String {
        let code = self.code.map_or_else(String::new, |code| format!("{code}\n\n"));
        let link = self.link.map_or_else(String::new, |link| format!("{link}\n\n"));
        format!(
            include_str!("layout.txt"),
            opening = self.opening,
            code = code,
            link = link,
            closing = self.closing
        )
    }

    fn html(&self) -> String {
        let code = self.code.map_or_else(String::new, |code| {
            format!(include_str!("layout_code.html"), code = HtmlEscape(code))
        });
        let link = self.link.map_or_else(String::new, |link| {
            format!(include_str!("layout_link.html"), link = HtmlEscape(link))
        });
        format!(
            include_str!("layout.html"),
            subject = HtmlEscape(self.subject),
            opening = HtmlEscape(self.opening),
            code = code,
            link = link,
            closing = HtmlEscape(self.closing),
        )
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
        assert!(mail.html.contains("Hello &lt;b&gt;Ann&lt;"));
        assert!(mail.html.contains(">12345678</p>") && !mail.html.contains("<b>Ann"));
        let link = letter.link.unwrap();
        assert!(mail.text.lines().any(|line| line == link), "the link has a line of its own");
        let escaped = HtmlEscape(link).to_string();
        assert_eq!(mail.html.matches(&escaped).count(), 2, "to click and to copy: {}", mail.html);
        let odd = Letter { code: Some("<i>{code}"), subject: "{0} & {opening}", ..letter };
        assert!(odd.lay_out().html.contains("&lt;i&gt;{code}"), "what is laid out is not itself a layout");
    }

    #[test]
    fn a_letter_without_a_code_has_no_gap() {
        let letter =
            Letter { to: "a@b.c", subject: "s", opening: "One.", code: None, link: None, closing: "Two." };
        assert_eq!(letter.lay_out().text, "One.\n\nTwo.\n");
    }
}
