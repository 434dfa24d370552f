//! Files to sockets by sendfile(2), writing to a log, what a file is, its times, and the limit on
//! descriptors.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::syscall;

/// What the kernel takes in one call at the most, in bytes (0x7ffff000).
const SEND_FILE_BYTES_MAX: u64 = 0x7fff_f000;

/// Sends up to `bytes` of `file` from `offset`; tells how many. Zero is the end of the file.
///
/// There is no `MSG_NOSIGNAL` for it: SIGPIPE must be ignored, as Rust's and Python's programs begin.
pub(crate) fn send_file(
    socket: RawFd,
    file: BorrowedFd<'_>,
    offset: u64,
    bytes: u64,
) -> io::Result<u64> {
    let mut position =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let count = usize::try_from(bytes.min(SEND_FILE_BYTES_MAX)).unwrap_or(usize::MAX);
    let sent = syscall!(sendfile(socket, file.as_raw_fd(), &raw mut position, count))?;
    Ok(sent.unsigned_abs() as u64)
}

/// Makes a descriptor of one's own for an open file.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    let copy = syscall!(fcntl(fd, libc::F_DUPFD_CLOEXEC, 0))?;
    // SAFETY: the descriptor was just made, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Which file it is, and whether it is a regular one: those take what is written without waiting for
/// a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStatus {
    device: u64,
    inode: u64,
    pub(crate) regular: bool,
}

impl From<&Metadata> for FileStatus {
    fn from(metadata: &Metadata) -> FileStatus {
        let regular = metadata.is_file();
        FileStatus { device: metadata.dev(), inode: metadata.ino(), regular }
    }
}

/// That of an open file.
pub(crate) fn file_status(fd: RawFd) -> io::Result<FileStatus> {
    let file = File::from(duplicate(fd)?);
    Ok(FileStatus::from(&file.metadata()?))
}

/// That of the file at a path.
pub(crate) fn path_status(path: &Path) -> io::Result<FileStatus> {
    Ok(FileStatus::from(&fs::metadata(path)?))
}

/// Writes some of `bytes`; tells how many.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let written = syscall!(write(fd, bytes.as_ptr().cast(), bytes.len()))?;
    Ok(written.unsigned_abs())
}

/// Whether a pipe, a terminal or a socket has room, or nobody to read from it, within `patience`.
pub(crate) fn has_room(fd: RawFd, patience: Duration) -> io::Result<bool> {
    let mut watched = [libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }];
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    Ok(syscall!(poll(watched.as_mut_ptr(), 1, milliseconds))? > 0)
}

/// Sets a file's times of access and change to what the monotonic clock shows, which is how long the
/// system has been running; the time of its last status change becomes now.
pub(crate) fn touch(file: BorrowedFd<'_>) -> io::Result<()> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    syscall!(clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now))?;
    let times = [now, now];
    syscall!(futimens(file.as_raw_fd(), times.as_ptr()))?;
    Ok(())
}

/// The hard limit on open descriptors.
pub(crate) fn descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    syscall!(getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    Ok(limit.rlim_max)
}

/// Raises the soft limit on open descriptors to the hard one; the limit that now holds.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    syscall!(getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        syscall!(setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}
