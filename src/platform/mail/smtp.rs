//! Mail over SMTP.

use std::time::Duration;

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox as Address, MultiPart},
    transport::smtp::AsyncSmtpTransportBuilder,
};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::{Mail, MailError, Mailer};

/// How long the server may take for one command.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where mail goes.
#[derive(Clone, Debug)]
pub struct SmtpSettings {
    /// `smtps://user:password@host` or `smtp://…?tls=required`; a secret, because of the password.
    pub url: SecretString,
    /// The sender, as `Name <address>`.
    pub from: String,
}

/// An SMTP server.
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Address,
}

impl SmtpSettings {
    /// Whether the settings can be used.
    ///
    /// # Errors
    ///
    /// A sentence that says which one cannot, without showing it.
    pub fn check(&self) -> Result<(), String> {
        self.parse().map(|_| ())
    }

    fn parse(&self) -> Result<(AsyncSmtpTransportBuilder, Address), String> {
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(self.url.expose_secret())
            .map_err(|_| "the address of the mail server cannot be read")?;
        let from = self.from.parse().map_err(|_| "the sender's address cannot be read")?;
        Ok((builder.timeout(Some(TIMEOUT)), from))
    }
}

impl Smtp {
    /// Prepares to send; connects with the first mail. Needs a runtime, which tends the pool of connections.
    ///
    /// # Errors
    ///
    /// As [`SmtpSettings::check`].
    pub fn new(settings: &SmtpSettings) -> Result<Smtp, String> {
        let (builder, from) = settings.parse()?;
        Ok(Smtp { transport: builder.build(), from })
    }
}

#[async_trait]
impl Mailer for Smtp {
    async fn send(&self, id: Uuid, mail: &Mail) -> Result<(), MailError> {
        let unusable = |what: &str| MailError::Refused(format!("{what} cannot be written into a mail"));
        let to = mail.to.parse().map_err(|_| unusable("the recipient"))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(&mail.subject)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
            .map_err(|_| unusable("the text"))?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            // The server's sentence may quote the address; its code does not.
            Err(error) => {
                let code = error.status().map_or_else(|| "no answer".to_owned(), |code| code.to_string());
                Err(if error.is_permanent() { MailError::Refused(code) } else { MailError::Later(code) })
            }
        }
    }
}
