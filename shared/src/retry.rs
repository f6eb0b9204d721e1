//! How often to try again, how long to wait between, and with how large a model.
//!
//! The schedule depends on what happened: a crash is tried again as it was, a deadline once more and then with a
//! smaller model, a lack of memory only with a smaller one. Waits are the guide's; none is jittered, because a box's
//! engines are its own (the link, where many boxes move together, has its jitter in `chance`).

use std::time::Duration;

use crate::error::Advice;

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

/// The next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// How long to wait before it.
    pub wait: Duration,
    /// How many models smaller than the best it uses.
    pub rung: u32,
}

/// Where one guarded call stands: which attempt, with which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    policy: Policy,
    /// Models there are, the best first; at least one.
    rungs: u32,
    attempt: u32,
    rung: u32,
    /// Whether this model has exceeded its deadline before.
    was_late: bool,
}

impl Schedule {
    /// Before the first attempt, which uses model `rung` of `rungs`, counted from the best, 0.
    #[must_use]
    pub fn new(policy: Policy, rung: u32, rungs: u32) -> Self {
        let rungs = rungs.max(1);
        Self { policy, rungs, attempt: 1, rung: rung.min(rungs - 1), was_late: false }
    }

    /// The attempt under way, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The model of the attempt under way.
    #[must_use]
    pub fn rung(&self) -> u32 {
        self.rung
    }

    /// The attempt failed: what is next, or `None` if nothing is.
    pub fn failed(&mut self, advice: Advice, asked_for: Option<Duration>) -> Option<Next> {
        let smaller = (self.rung + 1 < self.rungs).then_some(self.rung + 1);
        let rung = match advice {
            Advice::GiveUp => None,
            Advice::Again => Some(self.rung),
            Advice::OnceMoreThenSmaller if self.was_late => smaller,
            Advice::OnceMoreThenSmaller => Some(self.rung),
            Advice::Smaller => smaller,
        }?;
        let wait = self.policy.wait_after(self.attempt, asked_for)?;
        self.was_late = rung == self.rung && (self.was_late || advice == Advice::OnceMoreThenSmaller);
        (self.attempt, self.rung) = (self.attempt.saturating_add(1), rung);
        Some(Next { wait, rung })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Advice::{Again, GiveUp, OnceMoreThenSmaller, Smaller};

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

    /// The models of the attempts after the first, for these failures.
    fn models(rungs: u32, failures: &[Advice]) -> Vec<Option<u32>> {
        let mut schedule = Schedule::new(GUIDE, 0, rungs);
        failures.iter().map(|advice| schedule.failed(*advice, None).map(|next| next.rung)).collect()
    }

    #[test]
    fn a_crash_is_tried_again_as_it_was_and_a_bad_recording_is_not() {
        assert_eq!(models(3, &[Again, Again, GiveUp]), [Some(0), Some(0), None]);
    }

    #[test]
    fn out_of_memory_is_never_the_same_again() {
        assert_eq!(models(3, &[Smaller, Smaller, Smaller]), [Some(1), Some(2), None]);
        assert_eq!(models(1, &[Smaller]), [None]);
    }

    #[test]
    fn a_deadline_is_tried_once_more_and_then_smaller() {
        let late = OnceMoreThenSmaller;
        assert_eq!(models(2, &[late, late, late, late]), [Some(0), Some(1), Some(1), None]);
    }

    #[test]
    fn no_schedule_makes_more_attempts_than_allowed() {
        let mut schedule = Schedule::new(Policy { attempts: 3, ..GUIDE }, 0, 9);
        assert_eq!([(); 3].map(|()| schedule.failed(Smaller, None).is_some()), [true, true, false]);
        assert_eq!(schedule.attempt(), 3);
    }
}
