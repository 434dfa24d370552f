//! Connections driven by events: receiving, parsing, collecting bodies, and what follows when a
//! request has ended.
//!
//! Not here: which events there are (see server.rs), running a request (see serve.rs), and refusing one
//! (see refusal.rs).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, Seek, Write};
use std::rc::{Rc, Weak};

use meinheld_coro::Scheduler;
use tempfile::SpooledTempFile;

use crate::config::ChunkedBodies;
use crate::connection::{CloseReason, Collection, Connection, ConnectionId, Phase};
use crate::exchange::{Expectation, RequestBody};
use crate::http::{
    BodyError, CONTINUE, Changes, Decoder, Followed, Framing, Parsed, RequestFacts, may_complete,
};
use crate::input::Input;
use crate::receiving::Received;
use crate::repeats::Repeats;
use crate::seldom::Seldom;
use crate::serve::Incoming;
use crate::service::Service;
use crate::shared::Shared;
use crate::sys::Event;

/// How many steps one connection may take in a row before the others have their turn.
const STEPS_MAX: usize = 16;

/// How many bytes of a body are decoded at a time.
const DECODE_BYTES: usize = 16 * 1024;

/// The connections of a server, its application and its scheduler.
pub(crate) struct Driver<S: Service> {
    pub(crate) shared: Rc<Shared>,
    pub(crate) service: S,
    pub(crate) scheduler: Scheduler,
    /// The reports of requests that there is no coroutine for.
    pub(crate) overloads: Seldom,
    /// The reports of requests that are refused for a header with an underscore.
    pub(crate) underscores: Seldom,
    /// The head at hand, and those that came before it.
    pub(crate) repeats: RefCell<Repeats>,
    /// The request that is to begin now, on its way into its coroutine.
    pub(crate) incoming: Cell<Option<(ConnectionId, Incoming)>>,
    /// What its coroutine runs.
    pub(crate) serving: Rc<dyn Fn()>,
    /// What the server's own code panicked with in a coroutine, where nothing would unwind to `run`.
    pub(crate) panicked: Cell<Option<Box<dyn Any + Send>>>,
}

/// Whether a connection can go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Again,
    Wait,
}

/// Why a body could not be collected.
#[derive(Debug)]
enum CollectError {
    /// It is malformed, or too large.
    Body(BodyError),
    /// There is no room for it: a full disk, or no descriptor left.
    Storage(io::Error),
}

impl CollectError {
    fn status(&self) -> u16 {
        match self {
            CollectError::Body(error) => error.status(),
            // RFC 9110 section 15.6.1: it is no fault of the client's.
            CollectError::Storage(_) => 500,
        }
    }
}

impl fmt::Display for CollectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CollectError::Body(error) => error.fmt(f),
            CollectError::Storage(error) => {
                write!(f, "the request body cannot be stored: {error}")
            }
        }
    }
}

/// What came of looking for a head.
enum Sought {
    /// There was one, or a fault; the connection has gone on to another phase.
    Handled,
    /// There is none yet; the input, and how much of it has been looked at.
    Incomplete(Input, usize),
}

impl<S: Service> Driver<S> {
    pub(crate) fn new(shared: Shared, service: S, scheduler: Scheduler) -> Rc<Driver<S>> {
        Rc::new_cyclic(|driver: &Weak<Driver<S>>| {
            let driver = Weak::clone(driver);
            let serve = move || {
                if let Some(driver) = driver.upgrade() {
                    driver.serve_incoming();
                }
            };
            Driver {
                shared: Rc::new(shared),
                service,
                scheduler,
                overloads: Seldom::default(),
                underscores: Seldom::default(),
                repeats: RefCell::new(Repeats::new()),
                incoming: Cell::new(None),
                serving: Rc::new(serve),
                panicked: Cell::new(None),
            }
        })
    }

