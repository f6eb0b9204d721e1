//! One clustering of all voices of a session, with an automatic number of speakers.
//!
//! Top-down: a group is divided in two as long as its halves are less alike than each is in itself. Then k-means over
//! all groups, dropping groups that are too short or are only a blend of two others (pieces that lie over a change of
//! speaker), and joining groups that are alike after all. Nothing is quadratic in the number of pieces.

use std::collections::VecDeque;

use super::means::{assign, two_means};
use super::similarity::{Likeness, Near, centroids, dot, unit};
use super::{Piece, Tuning};

/// No session has more speakers.
const MAX_SPEAKERS: usize = 20;
/// A speaker needs this share of a session's speech …
const SHARE: f64 = 0.02;
/// … but no more than this many seconds.
const SHARE_CAP: f64 = 10.0;
/// Groups shorter than this many seconds are suspected of being blends.
const SUSPECT: f64 = 6.0;
/// A suspect this alike (cosine) to a blend of two others is one.
const BLEND: f64 = 0.78;
/// Small groups vary more by chance: they need this much more unlikeness, divided by their pieces.
const CAUTION: f64 = 0.3;
const ITERATIONS: usize = 20;

/// Seconds of speech each piece stands for: up to the next of its region.
fn shares(pieces: &[Piece]) -> Vec<f64> {
    let next = |n: usize| pieces.get(n + 1).filter(|next| next.region == pieces[n].region);
    pieces.iter().enumerate().map(|(n, p)| next(n).map_or(p.end, |next| p.end.min(next.start)) - p.start).collect()
}

struct Clustering<'a> {
    vectors: &'a [Vec<f32>],
    shares: Vec<f64>,
    near: Near,
    split: f64,
    minimum: f64,
    labels: Vec<usize>,
    count: usize,
}

/// The cluster of each piece; clusters are numbered from 0 without gaps.
#[must_use]
pub fn cluster(vectors: &[Vec<f32>], pieces: &[Piece], tuning: &Tuning) -> Vec<usize> {
    let shares = shares(pieces);
    let minimum = tuning.minimum.max((SHARE * shares.iter().sum::<f64>()).min(SHARE_CAP));
    let near = Near::new(pieces, vectors);
    let labels = vec![0; vectors.len()];
    let mut clustering = Clustering { vectors, shares, near, split: tuning.split, minimum, labels, count: 1 };
    clustering.divide();
    clustering.refine();
    clustering.labels
}

impl Clustering<'_> {
    fn divide(&mut self) {
        let mut todo = VecDeque::from([0]);
        while let Some(group) = todo.pop_front().filter(|_| self.count < MAX_SPEAKERS) {
            let members: Vec<usize> = (0..self.labels.len()).filter(|i| self.labels[*i] == group).collect();
            let vectors: Vec<&[f32]> = members.iter().map(|i| self.vectors[*i].as_slice()).collect();
            let shares: Vec<f64> = members.iter().map(|i| self.shares[*i]).collect();
            let Some(sides) = two_means(&vectors, &shares, self.minimum) else { continue };
            let mut halves = vec![None; self.labels.len()];
            for (member, side) in members.iter().zip(&sides) {
                halves[*member] = Some(*side);
            }
            let likeness = Likeness::new(self.vectors, &halves, 2, &self.near);
            if likeness.ratio(0, 1) >= self.split - CAUTION / members.len() as f64 {
                continue;
            }
            for (member, _) in members.iter().zip(&sides).filter(|(_, side)| **side == 1) {
                self.labels[*member] = self.count;
            }
            todo.extend([group, self.count]);
            self.count += 1;
        }
    }

    fn refine(&mut self) {
        // Each round drops or joins a group or is the last; the bound only guards against a cycle.
        for _ in 0..3 * MAX_SPEAKERS {
            let centres = self.k_means();
            if self.count == 1 || !(self.drop_smallest(centres) || self.join_most_alike()) {
                break;
            }
        }
    }

    /// Takes new labels, closing gaps in their numbers.
    fn relabel(&mut self, labels: Vec<usize>) {
        let mut used = labels.clone();
        used.sort_unstable();
        used.dedup();
        self.count = used.len();
        self.labels = labels.into_iter().map(|l| used.partition_point(|u| *u < l)).collect();
    }

    fn k_means(&mut self) -> Vec<Vec<f32>> {
        let mut centres = centroids(self.vectors, &self.labels, self.count);
        for _ in 0..ITERATIONS {
            let before = (self.labels.clone(), self.count);
            self.relabel(assign(self.vectors, &centres));
            centres = centroids(self.vectors, &self.labels, self.count);
            if before == (self.labels.clone(), self.count) {
                break;
            }
        }
        centres
    }

    fn lasting(&self, group: usize) -> f64 {
        self.shares.iter().zip(&self.labels).filter(|(_, l)| **l == group).map(|(s, _)| s).sum()
    }

    fn drop_smallest(&mut self, mut centres: Vec<Vec<f32>>) -> bool {
        let lasting: Vec<f64> = (0..self.count).map(|group| self.lasting(group)).collect();
        let Some(smallest) = (0..self.count).min_by(|a, b| lasting[*a].total_cmp(&lasting[*b])) else { return false };
        let is_too_short = lasting[smallest] < self.minimum;
        let is_blend = || lasting[smallest] < SUSPECT && blend(&centres, smallest) > BLEND;
        if !is_too_short && !is_blend() {
            return false;
        }
        centres.remove(smallest);
        self.relabel(assign(self.vectors, &centres));
        true
    }

    fn join_most_alike(&mut self) -> bool {
        let labels: Vec<Option<usize>> = self.labels.iter().copied().map(Some).collect();
        let likeness = Likeness::new(self.vectors, &labels, self.count, &self.near);
        let pairs = (0..self.count).flat_map(|a| (a + 1..self.count).map(move |b| (a, b)));
        let closest = pairs.map(|(a, b)| (likeness.ratio(a, b), a, b)).max_by(|x, y| x.0.total_cmp(&y.0));
        let Some((_, a, b)) = closest.filter(|(ratio, ..)| *ratio >= self.split) else { return false };
        self.relabel(self.labels.iter().map(|l| if *l == b { a } else { *l }).collect());
        true
    }
}

