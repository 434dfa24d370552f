//! What the line of a request in the access log has of its head, made when the head is there.
//!
//! ```text
//!   127.0.0.1 - - [25/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "curl/8.5"
//!   └── of the head ┘└─ of the end ──────────┘└─ of the head ──┘└───┘└ of the head ┘
//! ```
//!
//! A connection that repeats its head uses what was made for the last one; any other request of it uses
//! the room, unless that is still needed. A slot is shared by the connections whose numbers fall on it,
//! and belongs to the one that came last. Not here: how text is made harmless (see `access_line.rs`).

use std::rc::Rc;

use meinheld_core::ConnectionInfo;
use meinheld_core::http::{Head, Version, push_decimal};

use crate::access_line::{push_bytes, push_peer};
use crate::environ::have_one_key;
use crate::slots::{SLOTS, slot_of};

/// A longer line is not kept, in bytes: clients could fill the memory with them.
const KEPT_BYTES_MAX: usize = 2 * 1024;

/// A line without its time, its status and its bytes.
#[derive(Default)]
pub(crate) struct HeadLine {
    text: Vec<u8>,
    /// Where the time belongs, and where the status does.
    time_at: usize,
    outcome_at: usize,
}

/// The lines of the last requests of some connections.
#[derive(Default)]
pub(crate) struct HeadLines {
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    /// The connection's number, and that of the program's logger: while another one was set, nothing
    /// was kept here.
    owner: Option<(u64, u64)>,
    line: Rc<HeadLine>,
}

impl HeadLine {
    /// Appends the whole line, without its end.
    pub(crate) fn push(&self, out: &mut Vec<u8>, time: &str, status: u16, bytes: u64) {
        out.extend_from_slice(&self.text[..self.time_at]);
        out.extend_from_slice(time.as_bytes());
        out.extend_from_slice(&self.text[self.time_at..self.outcome_at]);
        push_decimal(u64::from(status), out);
        out.push(b' ');
        push_decimal(bytes, out);
        out.extend_from_slice(&self.text[self.outcome_at..]);
    }

    fn set_peer(&mut self, connection: &ConnectionInfo<'_>) {
        self.text.clear();
        push_peer(&mut self.text, connection.peer);
        self.text.extend_from_slice(b" - - [");
        self.time_at = self.text.len();
    }

    /// Replaces all that is behind the time.
    fn set_head(&mut self, head: &Head<'_>) {
        let text = &mut self.text;
        text.truncate(self.time_at);
        text.extend_from_slice(b"] \"");
        push_bytes(text, head.method().as_bytes());
        text.push(b' ');
        push_bytes(text, head.target().raw());
        text.extend_from_slice(match head.version() {
            Version::Http10 => b" HTTP/1.0\" ",
            Version::Http11 => b" HTTP/1.1\" ",
        });
        self.outcome_at = text.len();
        text.extend_from_slice(b" \"");
        push_header(text, head, "Referer");
        text.extend_from_slice(b"\" \"");
        push_header(text, head, "User-Agent");
        text.push(b'"');
    }
}

impl HeadLines {
    /// The line of a request; `generation` is the number of the program's logger.
    pub(crate) fn line(
        &mut self,
        head: &Head<'_>,
        connection: &ConnectionInfo<'_>,
        generation: u64,
    ) -> Rc<HeadLine> {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, Slot::default);
        }
        let slot = &mut self.slots[slot_of(connection.number)];
        let owner = Some((connection.number, generation));
        let is_own = slot.owner == owner;
        if is_own && connection.changes.is_some_and(|changes| changes.is_none()) {
            return Rc::clone(&slot.line);
        }
        slot.owner = owner;
        if let Some(line) = Rc::get_mut(&mut slot.line).filter(|_| is_own) {
            line.set_head(head);
        } else {
            let mut line = HeadLine::default();
            line.set_peer(connection);
            line.set_head(head);
            slot.line = Rc::new(line);
        }
        if slot.line.text.len() > KEPT_BYTES_MAX {
            return std::mem::take(slot).line;
        }
        Rc::clone(&slot.line)
    }
}

/// Appends the value of a header as the environ has it: values of one key are joined.
fn push_header(text: &mut Vec<u8>, head: &Head<'_>, name: &str) {
    let mut found = false;
    for (_, value) in head.headers().filter(|(other, _)| have_one_key(other, name)) {
        if found {
            text.push(b',');
        }
        found = true;
        push_bytes(text, value);
    }
    if !found {
        text.push(b'-');
    }
}
