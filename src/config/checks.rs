//! What a profile refuses although it can be read.

use secrecy::ExposeSecret as _;
use url::Url;

use super::{Config, MailSettings, ProviderKind, reader::Reader};
use crate::platform::db;

/// Development answers to this machine only.
pub fn development(config: &Config, r: &mut Reader) {
    let addresses = [
        ("server.listen", Some(config.server.listen)),
        ("server.metrics_listen", config.server.metrics_listen),
    ];
    for (key, address) in addresses {
        if address.is_some_and(|address| !address.ip().is_loopback()) {
            r.fault(key, "is not this machine; development listens on 127.0.0.1 or [::1] only");
        }
    }
}

/// Production refuses what would be dangerous there.
pub fn production(config: &Config, r: &mut Reader) {
    if config.server.public_url.scheme() != "https" {
        r.fault("server.public_url", "is not https");
    }
    if config.server.frontend_url.scheme() != "https" {
        r.fault("server.frontend_url", "is not https");
    }
    if config.server.trusted_proxies.trusts_everybody() {
        r.fault("server.trusted_proxies", "trusts everybody, so that anybody can be anybody");
    }
    if matches!(config.mail, MailSettings::Mailbox) {
        r.fault("mail.transport", "is mailbox, which is a development helper");
    }
    if let MailSettings::Smtp(smtp) = &config.mail
        && is_exposed_smtp(smtp.url.expose_secret())
    {
        r.fault("mail.smtp_url", "is not encrypted; use smtps:// or smtp://…?tls=required");
    }
    for provider in &config.route {
        match &provider.kind {
            ProviderKind::Demo(_) => {
                r.fault("chat.route", format!("names “{}”, which is a development helper", provider.name));
            }
            ProviderKind::OpenAi(settings) if is_exposed(&settings.base_url) => {
                let key = format!("chat.providers.{}.base_url", provider.name);
                r.fault(&key, "is not https, and not on this machine");
            }
            ProviderKind::OpenAi(_) => {}
        }
    }
    if let Ok(postgres) = config.database.url.expose_secret().parse::<tokio_postgres::Config>()
        && !db::is_this_machine(&postgres)
    {
        if postgres.get_password().is_none() {
            r.fault("database.url", "names another machine without a password");
        }
        let says_otherwise = ["sslmode=disable", "sslmode=prefer"];
        if says_otherwise.iter().any(|mode| config.database.url.expose_secret().contains(mode)) {
            r.fault(
                "database.url",
                "names another machine without TLS; leave sslmode out or use sslmode=require",
            );
        }
    }
}

fn is_exposed(url: &Url) -> bool {
    let this_machine = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() != "https" && !this_machine
}

fn is_exposed_smtp(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let required =
        url.query_pairs().any(|(name, value)| name == "tls" && (value == "required" || value == "wrapper"));
    let this_machine = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    url.scheme() != "smtps" && !required && !this_machine
}
