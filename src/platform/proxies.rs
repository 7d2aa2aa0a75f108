//! Proxies in front of the program, and the address of the client behind them.
//!
//! `X-Forwarded-For` is a list to which each proxy adds the address that it was called from. Whatever stands left of the
//! first address that is not a proxy of ours can have been written by anybody.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use axum::http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A network: the addresses that share their first bits. One of IPv4 is kept as IPv6 writes it (`::ffff:a.b.c.d`), so that
/// an address is the same however it is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    prefix: u32,
}

impl Network {
    /// Whether an address belongs to it.
    pub fn contains(&self, address: IpAddr) -> bool {
        (bits(address) ^ self.bits) & self.mask() == 0
    }

    /// Whether everybody belongs to it, at least everybody who speaks IPv4 or IPv6.
    pub fn is_everybody(&self) -> bool {
        self.prefix == 0 || (self.prefix == 96 && self.contains(IpAddr::V4([0; 4].into())))
    }

    fn mask(&self) -> u128 {
        // A shift by all 128 bits is no shift.
        u128::MAX.checked_shl(128u32.saturating_sub(self.prefix)).unwrap_or(0)
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| ())?;
        let (longest, before): (u32, u32) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let length = length.map_or(Ok(longest), |length| length.trim().parse().map_err(|_| ()))?;
        if length > longest {
            return Err(());
        }
        Ok(Network { bits: bits(address), prefix: length.saturating_add(before) })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The proxies whose word is taken.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<Network>);

impl TrustedProxies {
    /// Proxies in these networks.
    pub fn new(networks: Vec<Network>) -> TrustedProxies {
        TrustedProxies(networks)
    }

    /// Whether this address is a proxy of ours.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether anybody is believed, so that nobody is known.
    pub fn trusts_everybody(&self) -> bool {
        self.0.iter().any(Network::is_everybody)
    }

    /// Who calls: the peer, or, if that is a proxy of ours, the last one before our proxies. One of IPv4 is written as such.
    /// Where a header is malformed before that one is found, the peer it is.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if self.trusts(peer) { self.last_before_us(headers).unwrap_or(peer) } else { peer }
    }

    fn last_before_us(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let mut farthest = None;
        // Several lines are one list.
        for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            // What a stranger put before the last hop may be no text; that must not hide the hop.
            let line = String::from_utf8_lossy(line.as_bytes());
            for hop in line.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
                let address = hop_address(hop)?;
                if !self.trusts(address) {
                    return Some(address);
                }
                farthest = Some(address);
            }
        }
        farthest
    }

    /// Whether somebody who is no proxy of ours says who they are. Either it is a lie, or the settings lack a proxy, and
    /// then all its clients share one throttle.
    pub fn is_spoken_for(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let says = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED);
        says && !self.trusts(peer.to_canonical())
    }
}

