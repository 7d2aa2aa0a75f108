//! Mail over SMTP.
//!
//! A permanent refusal is only a verdict on the mail where it is one on the recipient. A wrong password, a blocked sender
//! or a server that is closed is refused just as permanently, is for an operator to mend, and must not cost people their
//! mails. So who was refused decides, and the conversation is led here, step by step.

mod server;

use std::{error::Error as _, time::Duration};

use async_trait::async_trait;
use lettre::{
    Address, Message,
    message::{Mailbox, MultiPart},
    transport::smtp::{
        Error,
        client::AsyncSmtpConnection,
        commands,
        extension::{Extension, MailBodyParameter, MailParameter, ServerInfo},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;
use uuid::Uuid;

use self::server::Server;
use super::{Mail, MailError, Mailer};

/// How long a mail may take from connecting to the server's word that it has it. One that takes longer would be sent by
/// another runner too, and holds up the mails behind it.
const TIME: Duration = Duration::from_mins(1);
/// How long the server may take to say goodbye. Nothing depends on it.
const GOODBYE: Duration = Duration::from_secs(5);

/// Where mail goes.
#[derive(Clone, Debug)]
pub struct SmtpSettings {
    /// `smtps://user:password@host` or `smtp://…?tls=required`; a secret, because of the password.
    pub url: SecretString,
    /// The sender, as `Name <address>`.
    pub from: String,
}

/// An SMTP server. Each mail has a connection of its own.
pub struct Smtp {
    server: Server,
    from: Mailbox,
}

impl SmtpSettings {
    /// Whether the settings can be used.
    ///
    /// # Errors
    ///
    /// A sentence that says which one cannot, without showing it.
    pub fn check(&self) -> Result<(), String> {
        Smtp::new(self).map(|_| ())
    }
}

impl Smtp {
    /// Prepares to send; connects with the first mail.
    ///
    /// # Errors
    ///
    /// As [`SmtpSettings::check`].
    pub fn new(settings: &SmtpSettings) -> Result<Smtp, String> {
        let server = Server::parse(settings.url.expose_secret())
            .ok_or("the address of the mail server cannot be read")?;
        let from = settings.from.parse().map_err(|_| "the sender's address cannot be read")?;
        Ok(Smtp { server, from })
    }

    /// Connects, signs in where the settings say so, and leaves.
    pub async fn reach(&self) -> Result<(), MailError> {
        let connected = timeout(TIME, self.server.connect()).await;
        let connected = connected.map_err(|_| MailError::Later("it does not answer".into()))?;
        let mut server = connected.map_err(|error| later("connecting", &error))?;
        let _ = timeout(GOODBYE, server.quit()).await;
        Ok(())
    }

    fn write(&self, id: Uuid, mail: &Mail) -> Result<(Address, Vec<u8>), MailError> {
        let unusable = |what: &str| MailError::Refused(format!("{what} cannot be written into a mail"));
        let to: Mailbox = mail.to.parse().map_err(|_| unusable("the recipient"))?;
        let address = to.email.clone();
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(&mail.subject)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
            .map_err(|_| unusable("the text"))?;
        Ok((address, message.formatted()))
    }

    /// Hands the mail over. Returns the connection, which is still to be closed, once the server has it.
    async fn hand_over(&self, to: Address, message: &[u8]) -> Result<AsyncSmtpConnection, MailError> {
        let mut server = self.server.connect().await.map_err(|error| later("connecting", &error))?;
        let from = self.from.email.clone();
        let parameters = parameters(server.server_info(), &[&from, &to], message)?;
        let sender = server.command(commands::Mail::new(Some(from), parameters)).await;
        sender.map_err(|error| later("the sender", &error))?;
        let recipient = server.command(commands::Rcpt::new(to, Vec::new())).await;
        recipient.map_err(|error| match refused_recipient(&error) {
            Some(code) => MailError::Refused(code.to_string()),
            None => later("the recipient", &error),
        })?;
        server.command(commands::Data).await.map_err(|error| later("the text", &error))?;
        server.message(message).await.map_err(|error| later("the text", &error))?;
        Ok(server)
    }
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, id: Uuid, mail: &Mail) -> Result<(), MailError> {
        let (to, message) = self.write(id, mail)?;
        let mut server = timeout(TIME, self.hand_over(to, &message))
            .await
            .map_err(|_| MailError::Later(format!("it took longer than {} s", TIME.as_secs())))??;
        let _ = timeout(GOODBYE, server.quit()).await;
        Ok(())
    }
}

/// What has to be said about a mail that is not all ASCII, if the server understands it.
fn parameters(
    server: &ServerInfo,
    people: &[&Address],
    message: &[u8],
) -> Result<Vec<MailParameter>, MailError> {
    let in_ascii = |address: &&Address| AsRef::<str>::as_ref(*address).is_ascii();
    let mut needed = Vec::new();
    if !people.iter().all(in_ascii) {
        needed.push((Extension::SmtpUtfEight, MailParameter::SmtpUtfEight));
    }
    if !message.is_ascii() {
        needed.push((Extension::EightBitMime, MailParameter::Body(MailBodyParameter::EightBitMime)));
    }
    if !needed.iter().all(|(extension, _)| server.supports_feature(*extension)) {
        return Err(MailError::Later("the server takes ASCII only".into()));
    }
    Ok(needed.into_iter().map(|(_, parameter)| parameter).collect())
}

/// The code of an answer to `RCPT` that is about the recipient.
///
/// The others are about us: we may not send at all, have to sign in, or spoke out of turn. So are those that give a policy
/// as their reason (RFC 3463, 3.8), whatever their code: relaying is denied, or our address is on a list of senders.
fn refused_recipient(error: &Error) -> Option<u16> {
    let code = error.status().map(u16::from)?;
    // The cause of an error with a code is the text beside the code.
    let is_policy = error.source().is_some_and(|text| text.to_string().starts_with("5.7."));
    (matches!(code, 501 | 550..=553 | 556) && !is_policy).then_some(code)
}

/// The server's sentence may quote the address; its code does not.
fn later(what: &str, error: &Error) -> MailError {
    MailError::Later(match error.status() {
        Some(code) => format!("{code} at {what}"),
        None if error.is_response() => format!("no proper answer at {what}"),
        None => format!("{error} at {what}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::job::CLAIM;

    #[test]
    fn an_attempt_ends_before_another_runner_takes_the_job() {
        assert!(TIME + GOODBYE < CLAIM.unsigned_abs());
    }
}
