//! `uri-host [":" port]`, the value of Host and the authority of a request target, by RFC 3986
//! section 3.2. Frameworks rebuild URLs from it, so nothing else may pass.

use std::net::Ipv6Addr;

use super::grammar::is_host_byte;

/// Whether `value` is a host that is not empty, with or without a port.
///
/// User information is refused with the rest that is no host (RFC 9110 section 4.2.4).
pub(super) fn is_host(value: &[u8]) -> bool {
    split_port(value).is_some_and(|(host, port)| is_uri_host(host) && port.is_none_or(is_port))
}

/// Whether `value` is `uri-host ":" port` with both present, the authority-form of RFC 9112 section
/// 3.2.3.
pub(super) fn is_host_with_port(value: &[u8]) -> bool {
    split_port(value).is_some_and(|(host, port)| {
        is_uri_host(host) && port.is_some_and(|port| !port.is_empty() && is_port(port))
    })
}

/// Splits off the port at the first colon outside brackets; `None` if a bracket is not closed.
fn split_port(value: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let bracketed = match value {
        [b'[', ..] => memchr::memchr(b']', value)? + 1,
        _ => 0,
    };
    let host_bytes = match memchr::memchr(b':', &value[bracketed..]) {
        Some(colon) => bracketed + colon,
        None => value.len(),
    };
    let (host, rest) = value.split_at(host_bytes);
    Some((host, rest.split_first().map(|(_colon, port)| port)))
}

/// RFC 3986 section 3.2.2; the empty host is refused as RFC 9110 section 4.2.1 says for http.
fn is_uri_host(host: &[u8]) -> bool {
    match host {
        [] => false,
        [b'[', literal @ .., b']'] => is_ipv6(literal) || is_ip_future(literal),
        name => is_reg_name(name),
    }
}

/// `IPv6address`; zone identifiers are not for the wire (RFC 9844).
fn is_ipv6(literal: &[u8]) -> bool {
    str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// `IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )`.
fn is_ip_future(literal: &[u8]) -> bool {
    let [b'v' | b'V', rest @ ..] = literal else { return false };
    let Some(dot) = memchr::memchr(b'.', rest) else { return false };
    let (version, address) = (&rest[..dot], &rest[dot + 1..]);
    !version.is_empty()
        && !address.is_empty()
        && version.iter().all(u8::is_ascii_hexdigit)
        && address.iter().all(|&byte| byte == b':' || is_host_byte(byte))
}

/// `reg-name = *( unreserved / pct-encoded / sub-delims )`; every IPv4 address is one.
fn is_reg_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if is_host_byte(*byte) => rest,
            _ => return false,
        };
    }
}

/// `port = *DIGIT`, within what TCP knows.
fn is_port(port: &[u8]) -> bool {
    port.is_empty() || super::grammar::parse_decimal(port).is_some_and(|port| port <= 65_535)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay;

    #[test]
    fn hosts_follow_rfc_3986_section_3_2() {
        let cases: &[(&str, bool)] = &[
            ("example.com", true),
            ("EXAMPLE.com:8080", true),
            ("example.com:", true), // 3.2.3: a port may be empty
            ("127.0.0.1:80", true),
            ("a_b.internal", true),
            ("caf%C3%A9.example", true),
            ("a!$&'()*+,;=b", true),
            ("[::1]", true),
            ("[::1]:8000", true),
            ("[2001:db8::ffff:192.0.2.1]:", true),
            ("[v1.fe:d]", true),
            ("", false),                 // RFC 9110 4.2.1
            (":80", false),              // RFC 9110 4.2.1
            ("user@example.com", false), // RFC 9110 4.2.4
            ("example.com/path", false), // 3.2: the authority ends before it
            ("example.com?x", false),
            ("example.com#x", false),
            ("example.com:80:80", false),
            ("example.com:80a", false), // 3.2.3
            ("example.com:+80", false),
            ("example.com:65536", false), // no TCP port
            ("exa mple.com", false),
            ("a\\b", false),
            ("<script>", false),
            ("a%2", false), // 2.1
            ("a%zz", false),
            ("caf\u{e9}.example", false), // 3.2.2: ASCII only
            ("::1", false),               // 3.2.2: brackets are needed
            ("[::1", false),
            ("[::1]x", false),
            ("[::1]80", false),
            ("[]", false),
            ("[::g]", false),
            ("[fe80::1%25eth0]", false),
            ("[127.0.0.1]", false),
            ("[v.x]", false),
            ("[v1.]", false),
        ];
        for (host, expected) in cases {
            assert_eq!(is_host(host.as_bytes()), *expected, "{host:?}");
            // The empty field is what a client without an authority sends (RFC 9112 section 3.2).
            let status = if *expected || host.is_empty() { 200 } else { 400 };
            let wire = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let answers = replay::answers(wire.as_bytes());
            assert_eq!(answers[0].0, status, "{host:?}");
            let wire = format!("GET http://{host} HTTP/1.1\r\nHost: other\r\n\r\n");
            let status = if *expected || *host == "example.com/path" || *host == "example.com?x" {
                200
            } else {
                400
            };
            assert_eq!(replay::answers(wire.as_bytes())[0].0, status, "{host:?}");
        }
    }

    #[test]
    fn an_authority_form_needs_its_port_per_rfc_9112_section_3_2_3() {
        let cases: &[(&str, bool)] = &[
            ("example.com:443", true),
            ("[::1]:443", true),
            ("example.com", false),
            ("example.com:", false),
            (":443", false),
            ("example.com:99999", false),
        ];
        for (authority, expected) in cases {
            assert_eq!(is_host_with_port(authority.as_bytes()), *expected, "{authority:?}");
        }
    }
}
