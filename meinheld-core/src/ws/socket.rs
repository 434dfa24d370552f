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
//! INVARIANT: no `RefCell` of an `Inner` is borrowed across a wait. Nothing is queued for a peer that
//! does not read beyond what the system holds: its senders wait. Not here: frames (see protocol.rs).

mod receiving;
mod sending;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::message::{Closure, Message, MessageKind};
use super::protocol::{Protocol, Step};
use super::turns::Turns;
use crate::upgraded::Upgraded;

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
    /// [`Interrupt`](meinheld_coro::Interrupt) when the coroutine is cancelled or may not park.
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
    /// an [`Interrupt`](meinheld_coro::Interrupt) when the coroutine is cancelled or may not park.
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
