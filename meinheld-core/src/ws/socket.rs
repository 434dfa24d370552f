//! A WebSocket on a connection: one coroutine receives, any number send, each whole message in its
//! turn.
//!
//! ```text
//!   Open ── close, or the server stops ──▶ Closing ── the peer's close ──▶ Closed
//!     │                                       │ the end of patience          ▲
//!     │ the peer's close, or its fault        └──────────────────────────────┤
//!     │ the connection's end, no answer to a ping, a send that timed out     │
//!     └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! INVARIANT: no `RefCell` of this file is borrowed across a wait. Nothing is queued for a peer that
//! does not read beyond what the system holds: its senders wait. Not here: frames (see protocol.rs).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

use meinheld_coro::Interrupt;

use super::message::{Closure, Message, MessageKind};
use super::protocol::{Protocol, Step, header};
use super::turns::{Turn, Turns};
use crate::upgraded::Upgraded;

/// How many bytes a coroutine may receive before the others have their turn.
const BURST_BYTES_MAX: usize = 256 * 1024;

/// How many bytes of pongs may wait for room before nothing more is read.
const REPLY_BYTES_MAX: usize = 4096;

/// The settings of a WebSocket.
#[derive(Clone, Debug)]
pub struct WebSocketConfig {
    /// How long a message may be, in bytes (1009 if it is longer); default 1 MiB, at most 1 GiB is obeyed.
    pub message_bytes_max: usize,
    /// How long nothing may come, while a message is waited for, until the peer is pinged; if it is
    /// silent for as long again it counts as dead. `None` never pings; default 20 s.
    pub ping_interval: Option<Duration>,
    /// How long the peer may read nothing while something is sent to it; default 30 s.
    pub send_timeout: Duration,
    /// How long the peer may take to answer a close; default 5 s.
    pub close_timeout: Duration,
}

