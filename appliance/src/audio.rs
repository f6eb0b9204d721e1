//! The one audio format inside the box: 16 kHz, mono, signed 16 bit.

use std::time::Duration;

/// Samples in a second.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// How long `samples` last.
#[must_use]
pub fn duration(samples: u64) -> Duration {
    Duration::from_micros(samples.saturating_mul(1_000_000) / u64::from(SAMPLE_RATE_HZ))
}

/// How long `samples` last, in seconds.
#[must_use]
pub fn seconds(samples: u64) -> f64 {
    duration(samples).as_secs_f64()
}

/// How many samples `duration` holds.
#[must_use]
pub fn samples_in(duration: Duration) -> u64 {
    let samples = duration.as_micros() * u128::from(SAMPLE_RATE_HZ) / 1_000_000;
    u64::try_from(samples).unwrap_or(u64::MAX)
}

/// Samples between -1 and 1, as networks want them.
#[must_use]
pub fn to_float(pcm: &[i16]) -> Vec<f32> {
    pcm.iter().map(|&s| f32::from(s) / 32_768.0).collect()
}

/// Little-endian bytes.
#[must_use]
pub fn to_bytes(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|s| s.to_le_bytes()).collect()
}

/// From little-endian bytes; an odd last byte is dropped.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect()
}

/// Samples that one number of [`levels`] stands for: a tenth of a second.
pub const LEVEL_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 10;
/// What [`levels`] says of silence, and of all that is quieter: 16 bits go no lower.
pub const SILENCE_DBFS: i8 = -96;

/// How loud each tenth of a second is: its root mean square, dB relative to full scale, down to [`SILENCE_DBFS`].
#[must_use]
pub fn levels(pcm: &[i16]) -> Vec<i8> {
    let level = |tenth: &[i16]| {
        let power = tenth.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / tenth.len().max(1) as f64;
        let dbfs = 10.0 * (power / 32_768.0f64.powi(2)).log10();
        dbfs.clamp(f64::from(SILENCE_DBFS), 0.0).round() as i8
    };
    pcm.chunks(LEVEL_SAMPLES).map(level).collect()
}

/// The loudest sample, dB relative to full scale; `None` for silence.
#[must_use]
pub fn peak_dbfs(pcm: &[i16]) -> Option<f64> {
    let peak = pcm.iter().map(|s| s.unsigned_abs()).max().filter(|p| *p > 0)?;
    Some(20.0 * (f64::from(peak) / 32_768.0).log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_the_root_mean_square_of_a_tenth_of_a_second() {
        let mut pcm = vec![0; LEVEL_SAMPLES];
        pcm.extend(vec![32_767; LEVEL_SAMPLES]);
        pcm.extend((0..LEVEL_SAMPLES).map(|n| if n % 2 == 0 { 328 } else { -328 }));
        pcm.extend([16_384; 10]);
        assert_eq!(levels(&pcm), [SILENCE_DBFS, 0, -40, -6]);
        assert!(levels(&[]).is_empty());
    }
}