    /// Handles an event on a connection.
    pub(crate) fn handle_event(self: &Rc<Self>, id: ConnectionId, event: Event) {
        let known = self.shared.with(id, |connection| {
            connection.readable |= event.readable;
            connection.peer_closed |= event.peer_closed;
            let reader = connection.reader.filter(|_| event.readable);
            let writer = connection.writer.filter(|_| event.writable);
            let holds = event.writable && !connection.held.is_empty();
            let may_advance = connection.may_advance(event);
            ([reader, writer], connection.departure, may_advance, holds)
        });
        let Some((ready, departure, may_advance, holds)) = known else { return };
        if holds {
            self.shared.resume_flush(id);
        }
        for ticket in ready.into_iter().flatten() {
            self.scheduler.wake(ticket);
        }
        if let (Some(ticket), true) = (departure, event.peer_closed) {
            self.scheduler.interrupt(ticket);
        }
        if may_advance {
            self.advance(id);
        }
    }

    /// Goes on with a connection that no request runs on, until it has to wait.
    pub(crate) fn advance(self: &Rc<Self>, id: ConnectionId) {
        for _ in 0..STEPS_MAX {
            if self.step(id) == Step::Wait {
                return self.shared.flush_all();
            }
        }
        self.shared.queue(id);
        self.shared.flush_all();
    }

    fn step(self: &Rc<Self>, id: ConnectionId) -> Step {
        enum What {
            Head(Input, usize),
            Collect,
            Discard,
            Linger,
        }
        let what = self.shared.with(id, |connection| match connection.phase {
            Phase::Head { .. } => {
                let input = std::mem::take(&mut connection.input);
                Some(What::Head(input, connection.scanned as usize))
            }
            Phase::Collecting(_) => Some(What::Collect),
            Phase::Discarding(_) => Some(What::Discard),
            Phase::Lingering(_) => Some(What::Linger),
            Phase::Busy | Phase::Upgraded => None,
        });
        match what.flatten() {
            None => Step::Wait,
            Some(What::Head(input, scanned)) => self.seek_head(id, input, scanned),
            Some(What::Collect) => self.collect(id),
            Some(What::Discard) => self.discard(id),
            Some(What::Linger) => self.linger(id),
        }
    }

    /// Looks for a head, receiving if there is none in the input yet.
    fn seek_head(self: &Rc<Self>, id: ConnectionId, input: Input, scanned: usize) -> Step {
        match self.seek_head_in(id, input, scanned) {
            Sought::Handled => self.after_head(id),
            Sought::Incomplete(input, scanned) => self.receive_head(id, input, scanned),
        }
    }

    fn receive_head(self: &Rc<Self>, id: ConnectionId, input: Input, scanned: usize) -> Step {
        let mut input = self.shared.buffers.borrow_mut().grow(input);
        let received = self.shared.receive(id, &mut input);
        match received {
            Ok(Received::Some | Received::Drained) => {}
            Ok(Received::Nothing) => return self.wait_for_head(id, input, scanned),
            Ok(Received::End) => return self.close(id, CloseReason::PeerClosed),
            Err(_) => return self.close(id, CloseReason::SocketError),
        }
        match self.seek_head_in(id, input, scanned) {
            Sought::Handled => self.after_head(id),
            Sought::Incomplete(input, scanned) => {
                let step = self.wait_for_head(id, input, scanned);
                if received.is_ok_and(|received| received == Received::Some) {
                    Step::Again
                } else {
                    step
                }
            }
        }
    }

    /// Whether to go on at once after a head: a body that is being collected, a refused peer that
    /// still sends, or the next of pipelined requests.
    fn after_head(&self, id: ConnectionId) -> Step {
        let more = self.shared.with(id, |connection| match connection.phase {
            Phase::Collecting(_) | Phase::Lingering(_) => Some(connection.readable),
            Phase::Head { .. } if !connection.input.is_empty() => Some(true),
            Phase::Head { .. } | Phase::Busy | Phase::Upgraded | Phase::Discarding(_) => None,
        });
        match more.flatten() {
            Some(true) => {
                self.shared.unqueue(id);
                Step::Again
            }
            Some(false) => self.watch(id),
            None => Step::Wait,
        }
    }

