//! Lines of a log on their way to an open file: they are gathered, and written together.
//!
//! ```text
//!   begin ──▶ lines ──flush──▶ the file     all at once, or as much as a pipe, a terminal or a socket
//!               │                           takes without waiting, in pieces of whole lines
//!               └─ 1 MiB is held: what comes is dropped, and counted
//! ```
//!
//! Whoever is to read them can stop nobody: the writer never waits for room, but at the very end. What
//! cannot be written, since a disk is full or a reader slow, is held and tried again. Not here: what a
//! line says, and whose file it is.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::sys::{self, FileStatus};

/// So many bytes are worth a write, though the turn is not over.
const WRITE_BYTES: usize = 64 * 1024;

/// So many bytes are held for a file that takes none.
const HELD_BYTES_MAX: usize = 1 << 20;

/// What a pipe takes in one piece, without lines of other processes in between (`PIPE_BUF` in
/// POSIX), and without waiting if it has room at all.
const PIECE_BYTES: usize = 4096;

/// When to try again: there was no room; the file could not be written.
const RETRY_ROOM: Duration = Duration::from_millis(50);
const RETRY_FAULT: Duration = Duration::from_secs(1);

/// An open file that is written to, by a descriptor that somebody else owns.
#[derive(Debug)]
pub struct LogFile {
    fd: RawFd,
    status: FileStatus,
    /// Where it lies, if it is to be noticed that it was moved away.
    path: Option<PathBuf>,
}

impl LogFile {
    /// Looks at the open file `fd`.
    ///
    /// # Errors
    /// When the descriptor is not open, or no descriptor is left.
    pub fn new(fd: RawFd, path: Option<PathBuf>) -> io::Result<LogFile> {
        Ok(LogFile { fd, status: sys::file_status(fd)?, path })
    }

    /// Whether another file, or none, is where this one lay.
    pub fn has_moved(&self) -> bool {
        let Some(path) = &self.path else { return false };
        sys::path_status(path).map_or(true, |status| status != self.status)
    }
}

/// The lines that have not been written yet.
#[derive(Debug, Default)]
pub struct LineWriter {
    /// Whole lines, but that the first may have been written in part.
    lines: Vec<u8>,
    lost: u64,
    retry: Option<Instant>,
}

impl LineWriter {
    /// Where to append a line, with its end; `None` if so much is held that it is lost.
    pub fn begin(&mut self) -> Option<&mut Vec<u8>> {
        if self.lines.len() >= HELD_BYTES_MAX {
            self.lost += 1;
            return None;
        }
        Some(&mut self.lines)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether so much is held that it is worth a write at once.
    pub fn is_due(&self) -> bool {
        self.lines.len() >= WRITE_BYTES && self.retry.is_none()
    }

    /// When to flush at the latest what could not be written before.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry
    }

    /// Takes the lines out, to be written by other means.
    pub fn take(&mut self) -> Vec<u8> {
        self.retry = None;
        mem::take(&mut self.lines)
    }

    /// How many lines have been lost since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }

    /// Keeps what there is for a second, since the file cannot be had now.
    pub fn postpone(&mut self, now: Instant) {
        self.retry = now.checked_add(RETRY_FAULT);
    }

    /// Drops what there is, and counts it.
    pub fn lose(&mut self) {
        let left = self.take();
        self.lost += left.split_inclusive(|byte| *byte == b'\n').count() as u64;
    }

    /// Writes what there is, as far as there is room for it.
    ///
    /// # Errors
    /// What the system says of the file. The lines are kept, and not tried for a second.
    pub fn flush(&mut self, file: &LogFile, now: Instant) -> io::Result<()> {
        if self.lines.is_empty() || self.retry.is_some_and(|at| now < at) {
            return Ok(());
        }
        let written = self.write(file, Duration::ZERO);
        self.retry = match &written {
            Err(_) => now.checked_add(RETRY_FAULT),
            Ok(()) if self.lines.is_empty() => None,
            Ok(()) => now.checked_add(RETRY_ROOM),
        };
        written
    }

    /// Writes what there is, and waits for room for as long as `patience`. What is left is lost.
    ///
    /// # Errors
    /// What the system says of the file.
    pub fn flush_last(&mut self, file: &LogFile, patience: Duration) -> io::Result<()> {
        let written = self.write(file, patience);
        self.lose();
        written
    }

