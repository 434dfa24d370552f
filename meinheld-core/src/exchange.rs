//! One request and its response, as the application sees them: from inside a coroutine.
//!
//! ```text
//!   request body    Empty | Arrived | Collected ──read──▶ …     (there before the request began)
//!                   Streaming{left} ──read, waiting──▶ Empty     (or Broken: the client failed)
//!
//!   response        Unbegun ──begin──▶ Begun ──first write──▶ Body ──end──▶ Ended
//!                      │  ▲___begin again___│                   │             ▲
//!                      └──────────── end: a 500 ────────────────┼─────────────┘
//!                                                 any failed send ──▶ Broken; a failed application ──▶ CutOff
//!                   Unbegun ──upgrade──▶ Upgraded                (the bytes are no HTTP any more)
//! ```
//!
//! Every call that says so may wait; no more than a few small pieces are buffered (see output.rs), so
//! that a client that does not read stops its application. Not here: the loop.

mod body;
mod file;
mod output;
mod upgrade;

use std::cell::OnceCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Instant;

pub(crate) use body::{Expectation, RequestBody};
pub use file::duplicate_file;
pub use upgrade::UpgradeError;

use crate::client::Client;
use crate::http::{
    BodyEncoding, BodyPlan, KeepAlive, LAST_CHUNK, RequestFacts, ResponseBuilder, ResponseError,
    early_hints, error_response, reason_phrase,
};
use crate::shared::Turn;
use crate::upgraded::Traffic;

/// An unread rest of a request body up to this many bytes is read and dropped to keep the
/// connection; for more, closing it is cheaper.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;

/// A request's body, and the response to it.
pub struct Exchange {
    client: Client,
    facts: RequestFacts,
    state: Held,
}

/// The rest of an exchange. Boxed, since an exchange is moved about, and a suspended request's stack is
/// to stay small; of one that was detached nothing is left, and a broken one is made if it is used.
struct Held(OnceCell<Box<State>>);

impl Deref for Held {
    type Target = State;

    fn deref(&self) -> &State {
        self.0.get_or_init(|| Box::new(State::broken()))
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut State {
        self.0.get_or_init(|| Box::new(State::broken()));
        self.0.get_mut().expect("it is there or was made just now")
    }
}

struct State {
    expectation: Expectation,
    body: RequestBody,
    response: Response,
    length: Length,
    status: u16,
    body_bytes_sent: u64,
    muted: bool,
    /// The turn in which it was told that nothing that takes time follows the end of the response.
    prompt: Turn,
    /// When a piece was written last that others may follow soon.
    written: Option<Instant>,
    /// The turns in which the socket was read and written last. Apart, so that the first send, with
    /// which earlier responses may go out, does not give way.
    received_in: Turn,
    sent_in: Turn,
}

/// What is known of the length of the response's body.
#[derive(Clone, Copy)]
enum Length {
    Unknown,
    /// The application has told it, before the head was sent.
    Announced(u64),
    /// It was not as the head says.
    Mismatched(LengthMismatch),
}

impl State {
    fn new(expectation: Expectation, body: RequestBody, response: Response) -> State {
        State {
            expectation,
            body,
            response,
            length: Length::Unknown,
            status: 0,
            body_bytes_sent: 0,
            muted: false,
            prompt: Turn::default(),
            written: None,
            received_in: Turn::default(),
            sent_in: Turn::default(),
        }
    }

    #[cold]
    fn broken() -> State {
        State::new(Expectation::None, RequestBody::Broken, Response::Broken)
    }
}

enum Response {
    Unbegun,
    Begun(Rc<ResponseBuilder>),
    Body(BodyPlan),
    Ended(KeepAlive),
    Upgraded(Rc<Traffic>),
    /// The application has failed midway.
    CutOff,
    Broken,
}

/// How a body differed from the Content-Length that the application had announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthMismatch {
    /// It was longer; the rest was not sent.
    Excess,
    /// It was shorter by this many bytes; the connection is closed, so that the client can tell.
    Shortage(u64),
}

