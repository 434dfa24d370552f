//! Sockets: listening, accepting, receiving, sending. All of them non-blocking, close-on-exec.

use std::fs::Permissions;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::syscall;
use crate::address::Address;

/// An address as the kernel writes it.
struct RawAddress {
    storage: libc::sockaddr_storage,
    length: libc::socklen_t,
}

/// A listening socket that another process has opened.
pub(crate) struct Inherited {
    pub(crate) socket: OwnedFd,
    pub(crate) address: Address,
}

/// Opens a listening TCP socket, with `SO_REUSEADDR`.
pub(crate) fn bind_tcp(address: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = open(family)?;
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    send_at_once(&socket)?;
    if address.is_ipv6() {
        set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    listen_on(&socket, &RawAddress::from_ip(address), backlog)?;
    Ok(socket)
}

/// Has a listening TCP socket hand connections over when their first bytes are there, which saves a
/// look for them and a wake-up. One that stays silent is handed over after a second. It is a matter of
/// speed alone: what cannot do it does without.
pub(crate) fn defer_accept(listener: BorrowedFd<'_>) {
    let _ = set_option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1);
}

/// Opens a listening unix socket; its file must not exist, and every user may connect to it: who may
/// reach it is the directory's business, and not that of this process's umask.
pub(crate) fn bind_unix(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let socket = open(libc::AF_UNIX)?;
    let address = RawAddress::from_path(path)?;
    syscall!(bind(socket.as_raw_fd(), address.as_ptr(), address.length))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o777))?;
    syscall!(listen(socket.as_raw_fd(), backlog))?;
    Ok(socket)
}

/// Makes a descriptor of one's own for a listening socket, which it makes non-blocking.
///
/// # Errors
/// EBADF, ENOTSOCK, or EINVAL when it does not listen.
pub(crate) fn inherit(fd: RawFd) -> io::Result<Inherited> {
    let socket = super::duplicate(fd)?;
    let listens = int_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN)?;
    if listens == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket is not listening"));
    }
    let address = local_address(socket.as_raw_fd())?;
    if let Address::Ip(_) = address {
        send_at_once(&socket)?;
    }
    let status = syscall!(fcntl(socket.as_raw_fd(), libc::F_GETFL))?;
    syscall!(fcntl(socket.as_raw_fd(), libc::F_SETFL, status | libc::O_NONBLOCK))?;
    Ok(Inherited { socket, address })
}

/// Whether anybody listens on a unix socket's file; does not wait for a place in a full queue.
pub(crate) fn is_listened_on(path: &Path) -> io::Result<bool> {
    let probe = open(libc::AF_UNIX)?;
    let address = RawAddress::from_path(path)?;
    match syscall!(connect(probe.as_raw_fd(), address.as_ptr(), address.length)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

/// The address that a socket is bound to.
pub(crate) fn local_address(fd: RawFd) -> io::Result<Address> {
    let mut raw = RawAddress::empty();
    syscall!(getsockname(fd, raw.as_mut_ptr(), &raw mut raw.length))?;
    Ok(raw.to_address())
}

/// Accepts a connection; `WouldBlock` when none is there.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let mut raw = RawAddress::empty();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = syscall!(accept4(listener.as_raw_fd(), raw.as_mut_ptr(), &raw mut raw.length, flags))?;
    // SAFETY: the descriptor was just made, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((socket, raw.to_address()))
}

/// Receives into `buffer`; zero is the end of the input.
pub(crate) fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    let count = syscall!(recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0))?;
    Ok(count.unsigned_abs())
}

/// Receives into the spare capacity of `buffer`, which must have some; zero is the end.
pub(crate) fn receive_into(socket: RawFd, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let spare = buffer.spare_capacity_mut();
    debug_assert!(!spare.is_empty(), "no room would look like the end of the input");
    let count = syscall!(recv(socket, spare.as_mut_ptr().cast(), spare.len(), 0))?.unsigned_abs();
    // SAFETY: the kernel has written `count` bytes, at most the spare capacity, after the length.
    unsafe { buffer.set_len(buffer.len() + count) };
    Ok(count)
}

/// Sends what the socket takes of `bytes`.
pub(crate) fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL;
    Ok(syscall!(send(socket, bytes.as_ptr().cast(), bytes.len(), flags))?.unsigned_abs())
}

/// The same with bytes that the connection ends behind at once: they wait for that, for 200 ms at
/// the most, and go out in one segment with it.
pub(crate) fn send_before_end(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_MORE;
    Ok(syscall!(send(socket, bytes.as_ptr().cast(), bytes.len(), flags))?.unsigned_abs())
}

/// Sends what the socket takes of several pieces, in one call.
pub(crate) fn send_vectored(socket: RawFd, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: an all-zero msghdr is a valid value: no address, no control data, no pieces.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // `IoSlice` is documented to have the layout of an iovec; sendmsg does not write through it.
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len();
    Ok(syscall!(sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL))?.unsigned_abs())
}

/// Whether the peer has ended its side, or the connection is dead, whatever input is unread.
pub(crate) fn peer_has_closed(socket: RawFd) -> bool {
    is_ready(socket, libc::POLLRDHUP)
}

/// Whether there is input, its end, or an error to be received.
pub(crate) fn has_input(socket: RawFd) -> bool {
    is_ready(socket, libc::POLLIN)
}

fn is_ready(socket: RawFd, events: libc::c_short) -> bool {
    let mut watched = libc::pollfd { fd: socket, events, revents: 0 };
    let ready = syscall!(poll(&raw mut watched, 1, 0));
    ready.is_ok_and(|count| count > 0)
}

