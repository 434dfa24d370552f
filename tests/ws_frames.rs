//! WebSocket frames, category by category (RFC 6455 section 5): each conversation is read whole and
//! split at every byte, with the same messages and the same answers.

#![allow(clippy::unwrap_used)] // what fails here fails the test
#![allow(clippy::large_stack_arrays, clippy::type_complexity)] // tables of cases

#[path = "support/frames.rs"]
mod frames;

use std::collections::VecDeque;
use std::io::{self, Read};

use frames::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close, frame, unmasked};
use meinheld_core::ws::{Closure, Protocol, Step};

/// The limit on messages in these tests, in bytes.
const MESSAGE_BYTES_MAX: usize = 70_000;

/// What came of a conversation.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Told {
    Text(String),
    Binary(Vec<u8>),
    Closed(u16, String),
    Failed(u16),
    Ended,
}

/// Pieces that come one after the other, each found when the one before has been used up.
struct Pieces {
    now: VecDeque<u8>,
    later: VecDeque<Vec<u8>>,
    ends: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.now.read(buffer)? {
            0 if self.ends && self.later.is_empty() => Ok(0),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

/// What is told, and the frames that are answered.
type Conversation = (Vec<Told>, Vec<(u8, Vec<u8>)>);

fn converse(pieces: &[&[u8]], ends: bool) -> Conversation {
    let mut protocol = Protocol::new(MESSAGE_BYTES_MAX);
    let later = pieces.iter().map(|piece| piece.to_vec()).collect();
    let mut source = Pieces { now: VecDeque::new(), later, ends };
    let (mut told, mut answered) = (Vec::new(), Vec::new());
    loop {
        let step = protocol.read(&mut source);
        answered.extend(protocol.take_replies());
        match step {
            Step::Message(message) => told.push(match message.text() {
                Some(text) => Told::Text(text.to_owned()),
                None => Told::Binary(message.bytes().to_vec()),
            }),
            Step::Control => {}
            Step::Closed(Closure { code, reason }) => {
                told.push(Told::Closed(code, reason));
                break;
            }
            Step::Failed(Closure { code, .. }) => {
                told.push(Told::Failed(code));
                break;
            }
            Step::Ended => {
                told.push(Told::Ended);
                break;
            }
            Step::Broken(error) => panic!("{error}"),
            Step::Starved => match source.later.pop_front() {
                Some(piece) => source.now.extend(piece),
                None => break,
            },
        }
    }
    (told, frames::parse_all(&answered))
}

/// Converses whole and in every way of two pieces, and byte by byte.
fn every_way(name: &str, wire: &[u8]) -> Conversation {
    let whole = converse(&[wire], false);
    let bytes: Vec<&[u8]> = wire.chunks(1).collect();
    assert_eq!(converse(&bytes, false), whole, "{name}, byte by byte");
    // The long ones are the same in the middle of their payloads.
    let cuts = (0..wire.len()).filter(|at| wire.len() < 1000 || *at < 40 || wire.len() - at < 40);
    for at in cuts {
        let (head, tail) = wire.split_at(at);
        assert_eq!(converse(&[head, tail], false), whole, "{name}, cut at {at}");
    }
    whole
}

/// The close that tells a peer of its fault.
fn is_close(answered: &[(u8, Vec<u8>)], code: u16) -> bool {
    let [.., (first, payload)] = answered else { return false };
    *first == FIN | CLOSE && payload.len() <= 125 && payload.starts_with(&code.to_be_bytes())
}

fn text(text: &str) -> Told {
    Told::Text(text.to_owned())
}

#[test]
fn messages_come_as_they_were_sent() {
    let long = "é".repeat(35_000);
    let cases: &[(&str, Vec<u8>, Vec<Told>)] = &[
        ("text, 5.6", frame(FIN | TEXT, b"Hello"), vec![text("Hello")]),
        ("empty text", frame(FIN | TEXT, b""), vec![text("")]),
        ("binary", frame(FIN | BINARY, &[0, 255, 128]), vec![Told::Binary(vec![0, 255, 128])]),
        ("125 bytes", frame(FIN | TEXT, &[b'a'; 125]), vec![text(&"a".repeat(125))]),
        ("126 bytes", frame(FIN | TEXT, &[b'a'; 126]), vec![text(&"a".repeat(126))]),
        ("65535 bytes", frame(FIN | BINARY, &[7; 65_535]), vec![Told::Binary(vec![7; 65_535])]),
        ("65536 bytes", frame(FIN | BINARY, &[7; 65_536]), vec![Told::Binary(vec![7; 65_536])]),
        ("at the limit", frame(FIN | TEXT, long.as_bytes()), vec![text(&long)]),
        (
            "two",
            [frame(FIN | TEXT, b"a"), frame(FIN | BINARY, b"b")].concat(),
            vec![text("a"), Told::Binary(b"b".to_vec())],
        ),
        (
            "a length in more bytes than it needs",
            [&[FIN | TEXT, 0xfe, 0, 2, 0, 0, 0, 0][..], b"ab"].concat(),
            vec![text("ab")],
        ),
    ];
    for (name, wire, expected) in cases {
        assert_eq!(every_way(name, wire), (expected.clone(), Vec::new()), "{name}");
    }
}

#[test]
fn fragments_are_joined_and_control_frames_come_between_5_4() {
    let cases: &[(&str, Vec<Vec<u8>>, Vec<Told>, usize)] = &[
        ("two", vec![frame(TEXT, b"Hel"), frame(FIN, b"lo")], vec![text("Hello")], 0),
        (
            "empty ones",
            vec![frame(TEXT, b""), frame(CONTINUATION, b""), frame(FIN, b"")],
            vec![text("")],
            0,
        ),
        (
            "binary",
            vec![frame(BINARY, &[1]), frame(CONTINUATION, &[2]), frame(FIN, &[3])],
            vec![Told::Binary(vec![1, 2, 3])],
            0,
        ),
        ("a character in two", vec![frame(TEXT, &[0xc3]), frame(FIN, &[0xa9])], vec![text("é")], 0),
        (
            "a ping between",
            vec![frame(TEXT, b"a"), frame(FIN | PING, b"p"), frame(FIN, b"b")],
            vec![text("ab")],
            1,
        ),
        (
            "a pong between",
            vec![frame(TEXT, b"a"), frame(FIN | PONG, b"p"), frame(FIN, b"b")],
            vec![text("ab")],
            0,
        ),
    ];
    for (name, wire, expected, pongs) in cases {
        let (told, answered) = every_way(name, &wire.concat());
        assert_eq!(told, *expected, "{name}");
        assert_eq!(answered.len(), *pongs, "{name}");
    }
}

#[test]
fn a_ping_is_answered_with_its_payload_5_5_2() {
    for payload in [&b""[..], b"are you there", &[0xff; 125]] {
        let wire = [frame(FIN | PING, payload), frame(FIN | TEXT, b"x")].concat();
        let (told, answered) = every_way("ping", &wire);
        assert_eq!(told, [text("x")]);
        assert_eq!(answered, [(FIN | PONG, payload.to_vec())]);
    }
    let unasked = [frame(FIN | PONG, b"unasked"), frame(FIN | TEXT, b"x")].concat();
    assert_eq!(every_way("pong", &unasked), (vec![text("x")], Vec::new()));
}

#[test]
fn a_close_is_answered_with_its_code_5_5_1() {
    let all_of =
        |code: u16, reason: &str| (FIN | CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat());
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1013, 3000, 3999, 4000, 4999] {
        let wire = [close(code, "très".as_bytes()), frame(FIN | TEXT, b"ignored")].concat();
        let (told, answered) = every_way("close", &wire);
        assert_eq!(told, [Told::Closed(code, "très".to_owned())]);
        assert_eq!(answered, [all_of(code, "très")]);
    }
    let (told, answered) = every_way("close without a code", &frame(FIN | CLOSE, b""));
    assert_eq!(told, [Told::Closed(1005, String::new())]);
    assert_eq!(answered, [(FIN | CLOSE, Vec::new())]);
    let longest = "x".repeat(123);
    let (told, _) = every_way("the longest reason", &close(1000, longest.as_bytes()));
    assert_eq!(told, [Told::Closed(1000, longest)]);
}

#[test]
fn a_close_that_is_wrong_is_answered_with_what_is_wrong_7_4() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let (told, answered) = every_way("code", &close(code, b""));
        assert!(matches!(told[..], [Told::Closed(1002, _)]), "{code}: {told:?}");
        assert!(is_close(&answered, 1002), "{code}: {answered:?}");
    }
    let cases = [
        ("one byte", frame(FIN | CLOSE, &[3]), 1002),
        ("reason that is no UTF-8", close(1000, &[0xc3, 0x28]), 1007),
        ("reason that is cut", close(1000, &[0xe2, 0x82]), 1007),
        ("too long", close(1000, &[b'x'; 124]), 1002),
    ];
    for (name, wire, code) in cases {
        let (told, answered) = every_way(name, &wire);
        assert_eq!(told, [Told::Failed(code)], "{name}");
        assert!(is_close(&answered, code), "{name}: {answered:?}");
    }
}

