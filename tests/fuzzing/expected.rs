//! What one connection must have answered, from the bytes that its peer has sent alone: each whole
//! valid request once and in order, at most one refusal, and nothing after it.
//!
//! Bytes are taken apart by the protocol code, which has targets of its own: what is checked here is
//! that a connection acts on them as if they had come in one piece.

use std::fmt;

use meinheld_core::http::{
    BodyError, BodyLimits, CONTINUE, Decoder, Framing, HeadIndex, HeadLimits, Parsed, Version,
};

use super::reply::{BodyEnd, Reply, read_reply};
use super::script::Patience;

/// A body of at most this many bytes is there before its request begins.
pub(crate) const INLINE_BODY_BYTES_MAX: u64 = 16;
/// What [`Answer::Big`] is answered with: more than a socket holds.
pub(crate) const BIG_BYTES: usize = 300 * 1024;

/// What a request asks the application for, by the first letters of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Plain,
    /// The body, read whole before it is sent back.
    Echo,
    /// The body, each piece sent back as it is read.
    Stream,
    /// The first bytes of the body only.
    Part,
    /// An answer after another request, or the script, has resumed this one.
    Wait,
    Big,
    Empty,
    Hints,
    /// Less than was announced.
    Short,
    Panic,
    Nothing,
}

impl Answer {
    pub(crate) fn to(path: &[u8]) -> Answer {
        let named = [
            (&b"/echo"[..], Answer::Echo),
            (b"/stream", Answer::Stream),
            (b"/part", Answer::Part),
            (b"/wait", Answer::Wait),
            (b"/big", Answer::Big),
            (b"/empty", Answer::Empty),
            (b"/hints", Answer::Hints),
            (b"/short", Answer::Short),
            (b"/panic", Answer::Panic),
            (b"/nothing", Answer::Nothing),
        ];
        let found = named.iter().find(|(prefix, _)| path.starts_with(prefix));
        found.map_or(Answer::Plain, |(_, answer)| *answer)
    }
}

/// The limits that scripts can reach.
pub(crate) fn head_limits() -> HeadLimits {
    HeadLimits { head_bytes_max: 1024, target_bytes_max: 64, ..HeadLimits::default() }
}

/// The limits that scripts can reach.
pub(crate) fn body_limits() -> BodyLimits {
    BodyLimits { body_bytes_max: 2048, trailer_bytes_max: 64, ..BodyLimits::default() }
}

/// What happened on one connection.
pub(crate) struct Record {
    pub(crate) sent: Vec<u8>,
    pub(crate) received: Vec<u8>,
    /// Whether the peer has read to the end, so that nothing may be missing.
    pub(crate) whole: bool,
    pub(crate) patience: Patience,
    pub(crate) keep_alive: bool,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = &self.received[..self.received.len().min(4000)];
        write!(f, "sent {}, received {}", self.sent.escape_ascii(), received.escape_ascii())
    }
}

#[derive(Debug)]
enum Expected {
    Request(Request),
    /// A refusal; `certain` unless it takes another byte to look at the fault.
    Refusal {
        status: u16,
        method: String,
        certain: bool,
    },
    /// The client was asked for its body; what that leads to comes next.
    Continue,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts independent of each other")]
struct Request {
    method: String,
    path: Vec<u8>,
    answer: Answer,
    body: Vec<u8>,
    whole: bool,
    /// Whether it began before its body had come.
    streamed: bool,
    expects_continue: bool,
    keep_alive: bool,
    version: Version,
}

impl Record {
    /// Checks what was received against what was sent.
    pub(crate) fn check(&self) {
        let mut rest = &self.received[..];
        for expected in self.expected() {
            let closes = match &expected {
                Expected::Continue => {
                    rest = rest.strip_prefix(CONTINUE).unwrap_or(rest);
                    Some(false)
                }
                Expected::Refusal { status, method, certain } => {
                    let must_be = *certain && self.whole && !self.is_timed();
                    self.check_refusal(*status, method, must_be, &mut rest)
                }
                Expected::Request(request) => self.check_answer(request, &mut rest),
            };
            if closes != Some(false) {
                break;
            }
        }
        // A request of which there was not enough to know it by may time out; and one that was cut
        // off may not be read to its end.
        if !self.whole || (self.is_timed() && rest.starts_with(b"HTTP/1.1 408 ")) {
            return;
        }
        assert!(rest.is_empty(), "an answer to nothing, {}: {self:?}", rest.escape_ascii());
    }

