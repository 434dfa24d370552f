//! What is sent and what is expected: a template in which `{number}` stands for eight digits.

/// What a number replaces, in as many digits.
const MARK: &[u8] = b"{number}";
/// After so many it begins anew.
const NUMBERS: u64 = 100_000_000;

/// A request or a body, with a number of its own each time or none.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    marks: Vec<usize>,
}

impl Template {
    pub(crate) fn new(bytes: Vec<u8>) -> Template {
        let marks = bytes.windows(MARK.len()).enumerate();
        let marks = marks.filter(|(_, window)| *window == MARK).map(|(at, _)| at).collect();
        Template { bytes, marks }
    }

    /// Whether it is the same for every number.
    pub(crate) fn is_constant(&self) -> bool {
        self.marks.is_empty()
    }

    /// Its bytes with this number in them.
    pub(crate) fn numbered(&mut self, number: u64) -> &[u8] {
        let digits = format!("{:08}", number % NUMBERS);
        for mark in &self.marks {
            self.bytes[*mark..mark + MARK.len()].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_becomes_the_number() {
        let mut template = Template::new(b"a{number}b{number}".to_vec());
        assert!(!template.is_constant());
        assert_eq!(template.numbered(42), b"a00000042b00000042");
        assert_eq!(template.numbered(100_000_007), b"a00000007b00000007");
    }
}
