//! Kaldi's filter bank (`compute-fbank-feats`: 80 bands, 25 ms every 10 ms, no dither), as WeSpeaker and 3D-Speaker
//! train with it. Only the window differs between them.
//!
//!   frame ─▶ no mean ─▶ pre-emphasis ─▶ window ─▶ power spectrum of 512 ─▶ triangles on the mel scale ─▶ logarithm

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

/// Bands of one frame.
pub const MEL_BANDS: usize = 80;
const FRAME: usize = 400;
const SHIFT: usize = 160;
const PADDED: usize = 512;
const RATE: f64 = 16_000.0;
const LOWEST_HZ: f64 = 20.0;
const PRE_EMPHASIS: f64 = 0.97;
/// Kaldi computes on 16-bit samples.
const SCALE: f64 = 32_768.0;

/// The window of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// `WeSpeaker`.
    Hamming,
    /// Kaldi's own; 3D-Speaker.
    Povey,
}

/// See the top of the file.
pub struct FilterBank {
    fft: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    /// First bin and weights of each band.
    bands: Vec<(usize, Vec<f64>)>,
}

fn mel(hertz: f64) -> f64 {
    1127.0 * (hertz / 700.0).ln_1p()
}

fn bands() -> Vec<(usize, Vec<f64>)> {
    let (low, high) = (mel(LOWEST_HZ), mel(RATE / 2.0));
    let step = (high - low) / (MEL_BANDS + 1) as f64;
    let weight = |bin: usize, left: f64| {
        let at = mel(bin as f64 * RATE / PADDED as f64);
        ((at - left) / step).min((left + 2.0 * step - at) / step).max(0.0)
    };
    (0..MEL_BANDS)
        .map(|band| {
            let left = low + band as f64 * step;
            let weights: Vec<f64> = (0..PADDED / 2).map(|bin| weight(bin, left)).collect();
            let first = weights.iter().position(|w| *w > 0.0).unwrap_or(0);
            let last = weights.iter().rposition(|w| *w > 0.0).map_or(first, |last| last + 1);
            (first, weights[first..last].to_vec())
        })
        .collect()
}

impl FilterBank {
    /// With this window.
    #[must_use]
    pub fn new(window: Window) -> Self {
        let of = |n: usize| {
            let turn = (std::f64::consts::TAU * n as f64 / (FRAME - 1) as f64).cos();
            match window {
                Window::Hamming => 0.54 - 0.46 * turn,
                Window::Povey => (0.5 - 0.5 * turn).powf(0.85),
            }
        };
        let fft = RealFftPlanner::new().plan_fft_forward(PADDED);
        Self { fft, window: (0..FRAME).map(of).collect(), bands: bands() }
    }

    /// [`MEL_BANDS`] values a frame, one frame after the other, of samples between -1 and 1. Only whole frames.
    #[must_use]
    pub fn features(&self, samples: &[f32]) -> Vec<f32> {
        let (mut padded, mut spectrum) = (self.fft.make_input_vec(), self.fft.make_output_vec());
        let mut features = Vec::new();
        let mut from = 0;
        while let Some(frame) = samples.get(from..from + FRAME) {
            self.prepare(frame, &mut padded);
            // It fails only for buffers of another length than its own.
            if self.fft.process(&mut padded, &mut spectrum).is_err() {
                break;
            }
            features.extend(self.bands.iter().map(|(first, weights)| {
                let energy: f64 =
                    spectrum[*first..].iter().zip(weights).map(|(bin, weight)| bin.norm_sqr() * weight).sum();
                energy.max(f64::from(f32::EPSILON)).ln() as f32
            }));
            from += SHIFT;
        }
        features
    }

    fn prepare(&self, frame: &[f32], padded: &mut [f64]) {
        let mean = frame.iter().map(|s| f64::from(*s)).sum::<f64>() / FRAME as f64;
        let centred = |n: usize| (f64::from(frame[n]) - mean) * SCALE;
        for (n, value) in padded.iter_mut().enumerate() {
            *value = match n {
                FRAME.. => 0.0,
                _ => (centred(n) - PRE_EMPHASIS * centred(n.saturating_sub(1))) * self.window[n],
            };
        }
    }

    /// As [`FilterBank::features`], each band less its mean over all frames, as both toolkits feed their networks.
    #[must_use]
    pub fn normalized(&self, samples: &[f32]) -> Vec<f32> {
        let mut features = self.features(samples);
        let frames = features.len() / MEL_BANDS;
        for band in 0..MEL_BANDS {
            let values = || features.iter().skip(band).step_by(MEL_BANDS);
            let mean = (values().map(|v| f64::from(*v)).sum::<f64>() / frames.max(1) as f64) as f32;
            features.iter_mut().skip(band).step_by(MEL_BANDS).for_each(|v| *v -= mean);
        }
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `tests/tools/fbank_reference.py` fed to kaldi-native-fbank: a chirp with a tremor, and as much noise as lets
    /// no band fall below what its 32-bit sums can hold.
    fn samples() -> Vec<f32> {
        let mut state = 1u32;
        (0..4000u32)
            .map(|n| {
                let t = f64::from(n) / RATE;
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = f64::from(state >> 8) / 16_777_216.0 - 0.5;
                let chirp = (std::f64::consts::TAU * (200.0 * t + 6000.0 * t * t)).sin();
                (0.4 * chirp * (1.0 + (40.0 * t).sin()) + 0.2 * noise + 0.1) as f32
            })
            .collect()
    }

    #[test]
    fn features_are_those_of_kaldi_native_fbank() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/diarization/fbank.json");
        let reference: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for (window, name) in [(Window::Hamming, "hamming"), (Window::Povey, "povey")] {
            let ours = FilterBank::new(window).features(&samples());
            let theirs: Vec<f64> = reference[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            assert_eq!(ours.len(), theirs.len());
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-3, "{name} is {worst} off");
        }
    }

    #[test]
    fn normalized_bands_have_no_mean_and_silence_is_finite() {
        let bank = FilterBank::new(Window::Hamming);
        let features = bank.normalized(&samples());
        for band in 0..MEL_BANDS {
            let sum: f32 = features.iter().skip(band).step_by(MEL_BANDS).sum();
            assert!(sum.abs() < 1e-3);
        }
        assert!(bank.features(&[0.0; 4000]).iter().all(|v| v.is_finite()));
        assert!(bank.features(&[0.0; FRAME - 1]).is_empty());
    }
}
