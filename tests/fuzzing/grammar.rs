//! The characters of HTTP, by RFC 9110 section 5 and as naively as can be: what the targets check
//! against, which knows nothing of the server's own reading.

/// What a token is made of.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// What may stand in a value or a phrase; CR and LF may not, so that no line ends within one.
pub(crate) fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

pub(crate) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| is_text_byte(byte))
}

/// Without the white space around it.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// As much of it as a person may want to read.
pub(crate) fn show(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(2000)].escape_ascii().to_string()
}
