//! Upgrades: what the connection carries after a 101, and that everything else stays HTTP.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;
use std::sync::mpsc;

use meinheld_core::{Config, Exchange, Request, Stopped, UpgradeError, Upgraded};
use meinheld_coro::Interrupt;
use support::{Client, PATIENCE, Running, SHORT, continuation, echo, serve, suspend};

const UPGRADE: &str =
    "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: parrot\r\n\r\n";

fn upgrade(exchange: &mut Exchange) -> Result<Upgraded, UpgradeError> {
    exchange.upgrade([(&b"Upgrade"[..], &b"parrot"[..])])
}

/// Repeats what it hears until the other side ends, in capitals.
fn parrot(_: Request, exchange: &mut Exchange) {
    let mut stream = upgrade(exchange).unwrap();
    let mut heard = [0; 1000];
    while let Ok(count @ 1..) = stream.read(&mut heard) {
        stream.write_all(&heard[..count].to_ascii_uppercase()).unwrap();
    }
}

fn expect_101(client: &mut Client) {
    let (status, head) = client.head();
    assert_eq!(status, 101, "{head}");
    assert!(head.contains("\r\nUpgrade: parrot\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: Upgrade\r\n"), "{head}");
    assert!(!head.contains("Content-Length"), "{head}");
}

/// A server on which a test's own client is upgraded, which it has seen.
fn upgraded(function: impl Fn(Request, &mut Exchange) + Send + 'static) -> (Running, Client) {
    let server = serve(Config::default(), function);
    let mut client = server.connect();
    client.send(UPGRADE);
    expect_101(&mut client);
    (server, client)
}

#[test]
fn bytes_behind_the_head_are_the_new_protocols_wherever_the_stream_is_cut() {
    let server = serve(Config::default(), parrot);
    let wire = format!("{UPGRADE}GET / HTTP/1.1\r\n");
    for cut in 0..wire.len() {
        let mut client = server.connect();
        client.send(&wire[..cut]);
        if cut % 7 == 0 {
            server.look();
        }
        client.send(&wire[cut..]);
        expect_101(&mut client);
        assert_eq!(client.bytes(16), b"GET / HTTP/1.1\r\n", "cut at {cut}");
        client.end_output();
        client.expect_end();
    }
    server.settle_empty();
}

#[test]
fn a_body_that_nobody_read_is_not_the_new_protocols() {
    let server = serve(Config::default(), parrot);
    let mut client = server.connect();
    let head = UPGRADE.replacen("GET", "POST", 1).replacen("\r\n\r\n", "\r\n", 1);
    client.send(format!("{head}Content-Length: 4\r\n\r\nbodybehind"));
    expect_101(&mut client);
    assert_eq!(client.bytes(6), b"BEHIND");
}

#[test]
fn megabytes_behind_the_head_arrive_whole() {
    let server = serve(Config::default(), parrot);
    let mut client = server.connect();
    client.send([UPGRADE.as_bytes(), &vec![b'x'; 300_000]].concat());
    expect_101(&mut client);
    assert!(client.bytes(300_000) == vec![b'X'; 300_000]);
}

#[test]
fn a_refused_upgrade_is_an_answer_like_any_other() {
    let server = serve(Config::default(), |request, exchange| {
        let refused = match request.path.as_slice() {
            b"/no-header" => exchange.upgrade([(&b"X"[..], &b"y"[..])]),
            b"/bad-header" => exchange.upgrade([(&b"Upgrade"[..], &b"a\r\nb"[..])]),
            _ => upgrade(exchange),
        };
        let why = refused.expect_err("it is refused").to_string();
        exchange.respond(200, &[], why.as_bytes()).unwrap();
    });
    let cases = [
        ("GET /no-header HTTP/1.1\r\n", "101 needs an Upgrade header"),
        ("GET /bad-header HTTP/1.1\r\n", "control character"),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n", "cannot answer HTTP/1.0"),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n", "has not been"),
    ];
    for (head, why) in cases {
        let mut client = server.connect();
        client.send(format!("{head}Host: a\r\n\r\n"));
        let response = client.response();
        assert!(response.text().contains(why), "{head}: {}", response.text());
    }
    let mut client = server.connect();
    for _ in 0..3 {
        assert!(client.get("/no-header").text().contains("needs an Upgrade"), "it goes on as HTTP");
    }
    assert!(server.reports.lock().unwrap().is_empty(), "nothing panicked");
}

#[test]
fn connect_and_an_ignored_wish_are_requests_like_any_other() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    client.send(UPGRADE);
    assert_eq!(client.response().status, 200);
    assert_eq!(client.get("/").status, 200);
    let refusing = serve(Config::default(), |_, exchange| {
        exchange.respond(405, &[("Content-Type", "text/plain")], b"no").unwrap();
    });
    let mut client = refusing.connect();
    client.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    assert_eq!(client.response().status, 405);
    assert_eq!(client.get("/").status, 405);
}

