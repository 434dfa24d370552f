//! Two tasks pass a ball: each waits on a continuation of its own and resumes the other's.
//!
//! ```text
//! cargo run --release --example pingpong [rounds]
//! ```

use std::error::Error;
use std::time::Instant;

use meinheld_coro::{Config, Continuation, Interrupt, Scheduler, spawn};

/// What is passed: how often it has been hit.
type Ball = u64;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(1_000_000), |rounds| rounds.parse());
    let rounds = rounds.map_err(|_| "the argument is the number of rounds")?;
    let began = Instant::now();
    let hits = Scheduler::new(Config::default()).block_on(move || ping(rounds))??;
    // Each hit is a switch from its player to the scheduler, and one from there to the other.
    let nanoseconds = began.elapsed().as_nanos() / u128::from(2 * hits.max(1));
    println!("{rounds} rounds, {hits} hits, {nanoseconds} ns per switch");
    Ok(())
}

/// Meets the other player, serves, and returns the ball until the last round is over.
fn ping(rounds: u64) -> Result<Ball, Interrupt> {
    let (catch, meet) = (here(), here());
    let (back, introduce) = (catch.clone(), meet.clone());
    spawn(move || pong(rounds, &back, &introduce));
    let opponent: Continuation<Ball> = meet.suspend(None)?;
    let mut ball = 0;
    for _ in 0..rounds {
        opponent.resume(ball + 1).expect("pong waits for it");
        ball = catch.suspend(None)?;
    }
    Ok(ball)
}

/// Tells the other player where to send the ball, and returns it each time.
fn pong(
    rounds: u64,
    opponent: &Continuation<Ball>,
    introduce: &Continuation<Continuation<Ball>>,
) -> Result<(), Interrupt> {
    let catch = here();
    introduce.resume(catch.clone()).expect("ping waits for it");
    for _ in 0..rounds {
        let ball = catch.suspend(None)?;
        opponent.resume(ball + 1).expect("ping waits for it");
    }
    Ok(())
}

fn here<T>() -> Continuation<T> {
    Continuation::current().expect("a player is a task")
}
