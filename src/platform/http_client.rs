//! HTTP clients for calls to the outside.

use std::time::Duration;

use reqwest::{Client, redirect};

/// Builds a client for one purpose.
///
/// It follows no redirects, so a key never travels to another host; it speaks HTTP/1.1, so that streams never queue
/// behind one connection; it asks no environment variable for a proxy; it does not decompress. `idle` bounds the
/// silence between two reads. There is no limit on the whole exchange: callers set theirs.
///
/// # Errors
///
/// When the system's certificate authorities cannot be loaded.
pub fn build(connect: Duration, idle: Duration) -> reqwest::Result<Client> {
    #[expect(clippy::disallowed_methods, reason = "the one place that builds clients")]
    Client::builder()
        .connect_timeout(connect)
        .read_timeout(idle)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .user_agent(concat!("digitalmistress/", env!("CARGO_PKG_VERSION")))
        .build()
}
