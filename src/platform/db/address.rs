//! What an address of PostgreSQL says about how safely it is spoken to.

use std::net::IpAddr;

use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use url::Url;

/// Whether everything that the address names is this machine. A `hostaddr` counts instead of its host: it is what is
/// connected to.
pub(super) fn is_this_machine(config: &Config) -> bool {
    let names = config.get_hosts();
    let addresses = config.get_hostaddrs();
    let is_local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    };
    if addresses.is_empty() {
        !names.is_empty() && names.iter().all(is_local)
    } else {
        addresses.iter().all(IpAddr::is_loopback)
    }
}

/// Whether the address itself decides about TLS.
pub(super) fn names_ssl_mode(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.query_pairs().any(|(name, _)| name == "sslmode"))
}

/// What is dangerous about the address: complaints for the operator, none of which shows it. Empty for SQLite.
pub fn exposures(url: &str) -> Vec<&'static str> {
    let Ok(config) = url.parse::<Config>() else { return Vec::new() };
    if is_this_machine(&config) {
        return Vec::new();
    }
    let mut found = Vec::new();
    if config.get_password().is_none_or(<[u8]>::is_empty) {
        found.push("names another machine without a password");
    }
    if names_ssl_mode(url) && config.get_ssl_mode() != SslMode::Require {
        found.push("names another machine without TLS; leave sslmode out or use sslmode=require");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_judged_by_what_is_connected_to() {
        for (url, complaints) in [
            ("sqlite:data/x.sqlite", 0),
            ("postgres://app@127.0.0.1/dm", 0),
            ("postgres://app@localhost/dm?sslmode=disable", 0),
            ("postgres:///dm?host=/run/postgresql&user=app", 0),
            ("postgres://app:p@db.example.com/dm", 0),
            ("postgres://app:p@db.example.com/dm?sslmode=require", 0),
            ("postgres://app@db.example.com/dm", 1),
            ("postgres://app:@db.example.com/dm", 1),
            ("postgres://app:p@db.example.com/dm?sslmode=prefer", 1),
            ("postgres://app:p@db.example.com/dm?sslmode=%64isable", 1),
            ("postgres://app@localhost/dm?hostaddr=10.0.0.5", 1),
            ("postgres:///dm?user=app&hostaddr=10.0.0.5", 1),
            ("postgres://app:p@localhost,db.example.com/dm?sslmode=disable", 1),
        ] {
            assert_eq!(exposures(url).len(), complaints, "{url}: {:?}", exposures(url));
        }
        let config = "postgres://app:p@db.example.com/dm?application_name=sslmode=";
        assert!(!names_ssl_mode(config), "TLS is required where the address does not say otherwise");
    }
}
