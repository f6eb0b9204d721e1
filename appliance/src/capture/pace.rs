//! Holds the samples of a device against the clock of the board.
//!
//! Both tell how long it has been: samples, at the rate that the device claims, and uptime. Uptime is believed. Samples
//! come late, and then many at once, so that a moment says nothing; the best moment of ten seconds, when the least was
//! on its way, says how far ahead or behind the device is. What is made of that:
//!
//! - **Up to 0.5 % off: nothing.** Crystals differ by a hundredth of a percent.
//! - **More, steadily, over thirty seconds or longer: the device lies about its rate.** It is told once, and what it
//!   gives is converted from the rate that was measured: as long and as high as it was in the room. Holding such a
//!   device back would only fill its buffer until it runs over; leaving gaps would tear holes into speech that is there.
//! - **A second or more missing at once: it was lost** where nobody says so, and a gap as long is made.
//! - **More than a second more within ten: no room is that far ahead.** Such a device has no clock of its own (a file
//!   that is played into ALSA), and waits for the board's.
//!
//! Decides; sleeps and writes nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::audio::{SAMPLE_RATE_HZ, duration};

/// A second, in samples.
const SECOND: i64 = SAMPLE_RATE_HZ as i64;
/// Over so much uptime the best moment is looked for: longer than a board is ever too busy to fetch.
const WINDOW: i64 = 10 * SECOND;
/// Windows that are looked back on: two minutes. Half a percent of that is told from half a second of bad luck.
const WINDOWS: usize = 12;
/// A rate is measured over at least this.
const MEASURED: i64 = 30 * SECOND;
/// One part in so many, half a percent, is not looked at.
const TOLERANCE: i64 = 200;
/// What a best moment may be off by: a period of the device.
const UNSURE: i64 = SECOND / 10;
/// This much less than there was is lost; this much more than there can be is not from a room.
const TOO_MUCH: i64 = SECOND;
/// A device that is slower or faster by more than an eighth does not lie about its rate but has other troubles.
const MOST_OFF: f64 = 0.125;

/// What is to be done about samples that came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// So many samples were lost before them.
    pub missing: u64,
    /// The device gives so many times as much as was believed.
    pub speed: Option<f64>,
    /// No more are to be asked for until this has passed.
    pub hold: Duration,
}

/// The best moment of a window; samples ahead of the clock, as they came and with what was made up for.
#[derive(Debug, Clone, Copy)]
struct Best {
    at: i64,
    ahead: i64,
    filled: i64,
}

/// See the top of the file.
#[derive(Debug)]
pub struct Pace {
    begun: Option<Duration>,
    given: i64,
    made_up: i64,
    window_until: i64,
    best: Option<Best>,
    past: VecDeque<Best>,
    /// How far ahead a device without a clock may be.
    cap: Option<i64>,
}

impl Pace {
    /// Of a device that was just opened or started.
    #[must_use]
    pub fn new() -> Self {
        Self { begun: None, given: 0, made_up: 0, window_until: WINDOW, best: None, past: VecDeque::new(), cap: None }
    }

    /// So many samples came, at this uptime.
    pub fn heard(&mut self, samples: usize, uptime: Duration) -> Findings {
        let samples = i64::try_from(samples).unwrap_or(i64::MAX);
        // The first were heard while they were gathered.
        let begun = *self.begun.get_or_insert(uptime.saturating_sub(duration(samples.unsigned_abs())));
        self.given += samples;
        let passed = i64::try_from(crate::audio::samples_in(uptime.saturating_sub(begun))).unwrap_or(i64::MAX);
        let now = Best { at: passed, ahead: self.given - passed, filled: 0 };
        let mut found = Findings::default();
        if passed >= self.window_until {
            self.close(&mut found);
            self.window_until = passed + WINDOW;
        }
        if self.best.is_none_or(|best| now.ahead > best.ahead) {
            self.best = Some(now);
        }
        found.hold = self.hold(now.ahead);
        found
    }

