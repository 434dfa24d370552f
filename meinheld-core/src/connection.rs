//! One connection: its socket, what it waits for, and what is known of its peer.
//!
//! ```text
//!                head complete, no body or all of it there
//!       ┌──────────────────────────────────────────────────────┐
//!       │        head complete         body complete           ▼
//!   ▶ Head ───────────────▶ Collecting ───────────────────▶ Busy: a coroutine answers
//!       ▲ │                     │                              │  │
//!       │ │ refused, timed out  │ refused, timed out           │  │ close, input unread
//!       │ └──────────┬──────────┘                              │  │
//!       │            ▼                                         │  │
//!       │        Lingering ◀───────────────────────────────────┼──┘
//!       │            │ all sent and the peer gone, or the end  │
//!       │            ▼ of patience                             │
//!       │         (closed) ◀──── close, nothing unread ────────┤
//!       └──── keep-alive, by way of Discarding an unread body ───┘
//!
//!     Busy ── a 101 is out ──▶ Upgraded: coroutines send and receive bytes that are no HTTP any more
//!                                 │ the request that upgraded it ends
//!                                 ├──▶ Lingering
//!                                 └──▶ (closed), if bytes that were begun could not be sent
//! ```
//!
//! A coroutine that waits for its socket stands in `reader` or `writer`, of which an upgraded
//! connection may have two different ones; one that is suspended stands in `departure`.
//!
//! Not here: doing any of it (see driver.rs and exchange.rs).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use meinheld_coro::{TaskId, Ticket, TimerId};
use slab::Slab;
use tempfile::SpooledTempFile;

use crate::address::{Address, Peer};
use crate::descriptors::Readiness;
use crate::http::{Changes, Decoder, RequestKind};
use crate::input::Input;

/// Names a connection; that of a closed one names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    index: u32,
    generation: u32,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer has closed it.
    PeerClosed,
    /// The system reported an error on it.
    SocketError,
    /// It idled for longer than keep-alive allows.
    KeepAliveExpired,
    /// The last response is out, and the connection was not to be kept.
    Finished,
    /// The peer did not go within the linger time-out.
    LingerExpired,
    /// It idled, and another one needed its descriptor.
    Evicted,
    /// The server stops.
    Stopping,
}

impl CloseReason {
    /// How many reasons there are.
    pub(crate) const COUNT: usize = CloseReason::Stopping as usize + 1;
}

/// Where a connection stands; see the picture above.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Since then: when it was accepted, or its last request ended.
    Head {
        since: Instant,
    },
    Collecting(Box<Collection>),
    Busy,
    /// The same, but the bytes are no HTTP any more.
    Upgraded,
    /// This many bytes of a body that nobody read are to be dropped before the next head.
    Discarding(u64),
    /// What is still to be sent before our side ends.
    Lingering(Input),
}

/// A body that is collected before its request begins.
#[derive(Debug)]
pub(crate) struct Collection {
    /// The head's bytes, to be parsed again when the body is complete.
    pub(crate) head: Vec<u8>,
    /// What a refusal must know of the request.
    pub(crate) kind: RequestKind,
    /// How the head differs from the last one.
    pub(crate) changes: Option<Changes>,
    pub(crate) decoder: Decoder,
    /// How many bytes of the body are there.
    pub(crate) bytes: u64,
    pub(crate) spool: SpooledTempFile,
}

/// The state of one connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts independent of each other")]
pub(crate) struct Connection {
    socket: OwnedFd,
    pub(crate) peer: Peer,
    pub(crate) local: Arc<Address>,
    pub(crate) phase: Phase,
    pub(crate) input: Input,
    /// What is to be sent and was not yet; see `Shared::flush`.
    pub(crate) held: Vec<u8>,
    /// How many bytes of `input` are known to be no complete head.
    pub(crate) scanned: u32,
    /// Who waits for input.
    pub(crate) reader: Option<Ticket>,
    /// Who waits for room for output.
    pub(crate) writer: Option<Ticket>,
    /// Who is suspended, and is to be interrupted when the peer goes.
    pub(crate) departure: Option<Ticket>,
    /// How many requests have ended on it, by which each is told from those before.
    pub(crate) requests_ended: u32,
    /// Whether it stands in the pending queue.
    pub(crate) pending: bool,
    /// Whether epoll watches it; the first wait makes it so.
    pub(crate) watched: bool,
    /// Whether there may be input that no event will tell of any more.
    pub(crate) readable: bool,
    /// Whether the peer has ended its side.
    pub(crate) peer_closed: bool,
    /// What is due when [`timer`](Self::timer) has expired, and `deadline` with it.
    pub(crate) deadline: Option<Instant>,
    /// The armed timer; it may be earlier than the deadline, which is cheaper than arming anew.
    pub(crate) timer: Option<(TimerId, Instant)>,
}

