//! Who spoke when: pieces of speech, one clustering of all voices over the whole session, turns. No I/O.

pub mod activity;
pub mod cluster;
pub mod global;
pub mod hierarchy;
mod means;
pub mod npz;
pub mod plda;
pub mod powerset;
mod similarity;
pub mod turns;
pub mod vbx;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use global::Bounds;
use hierarchy::Hierarchy;

/// How one voice model wants to be used. The numbers were found by sweeping each over recordings of meetings, a phone
/// call and synthetic conversations; see the README's *Diarization*.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Seconds of a piece.
    pub window: f64,
    /// Seconds from piece to piece.
    pub hop: f64,
    /// Two groups whose likeness, relative to the likeness within each, is below this are two voices.
    pub split: f64,
    /// Seconds of speech a speaker needs.
    pub minimum: f64,
    /// How far off `split` may be.
    pub doubt: f64,
    /// What a change of speaker costs, in cosine summed over frames.
    pub switch: f64,
    /// Cosine of the means of one voice in two recordings, at least.
    pub same: f64,
}

impl Tuning {
    /// For a model of the lock file. `ge2e` gives vectors that are all much alike, so its numbers are of its own kind; the
    /// others are trained for angles, as `demo-voice` is, and were not measured: theirs stand for them.
    #[must_use]
    pub fn of(model: &str) -> Self {
        match model {
            "ge2e" => Self { window: 2.0, hop: 0.5, split: 0.927, doubt: 0.006, minimum: 1.3, switch: 0.2, same: 0.86 },
            "demo-voice" => Self { same: 0.90, ..Self::of("") },
            _ => Self { window: 1.6, hop: 0.4, split: 0.60, doubt: 0.06, minimum: 1.3, switch: 0.4, same: 0.70 },
        }
    }
}

/// A stretch of speech that gets a voice vector; seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// Which region of speech it lies in.
    pub region: usize,
}

/// One speaker's turn; seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// From 0, in order of first speech.
    pub speaker: usize,
}

/// How many speakers there are in these turns, which number them from 0.
#[must_use]
pub fn speakers(turns: &[Turn]) -> usize {
    turns.iter().map(|turn| turn.speaker + 1).max().unwrap_or(0)
}

/// The cosine of two vectors; 0 where one is nothing.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let length = |v: &[f32]| similarity::dot(v, v).sqrt();
    let both = length(a) * length(b);
    if both > 0.0 { similarity::dot(a, b) / both } else { 0.0 }
}

/// The unit mean of unit vectors; empty if there are none.
#[must_use]
pub fn mean<V: AsRef<[f32]>>(vectors: &[V]) -> Vec<f32> {
    let dimension = vectors.first().map_or(0, |v| v.as_ref().len());
    let units: Vec<Vec<f32>> = vectors
        .iter()
        .map(|v| similarity::unit(&v.as_ref().iter().map(|x| f64::from(*x)).collect::<Vec<_>>()))
        .collect();
    similarity::unit(&similarity::sum(units.iter(), dimension))
}

/// The pieces of `regions`: a short region whole, a longer one in overlapping steps, the last flush with its end.
#[must_use]
pub fn pieces(regions: &[(f64, f64)], tuning: &Tuning) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (region, &(start, end)) in regions.iter().enumerate() {
        if end - start <= tuning.window {
            pieces.push(Piece { start, end, region });
            continue;
        }
        let steps = ((end - start - tuning.window) / tuning.hop + 1e-6) as usize;
        for n in 0..=steps {
            let from = start + n as f64 * tuning.hop;
            pieces.push(Piece { start: from, end: from + tuning.window, region });
        }
        let covered = start + steps as f64 * tuning.hop + tuning.window;
        if end - covered > 0.25 * tuning.hop {
            pieces.push(Piece { start: end - tuning.window, end, region });
        }
    }
    pieces
}

/// Turns of one speaker at an instant, and how many speakers there are, from every piece's unit vector.
#[must_use]
pub fn diarize(regions: &[(f64, f64)], pieces: &[Piece], vectors: &[Vec<f32>], tuning: &Tuning) -> Vec<Turn> {
    if pieces.is_empty() {
        return Vec::new();
    }
    let clusters = cluster::cluster(vectors, pieces, tuning);
    turns::turns(regions, pieces, vectors, &clusters, tuning.switch)
}

