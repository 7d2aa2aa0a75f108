//! A mail server's address, and connecting to it.
//!
//! The address has the forms that lettre reads for its own transport. That transport does not tell whether the server or
//! the recipient was refused, so the conversation is led by us, and with it the connection.

use std::time::Duration;

use lettre::transport::smtp::{
    Error, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT,
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, Tls, TlsParameters},
    extension::ClientId,
};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// How long one address of the server may take to accept a connection. A name may have several.
const CONNECT: Duration = Duration::from_secs(10);

/// A mail server.
pub(super) struct Server {
    host: String,
    port: u16,
    tls: Tls,
    hello: ClientId,
    credentials: Option<Credentials>,
}

impl Server {
    /// Reads `scheme://user:password@host:port/name?tls=…`; `None` if it cannot be used.
    pub(super) fn parse(url: &str) -> Option<Server> {
        let url = Url::parse(url).ok()?;
        let host = match url.host()? {
            Host::Ipv6(address) => address.to_string(),
            other => other.to_string(),
        };
        let wanted = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value);
        let parameters = || TlsParameters::new(host.clone()).ok();
        let (tls, port) = match (url.scheme(), wanted.as_deref()) {
            ("smtp", None) => (Tls::None, SMTP_PORT),
            ("smtp", Some("required")) => (Tls::Required(parameters()?), SUBMISSION_PORT),
            ("smtp", Some("opportunistic")) => (Tls::Opportunistic(parameters()?), SUBMISSION_PORT),
            ("smtps", _) => (Tls::Wrapper(parameters()?), SUBMISSIONS_PORT),
            _ => return None,
        };
        let decoded = |text| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(decoded(url.username())?, decoded(password)?)),
            None => None,
        };
        let hello = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        Some(Server { port: url.port().unwrap_or(port), host, tls, hello, credentials })
    }

    /// Connects, encrypts and signs in as the address says.
    pub(super) async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let from_the_start = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let to = (self.host.as_str(), self.port);
        let mut server =
            AsyncSmtpConnection::connect_tokio1(to, Some(CONNECT), &self.hello, from_the_start, None).await?;
        match &self.tls {
            Tls::Required(parameters) => server.starttls(parameters.clone(), &self.hello).await?,
            Tls::Opportunistic(parameters) if server.can_starttls() => {
                server.starttls(parameters.clone(), &self.hello).await?;
            }
            _ => {}
        }
        if let Some(credentials) = &self.credentials {
            server.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        let read = |url| {
            let server = Server::parse(url)?;
            let tls = match server.tls {
                Tls::None => "none",
                Tls::Opportunistic(_) => "opportunistic",
                Tls::Required(_) => "required",
                Tls::Wrapper(_) => "wrapper",
            };
            Some((server.host, server.port, tls, server.hello.to_string(), server.credentials))
        };
        let form = |host: &str, port, tls| Some((host.to_owned(), port, tls, "[127.0.0.1]".to_owned(), None));
        assert_eq!(read("smtp://mail.example.com"), form("mail.example.com", 25, "none"));
        assert_eq!(read("smtp://127.0.0.1:2525"), form("127.0.0.1", 2525, "none"));
        assert_eq!(read("smtp://[::1]:2525"), form("::1", 2525, "none"));
        assert_eq!(read("smtp://m.example?tls=required"), form("m.example", 587, "required"));
        assert_eq!(read("smtp://m.example?tls=opportunistic"), form("m.example", 587, "opportunistic"));
        assert_eq!(read("smtps://m.example"), form("m.example", 465, "wrapper"));
        let (.., hello, credentials) = read("smtps://me%40m.example:p%2Fa+s%25@m.example/our.name").unwrap();
        assert_eq!(hello, "our.name");
        assert_eq!(credentials, Some(Credentials::new("me@m.example".into(), "p/a+s%".into())));
    }

    #[test]
    fn what_is_no_address_is_not_read() {
        for url in
            ["", "mail.example.com", "http://m.example", "smtp://", "smtp://m.example?tls=yes", "smtps:x"]
        {
            assert!(Server::parse(url).is_none(), "{url}");
        }
    }
}
