//! Whole connections with scripted peers: a server that never hangs, never spins, answers each whole
//! request in order and nothing after a refusal, and leaves no descriptor, connection or task.
//!
//! Peers and server share one thread. The peers act when the server would wait, so that a script has
//! one course only, and a server that would wait for ever is found out without waiting.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meinheld_core::http::{Head, RequestKind};
use meinheld_core::{Config, ConnectionInfo, Exchange, Listener, Report, Server, Service, Stopped};
use meinheld_coro::Continuation;

use super::expected::{Answer, BIG_BYTES, INLINE_BODY_BYTES_MAX, Record, body_limits, head_limits};
use super::script::{CONNECTIONS_MAX, Patience, Script, Step};

/// The time-outs of a server that is to end connections itself.
const SHORT: Duration = Duration::from_millis(1);
/// The time-outs of one that is not: no test takes as long.
const LONG: Duration = Duration::from_secs(3600);
/// How many turns of the loop any script may take, beside some for each of its bytes.
const TURNS_MAX: usize = 4000;

/// Plays the script that `data` is.
pub(crate) fn connection(data: &[u8]) {
    let descriptors = descriptor_count();
    let script = Script::parse(data);
    let (patience, keep_alive) = (script.patience, script.keep_alive);
    let peers = play(script, TURNS_MAX + 20 * data.len());
    assert_eq!(descriptor_count(), descriptors, "descriptors are left");
    for peer in peers {
        let whole = peer.eof;
        let (sent, received) = (peer.sent, peer.received);
        Record { sent, received, whole, patience, keep_alive }.check();
    }
}

fn descriptor_count() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux has it").count()
}

fn config(script: &Script) -> Config {
    let timeout = if script.patience == Patience::Server { SHORT } else { LONG };
    Config {
        head: head_limits(),
        body: body_limits(),
        inline_body_bytes_max: INLINE_BODY_BYTES_MAX,
        body_memory_bytes_max: 1024,
        head_timeout: timeout,
        body_timeout: timeout,
        send_timeout: timeout,
        linger_timeout: timeout,
        keep_alive_timeout: if script.keep_alive { timeout } else { Duration::ZERO },
        stack_bytes: 128 * 1024,
        coroutines_max: CONNECTIONS_MAX + 1,
        ..Config::default()
    }
}

/// Serves until the script is over; gives the peers as they are then.
fn play(script: Script, turns_max: usize) -> Vec<Peer> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("meinheld-fuzzing-{}-{number}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("the name is short");
    let listening = UnixListener::bind_addr(&address).expect("the name is our own");
    let config = config(&script);
    let stage = Stage {
        address,
        patience: script.patience,
        server: OnceCell::new(),
        peers: RefCell::default(),
        steps: RefCell::new(script.steps.into()),
        ending: Cell::new(Ending::Script),
        turns_left: Cell::new(turns_max),
        waiting: RefCell::default(),
    };
    let server = Rc::new(Server::new(config, stage).expect("there are descriptors"));
    let stage = server.service();
    stage.server.set(Rc::downgrade(&server)).expect("it is set once");
    server.listen(Listener::inherit(listening.as_raw_fd()).expect("it listens"));
    let stopped = server.run().expect("epoll works");
    assert_eq!(stopped, Stopped::default(), "a request was left");
    stage.waiting.take();
    stage.peers.take()
}

/// The client's end of a connection.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts independent of each other")]
struct Peer {
    socket: Option<UnixStream>,
    opened: bool,
    half_closed: bool,
    not_reading: bool,
    outbox: Vec<u8>,
    sent: Vec<u8>,
    received: Vec<u8>,
    /// Whether the server has ended its side, and all of it was read.
    eof: bool,
}

/// How far the end has come; each step waits until the server has nothing left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Script,
    HalfClosed,
    Closed,
    Over,
}

/// The application, and the peers.
struct Stage {
    address: SocketAddr,
    patience: Patience,
    server: OnceCell<Weak<Server<Stage>>>,
    peers: RefCell<Vec<Peer>>,
    steps: RefCell<VecDeque<Step>>,
    ending: Cell<Ending>,
    turns_left: Cell<usize>,
    waiting: RefCell<VecDeque<Continuation<()>>>,
}

