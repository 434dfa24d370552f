//! Request bodies: the same answer however they come, small, streamed, or by way of a file.

mod support;

use std::io::Read;
use std::process::Command;
use std::time::Duration;

use meinheld_core::Config;
use support::{echo, serve};

const LENGTH: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       6;a=b\r\nhello \r\n5\r\nworld\r\n0\r\nTrailer: x\r\n\r\n";

fn streaming() -> Config {
    Config { inline_body_bytes_max: 4, ..Config::default() }
}

#[test]
fn a_request_split_at_any_byte_gets_the_same_answer() {
    for config in [Config::default(), streaming()] {
        let server = serve(config, echo);
        let mut client = server.connect();
        for request in [LENGTH, CHUNKED] {
            for at in 1..request.len() {
                client.send(&request[..at]);
                // The loop has seen the first part before the second comes.
                server.look();
                client.send(&request[at..]);
                let response = client.response();
                assert_eq!((response.status, response.text()), (200, "hello world"), "{at}");
            }
        }
    }
}

#[test]
fn a_request_that_comes_byte_by_byte_on_a_new_connection_is_answered() {
    for config in [Config::default(), streaming()] {
        let server = serve(config, echo);
        for request in [LENGTH, CHUNKED] {
            let mut client = server.connect();
            for byte in request.as_bytes() {
                client.send([*byte]);
                server.look();
            }
            assert_eq!(client.response().text(), "hello world");
        }
    }
}

#[test]
fn a_body_that_comes_after_its_head_on_a_new_connection_is_waited_for() {
    for config in [Config::default(), streaming()] {
        let server = serve(config, echo);
        for request in [LENGTH, CHUNKED] {
            let head_bytes = request.find("\r\n\r\n").unwrap() + 4;
            for at in [head_bytes, head_bytes + 3] {
                let mut client = server.connect();
                client.send(&request[..at]);
                server.settle(|now| now.connections > 0);
                client.send(&request[at..]);
                assert_eq!(client.response().text(), "hello world");
                drop(client);
                server.settle_empty();
            }
        }
    }
}

#[test]
fn large_bodies_are_read_whole() {
    let config = Config { body_memory_bytes_max: 100_000, ..Config::default() };
    let server = serve(config, echo);
    for size in [64 * 1024, 64 * 1024 + 1, 99_999, 100_001, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
        client.send(&body);
        assert!(client.response().body == body, "{size} bytes with a length");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(70_001) {
            client.send(format!("{:x}\r\n", chunk.len()));
            client.send(chunk);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert!(client.response().body == body, "{size} bytes in chunks");
        drop(client);
        server.settle_empty();
    }
}

#[test]
fn what_is_left_of_a_body_is_no_request() {
    const BODY: &str = "GET /body HTTP/1.1\r\nHost: a\r\n\r\n";
    let server = serve(Config::default(), |request, exchange| {
        let wanted: usize = request
            .header("x-read")
            .map_or(0, |_| String::from_utf8_lossy(&request.path[1..]).parse().unwrap());
        if request.header("x-sleep").is_some() {
            meinheld_coro::sleep(Duration::from_millis(1)).unwrap();
        }
        let mut read = vec![0; wanted];
        exchange.read_exact(&mut read).unwrap();
        read.splice(..0, request.path);
        exchange.respond(200, &[], &read).unwrap();
    });
    for sleep in ["", "X-Sleep: 1\r\n"] {
        let mut client = server.connect();
        let requests = (0..=BODY.len()).map(|wanted| {
            format!(
                "POST /{wanted} HTTP/1.1\r\nHost: a\r\nX-Read: 1\r\n{sleep}Content-Length: {}\r\n\r\n\
                 {BODY}GET /behind HTTP/1.1\r\nHost: a\r\n\r\n",
                BODY.len()
            )
        });
        client.send(requests.collect::<Vec<_>>().concat());
        for wanted in 0..=BODY.len() {
            assert_eq!(client.response().text(), format!("/{wanted}{}", &BODY[..wanted]));
            assert_eq!(client.response().text(), "/behind");
        }
        client.send(format!(
            "POST /0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        ));
        assert_eq!(client.response().text(), "/0");
        client.expect_end();
    }
    server.settle_empty();
}

#[test]
fn a_handler_is_told_of_a_body_that_is_cut_off() {
    let server = serve(streaming(), |_, exchange| {
        let mut body = Vec::new();
        let kind = exchange.read_to_end(&mut body).unwrap_err().kind();
        let again = exchange.read_body(&mut [0; 8]).unwrap_err().kind();
        exchange.respond(400, &[], format!("{kind} {again}").as_bytes()).unwrap();
    });
    let mut client = server.connect();
    client.send(&LENGTH[..LENGTH.len() - 1]);
    client.end_output();
    assert_eq!(client.response().text(), "unexpected end of file unexpected end of file");
    client.expect_end();
}

#[test]
fn a_collected_body_that_is_cut_off_is_refused_per_rfc_9112_section_8() {
    let server = serve(Config::default(), |_, _| panic!("no request was complete"));
    for request in [LENGTH, CHUNKED] {
        let mut client = server.connect();
        client.send(&request[..request.len() - 1]);
        client.end_output();
        assert_eq!(client.response().status, 400);
        client.expect_end();
    }
    server.settle_empty();
    let reports = server.reports.lock().unwrap();
    let said = "with 400: the connection ended before the body did";
    assert!(
        reports.len() == 2 && reports.iter().all(|report| report.contains(said)),
        "{reports:?}"
    );
    drop(reports);
    // A client that is gone altogether is told, too, and leaves nothing.
    for _ in 0..100 {
        server.connect().send(&LENGTH[..LENGTH.len() - 1]);
    }
    server.settle_empty();
}

#[test]
fn a_body_that_cannot_be_stored_is_a_500() {
    let this = std::env::current_exe().unwrap();
    let child = Command::new(this)
        .args(["--ignored", "--exact", "child_without_a_temporary_folder"])
        .env("TMPDIR", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by a_body_that_cannot_be_stored_is_a_500 in a child process"]
fn child_without_a_temporary_folder() {
    let server = serve(Config { body_memory_bytes_max: 10, ..Config::default() }, echo);
    let mut client = server.connect();
    client.send(CHUNKED);
    assert_eq!(client.response().status, 500);
    client.expect_end();
    let reports = server.reports.lock().unwrap().join("\n");
    assert!(reports.contains("cannot be stored"), "{reports}");
    assert_eq!(server.connect().get("/").status, 200);
}
