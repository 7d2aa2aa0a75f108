//! Mail over SMTP.

use std::time::Duration;

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox as Address, MultiPart},
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

impl Smtp {
    /// Reads the settings; connects when the first mail is sent.
    ///
    /// # Errors
    ///
    /// A sentence that says which setting cannot be used, without showing it.
    pub fn new(settings: &SmtpSettings) -> Result<Smtp, String> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(settings.url.expose_secret())
            .map_err(|_| "the address of the mail server cannot be read")?
            .timeout(Some(TIMEOUT))
            .build();
        let from = settings.from.parse().map_err(|_| "the sender's address cannot be read")?;
        Ok(Smtp { transport, from })
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
