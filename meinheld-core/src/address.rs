//! Addresses: where a server listens, and where a client comes from.

use std::fmt;
use std::net::SocketAddr;
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Unix(path) if path.as_os_str().is_empty() => f.write_str("a unix socket"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