    fn hold(&mut self, ahead: i64) -> Duration {
        let known = self.past.iter().map(|best| best.ahead).max().unwrap_or(0);
        if self.cap.is_none() && ahead - known > TOO_MUCH {
            self.cap = Some(known);
        }
        match self.cap {
            // It goes on half a second before it would have to wait again.
            Some(cap) if ahead - cap > TOO_MUCH => duration((ahead - cap - TOO_MUCH / 2).unsigned_abs()),
            Some(_) | None => Duration::ZERO,
        }
    }

    fn close(&mut self, found: &mut Findings) {
        let Some(mut best) = self.best.take() else { return };
        best.filled = best.ahead + self.made_up;
        if self.past.len() == WINDOWS {
            self.past.pop_front();
        }
        self.past.push_back(best);
        if self.cap.is_some() {
            return;
        }
        found.speed = self.lie();
        if let Some(missing) = self.lost(best) {
            self.made_up += missing;
            found.missing = missing.unsigned_abs();
            best.filled += missing;
            self.past.pop_back();
            self.past.push_back(best);
        }
        if found.speed.is_some() {
            self.past = VecDeque::from([best]);
        }
    }

    /// How fast the device is, if it is not as fast as it claims, and was not all the time.
    fn lie(&self) -> Option<f64> {
        let (first, last) = (self.past.front()?, self.past.back()?);
        let span = last.at - first.at;
        let drift = last.ahead - first.ahead;
        let middle = self.past.get(self.past.len() / 2)?;
        // Lost once is not slow: either half must have its part.
        let is_steady = [middle.ahead - first.ahead, last.ahead - middle.ahead]
            .iter()
            .all(|half| half.signum() == drift.signum() && half.abs() >= drift.abs() / 4);
        let off = drift as f64 / span.max(1) as f64;
        let is_lie = span >= MEASURED && drift.abs() > span / TOLERANCE + UNSURE && off.abs() <= MOST_OFF;
        (is_lie && is_steady).then_some(1.0 + off)
    }

