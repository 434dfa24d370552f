//! What the peers of a server do, step by step, written among the very bytes that they send.
//!
//! The first byte is a digit of settings. After it everything is sent, on connection 1, but for
//!
//! ```text
//!   \|        nothing until the server has nothing left to do: here the bytes are cut
//!   \1 \2 \3  what follows is of this connection, which is opened if need be
//!   \h \c     half-close; close, with whatever is unread
//!   \p \g     stop reading; go on reading
//!   \r        resume the request that has been suspended the longest
//!   \\        a backslash
//! ```

/// How many connections a script may have.
pub(crate) const CONNECTIONS_MAX: usize = 3;

/// One thing that happens while the server has nothing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send { connection: usize, bytes: Vec<u8> },
    HalfClose { connection: usize },
    Close { connection: usize },
    StopReading { connection: usize },
    GoOnReading { connection: usize },
    Resume,
}

/// Who ends a connection at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The peers, by ending their side; no time-out passes.
    Peer,
    /// The server, by its time-outs, which are a millisecond; the peers wait for it.
    Server,
}

/// A whole script.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) patience: Patience,
    /// Whether connections are kept after a response at all.
    pub(crate) keep_alive: bool,
    pub(crate) steps: Vec<Step>,
}

impl Script {
    pub(crate) fn parse(data: &[u8]) -> Script {
        let (settings, mut rest) = data.split_first().unwrap_or((&b'0', b""));
        let patience = if settings & 7 == 7 { Patience::Server } else { Patience::Peer };
        let mut parser = Parser { connection: 0, bytes: Vec::new(), steps: Vec::new() };
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match (byte, after.split_first()) {
                (b'\\', Some((&command, after))) => {
                    parser.command(command);
                    rest = after;
                }
                _ => parser.bytes.push(byte),
            }
        }
        parser.cut();
        Script { patience, keep_alive: settings & 7 != 6, steps: parser.steps }
    }
}

struct Parser {
    connection: usize,
    bytes: Vec<u8>,
    steps: Vec<Step>,
}

impl Parser {
    fn command(&mut self, command: u8) {
        let connection = self.connection;
        match command {
            b'|' => self.cut(),
            b'1'..=b'3' => {
                self.cut();
                self.connection = usize::from(command - b'1');
            }
            b'h' => self.push(Step::HalfClose { connection }),
            b'c' => self.push(Step::Close { connection }),
            b'p' => self.push(Step::StopReading { connection }),
            b'g' => self.push(Step::GoOnReading { connection }),
            b'r' => self.push(Step::Resume),
            b'\\' => self.bytes.push(b'\\'),
            other => self.bytes.extend_from_slice(&[b'\\', other]),
        }
    }

    fn push(&mut self, step: Step) {
        self.cut();
        self.steps.push(step);
    }

    fn cut(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.steps.push(Step::Send { connection: self.connection, bytes });
        }
    }
}
