//! What holds for every message: the bytes decide, not how they were cut, nor into how much room
//! they were read; and what was encoded is what is decoded.
//!
//! The cases are the same in every run.

#[path = "support/repeatable.rs"]
mod repeatable;

use std::num::NonZeroUsize;

use meinheld_core::http::{
    BodyEncoding, BodyLimits, CHUNK_END, ChunkHeader, Decoder, HeadIndex, HeadLimits, KeepAlive,
    LAST_CHUNK, Parsed, RequestFacts, RequestKind, ResponseBuilder, ServerFields, Version,
    percent_decode_path,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use repeatable::repeatable;

proptest! {
    #![proptest_config(repeatable(256))]

    #[test]
    fn a_chunked_body_is_decoded_alike_however_it_is_cut(
        body in chunked_body(),
        cuts in vec(any::<Index>(), 0..8),
        rooms in vec(1_usize..40, 1..8),
    ) {
        let mut wire = body.wire.clone();
        wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let (content, consumed) = decode(Decoder::chunked(&limits()), &wire, &cuts, &rooms);
        prop_assert_eq!(content, body.content);
        prop_assert_eq!(consumed, body.wire.len());
    }

    #[test]
    fn a_length_body_is_decoded_alike_however_it_is_cut(
        content in vec(any::<u8>(), 0..200),
        behind in vec(any::<u8>(), 0..20),
        cuts in vec(any::<Index>(), 0..8),
        rooms in vec(1_usize..40, 1..8),
    ) {
        let wire = [&content[..], &behind].concat();
        let decoder = Decoder::length(content.len() as u64);
        let (decoded, consumed) = decode(decoder, &wire, &cuts, &rooms);
        prop_assert_eq!(&decoded, &content);
        prop_assert_eq!(consumed, content.len());
    }

    #[test]
    fn a_cut_off_body_is_never_whole(body in chunked_body(), cut in any::<Index>()) {
        let wire = &body.wire[..cut.index(body.wire.len())];
        let mut decoder = Decoder::chunked(&limits());
        let mut content = vec![0; wire.len()];
        let decoded = decoder.decode(wire, &mut content).unwrap();
        prop_assert!(!decoder.is_done() && decoder.handle_eof().is_err());
        prop_assert!(body.content.starts_with(&content[..decoded.produced]));
    }

    #[test]
    fn what_is_encoded_in_chunks_is_decoded_again(pieces in vec(vec(any::<u8>(), 0..60), 0..8)) {
        let mut wire = Vec::new();
        for piece in &pieces {
            if let Some(size) = NonZeroUsize::new(piece.len()) {
                wire.extend_from_slice(ChunkHeader::new(size).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(CHUNK_END);
            }
        }
        wire.extend_from_slice(LAST_CHUNK);
        let (content, consumed) = decode(Decoder::chunked(&limits()), &wire, &[], &[64]);
        prop_assert_eq!(content, pieces.concat());
        prop_assert_eq!(consumed, wire.len());
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_at_its_last_byte(
        (method, target, fields) in (token(), target(), vec((token(), value()), 0..10)),
        behind in vec(any::<u8>(), 0..20),
        cuts in vec(any::<Index>(), 1..8),
    ) {
        let method = method[..method.len().min(32)].to_owned();
        prop_assume!(method != "CONNECT");
        let mut wire = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for (name, value) in &fields {
            // A prefix, so that no name is one that means something.
            wire.extend_from_slice(format!("x{name}: ").as_bytes());
            wire.extend_from_slice(value);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"\r\n");
        let mut index = HeadIndex::new();
        for cut in cuts {
            let part = &wire[..cut.index(wire.len())];
            prop_assert_eq!(index.parse(part, &head_limits()), Ok(Parsed::Incomplete));
        }
        let head_bytes = wire.len();
        wire.extend_from_slice(&behind);
        prop_assert_eq!(
            index.parse(&wire, &head_limits()),
            Ok(Parsed::Complete { head_bytes })
        );
        let head = index.view(&wire);
        prop_assert_eq!(head.method(), &method);
        prop_assert_eq!(head.target().raw(), target.as_bytes());
        let seen: Vec<(String, Vec<u8>)> =
            head.headers().skip(1).map(|(name, value)| (name.into(), value.into())).collect();
        let written: Vec<(String, Vec<u8>)> = fields
            .iter()
            .map(|(name, value)| (format!("x{name}"), value.trim_ascii().to_vec()))
            .filter(|(name, _)| !name.contains('_'))
            .collect();
        prop_assert_eq!(seen, written);
    }

    #[test]
    fn a_path_that_is_percent_encoded_is_decoded_again(
        path in vec((any::<u8>(), any::<bool>()), 0..60),
    ) {
        let mut encoded = Vec::new();
        for (byte, lower) in &path {
            match (byte.is_ascii_alphanumeric(), lower) {
                (true, true) => encoded.push(*byte),
                (_, true) => encoded.extend_from_slice(format!("%{byte:02x}").as_bytes()),
                (_, false) => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            }
        }
        let mut decoded = b"kept".to_vec();
        percent_decode_path(&encoded, &mut decoded);
        let plain: Vec<u8> = path.iter().map(|(byte, _)| *byte).collect();
        prop_assert_eq!(decoded.strip_prefix(b"kept"), Some(&plain[..]));
    }

    #[test]
    fn any_path_is_decoded_to_no_more_bytes(path in vec(any::<u8>(), 0..60)) {
        let mut decoded = Vec::new();
        percent_decode_path(&path, &mut decoded);
        prop_assert!(decoded.len() <= path.len());
        let escapes = path.split(|&byte| byte == b'%').count() - 1;
        prop_assert!(decoded.len() >= path.len() - 2 * escapes);
    }

    #[test]
    fn a_response_head_is_read_as_it_was_written(
        (facts, status, reason) in (facts(), 200_u16..=599, value()),
        fields in vec((token(), value()), 0..10),
        known in proptest::option::of(0_u64..1000),
    ) {
        let mut builder = ResponseBuilder::begin(status, &reason).unwrap();
        let fields: Vec<(String, Vec<u8>)> =
            fields.into_iter().map(|(name, value)| (format!("x{name}"), value)).collect();
        for (name, value) in &fields {
            builder.header(name.as_bytes(), value).unwrap();
        }
        let mut wire = Vec::new();
        let plan = builder.finish(facts, known, &ServerFields::default(), &mut wire).unwrap();

        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&wire).unwrap();
        prop_assert_eq!(parsed, httparse::Status::Complete(wire.len()));
        prop_assert_eq!((response.version, response.code), (Some(1), Some(status)));
        let seen: Vec<(String, Vec<u8>)> = response
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), header.value.to_vec()))
            .collect();
        let written: Vec<(String, Vec<u8>)> = fields
            .iter()
            .map(|(name, value)| (name.clone(), value.trim_ascii().to_vec()))
            .collect();
        prop_assert_eq!(&seen[..written.len()], &written[..]);
        let framing = |name: &str| {
            let named = seen[written.len()..].iter().filter(|(known, _)| known == name);
            named.map(|(_, value)| String::from_utf8(value.clone()).unwrap()).collect::<Vec<_>>()
        };
        let (lengths, codings) = (framing("Content-Length"), framing("Transfer-Encoding"));
        match plan.encoding {
            BodyEncoding::Length(bytes) => {
                prop_assert_eq!((lengths, codings.len()), (vec![bytes.to_string()], 0));
            }
            BodyEncoding::Chunked => {
                prop_assert_eq!((lengths.len(), codings), (0, vec!["chunked".to_owned()]));
            }
            BodyEncoding::UntilClose => {
                prop_assert_eq!((lengths.len(), codings.len()), (0, 0));
                prop_assert_eq!(plan.keep_alive, KeepAlive::Close);
            }
            BodyEncoding::None => prop_assert!(lengths.len() <= 1 && codings.is_empty()),
        }
    }

    #[test]
    fn a_line_end_in_a_response_is_refused_wherever_it_stands(
        (before, after) in (value(), value()),
        end in select(vec![&b"\r"[..], b"\n", b"\r\n", b"\0"]),
    ) {
        let value = [&before[..], end, &after].concat();
        prop_assert!(ResponseBuilder::begin(200, &value).is_err());
        let mut builder = ResponseBuilder::begin(200, b"OK").unwrap();
        prop_assert!(builder.header(b"X", &value).is_err());
        prop_assert!(builder.header(&[b"X", &value[..]].concat(), b"x").is_err());
    }
}

