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

/// The address of whoever sent a request, as the edge found it out.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// Who a request comes from, as far as the connection and proxies of ours tell: for throttles, the audit and the list of
/// sessions.
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
        let found = parts.extensions.get::<ClientAddress>();
        let address = found.map_or_else(|| peer(parts), |found| found.0);
        Ok(Client { address, agent: agent(&parts.headers) })
    }
}

/// The other end of the connection.
fn peer(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<PeerAddress>();
    // Every connection has a peer; without one, all share the bucket of an address that nobody has.
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip().to_canonical())
}

fn agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    let kept: String = text.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect();
    (!kept.is_empty()).then_some(kept)
}

/// What one subscriber cannot change about an address: all of it in IPv4, the first 64 bits in IPv6. The same bytes for
/// every spelling, and none that begin like others.
pub fn network_key(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => [&[4][..], &v4.octets()].concat(),
        IpAddr::V6(v6) => std::iter::once(6).chain(v6.octets().into_iter().take(8)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> Vec<u8> {
        network_key(text.parse().unwrap())
    }

    #[test]
    fn a_subscriber_has_one_key_however_the_address_is_spelled() {
        for (one, other, same) in [
            ("203.0.113.7", "::ffff:203.0.113.7", true),
            ("203.0.113.7", "::ffff:cb00:7107", true),
            ("203.0.113.7", "203.0.113.8", false),
            ("2001:db8:1:2::1", "2001:0DB8:0001:0002:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::1", "0.0.0.1", false),
        ] {
            assert_eq!(key(one) == key(other), same, "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn a_whole_64_is_one_subscriber(network in any::<u64>(), host in any::<u64>(), other in any::<u64>()) {
            let address = |host| IpAddr::V6((u128::from(network) << 64 | u128::from(host)).into());
            prop_assume!(network != 0);
            prop_assert_eq!(network_key(address(host)), network_key(address(other)));
        }
    }
}
