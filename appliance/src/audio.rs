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

/// The loudest sample, dB relative to full scale; `None` for silence.
#[must_use]
pub fn peak_dbfs(pcm: &[i16]) -> Option<f64> {
    let peak = pcm.iter().map(|s| s.unsigned_abs()).max().filter(|p| *p > 0)?;
    Some(20.0 * (f64::from(peak) / 32_768.0).log10())
}
