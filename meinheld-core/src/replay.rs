//! For the tables of the parsers' tests: replays each row through real connections, whole, byte by
//! byte, and cut in two at every place.
//!
//! Peer and server share one thread. The peer acts when the server would wait, so that each piece is
//! received alone, a course has no luck in it, and a server that would wait for ever is found out.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::http::{
    BodyLimits, CONTINUE, Framing, Head, HeadIndex, HeadLimits, Parsed, RequestKind,
};
use crate::{Config, ConnectionInfo, Exchange, Listener, Report, Server, Service};

/// A longer body than this is announced to see it refused, and not sent.
const BODY_BYTES_MAX: u64 = 16;

/// Replays a head with the body that it announces, and checks that the answer is what
/// [`HeadIndex::parse`] says of the whole.
pub(crate) fn head(wire: &[u8], limits: &HeadLimits) {
    let mut index = HeadIndex::new();
    let config = config(
        limits.clone(),
        BodyLimits { body_bytes_max: BODY_BYTES_MAX, ..BodyLimits::default() },
    );
    match index.parse(wire, limits) {
        Ok(Parsed::Complete { head_bytes }) => {
            let head = index.view(&wire[..head_bytes]);
            let (body, status) = match head.framing() {
                Framing::None => (Vec::new(), 200),
                Framing::Length(length @ ..=BODY_BYTES_MAX) => (
                    std::iter::repeat_n(b'x', usize::try_from(length).expect("few")).collect(),
                    200,
                ),
                Framing::Length(_) => (Vec::new(), 413),
                Framing::Chunked => (b"0\r\n\r\n".to_vec(), 200),
            };
            let whole = [&wire[..head_bytes], &body, &wire[head_bytes..]].concat();
            let replies = replies(&config, &whole, 0);
            assert_eq!(replies[0].status, status, "{}", wire.escape_ascii());
            let seen = if status == 200 { description(&head) } else { Vec::new() };
            assert_eq!(replies[0].seen, seen, "{}", wire.escape_ascii());
        }
        Ok(Parsed::Incomplete) => panic!("a row is whole: {}", wire.escape_ascii()),
        Err(error) => {
            // A fault is looked for in the first bytes, and whenever a line ends.
            let lines = wire.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let is_certain =
                [1, lines].iter().any(|&cut| index.parse(&wire[..cut], limits).is_err());
            let from = if is_certain { 0 } else { wire.len() };
            assert_refused(&replies(&config, wire, from), error.status(), wire);
        }
    }
}

/// Replays a chunked body, and checks that its content comes back, or its refusal.
pub(crate) fn chunked(wire: &[u8], limits: &BodyLimits, expected: Result<&[u8], u16>) {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let config = config(HeadLimits::default(), limits.clone());
    let replies = replies(&config, &[head, wire].concat(), head.len());
    match expected {
        Ok(content) => assert_eq!((replies[0].status, &replies[0].body[..]), (200, content)),
        Err(status) => assert_refused(&replies, status, wire),
    }
}

/// Replays what comes in one piece, as the statuses and bodies that answer it; bodies streamed, and
/// collected.
pub(crate) fn answers(wire: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let [streamed, collected] = [0, u64::MAX].map(|inline_body_bytes_max| {
        let config = config(HeadLimits::default(), BodyLimits::default());
        replies(&Config { inline_body_bytes_max, ..config }, wire, 0)
    });
    assert_eq!(streamed, collected, "{}", wire.escape_ascii());
    collected.into_iter().map(|reply| (reply.status, reply.body)).collect()
}

fn assert_refused(replies: &[Reply], status: u16, wire: &[u8]) {
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [status], "{}", wire.escape_ascii());
    assert!(replies[0].closes, "{}", wire.escape_ascii());
}

fn config(head: HeadLimits, body: BodyLimits) -> Config {
    let never = Duration::from_secs(3600);
    Config {
        head,
        body,
        head_timeout: never,
        body_timeout: never,
        send_timeout: never,
        linger_timeout: never,
        keep_alive_timeout: never,
        stack_bytes: 128 * 1024,
        coroutines_max: 4,
        ..Config::default()
    }
}

/// What the application tells of a head, on one line.
fn description(head: &Head<'_>) -> Vec<u8> {
    let mut seen = [head.method().as_bytes(), b" ", head.target().raw()].concat();
    for (name, value) in head.headers() {
        seen.extend_from_slice(&[b" ", name.as_bytes(), b"=", value].concat());
    }
    seen
}

// --------------------------------------------------------------------- answers

/// One response.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reply {
    status: u16,
    /// What the application has seen of the request.
    seen: Vec<u8>,
    closes: bool,
    body: Vec<u8>,
}

/// The answers to `wire`, which are the same however it is cut at `from` or later.
fn replies(config: &Config, wire: &[u8], from: usize) -> Vec<Reply> {
    let whole = vec![wire.to_vec()];
    let singly = wire.chunks(1).map(<[u8]>::to_vec).collect();
    // Under valgrind all cuts would take long, and show nothing more.
    let from = if std::env::var_os("REPLAY_WHOLE").is_some() { wire.len() } else { from };
    let in_two =
        (from.max(1)..wire.len()).map(|cut| vec![wire[..cut].to_vec(), wire[cut..].to_vec()]);
    let mut plays = vec![whole];
    if from < wire.len() {
        plays.push(singly);
    }
    plays.extend(in_two);
    let mut answers = play(config.clone(), plays.clone()).into_iter();
    let first = split(&answers.next().expect("it was played"));
    for (answer, pieces) in answers.zip(&plays[1..]) {
        let cut = pieces.iter().map(|piece| piece.escape_ascii().to_string());
        assert_eq!(split(&answer), first, "{}", cut.collect::<Vec<_>>().join(" | "));
    }
    first
}

