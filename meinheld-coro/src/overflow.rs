//! What is said when a stack overflows, in the moment before the process dies of it.
//!
//! Each coroutine carries a label of the task that it runs. All of this is called by a signal's
//! handler, on the thread whose task has run into its guard: nothing here allocates, locks or panics.
//! Not here: the signal (see sys/fault.rs).

use std::io;

use crate::hub::Hub;
use crate::sys::FaultHandler;

const LABEL_BYTES_MAX: usize = 88;

/// Explains stack overflows of this thread's tasks on standard error, for as long as it lives.
///
/// One line names the task (see [`describe_task`](crate::describe_task)), the size of its stack, and
/// the setting to raise. The signal, SIGSEGV, then does what it did before: by default it ends the
/// process. A handler that was there before (Python's faulthandler, say) has its turn afterwards.
pub struct OverflowReports {
    _handler: FaultHandler,
}

impl OverflowReports {
    /// Begins to explain.
    ///
    /// # Errors
    /// When there is no memory for the handler's own stack.
    pub fn install() -> io::Result<OverflowReports> {
        Ok(OverflowReports { _handler: FaultHandler::install()? })
    }
}

/// The line, if the running task of this thread has its guard at `address`.
pub(crate) fn explain(address: usize) -> Option<Text<512>> {
    Hub::with_running(|hub, port| {
        if !port.guard().contains(&address) {
            return None;
        }
        let mut line = Text::default();
        line.push(b"meinheld: stack overflow in ");
        port.with_label(|label| match label {
            b"" => line.push(b"a task"),
            label => line.push(label),
        });
        line.push(b": its stack of ");
        line.push_number(port.stack_bytes());
        line.push(b" bytes is used up; raise ");
        line.push(hub.stack_setting().as_bytes());
        line.push(b" or recurse less deep\n");
        Some(line)
    })?
}

/// What a task does, for a person.
pub(crate) type Label = Text<LABEL_BYTES_MAX>;

/// So many bytes of text at the most; more is left out.
#[derive(Clone)]
pub(crate) struct Text<const BYTES_MAX: usize> {
    bytes: [u8; BYTES_MAX],
    length: usize,
}

impl<const BYTES_MAX: usize> Default for Text<BYTES_MAX> {
    fn default() -> Self {
        Text { bytes: [0; BYTES_MAX], length: 0 }
    }
}

impl<const BYTES_MAX: usize> Text<BYTES_MAX> {
    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }

    pub(crate) fn push(&mut self, text: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text[..taken]);
        self.length += taken;
    }

    pub(crate) fn push_number(&mut self, number: usize) {
        if number >= 10 {
            self.push_number(number / 10);
        }
        self.push(&[b"0123456789"[number % 10]]);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut text = Text::<8>::default();
        text.push(b"at ");
        text.push_number(1_048_576);
        assert_eq!(text.bytes(), b"at 10485");
        text.push(b"x");
        assert_eq!(text.bytes(), b"at 10485");
        text.clear();
        text.push_number(0);
        assert_eq!(text.bytes(), b"0");
    }
}