/// A chunked body, and its content.
#[derive(Clone, Debug)]
struct Body {
    wire: Vec<u8>,
    content: Vec<u8>,
}

fn limits() -> BodyLimits {
    BodyLimits::default()
}

fn head_limits() -> HeadLimits {
    HeadLimits::default()
}

/// Feeds `wire`, cut at `cuts`, into output of `rooms` bytes in turn; gives the content and how many
/// bytes of `wire` belonged to the body.
fn decode(mut decoder: Decoder, wire: &[u8], cuts: &[Index], rooms: &[usize]) -> (Vec<u8>, usize) {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
    ends.push(wire.len());
    ends.sort_unstable();
    let mut rooms = rooms.iter().copied().cycle();
    let (mut content, mut consumed) = (Vec::new(), 0);
    for end in ends {
        while consumed < end && !decoder.is_done() {
            let mut output = vec![0; rooms.next().expect("they come again and again")];
            let step = decoder.decode(&wire[consumed..end], &mut output).expect("it is valid");
            assert!(step.consumed > 0, "no progress");
            content.extend_from_slice(&output[..step.produced]);
            consumed += step.consumed;
        }
    }
    assert!(decoder.is_done() && decoder.handle_eof().is_ok());
    (content, consumed)
}

/// Any body that RFC 9112 section 7.1 allows: extensions, leading zeros, either case, trailers.
fn chunked_body() -> impl Strategy<Value = Body> {
    let chunk = (vec(any::<u8>(), 1..50), 0_usize..4, any::<bool>(), extension());
    let trailers = vec((token(), value()), 0..4);
    (vec(chunk, 0..6), extension(), trailers).prop_map(|(chunks, extension, trailers)| {
        let (mut wire, mut content) = (Vec::new(), Vec::new());
        for (data, zeros, lower, extension) in &chunks {
            let size = data.len();
            let size = if *lower { format!("{size:x}") } else { format!("{size:X}") };
            let line = format!("{}{size}{extension}\r\n", "0".repeat(*zeros));
            wire.extend_from_slice(line.as_bytes());
            wire.extend_from_slice(data);
            wire.extend_from_slice(b"\r\n");
            content.extend_from_slice(data);
        }
        wire.extend_from_slice(format!("0{extension}\r\n").as_bytes());
        for (name, value) in &trailers {
            wire.extend_from_slice(format!("{name}:").as_bytes());
            wire.extend_from_slice(value);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"\r\n");
        Body { wire, content }
    })
}

