//! The other end of a request.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::server::PeerAddress;

/// The longest user agent that is kept, in characters.
const MAX_AGENT: usize = 200;

/// Who a request comes from, as far as the connection tells: for throttles, the audit and the list of sessions.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address; one of IPv4 is written as such, however it arrived.
    pub address: IpAddr,
    /// What the client calls itself. Anybody can write anything here.
    pub agent: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<PeerAddress>();
        // Every connection has a peer; without one, all share the bucket of an address that nobody has.
        let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip().to_canonical());
        Ok(Client { address, agent: agent(&parts.headers) })
    }
}

fn agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    let kept: String = text.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect();
    (!kept.is_empty()).then_some(kept)
}
