//! A file as the body of a response, or as a piece of it, without a copy through this process.
//!
//! Not here: how the head was decided.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, RawFd};

use super::{Exchange, Length, LengthMismatch, Response};
use crate::http::{BodyEncoding, CHUNK_END, ChunkHeader};
use crate::sys;

/// Makes a file of one's own of an open descriptor that somebody else may close meanwhile, for
/// [`Exchange::send_file`].
///
/// # Errors
/// When the descriptor is not open, or the process has none left.
pub fn duplicate_file(fd: RawFd) -> io::Result<File> {
    sys::duplicate(fd).map(File::from)
}

impl Exchange {
    /// Sends `bytes` of a file from `offset` as the whole body, or the rest of it, without copying it
    /// through this process. Tells how many were sent: fewer if the file ends before.
    ///
    /// # Errors
    /// As [`write`](Self::write), and what reading the file says.
    pub fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, bytes: u64) -> io::Result<u64> {
        self.announce_length(bytes);
        self.send(b"")?;
        let Response::Body(plan) = &self.state.response else { return Ok(0) };
        match plan.encoding {
            _ if self.state.muted => Ok(0),
            BodyEncoding::None => Ok(0),
            BodyEncoding::Length(length) => {
                // PEP 3333: a file is sent to its end, or until Content-Length bytes have been.
                let left = length - self.state.body_bytes_sent.min(length);
                self.send_file_bytes(file, offset, bytes.min(left))
            }
            BodyEncoding::UntilClose => self.send_file_bytes(file, offset, bytes),
            BodyEncoding::Chunked => self.send_file_chunk(file, offset, bytes),
        }
    }

    fn send_file_bytes(
        &mut self,
        file: BorrowedFd<'_>,
        mut offset: u64,
        mut left: u64,
    ) -> io::Result<u64> {
        let start = offset;
        while left > 0 {
            let sent = self.retry(|fd| sys::send_file(fd, file, offset, left))?;
            if sent == 0 {
                break;
            }
            offset += sent;
            left -= sent;
            self.state.body_bytes_sent += sent;
        }
        Ok(offset - start)
    }

    /// Sends what follows an earlier piece of unknown length: as one chunk, whose size is told
    /// before its bytes, so that a file that ends before breaks the response.
    fn send_file_chunk(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        bytes: u64,
    ) -> io::Result<u64> {
        let size = usize::try_from(bytes).ok().and_then(NonZeroUsize::new);
        let Some(size) = size else { return Ok(0) };
        let header = ChunkHeader::new(size);
        self.send_raw(header.as_bytes())?;
        let sent = self.send_file_bytes(file, offset, bytes)?;
        if sent < bytes {
            self.state.length = Length::Mismatched(LengthMismatch::Shortage(bytes - sent));
            self.state.response = Response::CutOff;
            return Ok(sent);
        }
        self.send_raw(CHUNK_END)?;
        Ok(sent)
    }
}
