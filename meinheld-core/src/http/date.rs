//! The Date field line, formatted once a second and not once a response.
//!
//! It reads no clock: the time is passed in.

use std::io::Write;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;

/// The last second that has a four-digit year, 9999-12-31T23:59:59Z.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

/// `Date: `, 29 bytes of IMF-fixdate, CR LF.
const LINE_BYTES: usize = 37;
const VALUE: std::ops::Range<usize> = 6..35;

/// One second of Unix time as an IMF-fixdate (RFC 9110 section 5.6.7), ready to be copied into
/// responses.
#[derive(Clone, Debug)]
pub struct DateCache {
    unix_seconds: u64,
    line: [u8; LINE_BYTES],
}

impl DateCache {
    /// The cache for `unix_seconds`, in seconds since 1970-01-01T00:00:00Z.
    pub fn new(unix_seconds: u64) -> Self {
        let mut cache = Self { unix_seconds, line: [0; LINE_BYTES] };
        cache.format();
        cache
    }

    /// Moves to `unix_seconds`, in seconds since 1970-01-01T00:00:00Z; costs one comparison if that
    /// is the second it holds. Times after the year 9999 are shown as its last second.
    pub fn refresh(&mut self, unix_seconds: u64) {
        if self.unix_seconds != unix_seconds {
            self.unix_seconds = unix_seconds;
            self.format();
        }
    }

    /// The second that it holds.
    pub(super) fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }

    /// The IMF-fixdate, 29 bytes, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn value(&self) -> &[u8] {
        &self.line[VALUE]
    }

    /// The whole field line, with its CR LF.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    fn format(&mut self) {
        let since_epoch = Duration::from_secs(self.unix_seconds.min(UNIX_SECONDS_MAX));
        let date = HttpDate::from(SystemTime::UNIX_EPOCH + since_epoch);
        write!(&mut self.line[..], "Date: {date}\r\n")
            .expect("an IMF-fixdate of a four-digit year is 29 bytes");
    }
}

impl Default for DateCache {
    /// The cache for the Unix epoch.
    fn default() -> Self {
        Self::new(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_an_imf_fixdate_of_rfc_9110_section_5_6_7() {
        let cases: &[(u64, &str)] = &[
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (UNIX_SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        let mut refreshed = DateCache::default();
        for (unix_seconds, expected) in cases {
            refreshed.refresh(*unix_seconds);
            assert_eq!(refreshed.value(), expected.as_bytes());
            assert_eq!(DateCache::new(*unix_seconds).value(), expected.as_bytes());
            assert_eq!(refreshed.line(), format!("Date: {expected}\r\n").as_bytes());
        }
    }

    #[test]
    fn the_second_it_holds_is_not_formatted_again() {
        let mut cache = DateCache::new(1);
        cache.line = [b'x'; LINE_BYTES];
        cache.refresh(1);
        assert_eq!(cache.line(), [b'x'; LINE_BYTES]);
        cache.refresh(2);
        assert_eq!(cache.value(), b"Thu, 01 Jan 1970 00:00:02 GMT");
    }
}
