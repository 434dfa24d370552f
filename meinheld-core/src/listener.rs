//! Listening sockets: made from an address or taken over, and the errors a person can act on.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::address::Address;
use crate::sys;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: Arc<Address>,
    /// The file of a unix socket of our own making, to be removed with it.
    owned_path: Option<OwnedPath>,
    /// Whether somebody else has opened it, and holds it too.
    inherited: bool,
}

/// A socket's file, wherever the process goes, and the process that made it: a forked child must not
/// remove it.
#[derive(Debug)]
struct OwnedPath {
    path: PathBuf,
    process: u32,
}

/// Why there is no listener.
#[derive(Debug)]
pub struct ListenError {
    /// What was to be listened on.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.source)
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Listener {
    /// Listens on a host's addresses, IPv4 and IPv6; port 0 lets the system choose.
    ///
    /// `backlog` is how many connections may wait to be accepted.
    ///
    /// # Errors
    /// When the host is not known, or an address cannot be had.
    pub fn tcp(host: &str, port: u16, backlog: i32) -> Result<Vec<Listener>, ListenError> {
        let failed = |source| ListenError { address: format!("{host}:{port}"), source };
        let mut addresses: Vec<SocketAddr> =
            (host, port).to_socket_addrs().map_err(failed)?.collect();
        addresses.dedup();
        let mut listeners = Vec::new();
        let mut unavailable = None;
        for address in addresses {
            match Listener::socket_address(address, backlog) {
                Ok(listener) => listeners.push(listener),
                // A host's name may have an address of a family that this system does not have.
                Err(error) if is_unavailable(&error.source) => unavailable = Some(error),
                Err(error) => return Err(error),
            }
        }
        match unavailable {
            Some(error) if listeners.is_empty() => Err(error),
            _ => Ok(listeners),
        }
    }

    /// Listens on one address; port 0 lets the system choose.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn socket_address(address: SocketAddr, backlog: i32) -> Result<Listener, ListenError> {
        let failed = |source| ListenError { address: address.to_string(), source };
        let socket = sys::bind_tcp(address, backlog).map_err(failed)?;
        let address = sys::local_address(socket.as_raw_fd()).map_err(failed)?;
        Ok(Listener { socket, address: Arc::new(address), owned_path: None, inherited: false })
    }

    /// Listens on a unix socket. A socket's file that nobody listens on any more is replaced; the
    /// file is removed when the listener goes.
    ///
    /// # Errors
    /// When somebody listens there (`AddrInUse`), when the path is a file of another kind, or when
    /// it cannot be made.
    pub fn unix(path: &Path, backlog: i32) -> Result<Listener, ListenError> {
        let failed = |source| ListenError { address: format!("unix:{}", path.display()), source };
        remove_stale(path).map_err(failed)?;
        let socket = sys::bind_unix(path, backlog).map_err(failed)?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let owned_path = OwnedPath { path: absolute, process: std::process::id() };
        let address = Arc::new(Address::Unix(path.to_path_buf()));
        Ok(Listener { socket, address, owned_path: Some(owned_path), inherited: false })
    }

    /// Listens on a socket that this process has inherited, by a descriptor of its own: the caller
    /// may close the one given. The socket is made non-blocking.
    ///
    /// # Errors
    /// When the descriptor is not open, no socket, or not listening.
    pub fn inherit(fd: RawFd) -> Result<Listener, ListenError> {
        let failed = |source| ListenError { address: format!("fd://{fd}"), source };
        let sys::Inherited { socket, address } = sys::inherit(fd).map_err(failed)?;
        Ok(Listener { socket, address: Arc::new(address), owned_path: None, inherited: true })
    }

    /// The address that it really listens on.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited
    }

    pub(crate) fn shared_address(&self) -> Arc<Address> {
        Arc::clone(&self.address)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(owned) = &self.owned_path
            && owned.process == std::process::id()
        {
            let _ = std::fs::remove_file(&owned.path);
        }
    }
}

fn is_unavailable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(sys::EAFNOSUPPORT)
}

/// Removes a socket's file if connecting to it shows that nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        let message = "a file that is no socket is in the way";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    if sys::is_listened_on(path)? {
        return Err(io::Error::from_raw_os_error(sys::EADDRINUSE));
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_port_in_use_is_an_error_that_names_the_address() {
        let first = Listener::tcp("127.0.0.1", 0, 16).unwrap();
        let Address::Ip(address) = first[0].address() else { panic!("a TCP address") };
        let error = Listener::socket_address(*address, 16).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")));
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = Listener::unix(&path, 16).unwrap();
        let error = Listener::unix(&path, 16).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        drop(live);
        assert!(!path.exists(), "the listener removes its file");
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::unix(&path, 16).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn an_inherited_descriptor_must_listen() {
        let stream = UnixStream::pair().unwrap();
        let error = Listener::inherit(stream.0.as_raw_fd()).unwrap_err();
        assert!(error.to_string().ends_with("the socket is not listening"), "{error}");
        assert!(Listener::inherit(99_999).is_err());
    }
}