#[test]
fn a_body_that_was_collected_or_read_comes_before_the_upgrade() {
    let config = Config { inline_body_bytes_max: 10, ..Config::default() };
    let server = serve(config, |request, exchange| {
        if request.path == b"/read" {
            exchange.read_to_end(&mut Vec::new()).unwrap();
        }
        parrot(request, exchange);
    });
    for (path, length) in [("/", 5), ("/read", 5), ("/read", 50)] {
        let mut client = server.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        client.send(format!("{head}{}more", "b".repeat(length)));
        expect_101(&mut client);
        assert_eq!(client.bytes(4), b"MORE");
    }
}

#[test]
fn one_coroutine_receives_while_another_waits_for_room() {
    const BYTES: usize = 20_000_000;
    let (server, mut client) = upgraded(|_, exchange| {
        let stream = Rc::new(upgrade(exchange).unwrap());
        let sender = Rc::clone(&stream);
        let sent = meinheld_coro::spawn(move || (&*sender).write_all(&vec![b's'; BYTES]));
        let mut heard = [0; 3];
        for _ in 0..1000 {
            (&*stream).read_exact(&mut heard).unwrap();
        }
        sent.join().unwrap().unwrap();
        (&*stream).write_all(&heard).unwrap();
        assert_eq!(exchange.body_bytes_sent(), BYTES as u64 + 3);
        assert_eq!(exchange.status(), 101);
    });
    for _ in 0..1000 {
        client.send("abc");
        server.look();
    }
    let mut received = 0;
    while received < BYTES {
        received += client.bytes((BYTES - received).min(1_000_000)).len();
    }
    assert_eq!(client.bytes(3), b"abc");
    client.expect_end();
    assert!(server.reports.lock().unwrap().is_empty(), "nothing panicked");
    drop(client);
    server.settle_empty();
}

#[test]
fn two_readers_and_two_writers_are_a_mistake() {
    let (tell, told) = mpsc::channel();
    let (_server, client) = upgraded(move |_, exchange| {
        let stream = Rc::new(upgrade(exchange).unwrap());
        for readable in [true, false] {
            let first = Rc::clone(&stream);
            let wait = move |stream: &Upgraded| {
                if readable {
                    return stream.wait_readable(Some(SHORT));
                }
                // Until there is no room, nobody need wait for it.
                while stream.try_write_vectored(&[IoSlice::new(&vec![0; 65536])]).is_ok() {}
                stream.wait_writable(Some(SHORT))
            };
            let waiting = meinheld_coro::spawn(move || wait(&first).unwrap_err().kind());
            meinheld_coro::yield_now().unwrap();
            let refused = wait(&stream).unwrap_err().kind();
            tell.send((waiting.join().unwrap(), refused)).unwrap();
        }
    });
    for _ in 0..2 {
        let found = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(found, (ErrorKind::TimedOut, ErrorKind::ResourceBusy));
    }
    drop(client);
}

#[test]
fn a_reader_that_waits_for_either_gives_way_to_a_writer() {
    let (tell, told) = mpsc::channel();
    let (server, mut client) = upgraded(move |_, exchange| {
        let stream = Rc::new(upgrade(exchange).unwrap());
        while stream.try_write_vectored(&[IoSlice::new(&vec![b'f'; 65536])]).is_ok() {}
        tell.send(usize::try_from(exchange.body_bytes_sent()).unwrap()).unwrap();
        let writer = Rc::clone(&stream);
        let reader = Rc::clone(&stream);
        let reading = meinheld_coro::spawn(move || reader.wait_readable_or_writable(None));
        let writing = meinheld_coro::spawn(move || writer.wait_writable(None));
        writing.join().unwrap().unwrap();
        (&*stream).write_all(b"room").unwrap();
        reading.join().unwrap().unwrap();
    });
    client.bytes(told.recv_timeout(PATIENCE).unwrap());
    assert_eq!(client.bytes(4), b"room");
    client.send("x");
    client.expect_end();
    assert!(server.reports.lock().unwrap().is_empty(), "nothing panicked");
}

#[test]
fn a_stop_interrupts_who_waits_for_input_and_what_is_said_then_arrives() {
    let (server, mut client) = upgraded(|_, exchange| {
        let stream = upgrade(exchange).unwrap();
        assert!(!stream.is_stopping());
        let interrupted = (&stream).read(&mut [0; 10]).unwrap_err();
        let interrupt = interrupted.downcast::<Interrupt>().unwrap();
        assert!(matches!(interrupt, Interrupt::Interrupted));
        assert!(stream.is_stopping());
        (&stream).write_all(b"bye").unwrap();
        assert!((&stream).read(&mut [0; 10]).is_ok_and(|count| count == 3), "once is enough");
    });
    server.handle.stop(None);
    assert_eq!(client.bytes(3), b"bye");
    client.send("bye");
    client.expect_end();
    drop(client);
    assert!(server.reports.lock().unwrap().is_empty(), "nothing panicked");
    assert_eq!(server.join(), Stopped::default());
}