/// Ends both directions, for every process that holds the socket.
pub(crate) fn shutdown(socket: RawFd) -> io::Result<()> {
    syscall!(shutdown(socket, libc::SHUT_RDWR))?;
    Ok(())
}

/// Tells the peer that nothing more will be sent.
pub(crate) fn shutdown_write(socket: RawFd) -> io::Result<()> {
    syscall!(shutdown(socket, libc::SHUT_WR))?;
    Ok(())
}

fn open(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = syscall!(socket(family, kind, 0))?;
    // SAFETY: the descriptor was just made, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn listen_on(socket: &OwnedFd, address: &RawAddress, backlog: i32) -> io::Result<()> {
    syscall!(bind(socket.as_raw_fd(), address.as_ptr(), address.length))?;
    syscall!(listen(socket.as_raw_fd(), backlog))?;
    Ok(())
}

/// A response may take several writes, and none of them is to wait for the client's ACK. Connections
/// have this of their listener (tcp(7)), so that it is one call and not one for each.
fn send_at_once(listener: &OwnedFd) -> io::Result<()> {
    set_option(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = socklen(size_of::<libc::c_int>());
    let value = (&raw const value).cast();
    syscall!(setsockopt(socket.as_raw_fd(), level, name, value, length))?;
    Ok(())
}

fn int_option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = socklen(size_of::<libc::c_int>());
    syscall!(getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length))?;
    Ok(value)
}

fn socklen(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).expect("an address has a hundred bytes or so")
}

impl RawAddress {
    fn empty() -> RawAddress {
        // SAFETY: an all-zero sockaddr_storage is a valid value: of no family.
        let storage = unsafe { MaybeUninit::zeroed().assume_init() };
        RawAddress { storage, length: socklen(size_of::<libc::sockaddr_storage>()) }
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.storage).cast()
    }

    fn from_ip(address: SocketAddr) -> RawAddress {
        match address {
            SocketAddr::V4(v4) => RawAddress::holding(libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => RawAddress::holding(libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    /// A path of at most 107 bytes, without NUL.
    fn from_path(path: &Path) -> io::Result<RawAddress> {
        let bytes = path.as_os_str().as_bytes();
        let mut raw = libc::sockaddr_un { sun_family: family(libc::AF_UNIX), sun_path: [0; 108] };
        if bytes.is_empty() || bytes.len() >= raw.sun_path.len() || bytes.contains(&0) {
            let message = "a unix socket's path has 1 to 107 bytes and no NUL";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = from.cast_signed();
        }
        let length = mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
        Ok(RawAddress { length: socklen(length), ..RawAddress::holding(raw) })
    }

    /// `T` is one of the libc's `sockaddr_*`.
    fn holding<T>(address: T) -> RawAddress {
        let mut raw = RawAddress::empty();
        assert!(size_of::<T>() <= size_of_val(&raw.storage), "any address fits the storage");
        // SAFETY: the storage is large enough (checked) and aligned for every kind of address.
        unsafe { (&raw mut raw.storage).cast::<T>().write(address) };
        raw.length = socklen(size_of::<T>());
        raw
    }

    /// The address read as a `T`, which is the libc's `sockaddr_*` of the storage's family.
    fn read<T>(&self) -> T {
        assert!(size_of::<T>() <= size_of_val(&self.storage), "any address fits the storage");
        // SAFETY: the storage is large enough (checked), aligned for every kind of address, and
        // initialised throughout: `empty` has zeroed it.
        unsafe { (&raw const self.storage).cast::<T>().read() }
    }

    fn to_address(&self) -> Address {
        match libc::c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                let v4: libc::sockaddr_in = self.read();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Address::Ip(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                let v6: libc::sockaddr_in6 = self.read();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                let v6 = SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id);
                Address::Ip(SocketAddr::V6(v6))
            }
            _ => Address::Unix(self.path()),
        }
    }

    /// The path of a unix address; empty when the socket has none, as a client's mostly.
    fn path(&self) -> PathBuf {
        let unix: libc::sockaddr_un = self.read();
        let start = mem::offset_of!(libc::sockaddr_un, sun_path);
        let length = (self.length as usize).saturating_sub(start).min(unix.sun_path.len());
        let bytes: Vec<u8> =
            unix.sun_path[..length].iter().map(|byte| byte.cast_unsigned()).collect();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[..end]))
    }
}

fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("address families are small numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_through_the_kernels_form() {
        for text in ["127.0.0.1:80", "[::1]:65535", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::from_ip(address).to_address(), Address::Ip(address));
        }
        let path = Path::new("/tmp/x.sock");
        let raw = RawAddress::from_path(path).unwrap();
        assert_eq!(raw.to_address(), Address::Unix(path.into()));
    }

    #[test]
    fn a_connection_sends_at_once_as_its_listener_does() {
        let listener = bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
        let Address::Ip(address) = local_address(listener.as_raw_fd()).unwrap() else {
            panic!("it is a TCP socket");
        };
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (connection, _) = accept(listener.as_fd()).unwrap();
        let set = int_option(connection.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY);
        assert_eq!(set.unwrap(), 1);
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        assert!(RawAddress::from_path(Path::new("")).is_err());
        assert!(RawAddress::from_path(Path::new(&"x".repeat(108))).is_err());
        assert!(RawAddress::from_path(Path::new(&"x".repeat(107))).is_ok());
    }
}
