//! Who speaks in each frame, from networks that look at a few seconds at a time.
//!
//! A chunk tells a handful of speakers apart, in an order of its own. Chunks overlap; what they say of the same frame is
//! added up, frame by frame, so that memory does not grow with the session. As in pyannote.audio's `Inference.aggregate`
//! and `SpeakerDiarizationMixin`.

use std::collections::VecDeque;

use super::powerset::Set;

/// Speakers that one chunk tells apart.
pub const LOCAL: usize = 3;

/// Frames as a network makes them: frame `n` lasts from `n · step` to `n · step + duration`, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frames {
    /// Seconds.
    pub duration: f64,
    /// Seconds.
    pub step: f64,
}

impl Frames {
    /// Of pyannote's segmentation 3.0 and what has its interface: 991 and 270 samples at 16 kHz.
    pub const SEGMENTATION: Self = Self { duration: 991.0 / 16_000.0, step: 270.0 / 16_000.0 };

    /// The frame that begins closest to `time`; halves go to the even one.
    #[must_use]
    pub fn closest(&self, time: f64) -> usize {
        (time / self.step).round_ties_even().max(0.0) as usize
    }

    /// The middle of a frame, seconds.
    #[must_use]
    pub fn middle(&self, frame: usize) -> f64 {
        frame as f64 * self.step + self.duration / 2.0
    }
}

/// What the network said of a few seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Seconds from the session's start.
    pub start: f64,
    /// Who of [`LOCAL`] speakers speaks in each frame.
    pub frames: Vec<Set>,
}

impl Chunk {
    /// Frames in which a speaker speaks, and those in which nobody else does.
    #[must_use]
    pub fn active(&self, speaker: usize) -> (usize, usize) {
        let alone = 1 << speaker;
        let count = |is: &dyn Fn(Set) -> bool| self.frames.iter().filter(|set| is(**set)).count();
        (count(&|set| set & alone != 0), count(&|set| set == alone))
    }
}

/// Chunks in order of time, and the seconds that each looks at.
#[derive(Debug, Clone, Copy)]
pub struct Activity<'a> {
    /// In order of time.
    pub chunks: &'a [Chunk],
    /// Seconds of a chunk.
    pub duration: f64,
    /// Of the network.
    pub grid: Frames,
}

impl Activity<'_> {
    /// Output frames, of which the last begins where the last chunk ends.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| self.grid.closest(last.start + self.duration) + 1)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Gives every output frame in order, with what all chunks over it add up to in each of `width` columns, and how
    /// many chunks that was. `add` writes what one frame of one chunk adds.
    fn overlap_add(
        &self,
        width: usize,
        mut add: impl FnMut(usize, Set, &mut [u32]),
        mut emit: impl FnMut(&[u32], u32),
    ) {
        let mut open: VecDeque<(Vec<u32>, u32)> = VecDeque::new();
        let nothing = (vec![0; width], 0);
        let (mut first, mut left) = (0, self.len());
        let mut close = |row: &(Vec<u32>, u32)| {
            if left > 0 {
                left -= 1;
                emit(&row.0, row.1);
            }
        };
        for (number, chunk) in self.chunks.iter().enumerate() {
            let start = self.grid.closest(chunk.start);
            while first < start {
                close(&open.pop_front().unwrap_or_else(|| nothing.clone()));
                first += 1;
            }
            while open.len() < chunk.frames.len() {
                open.push_back(nothing.clone());
            }
            for (row, set) in open.iter_mut().zip(&chunk.frames) {
                add(number, *set, &mut row.0);
                row.1 += 1;
            }
        }
        open.iter().for_each(&mut close);
        for _ in 0..left {
            emit(&nothing.0, 0);
        }
    }

    /// How many speak at once, in each output frame: what chunks say on average, rounded, halves to the even number.
    #[must_use]
    pub fn count(&self) -> Vec<u8> {
        let mut counts = Vec::with_capacity(self.len());
        self.overlap_add(
            1,
            |_, set, sum| sum[0] += set.count_ones(),
            |sum, chunks| {
                let mean = f64::from(sum[0]) / f64::from(chunks.max(1));
                counts.push(mean.round_ties_even() as u8);
            },
        );
        counts
    }

    /// Which of `width` speakers (at most 64) speak in each output frame, as bits: as many as `count` says, those whom
    /// most chunks hear. `clusters` names the speaker behind each chunk's own.
    #[must_use]
    pub fn reconstruct(&self, clusters: &[[Option<usize>; LOCAL]], width: usize, count: &[u8]) -> Vec<u64> {
        let mut sets = Vec::with_capacity(count.len());
        let mut order: Vec<usize> = (0..width).collect();
        self.overlap_add(
            width,
            |chunk, set, sums| {
                let heard = (0..LOCAL).filter(|local| set & (1 << local) != 0);
                let speakers = heard.filter_map(|local| clusters[chunk][local]).fold(0u64, |all, k| all | 1 << k);
                for (speaker, sum) in sums.iter_mut().enumerate() {
                    *sum += u32::from(speakers >> speaker & 1 == 1);
                }
            },
            |sums, _| {
                let at_once = usize::from(count.get(sets.len()).copied().unwrap_or(0)).min(width);
                order.sort_by_key(|speaker| (std::cmp::Reverse(sums[*speaker]), *speaker));
                sets.push(order[..at_once].iter().fold(0u64, |all, speaker| all | 1 << speaker));
            },
        );
        sets
    }
}

