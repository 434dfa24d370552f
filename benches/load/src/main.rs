//! The load generator of the comparison: one thread, a closed loop, every byte of every response
//! compared with what it must be.
//!
//! It is told what to send and what to expect by files, and prints one line of JSON. Not here: which
//! servers there are and what is asked of them (see `benches/compare`).

mod connection;
mod options;
mod parked;
mod reply;
mod request;
mod steady;
mod tally;

use std::process::ExitCode;

use options::{Mode, Options};

fn main() -> ExitCode {
    let outcome = Options::parse(std::env::args().skip(1)).and_then(|options| {
        let ran = match options.mode {
            Mode::Steady => steady::run(&options).map(|line| println!("{line}")),
            Mode::Parked => parked::run(&options),
        };
        ran.map_err(|error| format!("the load could not be run: {error}"))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("meinheld-load: {message}");
            ExitCode::from(2)
        }
    }
}