    /// Parses, if there is anything that has not been looked at and may change the outcome.
    fn seek_head_in(self: &Rc<Self>, id: ConnectionId, input: Input, scanned: usize) -> Sought {
        let unread = input.unread();
        let limits = &self.shared.config.head;
        let fresh = unread.get(scanned..).unwrap_or_default();
        let worthwhile =
            scanned == 0 || may_complete(fresh) || unread.len() >= limits.head_bytes_max;
        if fresh.is_empty() || !worthwhile {
            return Sought::Incomplete(input, scanned);
        }
        let recalled = self.repeats.borrow_mut().recall(id, unread, limits);
        if let Some(Followed { head_bytes, changes }) = recalled {
            self.accept_head(id, input, head_bytes, Some(changes));
            return Sought::Handled;
        }
        let parsed = self.repeats.borrow_mut().parse(id, unread, limits);
        match parsed {
            Ok(Parsed::Incomplete) => {
                let scanned = unread.len();
                Sought::Incomplete(input, scanned)
            }
            Ok(Parsed::Complete { head_bytes }) => {
                self.accept_head(id, input, head_bytes, None);
                Sought::Handled
            }
            Err(error) => {
                self.refuse_head(id, error, unread);
                Sought::Handled
            }
        }
    }

    /// Keeps an incomplete head, and waits for the rest of it, or for any of it.
    fn wait_for_head(&self, id: ConnectionId, input: Input, scanned: usize) -> Step {
        let input = self.shared.buffers.borrow_mut().shrink(input);
        let untimed = self.shared.with(id, |connection| {
            let begins = connection.scanned == 0 && !input.is_empty();
            connection.input = input;
            // A head is shorter; else it is looked at anew.
            connection.scanned = u32::try_from(scanned).unwrap_or(0);
            begins || connection.deadline.is_none()
        });
        if untimed == Some(true) {
            self.shared.arm_in(id, self.shared.config.head_timeout);
        }
        self.watch(id)
    }

    /// Decides, once a head is complete, how its body is to be had, and begins the request if that
    /// need not be waited for.
    fn accept_head(
        self: &Rc<Self>,
        id: ConnectionId,
        input: Input,
        head_bytes: usize,
        changes: Option<Changes>,
    ) {
        let (facts, framing, expectation) = {
            let repeats = self.repeats.borrow();
            let head = repeats.index().view(input.unread());
            let expects = head.expects_continue();
            let expectation = if expects { Expectation::Waiting } else { Expectation::None };
            (RequestFacts::of(&head), head.framing(), expectation)
        };
        let consume = head_bytes;
        let body = RequestBody::Empty;
        let mut incoming = Incoming { bytes: input, consume, facts, expectation, body, changes };
        let config = &self.shared.config;
        incoming.body = match framing {
            Framing::None | Framing::Length(0) => RequestBody::Empty,
            Framing::Length(left) if left > config.body.body_bytes_max => {
                let head = incoming.bytes.unread();
                return self.refuse(id, 413, facts.kind, head, &BodyError::TooLarge);
            }
            Framing::Length(left)
                if left > config.inline_body_bytes_max || expectation == Expectation::Waiting =>
            {
                RequestBody::Streaming { left }
            }
            Framing::Chunked if config.chunked_bodies == ChunkedBodies::Refused => {
                let (head, reason) = (incoming.bytes.unread(), "the body announces no length");
                return self.refuse(id, 411, facts.kind, head, &reason);
            }
            Framing::Length(left)
                if left <= incoming.behind_head() as u64
                    && left <= config.body_memory_bytes_max as u64 =>
            {
                RequestBody::Arrived { left: usize::try_from(left).unwrap_or(usize::MAX) }
            }
            Framing::Length(_) | Framing::Chunked => {
                return self.begin_collection(id, incoming, framing);
            }
        };
        self.start(id, incoming);
    }

    fn begin_collection(
        self: &Rc<Self>,
        id: ConnectionId,
        mut incoming: Incoming,
        framing: Framing,
    ) {
        let Incoming { facts, changes, consume: head_bytes, .. } = incoming;
        let decoder = match Decoder::new(framing, &self.shared.config.body) {
            Ok(decoder) => decoder,
            Err(error) => {
                let head = incoming.bytes.unread();
                return self.refuse(id, error.status(), facts.kind, head, &error);
            }
        };
        let spool = SpooledTempFile::new(self.shared.config.body_memory_bytes_max);
        let (head, kind) = (Vec::new(), facts.kind);
        let mut collection = Box::new(Collection { head, kind, changes, decoder, bytes: 0, spool });
        let unread = incoming.bytes.unread();
        match collection.take(&unread[head_bytes..]) {
            Err(error) => self.refuse(id, error.status(), facts.kind, unread, &error),
            Ok(consumed) if collection.decoder.is_done() => {
                incoming.consume += consumed;
                incoming.body = collection.into_body();
                incoming.expectation = Expectation::None;
                self.start(id, incoming);
            }
            Ok(consumed) => {
                collection.head = unread[..head_bytes].to_vec();
                incoming.bytes.consume(head_bytes + consumed);
                self.wait_for_body(id, collection, incoming);
            }
        }
    }

