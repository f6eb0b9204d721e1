//! How alike groups of voice vectors are, over pairs of pieces that share no audio.

use super::Piece;

/// Two pieces that share more than this many seconds are near: their likeness says nothing about the voice.
const SHARED: f64 = 0.05;

pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// Where the first of the largest is; 0 if there is none.
pub fn largest<T: PartialOrd>(values: &[T]) -> usize {
    let mut best = 0;
    for (n, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = n;
        }
    }
    best
}

/// The sum of vectors, as long as they are.
pub fn sum<'a, V: AsRef<[f32]> + 'a>(vectors: impl Iterator<Item = &'a V>, dimension: usize) -> Vec<f64> {
    let mut total = vec![0.0; dimension];
    for vector in vectors {
        for (t, v) in total.iter_mut().zip(vector.as_ref()) {
            *t += f64::from(*v);
        }
    }
    total
}

pub fn unit(vector: &[f64]) -> Vec<f32> {
    let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-9);
    vector.iter().map(|v| (v / length) as f32).collect()
}

/// The unit centroid of each of `count` groups; `labels[i]` is the group of vector `i`.
pub fn centroids<V: AsRef<[f32]>>(vectors: &[V], labels: &[usize], count: usize) -> Vec<Vec<f32>> {
    let dimension = vectors.first().map_or(0, |v| v.as_ref().len());
    let of = |group| vectors.iter().zip(labels).filter(move |(_, l)| **l == group).map(|(v, _)| v);
    (0..count).map(|group| unit(&sum(of(group), dimension))).collect()
}

/// Pairs of pieces that share audio, each with itself included, and their cosine.
pub struct Near(Vec<(usize, usize, f64)>);

impl Near {
    pub fn new(pieces: &[Piece], vectors: &[Vec<f32>]) -> Self {
        let mut pairs = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            for (j, other) in pieces.iter().enumerate().skip(i) {
                if other.region != piece.region || (j != i && other.start >= piece.end - SHARED) {
                    break;
                }
                pairs.push((i, j, dot(&vectors[i], &vectors[j])));
            }
        }
        Self(pairs)
    }
}

/// Mean cosines between and within groups; `None` where no pair of pieces is apart.
pub struct Likeness {
    count: usize,
    means: Vec<Option<f64>>,
}

impl Likeness {
    /// `labels[i]` is the group of vector `i`, or `None` if it is in none. Linear in the number of vectors.
    pub fn new(vectors: &[Vec<f32>], labels: &[Option<usize>], count: usize, near: &Near) -> Self {
        let dimension = vectors.first().map_or(0, Vec::len);
        let of = |group| vectors.iter().zip(labels).filter(move |(_, l)| **l == Some(group)).map(|(v, _)| v);
        let sums: Vec<Vec<f64>> = (0..count).map(|group| sum(of(group), dimension)).collect();
        let sizes: Vec<f64> = (0..count).map(|group| of(group).count() as f64).collect();
        let mut totals = vec![(0.0, 0.0); count * count];
        for a in 0..count {
            for b in 0..count {
                let cosines = sums[a].iter().zip(&sums[b]).map(|(x, y)| x * y).sum::<f64>();
                totals[a * count + b] = (cosines, sizes[a] * sizes[b]);
            }
        }
        let mut take = |a: usize, b: usize, cosine: f64| {
            totals[a * count + b].0 -= cosine;
            totals[a * count + b].1 -= 1.0;
        };
        for &(i, j, cosine) in &near.0 {
            let (Some(a), Some(b)) = (labels[i], labels[j]) else { continue };
            take(a, b, cosine);
            if i != j {
                take(b, a, cosine);
            }
        }
        let means = totals.into_iter().map(|(total, pairs)| (pairs > 0.5).then(|| total / pairs)).collect();
        Self { count, means }
    }

    /// Likeness between two groups relative to the likeness within them: about 1 for one voice, less for two.
    pub fn ratio(&self, a: usize, b: usize) -> f64 {
        let mean = |a: usize, b: usize| self.means[a * self.count + b];
        let within: Vec<f64> = [mean(a, a), mean(b, b)].into_iter().flatten().collect();
        match (mean(a, b), within.len()) {
            (None, _) | (_, 0) => 1.0,
            (Some(between), n) => between / (within.iter().sum::<f64>() / n as f64).max(1e-6),
        }
    }
}
