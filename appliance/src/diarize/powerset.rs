//! Powerset classes: each class is a set of speakers who speak at once, so that one class a frame says everything.
//!
//! The order of classes is that of pyannote.audio's `Powerset`: the empty set, every speaker alone, every pair, and so
//! on, each size in lexicographic order (Plaquet and Bredin, *Powerset multi-class cross entropy loss for neural
//! speaker diarization*, 2023).

use super::similarity::largest;

/// Speakers as bits: bit `n` is speaker `n`.
pub type Set = u8;

/// See the top of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Powerset {
    classes: Vec<Set>,
}

impl Powerset {
    /// Classes of `speakers` speakers (at most 8), of whom at most `at_once` speak at once.
    #[must_use]
    pub fn new(speakers: u32, at_once: u32) -> Self {
        let sets = (0..=Set::MAX).take(1 << speakers.min(Set::BITS));
        let mut classes: Vec<Set> = sets.filter(|set| set.count_ones() <= at_once).collect();
        // In lexicographic order the smallest speaker counts most: read the bits the other way round.
        classes.sort_by_key(|set| (set.count_ones(), std::cmp::Reverse(set.reverse_bits())));
        Self { classes }
    }

    /// The sets in order of their classes.
    #[must_use]
    pub fn classes(&self) -> &[Set] {
        &self.classes
    }

    /// The set of the most likely class of each frame; `scores` holds one row a frame, one score a class.
    #[must_use]
    pub fn decode(&self, scores: &[f32]) -> Vec<Set> {
        scores.chunks_exact(self.classes.len()).map(|frame| self.classes[largest(frame)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ordered_by_size_and_then_by_speaker() {
        assert_eq!(Powerset::new(3, 2).classes(), [0b000, 0b001, 0b010, 0b100, 0b011, 0b101, 0b110]);
        assert_eq!(Powerset::new(2, 1).classes(), [0b00, 0b01, 0b10]);
        assert_eq!(Powerset::new(8, 8).classes().len(), 256);
    }

    #[test]
    fn a_frame_of_nonsense_is_silence() {
        assert_eq!(Powerset::new(3, 2).decode(&[f32::NAN; 14]), [0, 0]);
    }
}
