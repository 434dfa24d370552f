//! Stopping: what is idle is closed at once, what is in flight may finish, and nothing is left.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::Duration;

use meinheld_core::{Config, Listener, Stopped};
use meinheld_coro::{Continuation, Interrupt};
use support::{PATIENCE, Running, SHORT, continuation, echo, serve, serve_on, suspend};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn suspending() -> (Running, mpsc::Receiver<Continuation<()>>) {
    let (begun, continuations) = mpsc::channel();
    let server = serve(Config::default(), move |_, exchange| {
        let here = continuation();
        begun.send(here.clone()).unwrap();
        let text = match suspend(exchange, &here) {
            Ok(()) => "resumed",
            Err(Interrupt::Cancelled) => "cancelled",
            Err(_) => "gone",
        };
        let _ = exchange.respond(200, &[], text.as_bytes());
    });
    (server, continuations)
}

#[test]
fn an_idle_server_stops_at_once() {
    let server = serve(Config::default(), echo);
    let mut idle = [server.connect(), server.connect()];
    for client in &mut idle {
        client.get("/");
    }
    let address = server.address();
    server.handle.stop(None);
    assert_eq!(server.join(), Stopped::default());
    for client in &mut idle {
        client.expect_end();
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_head_that_does_not_go_on_keeps_no_server_from_stopping() {
    let config = Config {
        head_timeout: Duration::from_secs(3600),
        linger_timeout: SHORT,
        ..Config::default()
    };
    let server = serve(config, echo);
    let mut stalled = server.connect();
    stalled.send("GET / HTTP/1.1\r\nHo");
    server.connect().get("/");
    server.handle.stop(None);
    assert_eq!(stalled.head().0, 408);
    drop(stalled);
    assert_eq!(server.join(), Stopped::default());
}

#[test]
fn requests_in_flight_finish_and_say_that_they_are_the_last() {
    let (server, continuations) = suspending();
    let mut client = server.connect();
    client.send(GET);
    let suspended = continuations.recv_timeout(PATIENCE).unwrap();
    let mut idle = server.connect();
    server.settle(|now| now.connections == 2);
    server.handle.stop(None);
    idle.expect_end();
    suspended.resume(()).unwrap();
    let response = client.response();
    assert_eq!((response.text(), response.header("Connection")), ("resumed", Some("close")));
    client.expect_end();
    assert_eq!(server.join(), Stopped::default());
}

#[test]
fn what_has_arrived_before_the_stop_is_answered() {
    for _ in 0..20 {
        let server = serve(Config::default(), echo);
        let mut kept: Vec<_> = (0..20).map(|_| server.connect()).collect();
        for client in &mut kept {
            client.get("/");
        }
        let mut waiting: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for client in kept.iter_mut().chain(&mut waiting) {
            client.send(GET);
        }
        server.handle.stop(None);
        for client in kept.iter_mut().chain(&mut waiting) {
            assert_eq!(client.response().status, 200);
            client.expect_end();
        }
        assert_eq!(server.join(), Stopped::default());
    }
}

#[test]
fn idle_connections_may_be_given_time_to_ask_once_more() {
    let config = Config { stop_idle_timeout: PATIENCE, ..Config::default() };
    let server = serve(config, echo);
    let mut kept = server.connect();
    kept.get("/");
    let mut new = server.connect();
    server.settle(|now| now.connections == 2);
    server.handle.stop(None);
    server.look();
    for client in [&mut kept, &mut new] {
        client.send(GET);
        let response = client.response();
        assert_eq!((response.status, response.header("Connection")), (200, Some("close")));
        client.expect_end();
    }
    assert_eq!(server.join(), Stopped::default());
}

#[test]
fn the_time_of_idle_connections_ends() {
    let config = Config { stop_idle_timeout: SHORT, ..Config::default() };
    let server = serve(config, echo);
    let mut kept = server.connect();
    kept.get("/");
    server.handle.stop(None);
    kept.expect_end();
    assert_eq!(server.join(), Stopped::default());
}

#[test]
fn what_waits_on_an_inherited_listener_is_left_to_whoever_serves_it_next() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = || vec![Listener::inherit(socket.as_raw_fd()).unwrap()];
    let (begun, told) = mpsc::channel();
    let (proceed, gate) = mpsc::channel::<()>();
    let first = serve_on(Config::default(), listener(), move |_, exchange| {
        begun.send(()).unwrap();
        gate.recv().unwrap();
        let _ = exchange.respond(200, &[], b"first");
    });
    let mut served = first.connect();
    served.send(GET);
    told.recv_timeout(PATIENCE).unwrap();
    // The loop is held up in the first request, so that these come to wait before it sees the stop.
    let mut waiting: Vec<_> = (0..3).map(|_| first.connect()).collect();
    for client in &mut waiting {
        client.send(GET);
    }
    first.handle.stop(None);
    proceed.send(()).unwrap();
    assert_eq!(served.response().text(), "first");
    assert_eq!(first.join(), Stopped::default());
    let _second = serve_on(Config::default(), listener(), |_, exchange| {
        let _ = exchange.respond(200, &[], b"second");
    });
    for client in &mut waiting {
        assert_eq!(client.response().text(), "second");
    }
}

#[test]
fn a_body_in_flight_is_still_collected() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    server.settle(|now| now.connections == 1);
    server.look();
    server.handle.stop(None);
    client.send("lo");
    assert_eq!(client.response().text(), "hello");
    client.expect_end();
    assert_eq!(server.join(), Stopped::default());
}

