//! Something that goes on and on, and is worth a line in a log now and then.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How often it is reported at the most.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// When something was reported last.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    reported: Cell<Option<Instant>>,
}

impl Seldom {
    /// Whether it is to be reported now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let due = self.reported.get().is_none_or(|last| now >= last + REPORT_INTERVAL);
        if due {
            self.reported.set(Some(now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_each_interval() {
        let (seldom, begin) = (Seldom::default(), Instant::now());
        let due = (0..300).filter(|tenth| seldom.is_due(begin + REPORT_INTERVAL * *tenth / 100));
        assert_eq!(due.collect::<Vec<_>>(), [0, 100, 200]);
    }
}
