//! Every limit and every fault has its status; the client can read it, and the connection ends.
//!
//! A request without a length has no body (RFC 9112 section 6.3), so that 411 is only for one in
//! chunks, where those are refused.

mod support;

use meinheld_core::http::{BodyLimits, HeadLimits, UnderscoreHeaders};
use meinheld_core::{ChunkedBodies, Config};
use support::{echo, serve};

fn small() -> Config {
    Config {
        head: HeadLimits { head_bytes_max: 700, target_bytes_max: 100, ..HeadLimits::default() },
        body: BodyLimits { body_bytes_max: 1000, ..BodyLimits::default() },
        ..Config::default()
    }
}

fn request(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: a\r\n{fields}\r\n")
}

fn cases() -> Vec<(u16, String)> {
    let get = "GET / HTTP/1.1";
    let post = "POST / HTTP/1.1";
    let chunked = |body: &str| request(post, "Transfer-Encoding: chunked\r\n") + body;
    vec![
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\nHost: a\n\n".to_owned()),
        (400, request(get, "A : b\r\n")),
        (400, request(post, "Content-Length: +1\r\n")),
        (400, request(post, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")),
        (400, chunked("x\r\n")),
        (400, chunked("1\r\nab\r\n")),
        (413, request(post, "Content-Length: 1001\r\n")),
        (413, request(post, "Content-Length: 18446744073709551615\r\n")),
        (413, chunked("3e9\r\n")),
        (413, chunked(&"1\r\na\r\n".repeat(1001))),
        (414, request(&format!("GET /{} HTTP/1.1", "a".repeat(100)), "")),
        (417, request(get, "Expect: miracles\r\n")),
        (431, request(get, &format!("A: {}\r\n", "a".repeat(700)))),
        (431, format!("{get}\r\nHost: a\r\nA: {}", "a".repeat(700))),
        (431, request(get, &"A: b\r\n".repeat(101))),
        (501, request(post, "Transfer-Encoding: gzip, chunked\r\n")),
        (501, request(&format!("{} / HTTP/1.1", "A".repeat(33)), "")),
        (505, request("GET / HTTP/2.0", "")),
    ]
}

#[test]
fn each_fault_is_answered_by_its_status_and_ends_the_connection() {
    let server = serve(small(), echo);
    for (status, wire) in cases() {
        let mut client = server.connect();
        client.send(&wire);
        let response = client.response();
        assert_eq!(response.status, status, "{}", wire.escape_debug());
        assert_eq!(response.header("Connection"), Some("close"));
        client.expect_end();
    }
    server.settle_empty();
    assert_eq!(server.reports.lock().unwrap().len(), cases().len(), "each is reported");
}

#[test]
fn a_fault_split_at_any_byte_has_the_same_status() {
    let server = serve(small(), echo);
    for (status, wire) in cases().into_iter().filter(|(_, wire)| wire.len() < 200) {
        for at in 1..wire.len() {
            let mut client = server.connect();
            client.send(&wire[..at]);
            server.look();
            // The first part may be enough for the answer, and a reset then follows the second.
            let _ = client.try_send(&wire[at..]);
            assert_eq!(client.response().status, status, "{} at {at}", wire.escape_debug());
        }
    }
}

#[test]
fn a_fault_after_a_served_request_ends_the_connection_too() {
    let server = serve(small(), echo);
    for (status, wire) in cases().into_iter().take(5) {
        let mut client = server.connect();
        assert_eq!(client.get("/").status, 200);
        client.send(&wire);
        assert_eq!(client.response().status, status);
        client.expect_end();
    }
}

#[test]
fn a_body_is_not_required_to_have_a_length() {
    let server = serve(small(), echo);
    let mut client = server.connect();
    client.send(request("POST / HTTP/1.1", ""));
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, ""));
}

#[test]
fn a_body_in_chunks_can_be_refused_for_its_unknown_length() {
    let config = Config { chunked_bodies: ChunkedBodies::Refused, ..small() };
    let server = serve(config, echo);
    let mut client = server.connect();
    client.send(request("POST / HTTP/1.1", "Content-Length: 2\r\n") + "ab");
    assert_eq!(client.response().text(), "ab");
    client.send(request("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n");
    assert_eq!(client.response().status, 411);
    client.expect_end();
}

#[test]
fn a_refused_underscore_is_told_by_its_name_once_in_a_while() {
    let head = HeadLimits { underscore_headers: UnderscoreHeaders::Refuse, ..small().head };
    let server = serve(Config { head, ..small() }, echo);
    for _ in 0..3 {
        let mut client = server.connect();
        client.send(request("GET / HTTP/1.1", "X_User: a_b\r\n"));
        assert_eq!(client.response().status, 400);
        client.expect_end();
    }
    let reports = server.reports.lock().unwrap();
    let named = reports.iter().filter(|report| report.contains("the header X_User holds"));
    assert_eq!((named.count(), reports.len()), (1, 4), "{reports:?}");
}

#[test]
fn connect_and_upgrades_are_ordinary_requests() {
    let server = serve(small(), |request, exchange| {
        let status = if request.method == "CONNECT" { 405 } else { 200 };
        exchange.respond(status, &[], request.method.as_bytes()).unwrap();
    });
    let mut client = server.connect();
    client.send("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n");
    assert_eq!(client.response().status, 405);
    client.send(request("GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: h2c\r\n"));
    assert_eq!(client.response().text(), "GET");
}

#[test]
fn a_refused_upload_still_gets_its_answer() {
    let server = serve(Config::default(), echo);
    for head in ["Content-Length: 99999999999", "Transfer-Encoding: chunked"] {
        let mut client = server.connect();
        client.send(request("POST / HTTP/1.1", &format!("{head}\r\n")));
        let piece = vec![b'x'; 1_000_000];
        for _ in 0..20 {
            // In chunks, the body is refused once it is over the limit of 16 MiB.
            if head.starts_with('T') {
                client.send(format!("{:x}\r\n", piece.len()));
            }
            client.send(&piece);
            if head.starts_with('T') {
                client.send("\r\n");
            }
        }
        client.end_output();
        assert_eq!(client.response().status, 413, "{head}");
        client.expect_end();
    }
    server.settle_empty();
}

#[test]
fn an_application_that_refuses_an_upload_is_heard_too() {
    let server = serve(Config::default(), |_, exchange| {
        exchange.respond(403, &[], b"no").unwrap();
    });
    let mut client = server.connect();
    client.send(request("POST / HTTP/1.1", "Content-Length: 10000000\r\n"));
    client.send(vec![b'x'; 10_000_000]);
    assert_eq!(client.response().status, 403);
    client.expect_end();
}