    fn wait_for_body(&self, id: ConnectionId, collection: Box<Collection>, incoming: Incoming) {
        let input = self.shared.buffers.borrow_mut().shrink(incoming.bytes);
        self.shared.with(id, |connection| {
            connection.phase = Phase::Collecting(collection);
            connection.input = input;
            connection.scanned = 0;
        });
        self.shared.arm_in(id, self.shared.config.body_timeout);
        if incoming.expectation == Expectation::Waiting {
            self.ask_for_body(id);
        }
    }

    /// Sends the interim response (RFC 9110 section 10.1.1), behind the answers to earlier requests.
    fn ask_for_body(&self, id: ConnectionId) {
        self.shared.with(id, |connection| connection.held.extend_from_slice(CONTINUE));
        if self.shared.flush(id).is_err() {
            self.close(id, CloseReason::SocketError);
        }
    }

    /// Receives more of a body that is collected, and begins the request when it is complete.
    fn collect(self: &Rc<Self>, id: ConnectionId) -> Step {
        let mut input = self.shared.buffers.borrow_mut().grow(Input::default());
        let received = self.shared.receive(id, &mut input);
        let step = match received {
            Ok(Received::Some | Received::Drained) => self.collect_from(id, &mut input),
            Ok(Received::Nothing) => self.watch(id),
            Ok(Received::End) => self.cut_off(id),
            Err(_) => self.close(id, CloseReason::SocketError),
        };
        self.shared.buffers.borrow_mut().shrink(input);
        step
    }

    /// Refuses a request whose client has ended before its body has (RFC 9112 section 8).
    fn cut_off(&self, id: ConnectionId) -> Step {
        if let Some(Some(collection)) = self.shared.with(id, Connection::take_collection) {
            let (kind, head) = (collection.kind, &collection.head);
            self.refuse(id, 400, kind, head, &"the connection ended before the body did");
        }
        Step::Again
    }

    fn collect_from(self: &Rc<Self>, id: ConnectionId, input: &mut Input) -> Step {
        self.shared.arm_in(id, self.shared.config.body_timeout);
        let taken = self.shared.with(id, Connection::take_collection);
        let Some(Some(mut collection)) = taken else { return Step::Wait };
        match collection.take(input.unread()) {
            Err(error) => {
                self.refuse(id, error.status(), collection.kind, &collection.head, &error);
                Step::Again
            }
            Ok(consumed) => {
                input.consume(consumed);
                let done = collection.decoder.is_done();
                let rest = if done { input.unread().to_vec() } else { Vec::new() };
                self.shared.with(id, |connection| {
                    connection.input = rest.into();
                    connection.phase = Phase::Collecting(collection);
                });
                if done { self.begin_collected(id) } else { Step::Again }
            }
        }
    }

    /// Begins a request whose body has been collected; its head is parsed a second time.
    fn begin_collected(self: &Rc<Self>, id: ConnectionId) -> Step {
        let taken = self.shared.with(id, Connection::take_collection);
        let Some(Some(mut collection)) = taken else { return Step::Wait };
        let head = std::mem::take(&mut collection.head);
        let parsed = self.repeats.borrow_mut().parse_apart(&head, &self.shared.config.head);
        debug_assert!(matches!(parsed, Ok(Parsed::Complete { .. })), "it was complete before");
        let facts = RequestFacts::of(&self.repeats.borrow().index().view(&head));
        let (consume, changes) = (head.len(), collection.changes);
        let body = collection.into_body();
        let expectation = Expectation::None;
        let bytes = head.into();
        self.start(id, Incoming { bytes, consume, facts, expectation, body, changes });
        Step::Wait
    }