/// The best cosine of a centroid with a blend of two others.
fn blend(centres: &[Vec<f32>], suspect: usize) -> f64 {
    let others: Vec<&Vec<f32>> = centres.iter().enumerate().filter(|(n, _)| *n != suspect).map(|(_, c)| c).collect();
    let mut best = f64::NEG_INFINITY;
    for (n, a) in others.iter().enumerate() {
        for b in &others[n + 1..] {
            for part in [0.3, 0.4, 0.5, 0.6, 0.7] {
                let mixed: Vec<f64> =
                    a.iter().zip(*b).map(|(x, y)| part * f64::from(*x) + (1.0 - part) * f64::from(*y)).collect();
                best = best.max(dot(&centres[suspect], &unit(&mixed)));
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of `voices` taking turns of 5 s, each vector its voice's axis with deterministic noise.
    fn session(voices: &[usize], turns: usize, noise: f32) -> (Vec<Vec<f32>>, Vec<Piece>) {
        let (mut vectors, mut pieces, mut state) = (Vec::new(), Vec::new(), 1u32);
        for turn in 0..turns {
            for step in 0..7 {
                let start = turn as f64 * 6.0 + f64::from(step) * 0.5;
                pieces.push(Piece { start, end: start + 2.0, region: turn });
                let mut vector = vec![0.0f64; 32];
                vector[voices[turn % voices.len()]] = 1.0;
                for value in &mut vector {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *value += f64::from((state >> 8) as f32 / 16_777_216.0 - 0.5) * f64::from(noise);
                }
                vectors.push(unit(&vector));
            }
        }
        (vectors, pieces)
    }

    #[test]
    fn the_number_of_voices_is_found() {
        let tuning = Tuning::of("ge2e");
        for voices in [vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2, 3, 4]] {
            let (vectors, pieces) = session(&voices, 20, 0.3);
            let labels = cluster(&vectors, &pieces, &tuning);
            let found = labels.iter().max().unwrap() + 1;
            assert_eq!(found, voices.len());
        }
    }

    #[test]
    fn two_hours_are_clustered_as_two_minutes_are() {
        let (vectors, pieces) = session(&[0, 1], 1_200, 0.4);
        let labels = cluster(&vectors, &pieces, &Tuning::of("ge2e"));
        assert!(labels.chunks(14).all(|c| c[..7].iter().all(|l| *l == c[0]) && c[7..].iter().all(|l| *l != c[0])));
    }

    #[test]
    fn one_piece_is_one_speaker() {
        let (vectors, pieces) = session(&[0], 1, 0.1);
        assert_eq!(cluster(&vectors[..1], &pieces[..1], &Tuning::of("ge2e")), [0]);
    }
}
