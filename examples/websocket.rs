//! A WebSocket that sends back what it hears: `cargo run --release --example websocket`, then in a
//! browser's console `s = new WebSocket("ws://127.0.0.1:8000"); s.onmessage = e => console.log(e.data)`
//! and `s.send("hello")`.

use std::io;

use meinheld_core::ws::{Handshake, WebSocket, WebSocketConfig};
use meinheld_core::{Config, Exchange, Listener, Request, Server, handler};

/// The code of a close that says that all is well, RFC 6455 section 7.4.1.
const NORMAL: u16 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = handler(|request, exchange| {
        // If the client has gone meanwhile there is nobody to tell.
        let _ = answer(&request, exchange);
    });
    let server = Server::new(Config::default(), service)?;
    let bind = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    server.listen(Listener::socket_address(bind.parse()?, 2048)?);
    server.stop_on_termination()?;
    for address in server.addresses() {
        println!("Serving {} (Ctrl-C ends it)", address.url());
    }
    server.run()?;
    Ok(())
}

fn answer(request: &Request, exchange: &mut Exchange) -> io::Result<()> {
    match Handshake::of(&request.method, request.version, request.fields()) {
        Ok(Some(handshake)) => {
            let socket = exchange.accept_websocket(&handshake, None, WebSocketConfig::default())?;
            let echoed = echo(&socket);
            socket.finish(NORMAL);
            echoed
        }
        Ok(None) => exchange.respond(200, &[], b"This speaks WebSocket.\n"),
        Err(error) => exchange.refuse_websocket(&error),
    }
}

/// Waits for each message, and for the client to take it back.
fn echo(socket: &WebSocket) -> io::Result<()> {
    while let Some(message) = socket.receive(None)? {
        socket.send(&message, None)?;
    }
    Ok(())
}