    /// Drops what is left of a body that the application did not read.
    fn discard(&self, id: ConnectionId) -> Step {
        let unread = self.shared.with(id, |connection| {
            let Phase::Discarding(left) = &mut connection.phase else { return true };
            let count = (connection.input.unread().len() as u64).min(*left);
            *left -= count;
            let done = *left == 0;
            connection.input.consume(usize::try_from(count).unwrap_or(usize::MAX));
            done
        });
        if unread != Some(false) {
            self.keep(id);
            return Step::Wait;
        }
        let mut input = self.shared.buffers.borrow_mut().grow(Input::default());
        let received = self.shared.receive(id, &mut input);
        if let Ok(Received::Nothing) = received {
            input = self.shared.buffers.borrow_mut().shrink(input);
        }
        self.shared.with(id, |connection| connection.input = input);
        self.after_discarding(id, &received)
    }

    /// Drops what a peer still sends to a connection that is closing.
    fn linger(&self, id: ConnectionId) -> Step {
        let unsent = self.shared.with(id, |connection| match &connection.phase {
            Phase::Lingering(output) => !output.is_empty(),
            _ => false,
        });
        if unsent == Some(true) {
            self.shared.flush_lingering(id);
        }
        let mut input = self.shared.buffers.borrow_mut().grow(Input::default());
        let received = self.shared.receive(id, &mut input);
        let dropped = input.unread().len();
        input.consume(dropped);
        self.shared.buffers.borrow_mut().shrink(input);
        self.after_discarding(id, &received)
    }

    fn after_discarding(&self, id: ConnectionId, received: &io::Result<Received>) -> Step {
        match received {
            // A peer that goes on sending has no more than one receive a turn: nobody waits for this.
            Ok(Received::Some | Received::Drained) => {
                self.shared.queue(id);
                Step::Wait
            }
            Ok(Received::Nothing) => self.watch(id),
            Ok(Received::End) => self.close(id, CloseReason::PeerClosed),
            Err(_) => self.close(id, CloseReason::SocketError),
        }
    }

    fn watch(&self, id: ConnectionId) -> Step {
        match self.shared.watch(id) {
            Ok(()) => Step::Wait,
            Err(_) => self.close(id, CloseReason::SocketError),
        }
    }

    fn close(&self, id: ConnectionId, reason: CloseReason) -> Step {
        self.shared.close(id, reason);
        Step::Wait
    }
}

impl Connection {
    /// Whether there is anything to be done about an event; there is no point in receiving because
    /// there is room to send.
    fn may_advance(&self, event: Event) -> bool {
        match self.phase {
            Phase::Lingering(_) => true,
            Phase::Head { .. } | Phase::Collecting(_) | Phase::Discarding(_) => event.readable,
            Phase::Busy | Phase::Upgraded => false,
        }
    }

    /// Takes the body out that is being collected; the phase is to be set by the caller.
    fn take_collection(&mut self) -> Option<Box<Collection>> {
        match std::mem::replace(&mut self.phase, Phase::Busy) {
            Phase::Collecting(collection) => Some(collection),
            other => {
                self.phase = other;
                None
            }
        }
    }
}

impl Collection {
    /// Decodes what belongs to the body and stores it; tells how many bytes that were.
    ///
    /// # Errors
    /// What the decoder says, and what storing it says.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, CollectError> {
        if let Some(content) = self.decoder.take_plain(bytes) {
            self.spool.write_all(content).map_err(CollectError::Storage)?;
            self.bytes += content.len() as u64;
            return Ok(content.len());
        }
        let mut output = [0; DECODE_BYTES];
        let mut consumed = 0;
        while consumed < bytes.len() && !self.decoder.is_done() {
            let decoded = self.decoder.decode(&bytes[consumed..], &mut output);
            let decoded = decoded.map_err(CollectError::Body)?;
            self.spool.write_all(&output[..decoded.produced]).map_err(CollectError::Storage)?;
            self.bytes += decoded.produced as u64;
            consumed += decoded.consumed;
        }
        Ok(consumed)
    }

    /// The body, to be read from its start.
    fn into_body(mut self) -> RequestBody {
        match self.spool.rewind() {
            Ok(()) => RequestBody::Collected { spool: Box::new(self.spool), bytes: self.bytes },
            Err(_) => RequestBody::Broken,
        }
    }
}
