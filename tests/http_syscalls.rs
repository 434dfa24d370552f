//! What a request costs in system calls, counted by strace(1) on a server of its own.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use meinheld_core::Config;
use support::{Child, Client, echo, serve, serve_parent};

const REQUESTS: usize = 200;

/// The calls of the server's thread between the requests for `/begin` and `/end`, and how often.
fn count(scenario: impl FnOnce(&Child)) -> BTreeMap<String, usize> {
    let log = Log::new();
    let name = log.path.to_str().unwrap();
    let server = Child::run(&["strace", "-f", "-qq", "-o", name], "child_to_be_counted");
    let mut marker = Client::tcp(server.address);
    marker.get("/begin");
    scenario(&server);
    marker.get("/end");
    server.end();
    let text = fs::read_to_string(&log.path).unwrap();
    let mut lines = text.lines().skip_while(|line| !line.contains("GET /begin"));
    let thread = lines.next().expect("the marker is in the log").split(' ').next().unwrap();
    let window = lines.take_while(|line| !line.contains("GET /end"));
    let mut counts = BTreeMap::new();
    for line in window.filter(|line| line.split(' ').next() == Some(thread)) {
        let call = line[thread.len()..].trim_start().split('(').next().unwrap();
        if !call.starts_with("<...") {
            *counts.entry(call.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// A file that is removed again.
struct Log {
    path: PathBuf,
}

impl Log {
    fn new() -> Log {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("meinheld-strace-{}-{number}", std::process::id());
        Log { path: std::env::temp_dir().join(name) }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Asserts how often each call was made; `few` more are for the marker requests and the accept.
fn assert_counts(counts: &BTreeMap<String, usize>, expected: &[(&str, usize)]) {
    let few = 8;
    for (call, count) in counts {
        let most = expected.iter().find(|(known, _)| known == call).map_or(0, |(_, most)| *most);
        assert!(*count <= most + few, "{count} {call} where {most} are expected: {counts:?}");
    }
}

#[test]
fn a_request_on_a_kept_connection_is_one_receive_and_one_send() {
    let counts = count(|server| {
        let mut client = Client::tcp(server.address);
        for _ in 0..REQUESTS {
            client.get("/");
        }
    });
    // Each request of a single client wakes the loop: one look, and one wait that blocks.
    let waits = 2 * REQUESTS;
    assert_counts(&counts, &[("recvfrom", REQUESTS), ("sendto", REQUESTS), ("epoll_wait", waits)]);
    assert!(counts["recvfrom"] >= REQUESTS && counts["sendto"] >= REQUESTS, "{counts:?}");
}

#[test]
fn requests_that_come_together_share_a_wait() {
    const CLIENTS: usize = 50;
    let counts = count(|server| {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::tcp(server.address)).collect();
        for _ in 0..10 {
            for client in &mut clients {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            for client in &mut clients {
                client.response();
            }
        }
    });
    let requests = 10 * CLIENTS;
    let watched = counts["epoll_ctl"];
    assert!((CLIENTS..=CLIENTS + 1).contains(&watched), "one a connection: {counts:?}");
    assert!(counts["recvfrom"] <= requests + CLIENTS + 8, "{counts:?}");
    assert!(counts["sendto"] <= requests + 8, "{counts:?}");
}

#[test]
fn pipelined_requests_are_answered_in_one_send() {
    const BATCH: usize = 16;
    let counts = count(|server| {
        let mut client = Client::tcp(server.address);
        for _ in 0..REQUESTS {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(BATCH));
            for _ in 0..BATCH {
                client.response();
            }
        }
    });
    let waits = 2 * REQUESTS;
    // The sixteenth is where the connection makes room for others, and is looked at once more.
    let receives = 2 * REQUESTS;
    assert_counts(&counts, &[("recvfrom", receives), ("sendto", REQUESTS), ("epoll_wait", waits)]);
    assert!(counts["sendto"] >= REQUESTS, "{counts:?}");
}

#[test]
fn a_connection_for_one_request_is_never_watched() {
    let counts = count(|server| {
        for _ in 0..REQUESTS {
            let mut client = Client::tcp(server.address);
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            client.response();
            client.expect_end();
        }
    });
    // It is handed over with its request: there is nothing to wait for, and to be told of.
    let [once, twice] = [REQUESTS, 2 * REQUESTS];
    assert_counts(
        &counts,
        &[
            ("accept4", twice),
            ("setsockopt", 0),
            ("recvfrom", once),
            ("sendto", once),
            ("close", once),
            // The standard library's own check of a descriptor, in debug builds.
            ("fcntl", once),
            ("epoll_ctl", 0),
            ("epoll_wait", 2 * REQUESTS),
            // Where an answer has taken long, as any may under strace: for what has come meanwhile.
            ("poll", once),
        ],
    );
}

#[test]
#[ignore = "run by the others in a child process"]
fn child_to_be_counted() {
    serve_parent(serve(Config::default(), echo));
}
