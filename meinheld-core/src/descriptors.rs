//! Waiting for any descriptor: a task parks until one is ready, registered with the loop's epoll for
//! just that wait.
//!
//! ```text
//!   wait_ready ──▶ watched: its reader, its writer ──▶ epoll_ctl(ADD | MOD, one-shot)
//!                     │ event: takes those it is for       │ time-out, cancellation: takes its own
//!                     └──────────────┬─────────────────────┘
//!                                    ▼
//!                     nobody left: epoll_ctl(DEL); else MOD for who is left
//! ```
//!
//! They have an epoll of their own, which the loop's watches, so that whatever a task does to its
//! descriptors, closed ones too, cannot touch those of the server. A descriptor is a number of the
//! process's, which may be closed and given to another file while somebody waits for it; epoll forgets
//! it then, silently. The next one to wait for that number finds the former ones stale, and wakes them;
//! an event that was on its way names a watch that is over, and misses. Not here: what a descriptor is
//! for, or the server's own connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use meinheld_coro::{Interrupt, Refusal, Ticket};

use crate::connection::Token;
use crate::shared::Shared;
use crate::sys::{self, Epoll, Event, Events, Interest, Once};

/// How many events are taken at a time.
const EVENTS_MAX: usize = 256;

/// What a task waits for. A descriptor that has failed, or whose peer is gone, is ready for each of
/// it: reading or writing tells so at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is input, or its end.
    Readable,
    /// There is room for output, or a connection is made.
    Writable,
    /// One of both.
    Either,
}

/// Why a descriptor was not waited for to the end.
#[derive(Debug)]
#[non_exhaustive]
pub enum WaitError {
    /// The wait ended early: at its deadline, with the task's cancellation, or it did not begin where
    /// a task may not park or no server runs.
    Interrupted(Interrupt),
    /// The descriptor was closed, or somebody called [`cancel_waits`] on it.
    Cancelled,
    /// Another task waits for the same thing of the same descriptor.
    Occupied(RawFd),
    /// The system cannot watch the descriptor: it is not open, most often.
    System(io::Error),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Interrupted(interrupt) => interrupt.fmt(f),
            WaitError::Cancelled => f.write_str("the wait for the descriptor was cancelled"),
            WaitError::Occupied(fd) => write!(
                f,
                "another task waits for descriptor {fd} already: only one may read from it, and one \
                 write to it, at a time"
            ),
            WaitError::System(error) => error.fmt(f),
        }
    }
}

impl Error for WaitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            WaitError::Interrupted(interrupt) => Some(interrupt),
            WaitError::System(error) => Some(error),
            WaitError::Cancelled | WaitError::Occupied(_) => None,
        }
    }
}

impl From<Interrupt> for WaitError {
    fn from(interrupt: Interrupt) -> WaitError {
        WaitError::Interrupted(interrupt)
    }
}

thread_local! {
    /// The server that runs on this thread.
    static RUNNING: RefCell<Option<Rc<Shared>>> = const { RefCell::new(None) };
}

/// Parks the running task until `fd` is ready, or until `deadline`.
///
/// For a task of the server that runs on this thread, and a descriptor that is anything poll(2)
/// takes; a regular file is always ready. The descriptor should not block by itself: who else reads
/// it may be quicker. One task may wait to read while another one waits to write.
///
/// # Errors
/// See [`WaitError`].
#[track_caller]
pub fn wait_ready(
    fd: &impl AsRawFd,
    readiness: Readiness,
    deadline: Option<Instant>,
) -> Result<(), WaitError> {
    let fd = fd.as_raw_fd();
    let shared = running().ok_or(Refusal::NoTask).map_err(Interrupt::from)?;
    let ticket = meinheld_coro::ticket().ok_or(Refusal::NoTask).map_err(Interrupt::from)?;
    if !shared.descriptors.borrow_mut().watch(&shared.epoll, fd, readiness, ticket)? {
        return Ok(());
    }
    let parked = meinheld_coro::park(deadline);
    shared.descriptors.borrow_mut().leave(fd, ticket);
    parked.map_err(|interrupt| match interrupt {
        Interrupt::Interrupted => WaitError::Cancelled,
        other => WaitError::Interrupted(other),
    })
}