/// What the application keeps of a head.
struct Request {
    path: Vec<u8>,
    kind: RequestKind,
}

impl Service for Stage {
    type Request = Request;

    fn accept(&self, head: &Head<'_>, _connection: &ConnectionInfo<'_>) -> Request {
        Request { path: head.target().path().to_vec(), kind: head.kind() }
    }

    fn call(&self, request: Request, exchange: &mut Exchange) {
        if self.answer(&request, exchange).is_err() {
            // If even that cannot be sent the client is gone.
            let _ = exchange.fail(400);
        }
    }

    fn blocked(&self, _wait: &mut dyn FnMut()) {
        self.act();
    }

    fn turn(&self) -> ControlFlow<()> {
        let left = self.turns_left.get().checked_sub(1).expect("the loop spins");
        self.turns_left.set(left);
        match self.ending.get() {
            Ending::Over => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn report(&self, _report: &Report<'_>) {}
}

// ------------------------------------------------------------- the application

impl Stage {
    fn answer(&self, request: &Request, exchange: &mut Exchange) -> io::Result<()> {
        let fields = [(&b"X-Path"[..], &request.path[..])];
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let begin = |exchange: &mut Exchange, status| {
            exchange.begin(status, b"Fine", fields).map_err(invalid)
        };
        let mut buffer = [0; 7];
        let mut body = b"plain".to_vec();
        match Answer::to(&request.path) {
            Answer::Nothing => return Ok(()),
            Answer::Panic => std::panic::resume_unwind(Box::new("asked for")),
            Answer::Plain => {}
            Answer::Echo => {
                body.clear();
                exchange.read_to_end(&mut body)?;
            }
            Answer::Part => {
                let count = exchange.read_body(&mut buffer[..3])?;
                body = buffer[..count].to_vec();
            }
            Answer::Stream => return stream(exchange, begin),
            Answer::Wait => body = self.wait(exchange).to_vec(),
            Answer::Big => body = vec![b'b'; BIG_BYTES],
            Answer::Empty => {
                begin(exchange, 204)?;
                return exchange.end();
            }
            Answer::Hints => exchange.early_hints([(&b"Link"[..], &b"</a>"[..])])?,
            Answer::Short => {
                exchange.announce_length(10);
                begin(exchange, 200)?;
                exchange.write(b"123")?;
                return exchange.end();
            }
        }
        begin(exchange, 200)?;
        assert!(request.kind != RequestKind::Connect || request.path.is_empty());
        exchange.write_last(&body)
    }

    /// Suspends until a step resumes it, or the client goes.
    fn wait(&self, exchange: &Exchange) -> &'static [u8] {
        let here = Continuation::current().expect("a request is a task");
        self.waiting.borrow_mut().push_back(here.clone());
        let timeout = if self.patience == Patience::Server { SHORT } else { LONG };
        let client = exchange.client().clone();
        let resumed = here.suspend_watched(Some(timeout), |ticket| client.watch(ticket));
        client.unwatch();
        if resumed.is_ok() { b"resumed" } else { b"gone" }
    }

    /// Resumes the request that waits the longest; false if none does.
    fn resume(&self) -> bool {
        let mut next = || self.waiting.borrow_mut().pop_front();
        std::iter::from_fn(&mut next).any(|waiting| waiting.resume(()).is_ok())
    }
}

fn stream(
    exchange: &mut Exchange,
    mut begin: impl FnMut(&mut Exchange, u16) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = [0; 7];
    begin(exchange, 200)?;
    loop {
        match exchange.read_body(&mut buffer)? {
            0 => return exchange.end(),
            count => exchange.write(&buffer[..count])?,
        }
    }
}

// ------------------------------------------------------------------- the peers

impl Stage {
    /// Lets the next thing happen, now that the server has nothing left to do.
    fn act(&self) {
        let progress = self.exchange();
        let step = self.steps.borrow_mut().pop_front();
        match step {
            Some(step) => self.take(step),
            None if progress => {}
            None => self.end(),
        }
    }

    /// Has every peer send and read what can be; tells whether anything was.
    fn exchange(&self) -> bool {
        self.peers.borrow_mut().iter_mut().fold(false, |any, peer| peer.exchange() | any)
    }

    fn take(&self, step: Step) {
        match step {
            Step::Send { connection, bytes } => self.with(connection, |peer| peer.send(&bytes)),
            Step::HalfClose { connection } => self.with(connection, Peer::half_close),
            Step::Close { connection } => self.with(connection, |peer| peer.socket = None),
            Step::StopReading { connection } => {
                self.with(connection, |peer| peer.not_reading = true);
            }
            Step::GoOnReading { connection } => {
                self.with(connection, |peer| peer.not_reading = false);
            }
            Step::Resume => drop(self.resume()),
        }
    }

    fn with(&self, connection: usize, use_it: impl FnOnce(&mut Peer)) {
        let mut peers = self.peers.borrow_mut();
        peers.resize_with(CONNECTIONS_MAX, Peer::default);
        let peer = &mut peers[connection];
        if !std::mem::replace(&mut peer.opened, true) {
            let socket = UnixStream::connect_addr(&self.address).expect("it listens");
            socket.set_nonblocking(true).expect("it is a socket");
            peer.socket = Some(socket);
        }
        use_it(peer);
    }

    /// The script is over: brings everything to its end, as far as the server has nothing left to do.
    fn end(&self) {
        let mut stopped = false;
        for peer in self.peers.borrow_mut().iter_mut() {
            stopped |= std::mem::take(&mut peer.not_reading);
        }
        if stopped || self.resume() {
            return;
        }
        let unended = |peers: &RefCell<Vec<Peer>>| {
            peers.borrow().iter().any(|peer| peer.socket.is_some() && !peer.eof)
        };
        match self.ending.get() {
            Ending::Script if self.patience == Patience::Server && unended(&self.peers) => {
                std::thread::sleep(SHORT);
            }
            Ending::Script => {
                self.peers.borrow_mut().iter_mut().for_each(Peer::half_close);
                self.ending.set(Ending::HalfClosed);
            }
            Ending::HalfClosed => {
                assert!(!unended(&self.peers), "the server waits, and nothing is left to come");
                self.peers.borrow_mut().iter_mut().for_each(|peer| peer.socket = None);
                self.ending.set(Ending::Closed);
            }
            Ending::Closed | Ending::Over => {
                let server = self.server.get().and_then(Weak::upgrade).expect("it runs");
                assert_eq!(server.connection_count(), 0, "connections are left");
                assert_eq!(server.scheduler().task_count(), 0, "tasks are left");
                self.ending.set(Ending::Over);
            }
        }
    }
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) {
        if !self.half_closed {
            self.outbox.extend_from_slice(bytes);
            self.exchange();
        }
    }

    fn half_close(&mut self) {
        if let Some(socket) = self.socket.as_ref().filter(|_| !self.half_closed) {
            // The server may have closed the connection already.
            let _ = socket.shutdown(Shutdown::Write);
        }
        self.half_closed = true;
    }

    /// Sends and reads as much as can be; tells whether anything was.
    fn exchange(&mut self) -> bool {
        self.flush() | (!self.not_reading && self.read())
    }

    fn flush(&mut self) -> bool {
        let Some(mut socket) = self.socket.as_ref() else { return false };
        let sent = match socket.write(&self.outbox) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.outbox.clear();
                0
            }
        };
        self.sent.extend(self.outbox.drain(..sent));
        sent > 0
    }

    fn read(&mut self) -> bool {
        let Some(mut socket) = self.socket.as_ref().filter(|_| !self.eof) else { return false };
        let mut buffer = [0; 16 * 1024];
        let mut any = false;
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => break self.eof = true,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                // The server has closed with something unread; all that it had sent has come before.
                Err(_) => break self.eof = true,
            }
            any = true;
        }
        true
    }
}
