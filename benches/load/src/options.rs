//! The command line: pairs of a flag and its value.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is done with the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each connection asks again and again.
    Steady,
    /// Each connection asks once and waits; one more request wakes them all.
    Parked,
}

/// Whether a connection is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    KeepAlive,
    OneRequest,
}

/// What the generator was told.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// How many requests are sent at once on a connection.
    pub(crate) pipeline: usize,
    pub(crate) reuse: Reuse,
    /// The end of a steady load, and the patience of a parked one.
    pub(crate) time: Duration,
    /// How many requests a steady load sends at the most.
    pub(crate) requests: u64,
    /// How many may be without an answer when a steady load ends: those that wait for a partner.
    pub(crate) stragglers: usize,
    /// A whole request; see request.rs for what is replaced in it.
    pub(crate) request: Vec<u8>,
    /// The body that answers it; the same is replaced.
    pub(crate) body: Vec<u8>,
    /// The request that wakes the parked ones.
    pub(crate) wake: Vec<u8>,
}

impl Options {
    /// Reads `steady` or `parked`, and the flags.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Options, String> {
        let mut words = words.into_iter();
        let mode = match words.next().as_deref() {
            Some("steady") => Mode::Steady,
            Some("parked") => Mode::Parked,
            _ => return Err("say steady or parked, and then flags".to_owned()),
        };
        let mut options = Options::of(mode);
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
            options.set(&flag, &value)?;
        }
        if options.address.port() == 0 || options.request.is_empty() {
            return Err("--address and --request are needed".to_owned());
        }
        Ok(options)
    }

    fn of(mode: Mode) -> Options {
        Options {
            mode,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            connections: 1,
            pipeline: 1,
            reuse: Reuse::KeepAlive,
            time: Duration::from_secs(10),
            requests: u64::MAX,
            stragglers: 0,
            request: Vec::new(),
            body: Vec::new(),
            wake: Vec::new(),
        }
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), String> {
        let unusable = || format!("{flag} cannot be {value:?}");
        match flag {
            "--address" => {
                self.address = value.parse().map_err(|_| unusable())?;
                if !self.address.ip().is_loopback() {
                    return Err(format!("{value} is not on this machine: load goes to it alone"));
                }
            }
            "--connections" => self.connections = value.parse().map_err(|_| unusable())?,
            "--pipeline" => self.pipeline = value.parse().map_err(|_| unusable())?,
            "--requests" => self.requests = value.parse().map_err(|_| unusable())?,
            "--stragglers" => self.stragglers = value.parse().map_err(|_| unusable())?,
            "--seconds" => {
                let seconds = value.parse().map_err(|_| unusable())?;
                self.time = Duration::try_from_secs_f64(seconds).map_err(|_| unusable())?;
            }
            "--reuse" => {
                self.reuse = match value {
                    "keep-alive" => Reuse::KeepAlive,
                    "one-request" => Reuse::OneRequest,
                    _ => return Err(unusable()),
                }
            }
            "--request" => self.request = contents(value)?,
            "--body" => self.body = contents(value)?,
            "--wake" => self.wake = contents(value)?,
            _ => return Err(format!("there is no flag {flag}")),
        }
        Ok(())
    }
}

fn contents(path: &str) -> Result<Vec<u8>, String> {
    let path: PathBuf = Path::new(path).into();
    std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