/// Wakes every task that waits for `fd` with [`WaitError::Cancelled`], and tells how many. To be
/// called before a descriptor is closed for which others may be waiting: they would not be told.
pub fn cancel_waits(fd: &impl AsRawFd) -> usize {
    running().map_or(0, |shared| shared.descriptors.borrow_mut().interrupt(fd.as_raw_fd()))
}

/// Runs `function` with `shared` as this thread's server.
pub(crate) fn with_running<R>(shared: &Rc<Shared>, function: impl FnOnce() -> R) -> R {
    struct Restore(Option<Rc<Shared>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RUNNING.set(self.0.take());
        }
    }
    let _restore = Restore(RUNNING.replace(Some(Rc::clone(shared))));
    function()
}

fn running() -> Option<Rc<Shared>> {
    RUNNING.with_borrow(Clone::clone)
}

/// The descriptors that somebody waits for.
#[derive(Default)]
pub(crate) struct Descriptors {
    /// Made at the first wait.
    inner: Option<Inner>,
    watched: HashMap<RawFd, Watched>,
    /// Counts the watches that there have been.
    generation: u32,
}

/// An epoll within the loop's.
struct Inner {
    epoll: Epoll,
    events: Events,
}

/// One descriptor, while it is registered.
struct Watched {
    generation: u32,
    reader: Option<Ticket>,
    writer: Option<Ticket>,
}

impl Descriptors {
    /// Registers a wait; false if the descriptor is always ready.
    fn watch(
        &mut self,
        outer: &Epoll,
        fd: RawFd,
        readiness: Readiness,
        ticket: Ticket,
    ) -> Result<bool, WaitError> {
        if let Some(joined) = self.join(fd, readiness, ticket) {
            return if joined { Ok(true) } else { Err(WaitError::Occupied(fd)) };
        }
        self.generation = self.generation.wrapping_add(1);
        let mut watched = Watched { generation: self.generation, reader: None, writer: None };
        watched.join(readiness, ticket);
        let registered = self.register(outer, fd, &watched).map_err(WaitError::System)?;
        if registered {
            self.watched.insert(fd, watched);
        }
        Ok(registered)
    }

    /// Adds a waiter to a descriptor that is watched; whether there was room for it. `None` if it is
    /// not watched, or not any more: the file that it was is gone, and who waited for that is told.
    fn join(&mut self, fd: RawFd, readiness: Readiness, ticket: Ticket) -> Option<bool> {
        let watched = self.watched.get_mut(&fd)?;
        let before = (watched.reader, watched.writer);
        let joined = watched.join(readiness, ticket);
        let epoll = &self.inner.as_ref()?.epoll;
        if epoll.rearm(fd, watched.token(fd), watched.wanted()).is_ok() {
            return Some(joined);
        }
        (watched.reader, watched.writer) = before;
        self.interrupt(fd);
        None
    }

