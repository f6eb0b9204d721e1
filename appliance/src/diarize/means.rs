//! The best division of voices in two: spherical 2-means from several deterministic starts.

use super::similarity::{centroids, dot, sum, unit};

/// Starts tried.
const STARTS: usize = 12;
/// Iterations of each; it settles in a handful.
const ITERATIONS: usize = 20;
/// Vectors iterated on; the rest are assigned. Keeps hours of speech as fast as minutes.
const CAP: usize = 2000;

fn nearest(vector: &[f32], centroids: &[Vec<f32>]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (group, centroid) in centroids.iter().enumerate() {
        let cosine = dot(vector, centroid);
        if cosine > best.1 {
            best = (group, cosine);
        }
    }
    best.0
}

/// The group of each vector by its nearest centroid.
pub fn assign<V: AsRef<[f32]>>(vectors: &[V], centroids: &[Vec<f32>]) -> Vec<usize> {
    vectors.iter().map(|v| nearest(v.as_ref(), centroids)).collect()
}

fn farthest(vectors: &[&[f32]], from: &[f32]) -> usize {
    let mut best = (0, f64::INFINITY);
    for (n, vector) in vectors.iter().enumerate() {
        let cosine = dot(vector, from);
        if cosine < best.1 {
            best = (n, cosine);
        }
    }
    best.0
}

/// Vectors far from each other, the first the farthest from the mean.
fn seeds(vectors: &[&[f32]]) -> Vec<usize> {
    let dimension = vectors.first().map_or(0, |v| v.len());
    let mean = unit(&sum(vectors.iter(), dimension));
    let mut seeds = vec![farthest(vectors, &mean)];
    let mut closest: Vec<f64> = vectors.iter().map(|v| dot(v, vectors[seeds[0]])).collect();
    while seeds.len() < STARTS.min(vectors.len()) {
        let mut next = 0;
        for (n, cosine) in closest.iter().enumerate() {
            if *cosine < closest[next] {
                next = n;
            }
        }
        if seeds.contains(&next) {
            break;
        }
        seeds.push(next);
        for (c, v) in closest.iter_mut().zip(vectors) {
            *c = c.max(dot(v, vectors[next]));
        }
    }
    seeds
}

/// Iterates from one start; `None` if it never had two sides.
fn settle(sample: &[&[f32]], mut centres: Vec<Vec<f32>>) -> Option<Vec<Vec<f32>>> {
    let mut labels: Option<Vec<usize>> = None;
    for _ in 0..ITERATIONS {
        let next = assign(sample, &centres);
        let is_one_sided = next.iter().all(|l| *l == next[0]);
        if is_one_sided || labels.as_ref() == Some(&next) {
            break;
        }
        centres = centroids(sample, &next, 2);
        labels = Some(next);
    }
    labels.map(|_| centres)
}

/// The side (0 or 1) of each vector in the best division whose sides both last `minimum` seconds.
pub fn two_means(vectors: &[&[f32]], shares: &[f64], minimum: f64) -> Option<Vec<usize>> {
    if vectors.len() < 2 {
        return None;
    }
    let stride = vectors.len().div_ceil(CAP);
    let sample: Vec<&[f32]> = vectors.iter().step_by(stride).copied().collect();
    let mut best: Option<(f64, Vec<usize>)> = None;
    for seed in seeds(&sample) {
        let first = sample[seed].to_vec();
        let opposite = sample[farthest(&sample, &first)].to_vec();
        let Some(centres) = settle(&sample, vec![opposite, first]) else { continue };
        let labels = assign(vectors, &centres);
        let lasting = |side| shares.iter().zip(&labels).filter(|(_, l)| **l == side).map(|(s, _)| s).sum::<f64>();
        if lasting(0).min(lasting(1)) < minimum {
            continue;
        }
        let score: f64 = vectors.iter().zip(&labels).map(|(v, l)| dot(v, &centres[*l])).sum();
        if best.as_ref().is_none_or(|(b, _)| score > b + 1e-9) {
            best = Some((score, labels));
        }
    }
    best.map(|(_, labels)| labels)
}
