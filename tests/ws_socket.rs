//! WebSockets on real connections: the handshake, turns of senders, pings, closing, stopping.

#![allow(clippy::unwrap_used)] // what fails here fails the test

#[path = "support/frames.rs"]
mod frames;
mod support;

use std::cell::RefCell;
use std::time::Duration;

use frames::{BINARY, CLOSE, FIN, PING, PONG, TEXT, close, frame};
use meinheld_core::ws::{Handshake, WebSocket, WebSocketConfig};
use meinheld_core::{Config, Exchange, Request, Stopped};
use support::{Client, Running, SHORT, serve};

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn accept(
    request: &Request,
    exchange: &mut Exchange,
    config: WebSocketConfig,
) -> Option<WebSocket> {
    match Handshake::of(&request.method, request.version, request.fields()) {
        Ok(Some(handshake)) => {
            let chosen = handshake.protocols().find(|name| *name == "chat");
            Some(exchange.accept_websocket(&handshake, chosen, config).unwrap())
        }
        Ok(None) => {
            exchange.respond(200, &[], b"plain").unwrap();
            None
        }
        Err(error) => {
            exchange.refuse_websocket(&error).unwrap();
            None
        }
    }
}

/// A server that runs `talk` on each WebSocket.
fn talking(config: WebSocketConfig, talk: impl Fn(&WebSocket) + Send + 'static) -> Running {
    serve(Config::default(), move |request, exchange| {
        if let Some(socket) = accept(&request, exchange, config.clone()) {
            talk(&socket);
            socket.finish(1000);
        }
    })
}

fn echo(socket: &WebSocket) {
    while let Some(message) = socket.receive(None).unwrap() {
        socket.send(&message, None).unwrap();
    }
}

fn connect(server: &Running) -> Client {
    let mut client = server.connect();
    client.send(format!("{ASK}\r\n"));
    let (status, head) = client.head();
    assert_eq!(status, 101, "{head}");
    assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    client
}

/// Receives the next frame: its first byte, and its payload.
fn next(client: &mut Client) -> (u8, Vec<u8>) {
    let mut wire = Vec::new();
    loop {
        if let Some((first, payload, _)) = frames::parse(&wire) {
            return (first, payload);
        }
        let wanted = match wire.as_slice() {
            [_, 126] => 2,
            [_, 127] => 8,
            [_, 126, a, b] => usize::from(u16::from_be_bytes([*a, *b])),
            [_, 127, length @ ..] if length.len() == 8 => {
                usize::try_from(u64::from_be_bytes(length.try_into().unwrap())).unwrap()
            }
            [_, length] => usize::from(*length),
            _ => 2,
        };
        wire.extend(client.bytes(wanted));
    }
}

#[test]
fn messages_that_came_with_the_handshake_and_after_it_are_echoed() {
    let server = talking(WebSocketConfig::default(), echo);
    let mut client = server.connect();
    client.send([format!("{ASK}\r\n").as_bytes(), &frame(FIN | TEXT, b"early")].concat());
    assert_eq!(client.head().0, 101);
    assert_eq!(next(&mut client), (FIN | TEXT, b"early".to_vec()));
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        client.send(frame(FIN | BINARY, &vec![b'x'; size]));
        assert!(next(&mut client) == (FIN | BINARY, vec![b'x'; size]), "{size} bytes");
    }
    client.send(frame(FIN | PING, b"there?"));
    assert_eq!(next(&mut client), (FIN | PONG, b"there?".to_vec()));
    client.send(close(1000, b"done"));
    assert_eq!(next(&mut client), (FIN | CLOSE, [&[3, 232][..], b"done"].concat()));
    client.expect_end();
    drop(client);
    server.settle_empty();
    assert!(server.reports.lock().unwrap().is_empty());
}

#[test]
fn a_subprotocol_is_agreed_on_and_a_refusal_leaves_http() {
    let server = talking(WebSocketConfig::default(), |socket| {
        socket.send_text(socket.subprotocol().unwrap_or("none"), None).unwrap();
    });
    let mut client = server.connect();
    client.send(format!("{ASK}Sec-WebSocket-Protocol: x, chat\r\n\r\n"));
    let (_, head) = client.head();
    assert!(head.contains("\r\nSec-WebSocket-Protocol: chat\r\n"), "{head}");
    assert_eq!(next(&mut client), (FIN | TEXT, b"chat".to_vec()));
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(format!("{}\r\n", ASK.replace(": 13", ": 8")));
        let refused = client.response();
        assert_eq!((refused.status, refused.header("Sec-WebSocket-Version")), (426, Some("13")));
        client.send(format!("{}\r\n", ASK.replace("dGhl", "")));
        assert_eq!(client.response().status, 400);
        assert_eq!(client.get("/").text(), "plain");
    }
}

#[test]
fn whole_messages_of_several_senders_are_told_apart() {
    let server = talking(WebSocketConfig::default(), |socket| {
        let senders: Vec<_> = (0..8_u8)
            .map(|number| {
                let socket = socket.clone();
                meinheld_coro::spawn(move || {
                    for _ in 0..4 {
                        socket.send_bytes(&vec![number; 700_000], None).unwrap();
                    }
                })
            })
            .collect();
        echo(socket);
        for sender in senders {
            sender.join().unwrap();
        }
    });
    let mut client = connect(&server);
    server.look();
    let mut counts = [0; 8];
    for _ in 0..32 {
        let (first, payload) = next(&mut client);
        assert_eq!((first, payload.len()), (FIN | BINARY, 700_000));
        assert!(payload.iter().all(|byte| *byte == payload[0]), "a message is whole");
        counts[usize::from(payload[0])] += 1;
    }
    assert_eq!(counts, [4; 8]);
}