    fn is_timed(&self) -> bool {
        self.patience == Patience::Server
    }

    /// Reads a refusal; tells that it was the last, or `None` if it is not there.
    fn check_refusal(
        &self,
        status: u16,
        method: &str,
        must_be: bool,
        rest: &mut &[u8],
    ) -> Option<bool> {
        let Some((reply, used)) = read_reply(method, rest) else {
            assert!(!must_be, "no refusal: {self:?}");
            return None;
        };
        *rest = &rest[used..];
        let timed_out = self.is_timed() && reply.status == 408;
        assert!(reply.status == status || timed_out, "{reply:?}, not {status}: {self:?}");
        assert!(reply.closes(), "{reply:?}: {self:?}");
        Some(true)
    }

    /// Reads the answer to one request; tells whether it was the last, or `None` if it is not there.
    fn check_answer(&self, request: &Request, rest: &mut &[u8]) -> Option<bool> {
        let mut continued = false;
        loop {
            let Some((reply, used)) = read_reply(&request.method, rest) else {
                assert!(!self.whole || self.is_timed(), "no answer to {request:?}: {self:?}");
                // A piece of a head that was cut off.
                *rest = b"";
                return None;
            };
            *rest = &rest[used..];
            match reply.status {
                100 => {
                    assert!(request.expects_continue && !continued, "{reply:?}: {self:?}");
                    continued = true;
                }
                103 => assert_eq!(request.answer, Answer::Hints, "{self:?}"),
                _ => {
                    self.check_final(request, &reply);
                    let cut_off = reply.body_end == BodyEnd::CutOff;
                    return Some(cut_off || self.check_closes(request, continued, &reply));
                }
            }
        }
    }

    fn check_final(&self, request: &Request, reply: &Reply) {
        assert!(!reply.is_interim(), "{reply:?}");
        if reply.body_end == BodyEnd::CutOff {
            // What is shorter than announced cannot say so in its head.
            let short = request.answer == Answer::Short && reply.body == b"123";
            let may_be = short || !request.whole || !self.whole || self.is_timed();
            assert!(may_be, "cut off: {reply:?}: {self:?}");
            return;
        }
        if self.is_timed() && matches!(reply.status, 400 | 408) {
            return;
        }
        let status = match request.answer {
            Answer::Panic | Answer::Nothing => 500,
            Answer::Empty => 204,
            Answer::Echo | Answer::Part | Answer::Stream
                if !request.whole && reply.status == 400 =>
            {
                400
            }
            _ => 200,
        };
        assert_eq!(reply.status, status, "{request:?}: {self:?}");
        if status == 200 || status == 204 {
            assert_eq!(reply.one("x-path"), Some(&request.path[..]), "out of order: {self:?}");
        }
        if status == 200 && request.method != "HEAD" {
            self.check_body(request, reply);
        }
    }

    fn check_body(&self, request: &Request, reply: &Reply) {
        let good = match request.answer {
            Answer::Echo | Answer::Stream => reply.body == request.body || !request.whole,
            Answer::Part => request.body.starts_with(&reply.body),
            Answer::Big => reply.body.len() == BIG_BYTES || !self.whole,
            Answer::Wait => [&b"resumed"[..], b"gone"].contains(&&reply.body[..]),
            _ => reply.body == b"plain",
        };
        assert!(good, "{reply:?} to {request:?}: {self:?}");
    }

