//! Where a server listens, and what it knows of where its clients come from.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use meinheld_core::{Address, Config, Exchange, Listener, Request};
use support::{Client, serve, serve_on};

#[expect(clippy::needless_pass_by_value, reason = "it is a handler")]
fn tell_peer(request: Request, exchange: &mut Exchange) {
    exchange.respond(200, &[], request.peer.to_string().as_bytes()).unwrap();
}

#[test]
fn ipv4_and_ipv6_clients_are_known_by_their_address() {
    let listeners = ["127.0.0.1:0", "[::1]:0"];
    let listeners =
        listeners.map(|text| Listener::socket_address(text.parse().unwrap(), 16).unwrap());
    let server = serve_on(Config::default(), listeners.into(), tell_peer);
    for (address, host) in server.addresses.iter().zip(["127.0.0.1:", "[::1]:"]) {
        let Address::Ip(address) = address else { panic!("{address} is no TCP address") };
        let mut client = Client::tcp(*address);
        assert!(client.get("/").text().starts_with(host));
    }
}

#[test]
fn a_unix_socket_is_served_and_its_file_removed() {
    let folder = std::env::temp_dir().join(format!("meinheld-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("server.sock");
    let listener = Listener::unix(&path, 16).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o777, "a proxy of another user can connect");
    let server = serve_on(Config::default(), vec![listener], tell_peer);
    let mut client = Client::unix(&path);
    assert_eq!(client.get("/").text(), "a unix socket");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.expect_end();
    server.settle_empty();
    drop(server);
    assert!(!path.exists());
    std::fs::remove_dir(&folder).unwrap();
}

#[test]
fn an_inherited_descriptor_is_served() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::inherit(socket.as_raw_fd()).unwrap();
    // The listener has a descriptor of its own.
    drop(socket);
    assert_eq!(listener.address(), &Address::Ip(address));
    let server = serve_on(Config::default(), vec![listener], tell_peer);
    assert_eq!(server.connect().get("/").status, 200);
}

#[test]
fn a_connection_in_the_slot_of_another_has_its_own_address() {
    let server = serve(Config::default(), tell_peer);
    let mut seen = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect();
        seen.push(client.get("/").text().to_owned());
        drop(client);
        server.settle_empty();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20, "each client has a port of its own");
}
