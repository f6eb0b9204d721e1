//! Which transcription model to use: a smaller one when memory, heat or time run short, the best again when it can.
//!
//!   best ── out of memory, late, warm, far behind ──▶ one smaller ──▶ …
//!   smaller ── held for a while, cool, not behind ──▶ one larger
//!
//! What it fell for may come back at once, so each return that does not last doubles the time until the next. A plain
//! value: no clock, no sensor.

use std::time::Duration;

/// How long a smaller model is kept at least: a board cools in minutes.
const HOLD: Duration = Duration::from_secs(5 * 60);
/// The longest it is kept without another try.
const LONGEST_HOLD: Duration = Duration::from_secs(60 * 60);
/// Windows waiting (of thirty seconds) that say the model is slower than the room: two minutes behind.
const BEHIND: u64 = 4;
/// Windows waiting that say it keeps up.
const CAUGHT_UP: u64 = 1;
/// A board this much below the warm mark is cool.
const COOL_BY_CELSIUS: f64 = 5.0;

/// What there is to go by before a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signs {
    /// Models there are, at least one.
    pub rungs: u32,
    /// Windows waiting.
    pub backlog: u64,
    /// The board's temperature, if it has a sensor.
    pub celsius: Option<f64>,
    /// From where it is warm.
    pub warm_celsius: f64,
}

/// See the top of the file. Times are uptimes.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    rung: u32,
    moved_at: Duration,
    hold: Duration,
}

impl Default for Ladder {
    fn default() -> Self {
        Self { rung: 0, moved_at: Duration::ZERO, hold: HOLD }
    }
}

impl Ladder {
    /// The model for the next window, counted from the best, 0.
    pub fn choose(&mut self, signs: Signs, now: Duration) -> u32 {
        let lowest = signs.rungs.max(1) - 1;
        self.rung = self.rung.min(lowest);
        let is_warm = signs.celsius.is_some_and(|c| c >= signs.warm_celsius);
        let is_cool = signs.celsius.is_none_or(|c| c < signs.warm_celsius - COOL_BY_CELSIUS);
        let held = now.saturating_sub(self.moved_at);
        if (is_warm || signs.backlog >= BEHIND) && self.rung < lowest && (self.rung == 0 || held >= HOLD) {
            self.fall_to(self.rung + 1, now);
        } else if self.rung > 0 && is_cool && signs.backlog <= CAUGHT_UP && held >= self.hold {
            (self.rung, self.moved_at) = (self.rung - 1, now);
        }
        self.rung
    }

    /// A window was done, or given up, with this model: a smaller one than was chosen is kept for the next.
    pub fn ended_with(&mut self, rung: u32, now: Duration) {
        if rung > self.rung {
            self.fall_to(rung, now);
        }
    }

    fn fall_to(&mut self, rung: u32, now: Duration) {
        let did_not_last = now.saturating_sub(self.moved_at) < self.hold && !self.moved_at.is_zero();
        self.hold = if did_not_last { (self.hold * 2).min(LONGEST_HOLD) } else { HOLD };
        (self.rung, self.moved_at) = (rung, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Signs = Signs { rungs: 3, backlog: 0, celsius: Some(50.0), warm_celsius: 75.0 };
    const HOT: Signs = Signs { celsius: Some(76.0), ..GOOD };
    const LATE: Signs = Signs { backlog: 4, ..GOOD };

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn heat_and_falling_behind_take_the_next_smaller_model_one_at_a_time() {
        for bad in [HOT, LATE] {
            let mut ladder = Ladder::default();
            assert_eq!(ladder.choose(GOOD, minutes(1)), 0);
            assert_eq!(ladder.choose(bad, minutes(2)), 1);
            assert_eq!(ladder.choose(bad, minutes(3)), 1, "it takes effect first");
            assert_eq!(ladder.choose(bad, minutes(7)), 2);
            assert_eq!(ladder.choose(bad, minutes(20)), 2, "there is nothing smaller");
        }
    }

    #[test]
    fn it_returns_when_the_board_is_cool_and_has_caught_up() {
        let mut ladder = Ladder::default();
        ladder.ended_with(1, minutes(10));
        assert_eq!(ladder.choose(GOOD, minutes(14)), 1);
        let warm = Signs { celsius: Some(71.0), ..GOOD };
        assert_eq!(ladder.choose(warm, minutes(16)), 1, "not quite cool");
        assert_eq!(ladder.choose(GOOD, minutes(16)), 0);
    }

    #[test]
    fn a_return_that_does_not_last_is_tried_later_each_time() {
        let mut ladder = Ladder::default();
        ladder.ended_with(1, minutes(10));
        assert_eq!(ladder.choose(GOOD, minutes(15)), 0);
        ladder.ended_with(1, minutes(16));
        assert_eq!((ladder.choose(GOOD, minutes(22)), ladder.choose(GOOD, minutes(26))), (1, 0));
        ladder.ended_with(1, minutes(27));
        assert_eq!((ladder.choose(GOOD, minutes(46)), ladder.choose(GOOD, minutes(47))), (1, 0));
    }

    #[test]
    fn with_one_model_there_is_nothing_to_choose() {
        let mut ladder = Ladder::default();
        ladder.ended_with(2, minutes(1));
        assert_eq!(ladder.choose(Signs { rungs: 1, ..HOT }, minutes(2)), 0);
    }
}
