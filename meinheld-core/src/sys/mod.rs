//! The system calls of the server, and nothing else that is `unsafe`.
//!
//! What a platform has to supply:
//! - `epoll`   readiness: [`Epoll`], and the [`Bell`] that other threads ring;
//! - `socket`  listening, accepting, receiving, sending, half-closing; addresses;
//! - `file`    sending a file to a socket, writing a log, a file's times, the descriptor limit;
//! - `signal`  signals as bytes on a descriptor.
//!
//! Every call returns an `io::Result`; every descriptor is an `OwnedFd` with one owner. Not here:
//! what any of it is for.

mod epoll;
mod file;
mod signal;
mod socket;

pub(crate) use epoll::{Bell, Epoll, Event, Events, Interest, Once};
pub(crate) use file::{
    FileStatus, descriptor_limit, duplicate, file_status, has_room, path_status,
    raise_descriptor_limit, send_file, touch, write,
};
pub use signal::SignalPipe;
pub(crate) use socket::{
    Inherited, accept, bind_tcp, bind_unix, defer_accept, has_input, inherit, is_listened_on,
    local_address, peer_has_closed, receive, receive_into, send, send_before_end, send_vectored,
    shutdown, shutdown_write,
};

/// The error of an address that somebody else listens on.
pub(crate) const EADDRINUSE: i32 = libc::EADDRINUSE;

/// The error of a family of addresses that this system does not have.
pub(crate) const EAFNOSUPPORT: i32 = libc::EAFNOSUPPORT;

/// Whether the process, or the system, has no descriptor left.
pub(crate) fn is_exhaustion(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Whether a descriptor cannot be watched since it is always ready: a regular file's, a directory's.
pub(crate) fn is_unpollable(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// Calls a libc function that answers -1 on failure; its result as an `io::Result`.
macro_rules! syscall {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: every pointer among the arguments comes from a live reference of the calling
        // function, with the length that is passed beside it, and every descriptor from an owner
        // that outlives the call.
        let result = unsafe { libc::$function($($argument),*) };
        if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
    }};
}
pub(crate) use syscall;
