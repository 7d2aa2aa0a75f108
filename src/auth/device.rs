//! Where a session is begun from.

use std::net::IpAddr;

use crate::platform::{problem::Invalid, valid::single_line};

/// The longest name of a device, in characters.
const MAX_NAME: usize = 64;

/// Where a session is begun from.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// What the client called itself.
    pub name: Option<String>,
    /// The network, never the whole address.
    pub network: Option<String>,
}

impl Device {
    /// A device by what the client calls it, at an address of which only the network is kept.
    pub fn parse(name: Option<&str>, address: IpAddr) -> Result<Device, Invalid> {
        let name = name.map(|name| single_line(name, MAX_NAME)).transpose()?;
        Ok(Device { name, ..Device::at(address) })
    }

    /// A device without a name.
    pub fn at(address: IpAddr) -> Device {
        Device { name: None, network: Some(network(address)) }
    }
}

/// The network of an address: enough to recognise one's own sessions, too little to follow anybody.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_as_networks() {
        for (address, kept) in [
            ("203.0.113.7", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("::1", "::/48"),
        ] {
            assert_eq!(network(address.parse().unwrap()), kept);
        }
    }
}
