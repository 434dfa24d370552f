//! More than there is room for: descriptors, connections, coroutines.

mod support;

use std::net::TcpStream;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use meinheld_core::Config;
use support::{Child, Client, PATIENCE, Reports, continuation, echo, serve, serve_parent, turns};

/// Connections that fill the queue of a server that cannot accept any more.
const CROWD: usize = 60;

fn run_with_few_descriptors() -> Child {
    Child::run(&["sh", "-c", "ulimit -n 40; exec \"$@\"", "sh"], "child_with_few_descriptors")
}

#[test]
fn a_server_without_descriptors_serves_whom_it_has_and_goes_on_later() {
    let server = run_with_few_descriptors();
    let mut established = Client::tcp(server.address);
    assert_eq!(established.get("/").status, 200);
    let crowd: Vec<_> = (0..CROWD).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    for _ in 0..100 {
        assert_eq!(established.get("/").status, 200, "whoever is in is served");
    }
    // It cannot accept and is told so again and again, but does not spin: a pause is 50 ms.
    let turns = established.get("/turns-in-a-second").text().parse::<u64>().unwrap();
    assert!(turns < 200, "{turns} turns in a second of nothing to do");
    let mut next = Client::tcp(server.address);
    next.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(crowd);
    assert_eq!(next.response().status, 200, "it goes on when there are descriptors again");
    assert_eq!(established.get("/").status, 200);
    let reports = established.get("/reports").text().parse::<usize>().unwrap();
    assert!((1..20).contains(&reports), "{reports} reports, of one a second at the most");
    server.end();
}

#[test]
fn connections_that_idle_make_room_for_others() {
    let server = run_with_few_descriptors();
    let mut crowd: Vec<_> = (0..CROWD / 4).map(|_| Client::tcp(server.address)).collect();
    for client in &mut crowd {
        assert_eq!(client.get("/").status, 200);
    }
    let silent: Vec<_> = (0..CROWD).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let mut newcomer = Client::tcp(server.address);
    assert_eq!(newcomer.get("/").status, 200);
    drop(silent);
    server.end();
}

#[test]
fn clients_are_turned_away_if_no_descriptor_comes_free() {
    let server = run_with_few_descriptors();
    let mut busy: Vec<_> = (0..CROWD).map(|_| Client::tcp(server.address)).collect();
    for client in &mut busy {
        client.send("GET /busy HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let mut newcomer = Client::tcp(server.address);
    newcomer.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(newcomer.response().status, 503);
    newcomer.expect_end();
    drop(busy);
    // The busy ones do not watch their clients; the server ends them with itself.
    server.end();
}

#[test]
#[ignore = "run by the tests above in a child process"]
fn child_with_few_descriptors() {
    let reports = Arc::new(OnceLock::<Reports>::new());
    let told = Arc::clone(&reports);
    let server = serve(Config::default(), move |request, exchange| {
        let count = match request.path.as_slice() {
            b"/turns-in-a-second" => {
                let before = turns();
                meinheld_coro::sleep(Duration::from_secs(1)).unwrap();
                turns() - before
            }
            b"/busy" => {
                // Until the server ends it.
                let _ = meinheld_coro::sleep(PATIENCE);
                0
            }
            b"/reports" => told.get().unwrap().lock().unwrap().len() as u64,
            _ => 0,
        };
        let _ = exchange.respond(200, &[], count.to_string().as_bytes());
    });
    reports.set(Arc::clone(&server.reports)).unwrap();
    serve_parent(server);
}

#[test]
fn connections_over_the_limit_wait_until_one_goes() {
    let server = serve(Config { connections_max: 2, ..Config::default() }, echo);
    let mut first = server.connect();
    let mut second = server.connect();
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let mut third = server.connect();
    third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(first.get("/").status, 200);
        assert_eq!(server.look().connections, 2);
    }
    drop(second);
    assert_eq!(third.response().status, 200);
}

#[test]
fn requests_over_the_limit_are_answered_503() {
    let (begun, continuations) = mpsc::channel();
    let server = serve(Config { coroutines_max: 2, ..Config::default() }, move |_, exchange| {
        let here = continuation();
        begun.send(here.clone()).unwrap();
        here.suspend(None).unwrap();
        exchange.respond(200, &[], b"x").unwrap();
    });
    let mut clients = [server.connect(), server.connect()];
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let suspended = [(); 2].map(|()| continuations.recv_timeout(PATIENCE).unwrap());
    let mut over = server.connect();
    assert_eq!(over.get("/").status, 503);
    over.expect_end();
    for continuation in &suspended {
        continuation.resume(()).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    let mut later = server.connect();
    later.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    continuations.recv_timeout(PATIENCE).unwrap().resume(()).unwrap();
    assert_eq!(later.response().status, 200, "there is room again");
}

#[test]
fn a_thousand_connections_come_and_go() {
    let server = serve(Config::default(), echo);
    for _ in 0..5 {
        let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 200);
        }
        drop(clients);
        server.settle_empty();
    }
}

#[test]
fn half_open_connections_do_not_spin_the_loop() {
    let (begun, continuations) = mpsc::channel();
    let server = serve(Config::default(), move |_, exchange| {
        let here = continuation();
        begun.send(here.clone()).unwrap();
        // It does not ask whether its client is there.
        here.suspend(None).unwrap();
        exchange.respond(200, &[], b"x").unwrap();
    });
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.end_output();
    }
    let suspended: Vec<_> =
        (0..10).map(|_| continuations.recv_timeout(PATIENCE).unwrap()).collect();
    let before = server.look().turns;
    for _ in 0..50 {
        server.look();
    }
    // A spinning loop would have turned many times for each of these looks.
    let turns = server.look().turns - before;
    assert!(turns < 150, "{turns} turns for 51 reasons");
    for continuation in &suspended {
        continuation.resume(()).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
        client.expect_end();
    }
    drop(clients);
    server.settle_empty();
}