/// One speaker at an instant: whoever of those that speak at once most chunks hear.
#[must_use]
pub fn exclusive(count: &[u8]) -> Vec<u8> {
    count.iter().map(|at_once| (*at_once).min(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Frames = Frames { duration: 2.0, step: 1.0 };

    fn activity(chunks: &[Chunk]) -> Activity<'_> {
        Activity { chunks, duration: 4.0, grid: GRID }
    }

    fn chunk(start: f64, frames: [Set; 4]) -> Chunk {
        Chunk { start, frames: frames.to_vec() }
    }

    #[test]
    fn what_chunks_say_of_the_same_frame_is_averaged() {
        let chunks = [chunk(0.0, [1, 1, 3, 3]), chunk(2.0, [1, 0, 0, 2])];
        // Frame 2: 2 and 1 speakers, 1.5 on average; frame 3: 2 and 0; the last lies behind all chunks.
        assert_eq!(activity(&chunks).count(), [1, 1, 2, 1, 0, 1, 0]);
        let halves = [chunk(0.0, [1, 0, 0, 0]), chunk(0.0, [0, 0, 0, 0])];
        assert_eq!(activity(&halves).count()[0], 0, "halves go to the even number");
    }

    #[test]
    fn speakers_keep_their_names_from_chunk_to_chunk() {
        let chunks = [chunk(0.0, [1, 1, 2, 2]), chunk(2.0, [1, 1, 2, 0])];
        let clusters = [[Some(0), Some(1), None], [Some(1), Some(0), None]];
        let activity = activity(&chunks);
        assert_eq!(activity.reconstruct(&clusters, 2, &activity.count()), [1, 1, 2, 2, 1, 0, 0]);
    }

    #[test]
    fn as_many_speak_as_were_counted_and_one_where_turns_are_exclusive() {
        let chunks = [chunk(0.0, [3, 3, 3, 3]), chunk(0.0, [3, 3, 2, 2])];
        let clusters = [[Some(0), Some(1), None]; 2];
        let (activity, all) = (activity(&chunks), 0b11);
        assert_eq!(activity.reconstruct(&clusters, 2, &activity.count())[..4], [all, all, all, all]);
        let one = exclusive(&activity.count());
        assert_eq!(activity.reconstruct(&clusters, 2, &one)[..4], [1, 1, 2, 2]);
    }

    #[test]
    fn nothing_is_made_of_nothing_and_a_hole_between_chunks_is_silence() {
        assert!(activity(&[]).count().is_empty());
        let chunks = [chunk(0.0, [1; 4]), chunk(8.0, [1; 4])];
        assert_eq!(activity(&chunks).count(), [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0]);
    }
}
