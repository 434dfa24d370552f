//! The smallest server: `cargo run --release --example hello`, then `curl http://127.0.0.1:8000/`.

use meinheld_core::{Config, Listener, Server, handler};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hello = handler(|request, exchange| {
        let text = format!("Hello, {}!\n", request.peer);
        // If the client has gone meanwhile there is nobody to tell.
        let _ = exchange.respond(200, &[("Content-Type", "text/plain")], text.as_bytes());
    });
    let server = Server::new(Config::default(), hello)?;
    let bind = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    server.listen(Listener::socket_address(bind.parse()?, 2048)?);
    server.stop_on_termination()?;
    for address in server.addresses() {
        println!("Serving {} (Ctrl-C ends it)", address.url());
    }
    server.run()?;
    Ok(())
}
