//! Addresses: where a server listens, and where a client comes from.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The address of a socket's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6, with the port.
    Ip(SocketAddr),
    /// A unix socket's path; empty for a client that has none.
    Unix(PathBuf),
}

impl Address {
    /// The address as a person would open it: `http://127.0.0.1:8000/`, or `unix:PATH`.
    pub fn url(&self) -> String {
        match self {
            Address::Ip(address) => format!("http://{address}/"),
            Address::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

/// The address of a client, as each connection has one: mostly in so few bytes that none are allocated.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    V4(Ipv4Addr, u16),
    Other(Box<Address>),
}

impl From<Address> for Peer {
    fn from(address: Address) -> Peer {
        match address {
            Address::Ip(SocketAddr::V4(address)) => Peer::V4(*address.ip(), address.port()),
            address => Peer::Other(Box::new(address)),
        }
    }
}

impl Peer {
    /// The address in full.
    pub(crate) fn address(&self) -> Address {
        match self {
            Peer::V4(ip, port) => Address::Ip((*ip, *port).into()),
            Peer::Other(address) => Address::clone(address),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Unix(path) if path.as_os_str().is_empty() => f.write_str("a unix socket"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_keeps_any_address() {
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        let unix = |path: &str| Address::Unix(path.into());
        for address in [ip("127.0.0.1:80"), ip("[fe80::1%3]:65535"), unix(""), unix("/a")] {
            assert_eq!(Peer::from(address.clone()).address(), address);
        }
        assert!(size_of::<Peer>() <= 16);
    }
}