#[test]
fn what_breaks_the_protocol_is_1002() {
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("unmasked text, 5.1".into(), unmasked(FIN | TEXT, b"a")),
        ("unmasked ping, 5.1".into(), unmasked(FIN | PING, b"")),
        ("fragmented ping, 5.5".into(), frame(PING, b"")),
        ("fragmented close, 5.5".into(), frame(CLOSE, b"")),
        ("ping of 126 bytes, 5.5".into(), frame(FIN | PING, &[0; 126])),
        ("pong of 126 bytes, 5.5".into(), frame(FIN | PONG, &[0; 126])),
        ("continuation of nothing, 5.4".into(), frame(FIN, b"a")),
        ("unended continuation of nothing, 5.4".into(), frame(CONTINUATION, b"a")),
        (
            "text within a message, 5.4".into(),
            [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat(),
        ),
        (
            "binary within a message, 5.4".into(),
            [frame(BINARY, b"a"), frame(BINARY, b"b")].concat(),
        ),
        (
            "continuation after the end, 5.4".into(),
            [frame(TEXT, b"a"), frame(FIN, b"b"), frame(FIN, b"c")].concat(),
        ),
    ];
    for bit in [0x40, 0x20, 0x10, 0x70] {
        cases.push((format!("reserved bits {bit:x}, 5.2"), frame(FIN | bit | TEXT, b"a")));
        cases.push((format!("reserved bits {bit:x} of a ping"), frame(FIN | bit | PING, b"a")));
    }
    for opcode in (3..8).chain(11..16) {
        cases.push((format!("opcode {opcode}, 5.2"), frame(FIN | opcode, b"a")));
    }
    for (name, wire) in cases {
        let before = [frame(FIN | BINARY, b"before"), wire, frame(FIN | TEXT, b"after")].concat();
        let (told, answered) = every_way(&name, &before);
        let [.., failed] = &told[..] else { panic!("{name}: {told:?}") };
        assert_eq!(told[0], Told::Binary(b"before".to_vec()), "{name}");
        assert_eq!(*failed, Told::Failed(1002), "{name}");
        assert!(is_close(&answered, 1002), "{name}: {answered:?}");
    }
}

