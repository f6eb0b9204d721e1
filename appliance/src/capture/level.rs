//! How loud a stretch of samples is, and whether it is what a room sounds like.

use serde::{Deserialize, Serialize};

/// Of all samples, so many at full scale are clipped: one in a thousand. A single loud clap is none.
const CLIPPED: u64 = 1000;
/// A room has no offset beyond this share of full scale.
const OFFSET: f64 = 0.05;
/// Quieter than this nobody speaks near the microphone, and no room is this quiet through one that is connected.
const QUIET_DBFS: f64 = -60.0;
const FULL_SCALE: f64 = 32_768.0;

/// What is added up of samples. Nothing of what was said can be told from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    samples: u64,
    sum: i64,
    squares: u64,
    range: Option<(i16, i16)>,
    clipped: u64,
}

/// A stretch as it is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The loudest sample, dB relative to full scale; absent for silence.
    pub peak_dbfs: Option<f64>,
    /// The root mean square without the offset, dB relative to full scale; absent for silence.
    pub rms_dbfs: Option<f64>,
    /// Samples at full scale.
    pub clipped: u64,
}

/// What is wrong with a stretch of some seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// All samples are the same.
    FlatLine,
    /// They are not about zero.
    Offset,
    /// Too many are at full scale.
    Clipping,
    /// There is next to nothing.
    TooQuiet,
}

impl Meter {
    /// Of these samples.
    #[must_use]
    pub fn of(pcm: &[i16]) -> Self {
        let mut meter = Self::default();
        meter.add(pcm);
        meter
    }

    /// Takes more samples.
    pub fn add(&mut self, pcm: &[i16]) {
        for sample in pcm.iter().copied() {
            self.sum += i64::from(sample);
            self.squares += u64::from(sample.unsigned_abs()).pow(2);
            self.clipped += u64::from(sample == i16::MAX || sample <= -i16::MAX);
            let (least, most) = self.range.unwrap_or((sample, sample));
            self.range = Some((least.min(sample), most.max(sample)));
        }
        self.samples += pcm.len() as u64;
    }

    /// How many there were.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// As it is shown, to a tenth of a decibel.
    #[must_use]
    pub fn level(&self) -> Level {
        let peak = self.range.map_or(0, |(least, most)| least.unsigned_abs().max(most.unsigned_abs()));
        Level { peak_dbfs: dbfs(f64::from(peak)), rms_dbfs: dbfs(self.rms()), clipped: self.clipped }
    }

    fn mean(&self) -> f64 {
        self.sum as f64 / self.samples.max(1) as f64
    }

    fn rms(&self) -> f64 {
        (self.squares as f64 / self.samples.max(1) as f64 - self.mean().powi(2)).max(0.0).sqrt()
    }

    /// The mean, as a share of full scale.
    #[must_use]
    pub fn offset(&self) -> f64 {
        self.mean() / FULL_SCALE
    }

    /// Samples at full scale, as a share of all.
    #[must_use]
    pub fn clipped_share(&self) -> f64 {
        self.clipped as f64 / self.samples.max(1) as f64
    }

    /// Everything that is wrong. A flat line is nothing else; without samples nothing is known.
    #[must_use]
    pub fn flaws(&self) -> Vec<Flaw> {
        let Some((least, most)) = self.range else { return Vec::new() };
        if least == most {
            return vec![Flaw::FlatLine];
        }
        let is_quiet = self.level().rms_dbfs.is_none_or(|rms| rms < QUIET_DBFS);
        let all = [
            (Flaw::Offset, self.offset().abs() > OFFSET),
            (Flaw::Clipping, self.clipped * CLIPPED > self.samples),
            (Flaw::TooQuiet, is_quiet),
        ];
        all.into_iter().filter(|(_, holds)| *holds).map(|(flaw, _)| flaw).collect()
    }
}

fn dbfs(level: f64) -> Option<f64> {
    let decibel = 20.0 * (level / FULL_SCALE).log10();
    decibel.is_finite().then(|| (decibel * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(amplitude: f64, offset: f64) -> Vec<i16> {
        let level = |n: i32| amplitude * (f64::from(n) * 0.1).sin() + offset;
        (0..32_000).map(|n| (level(n) * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16).collect()
    }

    #[test]
    fn a_level_is_peak_and_root_mean_square_without_offset() {
        let level = Meter::of(&tone(0.5, 0.0)).level();
        assert_eq!((level.peak_dbfs, level.rms_dbfs, level.clipped), (Some(-6.0), Some(-9.0), 0));
        assert_eq!(Meter::of(&tone(0.1, 0.25)).level().rms_dbfs, Some(-23.0));
        assert_eq!(Meter::of(&[0; 100]).level(), Level::default());
        assert_eq!(Meter::default().level(), Level::default());
    }

    #[test]
    fn each_flaw_is_found_just_beyond_its_limit_and_not_before() {
        let flaws = |pcm: &[i16]| Meter::of(pcm).flaws();
        assert_eq!(flaws(&tone(0.1, 0.0)), []);
        assert_eq!(flaws(&[]), []);
        assert_eq!(flaws(&[0; 32_000]), [Flaw::FlatLine]);
        assert_eq!(flaws(&[-32_768; 32_000]), [Flaw::FlatLine], "it is stuck, whatever else one may call it");
        assert_eq!((flaws(&tone(0.1, 0.049)), flaws(&tone(0.1, -0.052))), (vec![], vec![Flaw::Offset]));
        let quiet = |decibel: f64| flaws(&tone(10f64.powf((decibel + 3.01) / 20.0), 0.0));
        assert_eq!((quiet(-58.0), quiet(-62.0)), (vec![], vec![Flaw::TooQuiet]));
        let mut clipped = tone(0.5, 0.0);
        clipped[..32].fill(32_767);
        assert_eq!(flaws(&clipped), [], "one in a thousand");
        clipped[100] = -32_768;
        assert_eq!(flaws(&clipped), [Flaw::Clipping]);
    }
}