impl Connection {
    pub(crate) fn new(
        socket: OwnedFd,
        peer: Address,
        local: Arc<Address>,
        now: Instant,
    ) -> Connection {
        Connection {
            socket,
            peer: peer.into(),
            local,
            phase: Phase::Head { since: now },
            input: Input::default(),
            held: Vec::new(),
            scanned: 0,
            reader: None,
            writer: None,
            departure: None,
            requests_ended: 0,
            pending: false,
            watched: false,
            readable: true,
            peer_closed: false,
            deadline: None,
            timer: None,
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether the peer has sent something that nobody has read.
    pub(crate) fn has_unread(&self) -> bool {
        self.readable || !self.input.is_empty()
    }

    /// Whether all has been done that is done before its request waits; see `Shared::park_connection`.
    pub(crate) fn is_parked(&self) -> bool {
        self.watched && self.held.is_empty() && self.input.is_small()
    }

    /// Notes who waits; it takes the place of whom it finds.
    pub(crate) fn begin_wait(&mut self, readiness: Readiness, ticket: Ticket) {
        if readiness != Readiness::Writable {
            self.reader = Some(ticket);
        }
        if readiness != Readiness::Readable {
            self.writer = Some(ticket);
        }
    }

    /// Ends what [`begin_wait`](Self::begin_wait) began, unless somebody else has taken the place.
    pub(crate) fn end_wait(&mut self, ticket: Ticket) {
        self.reader.take_if(|reader| *reader == ticket);
        self.writer.take_if(|writer| *writer == ticket);
    }

    /// Notes that no request runs on it any more: whatever still refers to that one is stale. Tells
    /// who still waits for the socket, or for its client to go; mostly nobody does.
    pub(crate) fn end_request(&mut self) -> Option<[Option<Ticket>; 3]> {
        self.requests_ended = self.requests_ended.wrapping_add(1);
        let waits = self.reader.is_some() || self.writer.is_some() || self.departure.is_some();
        waits.then(|| [self.reader.take(), self.writer.take(), self.departure.take()])
    }

    /// Sets what it waits for at the longest; whether its timer is early enough for that.
    pub(crate) fn expire_at(&mut self, deadline: Instant) -> bool {
        self.deadline = Some(deadline);
        // A timer that expires too early looks at the deadline and is armed again then.
        self.timer.is_some_and(|(_, at)| at <= deadline)
    }

    /// Whether it waits for a request.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Head { .. })
    }

    /// Whether no request is being received or answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle_since().is_some()
    }

    /// Since when, if it is so.
    fn idle_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Head { since } if self.input.is_empty() && self.held.is_empty() => Some(since),
            _ => None,
        }
    }
}

/// All connections of a server.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Slab<(u32, Connection)>,
    generation: u32,
}

impl Connections {
    pub(crate) fn insert(&mut self, connection: Connection) -> ConnectionId {
        // One bit is the listeners' (see `Token`).
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let index = self.slots.insert((self.generation, connection));
        let index = u32::try_from(index).expect("descriptors are far fewer");
        ConnectionId { index, generation: self.generation }
    }

    pub(crate) fn entry(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let (generation, connection) = self.slots.get_mut(id.index as usize)?;
        (*generation == id.generation).then_some(connection)
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.entry(id)?;
        Some(self.slots.remove(id.index as usize).1)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        self.ids_of(|_| true)
    }

