//! Suspended requests: resumed from anywhere, and told as soon as their client goes.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::cell::RefCell;
use std::sync::mpsc;

use meinheld_core::{Client as Peer, Config, Exchange, Request};
use meinheld_coro::{Continuation, Interrupt};
use support::{PATIENCE, Running, continuation, echo, serve, suspend};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server whose requests suspend; each gives its continuation, and then how it ended.
fn suspending() -> (Running, mpsc::Receiver<Continuation<()>>, mpsc::Receiver<String>) {
    let (begun, continuations) = mpsc::channel();
    let (ended, endings) = mpsc::channel();
    let server = serve(Config::default(), move |request, exchange| {
        if request.path == b"/begun" {
            exchange.begin(200, b"OK", []).unwrap();
            exchange.write(b"first").unwrap();
        }
        let here = continuation();
        begun.send(here.clone()).unwrap();
        let ending = suspend(exchange, &here);
        ended.send(format!("{ending:?} {}", exchange.client().is_connected())).unwrap();
        if ending.is_ok() {
            exchange.respond(200, &[], b"resumed").unwrap();
        }
    });
    (server, continuations, endings)
}

#[test]
fn another_thread_resumes_a_request() {
    let (server, continuations, endings) = suspending();
    let mut client = server.connect();
    for _ in 0..100 {
        client.send(GET);
        // This thread may come before the suspend, which must not be lost either.
        continuations.recv_timeout(PATIENCE).unwrap().resume(()).unwrap();
        assert_eq!(client.response().text(), "resumed");
        assert_eq!(endings.recv_timeout(PATIENCE).unwrap(), "Ok(()) true");
    }
}

#[test]
fn the_end_of_a_client_interrupts_its_request_and_leaves_nothing() {
    let (server, continuations, endings) = suspending();
    for served_before in [false, true] {
        for _ in 0..20 {
            let mut client = server.connect();
            if served_before {
                client.send(GET);
                continuations.recv_timeout(PATIENCE).unwrap().resume(()).unwrap();
                client.response();
                endings.recv_timeout(PATIENCE).unwrap();
            }
            client.send(GET);
            continuations.recv_timeout(PATIENCE).unwrap();
            drop(client);
            assert_eq!(endings.recv_timeout(PATIENCE).unwrap(), "Err(Interrupted) false");
        }
    }
    server.settle_empty();
}

#[test]
fn a_client_that_only_ends_its_side_counts_as_gone_to_a_suspended_request() {
    let (server, continuations, endings) = suspending();
    let mut client = server.connect();
    client.send(GET);
    continuations.recv_timeout(PATIENCE).unwrap();
    client.end_output();
    assert_eq!(endings.recv_timeout(PATIENCE).unwrap(), "Err(Interrupted) false");
    assert_eq!(client.response().status, 500, "the handler has said nothing");
    server.settle_empty();
}

#[test]
fn a_client_that_has_gone_before_the_suspension_interrupts_it() {
    let (server, _continuations, endings) = suspending();
    for _ in 0..20 {
        let mut client = server.connect();
        client.send(GET);
        drop(client);
        assert_eq!(endings.recv_timeout(PATIENCE).unwrap(), "Err(Interrupted) false");
    }
    server.settle_empty();
}

#[test]
fn a_reset_interrupts_a_request() {
    let (server, continuations, endings) = suspending();
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("GET /begun HTTP/1.1\r\nHost: a\r\n\r\n");
        continuations.recv_timeout(PATIENCE).unwrap();
        // Closing a socket with unread input resets the connection.
        client.bytes(1);
        drop(client);
        assert_eq!(endings.recv_timeout(PATIENCE).unwrap(), "Err(Interrupted) false");
    }
    server.settle_empty();
}

#[test]
fn a_client_that_sends_ahead_has_not_gone() {
    let (server, continuations, endings) = suspending();
    let mut client = server.connect();
    client.send(GET);
    let first = continuations.recv_timeout(PATIENCE).unwrap();
    client.send(GET);
    server.look();
    first.resume(()).unwrap();
    assert_eq!(client.response().text(), "resumed");
    continuations.recv_timeout(PATIENCE).unwrap().resume(()).unwrap();
    assert_eq!(client.response().text(), "resumed");
    assert_eq!(endings.try_iter().collect::<Vec<_>>(), ["Ok(()) true"; 2]);
}

#[test]
fn many_aborted_requests_leave_nothing() {
    let (server, _continuations, endings) = suspending();
    for _ in 0..20 {
        let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(GET);
        }
        server.settle(|now| now.tasks == 100);
        drop(clients);
        for _ in 0..100 {
            endings.recv_timeout(PATIENCE).unwrap();
        }
        server.settle_empty();
    }
}

#[test]
fn a_handle_of_an_earlier_request_reaches_no_later_one() {
    thread_local! {
        static KEPT: RefCell<Option<Peer>> = const { RefCell::new(None) };
    }
    let server = serve(Config::default(), |request: Request, exchange: &mut Exchange| {
        if request.path == b"/keep" {
            KEPT.set(Some(exchange.client().clone()));
            return echo(request, exchange);
        }
        let kept = KEPT.take().unwrap();
        let gone = (kept.is_connected(), kept.fd().is_some(), kept.peer().is_some());
        // A wait on the earlier request's client ends at once; it is not this one's.
        let here = continuation();
        let watched = here.suspend_watched(None, |ticket| kept.watch(ticket));
        let interrupted = matches!(watched, Err(Interrupt::Interrupted));
        exchange.respond(200, &[], format!("{gone:?} {interrupted}").as_bytes()).unwrap();
    });
    let mut client = server.connect();
    client.get("/keep");
    assert_eq!(client.get("/").text(), "(false, false, false) true");
}

#[test]
fn a_request_can_send_while_another_task_watches_its_client() {
    let (tell, told) = mpsc::channel();
    let server = serve(Config::default(), move |_, exchange| {
        let (client, tell) = (exchange.client().clone(), tell.clone());
        meinheld_coro::spawn(move || {
            let watched = continuation().suspend_watched(None, |ticket| client.watch(ticket));
            tell.send(watched.is_err()).unwrap();
        });
        exchange.begin(200, b"OK", []).unwrap();
        for _ in 0..20 {
            exchange.write(&vec![b'x'; 1_000_000]).unwrap();
        }
        exchange.end().unwrap();
    });
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(GET);
        assert_eq!(client.response().body.len(), 20_000_000);
        assert!(told.recv_timeout(PATIENCE).unwrap(), "at the request's end its client has gone");
    }
    drop(client);
    server.settle_empty();
}
