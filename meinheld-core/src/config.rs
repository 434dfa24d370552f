//! What a server can be told: limits in bytes and counts, time-outs, sizes.

use std::time::Duration;

use crate::http::{BodyLimits, HeadLimits};

/// The settings of a server. Every limit has the status that answers what is over it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits on request heads (414, 431).
    pub head: HeadLimits,
    /// Limits on request bodies (400, 413).
    pub body: BodyLimits,
    /// Whether a body may come in chunks, its length unknown until its end (411 if not).
    pub chunked_bodies: ChunkedBodies,
    /// A body of at most this many bytes is collected before the request begins, so that a slow
    /// sender holds no coroutine; default 64 KiB.
    pub inline_body_bytes_max: u64,
    /// A collected body of more bytes than this waits in a temporary file; default 512 KiB.
    pub body_memory_bytes_max: usize,
    /// From the first byte of a head to its last (408); default 30 s.
    pub head_timeout: Duration,
    /// Between two pieces of a request body (408); default 30 s.
    pub body_timeout: Duration,
    /// Between two pieces of a response that the client takes; default 30 s.
    pub send_timeout: Duration,
    /// How long an idle connection is kept for its next request; default 5 s. Zero closes each
    /// connection after one response.
    pub keep_alive_timeout: Duration,
    /// How long a connection that is closing waits for the client to take the last response, while
    /// what it still sends is read and dropped; default 2 s.
    pub linger_timeout: Duration,
    /// How many connections may be open at once; more wait in the listener's queue. Default: what
    /// the descriptor limit allows.
    pub connections_max: usize,
    /// The queue of connections that are not accepted yet; default 2,048.
    pub backlog: i32,
    /// How many connections are accepted in a row before the others have their turn; default 64. With
    /// several processes on one listener fewer leave more for those that are idle.
    pub accepts_max: usize,
    /// How long a graceful stop waits on idle connections, whose next request may be on its way;
    /// default zero, which closes them at once.
    pub stop_idle_timeout: Duration,
    /// The stack of each request, in bytes; default 256 KiB.
    pub stack_bytes: usize,
    /// The name of that setting to whoever runs the server, for the line that tells of a stack overflow.
    pub stack_setting: &'static str,
    /// How many requests may run or be suspended at once (503 beyond); default 131,072.
    pub coroutines_max: usize,
}

/// What becomes of a request whose body comes in chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkedBodies {
    /// The body is collected, so that its length is known when the request begins.
    #[default]
    Collected,
    /// It is refused with 411 (RFC 9110 section 15.5.12): every body must announce its length.
    Refused,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            head: HeadLimits::default(),
            body: BodyLimits::default(),
            chunked_bodies: ChunkedBodies::default(),
            inline_body_bytes_max: 64 * 1024,
            body_memory_bytes_max: 512 * 1024,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(5),
            linger_timeout: Duration::from_secs(2),
            connections_max: usize::MAX,
            backlog: 2048,
            accepts_max: 64,
            stop_idle_timeout: Duration::ZERO,
            stack_bytes: 256 * 1024,
            stack_setting: "Config::stack_bytes",
            coroutines_max: 131_072,
        }
    }
}
