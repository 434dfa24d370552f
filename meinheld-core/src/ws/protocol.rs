//! The protocol of RFC 6455 on bytes: messages and what must be answered come out, time and sockets
//! stay outside. The home of tungstenite, which unmasks, joins fragments, checks UTF-8 and limits,
//! and knows where a close stands.
//!
//! Data frames are not encoded here beyond their header, so that a message is sent from where it
//! lies. Not here: waiting.

use std::io::{self, Read, Write};

use tungstenite::Error;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use super::message::{Closure, Message, MessageKind, Payload};

/// How much is decoded at a time; each WebSocket holds a buffer of this many bytes.
const DECODE_BYTES: usize = 2048;

/// No message may be longer, in bytes: tungstenite reserves room for a frame as soon as its header has
/// come, and where there is none the process ends.
const MESSAGE_BYTES_CEILING: usize = 1 << 30;

/// The longest header of a frame without a mask.
const HEADER_BYTES_MAX: usize = 10;

/// One end of a WebSocket: the server's.
#[derive(Debug)]
pub struct Protocol {
    context: WebSocketContext,
    replies: Vec<u8>,
}

/// What came of reading.
#[derive(Debug)]
pub enum Step {
    /// A whole message.
    Message(Message),
    /// A ping or a pong; the answer to a ping is among the replies.
    Control,
    /// The peer's close; the answer to it is among the replies, unless ours came first.
    Closed(Closure),
    /// The peer broke the protocol or a limit. The close that tells it so is among the replies, and
    /// nothing more may be read.
    Failed(Closure),
    /// The source has ended without a close.
    Ended,
    /// The source has nothing more now.
    Starved,
    /// The source failed.
    Broken(io::Error),
}

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
}

impl Header {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Protocol {
    /// A WebSocket on which nothing has been said. A message, and so a frame, of more than
    /// `message_bytes_max` bytes fails it with 1009; at most 1 GiB is obeyed.
    pub fn new(message_bytes_max: usize) -> Protocol {
        let message_bytes_max = message_bytes_max.min(MESSAGE_BYTES_CEILING);
        let config = WebSocketConfig::default()
            .read_buffer_size(DECODE_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let context = WebSocketContext::new(Role::Server, Some(config));
        Protocol { context, replies: Vec::new() }
    }

    /// Reads until there is something to tell. `source` must not wait: it gives `WouldBlock` when it
    /// has nothing now, and zero at its end.
    pub fn read(&mut self, source: &mut dyn Read) -> Step {
        let mut duplex = Duplex { source, replies: &mut self.replies };
        let read = self.context.read(&mut duplex);
        // Pongs and the answer to a close become replies now.
        let answered = self.context.flush(&mut duplex);
        match read {
            Ok(tungstenite::Message::Text(text)) => {
                Step::Message(Message::new(Payload::Text(text)))
            }
            Ok(tungstenite::Message::Binary(bytes)) => {
                Step::Message(Message::new(Payload::Binary(bytes)))
            }
            Ok(tungstenite::Message::Close(frame)) => Step::Closed(closure_of(frame)),
            Ok(_) => Step::Control,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Step::Starved,
            Err(Error::Io(error)) => Step::Broken(error),
            Err(
                Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            ) => Step::Ended,
            Err(error) => {
                debug_assert!(answered.is_ok(), "replies always have room");
                let closure = closure_for(&error);
                self.close(&closure);
                Step::Failed(closure)
            }
        }
    }

    /// Adds a ping to the replies.
    pub fn ping(&mut self) {
        let message = tungstenite::Message::Ping(tungstenite::Bytes::new());
        let mut duplex = Duplex { source: &mut io::empty(), replies: &mut self.replies };
        // It is refused once a close has been sent, and is pointless then.
        let _ = self.context.write(&mut duplex, message);
    }

    /// Adds a close to the replies, unless one has been sent. Its code and reason must be such as can
    /// be sent.
    pub fn close(&mut self, closure: &Closure) {
        debug_assert!(closure.is_sendable(), "{closure:?}");
        let code = CloseCode::from(closure.code);
        let frame = CloseFrame { code, reason: closure.reason.as_str().into() };
        let mut duplex = Duplex { source: &mut io::empty(), replies: &mut self.replies };
        // What it says is that the connection is closed now, which the caller knows.
        let _ = self.context.close(&mut duplex, Some(frame));
    }

    /// Whether there are bytes to be sent.
    pub fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// How many bytes there are to be sent.
    pub fn reply_bytes(&self) -> usize {
        self.replies.len()
    }

    /// Takes the bytes that are to be sent before any other, control frames all of them.
    pub fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }

    /// Puts bytes back that could not be sent, before those that have come meanwhile.
    pub fn return_replies(&mut self, mut unsent: Vec<u8>) {
        unsent.append(&mut self.replies);
        self.replies = unsent;
    }
}

/// The header of a message in one frame, RFC 6455 section 5.2.
pub(super) fn header(kind: MessageKind, payload_bytes: usize) -> Header {
    let opcode = OpCode::Data(match kind {
        MessageKind::Text => Data::Text,
        MessageKind::Binary => Data::Binary,
    });
    let frame = FrameHeader { is_final: true, opcode, ..FrameHeader::default() };
    let mut bytes = [0; HEADER_BYTES_MAX];
    let mut room = &mut bytes[..];
    frame.format(payload_bytes as u64, &mut room).expect("ten bytes are enough without a mask");
    let length = HEADER_BYTES_MAX - room.len();
    Header { bytes, length }
}

fn closure_of(frame: Option<CloseFrame>) -> Closure {
    match frame {
        None => Closure::new(Closure::NO_CODE, ""),
        Some(frame) => Closure::new(frame.code.into(), frame.reason.as_str()),
    }
}

/// What to tell a peer that is at fault, RFC 6455 section 7.4.1.
fn closure_for(error: &Error) -> Closure {
    match error {
        Error::Utf8(_) => Closure::new(Closure::INVALID_TEXT, "text is not UTF-8"),
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            let reason = format!("a message may have {max_size} bytes");
            Closure::new(Closure::TOO_BIG, reason)
        }
        Error::Protocol(fault) => Closure::new(Closure::PROTOCOL_ERROR, fault_text(fault)),
        _ => Closure::new(Closure::PROTOCOL_ERROR, ""),
    }
}

/// The rule that was broken, for people: short enough for a control frame.
fn fault_text(fault: &ProtocolError) -> &'static str {
    match fault {
        ProtocolError::UnmaskedFrameFromClient => "a client's frames are masked",
        ProtocolError::NonZeroReservedBits => "a reserved bit is set",
        ProtocolError::FragmentedControlFrame => "a control frame is fragmented",
        ProtocolError::ControlFrameTooBig => "a control frame has more than 125 bytes",
        ProtocolError::InvalidOpcode(_)
        | ProtocolError::UnknownControlFrameType(_)
        | ProtocolError::UnknownDataFrameType(_) => "an opcode is reserved",
        ProtocolError::UnexpectedContinueFrame => "there is nothing to continue",
        ProtocolError::ExpectedFragment(_) => "a message is not complete",
        ProtocolError::InvalidCloseSequence => "a close has one byte",
        _ => "",
    }
}

/// What tungstenite reads from and writes to: it is never kept waiting for room.
struct Duplex<'a> {
    source: &'a mut dyn Read,
    replies: &'a mut Vec<u8>,
}

impl Read for Duplex<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer)
    }
}

impl Write for Duplex<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
