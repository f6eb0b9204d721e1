//! What was heard, by position: every sample tells where the microphone was.

use std::ops::Range;

use appliance::audio::{SAMPLE_RATE_HZ, samples_in};
use appliance::spool::SpoolReader;
use shared::record::GapCause;

use super::World;
use super::examine::Remains;
use crate::microphone::{PERIOD, SLACK, STALE, STEP, position};

/// The most that a cut may cost.
pub(super) const LIMIT: u64 = SAMPLE_RATE_HZ as u64 + SLACK;

/// The position nearest to `at` that is told as `told`.
#[must_use]
pub(super) fn near(at: u64, told: u64) -> u64 {
    let ahead = (told + PERIOD - at % PERIOD) % PERIOD;
    if ahead <= PERIOD / 2 { at + ahead } else { (at + ahead).saturating_sub(PERIOD) }
}

/// Where the microphone was at the last sample that is kept, if any is, near to `at`.
pub(super) fn last_position(spool: &SpoolReader, at: u64) -> Option<u64> {
    let pcm = spool.read(0..u64::MAX).expect("a recording that can be read");
    let gaps = spool.gaps();
    let is_kept = |sample: u64| !gaps.iter().any(|(gap, _)| gap.contains(&sample));
    let last = (0..pcm.len()).rev().find(|sample| is_kept(*sample as u64))?;
    Some(near(at, position(pcm[last])))
}

/// A stretch between two gaps, with the microphone's positions of its ends.
struct Stretch {
    samples: Range<u64>,
    positions: (u64, u64),
}

impl World {
    /// Listens to what there is of a session: every loss is a gap, by the cuts alone, and as long as the microphone
    /// moved on meanwhile.
    pub(super) fn listen(&mut self, session: usize) {
        let (root, known) = (self.root(), self.sessions[session].clone());
        let spool = crate::wait_for("the recording", || Remains::of(&root).spool(&root, &known.id));
        let pcm = spool.read(0..u64::MAX).expect("a recording that can be read");
        let gaps = spool.gaps();
        assert!(gaps.len() <= known.cuts, "{} gaps by {} cuts: {gaps:?}", gaps.len(), known.cuts);
        assert!(gaps.iter().all(|(_, cause)| *cause == GapCause::PowerLoss), "{gaps:?}");
        let ends = gaps.iter().map(|(gap, _)| gap.start).chain([pcm.len() as u64]);
        let starts = [0].into_iter().chain(gaps.iter().map(|(gap, _)| gap.end));
        let mut last: Option<Stretch> = None;
        for samples in starts.zip(ends).map(|(start, end)| start..end).filter(|samples| !samples.is_empty()) {
            let at = last.as_ref().map_or(known.begun, |last| last.positions.1 + samples.start - last.samples.end);
            let heard = &pcm[samples.start as usize..samples.end as usize];
            let stretch = Stretch { positions: self.walk(session, heard, at), samples };
            if let Some(last) = &last {
                self.assert_as_long(last, &stretch);
            }
            last = Some(stretch);
        }
        self.sessions[session].gaps = gaps.into_iter().map(|(gap, _)| gap).collect();
    }

    /// Follows the positions of a stretch that begins near `at`: where the microphone was at what was no longer stale, as
    /// if the stretch had begun with that, and at its end.
    fn walk(&self, session: usize, heard: &[i16], at: u64) -> (u64, u64) {
        let mut here = near(at, position(heard[0]));
        let stale = samples_in(STALE) as usize;
        let mut first = here;
        for (n, pair) in heard.windows(2).enumerate() {
            let moved = (position(pair[1]) + PERIOD - position(pair[0])) % PERIOD;
            let lost = here..here + moved;
            here = lost.end;
            let is_excused = moved <= STEP || self.sessions[session].excuses(&lost);
            assert!(is_excused, "{moved} samples are missing without a gap, {n} samples behind one");
            if n + 1 == stale {
                first = here.saturating_sub(stale as u64);
            }
        }
        (first, here)
    }

    fn assert_as_long(&mut self, before: &Stretch, after: &Stretch) {
        let timeline = after.samples.start - before.samples.end;
        let moved = after.positions.0.saturating_sub(before.positions.1);
        let error = moved.abs_diff(timeline);
        assert!(error <= 2 * SLACK, "the microphone moved {moved} samples in a gap of {timeline}");
        self.tally.gaps += 1;
        self.tally.worst_gap_error = self.tally.worst_gap_error.max(error);
    }
}
