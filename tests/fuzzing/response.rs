//! Any status and headers of an application: what is accepted comes out as one well-formed head with
//! one framing, and what is refused leaves nothing behind.
//!
//! The input is one record for the request and the status, `F200 OK`, where `F` is a byte of flags,
//! and then one for each header, `name US value`; RS stands between records.

use meinheld_core::http::{
    BodyEncoding, BodyPlan, KeepAlive, RequestFacts, RequestKind, ResponseBuilder, ServerFields,
    Version, early_hints, error_response, parse_status,
};

use super::reply::{Reply, read_head};

const RECORD_SEPARATOR: u8 = 0x1e;
const UNIT_SEPARATOR: u8 = 0x1f;
const KEPT: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

struct Input<'d> {
    facts: RequestFacts,
    known_body_bytes: Option<u64>,
    status: &'d [u8],
    fields: Vec<(&'d [u8], &'d [u8])>,
}

/// Builds a final response, a 103 and an error response of `data`.
pub(crate) fn response(data: &[u8]) {
    let input = parse(data);
    check_early_hints(&input);
    let Ok((status, reason)) = parse_status(input.status) else { return };
    if (400..=599).contains(&status) {
        check_error(status, &input);
    }
    let begun = if status == 101 {
        ResponseBuilder::begin_upgrade(reason)
    } else {
        ResponseBuilder::begin(status, reason)
    };
    let Ok(mut builder) = begun else { return };
    let mut accepted = Vec::new();
    for &(name, value) in &input.fields {
        // A header that is refused adds nothing, and the next one is as good as ever.
        if builder.header(name, value).is_ok() {
            accepted.push((name, value));
        }
    }
    let server = ServerFields::default();
    let mut wire = KEPT.to_vec();
    let finished = builder.finish(input.facts, input.known_body_bytes, &server, &mut wire);
    let Ok(plan) = finished else { return assert_eq!(wire, KEPT) };
    let wire = wire.strip_prefix(KEPT).expect("what was in the buffer stays");
    let (reply, head_bytes) = read_head(wire).expect("the head is whole");
    assert_eq!(head_bytes, wire.len(), "nothing follows the head: {}", wire.escape_ascii());
    assert_eq!((reply.status, reply.reason.as_slice()), (status, reason));
    check_fields(&reply, &accepted);
    check_framing(&reply, plan, &input);
    check_connection(&reply, plan, &input);
}

fn parse(data: &[u8]) -> Input<'_> {
    let mut records = data.split(|&byte| byte == RECORD_SEPARATOR);
    let (flags, status) = records.next().and_then(<[u8]>::split_first).unwrap_or((&0, b""));
    let has = |bit: u8| flags >> bit & 1 == 1;
    let version = if has(0) { Version::Http10 } else { Version::Http11 };
    let keep_alive = if has(3) { KeepAlive::Close } else { KeepAlive::Keep };
    let kind = match flags >> 1 & 3 {
        1 => RequestKind::Head,
        2 => RequestKind::Connect,
        _ => RequestKind::Other,
    };
    let fields = records.map(|record| {
        let end = record.iter().position(|&byte| byte == UNIT_SEPARATOR);
        let end = end.unwrap_or(record.len());
        (&record[..end], record.get(end + 1..).unwrap_or_default())
    });
    Input {
        facts: RequestFacts { version, kind, keep_alive },
        known_body_bytes: has(4).then_some(u64::from(flags >> 5)),
        status,
        fields: fields.collect(),
    }
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// The application's fields come out as they went in and in order, but for those that the server
/// writes itself; and it adds no more than those it must.
fn check_fields(reply: &Reply, accepted: &[(&[u8], &[u8])]) {
    let ours = |name: &[u8]| is(name, "connection") || is(name, "content-length");
    let said: Vec<(&[u8], &[u8])> =
        accepted.iter().copied().filter(|(name, _)| !ours(name)).collect();
    let sent: Vec<(&[u8], &[u8])> =
        reply.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
    assert_eq!(sent[..said.len()], said[..]);
    for (name, _) in &sent[said.len()..] {
        let known = ["date", "server", "content-length", "transfer-encoding", "connection"];
        assert!(known.iter().any(|known| is(name, known)), "{reply:?}");
    }
    assert!(!reply.all("date").is_empty() && !reply.all("server").is_empty());
    let allowed = |name: &str| said.iter().filter(|(known, _)| is(known, name)).count().max(1);
    assert_eq!(reply.all("date").len(), allowed("date"), "{reply:?}");
    assert_eq!(reply.all("server").len(), allowed("server"), "{reply:?}");
}

/// RFC 9112 section 6.3: the head says what the plan says, once.
fn check_framing(reply: &Reply, plan: BodyPlan, input: &Input<'_>) {
    let length = reply.one("content-length").map(<[u8]>::to_vec);
    let coding = reply.one("transfer-encoding").map(<[u8]>::to_vec);
    let expected = match plan.encoding {
        BodyEncoding::Length(bytes) => (Some(bytes.to_string().into_bytes()), None),
        BodyEncoding::Chunked => (None, Some(b"chunked".to_vec())),
        BodyEncoding::UntilClose => (None, None),
        BodyEncoding::None => {
            let head = input.facts.kind == RequestKind::Head;
            assert!(head || matches!(reply.status, 204 | 205 | 304), "{reply:?}");
            assert!(reply.status != 204 || length.is_none(), "{reply:?}");
            (length.clone(), None)
        }
    };
    assert_eq!((length, coding), expected, "{reply:?}");
    if plan.encoding == BodyEncoding::Chunked {
        assert_eq!(input.facts.version, Version::Http11, "{reply:?}");
    }
}

fn check_connection(reply: &Reply, plan: BodyPlan, input: &Input<'_>) {
    reply.one("connection");
    if plan.encoding == BodyEncoding::UntilClose || input.facts.keep_alive == KeepAlive::Close {
        assert_eq!(plan.keep_alive, KeepAlive::Close, "{reply:?}");
    }
    if reply.status != 101 {
        assert_eq!(reply.closes(), plan.keep_alive == KeepAlive::Close, "{reply:?}");
    }
}

fn check_early_hints(input: &Input<'_>) {
    let mut out = KEPT.to_vec();
    let outcome = early_hints(input.facts.version, input.fields.iter().copied(), &mut out);
    let hints = out.strip_prefix(KEPT).expect("what was in the buffer stays");
    if outcome.is_err() || input.facts.version == Version::Http10 {
        assert_eq!(hints, b"", "nothing may be sent");
        return;
    }
    let (reply, head_bytes) = read_head(hints).expect("the head is whole");
    assert_eq!((reply.status, head_bytes), (103, hints.len()));
    assert_eq!(reply.fields.len(), input.fields.len());
    for name in ["content-length", "transfer-encoding", "connection"] {
        assert_eq!(reply.one(name), None);
    }
}

fn check_error(status: u16, input: &Input<'_>) {
    let mut out = Vec::new();
    error_response(status, input.facts.kind, &ServerFields::default(), &mut out);
    let (reply, head_bytes) = read_head(&out).expect("the head is whole");
    assert!(reply.closes() && reply.status == status, "{reply:?}");
    let body = &out[head_bytes..];
    if input.facts.kind == RequestKind::Head {
        assert_eq!(body, b"");
    } else {
        assert_eq!(reply.one("content-length"), Some(body.len().to_string().as_bytes()));
    }
}
