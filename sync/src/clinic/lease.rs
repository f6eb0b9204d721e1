//! Which of the servers publishes the board.
//!
//! ```text
//! nobody's, or mine from before ─▶ taken        renewed every RENEW ─▶ mine for LEASE from when it was asked for
//! another's, and unchanged for LEASE since I first saw it so ─▶ taken over
//! ```
//!
//! The row has no date in it: a server goes by its own monotonic clock and by whether the row changes, so servers whose
//! wall clocks differ do not take the lease from each other. A plain value: no store, no clock.

use std::time::Duration;

use tokio::time::Instant;

use super::store::LeaseRow;

/// A holder that has not renewed it for so long is dead, or has lost the database.
pub const LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed, and looked at by the others. Two may be missed.
pub const RENEW: Duration = Duration::from_secs(5);

/// What one server knows of the lease.
#[derive(Debug)]
pub struct Tenure {
    server: String,
    /// As it was last read, and when it was first read so.
    seen: Option<(LeaseRow, Instant)>,
    mine_until: Option<Instant>,
    asked_at: Option<Instant>,
}

impl Tenure {
    /// A server that knows nothing of it yet.
    #[must_use]
    pub fn new(server: &str) -> Self {
        Self { server: server.into(), seen: None, mine_until: None, asked_at: None }
    }

    /// Whether it is time to read the row again.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|asked| now.saturating_duration_since(asked) >= RENEW)
    }

    /// Whether this server may publish.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        self.mine_until.is_some_and(|until| now < until)
    }

    /// The row was read, and it is `now` that the answer has come. Says whether to try to take it as it was read.
    pub fn wants(&mut self, row: Option<&LeaseRow>, now: Instant) -> bool {
        self.asked_at = Some(now);
        let Some(row) = row else { return true };
        let since = match &self.seen {
            Some((seen, since)) if seen == row => *since,
            Some(_) | None => now,
        };
        self.seen = Some((row.clone(), since));
        row.holder.is_empty() || row.holder == self.server || now.saturating_duration_since(since) >= LEASE
    }

    /// Whether it was taken, by what began at `asked`, which is before anybody can have seen it taken.
    pub fn settle(&mut self, is_taken: bool, asked: Instant) {
        self.mine_until = is_taken.then(|| asked + LEASE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(holder: &str, beat: i64) -> LeaseRow {
        LeaseRow { holder: holder.into(), beat }
    }

    fn after(begun: Instant, seconds: u64) -> Instant {
        begun + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_nobodys_or_was_mine_is_taken_at_once() {
        let now = Instant::now();
        for row in [None, Some(row("", 7)), Some(row("a", 7))] {
            let mut tenure = Tenure::new("a");
            assert!(tenure.is_due(now) && !tenure.holds(now));
            assert!(tenure.wants(row.as_ref(), now), "{row:?}");
            tenure.settle(true, now);
            assert!(tenure.holds(after(now, 14)) && !tenure.holds(after(now, 15)), "it ends by itself");
            assert!(!tenure.is_due(after(now, 4)) && tenure.is_due(after(now, 5)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn anothers_is_taken_over_only_when_it_has_not_changed_for_its_whole_time() {
        let now = Instant::now();
        let mut tenure = Tenure::new("b");
        for (seconds, beat) in [(0, 1), (5, 2), (10, 3), (15, 3), (20, 3), (24, 3)] {
            assert!(!tenure.wants(Some(&row("a", beat)), after(now, seconds)), "{seconds} s");
            tenure.settle(false, after(now, seconds));
        }
        assert!(tenure.wants(Some(&row("a", 3)), after(now, 25)));
        assert!(!tenure.wants(Some(&row("c", 4)), after(now, 26)), "a third was faster");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_lost_it_knows() {
        let now = Instant::now();
        let mut tenure = Tenure::new("a");
        assert!(tenure.wants(None, now));
        tenure.settle(true, now);
        assert!(!tenure.wants(Some(&row("b", 2)), after(now, 5)));
        tenure.settle(false, after(now, 5));
        assert!(!tenure.holds(after(now, 5)));
    }
}
