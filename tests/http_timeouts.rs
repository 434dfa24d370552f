//! Who is too slow: at a head, at a body, at taking the response, at going away.
//!
//! Upper bounds are those of the test's patience alone.

mod support;

use std::io::{self, Read};
use std::sync::mpsc;
use std::time::Instant;

use meinheld_core::Config;
use support::{PATIENCE, SHORT, echo, serve};

#[test]
fn a_head_that_does_not_end_is_a_408_however_busily_it_comes() {
    let server = serve(Config { head_timeout: SHORT, ..Config::default() }, echo);
    for begin in ["G", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = server.connect();
        let started = Instant::now();
        client.send(begin);
        // A byte a turn does not extend the time, which counts from the first.
        while server.reports.lock().unwrap().is_empty() {
            let _ = client.try_send("a");
            server.look();
            assert!(started.elapsed() < PATIENCE, "it is never refused");
        }
        assert!(started.elapsed() >= SHORT);
        assert_eq!(client.response().status, 408);
        server.reports.lock().unwrap().clear();
    }
    server.settle_empty();
}

#[test]
fn a_second_head_has_its_time_too() {
    let server = serve(Config { head_timeout: SHORT, ..Config::default() }, echo);
    let mut client = server.connect();
    client.get("/");
    let started = Instant::now();
    client.send("GET /");
    assert_eq!(client.response().status, 408);
    assert!(started.elapsed() >= SHORT);
}

#[test]
fn a_head_may_take_longer_than_keep_alive() {
    let server = serve(Config { keep_alive_timeout: SHORT, ..Config::default() }, echo);
    let mut client = server.connect();
    client.get("/");
    client.send("GET / HTTP/1.1\r\n");
    let begun = Instant::now();
    while begun.elapsed() < 2 * SHORT {
        server.look();
    }
    client.send("Host: a\r\n\r\n");
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_connection_that_never_says_anything_is_closed_without_a_word() {
    let server = serve(Config { head_timeout: SHORT, ..Config::default() }, echo);
    let mut client = server.connect();
    client.expect_end();
    assert!(server.reports.lock().unwrap().is_empty());
}

#[test]
fn a_body_that_stops_is_a_408_while_it_is_collected() {
    let server = serve(Config { body_timeout: SHORT, ..Config::default() }, echo);
    for fields in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        let started = Instant::now();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n1\r\n"));
        assert_eq!(client.response().status, 408);
        assert!(started.elapsed() >= SHORT);
        client.expect_end();
    }
    server.settle_empty();
}

#[test]
fn a_body_that_stops_is_an_error_to_its_reader() {
    let config = Config { body_timeout: SHORT, inline_body_bytes_max: 1, ..Config::default() };
    let server = serve(config, |_, exchange| {
        let error = exchange.read_to_end(&mut Vec::new()).unwrap_err();
        exchange.respond(408, &[], error.kind().to_string().as_bytes()).unwrap();
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell");
    assert_eq!(client.response().text(), io::ErrorKind::TimedOut.to_string());
    client.expect_end();
}

#[test]
fn a_client_that_takes_nothing_is_an_error_to_its_writer() {
    let (tell, told) = mpsc::channel();
    let config = Config { send_timeout: SHORT, ..Config::default() };
    let server = serve(config, move |_, exchange| {
        exchange.begin(200, b"OK", []).unwrap();
        let piece = vec![b'x'; 1_000_000];
        let error = loop {
            if let Err(error) = exchange.write(&piece) {
                break error;
            }
        };
        tell.send((error.kind(), exchange.write(b"more").unwrap_err().kind())).unwrap();
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let kinds = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(kinds, (io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe));
    server.settle_empty();
    assert!(client.drain() > 1_000_000, "what was sent before arrives");
}

#[test]
fn a_client_that_does_not_go_is_left() {
    let server = serve(Config { linger_timeout: SHORT, ..Config::default() }, echo);
    let mut client = server.connect();
    client.send("BROKEN\r\n\r\n");
    assert_eq!(client.response().status, 400);
    client.expect_end();
    // Our side is still open, and sends without an end: that keeps nobody.
    let started = Instant::now();
    while server.look().connections > 0 {
        let _ = client.try_send("more");
        assert!(started.elapsed() < PATIENCE, "it lingers for ever");
    }
}

#[test]
fn a_body_that_is_dropped_must_come_in_time() {
    let config = Config { linger_timeout: SHORT, inline_body_bytes_max: 1, ..Config::default() };
    let server = serve(config, |_, exchange| exchange.respond(200, &[], b"x").unwrap());
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.expect_end();
    server.settle_empty();
}

#[test]
fn a_deadline_of_an_idle_connection_does_not_end_its_next_request() {
    let config = Config { keep_alive_timeout: 2 * SHORT, ..Config::default() };
    let server = serve(config, |request, exchange| {
        if request.path == b"/slow" {
            meinheld_coro::sleep(6 * SHORT).unwrap();
        }
        exchange.respond(200, &[], b"x").unwrap();
    });
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.get("/slow").status, 200);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn after_an_upload_the_connection_idles_as_after_any_request() {
    let config =
        Config { keep_alive_timeout: SHORT, inline_body_bytes_max: 1, ..Config::default() };
    let server = serve(config, echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    server.look();
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
    client.expect_end();
}
