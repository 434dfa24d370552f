//! A request whose client keeps up, and which so never has to wait, stops nobody else.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use meinheld_core::{Config, Exchange};
use support::{Running, serve, wait_until};

const PIECES_MAX: usize = 400;
const PIECE_BYTES: usize = 4096;

/// What the server's thread and the test tell each other.
#[derive(Default)]
struct Progress {
    begun: AtomicBool,
    neighbour_served: AtomicBool,
}

impl Progress {
    /// Whether the busy request is to go on: it does until somebody else has been served, or for so
    /// long that nobody will be. It computes before each piece.
    fn goes_on(&self, pieces: usize) -> bool {
        // An upload is under way by now, and its client ahead.
        self.begun.store(pieces > 10, Ordering::SeqCst);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(3) {
            std::hint::spin_loop();
        }
        !self.neighbour_served.load(Ordering::SeqCst)
    }

    fn wait_begun(&self) {
        wait_until("the busy request is under way", || self.begun.load(Ordering::SeqCst));
    }
}

/// Serves `busy` at any path but `/`, which notes that it was served.
fn serve_busy(busy: fn(&Progress, &mut Exchange)) -> (Running, Arc<Progress>) {
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let config = Config { inline_body_bytes_max: 4, ..Config::default() };
    let server = serve(config, move |request, exchange| {
        if request.path != b"/" {
            return busy(&seen, exchange);
        }
        exchange.respond(200, &[], b"served").unwrap();
        seen.neighbour_served.store(true, Ordering::SeqCst);
    });
    (server, progress)
}

fn content(at: usize) -> u8 {
    u8::try_from(at % 251).unwrap()
}

#[test]
fn an_upload_that_keeps_up_stops_nobody() {
    let (server, progress) = serve_busy(|progress, exchange| {
        let mut read = 0;
        let mut piece = [0; PIECE_BYTES];
        while progress.goes_on(read / PIECE_BYTES) {
            let count = exchange.read_body(&mut piece).unwrap();
            if count == 0 {
                return exchange.respond(200, &[], b"nobody else was served").unwrap();
            }
            assert!(
                piece[..count].iter().enumerate().all(|(at, byte)| *byte == content(read + at))
            );
            read += count;
        }
        loop {
            let count = exchange.read_body(&mut piece).unwrap();
            if count == 0 {
                return exchange.respond(200, &[], read.to_string().as_bytes()).unwrap();
            }
            read += count;
        }
    });
    let bytes = PIECES_MAX * PIECE_BYTES;
    let body: Vec<u8> = (0..bytes).map(content).collect();
    let mut uploader = server.connect();
    let upload = thread::spawn(move || {
        uploader.send(format!("POST /busy HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n"));
        uploader.send(body);
        uploader.response().text().to_owned()
    });
    progress.wait_begun();
    assert_eq!(server.connect().get("/").text(), "served");
    assert_eq!(upload.join().unwrap(), bytes.to_string());
}

#[test]
fn a_slow_generator_stops_nobody() {
    let (server, progress) = serve_busy(|progress, exchange| {
        exchange.begin(200, b"OK", []).unwrap();
        for number in 0..PIECES_MAX {
            if !progress.goes_on(number) {
                return exchange.write(b"served").unwrap();
            }
            exchange.write_soon(format!("{number}\n").as_bytes()).unwrap();
        }
    });
    let mut reader = server.connect();
    reader.send("GET /busy HTTP/1.1\r\nHost: a\r\n\r\n");
    progress.wait_begun();
    assert_eq!(server.connect().get("/").text(), "served");
    let response = reader.response();
    let pieces: Vec<&str> = response.text().lines().collect();
    let (last, numbers) = pieces.split_last().unwrap();
    assert_eq!(*last, "served", "the neighbour was served before the response had ended");
    assert!(numbers.iter().enumerate().all(|(at, number)| *number == at.to_string()));
}