fn extension() -> impl Strategy<Value = String> {
    select(vec!["", ";a", ";a=b", " ;a", "\t;a=\"b c\"", ";a;b=\"\\\"\"", "; a = b"])
        .prop_map(str::to_owned)
}

/// RFC 9110 section 5.6.2.
fn token() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}"
}

/// HTAB, SP, VCHAR and obs-text, RFC 9110 section 5.5.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        8 => 0x21_u8..=0x7e,
        1 => select(vec![b' ', b'\t']),
        1 => 0x80_u8..=0xff,
    ];
    vec(byte, 0..60)
}

/// RFC 9112 section 3.2.1.
fn target() -> impl Strategy<Value = String> {
    "/[!$&'()*+,.;=_~0-9A-Za-z/:@%-]{0,60}([?][!$&'()*+,.;=_~0-9A-Za-z/:@%?-]{0,60})?"
}

fn facts() -> impl Strategy<Value = RequestFacts> {
    let versions = select(vec![Version::Http10, Version::Http11]);
    let kinds = select(vec![RequestKind::Head, RequestKind::Connect, RequestKind::Other]);
    let wishes = select(vec![KeepAlive::Keep, KeepAlive::Close]);
    (versions, kinds, wishes).prop_map(|(version, kind, keep_alive)| RequestFacts {
        version,
        kind,
        keep_alive,
    })
}
