//! What was counted and measured, and the line that tells it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The figures of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    begun: Instant,
    /// How long each request took, in nanoseconds.
    latencies: Vec<u64>,
    /// Failures by their reason.
    failures: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { begun: Instant::now(), latencies: Vec::new(), failures: BTreeMap::new() }
    }

    pub(crate) fn answered(&mut self, asked: Instant, now: Instant) {
        let nanoseconds = now.duration_since(asked).as_nanos();
        self.latencies.push(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
    }

    pub(crate) fn failed(&mut self, reason: &str) {
        *self.failures.entry(reason.to_owned()).or_default() += 1;
    }

    pub(crate) fn answered_count(&self) -> u64 {
        self.latencies.len() as u64
    }

    pub(crate) fn failed_count(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// One line of JSON.
    pub(crate) fn line(mut self) -> String {
        let seconds = self.elapsed().as_secs_f64();
        self.latencies.sort_unstable();
        let at = |part: usize| {
            let index = (self.latencies.len() * part / 100).min(self.latencies.len().max(1) - 1);
            self.latencies.get(index).copied().unwrap_or(0)
        };
        let failures: Vec<String> = self
            .failures
            .iter()
            .map(|(reason, count)| format!("\"{}\": {count}", reason.escape_default()))
            .collect();
        format!(
            "{{\"answered\": {}, \"failed\": {}, \"seconds\": {seconds:.6}, \"p50_ns\": {}, \
             \"p99_ns\": {}, \"failures\": {{{}}}}}",
            self.latencies.len(),
            self.failed_count(),
            at(50),
            at(99),
            failures.join(", ")
        )
    }
}