#[test]
fn a_peer_that_does_not_read_ends_its_senders_and_nobody_else() {
    let config = WebSocketConfig { send_timeout: SHORT, ..WebSocketConfig::default() };
    let server = talking(config, |socket| {
        let Some(message) = socket.receive(None).unwrap() else { return };
        if message.bytes() == b"flood" {
            while socket.send_bytes(&vec![0; 100_000], None).is_ok() {}
            assert_eq!(socket.closure().unwrap().code, 1006);
        } else {
            socket.send(&message, None).unwrap();
        }
    });
    let mut stalled = connect(&server);
    stalled.send(frame(FIN | TEXT, b"flood"));
    let mut other = connect(&server);
    other.send(frame(FIN | TEXT, b"hello"));
    assert_eq!(next(&mut other), (FIN | TEXT, b"hello".to_vec()));
    drop(other);
    server.settle_empty();
    drop(stalled);
    assert!(server.reports.lock().unwrap().is_empty());
}

#[test]
fn a_peer_that_answers_pings_is_kept_and_a_silent_one_is_not() {
    let ping_interval = Some(Duration::from_millis(100));
    let config = WebSocketConfig { ping_interval, ..WebSocketConfig::default() };
    let server = talking(config, echo);
    let mut client = connect(&server);
    for _ in 0..3 {
        assert_eq!(next(&mut client), (FIN | PING, Vec::new()));
        client.send(frame(FIN | PONG, b""));
    }
    client.send(frame(FIN | TEXT, b"alive"));
    loop {
        match next(&mut client) {
            (first, _) if first == FIN | PING => client.send(frame(FIN | PONG, b"")),
            found => break assert_eq!(found, (FIN | TEXT, b"alive".to_vec())),
        }
    }
    assert_eq!(next(&mut client), (FIN | PING, Vec::new()));
    client.expect_end();
}

#[test]
fn a_close_of_ours_waits_for_the_peers_and_not_for_ever() {
    let config = WebSocketConfig { close_timeout: SHORT, ..WebSocketConfig::default() };
    let server = talking(config, |socket| {
        socket.close(4001, "enough").unwrap();
        socket.close(1000, "").unwrap();
        assert!(socket.is_closed() && socket.receive(None).unwrap().is_none());
        assert!(socket.send_text("x", None).is_err());
        assert!(socket.close(1005, "").is_err(), "it cannot be sent");
    });
    for answers in [true, false] {
        let mut client = connect(&server);
        let ours = (FIN | CLOSE, [&4001_u16.to_be_bytes()[..], b"enough"].concat());
        assert_eq!(next(&mut client), ours);
        if answers {
            client.send([frame(FIN | TEXT, b"late"), close(4001, b"")].concat());
        }
        client.expect_end();
    }
    server.settle_empty();
    assert!(server.reports.lock().unwrap().is_empty());
}

#[test]
fn a_stop_closes_with_1001() {
    let server = talking(WebSocketConfig::default(), echo);
    let mut clients: Vec<_> = (0..20).map(|_| connect(&server)).collect();
    server.handle.stop(None);
    for client in &mut clients {
        assert_eq!(next(client), (FIN | CLOSE, 1001_u16.to_be_bytes().to_vec()));
        client.send(close(1001, b""));
        client.expect_end();
    }
    drop(clients);
    assert_eq!(server.join(), Stopped::default());
}

#[test]
fn a_fault_is_told_and_ends_it() {
    let server = talking(WebSocketConfig::default(), |socket| {
        assert!(socket.receive(None).unwrap().is_none());
        assert_eq!(socket.closure().unwrap().code, 1002);
    });
    let mut client = connect(&server);
    client.send(frames::unmasked(FIN | TEXT, b"bare"));
    let (first, payload) = next(&mut client);
    assert_eq!((first, &payload[..2]), (FIN | CLOSE, &[3, 234][..]));
    client.expect_end();
    assert!(server.reports.lock().unwrap().is_empty());
}

#[test]
fn a_flood_of_messages_leaves_others_their_turn() {
    thread_local! {
        static SOCKETS: RefCell<usize> = const { RefCell::new(0) };
    }
    let server = talking(WebSocketConfig::default(), |socket| {
        SOCKETS.with_borrow_mut(|count| *count += 1);
        while let Some(message) = socket.receive(None).unwrap() {
            if message.bytes() == b"?" {
                socket.send(&message, None).unwrap();
            }
        }
    });
    let mut flooding = connect(&server);
    let mut asking = connect(&server);
    let flood = frame(FIN | TEXT, b"x").repeat(100_000);
    for _ in 0..20 {
        flooding.send(&flood);
        asking.send(frame(FIN | TEXT, b"?"));
        assert_eq!(next(&mut asking), (FIN | TEXT, b"?".to_vec()));
    }
}

#[test]
fn a_second_receiver_is_a_mistake_and_a_wait_may_time_out() {
    let server = talking(WebSocketConfig::default(), |socket| {
        let first = socket.clone();
        let waiting = meinheld_coro::spawn(move || first.receive(Some(SHORT)).unwrap_err().kind());
        meinheld_coro::yield_now().unwrap();
        let busy = socket.receive(None).unwrap_err().kind();
        let found = format!("{busy} {}", waiting.join().unwrap());
        socket.send_text(&found, None).unwrap();
    });
    let mut client = connect(&server);
    assert_eq!(next(&mut client).1, b"resource busy timed out");
}
