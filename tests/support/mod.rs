//! Scenarios: a real server in a thread of the test, and clients that never wait for ever.
//!
//! A read that gets nothing for [`PATIENCE`] fails the test, so that a lost wake-up is a failure and
//! not a hang. Nothing here sleeps: [`Running::settle`] asks the loop itself, turn by turn.

#![allow(dead_code, unreachable_pub)] // each test uses its part
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use meinheld_core::http::Head;
use meinheld_core::{
    Address, Config, ConnectionInfo, Exchange, Handle, Handler, Listener, Report, Request, Server,
    Service, SignalPipe, Stopped, duplicate_file, handler,
};
use meinheld_coro::{Continuation, Interrupt};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// For time-outs that are to expire.
pub const SHORT: Duration = Duration::from_millis(50);

thread_local! {
    static LOOK: RefCell<Option<Box<dyn Fn() -> Snapshot>>> = const { RefCell::new(None) };
    static TURNS: Cell<u64> = const { Cell::new(0) };
}

/// What a server holds between two turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub connections: usize,
    pub tasks: usize,
    pub coroutines_in_use: usize,
    pub turns: u64,
}

/// How many turns the loop of this thread has had.
pub fn turns() -> u64 {
    TURNS.get()
}

/// What a server has reported.
pub type Reports = Arc<Mutex<Vec<String>>>;

/// A server in a thread; it is stopped at once when this is dropped.
pub struct Running {
    pub handle: Handle,
    pub addresses: Vec<Address>,
    pub reports: Reports,
    looks: mpsc::Sender<mpsc::Sender<Snapshot>>,
    bell: File,
    /// Nothing ever comes: the other end goes with the thread.
    ending: mpsc::Receiver<()>,
    thread: Option<JoinHandle<io::Result<Stopped>>>,
}

/// Serves on a port of 127.0.0.1 that the system chooses.
pub fn serve<F>(config: Config, function: F) -> Running
where
    F: Fn(Request, &mut Exchange) + Send + 'static,
{
    let backlog = config.backlog;
    serve_on(config, Listener::tcp("127.0.0.1", 0, backlog).unwrap(), function)
}

pub fn serve_on<F>(config: Config, listeners: Vec<Listener>, function: F) -> Running
where
    F: Fn(Request, &mut Exchange) + Send + 'static,
{
    let (looks, asked) = mpsc::channel();
    let (started, ready) = mpsc::channel();
    let (end, ending) = mpsc::channel();
    let reports = Reports::default();
    let told = Arc::clone(&reports);
    let thread = thread::spawn(move || {
        let _end: mpsc::Sender<()> = end;
        let service = Probed { inner: handler(function), asked, told };
        let server = Rc::new(Server::new(config, service)?);
        for listener in listeners {
            server.listen(listener);
        }
        let pipe = SignalPipe::new()?;
        let bell = duplicate_file(pipe.writer())?;
        server.wake_on(pipe)?;
        let watched = Rc::downgrade(&server);
        LOOK.set(Some(Box::new(move || look(&watched.upgrade().unwrap()))));
        started.send((server.handle(), server.addresses(), bell)).unwrap();
        let stopped = server.run();
        assert_eq!(server.connection_count(), 0, "a server that has stopped holds nothing");
        stopped
    });
    let (handle, addresses, bell) = ready.recv().expect("the server starts");
    Running { handle, addresses, reports, looks, bell, ending, thread: Some(thread) }
}

fn look<S: Service>(server: &Server<S>) -> Snapshot {
    let counts = server.scheduler().coroutine_counts();
    Snapshot {
        connections: server.connection_count(),
        tasks: server.scheduler().task_count(),
        coroutines_in_use: counts.made - counts.idle,
        turns: TURNS.get(),
    }
}

/// A handler that can be looked at from another thread.
struct Probed<F> {
    inner: Handler<F>,
    asked: mpsc::Receiver<mpsc::Sender<Snapshot>>,
    told: Reports,
}

impl<F: Fn(Request, &mut Exchange) + 'static> Service for Probed<F> {
    type Request = Request;

    fn accept(&self, head: &Head<'_>, connection: &ConnectionInfo<'_>) -> Request {
        self.inner.accept(head, connection)
    }

    fn call(&self, request: Request, exchange: &mut Exchange) {
        self.inner.call(request, exchange);
    }

    fn turn(&self) -> ControlFlow<()> {
        TURNS.set(TURNS.get() + 1);
        for asker in self.asked.try_iter() {
            let snapshot = LOOK.with_borrow(|look| look.as_ref().map(|look| look()));
            let _ = asker.send(snapshot.unwrap());
        }
        ControlFlow::Continue(())
    }

    fn report(&self, report: &Report<'_>) {
        self.told.lock().unwrap().push(report.to_string());
    }
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        match &self.addresses[0] {
            Address::Ip(address) => *address,
            Address::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }

    pub fn connect(&self) -> Client {
        Client::tcp(self.address())
    }

    /// What the server holds after its next turn.
    pub fn look(&self) -> Snapshot {
        let (answer, answered) = mpsc::channel();
        self.looks.send(answer).unwrap();
        (&self.bell).write_all(&[0]).unwrap();
        answered.recv_timeout(PATIENCE).expect("the loop turns")
    }

    /// Looks until `wanted` holds.
    pub fn settle(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let snapshot = self.look();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(Instant::now() < deadline, "it stays at {snapshot:?}");
        }
    }

    /// Waits until nothing is held for any client.
    pub fn settle_empty(&self) {
        self.settle(|now| (now.connections, now.tasks, now.coroutines_in_use) == (0, 0, 0));
    }

    /// Waits for the server to end, which somebody has asked it to.
    pub fn join(mut self) -> Stopped {
        let ended = self.end_of_thread().expect("the server ends");
        ended.expect("the server does not panic").unwrap()
    }

    /// What the server's thread ends with; `None` if it outlasts our patience.
    fn end_of_thread(&mut self) -> Option<thread::Result<io::Result<Stopped>>> {
        let thread = self.thread.take()?;
        let waited = self.ending.recv_timeout(PATIENCE);
        (waited == Err(RecvTimeoutError::Disconnected)).then(|| thread.join())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.handle.stop(Some(Duration::ZERO));
            let ended = self.end_of_thread();
            if !thread::panicking() {
                ended.expect("the server ends").expect("the server does not panic").unwrap();
            }
        }
    }
}

