//! Which connections outlive a response, and what a response without a body looks like.

mod support;

use std::time::Duration;

use meinheld_core::Config;
use support::{SHORT, echo, serve};

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = serve(Config::default(), |request, exchange| {
        let text = format!("{} {}", request.method, String::from_utf8_lossy(&request.path));
        exchange.respond(200, &[], text.as_bytes()).unwrap();
    });
    let mut client = server.connect();
    for number in 0..50 {
        assert_eq!(client.get(&format!("/{number}")).text(), format!("GET /{number}"));
    }
    assert_eq!(server.look().connections, 1);
    drop(client);
    server.settle_empty();
}

#[test]
fn connection_close_and_http_1_0_end_it_per_rfc_9112_section_9_3() {
    let server = serve(Config::default(), echo);
    for head in ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"]
    {
        let mut client = server.connect();
        client.send(head);
        assert_eq!(client.response().header("Connection"), Some("close"), "{head}");
        client.expect_end();
    }
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.response().header("Connection"), Some("keep-alive"));
    }
    drop(client);
    server.settle_empty();
}

#[test]
fn an_application_may_close_the_connection() {
    let server = serve(Config::default(), |_, exchange| {
        exchange.respond(200, &[("Connection", "close")], b"x").unwrap();
    });
    let mut client = server.connect();
    assert_eq!(client.get("/").header("Connection"), Some("close"));
    client.expect_end();
}

#[test]
fn no_keep_alive_means_one_response_a_connection() {
    let config = Config { keep_alive_timeout: Duration::ZERO, ..Config::default() };
    let server = serve(config, echo);
    let mut client = server.connect();
    assert_eq!(client.get("/").header("Connection"), Some("close"));
    client.expect_end();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = serve(Config { keep_alive_timeout: SHORT, ..Config::default() }, echo);
    let mut client = server.connect();
    client.get("/");
    client.expect_end();
    assert!(server.reports.lock().unwrap().is_empty(), "there is nothing to report");
}

#[test]
fn head_204_and_304_have_no_body_and_the_next_response_follows() {
    let server = serve(Config::default(), |request, exchange| {
        let status = std::str::from_utf8(&request.path[1..]).unwrap().parse().unwrap();
        exchange.respond(status, &[], b"never seen").unwrap();
    });
    let mut client = server.connect();
    for (method, status, length) in [
        ("HEAD", 200, Some("10")),
        ("GET", 204, None),
        ("GET", 304, None),
        ("HEAD", 404, Some("10")),
    ] {
        client.send(format!("{method} /{status} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response_without_body();
        assert_eq!(response.status, status);
        assert_eq!(response.header("Transfer-Encoding"), None);
        assert_eq!(response.header("Content-Length"), length, "{method} {status}");
    }
    assert_eq!(client.get("/200").text(), "never seen");
}

#[test]
fn pieces_of_unknown_length_are_chunked_and_until_the_end_for_http_1_0() {
    let server = serve(Config::default(), |_, exchange| {
        exchange.begin(200, b"OK", []).unwrap();
        for piece in ["one ", "", "two"] {
            exchange.write(piece.as_bytes()).unwrap();
        }
        exchange.end().unwrap();
    });
    let mut client = server.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.header("Transfer-Encoding"), Some("chunked"));
        assert_eq!(response.text(), "one two");
    }
    let mut old = server.connect();
    old.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = old.response();
    assert_eq!(response.header("Transfer-Encoding"), None);
    assert_eq!(response.text(), "one two");
}

#[test]
fn a_client_that_has_ended_its_side_is_still_answered() {
    let server = serve(Config::default(), echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    client.end_output();
    assert_eq!(client.response().text(), "hello");
    client.expect_end();
    server.settle_empty();
}

#[test]
fn a_line_end_behind_the_last_body_resets_no_connection() {
    let (sent, line_end_sent) = std::sync::mpsc::channel();
    let server = serve(Config::default(), move |request, exchange| {
        line_end_sent.recv().unwrap();
        echo(request, exchange);
    });
    let mut client = server.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
    client.send("\r\n");
    sent.send(()).unwrap();
    assert_eq!(client.response().text(), "hello");
    client.expect_end();
    server.settle_empty();
}