#[test]
fn text_that_is_no_utf_8_is_1007() {
    let bad: &[&[u8]] = &[
        &[0x80],
        &[0xc0, 0xaf],
        &[0xe0, 0x80, 0xaf],
        &[0xed, 0xa0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
        &[0xf8, 0x88, 0x80, 0x80, 0x80],
        &[0xff],
        &[b'a', 0xce],
        &[0xf0, 0x9f, 0x98],
    ];
    for bytes in bad {
        let (told, answered) = every_way("whole", &frame(FIN | TEXT, bytes));
        assert_eq!(told, [Told::Failed(1007)], "{bytes:x?}");
        assert!(is_close(&answered, 1007), "{bytes:x?}");
        for at in 0..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            let wire = [frame(TEXT, head), frame(FIN, tail)].concat();
            let (told, _) = every_way("fragments", &wire);
            assert_eq!(told, [Told::Failed(1007)], "{bytes:x?} at {at}");
        }
    }
    // What is wrong already is not waited for to end.
    let (told, _) = every_way("unended", &frame(TEXT, &[b'a', 0xff]));
    assert_eq!(told, [Told::Failed(1007)]);
}

#[test]
fn what_is_over_the_limit_is_1009_before_it_has_come() {
    let huge = |length: u64| [&[FIN | BINARY, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let over = MESSAGE_BYTES_MAX as u64 + 1;
    let cases = [
        ("frame", huge(over)),
        ("frame of 2^63", huge(1 << 63)),
        ("frame of 2^64 - 1", huge(u64::MAX)),
        ("message", [frame(BINARY, &[1; 40_000]), frame(CONTINUATION, &[1; 30_001])].concat()),
    ];
    for (name, wire) in cases {
        let (told, answered) = every_way(name, &wire);
        assert_eq!(told, [Told::Failed(1009)], "{name}");
        assert!(is_close(&answered, 1009), "{name}: {answered:?}");
    }
}

#[test]
fn no_limit_lets_a_header_reserve_more_than_there_is() {
    let mut protocol = Protocol::new(usize::MAX);
    let announced =
        [&[FIN | BINARY, 0x80 | 127][..], &(1_u64 << 50).to_be_bytes(), &[0; 4]].concat();
    let step = protocol.read(&mut announced.as_slice());
    assert!(matches!(step, Step::Failed(Closure { code: 1009, .. })), "{step:?}");
}

#[test]
fn an_end_without_a_close_is_told_wherever_it_comes() {
    let wire = [frame(FIN | TEXT, b"a"), frame(TEXT, b"b"), frame(FIN, b"c")].concat();
    for at in 0..=wire.len() {
        let (told, answered) = converse(&[&wire[..at]], true);
        assert_eq!(told.last(), Some(&Told::Ended), "cut at {at}");
        assert!(answered.is_empty(), "there is nobody to answer");
    }
}

#[test]
fn after_our_own_close_messages_still_come_until_the_peers() {
    let mut protocol = Protocol::new(MESSAGE_BYTES_MAX);
    protocol.close(&Closure { code: 1001, reason: "bye".to_owned() });
    protocol.close(&Closure { code: 1000, reason: String::new() });
    protocol.ping();
    let sent = frames::parse_all(&protocol.take_replies());
    assert_eq!(sent, [(FIN | CLOSE, [&1001_u16.to_be_bytes()[..], b"bye"].concat())]);
    let wire = [frame(FIN | TEXT, b"late"), frame(FIN | PING, b""), close(1001, b"")].concat();
    let mut source = wire.as_slice();
    assert!(matches!(protocol.read(&mut source), Step::Message(_)));
    assert!(matches!(protocol.read(&mut source), Step::Control));
    let Step::Closed(closure) = protocol.read(&mut source) else { panic!("it is closed") };
    assert_eq!(closure.code, 1001);
    assert!(!protocol.has_replies(), "a close is sent once, and nothing after it");
}

#[test]
fn a_flood_of_pings_leaves_pongs_that_can_be_bounded() {
    let mut protocol = Protocol::new(MESSAGE_BYTES_MAX);
    let wire = frame(FIN | PING, &[1; 125]).repeat(10);
    let mut source = wire.as_slice();
    for count in 1..=10 {
        assert!(matches!(protocol.read(&mut source), Step::Control));
        assert_eq!(protocol.reply_bytes(), count * 127, "one step answers one ping");
    }
    let mut unsent = protocol.take_replies();
    unsent.drain(..127);
    protocol.ping();
    protocol.return_replies(unsent);
    let frames = frames::parse_all(&protocol.take_replies());
    assert_eq!(frames.len(), 10);
    assert_eq!(frames[9], (FIN | PING, Vec::new()), "what was unsent goes before");
}