#[test]
fn a_client_that_goes_is_the_end_for_readers_and_an_interrupt_for_the_suspended() {
    let (tell, told) = mpsc::channel();
    let server = serve(Config::default(), move |request, exchange| {
        let mut stream = upgrade(exchange).unwrap();
        if request.query == b"suspend" {
            let here = continuation();
            tell.send(format!("{:?}", suspend(exchange, &here))).unwrap();
        }
        let mut heard = Vec::new();
        let end = stream.read_to_end(&mut heard).map_err(|error| error.kind());
        tell.send(format!("{end:?} {:?}", stream.read(&mut [0; 9]))).unwrap();
    });
    for query in ["", "suspend"] {
        let mut client = server.connect();
        client.send(UPGRADE.replace("/up", &format!("/up?{query}")));
        expect_101(&mut client);
        client.send("last");
        server.look();
        drop(client);
        if query == "suspend" {
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "Err(Interrupted)");
        }
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "Ok(4) Ok(0)");
    }
    server.settle_empty();
}

#[test]
fn what_outlives_its_request_is_refused() {
    thread_local! {
        static KEPT: RefCell<Option<Rc<Upgraded>>> = const { RefCell::new(None) };
    }
    let (tell, told) = mpsc::channel();
    let (server, mut client) = upgraded(move |request, exchange| {
        if let Some(stream) = KEPT.take() {
            assert!(!stream.is_open());
            let read = stream.try_read(&mut [0; 5]).unwrap_err().kind();
            let write = stream.try_write_vectored(&[IoSlice::new(b"x")]).unwrap_err().kind();
            let wait = stream.wait_readable(None).unwrap_err().kind();
            exchange.respond(200, &[], b"").unwrap();
            return tell.send(format!("{read} {write} {wait}")).unwrap();
        }
        let stream = Rc::new(upgrade(exchange).unwrap());
        KEPT.set(Some(Rc::clone(&stream)));
        if request.path == b"/up" {
            let waiting = Rc::clone(&stream);
            let tell = tell.clone();
            meinheld_coro::spawn(move || {
                let ended = (&*waiting).read(&mut [0; 5]).unwrap_err();
                tell.send(ended.to_string()).unwrap();
            });
            meinheld_coro::yield_now().unwrap();
        }
    });
    client.expect_end();
    drop(client);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "the wait was interrupted");
    assert_eq!(server.connect().get("/").status, 200);
    let gone = "not connected";
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), format!("{gone} {gone} {gone}"));
}

#[test]
fn http_is_over_after_an_upgrade() {
    let (server, mut client) = upgraded(|_, exchange| {
        let stream = upgrade(exchange).unwrap();
        assert!(matches!(upgrade(exchange), Err(UpgradeError::HeadSent)));
        assert!(exchange.begin(200, b"OK", []).is_err());
        assert_eq!(exchange.write(b"x").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(exchange.respond(200, &[], b"x").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(exchange.early_hints([]).is_err());
        assert_eq!(exchange.read_body(&mut [0; 9]).unwrap(), 0);
        exchange.fail(500).unwrap();
        exchange.end().unwrap();
        (&stream).write_all(b"all the same").unwrap();
    });
    assert_eq!(client.rest(), b"all the same");
    assert!(server.reports.lock().unwrap().is_empty(), "nothing panicked");
}

#[test]
fn what_was_sent_before_a_panic_arrives() {
    let (server, mut client) = upgraded(|_, exchange| {
        let mut stream = upgrade(exchange).unwrap();
        stream.write_all(b"so far").unwrap();
        std::panic::resume_unwind(Box::new("asked for"));
    });
    assert_eq!(client.rest(), b"so far");
    assert_eq!(server.reports.lock().unwrap().len(), 1);
    drop(client);
    server.settle_empty();
}

#[test]
fn answers_to_pipelined_requests_come_before_the_101() {
    let server = serve(Config::default(), |request, exchange| {
        if request.path == b"/up" {
            return parrot(request, exchange);
        }
        exchange.respond(200, &[], &request.path).unwrap();
    });
    let mut client = server.connect();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(format!("{}{}{UPGRADE}hello", get("/1"), get("/2")));
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().text(), "/2");
    expect_101(&mut client);
    assert_eq!(client.bytes(5), b"HELLO");
}