    /// Whether the response closes, which it must not do without a reason.
    fn check_closes(&self, request: &Request, continued: bool, reply: &Reply) -> bool {
        let broken = matches!(request.answer, Answer::Panic | Answer::Nothing | Answer::Short)
            || !request.whole
            || !self.keep_alive;
        let unread = request.streamed && request.expects_continue;
        let tunnel = request.method == "CONNECT" || reply.body_end == BodyEnd::UntilClose;
        let may_close = broken || unread || tunnel || !request.keep_alive || self.is_timed();
        assert!(may_close || !reply.closes(), "{reply:?} to {request:?}: {self:?}");
        assert!(request.keep_alive || reply.closes(), "{reply:?} to {request:?}: {self:?}");
        // A client that was not asked for its body may send it or not.
        let reads = matches!(request.answer, Answer::Echo | Answer::Stream | Answer::Part);
        let unasked = unread && !continued && !reads;
        assert!(!unasked || reply.closes(), "{reply:?} to {request:?}: {self:?}");
        if request.version == Version::Http10 {
            assert_eq!(reply.one("transfer-encoding"), None, "{reply:?}");
        }
        reply.closes()
    }

    fn expected(&self) -> Vec<Expected> {
        let mut all = Vec::new();
        let mut rest = &self.sent[..];
        while let Some(used) = next(rest, &mut all) {
            rest = &rest[used..];
        }
        all
    }
}

/// What comes first in `wire`, and how many bytes it takes; `None` if nothing can follow it.
fn next(wire: &[u8], all: &mut Vec<Expected>) -> Option<usize> {
    let limits = head_limits();
    let mut index = HeadIndex::new();
    let head_bytes = match index.parse(wire, &limits) {
        Ok(Parsed::Incomplete) => return None,
        Ok(Parsed::Complete { head_bytes }) => head_bytes,
        Err(error) => {
            // A fault is looked for when a line ends.
            let lines = wire.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let certain = index.parse(&wire[..lines], &limits).is_err()
                || wire.len() >= limits.head_bytes_max;
            let method = String::new();
            all.push(Expected::Refusal { status: error.status(), method, certain });
            return None;
        }
    };
    let head = index.view(wire);
    let mut request = Request {
        method: head.method().to_owned(),
        path: head.target().path().to_vec(),
        answer: Answer::to(head.target().path()),
        body: Vec::new(),
        whole: true,
        streamed: false,
        expects_continue: head.expects_continue(),
        keep_alive: head.keep_alive(),
        version: head.version(),
    };
    request.streamed = matches!(head.framing(), Framing::Length(bytes)
        if bytes > INLINE_BODY_BYTES_MAX || request.expects_continue);
    match take_body(head.framing(), &wire[head_bytes..], &mut request) {
        Ok(used) => {
            let whole = request.whole;
            // A request whose body is collected begins when it is whole, and is refused if that cannot be
            // any more (RFC 9112 section 8).
            if whole || request.streamed {
                all.push(Expected::Request(request));
            } else {
                if request.expects_continue {
                    all.push(Expected::Continue);
                }
                let method = request.method;
                all.push(Expected::Refusal { status: 400, method, certain: true });
            }
            whole.then_some(head_bytes + used)
        }
        Err(error) => {
            if request.expects_continue {
                all.push(Expected::Continue);
            }
            let (status, method) = (error.status(), request.method);
            all.push(Expected::Refusal { status, method, certain: true });
            None
        }
    }
}

/// Takes the body from the start of `wire`; tells how many bytes that were.
fn take_body(framing: Framing, wire: &[u8], request: &mut Request) -> Result<usize, BodyError> {
    let mut decoder = Decoder::new(framing, &body_limits())?;
    let mut content = vec![0; wire.len()];
    let taken = decoder.decode(wire, &mut content)?;
    content.truncate(taken.produced);
    request.body = content;
    request.whole = decoder.is_done();
    Ok(taken.consumed)
}
