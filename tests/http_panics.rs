//! Panics that are no request's: whatever the server's own code or its host panics with leaves `run`.
//! One while a head is taken is that request's, which ends with a 500.

#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use meinheld_core::http::Head;
use meinheld_core::{Address, Config, ConnectionInfo, Exchange, Listener, Report, Server, Service};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a service panics.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the loop, told of a refused request.
    Refusal,
    /// In a coroutine, told of a call that has panicked.
    CallReport,
    /// In the loop's turn, while a request is suspended.
    Turn,
}

struct Panicking {
    place: Place,
    suspended: Cell<bool>,
}

impl Service for Panicking {
    type Request = ();

    fn accept(&self, _head: &Head<'_>, _connection: &ConnectionInfo<'_>) {}

    fn call(&self, (): (), exchange: &mut Exchange) {
        match self.place {
            Place::Turn => {
                self.suspended.set(true);
                let _ = meinheld_coro::sleep(PATIENCE);
            }
            Place::CallReport => panic!("in a call"),
            Place::Refusal => exchange.respond(200, &[], b"").unwrap(),
        }
    }

    fn turn(&self) -> ControlFlow<()> {
        assert!(!self.suspended.get(), "of the host's own making, with a request suspended");
        ControlFlow::Continue(())
    }

    fn report(&self, report: &Report<'_>) {
        panic!("of the host's own making: {report}");
    }
}

/// Serves until the panic; tells where before.
fn serve(place: Place, tell: impl FnOnce(SocketAddr)) {
    let service = Panicking { place, suspended: Cell::new(false) };
    let server = Server::new(Config::default(), service).unwrap();
    Listener::tcp("127.0.0.1", 0, 16).unwrap().into_iter().for_each(|one| server.listen(one));
    let Address::Ip(address) = server.addresses()[0] else { panic!("no TCP address") };
    tell(address);
    drop(server.run());
}

/// Sends this to such a server in a thread; the panic that the thread ends with.
fn panic_of(place: Place, request: &[u8]) -> String {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || serve(place, |address| tell.send(address).unwrap()));
    let mut client = TcpStream::connect(told.recv().unwrap()).unwrap();
    client.write_all(request).unwrap();
    let panic = thread.join().expect_err("the panic leaves `run`");
    // The server is gone, and its sockets with it, unless a request that is suspended holds them.
    if place != Place::Turn {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    }
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap().to_owned()
}

#[test]
fn a_panic_in_the_loop_leaves_run() {
    let text = panic_of(Place::Refusal, b"GET / HTTP/1.1\r\n\r\n");
    assert!(text.starts_with("of the host's own making: refused a request"), "{text}");
}

#[test]
fn a_panic_of_the_server_in_a_coroutine_leaves_run() {
    let text = panic_of(Place::CallReport, GET);
    assert!(text.starts_with("of the host's own making: the application panicked"), "{text}");
}

#[test]
fn a_panic_leaves_run_while_requests_are_suspended() {
    let text = panic_of(Place::Turn, GET);
    assert_eq!(text, "of the host's own making, with a request suspended");
}

/// Cannot take the head of a request for `/broken`.
struct Clumsy;

impl Service for Clumsy {
    type Request = ();

    fn accept(&self, head: &Head<'_>, _connection: &ConnectionInfo<'_>) {
        assert!(head.target().raw() != b"/broken", "while a head is taken");
    }

    fn call(&self, (): (), exchange: &mut Exchange) {
        let mut body = Vec::new();
        exchange.read_to_end(&mut body).unwrap();
        exchange.respond(200, &[], &body).unwrap();
    }

    fn report(&self, report: &Report<'_>) {
        assert!(matches!(report, Report::Panicked { .. }), "{report}");
    }
}

#[test]
fn a_panic_while_a_head_is_taken_is_a_500_and_the_server_goes_on() {
    const HEAD: &str = "HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
    let server = Server::new(Config::default(), Clumsy).unwrap();
    Listener::tcp("127.0.0.1", 0, 16).unwrap().into_iter().for_each(|one| server.listen(one));
    let Address::Ip(address) = server.addresses()[0] else { panic!("no TCP address") };
    let handle = server.handle();
    let client = thread::spawn(move || {
        // The body has come with the head.
        let answers = ["/broken", "/"].map(|target| {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(format!("POST {target} {HEAD}body").as_bytes()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).map(|_| answer)
        });
        handle.stop(Some(Duration::ZERO));
        answers
    });
    drop(server.run());
    let [broken, next] = client.join().unwrap().map(Result::unwrap);
    assert!(broken.starts_with("HTTP/1.1 500 "), "{broken}");
    assert!(next.starts_with("HTTP/1.1 200 ") && next.ends_with("\r\n\r\nbody"), "{next}");
}

#[test]
fn a_fatal_panic_ends_the_process_with_its_place_and_a_status() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "child_that_panics"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once("address: ")?.1.to_owned())).unwrap();
    TcpStream::connect(address).unwrap().write_all(GET).unwrap();
    lines.for_each(drop);
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(101), "{said}");
    assert!(said.contains("panicked at tests/http_panics.rs"), "{said}");
    assert!(said.contains("\nof the host's own making: the application panicked on a request"));
}

#[test]
#[ignore = "run by a_fatal_panic_ends_the_process_with_its_place_and_a_status in a child process"]
fn child_that_panics() {
    serve(Place::CallReport, |address| println!("address: {address}"));
}
