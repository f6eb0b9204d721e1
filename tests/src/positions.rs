//! What a counting microphone tells of a recording: when each of its samples was sounded, and so what is missing.

use std::ops::Range;

use appliance::audio::SAMPLE_RATE_HZ;
use shared::record::GapCause;

pub use crate::microphone::SLACK;
use crate::microphone::{PERIOD, STEP, position};

/// A second.
pub const SECOND: u64 = SAMPLE_RATE_HZ as u64;

/// Sound without a gap in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Where it lies on the recording's timeline.
    pub samples: Range<u64>,
    /// The position of its first sample, counted on over the counter's repetitions.
    pub first: u64,
    /// The position of its last sample.
    pub last: u64,
}

/// The stretches of sound between gaps. `around` is less than half of a repetition away from the first. `stale` samples at the
/// beginning and after each gap are passed over: what waited in the pipe when the microphone was opened.
///
/// # Panics
/// If anything is missing within a stretch.
#[must_use]
pub fn stretches(pcm: &[i16], gaps: &[(Range<u64>, GapCause)], stale: u64, around: u64) -> Vec<Stretch> {
    let mut from = 0;
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (gap, _) in gaps {
        runs.push(from..gap.start);
        from = gap.end;
    }
    runs.push(from..pcm.len() as u64);
    let mut heard: Vec<Stretch> = Vec::new();
    for run in runs {
        let samples = (run.start + stale).min(run.end)..run.end;
        let sound = &pcm[samples.start as usize..samples.end as usize];
        let positions: Vec<u64> = sound.iter().map(|sample| position(*sample)).collect();
        let unbroken = positions.windows(2).all(|w| (w[1] + PERIOD - w[0]) % PERIOD <= STEP);
        assert!(unbroken, "something is missing that is no gap: {gaps:?}");
        let (Some(first), Some(last)) = (positions.first(), positions.last()) else { continue };
        let about = heard.last().map_or(around.saturating_sub(PERIOD / 2), |before| before.last);
        let first = about + (first + PERIOD - about % PERIOD) % PERIOD;
        heard.push(Stretch { samples, first, last: first + (last + PERIOD - first % PERIOD) % PERIOD });
    }
    heard
}

/// The timeline must run over what lies between two stretches as far as the microphone did.
///
/// # Panics
/// If it does not.
pub fn assert_timeline(heard: &[Stretch]) {
    for pair in heard.windows(2) {
        let (moved, told) = (pair[1].first - pair[0].last, pair[1].samples.start - pair[0].samples.end);
        assert!(
            moved.abs_diff(told) <= 3 * SLACK,
            "the microphone moved {moved} samples over a gap of {told}: {heard:?}"
        );
    }
}

/// How many samples are missing up to `at`: those after the last that was kept before it. None where nothing was kept.
#[must_use]
pub fn lost_before(heard: &[Stretch], at: u64) -> Option<u64> {
    let kept = heard.iter().filter(|stretch| stretch.first <= at).map(|stretch| stretch.last.min(at)).max()?;
    Some(at - kept)
}
