//! Agglomerative clustering by centroid, cut where SciPy's `fcluster(…, criterion="distance")` cuts.

use kodama::{Method, linkage};

/// Which groups were joined, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchy {
    observations: usize,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
struct Step {
    left: usize,
    right: usize,
    height: f64,
    size: usize,
}

impl Hierarchy {
    /// Of unit vectors, by the Euclidean distance of their groups' centroids. Takes memory for every pair of vectors.
    #[must_use]
    pub fn new(vectors: &[Vec<f32>]) -> Self {
        let distance = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt()
        };
        let mut distances = Vec::with_capacity(vectors.len() * vectors.len().saturating_sub(1) / 2);
        for (n, a) in vectors.iter().enumerate() {
            distances.extend(vectors[n + 1..].iter().map(|b| distance(a, b) as f32));
        }
        if distances.is_empty() {
            return Self { observations: vectors.len(), steps: Vec::new() };
        }
        let tree = linkage(&mut distances, vectors.len(), Method::Centroid);
        let step = |s: &kodama::Step<f32>| Step {
            left: s.cluster1,
            right: s.cluster2,
            height: f64::from(s.dissimilarity),
            size: s.size,
        };
        Self { observations: vectors.len(), steps: tree.steps().iter().map(step).collect() }
    }

    /// Groups in which nothing was joined above `threshold`, numbered in the order of their first vector.
    #[must_use]
    pub fn cut(&self, threshold: f64) -> Vec<usize> {
        self.groups(|_, step| step.height <= threshold)
    }

    /// Groups as they were after the first steps, `last` included.
    fn after(&self, last: usize) -> Vec<usize> {
        self.groups(|n, _| n <= last)
    }

    /// With centroids a later step may be lower than an earlier one: a group holds only if all its steps do.
    fn groups(&self, holds: impl Fn(usize, &Step) -> bool) -> Vec<usize> {
        let mut is_group = vec![true; self.observations];
        let mut parent: Vec<Option<usize>> = vec![None; self.observations + self.steps.len()];
        for (n, step) in self.steps.iter().enumerate() {
            let is_one = holds(n, step) && is_group[step.left] && is_group[step.right];
            is_group.push(is_one);
            if is_one {
                (parent[step.left], parent[step.right]) = (Some(self.observations + n), Some(self.observations + n));
            }
        }
        let root = |leaf: usize| {
            let mut node = leaf;
            while let Some(up) = parent[node] {
                node = up;
            }
            node
        };
        renumbered((0..self.observations).map(root))
    }

    /// As many groups of at least `minimum` vectors as can be had, closest to `wanted`, and among those the ones of a
    /// cut closest to `threshold` (as in pyannote.audio's `AgglomerativeClustering`).
    #[must_use]
    pub fn cut_into(&self, wanted: usize, minimum: usize, threshold: f64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.steps.len()).filter(|n| self.steps[*n].size >= minimum).collect();
        order.sort_by(|a, b| {
            let far = |n: usize| (self.steps[n].height - threshold).abs();
            far(*a).total_cmp(&far(*b))
        });
        let mut best = (1usize.abs_diff(wanted), vec![0; self.observations]);
        for last in order {
            let groups = self.after(last);
            let off = sizes(&groups).into_iter().filter(|size| *size >= minimum).count().abs_diff(wanted);
            if off < best.0 {
                best = (off, groups);
            }
            if best.0 == 0 {
                break;
            }
        }
        best.1
    }
}

/// How many belong to each group.
#[must_use]
pub fn sizes(groups: &[usize]) -> Vec<usize> {
    let mut sizes = vec![0; groups.iter().max().map_or(0, |last| last + 1)];
    groups.iter().for_each(|group| sizes[*group] += 1);
    sizes
}

/// The same groups, numbered from 0 in the order in which they appear.
#[must_use]
pub fn renumbered(groups: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = std::collections::HashMap::new();
    groups
        .map(|group| {
            let next = seen.len();
            *seen.entry(group).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(degrees: &[f32]) -> Vec<Vec<f32>> {
        degrees.iter().map(|d| vec![d.to_radians().cos(), d.to_radians().sin()]).collect()
    }

    #[test]
    fn what_lies_close_is_one_group_and_groups_are_numbered_as_they_appear() {
        let tree = Hierarchy::new(&points(&[90.0, 0.0, 92.0, 3.0, 94.0, 180.0]));
        assert_eq!(tree.cut(0.5), [0, 1, 0, 1, 0, 2]);
        assert_eq!(tree.cut(0.0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(tree.cut(9.0), [0; 6]);
    }

    #[test]
    fn the_number_of_groups_can_be_asked_for() {
        let tree = Hierarchy::new(&points(&[90.0, 0.0, 92.0, 3.0, 94.0, 180.0]));
        assert_eq!(tree.cut_into(2, 2, 0.5), [0, 1, 0, 1, 0, 2], "two that count, and one that is too small");
        assert_eq!(tree.cut_into(3, 1, 0.5), [0, 1, 0, 1, 0, 2]);
        assert_eq!(tree.cut_into(1, 1, 0.5), [0; 6]);
        assert_eq!(sizes(&tree.cut_into(6, 1, 0.5)).len(), 5, "the last state that joining has seen");
    }

    #[test]
    fn one_vector_is_one_group_and_none_are_none() {
        assert_eq!(Hierarchy::new(&points(&[1.0])).cut(0.5), [0]);
        assert!(Hierarchy::new(&[]).cut(0.5).is_empty());
    }
}
