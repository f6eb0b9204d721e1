//! When the power goes, what is known of sessions from outside the box, and what came of all cuts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::World;
use crate::disk::cache::Counts;

/// When the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// While a session is being started.
    Start,
    /// While it is recorded.
    Recording,
    /// While it is being stopped.
    Stop,
    /// While windows are worked on and the record is made and sent.
    Conclusion,
    /// While its audio is destroyed.
    Destruction,
    /// At any time, and again while the box comes up.
    Boot,
}

impl Moment {
    /// All of them. One after another they are five cuts, and two.
    pub const ALL: [Self; 6] =
        [Self::Recording, Self::Stop, Self::Start, Self::Conclusion, Self::Destruction, Self::Boot];
}

/// What is known of a session from outside the box.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Its id.
    pub id: String,
    /// Where the microphone was when it was asked for.
    pub begun: u64,
    /// Whether somebody was told that it is stopped.
    pub is_stopped: bool,
    /// Whether somebody was told that the clinic has it.
    pub is_acknowledged: bool,
    /// Cuts while it was recorded.
    pub cuts: usize,
    /// How long its recording was at the last cut, in samples.
    pub kept: u64,
    /// The gaps that were found in it when it was last listened to, in samples.
    pub gaps: Vec<Range<u64>>,
    /// Positions of the microphone at which it may have lost sound by itself, for want of a sound card's memory: while
    /// nobody listened, and until the recorder was seen to.
    pub deaf: Vec<Range<u64>>,
}

impl Known {
    pub fn new(id: &str, begun: u64) -> Self {
        let (id, deaf) = (id.to_owned(), Vec::new());
        Self { id, begun, is_stopped: false, is_acknowledged: false, cuts: 0, kept: 0, gaps: Vec::new(), deaf }
    }
}

/// What came of all cuts.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// How many at which moment.
    pub cuts: BTreeMap<Moment, usize>,
    /// For each cut in a recording, samples that had been delivered and are missing.
    pub lost: Vec<u64>,
    /// Sessions whose words were given up, as three tries were cut short. Their audio stays.
    pub given_up: usize,
    /// Databases whose integrity was checked.
    pub integrity_checks: usize,
    /// Measurements of gaps; a gap is measured again whenever its session is listened to.
    pub gaps: usize,
    /// How far the worst of them was from the time that the microphone moved, in samples.
    pub worst_gap_error: u64,
    /// How long the recorder outlived its disk at most; a real one does not.
    pub worst_delay: Duration,
}

impl World {
    /// Everything so far, in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Tally { cuts, lost, given_up, integrity_checks, gaps, worst_gap_error, worst_delay } = &self.tally;
        let Counts { flushes, writes, cuts_with_unflushed, unflushed_bytes, survived_bytes } = self.disk.counts();
        let (all, sessions) = (self.cuts(), self.sessions.len());
        let (worst, mean) = (lost.iter().max(), lost.iter().sum::<u64>() / lost.len().max(1) as u64);
        format!(
            "{all} cuts {cuts:?}, {sessions} sessions ({given_up} interrupted three times), {} cuts in a recording: at most {} and on average {mean} samples lost, \
             gaps measured {gaps} times, the worst {worst_gap_error} samples off, {integrity_checks} databases checked, \
             {writes} writes, {flushes} flushes, {cuts_with_unflushed} cuts that found something not flushed, \
             {survived_bytes} of {unflushed_bytes} bytes of it torn in, programs killed at most {worst_delay:.0?} later",
            lost.len(),
            worst.copied().unwrap_or(0),
        )
    }
}