fn split(mut wire: &[u8]) -> Vec<Reply> {
    let mut all: Vec<Reply> = Vec::new();
    while !wire.is_empty() {
        // Whether the client is asked for its body depends on whether that comes with the head.
        let asked = wire.strip_prefix(CONTINUE);
        wire = asked.unwrap_or(wire);
        let end = wire.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let (head, rest) = (&wire[..end], &wire[end + 4..]);
        let value = |name: &str| {
            let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
            lines.find_map(|line| line.strip_prefix(format!("{name}: ").as_bytes()))
        };
        let digits = |text: &[u8]| str::from_utf8(text).ok()?.parse().ok();
        let status = u16::try_from(digits(&head[9..12]).unwrap_or(0)).expect("three digits");
        let seen = value("X-Seen").unwrap_or_default().to_vec();
        let expects = seen.windows(8).any(|window| window.eq_ignore_ascii_case(b" expect="));
        assert!(asked.is_none() || expects, "unasked: {}", wire.escape_ascii());
        let length =
            value("Content-Length").map_or(rest.len(), |length| digits(length).unwrap_or(0));
        let length = if seen.starts_with(b"HEAD ") { 0 } else { length };
        let closes = value("Connection") == Some(b"close");
        all.push(Reply { status, seen, closes, body: rest[..length].to_vec() });
        wire = &rest[length..];
    }
    all
}

// ------------------------------------------------------------- server and peer

/// Plays each list of pieces on a connection of its own; what was received on each.
fn play(config: Config, plays: Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("meinheld-replay-{}-{number}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("the name is short");
    let listening = UnixListener::bind_addr(&address).expect("the name is our own");
    let player = Player {
        address,
        plays: RefCell::new(plays.into()),
        peer: RefCell::new(None),
        answers: RefCell::default(),
        over: Cell::new(false),
    };
    let server = Server::new(config, player).expect("there are descriptors");
    server.listen(Listener::inherit(listening.as_raw_fd()).expect("it listens"));
    server.run().expect("epoll works");
    server.service().answers.take()
}

struct Player {
    address: SocketAddr,
    plays: RefCell<VecDeque<Vec<Vec<u8>>>>,
    peer: RefCell<Option<Peer>>,
    answers: RefCell<Vec<Vec<u8>>>,
    over: Cell<bool>,
}

struct Peer {
    socket: UnixStream,
    pieces: VecDeque<Vec<u8>>,
    received: Vec<u8>,
    half_closed: bool,
}

struct Request {
    kind: RequestKind,
    seen: Vec<u8>,
}

impl Service for Player {
    type Request = Request;

    fn accept(&self, head: &Head<'_>, _connection: &ConnectionInfo<'_>) -> Request {
        Request { kind: head.kind(), seen: description(head) }
    }

    fn call(&self, request: Request, exchange: &mut Exchange) {
        let mut body = Vec::new();
        if exchange.read_to_end(&mut body).is_err() {
            return;
        }
        let begun = exchange.begin(200, b"OK", [(&b"X-Seen"[..], &request.seen[..])]);
        assert!(begun.is_ok(), "what came in a head can stand in one");
        if request.kind != RequestKind::Connect {
            let _ = exchange.write_last(&body);
        }
    }

    fn blocked(&self, _wait: &mut dyn FnMut()) {
        let mut peer = self.peer.borrow_mut();
        if let Some(answer) = peer.as_mut().and_then(Peer::act) {
            self.answers.borrow_mut().push(answer);
            *peer = None;
        }
        if peer.is_none() {
            *peer =
                self.plays.borrow_mut().pop_front().map(|pieces| Peer::new(&self.address, pieces));
            self.over.set(peer.is_none());
        }
    }

    fn turn(&self) -> ControlFlow<()> {
        if self.over.get() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn report(&self, report: &Report<'_>) {
        let is_expected =
            matches!(report, Report::Refused { .. } | Report::RefusedUnderscore { .. });
        assert!(is_expected, "{report}");
    }
}

impl Peer {
    fn new(address: &SocketAddr, pieces: Vec<Vec<u8>>) -> Peer {
        let socket = UnixStream::connect_addr(address).expect("it listens");
        socket.set_nonblocking(true).expect("it is a socket");
        Peer { socket, pieces: pieces.into(), received: Vec::new(), half_closed: false }
    }

    /// Reads, and then does the next thing; gives all that was received once that is over.
    fn act(&mut self) -> Option<Vec<u8>> {
        if self.read() {
            return Some(std::mem::take(&mut self.received));
        }
        if let Some(piece) = self.pieces.pop_front() {
            // The server may have closed the connection already.
            let _ = self.socket.write_all(&piece);
        } else {
            assert!(!self.half_closed, "the server waits, and nothing is left to come");
            self.half_closed = true;
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        None
    }

    /// Reads what is there; whether it has come to the end.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(count @ 1..) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // A reset says that something was unread; what was sent has come before.
                Ok(0) | Err(_) => return true,
            }
        }
    }
}
