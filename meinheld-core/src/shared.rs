//! What the loop and the requests share: connections, descriptors, timers, the date.
//!
//! INVARIANT: no `RefCell` of this file is borrowed across a wait, and none while a request runs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meinheld_coro::{Interrupt, Timers};

use crate::config::Config;
use crate::connection::Phase;
use crate::connection::{CloseReason, Connection, ConnectionId, Connections, Token};
use crate::descriptors::{Descriptors, Readiness};
use crate::http::{RequestKind, ServerFields, error_response};
use crate::input::{Buffers, Input, Outputs};
use crate::sys::{self, Epoll, Interest};

/// Once a turn has lasted this long, a request that goes on using its socket lets the others go on first.
const TURN_TIME_MAX: Duration = Duration::from_millis(2);

/// Tells one turn from the next, and what follows a change of the time from what came before. The default
/// is none that a request runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn(u32);

/// The server's state but for its application and its scheduler.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) epoll: Epoll,
    pub(crate) connections: RefCell<Connections>,
    pub(crate) descriptors: RefCell<Descriptors>,
    pub(crate) timers: RefCell<Timers<ConnectionId>>,
    pub(crate) buffers: RefCell<Buffers>,
    pub(crate) outputs: RefCell<Outputs>,
    /// Connections that hold output which is to be sent before the loop goes on.
    holding: RefCell<Vec<ConnectionId>>,
    pub(crate) fields: RefCell<ServerFields>,
    /// Connections that have input for the loop to look at, without an event to tell of it.
    /// INVARIANT: each at most once; `Connection::pending` tells which.
    pending: RefCell<VecDeque<ConnectionId>>,
    /// The time of this turn.
    pub(crate) now: Cell<Instant>,
    /// How often it was told.
    turn: Cell<Turn>,
    pub(crate) stopping: Cell<bool>,
    /// Whether a child process may hold the connections, too.
    pub(crate) forked: Arc<AtomicBool>,
    /// How many connections were closed for each reason.
    pub(crate) closed: RefCell<[u64; CloseReason::COUNT]>,
    unix_seconds: Cell<u64>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> io::Result<Shared> {
        let shared = Shared {
            config,
            epoll: Epoll::new()?,
            connections: RefCell::default(),
            descriptors: RefCell::default(),
            timers: RefCell::default(),
            buffers: RefCell::default(),
            outputs: RefCell::default(),
            holding: RefCell::default(),
            fields: RefCell::default(),
            pending: RefCell::default(),
            now: Cell::new(Instant::now()),
            turn: Cell::default(),
            stopping: Cell::new(false),
            forked: Arc::default(),
            closed: RefCell::default(),
            unix_seconds: Cell::new(0),
        };
        shared.begin_turn();
        Ok(shared)
    }

    /// Reads the clocks, once a turn.
    pub(crate) fn begin_turn(&self) {
        self.set_now();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.unix_seconds.replace(since_epoch.as_secs()) != since_epoch.as_secs() {
            self.fields.borrow_mut().date.refresh(since_epoch.as_secs());
        }
    }

    /// Reads the clock anew, when something may have taken long; tells whether it has.
    pub(crate) fn set_now(&self) -> bool {
        let now = Instant::now();
        let lasted = now.duration_since(self.now.replace(now));
        self.turn.set(Turn(self.turn.get().0.wrapping_add(1)));
        lasted >= TURN_TIME_MAX
    }

    /// Whether much may have come since the turn began that no event has told of.
    pub(crate) fn is_turn_old(&self) -> bool {
        self.now.get().elapsed() >= TURN_TIME_MAX
    }

    pub(crate) fn turn(&self) -> Turn {
        self.turn.get()
    }

    /// Whether it is known what a client has sent up to this turn, if it was looked for in `since`.
    pub(crate) fn hears(&self, id: ConnectionId, since: Turn) -> bool {
        self.turn.get() == since || self.with(id, |connection| connection.watched) == Some(true)
    }

    /// Calls `use_it` with an open connection.
    pub(crate) fn with<R>(
        &self,
        id: ConnectionId,
        use_it: impl FnOnce(&mut Connection) -> R,
    ) -> Option<R> {
        self.connections.borrow_mut().entry(id).map(use_it)
    }

    /// Has epoll watch the connection, if it does not yet.
    pub(crate) fn watch(&self, id: ConnectionId) -> io::Result<()> {
        let fd = self.with(id, |connection| (!connection.watched).then(|| connection.fd()));
        let Some(fd) = fd.ok_or(io::ErrorKind::NotConnected)? else { return Ok(()) };
        self.epoll.add(fd, Token::Connection(id).into(), Interest::Edge)?;
        self.with(id, |connection| connection.watched = true);
        Ok(())
    }

    /// Parks the running coroutine until the connection is ready, for `timeout` at the most.
    pub(crate) fn wait(
        &self,
        id: ConnectionId,
        readiness: Readiness,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let Some(ticket) = meinheld_coro::ticket() else {
            return Err(io::Error::other("only a request can wait for its client"));
        };
        self.with(id, |connection| connection.begin_wait(readiness, ticket));
        let prepared = self.park_connection(id);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let parked = prepared.map(|()| meinheld_coro::park(deadline));
        self.with(id, |connection| connection.end_wait(ticket));
        parked?.map_err(|interrupt| match interrupt {
            Interrupt::TimedOut => io::Error::from(io::ErrorKind::TimedOut),
            other => io::Error::other(other),
        })
    }

    /// Yields if the turn is old and the request has used its socket in it: otherwise a client that
    /// keeps up would have the loop for itself. To be called before the socket is used; `last` is the
    /// turn in which that was done last. The first use in a turn never gives way, so that the request gets on
    /// whatever the others do.
    pub(crate) fn give_way(&self, id: ConnectionId, last: &mut Turn) -> io::Result<()> {
        let turn = self.turn.get();
        if std::mem::replace(last, turn) != turn || !self.is_turn_old() {
            return Ok(());
        }
        self.flush(id)?;
        let yielded = meinheld_coro::yield_now();
        *last = self.turn.get();
        match yielded {
            // Where nobody may park, going on is all that is left.
            Ok(()) | Err(Interrupt::Refused(_)) => Ok(()),
            Err(interrupt) => Err(io::Error::other(interrupt)),
        }
    }

    /// Prepares a connection whose request is to wait: what it holds is sent, epoll watches it from now
    /// on, and it keeps no more memory than its input needs.
    pub(crate) fn park_connection(&self, id: ConnectionId) -> io::Result<()> {
        self.watch(id)?;
        self.flush(id)?;
        let large = self.with(id, |connection| std::mem::take(&mut connection.input));
        let input = self.buffers.borrow_mut().shrink(large.unwrap_or_default());
        self.with(id, |connection| connection.input = input);
        Ok(())
    }

    /// Sets for how long a connection that no request runs on may wait. A time-out beyond what the
    /// clock can tell is none.
    pub(crate) fn arm_in(&self, id: ConnectionId, timeout: Duration) {
        match self.now.get().checked_add(timeout) {
            Some(deadline) => self.arm(id, deadline),
            None => drop(self.with(id, |connection| connection.deadline = None)),
        }
    }

    /// Shortens what a connection that no request runs on still waits, to `timeout` at the most.
    pub(crate) fn arm_within(&self, id: ConnectionId, timeout: Duration) {
        let Some(latest) = self.now.get().checked_add(timeout) else { return };
        let deadline = self.with(id, |connection| connection.deadline).flatten();
        self.arm(id, deadline.map_or(latest, |deadline| deadline.min(latest)));
    }

    /// Sets what a connection that no request runs on waits for, at the longest until `deadline`.
    fn arm(&self, id: ConnectionId, deadline: Instant) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.entry(id) else { return };
        if connection.expire_at(deadline) {
            return;
        }
        let mut timers = self.timers.borrow_mut();
        if let Some((timer, _)) = connection.timer {
            timers.cancel(timer);
        }
        connection.timer = Some((timers.arm(deadline, id), deadline));
    }

    /// The connection of the next timer that has expired, if its deadline has passed too.
    pub(crate) fn pop_expired(&self) -> Option<ConnectionId> {
        let now = self.now.get();
        loop {
            let id = self.timers.borrow_mut().pop_expired(now)?;
            let deadline = self.with(id, |connection| {
                connection.timer = None;
                connection.deadline
            });
            match deadline.flatten() {
                Some(deadline) if deadline <= now => return Some(id),
                Some(deadline) => self.arm(id, deadline),
                None => {}
            }
        }
    }

    /// Has the loop go on with a connection at the end of this turn, or of the next.
    pub(crate) fn queue(&self, id: ConnectionId) {
        if self.with(id, |connection| std::mem::replace(&mut connection.pending, true))
            == Some(false)
        {
            self.pending.borrow_mut().push_back(id);
        }
    }

    /// Takes back what [`queue`](Self::queue) has just done: the connection is gone on with at once.
    pub(crate) fn unqueue(&self, id: ConnectionId) {
        let mut pending = self.pending.borrow_mut();
        if pending.back() == Some(&id) {
            pending.pop_back();
            drop(pending);
            self.with(id, |connection| connection.pending = false);
        }
    }

    /// The next connection to go on with.
    pub(crate) fn next_queued(&self) -> Option<ConnectionId> {
        let id = self.pending.borrow_mut().pop_front()?;
        self.with(id, |connection| connection.pending = false);
        Some(id)
    }

    /// How many connections are to be gone on with.
    pub(crate) fn queued_count(&self) -> usize {
        self.pending.borrow().len()
    }

    /// Closes a connection now.
    pub(crate) fn close(&self, id: ConnectionId, reason: CloseReason) {
        let removed = self.connections.borrow_mut().remove(id);
        let Some(mut connection) = removed else { return };
        self.closed.borrow_mut()[reason as usize] += 1;
        if !connection.held.is_empty() {
            // Whoever is gone gets nothing of it. It does not wait for the end, which may be a reset.
            let _ = sys::send(connection.fd(), &connection.held);
        }
        if let Some((timer, _)) = connection.timer {
            self.timers.borrow_mut().cancel(timer);
        }
        self.buffers.borrow_mut().shrink(std::mem::take(&mut connection.input));
        if self.forked.load(Ordering::Relaxed) {
            // One that is dead already needs no end.
            let _ = sys::shutdown(connection.fd());
        }
    }

    /// The server's own error response, and how many bytes of a body that has.
    pub(crate) fn refusal(&self, status: u16, kind: RequestKind) -> (Vec<u8>, u64) {
        let mut output = Vec::new();
        let body_bytes = error_response(status, kind, &self.fields.borrow(), &mut output);
        (output, body_bytes)
    }

    /// Notes that a connection holds output, which [`flush_all`](Self::flush_all) is to send.
    pub(crate) fn note_held(&self, id: ConnectionId) {
        let mut holding = self.holding.borrow_mut();
        if holding.last() != Some(&id) {
            holding.push(id);
        }
    }

    /// Sends what connections hold, when the requests that may have added to it have ended or wait.
    pub(crate) fn flush_all(&self) {
        loop {
            let next = self.holding.borrow_mut().pop();
            let Some(id) = next else { return };
            if self.flush(id).is_err() {
                self.close_if_idle(id);
            }
        }
    }

    /// A request that runs finds out for itself that its connection is broken.
    fn close_if_idle(&self, id: ConnectionId) {
        if self.with(id, |connection| matches!(connection.phase, Phase::Busy)) == Some(false) {
            self.close(id, CloseReason::SocketError);
        }
    }

    /// Sends what a connection holds, as far as the socket takes it; the rest follows as soon as there
    /// is room.
    pub(crate) fn flush(&self, id: ConnectionId) -> io::Result<()> {
        let taken =
            self.with(id, |connection| (std::mem::take(&mut connection.held), connection.fd()));
        let Some((mut held, fd)) = taken.filter(|(held, _)| !held.is_empty()) else {
            return Ok(());
        };
        let sent = send_out(fd, &mut held);
        if held.is_empty() {
            self.outputs.borrow_mut().give(held);
            return sent;
        }
        self.with(id, |connection| connection.held = held);
        self.watch(id)?;
        if self.with(id, |connection| connection.is_waiting()) == Some(true) {
            self.arm_in(id, self.config.send_timeout);
        }
        sent
    }

    /// Goes on sending what a connection holds, now that there is room.
    pub(crate) fn resume_flush(&self, id: ConnectionId) {
        let before = self.with(id, |connection| connection.held.len()).unwrap_or(0);
        if before == 0 {
            return;
        }
        let flushed = self.flush(id);
        if flushed.is_err() {
            return self.close_if_idle(id);
        }
        let waits = self.with(id, |c| (c.is_waiting(), c.held.len()));
        match waits {
            Some((true, 0)) => self.arm_in(id, self.config.keep_alive_timeout),
            Some((true, left)) if left < before => self.arm_in(id, self.config.send_timeout),
            _ => {}
        }
    }

    /// Sends `output`, ends our side, and then waits for the peer to end its own, so that the peer
    /// can read the response before a reset destroys it (RFC 9112 section 9.6).
    pub(crate) fn linger(&self, id: ConnectionId, output: &[u8]) {
        let lingering = self.with(id, |connection| {
            let mut unsent = std::mem::take(&mut connection.held);
            unsent.extend_from_slice(output);
            connection.phase = Phase::Lingering(unsent.into());
            connection.input = Input::default();
        });
        if lingering.is_some() {
            self.arm_in(id, self.config.linger_timeout);
            self.flush_lingering(id);
        }
    }

    /// Sends what a lingering connection has to send, as far as the socket takes it.
    pub(crate) fn flush_lingering(&self, id: ConnectionId) {
        let step = self.with(id, |connection| {
            let fd = connection.fd();
            let Phase::Lingering(output) = &mut connection.phase else { return Ok(true) };
            flush_to(fd, output)
        });
        let watched = match step {
            None | Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => self.watch(id),
            Some(Err(error)) => Err(error),
        };
        if watched.is_err() {
            self.close(id, CloseReason::SocketError);
        }
    }
}

/// Sends what the socket takes; false if something is left. When all is out, our side is ended.
fn flush_to(fd: RawFd, output: &mut Input) -> io::Result<bool> {
    while !output.is_empty() {
        match sys::send(fd, output.unread()) {
            Ok(count) => output.consume(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    sys::shutdown_write(fd)?;
    Ok(false)
}

/// Sends what the socket takes, and leaves the rest. After an error nothing is left.
fn send_out(fd: RawFd, output: &mut Vec<u8>) -> io::Result<()> {
    while !output.is_empty() {
        match sys::send(fd, output) {
            Ok(count) if count == output.len() => output.clear(),
            Ok(count) => drop(output.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => {
                output.clear();
                return Err(error);
            }
        }
    }
    Ok(())
}
