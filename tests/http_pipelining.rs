//! Requests sent ahead of their responses: answered one at a time, in order, and no further than
//! the first that ends the connection.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use meinheld_core::Config;
use support::{echo, serve};

fn gets(count: usize) -> String {
    let mut wire = String::new();
    for number in 0..count {
        write!(wire, "GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    wire
}

#[test]
fn three_thousand_requests_are_answered_in_order() {
    let server = serve(Config::default(), |request, exchange| {
        exchange.respond(200, &[], &request.path).unwrap();
    });
    let mut client = server.connect();
    client.send(gets(3000));
    for number in 0..3000 {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
    drop(client);
    server.settle_empty();
}

#[test]
fn a_handler_that_waits_holds_back_what_follows() {
    let server = serve(Config::default(), |request, exchange| {
        if request.path == b"/0" {
            meinheld_coro::sleep(Duration::from_millis(30)).unwrap();
        }
        exchange.respond(200, &[], &request.path).unwrap();
    });
    let mut client = server.connect();
    client.send(gets(3));
    for number in 0..3 {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
}

#[test]
fn bodies_between_heads_are_told_apart() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                   POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n";
    client.send(request.repeat(100));
    for _ in 0..100 {
        assert_eq!(client.response().text(), "abc");
        assert_eq!(client.response().text(), "de");
    }
}

#[test]
fn nothing_after_a_refused_request_is_answered() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    client.send(gets(2) + "BROKEN\r\n\r\n" + &gets(2));
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 400);
    client.expect_end();
}

#[test]
fn nothing_after_a_last_request_is_answered() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    client.send(gets(1) + "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + &gets(100));
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().header("Connection"), Some("close"));
    client.expect_end();
}

#[test]
fn one_client_does_not_keep_another_waiting() {
    let server = serve(Config::default(), echo);
    let mut greedy = server.connect();
    let mut other = server.connect();
    let flood = thread::spawn(move || {
        let all = gets(20_000);
        let _ = greedy.try_send(all);
        greedy
    });
    for _ in 0..50 {
        assert_eq!(other.get("/").status, 200);
    }
    drop(other);
    // The greedy client reads nothing, so that the server stops at what the socket takes.
    drop(server);
    drop(flood.join().unwrap());
}

#[test]
fn an_unread_body_is_dropped_before_the_next_request() {
    let streaming = Config { inline_body_bytes_max: 10, ..Config::default() };
    for config in [Config::default(), streaming] {
        let server = serve(config, |request, exchange| {
            exchange.respond(200, &[], &request.path).unwrap();
        });
        let mut client = server.connect();
        let body = "x".repeat(50_000);
        for number in 0..20 {
            let head =
                format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n");
            client.send(head + &body);
            assert_eq!(client.response().text(), format!("/{number}"));
        }
        drop(client);
        server.settle_empty();
    }
}
