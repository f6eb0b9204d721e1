//! Variational Bayes over the hidden speaker of each embedding, each speaker a Gaussian in the space of a PLDA.
//!
//! Landini et al., *Bayesian HMM clustering of x-vector sequences (VBx)*, 2022, equations 14 to 25, without the Markov
//! chain (embeddings of chunks that overlap have no order), as in pyannote.audio's `cluster_vbx`.

/// How far each guess at the start is from certain.
const SMOOTHING: f64 = 7.0;
/// Iterations at most; it settles in a handful.
const ITERATIONS: usize = 20;
/// An iteration that raises the bound by less than this is the last.
const ENOUGH: f64 = 1e-4;

/// Scaling of the statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Of what embeddings say: less than 1, because those of overlapping chunks are not independent.
    pub acoustic: f64,
    /// Of what is believed beforehand: higher lets speakers vanish sooner.
    pub speaker: f64,
}

/// Who is behind each embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// One row an embedding, one column a speaker; rows sum to 1.
    pub gamma: Vec<Vec<f64>>,
    /// How much of all there is each speaker says.
    pub weights: Vec<f64>,
}

/// Refines `start` (the group of each row of `features`). `phi` is the PLDA's variance between speakers, one number a
/// column of `features`.
#[must_use]
pub fn vbx(features: &[Vec<f64>], phi: &[f64], start: &[usize], scaling: Scaling) -> Posterior {
    let speakers = start.iter().max().map_or(0, |last| last + 1);
    let mut gamma: Vec<Vec<f64>> = start.iter().map(|group| first_guess(*group, speakers)).collect();
    let mut weights = vec![1.0 / speakers.max(1) as f64; speakers];
    let likelihood: Vec<f64> = features
        .iter()
        .map(|x| {
            let squares: f64 = x.iter().map(|v| v * v).sum();
            -0.5 * (squares + x.len() as f64 * std::f64::consts::TAU.ln())
        })
        .collect();
    let rho: Vec<Vec<f64>> =
        features.iter().map(|x| x.iter().zip(phi).map(|(v, phi)| v * phi.sqrt()).collect()).collect();
    let ratio = scaling.acoustic / scaling.speaker;
    let mut before = f64::NEG_INFINITY;
    for _ in 0..ITERATIONS {
        let models: Vec<Model> = (0..speakers).map(|s| Model::new(s, &gamma, &rho, phi, ratio)).collect();
        let mut bound = scaling.speaker * 0.5 * models.iter().map(|model| model.bound).sum::<f64>();
        for ((row, x), own) in gamma.iter_mut().zip(&rho).zip(&likelihood) {
            let scores: Vec<f64> = models
                .iter()
                .zip(&weights)
                .map(|(model, weight)| scaling.acoustic * (model.fit(x) + own) + (weight + 1e-8).ln())
                .collect();
            let all = log_sum(&scores);
            bound += all;
            row.iter_mut().zip(&scores).for_each(|(value, score)| *value = (score - all).exp());
        }
        let total = gamma.len() as f64;
        weights = (0..speakers).map(|s| gamma.iter().map(|row| row[s]).sum::<f64>() / total).collect();
        if bound - before < ENOUGH {
            break;
        }
        before = bound;
    }
    Posterior { gamma, weights }
}

/// A softmax of the group, not quite certain.
fn first_guess(group: usize, speakers: usize) -> Vec<f64> {
    let own = SMOOTHING.exp();
    let all = own + (speakers as f64 - 1.0);
    (0..speakers).map(|s| if s == group { own / all } else { 1.0 / all }).collect()
}

fn log_sum(scores: &[f64]) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + scores.iter().map(|score| (score - largest).exp()).sum::<f64>().ln()
}

/// A speaker's Gaussian: mean and what is subtracted from every fit.
struct Model {
    alpha: Vec<f64>,
    constant: f64,
    bound: f64,
}

impl Model {
    fn new(speaker: usize, gamma: &[Vec<f64>], rho: &[Vec<f64>], phi: &[f64], ratio: f64) -> Self {
        let occupation: f64 = gamma.iter().map(|row| row[speaker]).sum();
        let mut alpha = vec![0.0; phi.len()];
        for (row, x) in gamma.iter().zip(rho) {
            alpha.iter_mut().zip(x).for_each(|(a, v)| *a += row[speaker] * v);
        }
        let (mut constant, mut bound) = (0.0, 0.0);
        for (a, phi) in alpha.iter_mut().zip(phi) {
            let variance = 1.0 / (1.0 + ratio * occupation * phi);
            *a *= ratio * variance;
            constant += 0.5 * (variance + *a * *a) * phi;
            bound += variance.ln() - variance - *a * *a + 1.0;
        }
        Self { alpha, constant, bound }
    }

    fn fit(&self, x: &[f64]) -> f64 {
        self.alpha.iter().zip(x).map(|(a, v)| a * v).sum::<f64>() - self.constant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALING: Scaling = Scaling { acoustic: 0.3, speaker: 2.0 };

    /// Two voices on two axes, of a PLDA that knows both.
    fn two_voices() -> Vec<Vec<f64>> {
        (0..40).map(|n| if n % 2 == 0 { vec![6.0, 0.1] } else { vec![-0.1, 6.0] }).collect()
    }

    #[test]
    fn groups_of_one_voice_become_one() {
        let start: Vec<usize> = (0..40).map(|n| if n < 30 { n % 2 } else { n % 2 + 2 }).collect();
        let found = vbx(&two_voices(), &[9.0, 9.0], &start, SCALING);
        assert_eq!(found.weights.iter().filter(|weight| **weight > 0.01).count(), 2);
        assert!(found.gamma.iter().all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-9));
    }

    #[test]
    fn a_wrong_start_is_put_right() {
        let mut start: Vec<usize> = (0..40).map(|n| n % 2).collect();
        start[4] = 1;
        let found = vbx(&two_voices(), &[9.0, 9.0], &start, SCALING);
        assert!(found.gamma[4][0] > 0.99);
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert!(vbx(&[], &[1.0], &[], SCALING).gamma.is_empty());
    }
}
