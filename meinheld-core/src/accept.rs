//! Accepting: in batches, and with patience when the process has run out of descriptors.
//!
//! ```text
//!   no descriptor ──▶ connections idle for a while? close the longest idle, accept
//!        │ none
//!        ▼
//!   pause: the clients wait in the listener's queue ──▶ room again? accept
//!        │ for longer than PATIENCE
//!        ▼
//!   turn them away with 503, by means of the spare descriptor; pause
//! ```
//!
//! A listener that cannot be accepted from would be reported ready again at once, for ever; so its
//! descriptor is not watched while accepting pauses.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::connection::{CloseReason, Connection, ConnectionId, Token};
use crate::http::{RequestKind, error_response};
use crate::listener::Listener;
use crate::seldom::Seldom;
use crate::shared::Shared;
use crate::sys::{self, Interest};

/// How many clients are turned away in a row.
const DISMISSALS_MAX: usize = 64;

/// How long accepting pauses when there are no descriptors, or no room for connections.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a connection must have been idle before another one may take its descriptor.
const IDLE_MIN: Duration = Duration::from_secs(1);

/// How many idle connections make room at a time.
const EVICTIONS_MAX: usize = 32;

/// How long clients wait in the queue for a descriptor before they are turned away.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many bytes of a request that is turned away are read at a time.
const REQUEST_BYTES: usize = 4096;

/// The listeners of a server.
#[derive(Default)]
pub(crate) struct Listeners {
    sockets: Vec<Listener>,
    watched: bool,
    paused_until: Option<Instant>,
    /// Since when no client could be accepted for want of descriptors.
    exhausted_since: Option<Instant>,
    /// A descriptor to give up when there is no other one left.
    spare: Option<OwnedFd>,
    failures: Seldom,
}

/// What came of accepting.
pub(crate) enum Accepted {
    /// These have connected.
    Connections(Vec<ConnectionId>),
    /// None can be accepted for now. The error is given if it is to be reported.
    Paused(Vec<ConnectionId>, Option<io::Error>),
}

impl Listeners {
    pub(crate) fn push(&mut self, listener: Listener, shared: &Shared) {
        // When one of our own is closed, whoever was not handed over yet is reset. A server that is to
        // wait for requests on their way when it stops must know of them.
        if listener.is_inherited() || shared.config.stop_idle_timeout.is_zero() {
            sys::defer_accept(listener.as_fd());
        }
        self.sockets.push(listener);
    }

    /// The places of the listeners that no other process holds.
    pub(crate) fn own_indices(&self) -> Vec<u32> {
        let places = (0..).zip(&self.sockets);
        places.filter(|(_, listener)| !listener.is_inherited()).map(|(place, _)| place).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.sockets.iter()
    }

    /// Begins to listen for events, if not paused.
    pub(crate) fn watch(&mut self, shared: &Shared) -> io::Result<()> {
        if self.watched {
            return Ok(());
        }
        self.watched = true;
        self.reserve(shared);
        for (index, listener) in self.sockets.iter().enumerate() {
            let index = u32::try_from(index).expect("descriptors are far fewer");
            let token = Token::Listener(index).into();
            shared.epoll.add(listener.as_fd().as_raw_fd(), token, Interest::Accept)?;
        }
        Ok(())
    }

    fn unwatch(&mut self, shared: &Shared) {
        if std::mem::take(&mut self.watched) {
            for listener in &self.sockets {
                // Only one that could not be added cannot be removed.
                let _ = shared.epoll.remove(listener.as_fd());
            }
        }
    }

    /// When accepting goes on, if it is paused.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Goes on if a pause is over; if that fails, pauses again.
    pub(crate) fn resume(&mut self, shared: &Shared) {
        if self.paused_until.is_some_and(|until| until <= shared.now.get()) {
            self.paused_until = None;
            if self.watch(shared).is_err() {
                self.pause(shared);
            }
        }
    }

