//! Handlers that go wrong: their client can tell, and nobody else notices.

mod support;

use std::io::ErrorKind;

use meinheld_core::{Config, Exchange, LengthMismatch, Request};
use support::{echo, serve, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// To close a connection with unread input would reset it, and what is on its way would be lost (RFC
/// 9112 section 9.6).
#[test]
fn what_was_sent_before_a_handler_failed_arrives() {
    const SENT: usize = 100_000;
    let server = serve(Config::default(), |request: Request, exchange: &mut Exchange| {
        if request.path == b"/" {
            return echo(request, exchange);
        }
        let length: (&[u8], &[u8]) = (b"Content-Length", b"100000");
        exchange.begin(200, b"OK", [length]).unwrap();
        if request.path == b"/whole" {
            exchange.write_last(&vec![b'x'; SENT]).unwrap();
            panic!("after the response");
        }
        exchange.write(&vec![b'x'; SENT / 2]).unwrap();
        panic!("in the middle of the response");
    });
    for (path, bytes) in [("/half", SENT / 2), ("/whole", SENT)] {
        let told = server.reports.lock().unwrap().len();
        let mut client = server.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n"));
        client.send(vec![b'y'; 70_000]);
        wait_until("the panic is told", || server.reports.lock().unwrap().len() > told);
        // The loop has gone on, and done with the connection what it would.
        assert_eq!(server.connect().get("/").status, 200);
        assert_eq!(client.head().0, 200);
        assert_eq!(client.rest().len(), bytes, "{path}");
    }
}

#[test]
fn a_panic_is_a_500_and_the_server_lives() {
    let server =
        serve(Config::default(), |request: Request, exchange: &mut Exchange| {
            match request.path.as_slice() {
                b"/before" => panic!("before the response"),
                b"/begun" => {
                    exchange.begin(200, b"OK", []).unwrap();
                    panic!("with a response that is not sent");
                }
                b"/waited" => {
                    meinheld_coro::yield_now().unwrap();
                    panic!("after a wait");
                }
                b"/sent" => {
                    exchange.begin(200, b"OK", []).unwrap();
                    exchange.write(b"first").unwrap();
                    panic!("in the middle of the response");
                }
                _ => echo(request, exchange),
            }
        });
    let mut other = server.connect();
    for path in ["/before", "/begun", "/waited"] {
        let mut client = server.connect();
        let response = client.get(path);
        assert_eq!((response.status, response.header("Connection")), (500, Some("close")));
        client.expect_end();
        assert_eq!(other.get("/").status, 200);
    }
    let mut client = server.connect();
    client.send("GET /sent HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().0, 200);
    let rest = client.rest();
    assert_eq!(rest, b"5\r\nfirst\r\n", "the last chunk is missing, so that the client can tell");
    drop((client, other));
    server.settle_empty();
    assert_eq!(server.reports.lock().unwrap().len(), 4);
}

#[test]
fn a_handler_that_says_nothing_is_a_500() {
    let server = serve(Config::default(), |_, _| ());
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 500);
    client.expect_end();
}

#[test]
fn a_response_that_was_begun_is_sent_at_the_end() {
    let server = serve(Config::default(), |_, exchange| {
        exchange.begin(404, b"Not Found", []).unwrap();
        assert!(exchange.is_begun() && !exchange.is_head_sent());
    });
    let mut client = server.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.status, response.header("Content-Length")), (404, Some("0")));
    }
}

#[test]
fn more_than_the_content_length_is_not_sent() {
    let server = serve(Config::default(), |_, exchange| {
        let length: (&[u8], &[u8]) = (b"Content-Length", b"5");
        exchange.begin(200, b"OK", [length]).unwrap();
        exchange.write(b"hel").unwrap();
        assert_eq!(exchange.length_mismatch(), None);
        exchange.write(b"lo, world").unwrap();
        exchange.write(b"!").unwrap();
        exchange.end().unwrap();
        exchange.announce_length(0);
        assert_eq!(exchange.length_mismatch(), Some(LengthMismatch::Excess));
        assert_eq!(exchange.body_bytes_sent(), 5);
    });
    let mut client = server.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "hello");
    }
    assert!(server.reports.lock().unwrap().is_empty(), "no assertion failed");
}

#[test]
fn less_than_the_content_length_ends_the_connection() {
    let server = serve(Config::default(), |_, exchange| {
        let length: (&[u8], &[u8]) = (b"Content-Length", b"5");
        exchange.begin(200, b"OK", [length]).unwrap();
        exchange.write(b"hel").unwrap();
        exchange.end().unwrap();
        assert_eq!(exchange.length_mismatch(), Some(LengthMismatch::Shortage(2)));
    });
    let mut client = server.connect();
    client.send(GET);
    assert_eq!(client.head().0, 200);
    assert_eq!(client.rest(), b"hel");
    assert!(server.reports.lock().unwrap().is_empty(), "no assertion failed");
}

#[test]
fn a_head_that_is_not_valid_is_an_error_and_the_next_one_counts() {
    let server = serve(Config::default(), |_, exchange| {
        let split = exchange.respond(200, &[("X", "a\r\nY: b")], b"x").unwrap_err();
        assert_eq!(split.kind(), ErrorKind::InvalidInput);
        let status = exchange.respond(99, &[], b"x").unwrap_err();
        assert_eq!(status.kind(), ErrorKind::InvalidInput);
        assert_eq!(exchange.write(b"x").unwrap_err().kind(), ErrorKind::InvalidInput);
        exchange.respond(200, &[], b"valid").unwrap();
        assert!(exchange.respond(500, &[], b"late").is_err(), "the head is out");
    });
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), "valid");
    assert_eq!(client.get("/").text(), "valid");
    assert!(server.reports.lock().unwrap().is_empty(), "no assertion failed");
}

#[test]
fn what_is_detached_and_not_put_back_is_broken_off_and_harms_nobody() {
    thread_local! {
        static KEPT: std::cell::RefCell<Vec<Exchange>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let server = serve(Config::default(), |request: Request, exchange: &mut Exchange| {
        if request.path == b"/detach" {
            KEPT.with_borrow_mut(|kept| kept.push(exchange.detach()));
            return;
        }
        let late = KEPT.with_borrow_mut(|kept| kept[0].respond(200, &[], b"stray").unwrap_err());
        exchange.respond(200, &[], late.kind().to_string().as_bytes()).unwrap();
        KEPT.with_borrow_mut(Vec::clear);
    });
    let mut client = server.connect();
    client.send("GET /detach HTTP/1.1\r\nHost: a\r\n\r\n");
    client.expect_end();
    // The next connection has the descriptor of the one before.
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), ErrorKind::NotConnected.to_string());
}
