//! What a profile refuses although it can be read.
//!
//! Each value is judged where it is read, whatever is wrong with the others, so that all faults are told at once.

use std::net::SocketAddr;

use url::Url;

use super::{Profile, reader::Reader};
use crate::platform::{db, proxies::TrustedProxies};

/// Development answers to this machine only.
pub fn listen(r: &mut Reader, profile: Profile, key: &str, address: Option<SocketAddr>) {
    if profile == Profile::Development && address.is_some_and(|address| !address.ip().is_loopback()) {
        r.fault(key, "is not this machine; development listens on 127.0.0.1 or [::1] only");
    }
}

/// What browsers are sent to is encrypted in production.
pub fn https(r: &mut Reader, profile: Profile, key: &str, url: Option<&Url>) {
    if profile == Profile::Production && url.is_some_and(|url| url.scheme() != "https") {
        r.fault(key, "is not https");
    }
}

/// A page that came unencrypted may have been written by whoever was on the way, and would read the answers.
pub fn origins(r: &mut Reader, profile: Profile, origins: &[String]) {
    let exposed = origins.iter().find(|origin| !origin.starts_with("https://"));
    if profile == Profile::Production
        && let Some(origin) = exposed
    {
        r.fault("server.allowed_origins", format!("has “{origin}”, which is not https"));
    }
}

/// What people say must not cross a network unencrypted, nor lie behind an open door.
pub fn database(r: &mut Reader, profile: Profile, url: &str) {
    if profile == Profile::Production {
        for complaint in db::exposures(url) {
            r.fault("database.url", complaint);
        }
    }
}

/// Who trusts everybody knows nobody.
pub fn proxies(r: &mut Reader, profile: Profile, proxies: Option<&TrustedProxies>) {
    if profile == Profile::Production && proxies.is_some_and(TrustedProxies::trusts_everybody) {
        r.fault("server.trusted_proxies", "trusts everybody, so that anybody can be anybody");
    }
}

/// The mailbox is a helper.
pub fn mailbox(r: &mut Reader, profile: Profile) {
    if profile == Profile::Production {
        r.fault("mail.transport", "is mailbox, which is a development helper");
    }
}

/// Mail holds codes, and the way to the server a password.
pub fn mail_url(r: &mut Reader, profile: Profile, url: &str) {
    if profile == Profile::Production && is_exposed_smtp(url) {
        r.fault("mail.smtp_url", "is not encrypted; use smtps:// or smtp://…?tls=required");
    }
}

/// The demo companion is a helper.
pub fn routed_demo(r: &mut Reader, profile: Profile, name: &str) {
    if profile == Profile::Production {
        r.fault("chat.route", format!("names “{name}”, which is a development helper"));
    }
}

/// A checkout where nothing is paid is a helper.
pub fn dev_gateway(r: &mut Reader, profile: Profile, key: &str) {
    if profile == Profile::Production {
        r.fault(key, "is dev, which is a development helper");
    }
}

/// The shortest secret that a payment provider shares with us in production, in characters.
const SHORTEST_PAYMENT_SECRET: usize = 16;

/// Whoever guesses such a secret pays with it.
pub fn payment_secret(r: &mut Reader, profile: Profile, key: &str, secret: &str) {
    if profile == Profile::Production && secret.len() < SHORTEST_PAYMENT_SECRET {
        r.fault(key, "has fewer than 16 characters");
    }
}

/// A provider gets people's words and our key.
pub fn provider_url(r: &mut Reader, profile: Profile, key: &str, url: Option<&Url>) {
    if profile == Profile::Production && url.is_some_and(is_exposed) {
        r.fault(key, "is not https, and not on this machine");
    }
}

/// A service that is asked about passwords.
pub fn breach_check_url(r: &mut Reader, profile: Profile, url: Option<&Url>) {
    if profile == Profile::Production && url.is_some_and(is_exposed) {
        r.fault("auth.breach_check_url", "is not https, and not on this machine");
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
    // The first one counts, as it does where mails are sent.
    let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value);
    let required = matches!(tls.as_deref(), Some("required" | "wrapper"));
    let this_machine = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    url.scheme() != "smtps" && !required && !this_machine
}