impl Default for WebSocketConfig {
    fn default() -> WebSocketConfig {
        WebSocketConfig {
            message_bytes_max: 1024 * 1024,
            ping_interval: Some(Duration::from_secs(20)),
            send_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// A WebSocket; clones are the same one. It lives as long as the request that it was asked for with.
///
/// Made by [`Exchange::accept_websocket`](crate::Exchange::accept_websocket).
#[derive(Clone)]
pub struct WebSocket {
    inner: Rc<Inner>,
}

struct Inner {
    stream: Upgraded,
    config: WebSocketConfig,
    subprotocol: Option<String>,
    protocol: RefCell<Protocol>,
    sending: Turns,
    receiving: Cell<bool>,
    state: Cell<State>,
    closure: RefCell<Option<Closure>>,
    /// When the peer was heard last, and when it was pinged.
    heard: Cell<Instant>,
    pinged: Cell<Option<Instant>>,
    /// How many bytes have been received since the last wait.
    burst: Cell<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Our close is out, or about to be.
    Closing,
    Closed,
}

impl WebSocket {
    pub(super) fn new(
        stream: Upgraded,
        subprotocol: Option<&str>,
        config: WebSocketConfig,
    ) -> WebSocket {
        let inner = Inner {
            stream,
            protocol: RefCell::new(Protocol::new(config.message_bytes_max)),
            config,
            subprotocol: subprotocol.map(str::to_owned),
            sending: Turns::default(),
            receiving: Cell::new(false),
            state: Cell::new(State::Open),
            closure: RefCell::new(None),
            heard: Cell::new(Instant::now()),
            pinged: Cell::new(None),
            burst: Cell::new(0),
        };
        WebSocket { inner: Rc::new(inner) }
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.inner.subprotocol.as_deref()
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.inner.state.get() != State::Open || !self.inner.stream.is_open()
    }

    /// How it was closed, once it is.
    pub fn closure(&self) -> Option<Closure> {
        self.inner.closure.borrow().clone()
    }

    /// Waits for the next message, for `timeout` at the most. `None` if there will be none: either
    /// side has closed it, the connection has ended, or the server stops, which closes it with 1001.
    ///
    /// Pings are answered, and sent, while a message is waited for.
    ///
    /// # Errors
    /// `TimedOut`; `ResourceBusy` while another coroutine receives; an
    /// [`Interrupt`] when the coroutine is cancelled or may not park.
    pub fn receive(&self, timeout: Option<Duration>) -> io::Result<Option<Message>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let _receiving = self.inner.begin_receiving()?;
        while !self.is_closed() {
            if self.inner.stream.is_stopping() {
                // If it cannot be told the peer sees the connection end.
                let _ = self.inner.begin_close(&Closure::new(Closure::GOING_AWAY, ""));
                break;
            }
            match self.inner.step()? {
                Step::Message(message) => return Ok(Some(message)),
                Step::Starved => self.inner.wait_for_input(deadline)?,
                _ => {}
            }
        }
        Ok(None)
    }

    /// Sends a message as it was received.
    ///
    /// # Errors
    /// As [`send_bytes`](Self::send_bytes).
    pub fn send(&self, message: &Message, timeout: Option<Duration>) -> io::Result<()> {
        self.inner.send(message.kind(), message.bytes(), timeout)
    }

    /// Sends a text.
    ///
    /// # Errors
    /// As [`send_bytes`](Self::send_bytes).
    pub fn send_text(&self, text: &str, timeout: Option<Duration>) -> io::Result<()> {
        self.inner.send(MessageKind::Text, text.as_bytes(), timeout)
    }

    /// Sends bytes; returns when the system has taken all of them, which waits for a peer that does
    /// not read, for as long as the settings say, or for `timeout` instead. Messages of several
    /// coroutines go out whole, in the order of the calls.
    ///
    /// # Errors
    /// `TimedOut`, which ends the connection too; `BrokenPipe` if it is closed; what the socket says,
    /// an [`Interrupt`] when the coroutine is cancelled or may not park.
    pub fn send_bytes(&self, bytes: &[u8], timeout: Option<Duration>) -> io::Result<()> {
        self.inner.send(MessageKind::Binary, bytes, timeout)
    }

    /// Sends a ping now; its answer is not told of.
    ///
    /// # Errors
    /// As [`send_bytes`](Self::send_bytes).
    pub fn ping(&self) -> io::Result<()> {
        self.inner.check_open()?;
        self.inner.protocol.borrow_mut().ping();
        self.inner.send_replies(None)
    }

    /// Sends a close with this code and reason; from now on nothing can be sent, and nothing is
    /// received. Closing again does nothing. Whoever receives is told.
    ///
    /// # Errors
    /// `InvalidInput` for a code that cannot be sent, or a reason of more than 123 bytes; as
    /// [`send_bytes`](Self::send_bytes).
    pub fn close(&self, code: u16, reason: &str) -> io::Result<()> {
        let closure = Closure::new(code, reason);
        if !closure.is_sendable() {
            let message = "a close has a code of 1000 to 1003, 1007 to 1014 or 3000 to 4999, and a \
                           reason of at most 123 bytes";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if self.inner.state.get() != State::Open {
            return Ok(());
        }
        self.inner.begin_close(&closure)
    }

    /// Closes it with `code` if it is open, and waits until the peer has closed it too, or the
    /// close time-out has passed. To be called before the request ends.
    pub fn finish(&self, code: u16) {
        if self.close(code, "").is_err() {
            return;
        }
        let deadline = Instant::now().checked_add(self.inner.config.close_timeout);
        let Ok(_receiving) = self.inner.begin_receiving() else { return };
        while self.inner.state.get() == State::Closing && self.inner.stream.is_open() {
            let waited = match self.inner.step() {
                Ok(Step::Starved) => self.inner.wait_until(deadline),
                other => other.map(drop),
            };
            if waited.is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("state", &self.inner.state.get()).finish_non_exhaustive()
    }
}

/// That somebody receives.
struct Receiving<'a>(&'a Cell<bool>);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// What the protocol reads from: the connection, up to the end of a burst.
struct Source<'a>(&'a Inner);

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let burst = self.0.burst.get();
        if burst >= BURST_BYTES_MAX {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.0.stream.try_read(buffer)?;
        self.0.burst.set(burst + count);
        if count > 0 {
            self.0.heard.set(Instant::now());
        }
        Ok(count)
    }
}

// ------------------------------------------------------------------- receiving

impl Inner {
    fn begin_receiving(&self) -> io::Result<Receiving<'_>> {
        if self.receiving.replace(true) {
            let message = "another coroutine waits for this WebSocket's messages";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        }
        Ok(Receiving(&self.receiving))
    }