    /// Stops listening, for good.
    pub(crate) fn close(&mut self, shared: &Shared) {
        self.unwatch(shared);
        self.paused_until = None;
        self.spare = None;
        self.sockets.clear();
    }

    /// Accepts what waits on one listener, up to a limit.
    pub(crate) fn accept(&mut self, shared: &Shared, index: u32) -> Accepted {
        let mut connected = Vec::new();
        for _ in 0..shared.config.accepts_max.max(1) {
            let Some(listener) = self.sockets.get(index as usize) else { break };
            if shared.connections.borrow().len() >= shared.config.connections_max {
                self.pause(shared);
                return Accepted::Paused(connected, None);
            }
            match sys::accept(listener.as_fd()) {
                Ok((socket, peer)) => {
                    let local = listener.shared_address();
                    let connection = Connection::new(socket, peer, local, shared.now.get());
                    connected.push(shared.connections.borrow_mut().insert(connection));
                    self.exhausted_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_transient(&error) => {}
                Err(error) if sys::is_exhaustion(&error) && evict(shared) > 0 => {}
                Err(error) => {
                    self.lose_patience(shared, index, &error);
                    self.pause(shared);
                    let due = self.failures.is_due(shared.now.get());
                    return Accepted::Paused(connected, due.then_some(error));
                }
            }
        }
        Accepted::Connections(connected)
    }

    fn lose_patience(&mut self, shared: &Shared, index: u32, error: &io::Error) {
        if !sys::is_exhaustion(error) {
            return;
        }
        let now = shared.now.get();
        if now >= *self.exhausted_since.get_or_insert(now) + PATIENCE {
            self.turn_away(shared, index);
        }
    }

    /// Answers those who wait with 503, so that they need not wait for ever.
    fn turn_away(&mut self, shared: &Shared, index: u32) {
        let Some(listener) = self.sockets.get(index as usize) else { return };
        let mut answer = Vec::new();
        let kind = RequestKind::Other;
        error_response(503, kind, &shared.fields.borrow(), &mut answer);
        drop(self.spare.take());
        for _ in 0..DISMISSALS_MAX {
            match sys::accept(listener.as_fd()) {
                Ok((socket, _)) => dismiss(&socket, &answer),
                Err(error) if is_transient(&error) => {}
                Err(_) => break,
            }
        }
        self.reserve(shared);
    }

    /// Has a spare descriptor again, if there is one to be had.
    fn reserve(&mut self, shared: &Shared) {
        if self.spare.is_none() {
            self.spare = sys::duplicate(shared.epoll.fd()).ok();
        }
    }

    fn pause(&mut self, shared: &Shared) {
        self.unwatch(shared);
        self.paused_until = Some(shared.now.get() + PAUSE);
    }
}

/// Closes the connections that have been idle for the longest; tells how many.
fn evict(shared: &Shared) -> usize {
    let Some(until) = shared.now.get().checked_sub(IDLE_MIN) else { return 0 };
    let idle = shared.connections.borrow().longest_idle(until, EVICTIONS_MAX);
    let is_silent = |id: &ConnectionId| {
        shared.with(*id, |connection| !sys::has_input(connection.fd())) == Some(true)
    };
    let silent: Vec<_> = idle.into_iter().filter(is_silent).collect();
    for id in &silent {
        shared.close(*id, CloseReason::Evicted);
    }
    silent.len()
}

/// Answers a client that cannot be served, as far as that is possible at once. Its request is read
/// first: to close with unread input would reset the connection, and destroy the answer.
fn dismiss(socket: &OwnedFd, answer: &[u8]) {
    let mut request = [0; REQUEST_BYTES];
    let _ = sys::receive(socket.as_raw_fd(), &mut request);
    // A new connection has room for it, or its client has gone.
    let _ = sys::send(socket.as_raw_fd(), answer);
}

/// Whether the error is of the one connection only, which is gone already.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::InvalidInput
    )
}