    fn write(&mut self, file: &LogFile, patience: Duration) -> io::Result<()> {
        let (mut done, begin) = (0, Instant::now());
        let result = loop {
            let rest = &self.lines[done..];
            if rest.is_empty() {
                break Ok(());
            }
            let waits = patience.saturating_sub(begin.elapsed());
            match write_piece(file, rest, waits) {
                Ok(0) => break Ok(()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.lines.drain(..done);
        result
    }
}

/// Writes some of it; zero is that there is no room.
fn write_piece(file: &LogFile, lines: &[u8], patience: Duration) -> io::Result<usize> {
    if file.status.regular {
        return match sys::write(file.fd, lines) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            written => written,
        };
    }
    if !sys::has_room(file.fd, patience)? {
        return Ok(0);
    }
    let lines = piece_of(lines);
    match sys::write(file.fd, lines) {
        // A descriptor that does not block, and a pipe with less room than it said.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// As many whole lines as go in one piece, or a piece of a longer one.
fn piece_of(lines: &[u8]) -> &[u8] {
    if lines.len() <= PIECE_BYTES {
        return lines;
    }
    let window = &lines[..PIECE_BYTES];
    let end = window.iter().rposition(|byte| *byte == b'\n').map_or(PIECE_BYTES, |last| last + 1);
    &window[..end]
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::{Read, Write, pipe};
    use std::os::fd::AsRawFd;

    use super::*;

    fn log(fd: &impl AsRawFd) -> LogFile {
        LogFile::new(fd.as_raw_fd(), None).unwrap()
    }

    fn add(writer: &mut LineWriter, line: &[u8]) -> bool {
        writer.begin().map(|lines| lines.extend_from_slice(line)).is_some()
    }

    #[test]
    fn lines_reach_a_file_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut writer = LineWriter::default();
        for line in [b"a\n".as_slice(), b"b\n", b"c\n"] {
            assert!(add(&mut writer, line));
        }
        assert!(!writer.is_empty() && !writer.is_due());
        writer.flush(&log(&file), Instant::now()).unwrap();
        assert!(writer.is_empty() && writer.retry_at().is_none());
        assert_eq!(fs::read(&path).unwrap(), b"a\nb\nc\n");
    }

    #[test]
    fn a_file_that_was_moved_away_or_replaced_has_moved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = fs::File::create(&path).unwrap();
        let watched = LogFile::new(file.as_raw_fd(), Some(path.clone())).unwrap();
        assert!(!watched.has_moved());
        fs::rename(&path, directory.path().join("log.1")).unwrap();
        assert!(watched.has_moved());
        fs::write(&path, "").unwrap();
        assert!(watched.has_moved());
        assert!(!log(&file).has_moved());
    }

    #[test]
    fn a_pipe_that_is_not_read_stops_nobody_and_loses_only_what_does_not_fit() {
        let (mut reader, pipe) = pipe().unwrap();
        let (file, mut writer, mut now) = (log(&pipe), LineWriter::default(), Instant::now());
        let (mut kept, mut number) = (Vec::new(), 0);
        while writer.lines.len() < HELD_BYTES_MAX || number < 20_000 {
            let line = format!("{number:0100}\n").into_bytes();
            if add(&mut writer, &line) {
                kept.extend_from_slice(&line);
            }
            number += 1;
            writer.flush(&file, now).unwrap();
        }
        assert_eq!(writer.retry_at(), Some(now + RETRY_ROOM));
        let lost = writer.take_lost();
        assert!(lost > 0 && writer.take_lost() == 0);
        assert_eq!(kept.len() as u64, (number - lost) * 101);
        let mut found = Vec::new();
        while found.len() < kept.len() {
            let mut buffer = [0; 5000];
            let count = reader.read(&mut buffer).unwrap();
            found.extend_from_slice(&buffer[..count]);
            now += RETRY_ROOM;
            writer.flush(&file, now).unwrap();
        }
        assert!(found == kept && writer.is_empty());
    }

    #[test]
    fn a_full_disk_keeps_the_lines_and_is_tried_each_second() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let spare = tempfile::tempfile().unwrap();
        let (mut writer, now) = (LineWriter::default(), Instant::now());
        add(&mut writer, b"a\n");
        assert_eq!(writer.flush(&log(&full), now).unwrap_err().raw_os_error(), Some(28));
        assert_eq!(writer.retry_at(), Some(now + RETRY_FAULT));
        writer.flush(&log(&full), now + RETRY_FAULT / 2).unwrap();
        writer.flush(&log(&full), now + RETRY_FAULT).unwrap_err();
        writer.flush(&log(&spare), now + 2 * RETRY_FAULT).unwrap();
        assert!(writer.is_empty());
        assert_eq!(spare.metadata().unwrap().len(), 2);
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error() {
        let (reader, pipe) = pipe().unwrap();
        drop(reader);
        let mut writer = LineWriter::default();
        add(&mut writer, b"a\n");
        let error = writer.flush(&log(&pipe), Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(!writer.is_empty());
        assert!(LogFile::new(99_999, None).is_err());
    }

    #[test]
    fn at_the_end_room_is_waited_for_and_the_rest_counted() {
        let (mut reader, mut pipe) = pipe().unwrap();
        let file = log(&pipe);
        let mut writer = LineWriter::default();
        for _ in 0..2000 {
            add(&mut writer, &[b"x".repeat(99), b"\n".to_vec()].concat());
        }
        writer.flush_last(&file, Duration::ZERO).unwrap();
        let lost = usize::try_from(writer.take_lost()).unwrap();
        assert!(writer.is_empty() && lost > 0);
        let mut first = vec![0; (2000 - lost) * 100];
        reader.read_exact(&mut first).unwrap();
        for _ in 0..2000 {
            add(&mut writer, &[b"x".repeat(99), b"\n".to_vec()].concat());
        }
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        writer.flush_last(&file, Duration::from_secs(60)).unwrap();
        assert_eq!(writer.take_lost(), 0);
        pipe.flush().unwrap();
        drop(pipe);
        assert_eq!(reading.join().unwrap().unwrap().len(), 200_000);
    }

    #[test]
    fn pieces_end_with_a_line_where_they_can() {
        assert_eq!(piece_of(b"a\nb\n"), b"a\nb\n");
        let long = [b"a\n".to_vec(), b"b".repeat(5000), b"\n".to_vec()].concat();
        assert_eq!(piece_of(&long), b"a\n");
        assert_eq!(piece_of(&long[2..]).len(), PIECE_BYTES);
    }
}
