//! How often to try again, and how long to wait between.

use std::time::Duration;

/// The guide's exponential back-off: immediate, then `initial_backoff`, doubling up to `max_backoff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Counts the first try: `attempts: 3` waits twice.
    pub attempts: u32,
    /// The wait before the second attempt.
    pub initial_backoff: Duration,
    /// No wait is longer.
    pub max_backoff: Duration,
}

impl Policy {
    /// The wait after failed attempt number `attempt` (from 1), or `None` if that was the last.
    /// A wait that the failed service asked for is honoured up to `max_backoff`.
    #[must_use]
    pub fn wait_after(&self, attempt: u32, asked_for: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.initial_backoff.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1)));
        Some(doubled.max(asked_for.unwrap_or_default()).min(self.max_backoff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUIDE: Policy =
        Policy { attempts: 9, initial_backoff: Duration::from_secs(2), max_backoff: Duration::from_secs(60) };

    #[test]
    fn the_guides_schedule() {
        let waits: Vec<_> = (1..9).map(|n| GUIDE.wait_after(n, None).unwrap().as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(GUIDE.wait_after(9, None), None);
    }

    #[test]
    fn a_wait_that_was_asked_for_is_honoured_up_to_the_cap() {
        assert_eq!(GUIDE.wait_after(1, Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(GUIDE.wait_after(1, Some(Duration::from_secs(700))), Some(Duration::from_secs(60)));
    }
}