/// An address as proxies write it: alone, or with a port.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = match bracketed {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse::<IpAddr>().ok(),
    };
    let address = alone.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn proxies(networks: &[&str]) -> TrustedProxies {
        TrustedProxies::new(networks.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let value = |line: &&str| HeaderValue::from_bytes(line.as_bytes()).unwrap();
        lines.iter().map(|line| (X_FORWARDED_FOR, value(line))).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_and_contain_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.0.0.1", "9.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1/32", "::ffff:127.0.0.1", "::1"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "0:0:0:0:0:0:0:1", "::2"),
            ("0.0.0.0/0", "255.1.2.3", "2001:db8::1"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(ip(inside)), "{inside} in {network}");
            assert!(!parsed.contains(ip(outside)), "{outside} in {network}");
        }
        for text in
            ["", "/", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/8/8", "localhost", "*"]
        {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
        for (network, everybody) in
            [("0.0.0.0/0", true), ("::/0", true), ("0.0.0.0/1", false), ("10.0.0.0/8", false)]
        {
            assert_eq!(network.parse::<Network>().unwrap().is_everybody(), everybody, "{network}");
        }
    }

    #[test]
    fn the_last_address_before_our_proxies_is_the_clients() {
        let ours = proxies(&["10.0.0.0/8", "2001:db8:f::/48"]);
        for (peer, lines, client) in [
            // Nobody has to be believed.
            ("203.0.113.9", vec!["1.1.1.1"], "203.0.113.9"),
            ("::ffff:203.0.113.9", vec!["1.1.1.1"], "203.0.113.9"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec![""], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", vec!["198.51.100.7"], "198.51.100.7"),
            // What the client wrote itself stands farther left.
            ("10.0.0.1", vec!["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["10.0.0.5, 1.1.1.1, 198.51.100.7 ,10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", vec!["garbage\u{e9}, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["garbage, 198.51.100.7"], "198.51.100.7"),
            // Several lines are one list.
            ("10.0.0.1", vec!["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["1.1.1.1, 198.51.100.7", "10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", vec!["198.51.100.7,", " , "], "198.51.100.7"),
            // All of them ours: the farthest.
            ("10.0.0.1", vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // Ports, brackets, spellings.
            ("10.0.0.1", vec!["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", vec!["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.0.0.1", vec!["[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1", vec!["2001:0DB8:0:0:0:0:0:7"], "2001:db8::7"),
            ("10.0.0.1", vec!["::ffff:198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", vec!["::ffff:c633:6407"], "198.51.100.7"),
            ("10.0.0.1", vec!["198.51.100.7, 2001:db8:f::1"], "198.51.100.7"),
            // Malformed before the client is found: ignored as a whole.
            ("10.0.0.1", vec!["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.7, 10.0.0.2, _hidden"], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.7;1.1.1.1"], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.007"], "10.0.0.1"),
            ("10.0.0.1", vec!["fe80::1%eth0"], "10.0.0.1"),
            ("10.0.0.1", vec!["[198.51.100.7]"], "10.0.0.1"),
            ("10.0.0.1", vec!["for=198.51.100.7"], "10.0.0.1"),
        ] {
            assert_eq!(ours.client(ip(peer), &headers(&lines)), ip(client), "{peer} {lines:?}");
        }
    }

    #[test]
    fn who_speaks_for_others_unasked_is_noticed() {
        let ours = proxies(&["10.0.0.0/8"]);
        let forwarded = HeaderMap::from_iter([(header::FORWARDED, HeaderValue::from_static("for=1.1.1.1"))]);
        assert!(ours.is_spoken_for(ip("203.0.113.9"), &headers(&["1.1.1.1"])));
        assert!(ours.is_spoken_for(ip("203.0.113.9"), &forwarded));
        assert!(!ours.is_spoken_for(ip("::ffff:10.0.0.1"), &headers(&["1.1.1.1"])));
        assert!(!ours.is_spoken_for(ip("203.0.113.9"), &HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_writes_changes_who_it_is(
            lines in prop::collection::vec("[ -~]{0,40}", 0..4), address in any::<u128>(),
        ) {
            let ours = proxies(&["10.0.0.0/8"]);
            let client = IpAddr::V6(Ipv6Addr::from_bits(address)).to_canonical();
            prop_assume!(!ours.trusts(client));
            let mut lines: Vec<String> = lines;
            let written: Vec<&str> = lines.iter().map(String::as_str).collect();
            // Without a proxy.
            prop_assert_eq!(ours.client(client, &headers(&written)), client);
            // Through one that adds a line, and one that adds to the last line.
            let mut added = written.clone();
            let text = client.to_string();
            added.push(&text);
            prop_assert_eq!(ours.client(ip("10.0.0.1"), &headers(&added)), client);
            let last = lines.pop().unwrap_or_default();
            lines.push(format!("{last}, {client}"));
            let joined: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(ours.client(ip("10.0.0.1"), &headers(&joined)), client);
        }
    }
}
