//! The sign of life that a process manager waits for: a file that it shares with this process, whose
//! times say when the process last had a turn; and whether that manager is still there.
//!
//! gunicorn reads the time of the last modification and compares it with the monotonic clock; its
//! versions of long ago read the time of the last status change. One call sets both.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::process::parent_id;

use crate::sys;

/// A file to touch, and the process that looks at it.
#[derive(Debug)]
pub struct Heartbeat {
    file: OwnedFd,
    parent: u32,
}

impl Heartbeat {
    /// Uses a descriptor of its own for the open file `fd`, which the caller may close; `parent` is
    /// the process that waits for the sign.
    ///
    /// # Errors
    /// When the descriptor is not open, or no descriptor is left.
    pub fn new(fd: RawFd, parent: u32) -> io::Result<Heartbeat> {
        Ok(Heartbeat { file: sys::duplicate(fd)?, parent })
    }

    /// Gives the sign.
    ///
    /// # Errors
    /// When the file's times cannot be set: it belongs to another user, or is no file.
    pub fn beat(&self) -> io::Result<()> {
        sys::touch(self.file.as_fd())
    }

    /// Whether the process that looks at it is gone, so that this one has another parent.
    pub fn is_orphaned(&self) -> bool {
        parent_id() != self.parent
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_beat_is_seen_by_whoever_holds_the_file() {
        let file = tempfile::tempfile().unwrap();
        let heart = Heartbeat::new(file.as_raw_fd(), parent_id()).unwrap();
        heart.beat().unwrap();
        let first = file.metadata().unwrap();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: i64 = uptime.split('.').next().unwrap().parse().unwrap();
        assert!((first.mtime() - uptime).abs() < 60, "{} {uptime}", first.mtime());
        loop {
            heart.beat().unwrap();
            let now = file.metadata().unwrap();
            if (now.mtime(), now.mtime_nsec()) > (first.mtime(), first.mtime_nsec()) {
                break;
            }
        }
        assert!(!heart.is_orphaned());
        assert!(Heartbeat::new(file.as_raw_fd(), u32::MAX).unwrap().is_orphaned());
        assert!(Heartbeat::new(99_999, 1).is_err());
    }
}