/// What is to become of the connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conclusion {
    /// Keep it, after this many bytes of the request's body have been dropped.
    Keep { unread: u64 },
    /// Close it, as the client wished.
    Close,
    /// Close it, though the client may have sent more.
    Leave,
    /// Close it, but let the client read what was sent first.
    Linger,
    /// It is broken.
    Broken,
}

/// Why a response could not be begun.
#[derive(Debug)]
pub enum BeginError {
    /// The head of an earlier one has been sent already.
    HeadSent,
    /// The status or a header is not valid; nothing of it is sent.
    Invalid(ResponseError),
}

impl std::fmt::Display for BeginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BeginError::HeadSent => f.write_str("the head of the response has been sent already"),
            BeginError::Invalid(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BeginError {}

impl From<ResponseError> for BeginError {
    fn from(error: ResponseError) -> BeginError {
        BeginError::Invalid(error)
    }
}

impl Exchange {
    pub(crate) fn new(
        client: Client,
        facts: RequestFacts,
        expectation: Expectation,
        body: RequestBody,
    ) -> Exchange {
        let state = Box::new(State::new(expectation, body, Response::Unbegun));
        Exchange { client, facts, state: Held(OnceCell::from(state)) }
    }

    /// The client at the other end.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Begins the response; nothing is sent before the first byte of its body, or its end. One that
    /// was begun before and not sent is replaced.
    ///
    /// # Errors
    /// See [`BeginError`]; an earlier response that was begun is given up in any case.
    pub fn begin<'h>(
        &mut self,
        status: u16,
        reason: &[u8],
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<(), BeginError> {
        if self.is_head_sent() {
            return Err(BeginError::HeadSent);
        }
        self.state.response = Response::Unbegun;
        let mut builder = ResponseBuilder::begin(status, reason)?;
        for (name, value) in headers {
            builder.header(name, value)?;
        }
        self.begin_with(Rc::new(builder))
    }

    /// The same with what was checked and encoded before, for another response perhaps.
    ///
    /// # Errors
    /// [`BeginError::HeadSent`].
    pub fn begin_with(&mut self, builder: Rc<ResponseBuilder>) -> Result<(), BeginError> {
        if self.is_head_sent() {
            return Err(BeginError::HeadSent);
        }
        self.state.status = builder.status();
        self.state.response = Response::Begun(builder);
        Ok(())
    }

    /// The response that was begun and not sent, for [`begin_with`](Self::begin_with).
    pub fn begun(&self) -> Option<Rc<ResponseBuilder>> {
        match &self.state.response {
            Response::Begun(builder) => Some(Rc::clone(builder)),
            _ => None,
        }
    }

    /// Tells how many bytes the whole body will have; unless the response has a Content-Length of
    /// its own, this becomes it. Once the head has been sent it changes nothing.
    pub fn announce_length(&mut self, bytes: u64) {
        if !self.is_head_sent() {
            self.state.length = Length::Announced(bytes);
        }
    }

    /// Has nothing sent from now on, whatever is written, and the connection closed after the call: the
    /// application has answered by other means, on the descriptor itself. `false` takes that back.
    pub fn mute(&mut self, muted: bool) {
        if muted {
            // What came before the other means is the server's still.
            let _ = self.client.shared.flush(self.client.id);
        }
        self.state.muted = muted;
    }

    /// Takes the exchange out of a place that must be left with one: a broken one of the same
    /// client. To be put back before [`Service::call`](crate::Service::call) returns.
    #[must_use = "what is not put back is broken off"]
    pub fn detach(&mut self) -> Exchange {
        let state = Held(OnceCell::new());
        std::mem::replace(self, Exchange { client: self.client.clone(), facts: self.facts, state })
    }

    /// Sends a piece of the body, and the head before the first; may wait for the client. An empty
    /// piece sends the head alone.
    ///
    /// # Errors
    /// `TimedOut` when the client takes nothing for the send time-out; what the socket says. A
    /// response that was not begun is the caller's mistake, `InvalidInput`.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.send(piece)
    }

    /// The same for one of many pieces: small ones that follow each other at once may go out together.
    /// The first goes out at once; none is kept back while the request waits, or once the response has
    /// ended.
    ///
    /// # Errors
    /// As [`write`](Self::write); a failure to send may be told at a later call.
    pub fn write_soon(&mut self, piece: &[u8]) -> io::Result<()> {
        self.send_soon(piece)
    }

    /// Sends the last piece of the body and ends the response. When it is the first piece too, the
    /// response gets a Content-Length.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_last(&mut self, piece: &[u8]) -> io::Result<()> {
        self.announce_length(piece.len() as u64);
        self.send_last(piece)
    }

    /// Tells that whoever answers does nothing that takes time once the response has ended. If the
    /// connection ends with it, the last bytes wait for that, and go out together with the end, unless the
    /// answer has taken long since: a client that has said more meanwhile would be reset, and get none of
    /// them.
    pub fn end_promptly(&mut self) {
        self.state.prompt = self.client.shared.turn();
    }

    /// Answers with a whole response of one piece.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) (`InvalidInput`) and [`write`](Self::write).
    pub fn respond(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let fields = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.begin(status, reason_phrase(status).as_bytes(), fields)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.write_last(body)
    }

    /// Sends a 103 (Early Hints, RFC 8297) with `headers`; to an HTTP/1.0 client nothing.
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    pub fn early_hints<'h>(
        &mut self,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    ) -> io::Result<()> {
        let mut hints = Vec::new();
        early_hints(self.facts.version, headers, &mut hints)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if self.is_head_sent() {
            let error = BeginError::HeadSent;
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        self.send_raw(&hints)
    }

    /// Ends the response: sends what is missing of it. Ending it twice does nothing.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn end(&mut self) -> io::Result<()> {
        if self.state.muted {
            return Ok(());
        }
        match self.state.response {
            Response::Unbegun => self.fail(500),
            Response::Begun(_) => self.write_last(b""),
            Response::Body(_) => self.send_end(),
            Response::Ended(_) | Response::Upgraded(_) | Response::CutOff | Response::Broken => {
                Ok(())
            }
        }
    }

    /// Appends what ends the body to `out`, and notes that the response has ended.
    fn push_end(&mut self, out: &mut Vec<u8>) {
        let Response::Body(plan) = self.state.response else { return };
        let mut keep_alive = plan.keep_alive;
        match plan.encoding {
            BodyEncoding::Chunked => out.extend_from_slice(LAST_CHUNK),
            BodyEncoding::Length(length) if self.state.body_bytes_sent < length => {
                let shortage = LengthMismatch::Shortage(length - self.state.body_bytes_sent);
                self.state.length = Length::Mismatched(shortage);
                keep_alive = KeepAlive::Close;
            }
            BodyEncoding::Length(_) | BodyEncoding::None | BodyEncoding::UntilClose => {}
        }
        self.state.response = Response::Ended(keep_alive);
    }

    /// Answers with the server's own error response if nothing has been sent, and closes the
    /// connection unless a whole response has been. The client can tell a response that is cut off.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn fail(&mut self, status: u16) -> io::Result<()> {
        if self.state.muted {
            return Ok(());
        }
        match self.state.response {
            Response::Unbegun | Response::Begun(_) => {}
            // What has been sent of another protocol is nothing to add to, nor is a whole response.
            Response::Upgraded(_) | Response::Ended(_) | Response::Broken | Response::CutOff => {
                return Ok(());
            }
            Response::Body(_) => {
                self.state.response = Response::CutOff;
                return Ok(());
            }
        }
        let mut out = Vec::new();
        let fields = &self.client.shared.fields;
        let body_bytes = error_response(status, self.facts.kind, &fields.borrow(), &mut out);
        self.state.status = status;
        self.state.response = Response::Ended(KeepAlive::Close);
        self.send_raw(&out)?;
        self.state.body_bytes_sent = body_bytes;
        Ok(())
    }

    /// Ends an exchange whose client is gone and takes no answer: nothing is sent, `status` is what it
    /// counts as, and the connection is closed. What has been sent already is cut off, as it is.
    pub fn abandon(&mut self, status: u16) {
        if !self.state.muted && !self.is_head_sent() {
            self.state.status = status;
            self.state.response = Response::CutOff;
        }
    }

    /// Whether the head of the response has been sent, so that it cannot be changed any more.
    pub fn is_head_sent(&self) -> bool {
        !matches!(self.state.response, Response::Unbegun | Response::Begun(_))
    }

    /// Whether a response has been begun or sent.
    pub fn is_begun(&self) -> bool {
        !matches!(self.state.response, Response::Unbegun)
    }

    /// Whether no more of a body would be sent, whatever is written: the response may have none, or
    /// more than its Content-Length was written already.
    pub fn is_body_over(&self) -> bool {
        match &self.state.response {
            _ if self.state.muted => true,
            Response::Unbegun | Response::Begun(_) => false,
            Response::Body(plan) => {
                plan.encoding == BodyEncoding::None
                    || self.length_mismatch() == Some(LengthMismatch::Excess)
            }
            Response::Ended(_) | Response::Upgraded(_) | Response::CutOff | Response::Broken => {
                true
            }
        }
    }

    /// Whether nothing is sent any more; see [`mute`](Self::mute).
    pub fn is_muted(&self) -> bool {
        self.state.muted
    }

    /// The status that was sent, or will be; 0 if none was begun.
    pub fn status(&self) -> u16 {
        self.state.status
    }

    /// How many bytes of the response's body have been sent, framing not counted; after an upgrade,
    /// all bytes that have been sent since.
    pub fn body_bytes_sent(&self) -> u64 {
        match &self.state.response {
            Response::Upgraded(traffic) => traffic.bytes_sent(),
            _ => self.state.body_bytes_sent,
        }
    }

    /// How the body differed from its announced length, once that is known.
    pub fn length_mismatch(&self) -> Option<LengthMismatch> {
        match self.state.length {
            Length::Mismatched(mismatch) => Some(mismatch),
            Length::Unknown | Length::Announced(_) => None,
        }
    }

    /// What is to become of the connection. An exchange that has not ended is broken off.
    pub(crate) fn conclude(&mut self) -> Conclusion {
        self.drop_arrived();
        if self.state.muted {
            return Conclusion::Linger;
        }
        let keep_alive = match &self.state.response {
            Response::Ended(keep_alive) => *keep_alive,
            // What the peer has not read yet must not be destroyed (RFC 9112 section 9.6).
            Response::Upgraded(traffic) if !traffic.is_cut() => return Conclusion::Linger,
            Response::CutOff => return Conclusion::Linger,
            _ => return Conclusion::Broken,
        };
        let unread = match self.state.body {
            RequestBody::Streaming { left } => left,
            RequestBody::Empty | RequestBody::Arrived { .. } | RequestBody::Collected { .. } => 0,
            RequestBody::Broken => return Conclusion::Linger,
        };
        match keep_alive {
            KeepAlive::Keep => Conclusion::Keep { unread },
            KeepAlive::Close if unread > 0 => Conclusion::Linger,
            KeepAlive::Close if self.facts.keep_alive == KeepAlive::Keep => Conclusion::Leave,
            // Clients of old send a line end behind a body (RFC 9112 section 2.2).
            KeepAlive::Close if !matches!(self.state.body, RequestBody::Empty) => Conclusion::Leave,
            KeepAlive::Close => Conclusion::Close,
        }
    }

    /// Whether another request could be read after this one.
    fn may_keep_alive(&self) -> bool {
        let readable = match self.state.body {
            RequestBody::Empty | RequestBody::Arrived { .. } | RequestBody::Collected { .. } => {
                true
            }
            // A client that still waits to be asked may or may not send the body.
            RequestBody::Streaming { left } => {
                left <= DISCARD_BYTES_MAX && self.state.expectation == Expectation::None
            }
            RequestBody::Broken => false,
        };
        let shared = &self.client.shared;
        readable && !shared.stopping.get() && !shared.config.keep_alive_timeout.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request that waits has one, and moves it about.
    #[test]
    fn an_exchange_stays_small() {
        assert!(size_of::<Exchange>() <= 40, "{}", size_of::<Exchange>());
        assert!(size_of::<State>() <= 104, "{}", size_of::<State>());
    }
}