    /// Reads what is there, and sees to all of it but messages.
    fn step(&self) -> io::Result<Step> {
        let step = self.protocol.borrow_mut().read(&mut Source(self));
        match &step {
            Step::Message(_) | Step::Control | Step::Starved => {
                if self.protocol.borrow().reply_bytes() > REPLY_BYTES_MAX {
                    self.send_replies(None)?;
                } else {
                    self.try_send_replies();
                }
            }
            Step::Closed(closure) | Step::Failed(closure) => {
                self.end(closure.clone());
                // If the answer cannot be sent the peer sees the connection end.
                let _ = self.send_replies(None);
            }
            Step::Ended | Step::Broken(_) => self.end(Closure::new(Closure::ABNORMAL, "")),
        }
        Ok(step)
    }

    /// Notes the end, unless it was noted before. A close of the peer's wins over ours.
    fn end(&self, closure: Closure) {
        let ours = self.state.replace(State::Closed) == State::Closing;
        let mut noted = self.closure.borrow_mut();
        if noted.is_none() || (ours && closure.code != Closure::ABNORMAL) {
            *noted = Some(closure);
        }
    }

    /// Waits for input until `deadline`, and pings when it is time to.
    fn wait_for_input(&self, deadline: Option<Instant>) -> io::Result<()> {
        let now = Instant::now();
        let ping_at = self.ping_due();
        if ping_at.is_some_and(|at| at <= now) {
            self.ping_or_give_up(now);
            return Ok(());
        }
        let first = [deadline, ping_at].into_iter().flatten().min();
        match self.wait_until(first) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && first != deadline => Ok(()),
            other => other,
        }
    }

    /// Waits for input, or for room if pongs wait for that. An interrupt is no error: what has changed
    /// is seen by looking.
    fn wait_until(&self, deadline: Option<Instant>) -> io::Result<()> {
        if self.burst.replace(0) >= BURST_BYTES_MAX {
            return meinheld_coro::yield_now().map_err(io::Error::other);
        }
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let replies = self.protocol.borrow().has_replies() && self.sending.is_free();
        let waited = if replies {
            self.stream.wait_readable_or_writable(timeout)
        } else {
            self.stream.wait_readable(timeout)
        };
        match waited {
            Err(error) if is_interrupted(&error) => Ok(()),
            other => other,
        }
    }

    /// When the peer is to be pinged, or to be given up.
    fn ping_due(&self) -> Option<Instant> {
        let last = self.pinged.get().map_or(self.heard.get(), |at| at.max(self.heard.get()));
        last.checked_add(self.config.ping_interval?)
    }

    fn ping_or_give_up(&self, now: Instant) {
        if self.pinged.get().is_some_and(|at| at > self.heard.get()) {
            return self.give_up("no answer to a ping");
        }
        self.pinged.set(Some(now));
        self.protocol.borrow_mut().ping();
        self.try_send_replies();
    }

    /// Ends it at once: the peer is dead, or something was sent to it in part only.
    fn give_up(&self, why: &str) {
        self.end(Closure::new(Closure::ABNORMAL, why));
        self.stream.abandon();
    }
}

fn is_interrupted(error: &io::Error) -> bool {
    let interrupt = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(interrupt, Some(Interrupt::Interrupted))
}

