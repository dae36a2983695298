//! The network of a client, by which clients without a key are told apart.

use std::net::IpAddr;

/// The network that a client belongs to. The clients of one network count as one where no client key tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientNetwork {
    /// One IPv4 address.
    Ipv4([u8; 4]),
    /// The first 64 bits of an IPv6 address. A host may choose the other bits freely (RFC 4291 section 2.5.4).
    Ipv6(u64),
    /// The clients of Unix sockets.
    Local,
}

impl From<Option<IpAddr>> for ClientNetwork {
    /// The network of a client's address; `None` is a client of a Unix socket.
    fn from(address: Option<IpAddr>) -> Self {
        // A listener for both versions of IP sees an IPv4 address as an IPv6 address.
        match address.map(|address| address.to_canonical()) {
            None => Self::Local,
            Some(IpAddr::V4(address)) => Self::Ipv4(address.octets()),
            Some(IpAddr::V6(address)) => Self::Ipv6((address.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> ClientNetwork {
        ClientNetwork::from(Some(address.parse().expect("an address")))
    }

    #[test]
    fn clients_are_told_apart_by_address_or_by_64_bits_of_it() {
        for (one, other, is_same) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            assert_eq!(network(one) == network(other), is_same, "{one} {other}");
        }
        assert_eq!(ClientNetwork::from(None), ClientNetwork::Local);
    }
}
