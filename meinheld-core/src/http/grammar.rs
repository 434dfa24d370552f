//! The small grammar rules that RFC 9110 section 5.6 and RFC 3986 section 2 give to all the rest:
//! classes of bytes, strict integers, lists.

/// `tchar` of RFC 9110 section 5.6.2.
const TOKEN: u8 = 1;
/// What a request target may hold before its `?`; see [`is_path_byte`].
const PATH: u8 = 1 << 1;
/// What a request target may hold after its `?`; see [`is_query_byte`].
const QUERY: u8 = 1 << 2;
/// `unreserved` and `sub-delims` of RFC 3986 section 2.
const HOST: u8 = 1 << 3;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    table = mark(table, b"!#$%&'*+-.^_`|~", TOKEN);
    table = mark(table, b"!$&'()*+,-.;=_~", HOST | PATH | QUERY);
    table = mark(table, b"/:@%[]|", PATH | QUERY);
    table = mark(table, b"?\\^`{}", QUERY);
    let mut byte: u8 = 0;
    while byte < u8::MAX {
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] = TOKEN | HOST | PATH | QUERY;
        }
        if byte >= 0x80 {
            table[byte as usize] = PATH | QUERY;
        }
        byte += 1;
    }
    table[u8::MAX as usize] = PATH | QUERY;
    table
}

const fn mark(mut table: [u8; 256], members: &[u8], class: u8) -> [u8; 256] {
    let mut at = 0;
    while at < members.len() {
        table[members[at] as usize] |= class;
        at += 1;
    }
    table
}

fn is_in(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Whether `byte` is a `tchar`, RFC 9110 section 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    is_in(byte, TOKEN)
}

/// Whether `bytes` is a `token`, RFC 9110 section 5.6.2; the empty string is none.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// Whether `byte` may stand in a request target before the first `?`.
///
/// These are the bytes of RFC 3986 section 3.3, and three that are not: `[`, `]` and `|`, which
/// browsers send raw (the path percent-encode set of the WHATWG URL standard leaves them), and bytes
/// from 0x80 on, which curl sends raw. Space, controls, DEL, `#` and ``"<>\^`{}`` are refused.
pub(super) fn is_path_byte(byte: u8) -> bool {
    is_in(byte, PATH)
}

/// Whether `byte` may stand in a request target after the first `?`.
///
/// These are the bytes of RFC 3986 section 3.4, and those that the query percent-encode set of the
/// WHATWG URL standard leaves raw in every browser: ``[]{}|\^` ``. Space, controls, DEL, `#`, `"`,
/// `<` and `>` are refused.
pub(super) fn is_query_byte(byte: u8) -> bool {
    is_in(byte, QUERY)
}

/// Whether `byte` is `unreserved` or one of `sub-delims`, RFC 3986 section 2.
pub(super) fn is_host_byte(byte: u8) -> bool {
    is_in(byte, HOST)
}

/// Whether `byte` may stand in a field value or a reason phrase: HTAB, SP, VCHAR and obs-text, RFC
/// 9110 section 5.5.
pub(super) fn is_value_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// Whether all of `bytes` may stand in a field value or a reason phrase.
pub(super) fn is_field_value(bytes: &[u8]) -> bool {
    // Without an early exit the compiler checks many bytes at once, and nearly all values are good.
    bytes.iter().fold(true, |good, &byte| good & is_value_byte(byte))
}

/// Reads `1*DIGIT` and nothing else: no sign, no space, no `_`, no overflow.
pub(super) fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// The value of one `HEXDIG`, in either case.
pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The elements of a comma-separated list, RFC 9110 section 5.6.1, without the white space around
/// them; empty elements are handed on.
pub(crate) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim_ows)
}

/// Without the optional white space, SP and HTAB, at both ends; RFC 9110 section 5.6.3.
pub(super) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_exactly_the_characters_of_rfc_9110_section_5_6_2() {
        for byte in 0..=u8::MAX {
            let delimiter = b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(is_token_byte(byte), byte.is_ascii_graphic() && !delimiter, "{byte:#x}");
        }
        assert!(!is_token(b""));
        assert!(!is_token(b"a b"));
    }

    #[test]
    fn a_target_never_holds_space_control_fragment_or_angle_quotes() {
        for byte in 0..=u8::MAX {
            let refused = byte <= b' ' || byte == 0x7f || b"\"#<>".contains(&byte);
            assert_eq!(is_query_byte(byte), !refused, "query {byte:#x}");
            let refused = refused || b"?\\^`{}".contains(&byte);
            assert_eq!(is_path_byte(byte), !refused, "path {byte:#x}");
        }
    }

    #[test]
    fn a_field_value_holds_no_control_but_the_tab_per_rfc_9110_section_5_5() {
        for byte in 0..=u8::MAX {
            let allowed = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            assert_eq!(is_field_value(&[b'a', byte, b'b']), allowed, "{byte:#x}");
        }
        assert!(is_field_value(b""));
    }

    #[test]
    fn a_host_byte_is_unreserved_or_a_sub_delimiter_of_rfc_3986_section_2() {
        for byte in 0..=u8::MAX {
            let allowed = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
            assert_eq!(is_host_byte(byte), allowed, "{byte:#x}");
        }
    }

    #[test]
    fn integers_are_strict() {
        let cases: &[(&[u8], Option<u64>)] = &[
            (b"0", Some(0)),
            (b"007", Some(7)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"99999999999999999999999", None),
            (b"", None),
            (b"+1", None),
            (b"-1", None),
            (b"1_0", None),
            (b" 1", None),
            (b"1 ", None),
            (b"0x1", None),
            (b"1,1", None),
            (b"\xb2", None),
        ];
        for (digits, expected) in cases {
            assert_eq!(parse_decimal(digits), *expected, "{}", digits.escape_ascii());
        }
    }

    #[test]
    fn a_list_is_split_at_commas_and_trimmed() {
        let elements: Vec<&[u8]> = list_elements(b" close ,\tupgrade,, x y").collect();
        assert_eq!(elements, [&b"close"[..], b"upgrade", b"", b"x y"]);
    }
}