// --------------------------------------------------------------------- sending

impl Inner {
    fn send(&self, kind: MessageKind, payload: &[u8], timeout: Option<Duration>) -> io::Result<()> {
        self.check_open()?;
        let turn = self.begin_turn(timeout)?;
        // It may have been closed while others had their turns.
        self.check_open()?;
        let header = header(kind, payload.len());
        self.write_whole(header.as_bytes(), payload, timeout)?;
        while self.protocol.borrow().has_replies() {
            // They came meanwhile, and are no concern of the message's.
            if self.write_whole(&[], &[], timeout).is_err() {
                break;
            }
        }
        drop(turn);
        Ok(())
    }

    /// Waits for those who came before, as long as for the peer.
    fn begin_turn(&self, timeout: Option<Duration>) -> io::Result<Turn<'_>> {
        let timeout = timeout.unwrap_or(self.config.send_timeout);
        self.sending.take(Instant::now().checked_add(timeout)).map_err(|interrupt| {
            if matches!(interrupt, Interrupt::TimedOut) {
                self.give_up("a message could not be sent in time");
                return io::ErrorKind::TimedOut.into();
            }
            io::Error::other(interrupt)
        })
    }

    fn check_open(&self) -> io::Result<()> {
        match self.state.get() {
            State::Open if self.stream.is_open() => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the WebSocket is closed")),
        }
    }

    fn begin_close(&self, closure: &Closure) -> io::Result<()> {
        self.state.set(State::Closing);
        *self.closure.borrow_mut() = Some(closure.clone());
        self.protocol.borrow_mut().close(closure);
        self.stream.interrupt_reader();
        self.send_replies(None)
    }

    /// Sends the replies, in a turn of their own.
    fn send_replies(&self, timeout: Option<Duration>) -> io::Result<()> {
        let turn = self.begin_turn(timeout)?;
        while self.protocol.borrow().has_replies() {
            self.write_whole(&[], &[], timeout)?;
        }
        drop(turn);
        Ok(())
    }

    /// Sends what there is room for, if nobody sends; whoever does sends the replies too.
    fn try_send_replies(&self) {
        if !self.protocol.borrow().has_replies() {
            return;
        }
        let Some(_turn) = self.sending.try_take() else { return };
        let replies = self.protocol.borrow_mut().take_replies();
        // A failure is seen by whoever reads.
        let sent = self.stream.try_write_vectored(&[IoSlice::new(&replies)]).unwrap_or(0);
        self.protocol.borrow_mut().return_replies(replies[sent..].to_vec());
    }

    /// Sends the replies and then a frame. What is begun must be ended: if it is not, nothing can
    /// follow.
    fn write_whole(
        &self,
        header: &[u8],
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut replies = self.protocol.borrow_mut().take_replies();
        let mut sent = 0;
        let pieces = [replies.as_slice(), header, payload];
        let written = self.write_pieces(&mut pieces.map(IoSlice::new), timeout, &mut sent);
        let Err(error) = written else { return Ok(()) };
        let begun = sent > replies.len();
        let unsent = replies.split_off(sent.min(replies.len()));
        self.protocol.borrow_mut().return_replies(unsent);
        let interrupted =
            error.get_ref().and_then(|inner| inner.downcast_ref::<Interrupt>()).is_some();
        if begun || !interrupted {
            self.give_up("a message could not be sent");
        }
        Err(error)
    }

    fn write_pieces(
        &self,
        mut pieces: &mut [IoSlice<'_>],
        timeout: Option<Duration>,
        sent: &mut usize,
    ) -> io::Result<()> {
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            match self.stream.try_write_vectored(pieces) {
                Ok(count) => {
                    *sent += count;
                    IoSlice::advance_slices(&mut pieces, count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let timeout = timeout.unwrap_or(self.config.send_timeout);
                    self.stream.wait_writable(Some(timeout))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