/// As [`diarize`], with as many speakers as there are known to be, or as near to that as these voices let themselves be
/// told apart: more or less likeness is asked for until their number fits. If it never does, the vectors are joined one
/// by one until so many groups are left.
#[must_use]
pub fn diarize_within(
    regions: &[(f64, f64)],
    pieces: &[Piece],
    vectors: &[Vec<f32>],
    tuning: &Tuning,
    bounds: Bounds,
) -> Vec<Turn> {
    /// Halvings of what the likeness may be: to a thousandth.
    const HALVINGS: u32 = 10;
    /// Likeness above which nothing is one voice.
    const HIGHEST: f64 = 1.2;
    /// Pieces that make a voice if nothing else is known of it; fewer if there are none such.
    const SOME: usize = 3;
    let told = |split| diarize(regions, pieces, vectors, &Tuning { split, ..*tuning });
    let mut best = told(tuning.split);
    let Some(wanted) = bounds.instead_of(speakers(&best)).filter(|_| !best.is_empty()) else { return best };
    let (mut low, mut high) = if speakers(&best) < wanted { (tuning.split, HIGHEST) } else { (0.0, tuning.split) };
    for _ in 0..HALVINGS {
        let split = f64::midpoint(low, high);
        let turns = told(split);
        let found = speakers(&turns);
        if found.abs_diff(wanted) < speakers(&best).abs_diff(wanted) {
            best = turns;
        }
        match found.cmp(&wanted) {
            Ordering::Equal => break,
            Ordering::Less => low = split,
            Ordering::Greater => high = split,
        }
    }
    let stride = vectors.len().div_ceil(global::TRAINED).max(1);
    let sample: Vec<Vec<f32>> = vectors.iter().step_by(stride).cloned().collect();
    let tree = (speakers(&best) != wanted).then(|| Hierarchy::new(&sample));
    for (tree, minimum) in tree.iter().flat_map(|tree| [SOME, 2, 1].map(|minimum| (tree, minimum))) {
        let groups = tree.cut_into(wanted, minimum, tuning.split);
        let centres = similarity::centroids(&sample, &groups, hierarchy::sizes(&groups).len());
        let turns = turns::turns(regions, pieces, vectors, &means::assign(vectors, &centres), tuning.switch);
        if speakers(&turns).abs_diff(wanted) < speakers(&best).abs_diff(wanted) {
            best = turns;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_their_region_and_nothing_else() {
        let tuning = Tuning::of("ge2e");
        let regions = [(1.0, 1.4), (3.0, 8.3)];
        let made = pieces(&regions, &tuning);
        assert_eq!(made[0], Piece { start: 1.0, end: 1.4, region: 0 });
        let long: Vec<_> = made.iter().filter(|p| p.region == 1).collect();
        assert!((long[0].start - 3.0).abs() < 1e-9 && (long.last().unwrap().end - 8.3).abs() < 1e-9);
        assert!(long.windows(2).all(|w| w[1].start - w[0].start <= tuning.hop + 1e-9));
    }

    /// Intermediate values of the reference implementation in Python that this was ported from, on a recording of
    /// two synthetic voices (`tests/fixtures/diarization/`).
    #[test]
    fn the_port_gives_the_references_turns() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/diarization/conversation-30s.json");
        let case: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let numbers =
            |v: &serde_json::Value| -> Vec<f64> { v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect() };
        let rows = |key: &str| -> Vec<Vec<f64>> { case[key].as_array().unwrap().iter().map(numbers).collect() };
        let regions: Vec<(f64, f64)> = rows("regions").iter().map(|r| (r[0], r[1])).collect();
        let vectors: Vec<Vec<f32>> = rows("embeddings").iter().map(|v| v.iter().map(|x| *x as f32).collect()).collect();
        let tuning = Tuning::of("demo-voice");
        let made = pieces(&regions, &tuning);
        let expected = rows("pieces");
        assert_eq!(made.len(), expected.len());
        for (piece, expected) in made.iter().zip(&expected) {
            assert!((piece.start - expected[0]).abs() < 2e-3 && (piece.end - expected[1]).abs() < 2e-3);
        }
        let turns = diarize(&regions, &made, &vectors, &tuning);
        for speakers_known in [1, 2, 3] {
            let bounds = Bounds { at_least: speakers_known, at_most: speakers_known };
            assert_eq!(speakers(&diarize_within(&regions, &made, &vectors, &tuning, bounds)), speakers_known);
        }
        assert_eq!(diarize_within(&regions, &made, &vectors, &tuning, Bounds::default()), turns);
        let expected = rows("turns");
        assert_eq!(turns.len(), expected.len());
        for (turn, expected) in turns.iter().zip(&expected) {
            assert!((turn.start - expected[0]).abs() < 0.02 && (turn.end - expected[1]).abs() < 0.02);
            assert_eq!(turn.speaker as f64, expected[2]);
        }
    }
}
