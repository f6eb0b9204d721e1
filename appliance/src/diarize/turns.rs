//! From clusters to turns: in each region, the most likely run of speakers, where each change costs something.

use super::similarity::{centroids, dot, largest};
use super::{Piece, Turn};

/// Seconds of the frames that are decided.
const FRAME: f64 = 0.1;

/// Turns of one speaker at an instant. Speakers are numbered in order of first speech.
#[must_use]
pub fn turns(
    regions: &[(f64, f64)],
    pieces: &[Piece],
    vectors: &[Vec<f32>],
    clusters: &[usize],
    switch: f64,
) -> Vec<Turn> {
    let count = clusters.iter().max().map_or(0, |c| c + 1);
    let centres = centroids(vectors, clusters, count);
    let scores: Vec<Vec<f64>> = vectors.iter().map(|v| centres.iter().map(|c| dot(v, c)).collect()).collect();
    let mut turns: Vec<Turn> = Vec::new();
    for (region, &(start, end)) in regions.iter().enumerate() {
        let first = pieces.partition_point(|p| p.region < region);
        let last = pieces.partition_point(|p| p.region <= region);
        if first == last {
            continue;
        }
        let frames = (((end - start) / FRAME).round() as usize).max(1);
        let step = (end - start) / frames as f64;
        let heard: Vec<Vec<f64>> = (0..frames)
            .map(|f| frame_score(&pieces[first..last], &scores[first..last], start + (f as f64 + 0.5) * step, count))
            .collect();
        let path = likeliest(&heard, switch);
        let mut from = 0;
        for to in 1..=frames {
            if to == frames || path[to] != path[from] {
                let at = |frame: usize| start + frame as f64 * step;
                turns.push(Turn { start: at(from), end: at(to), speaker: path[from] });
                from = to;
            }
        }
    }
    let mut order: Vec<usize> = Vec::new();
    for turn in &mut turns {
        let known = order.iter().position(|s| *s == turn.speaker);
        turn.speaker = known.unwrap_or_else(|| {
            order.push(turn.speaker);
            order.len() - 1
        });
    }
    turns
}

/// Each speaker's score at `time`: the mean of the pieces over it, those centred on it counting most.
fn frame_score(pieces: &[Piece], scores: &[Vec<f64>], time: f64, count: usize) -> Vec<f64> {
    let (mut total, mut weights) = (vec![0.0; count], 0.0);
    for (piece, score) in pieces.iter().zip(scores) {
        let half = (piece.end - piece.start) / 2.0;
        let weight = 1.0 - (time - (piece.start + half)).abs() / half;
        if weight > 0.0 {
            weights += weight;
            for (t, s) in total.iter_mut().zip(score) {
                *t += weight * s;
            }
        }
    }
    total.iter().map(|t| t / f64::max(weights, 1e-9)).collect()
}

/// Viterbi's algorithm, where staying is free and any change costs `switch`.
fn likeliest(frames: &[Vec<f64>], switch: f64) -> Vec<usize> {
    let mut totals = frames[0].clone();
    let mut back: Vec<Vec<usize>> = Vec::with_capacity(frames.len());
    for frame in &frames[1..] {
        let best = largest(&totals);
        let moved = totals[best] - switch;
        back.push((0..totals.len()).map(|s| if totals[s] >= moved { s } else { best }).collect());
        for (total, score) in totals.iter_mut().zip(frame) {
            *total = total.max(moved) + score;
        }
    }
    let mut path = vec![largest(&totals)];
    for from in back.iter().rev() {
        path.push(from[path[path.len() - 1]]);
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flicker_is_not_a_turn_and_a_turn_is() {
        let frame = |a: f64| vec![a, 1.0 - a];
        let mut frames: Vec<Vec<f64>> = (0..20).map(|_| frame(0.6)).collect();
        frames[10] = frame(0.45);
        assert!(likeliest(&frames, 0.2).iter().all(|s| *s == 0));
        for one in &mut frames[10..15] {
            *one = frame(0.3);
        }
        let path = likeliest(&frames, 0.2);
        assert_eq!(path[9..16], [0, 1, 1, 1, 1, 1, 0]);
    }
}