    /// Those of which a part of a head has come.
    pub(crate) fn partial_ids(&self) -> Vec<ConnectionId> {
        self.ids_of(|connection| connection.is_waiting() && !connection.input.is_empty())
    }

    pub(crate) fn idle_ids(&self) -> Vec<ConnectionId> {
        self.ids_of(Connection::is_idle)
    }

    /// Up to `count` connections that have been idle since `until` or longer, those that have been
    /// for the longest.
    pub(crate) fn longest_idle(&self, until: Instant, count: usize) -> Vec<ConnectionId> {
        let slots = self.slots.iter().filter(|(_, (_, connection))| !connection.pending);
        let mut idle: Vec<_> = slots
            .filter_map(|(index, (generation, connection))| {
                let since = connection.idle_since().filter(|since| *since <= until)?;
                Some((since, ConnectionId::new(index, *generation)))
            })
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count, |(since, _)| *since);
            idle.truncate(count);
        }
        idle.into_iter().map(|(_, id)| id).collect()
    }

    /// The requests that are suspended, and watch whether their client goes.
    pub(crate) fn suspended_tasks(&self) -> Vec<TaskId> {
        let tickets = self.slots.iter().filter_map(|(_, (_, connection))| connection.departure);
        tickets.map(Ticket::task).collect()
    }

    /// Who waits for input on an upgraded connection.
    pub(crate) fn upgraded_readers(&self) -> Vec<Ticket> {
        let upgraded = self.slots.iter().filter_map(|(_, (_, connection))| {
            connection.reader.filter(|_| matches!(connection.phase, Phase::Upgraded))
        });
        upgraded.collect()
    }

    fn ids_of(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<ConnectionId> {
        let slots = self.slots.iter().filter(|(_, (_, connection))| wanted(connection));
        slots.map(|(index, (generation, _))| ConnectionId::new(index, *generation)).collect()
    }
}

impl ConnectionId {
    /// Where it is kept: a small number, which is used again when the connection is closed.
    pub(crate) fn slot(self) -> usize {
        self.index as usize
    }

    /// Both in one: a number that no other connection has, for as long as there are not billions.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn new(index: usize, generation: u32) -> ConnectionId {
        ConnectionId { index: u32::try_from(index).expect("checked at insertion"), generation }
    }
}

/// What an epoll event is about, as the 64 bits that the kernel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Connection(ConnectionId),
    Listener(u32),
    Bell,
    Signals,
    /// What tasks wait for; which it is, is known to descriptors.rs.
    Descriptors,
}

const NOT_A_CONNECTION: u64 = 1 << 63;

impl From<Token> for u64 {
    fn from(token: Token) -> u64 {
        match token {
            Token::Connection(id) => id.number(),
            Token::Listener(index) => NOT_A_CONNECTION | u64::from(index),
            Token::Bell => NOT_A_CONNECTION | 1 << 32,
            Token::Signals => NOT_A_CONNECTION | 2 << 32,
            Token::Descriptors => NOT_A_CONNECTION | 3 << 32,
        }
    }
}

impl From<u64> for Token {
    fn from(bits: u64) -> Token {
        let [low, high] = [bits & 0xffff_ffff, bits >> 32]
            .map(|half| u32::try_from(half).expect("half of 64 bits"));
        match (bits & NOT_A_CONNECTION != 0, high & 0x7fff_ffff) {
            (false, generation) => Token::Connection(ConnectionId { index: low, generation }),
            (true, 0) => Token::Listener(low),
            (true, 1) => Token::Bell,
            (true, 2) => Token::Signals,
            (true, _) => Token::Descriptors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands wait.
    #[test]
    fn a_connection_stays_small() {
        assert!(size_of::<Connection>() <= 184, "{}", size_of::<Connection>());
    }

    #[test]
    fn tokens_survive_the_way_through_the_kernel() {
        let id = ConnectionId { index: u32::MAX, generation: 0x7fff_ffff };
        let all = [
            Token::Connection(id),
            Token::Listener(0),
            Token::Listener(9),
            Token::Bell,
            Token::Signals,
            Token::Descriptors,
        ];
        for token in all {
            assert_eq!(Token::from(u64::from(token)), token);
        }
    }
}
