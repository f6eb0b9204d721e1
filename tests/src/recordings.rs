//! Recordings that are made for a test, from the fixtures or from nothing.

use std::path::{Path, PathBuf};

/// The rate of every recording here.
pub const RATE_HZ: u32 = 16_000;

/// The samples of a WAV file of 16 bits, between -1 and 1.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn samples(wav: &Path) -> Vec<f32> {
    let reader = hound::WavReader::open(wav).expect("a WAV file");
    reader.into_samples::<i16>().map(|sample| f32::from(sample.expect("a sample")) / 32_768.0).collect()
}

/// The samples of a stretch, in seconds.
///
/// # Panics
/// If there is no such stretch.
#[must_use]
pub fn stretch(samples: &[f32], start: f64, end: f64) -> &[f32] {
    let at = |seconds: f64| (seconds * f64::from(RATE_HZ)).round() as usize;
    samples.get(at(start)..at(end)).expect("a stretch within the recording")
}

/// Writes samples, those of several channels in turn, as a WAV file of 32-bit floats.
///
/// # Panics
/// If there is no room for it.
#[must_use]
pub fn float_wav(path: &Path, channels: u16, samples: &[f32]) -> PathBuf {
    let spec = hound::WavSpec {
        channels,
        sample_rate: RATE_HZ,
        bits_per_sample: 32,
        sample_format: hound::SampleFormat::Float,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("a file");
    samples.iter().for_each(|sample| writer.write_sample(*sample).expect("room for a sample"));
    writer.finalize().expect("room for the header");
    path.to_owned()
}

/// The same voice, higher and faster by `factor`, or lower and slower.
#[must_use]
pub fn pitched(samples: &[f32], factor: f64) -> Vec<f32> {
    let length = (samples.len() as f64 / factor) as usize;
    let at = |n: usize| {
        let place = n as f64 * factor;
        let (before, share) = (place as usize, place.fract() as f32);
        let next = samples.get(before + 1).or(samples.last()).copied().unwrap_or_default();
        samples.get(before).map_or(next, |sample| sample * (1.0 - share) + next * share)
    };
    (0..length).map(at).collect()
}

/// Chords of a piano, as far as sines make one.
#[must_use]
pub fn music(seconds: u32) -> Vec<f32> {
    const CHORDS: [[f64; 4]; 4] = [
        [130.8, 261.6, 329.6, 392.0],
        [110.0, 220.0, 261.6, 329.6],
        [87.3, 174.6, 220.0, 261.6],
        [98.0, 196.0, 246.9, 293.7],
    ];
    let sample = |n: u32| {
        let at = f64::from(n) / f64::from(RATE_HZ);
        let chord = CHORDS[(at / 0.75) as usize % CHORDS.len()];
        let tone = |hz: f64| {
            (1..=4).map(|k| (std::f64::consts::TAU * hz * f64::from(k) * at).sin() / f64::from(k)).sum::<f64>()
        };
        (0.1 * (-3.0 * (at % 0.75)).exp() * chord.into_iter().map(tone).sum::<f64>()) as f32
    };
    (0..seconds * RATE_HZ).map(sample).collect()
}
