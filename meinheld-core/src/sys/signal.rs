//! Signals as bytes on a descriptor, so that a loop can wait for them beside everything else.
//!
//! The pipe is the well-known self-pipe: a handler may only write(2). A host with handlers of its
//! own (an interpreter) is given the writing end instead of installing ours.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::syscall;

/// The pipe into which the handlers write; -1 while no handler is installed.
static HANDLER_PIPE: AtomicI32 = AtomicI32::new(-1);

/// A non-blocking pipe that carries one byte for each signal.
#[derive(Debug)]
pub struct SignalPipe {
    reader: OwnedFd,
    writer: OwnedFd,
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
        Ok(SignalPipe { reader, writer })
    }

    /// The end to write signal numbers to, one byte each.
    pub fn writer(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    pub(crate) fn reader(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Has SIGINT and SIGTERM written to this pipe from now on, in place of what they did before.
    ///
    /// # Errors
    /// When the system refuses, which it does not for these two.
    pub fn catch_termination(&self) -> io::Result<()> {
        HANDLER_PIPE.store(self.writer(), Ordering::Release);
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: an all-zero sigaction is a valid value: no flags, an empty mask.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = note_signal as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            syscall!(sigaction(signal, &raw const action, std::ptr::null_mut()))?;
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
        let _ =
            HANDLER_PIPE.compare_exchange(self.writer(), -1, Ordering::AcqRel, Ordering::Relaxed);
    }
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
