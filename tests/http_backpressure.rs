//! A client that does not read stops its handler; files leave without passing through.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meinheld_core::{Config, LengthMismatch};
use support::{echo, serve};

const PIECE_BYTES: usize = 100_000;
const PIECES: usize = 1000;

#[test]
fn a_stalled_reader_stops_its_handler_and_nobody_else() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let server = serve(Config::default(), move |request, exchange| {
        if request.path != b"/large" {
            return echo(request, exchange);
        }
        exchange.begin(200, b"OK", []).unwrap();
        for _ in 0..PIECES {
            if exchange.write(&vec![b'x'; PIECE_BYTES]).is_err() {
                return;
            }
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut stalled = server.connect();
    stalled.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(stalled.head().0, 200);
    let mut other = server.connect();
    for _ in 0..50 {
        assert_eq!(other.get("/").status, 200);
    }
    let ahead = written.load(Ordering::SeqCst);
    assert!(ahead < PIECES / 2, "{ahead} pieces are on their way to a client that reads nothing");
    let mut received = 0;
    while received < PIECES * PIECE_BYTES {
        received += stalled.bytes(PIECE_BYTES).len();
    }
    assert_eq!(other.get("/").status, 200);
    drop((stalled, other));
    server.settle_empty();
    assert_eq!(written.load(Ordering::SeqCst), PIECES);
}

#[test]
fn a_stalled_reader_that_goes_ends_its_handler() {
    let server = serve(Config::default(), |_, exchange| {
        exchange.begin(200, b"OK", []).unwrap();
        while exchange.write(&vec![b'x'; PIECE_BYTES]).is_ok() {}
    });
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head();
    }
    drop(clients);
    server.settle_empty();
}

/// A file without a name, of `size` bytes.
fn file(size: usize) -> (File, Vec<u8>) {
    let path = std::env::temp_dir().join(format!("meinheld-{}-{size}", std::process::id()));
    let content: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
    File::create(&path).unwrap().write_all(&content).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    (file, content)
}

#[test]
fn a_file_is_sent_whole_or_from_an_offset() {
    let (file, content) = file(5_000_000);
    let server = serve(Config::default(), move |request, exchange| {
        let (offset, bytes) = match request.path.as_slice() {
            b"/all" => (0, 5_000_000),
            _ => (1000, 50),
        };
        exchange.begin(200, b"OK", []).unwrap();
        let sent = exchange.send_file(file.as_fd(), offset, bytes).unwrap();
        assert_eq!(sent, if request.method == "HEAD" { 0 } else { bytes });
    });
    let mut client = server.connect();
    for _ in 0..2 {
        let all = client.get("/all");
        assert_eq!(all.header("Content-Length"), Some("5000000"));
        assert!(all.body == content);
        assert!(client.get("/part").body == content[1000..1050]);
    }
    client.send("HEAD /part HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_without_body();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some("50")));
    assert!(client.get("/part").body == content[1000..1050]);
    assert!(server.reports.lock().unwrap().is_empty(), "no assertion failed");
}

#[test]
fn a_file_may_follow_a_first_piece() {
    let (file, content) = file(300_000);
    let server = serve(Config::default(), move |_, exchange| {
        exchange.begin(200, b"OK", []).unwrap();
        exchange.write(b"first").unwrap();
        assert_eq!(exchange.send_file(file.as_fd(), 0, 300_000).unwrap(), 300_000);
        exchange.write(b"last").unwrap();
    });
    let mut client = server.connect();
    for _ in 0..2 {
        let body = client.get("/").body;
        assert!(body == [b"first", content.as_slice(), b"last"].concat());
    }
}

#[test]
fn a_file_that_is_shorter_than_announced_ends_the_connection() {
    for first in [&b""[..], b"first"] {
        let (file, _) = file(100 + first.len());
        let length = 100 + first.len() as u64;
        let server = serve(Config::default(), move |_, exchange| {
            exchange.begin(200, b"OK", []).unwrap();
            if !first.is_empty() {
                exchange.write(first).unwrap();
            }
            assert_eq!(exchange.send_file(file.as_fd(), 0, length + 20).unwrap(), length);
            exchange.end().unwrap();
            assert_eq!(exchange.length_mismatch(), Some(LengthMismatch::Shortage(20)));
        });
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().0, 200);
        let rest = client.rest();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "the client can tell");
        assert!(server.reports.lock().unwrap().is_empty(), "no assertion failed");
    }
}

#[test]
fn a_slow_reader_of_a_file_gets_it_all() {
    let (file, content) = file(20_000_001);
    let server = serve(Config::default(), move |_, exchange| {
        exchange.begin(200, b"OK", []).unwrap();
        exchange.send_file(file.as_fd(), 0, 20_000_001).unwrap();
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.head().0, 200);
    // The handler parks between the pieces that the client makes room for.
    let mut received = Vec::new();
    for _ in 0..100 {
        received.extend(client.bytes(100_000));
        server.look();
    }
    received.extend(client.rest());
    assert!(received == content);
}

#[test]
fn an_upload_of_which_the_handler_reads_little_is_held_back() {
    let server = serve(Config::default(), |_, exchange| {
        let mut start = [0; 10];
        exchange.read_exact(&mut start).unwrap();
        meinheld_coro::sleep(support::SHORT).unwrap();
        exchange.respond(200, &[], &start).unwrap();
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n0123456789");
    client.send(vec![b'x'; 9_999_990]);
    assert_eq!(client.response().text(), "0123456789");
    client.expect_end();
}
