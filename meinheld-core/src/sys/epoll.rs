//! Readiness by epoll(7), and the bell by which other threads wake the loop.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

use super::syscall;

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interest {
    /// Input, reported as long as there is some, to one of several waiting processes.
    Accept,
    /// Input, reported as long as there is some.
    Level,
    /// Input, output and the peer's end, each reported once when it comes.
    Edge,
}

/// What a descriptor is watched for until it is reported, once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Once {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Once {
    fn flags(self) -> u32 {
        let readable = if self.readable { libc::EPOLLIN } else { 0 };
        let writable = if self.writable { libc::EPOLLOUT } else { 0 };
        (readable | writable | libc::EPOLLONESHOT).cast_unsigned()
    }
}

/// One report: the token of a descriptor, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: u64,
    /// There is input, or its end.
    pub(crate) readable: bool,
    /// There is room for output.
    pub(crate) writable: bool,
    /// The peer has closed its sending side, or the whole connection.
    pub(crate) peer_closed: bool,
}

/// Room for the reports of one wait.
pub(crate) struct Events {
    raw: Vec<libc::epoll_event>,
}

impl Events {
    pub(crate) fn with_capacity(capacity: usize) -> Events {
        Events { raw: Vec::with_capacity(capacity) }
    }

    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    pub(crate) fn event(&self, index: usize) -> Option<Event> {
        let raw = self.raw.get(index)?;
        let flags = raw.events;
        let has = |mask: libc::c_int| flags & mask.cast_unsigned() != 0;
        let dead = has(libc::EPOLLHUP | libc::EPOLLERR);
        Some(Event {
            token: raw.u64,
            readable: dead || has(libc::EPOLLIN | libc::EPOLLRDHUP),
            writable: dead || has(libc::EPOLLOUT),
            peer_closed: dead || has(libc::EPOLLRDHUP),
        })
    }
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        let fd = syscall!(epoll_create1(libc::EPOLL_CLOEXEC))?;
        // SAFETY: the descriptor was just made, and nobody else owns it.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Watches a descriptor; what it is ready for already is reported at the next wait.
    pub(crate) fn add(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Accept => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
            Interest::Level => libc::EPOLLIN,
            Interest::Edge => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
        };
        let mut event = libc::epoll_event { events: flags.cast_unsigned(), u64: token };
        syscall!(epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event))?;
        Ok(())
    }

    /// Watches a descriptor for one report; what it is ready for already counts.
    pub(crate) fn add_once(&self, fd: RawFd, token: u64, wanted: Once) -> io::Result<()> {
        let mut event = libc::epoll_event { events: wanted.flags(), u64: token };
        syscall!(epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event))?;
        Ok(())
    }

    /// Watches a descriptor, which was watched for one report, for another one.
    pub(crate) fn rearm(&self, fd: RawFd, token: u64, wanted: Once) -> io::Result<()> {
        let mut event = libc::epoll_event { events: wanted.flags(), u64: token };
        syscall!(epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_MOD, fd, &raw mut event))?;
        Ok(())
    }

    /// Stops watching a descriptor that may have been closed.
    pub(crate) fn forget(&self, fd: RawFd) -> io::Result<()> {
        let none = std::ptr::null_mut();
        syscall!(epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, none))?;
        Ok(())
    }

    /// The descriptor of this instance.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Stops watching a descriptor; closing it does the same.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let none = std::ptr::null_mut();
        syscall!(epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), none))?;
        Ok(())
    }

    /// Waits for reports, for `timeout` at the most (`None`: without limit). A signal ends the wait
    /// with no report.
    pub(crate) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let room = i32::try_from(events.raw.capacity()).unwrap_or(i32::MAX);
        let buffer = events.raw.as_mut_ptr();
        let result = syscall!(epoll_wait(self.fd.as_raw_fd(), buffer, room, milliseconds(timeout)));
        let count = match result {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has filled the first `count` elements, and `count` is at most the
        // capacity that it was told.
        unsafe { events.raw.set_len(count) };
        Ok(())
    }
}

/// Rounded up, so that a deadline has passed when the wait for it ends; -1 is without limit.
fn milliseconds(timeout: Option<Duration>) -> libc::c_int {
    let Some(timeout) = timeout else { return -1 };
    let whole = timeout.as_nanos().div_ceil(1_000_000);
    libc::c_int::try_from(whole).unwrap_or(libc::c_int::MAX)
}

/// An eventfd(2) that any thread may ring to end the loop's wait.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        let fd = syscall!(eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
        // SAFETY: the descriptor was just made, and nobody else owns it.
        Ok(Bell { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // EAGAIN means that the counter is full: the bell is ringing already.
        let _ = syscall!(write(self.fd(), one.as_ptr().cast(), one.len()));
    }

    /// Stops the ringing.
    pub(crate) fn silence(&self) {
        let mut count = [0_u8; 8];
        let _ = syscall!(read(self.fd(), count.as_mut_ptr().cast(), count.len()));
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_rounded_up_and_clipped() {
        assert_eq!(milliseconds(None), -1);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_millis(200))), 200);
        assert_eq!(milliseconds(Some(Duration::MAX)), i32::MAX);
    }

    #[test]
    fn a_bell_is_reported_until_it_is_silenced() {
        let epoll = Epoll::new().unwrap();
        let bell = Bell::new().unwrap();
        let mut events = Events::with_capacity(4);
        epoll.add(bell.fd(), 7, Interest::Level).unwrap();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.len(), 0);
        bell.ring();
        bell.ring();
        epoll.wait(&mut events, None).unwrap();
        assert_eq!(events.event(0).map(|event| (event.token, event.readable)), Some((7, true)));
        bell.silence();
        epoll.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.len(), 0);
    }
}
