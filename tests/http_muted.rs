//! An application that has answered on the descriptor itself mutes its exchange: nothing else is sent.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::io::Write;

use meinheld_core::{Config, Exchange, duplicate_file};
use support::serve;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn answer_itself(exchange: &mut Exchange) {
    let mut socket = duplicate_file(exchange.client().fd().unwrap()).unwrap();
    socket.write_all(b"HTTP/1.1 204 Its-Own\r\n\r\n").unwrap();
    exchange.mute(true);
}

#[test]
fn nothing_is_sent_and_the_connection_ends() {
    let server = serve(Config::default(), |request, exchange| {
        answer_itself(exchange);
        match request.path.as_slice() {
            b"/respond" => exchange.respond(200, &[], b"lost").unwrap(),
            b"/pieces" => {
                exchange.begin(200, b"OK", []).unwrap();
                exchange.write(b"lost").unwrap();
                assert!(exchange.is_body_over());
            }
            b"/fail" => exchange.fail(500).unwrap(),
            b"/hints" => exchange.early_hints([(&b"A"[..], &b"b"[..])]).unwrap(),
            _ => {}
        }
    });
    for path in ["/", "/respond", "/pieces", "/fail", "/hints"] {
        let mut client = server.connect();
        // The second request is not answered: the connection is the application's no more.
        client.send(GET.replacen('/', path, 1) + GET);
        assert_eq!(client.response().status, 204, "{path}");
        client.expect_end();
    }
    server.settle_empty();
}

#[test]
fn muting_can_be_taken_back() {
    let server = serve(Config::default(), |_, exchange| {
        exchange.mute(true);
        exchange.mute(false);
        exchange.respond(200, &[], b"heard").unwrap();
    });
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), "heard");
    assert_eq!(client.get("/").text(), "heard");
}
