//! `Expect: 100-continue`, RFC 9110 section 10.1.1: the body is asked for when it is wanted.

mod support;

use meinheld_core::Config;
use support::{echo, serve};

const LENGTH: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
const CHUNKED: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn the_body_is_asked_for_when_it_is_first_read() {
    let server = serve(Config::default(), |request, exchange| {
        let hint: (&[u8], &[u8]) = (b"Link", b"</a>");
        exchange.early_hints([hint]).unwrap();
        echo(request, exchange);
    });
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(LENGTH);
        assert_eq!(client.head().0, 103, "the handler runs before the body is asked for");
        assert_eq!(client.head().0, 100);
        client.send("hello");
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, "hello"));
        assert_eq!(response.header("Connection"), None, "the connection is kept");
    }
}

#[test]
fn a_chunked_body_is_asked_for_at_once() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(CHUNKED);
        assert_eq!(client.head().0, 100);
        client.send("5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(client.response().text(), "hello");
    }
}

#[test]
fn it_is_asked_for_behind_the_answers_to_earlier_requests() {
    let server = serve(Config::default(), echo);
    for expecting in [
        CHUNKED,
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 16\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3) + expecting);
        for _ in 0..3 {
            assert_eq!(client.response().status, 200);
        }
        assert_eq!(client.head().0, 100);
        client.send("6\r\nhello!\r\n0\r\n\r\n");
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn a_body_that_comes_with_its_head_is_not_asked_for() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(LENGTH.to_owned() + "hello");
        assert_eq!(client.response().text(), "hello");
        client.send(CHUNKED.to_owned() + "5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(client.response().text(), "hello");
    }
}

#[test]
fn a_body_that_nobody_reads_is_not_asked_for_and_the_connection_ends() {
    let server = serve(Config::default(), |_, exchange| {
        exchange.respond(403, &[], b"no").unwrap();
    });
    let mut client = server.connect();
    client.send(LENGTH);
    let response = client.response();
    assert_eq!((response.status, response.header("Connection")), (403, Some("close")));
    client.expect_end();
    drop(client);
    server.settle_empty();
}

#[test]
fn nothing_is_asked_for_after_the_head_of_the_response() {
    let server = serve(Config::default(), |_, exchange| {
        exchange.begin(200, b"OK", []).unwrap();
        exchange.write(b"first").unwrap();
        let mut body = [0; 5];
        let read = exchange.read_body(&mut body).unwrap();
        exchange.write(&body[..read]).unwrap();
    });
    let mut client = server.connect();
    client.send(LENGTH);
    assert_eq!(client.head().0, 200);
    client.send("hello");
    let rest = client.rest();
    assert_eq!(rest.escape_ascii().to_string(), r"5\r\nfirst\r\n5\r\nhello\r\n0\r\n\r\n");
}

#[test]
fn http_1_0_and_requests_without_a_body_are_not_asked() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    server.look();
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
}
