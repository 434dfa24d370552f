//! Accepting: in batches, and with patience when the process has run out of descriptors.
//!
//! A listener that cannot be accepted from would be reported ready again at once, for ever; so its
//! descriptor is not watched for a moment. The clients wait in the listener's queue meanwhile.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use crate::connection::{Connection, ConnectionId, Token};
use crate::listener::Listener;
use crate::shared::Shared;
use crate::sys::{self, Interest};

/// How many connections are accepted in a row before the others have their turn.
const ACCEPTS_MAX: usize = 64;

/// How long accepting pauses when there are no descriptors, or no room for connections.
const PAUSE: Duration = Duration::from_millis(50);

/// How often a failure is reported at the most.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The listeners of a server.
#[derive(Default)]
pub(crate) struct Listeners {
    sockets: Vec<Listener>,
    watched: bool,
    paused_until: Option<Instant>,
    reported: Option<Instant>,
}

/// What came of accepting.
pub(crate) enum Accepted {
    /// These have connected.
    Connections(Vec<ConnectionId>),
    /// None can be accepted for now. The error is given if it is to be reported.
    Paused(Vec<ConnectionId>, Option<io::Error>),
}

impl Listeners {
    pub(crate) fn push(&mut self, listener: Listener) {
        self.sockets.push(listener);
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
        self.sockets.clear();
    }

    /// Accepts what waits on one listener, up to a limit.
    pub(crate) fn accept(&mut self, shared: &Shared, index: u32) -> Accepted {
        let mut connected = Vec::new();
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.sockets.get(index as usize) else { break };
            if shared.connections.borrow().len() >= shared.config.connections_max {
                self.pause(shared);
                return Accepted::Paused(connected, None);
            }
            match sys::accept(listener.as_fd()) {
                Ok((socket, peer)) => {
                    let connection = Connection::new(socket, peer, listener.shared_address());
                    connected.push(shared.connections.borrow_mut().insert(connection));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    self.pause(shared);
                    return Accepted::Paused(connected, self.due_report(shared, error));
                }
            }
        }
        Accepted::Connections(connected)
    }

    fn pause(&mut self, shared: &Shared) {
        self.unwatch(shared);
        self.paused_until = Some(shared.now.get() + PAUSE);
    }

    fn due_report(&mut self, shared: &Shared, error: io::Error) -> Option<io::Error> {
        let now = shared.now.get();
        let due = self.reported.is_none_or(|last| now >= last + REPORT_INTERVAL);
        if due {
            self.reported = Some(now);
        }
        due.then_some(error)
    }
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