/// Waits until something holds that the server's thread brings about.
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::yield_now();
    }
}

/// Suspends a request as hosts do: until it is resumed, or its client goes.
pub fn suspend(exchange: &Exchange, here: &Continuation<()>) -> Result<(), Interrupt> {
    let client = exchange.client();
    let resumed = here.suspend_watched(None, |ticket| client.watch(ticket));
    client.unwatch();
    resumed
}

pub fn continuation() -> Continuation<()> {
    Continuation::current().expect("a handler runs in a task")
}

/// Answers with the body that was sent, or with what was wrong with it.
pub fn echo(_: Request, exchange: &mut Exchange) {
    let mut body = Vec::new();
    let answered = match exchange.read_to_end(&mut body) {
        Ok(_) => exchange.respond(200, &[], &body),
        Err(error) => exchange.respond(400, &[], error.to_string().as_bytes()),
    };
    drop(answered);
}

/// An ignored test of this very binary that runs a server as a process of its own, until this is
/// dropped.
pub struct Child {
    process: process::Child,
    pub address: SocketAddr,
}

impl Child {
    /// Runs the test `name`, which calls [`serve_parent`], by way of `prefix`: a command that runs
    /// the arguments after it.
    pub fn run(prefix: &[&str], name: &str) -> Child {
        let mut process = Command::new(prefix[0])
            .args(&prefix[1..])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("this test needs {}: {error}", prefix[0]));
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the child says where it listens").unwrap();
            if let Some((_, address)) = line.split_once("address: ") {
                break address.parse().unwrap();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        Child { process, address }
    }

    /// Ends the server, which must have gone well.
    pub fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Lets a server serve the process that has called [`Child::run`], until that ends it.
pub fn serve_parent(server: Running) {
    println!("address: {}", server.address());
    let _ = io::stdin().read_to_end(&mut Vec::new());
    drop(server);
}

pub trait Stream: Read + Write {
    fn end_output(&self);
}

impl Stream for TcpStream {
    fn end_output(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Stream for UnixStream {
    fn end_output(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

/// A client that speaks bytes.
pub struct Client {
    stream: Box<dyn Stream + Send>,
    received: Vec<u8>,
}

/// A response, its body decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub fn tcp(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream: Box::new(stream), received: Vec::new() }
    }

    pub fn unix(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream: Box::new(stream), received: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends what the server takes before it closes.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn end_output(&self) {
        self.stream.end_output();
    }

    /// Sends a GET and receives the answer.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.response()
    }

    /// Receives a head: the status line and the fields.
    pub fn head(&mut self) -> (u16, String) {
        let end = loop {
            match self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => assert!(self.receive() > 0, "the end, after {:?}", self.so_far()),
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        (status, head)
    }

    /// Receives a response with the body that its head tells of.
    pub fn response(&mut self) -> Response {
        let mut response = self.response_without_body();
        let number = |value: &str| value.parse::<usize>().unwrap();
        response.body = match response.header("Content-Length").map(number) {
            Some(length) => self.bytes(length),
            None if response.header("Transfer-Encoding") == Some("chunked") => self.chunks(),
            None => self.rest(),
        };
        response
    }

    /// Receives a response to HEAD, or one that has no body: 204, 304.
    pub fn response_without_body(&mut self) -> Response {
        let (status, head) = self.head();
        Response { status, head, body: Vec::new() }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            body.extend(self.bytes(size));
            assert_eq!(self.line(), "");
            if size == 0 {
                return body;
            }
        }
    }

    fn line(&mut self) -> String {
        let end = loop {
            match self.received.windows(2).position(|window| window == b"\r\n") {
                Some(at) => break at,
                None => assert!(self.receive() > 0, "the end, after {:?}", self.so_far()),
            }
        };
        let line = String::from_utf8(self.bytes(end)).unwrap();
        self.bytes(2);
        line
    }

    /// Receives this many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(self.receive() > 0, "the end, after {:?}", self.so_far());
        }
        self.received.drain(..count).collect()
    }

    /// Receives all until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.receive() > 0 {}
        std::mem::take(&mut self.received)
    }

    /// The server closes without another byte.
    pub fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more than the end: {}", rest.escape_ascii());
    }

    /// Receives until the end or a reset, and tells how many bytes came.
    pub fn drain(mut self) -> usize {
        let mut buffer = [0; 4096];
        let mut count = self.received.len();
        while let Ok(more @ 1..) = self.stream.read(&mut buffer) {
            count += more;
        }
        count
    }

    fn receive(&mut self) -> usize {
        let mut buffer = vec![0; 65536];
        let count = match self.stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) => panic!("{error}, after {:?}", self.so_far()),
        };
        self.received.extend_from_slice(&buffer[..count]);
        count
    }

    fn so_far(&self) -> String {
        self.received.escape_ascii().to_string()
    }
}