    /// What has been lost of late, if it is much.
    fn lost(&self, now: Best) -> Option<i64> {
        let before = self.past.iter().max_by_key(|best| best.filled)?;
        let missing = before.filled - now.filled;
        (missing >= TOO_MUCH + (now.at - before.at) / TOLERANCE).then_some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device and what it did.
    struct Run {
        pace: Pace,
        uptime: Duration,
        owed: f64,
        missing: Vec<(u64, u64)>,
        speeds: Vec<(u64, f64)>,
        held: Duration,
        given: u64,
    }

    impl Run {
        fn new() -> Self {
            let uptime = Duration::from_secs(77);
            let (missing, speeds) = (Vec::new(), Vec::new());
            Self { pace: Pace::new(), uptime, owed: 0.0, missing, speeds, held: Duration::ZERO, given: 0 }
        }

        fn seconds(&self) -> u64 {
            (self.uptime - Duration::from_secs(77)).as_secs()
        }

        fn give(&mut self, samples: usize) {
            let found = self.pace.heard(samples, self.uptime);
            self.given += samples as u64;
            if found.missing > 0 {
                self.missing.push((self.seconds(), found.missing));
            }
            self.speeds.extend(found.speed.map(|speed| (self.seconds(), speed)));
            self.uptime += found.hold;
            self.held += found.hold;
        }

        /// Gives blocks of 10 ms for so long, at so many samples a second; whoever fetches is up to `late` late.
        fn go_on(&mut self, seconds: u64, rate: f64, late: impl Fn(u64) -> bool) {
            for tick in 0..seconds * 100 {
                self.uptime += Duration::from_millis(10);
                self.owed += rate / 100.0;
                if !late(tick) {
                    self.give(self.owed as usize);
                    self.owed -= self.owed.floor();
                }
            }
        }
    }

    /// A board that is busy for up to 1.5 s every few seconds.
    fn busy(tick: u64) -> bool {
        tick % 400 < 150
    }

    fn expect_nothing(rate: f64) {
        let mut run = Run::new();
        run.go_on(3600, rate, busy);
        assert_eq!((run.missing, run.speeds, run.held), (vec![], vec![], Duration::ZERO), "{rate}");
    }

    #[test]
    fn an_ordinary_crystal_is_left_alone_for_an_hour_on_a_busy_board() {
        for rate in [16_000.0, 16_001.6, 15_998.4, 16_064.0, 15_936.0] {
            expect_nothing(rate);
        }
    }

    #[test]
    fn a_device_that_lies_about_its_rate_is_measured_to_a_thousandth_and_told_once() {
        for speed in [0.91875, 0.97, 0.99, 1.01, 1.03, 1.0884] {
            let mut run = Run::new();
            run.go_on(30, 16_000.0 * speed, busy);
            assert!(run.speeds.is_empty(), "thirty seconds are not over");
            run.go_on(120, 16_000.0 * speed, busy);
            let (at, measured) = run.speeds[0];
            assert!((measured - speed).abs() < 0.001 || (measured / speed - 1.0).abs() < 0.004, "{speed}: {measured}");
            assert!(at <= 60, "{speed}: after {at} s");
            assert_eq!(run.held, Duration::ZERO, "{speed}");
        }
    }

    /// The converter makes of a corrected device one that keeps the clock.
    #[test]
    fn a_device_that_was_corrected_is_left_alone_from_then_on() {
        let mut run = Run::new();
        while run.speeds.is_empty() {
            run.go_on(1, 16_480.0, |_| false);
        }
        run.go_on(1200, 16_480.0 / run.speeds[0].1, busy);
        assert_eq!((run.speeds.len(), &run.missing[..], run.held), (1, &[][..], Duration::ZERO));
    }

    #[test]
    fn what_was_lost_in_silence_is_missing_once_and_is_not_taken_for_a_slow_device() {
        let mut run = Run::new();
        run.go_on(60, 16_000.0, busy);
        run.uptime += Duration::from_millis(2_500);
        run.go_on(600, 16_000.0, busy);
        assert_eq!((run.missing.len(), run.speeds.len()), (1, 0), "{:?} {:?}", run.missing, run.speeds);
        let (at, missing) = run.missing[0];
        assert!(missing.abs_diff(40_000) <= 1_600 && at < 85, "{missing} after {at} s");
    }

    #[test]
    fn a_device_that_gives_half_of_everything_keeps_the_clock_by_gaps() {
        let mut run = Run::new();
        run.go_on(600, 8_000.0, |_| false);
        let timeline = run.given + run.missing.iter().map(|(_, missing)| missing).sum::<u64>();
        assert!(run.speeds.is_empty());
        assert!(timeline.abs_diff(600 * 16_000) < 16_000 * 11, "{timeline}");
    }

    #[test]
    fn a_device_without_a_clock_waits_for_the_boards() {
        let mut run = Run::new();
        while run.seconds() < 300 {
            run.give(160);
        }
        let ahead = run.given as f64 / 16_000.0 - run.seconds() as f64;
        assert!((0.0..=2.1).contains(&ahead), "{ahead} s ahead");
        assert!(run.missing.is_empty() && run.speeds.is_empty());
    }

    /// A recording that is played through ALSA and ends: from then on there is silence, as fast as it is asked for.
    #[test]
    fn a_device_that_loses_its_clock_waits_for_the_boards_from_then_on() {
        let mut run = Run::new();
        run.go_on(100, 16_000.0, busy);
        let until = run.seconds() + 200;
        while run.seconds() < until {
            run.give(160);
        }
        let ahead = run.given as f64 / 16_000.0 - run.seconds() as f64;
        assert!((-0.1..=2.1).contains(&ahead), "{ahead} s ahead");
        assert!(run.speeds.is_empty());
    }
}