    fn register(&mut self, outer: &Epoll, fd: RawFd, watched: &Watched) -> io::Result<bool> {
        let epoll = &self.inner(outer)?.epoll;
        let (token, wanted) = (watched.token(fd), watched.wanted());
        match epoll.add_once(fd, token, wanted) {
            Err(error) if sys::is_unpollable(&error) => Ok(false),
            // Left behind by a descriptor that was closed while the file had another one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                epoll.rearm(fd, token, wanted).map(|()| true)
            }
            added => added.map(|()| true),
        }
    }

    fn inner(&mut self, outer: &Epoll) -> io::Result<&Inner> {
        if self.inner.is_none() {
            let epoll = Epoll::new()?;
            outer.add(epoll.fd(), Token::Descriptors.into(), Interest::Level)?;
            self.inner = Some(Inner { epoll, events: Events::with_capacity(EVENTS_MAX) });
        }
        Ok(self.inner.as_ref().expect("it was just made"))
    }

    /// Wakes those whose descriptors are ready. More than a batch is reported again in the next turn.
    pub(crate) fn handle_events(&mut self) {
        let Some(Inner { epoll, events }) = &mut self.inner else { return };
        if epoll.wait(events, Some(Duration::ZERO)).is_err() {
            return;
        }
        let taken: Vec<Event> = (0..events.len()).filter_map(|index| events.event(index)).collect();
        for event in taken {
            self.handle_event(event);
        }
    }

    fn handle_event(&mut self, event: Event) {
        let (fd, generation) = named_by(event.token);
        let Some(watched) = self.watched.get_mut(&fd) else { return };
        if watched.generation != generation {
            return;
        }
        let places = [(&mut watched.reader, event.readable), (&mut watched.writer, event.writable)];
        let ready = places.map(|(place, ready)| if ready { place.take() } else { None });
        for ticket in ready.into_iter().flatten() {
            watched.remove(ticket);
            ticket.wake();
        }
        self.settle(fd);
    }

    /// Ends the wait of `ticket`, if it is still there.
    fn leave(&mut self, fd: RawFd, ticket: Ticket) {
        if self.watched.get_mut(&fd).is_some_and(|watched| watched.remove(ticket)) {
            self.settle(fd);
        }
    }

    /// Registers a descriptor for who is left, or no more.
    fn settle(&mut self, fd: RawFd) {
        let (Some(watched), Some(inner)) = (self.watched.get(&fd), &self.inner) else { return };
        let epoll = &inner.epoll;
        let left = watched.reader.is_some() || watched.writer.is_some();
        if !left || epoll.rearm(fd, watched.token(fd), watched.wanted()).is_err() {
            self.interrupt(fd);
        }
    }

    /// Ends the watch of a descriptor, and interrupts who waited; tells how many.
    fn interrupt(&mut self, fd: RawFd) -> usize {
        let (Some(watched), Some(inner)) = (self.watched.remove(&fd), &self.inner) else {
            return 0;
        };
        // It fails if the descriptor was closed, which has the same effect.
        let _ = inner.epoll.forget(fd);
        let waiters = [watched.reader, watched.writer].into_iter().flatten();
        waiters.filter(|ticket| ticket.interrupt()).count()
    }
}

impl Watched {
    /// Notes who waits; false if somebody does already.
    fn join(&mut self, readiness: Readiness, ticket: Ticket) -> bool {
        let reads = readiness != Readiness::Writable;
        let writes = readiness != Readiness::Readable;
        if reads && self.reader.is_some() || writes && self.writer.is_some() {
            return false;
        }
        self.reader = if reads { Some(ticket) } else { self.reader };
        self.writer = if writes { Some(ticket) } else { self.writer };
        true
    }

    /// Takes a waiter out, of both places; whether it was there.
    fn remove(&mut self, ticket: Ticket) -> bool {
        let places = [&mut self.reader, &mut self.writer];
        let found = places.map(|place| place.take_if(|waiter| *waiter == ticket).is_some());
        found.contains(&true)
    }

    fn token(&self, fd: RawFd) -> u64 {
        u64::from(self.generation) << 32 | u64::from(fd.cast_unsigned())
    }

    fn wanted(&self) -> Once {
        Once { readable: self.reader.is_some(), writable: self.writer.is_some() }
    }
}

/// The descriptor and the generation of a token.
fn named_by(token: u64) -> (RawFd, u32) {
    let [fd, generation] = [token & 0xffff_ffff, token >> 32]
        .map(|half| u32::try_from(half).expect("half of 64 bits"));
    (fd.cast_signed(), generation)
}
