//! Signals as bytes on a descriptor, so that a loop can wait for them beside everything else.
//!
//! The pipe is the well-known self-pipe: a handler may only write(2). A host with handlers of its
//! own (an interpreter) is given the writing end instead of installing ours.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::syscall;

/// The pipe into which the handlers write; -1 while no handler is installed.
static HANDLER_PIPE: AtomicI32 = AtomicI32::new(-1);

/// A non-blocking pipe that carries one byte for each signal.
#[derive(Debug)]
pub struct SignalPipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Whether it is one of those that `CAUGHT` counts.
    catches: Cell<bool>,
}

/// What the pipes that catch signals have in common.
struct Caught {
    pipes: usize,
    replaced: Vec<Replaced>,
}

static CAUGHT: Mutex<Caught> = Mutex::new(Caught { pipes: 0, replaced: Vec::new() });

/// What a signal did before it was written to a pipe.
struct Replaced {
    signal: libc::c_int,
    action: libc::sigaction,
}

impl SignalPipe {
    /// Makes the pipe.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<SignalPipe> {
        let mut fds = [-1; 2];
        syscall!(pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK))?;
        // SAFETY: both descriptors were just made, and nobody else owns them.
        let [reader, writer] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(SignalPipe { reader, writer, catches: Cell::default() })
    }

    /// The end to write signal numbers to, one byte each.
    pub fn writer(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    pub(crate) fn reader(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Has SIGINT and SIGTERM written to this pipe, in place of what they did before and will do again
    /// when the last pipe that caught them has been dropped.
    ///
    /// # Errors
    /// When the system refuses, which it does not for these two.
    pub fn catch_termination(&self) -> io::Result<()> {
        let mut caught = CAUGHT.lock().unwrap_or_else(PoisonError::into_inner);
        HANDLER_PIPE.store(self.writer(), Ordering::Release);
        caught.pipes += usize::from(!self.catches.replace(true));
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let mut action = no_action();
            action.sa_sigaction = handler();
            action.sa_flags = libc::SA_RESTART;
            let mut before = no_action();
            syscall!(sigaction(signal, &raw const action, &raw mut before))?;
            if before.sa_sigaction != handler() {
                caught.replaced.push(Replaced { signal, action: before });
            }
        }
        Ok(())
    }

    /// Takes the signals that have come, each its number.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut numbers = [0_u8; 64];
        let result = syscall!(read(self.reader(), numbers.as_mut_ptr().cast(), numbers.len()));
        let count = result.map_or(0, isize::unsigned_abs);
        numbers[..count].to_vec()
    }
}

impl Drop for SignalPipe {
    fn drop(&mut self) {
        if self.catches.get() {
            let mut caught = CAUGHT.lock().unwrap_or_else(PoisonError::into_inner);
            caught.pipes -= 1;
            if caught.pipes == 0 {
                caught.replaced.drain(..).rev().for_each(Replaced::restore);
            }
        }
        let _ =
            HANDLER_PIPE.compare_exchange(self.writer(), -1, Ordering::AcqRel, Ordering::Relaxed);
    }
}

impl Replaced {
    /// Has the signal do it again, unless somebody has put another handler in the place of ours.
    fn restore(self) {
        let mut now = no_action();
        let found = syscall!(sigaction(self.signal, std::ptr::null(), &raw mut now));
        if found.is_ok() && now.sa_sigaction == handler() {
            let _ = syscall!(sigaction(self.signal, &raw const self.action, std::ptr::null_mut()));
        }
    }
}

fn no_action() -> libc::sigaction {
    // SAFETY: an all-zero sigaction is a valid value: no flags, an empty mask.
    unsafe { std::mem::zeroed() }
}

fn handler() -> libc::sighandler_t {
    note_signal as *const () as libc::sighandler_t
}

/// The handler: only async-signal-safe calls, and errno as it was.
extern "C" fn note_signal(signal: libc::c_int) {
    let fd = HANDLER_PIPE.load(Ordering::Acquire);
    if fd < 0 {
        return;
    }
    let number = [u8::try_from(signal).unwrap_or(0)];
    // SAFETY: errno is a location of this thread's own; write(2) is async-signal-safe and reads one
    // byte of a live array.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(fd, number.as_ptr().cast(), number.len());
        *errno = saved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_bytes_and_do_afterwards_what_they_did_before() {
        let now = || {
            let mut now = no_action();
            syscall!(sigaction(libc::SIGTERM, std::ptr::null(), &raw mut now)).unwrap();
            now.sa_sigaction
        };
        let before = now();
        let pipe = SignalPipe::new().unwrap();
        pipe.catch_termination().unwrap();
        pipe.catch_termination().unwrap();
        syscall!(raise(libc::SIGTERM)).unwrap();
        assert_eq!(pipe.take(), [15]);
        assert_ne!(now(), before);
        let later = SignalPipe::new().unwrap();
        later.catch_termination().unwrap();
        drop(pipe);
        syscall!(raise(libc::SIGTERM)).unwrap();
        assert_eq!(later.take(), [15], "a pipe that goes leaves the signals to the next one");
        drop(later);
        assert_eq!(now(), before);
    }
}