#[test]
fn requests_that_outlast_the_grace_are_cancelled() {
    let (server, continuations) = suspending();
    let mut client = server.connect();
    client.send(GET);
    continuations.recv_timeout(PATIENCE).unwrap();
    server.handle.stop(Some(SHORT));
    assert_eq!(client.response().text(), "cancelled");
    assert_eq!(server.join(), Stopped { cancelled: 1, abandoned: 0 });
}

#[test]
fn a_second_stop_shortens_the_grace() {
    let (server, continuations) = suspending();
    let mut client = server.connect();
    client.send(GET);
    continuations.recv_timeout(PATIENCE).unwrap();
    server.handle.stop(None);
    server.look();
    server.handle.stop(Some(Duration::ZERO));
    assert_eq!(client.response().text(), "cancelled");
    assert_eq!(server.join(), Stopped { cancelled: 1, abandoned: 0 });
}

#[test]
fn suspended_requests_can_be_ended_before_or_after_the_stop() {
    for before in [true, false] {
        let (server, continuations) = suspending();
        let mut client = server.connect();
        client.send(GET);
        continuations.recv_timeout(PATIENCE).unwrap();
        if before {
            server.handle.end_suspended();
            server.look();
            server.handle.stop(None);
        } else {
            server.handle.stop(None);
            server.look();
            server.handle.end_suspended();
        }
        assert_eq!(client.response().text(), "cancelled");
        client.expect_end();
        assert_eq!(server.join(), Stopped::default());
    }
}

#[test]
fn a_request_that_will_not_end_is_abandoned_and_its_client_let_go() {
    let (begun, told) = mpsc::channel();
    let server = serve(Config::default(), move |_, _| {
        begun.send(()).unwrap();
        loop {
            let _ = meinheld_coro::sleep(PATIENCE);
        }
    });
    let mut client = server.connect();
    client.send(GET);
    told.recv_timeout(PATIENCE).unwrap();
    server.handle.stop(Some(Duration::ZERO));
    client.expect_end();
    assert_eq!(server.join(), Stopped { cancelled: 1, abandoned: 1 });
}

#[test]
fn a_response_that_promised_to_keep_the_connection_is_not_destroyed_by_the_stop() {
    let (begun, continuations) = mpsc::channel();
    let server = serve(Config::default(), move |_, exchange| {
        exchange.begin(200, b"OK", []).unwrap();
        exchange.announce_length(1_000_000);
        exchange.write(&vec![b'x'; 500_000]).unwrap();
        let here = continuation();
        begun.send(here.clone()).unwrap();
        here.suspend(None).unwrap();
        exchange.write(&vec![b'x'; 500_000]).unwrap();
    });
    let mut client = server.connect();
    client.send(GET);
    let suspended: Continuation<()> = continuations.recv_timeout(PATIENCE).unwrap();
    // What it sends ahead is unread when the server closes.
    client.send(GET.repeat(1000));
    server.handle.stop(None);
    server.look();
    suspended.resume(()).unwrap();
    assert_eq!(client.response().body.len(), 1_000_000);
    client.expect_end();
    drop(client);
    assert_eq!(server.join(), Stopped::default());
}
