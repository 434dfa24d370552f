//! Handlers that suspend and resume each other: whoever calls waits until a second one calls.
//!
//! `cargo run --release --example rendezvous`, then in two terminals
//! `curl -d Ann http://127.0.0.1:8000/` and `curl -d Bob http://127.0.0.1:8000/`: each is answered
//! with the other's name. The first waits in its coroutine; the server serves everyone else.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::Duration;

use meinheld_core::{Config, Exchange, Listener, Request, Server, handler};
use meinheld_coro::{Continuation, Interrupt};

/// How long a caller waits for another one.
const PATIENCE: Duration = Duration::from_secs(60);

/// The names are short.
const NAME_BYTES_MAX: u64 = 100;

/// Who waits, with the name that is for the other.
type Waiting = Rc<RefCell<Option<(Continuation<String>, String)>>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let waiting = Waiting::default();
    let meet = handler(move |_: Request, exchange: &mut Exchange| {
        // If the client has gone meanwhile there is nobody to tell.
        let _ = answer(&waiting, exchange);
    });
    let server = Server::new(Config::default(), meet)?;
    let bind = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    server.listen(Listener::socket_address(bind.parse()?, 2048)?);
    server.stop_on_termination()?;
    for address in server.addresses() {
        println!("Serving {} (Ctrl-C ends it)", address.url());
    }
    server.run()?;
    Ok(())
}

fn answer(waiting: &Waiting, exchange: &mut Exchange) -> io::Result<()> {
    let mut name = String::new();
    exchange.take(NAME_BYTES_MAX).read_to_string(&mut name)?;
    let text = [("Content-Type", "text/plain; charset=utf-8")];
    match meet(waiting, exchange, name) {
        Ok(other) => exchange.respond(200, &text, format!("You met {other}.\n").as_bytes()),
        Err(Interrupt::TimedOut) => exchange.respond(200, &text, b"Nobody came.\n"),
        Err(interrupt) => Err(io::Error::other(interrupt)),
    }
}

/// Passes the name to whoever waits, or waits for the next one.
fn meet(waiting: &Waiting, exchange: &Exchange, name: String) -> Result<String, Interrupt> {
    let first = waiting.borrow_mut().take();
    if let Some((first, other)) = first
        && first.resume(name.clone()).is_ok()
    {
        return Ok(other);
    }
    let here = Continuation::current().expect("a handler runs in a task");
    *waiting.borrow_mut() = Some((here.clone(), name));
    let client = exchange.client();
    let met = here.suspend_watched(Some(PATIENCE), |ticket| client.watch(ticket));
    client.unwatch();
    if met.is_err() {
        // Nobody came, or the client has gone: nobody is to meet it any more.
        waiting.borrow_mut().take_if(|(waiting, _)| waiting.task() == here.task());
    }
    met
}
