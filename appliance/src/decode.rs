//! A recording from a file: WAV, FLAC, MP3 or Ogg Vorbis, at any rate and channel count, to 16 kHz mono.
//!
//! What cannot be decoded is a typed cause with one sentence for people; it never panics and never half-succeeds.

use std::fs::File;
use std::path::Path;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use crate::audio::SAMPLE_RATE_HZ;

/// Longest recording taken in: a day of audio needs 2.8 GB while it is decoded.
const MAX_SECONDS: usize = 8 * 3600;
/// Frames per step of the resampler.
const CHUNK_FRAMES: usize = 4096;

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be opened.
    #[error("the file cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// It has no bytes.
    #[error("the file is empty")]
    Empty,
    /// No format recognises it.
    #[error("the file is not a WAV, FLAC, MP3 or Ogg recording")]
    NotAudio,
    /// It has a format but a codec that is not supported.
    #[error("the recording uses an unsupported codec")]
    UnsupportedCodec,
    /// It breaks off or is damaged.
    #[error("the recording is damaged")]
    Damaged,
    /// It is sound in form and has no samples.
    #[error("the recording has no sound in it: its length is zero seconds")]
    NoSamples,
    /// It is longer than the box takes.
    #[error("the recording is longer than eight hours")]
    TooLong,
}

/// Decodes a file to 16 kHz mono.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(path: &Path) -> Result<Vec<i16>, DecodeError> {
    let file = File::open(path).map_err(DecodeError::Unreadable)?;
    let metadata = file.metadata().map_err(DecodeError::Unreadable)?;
    if metadata.is_dir() {
        return Err(DecodeError::Unreadable(std::io::ErrorKind::IsADirectory.into()));
    }
    if metadata.len() == 0 {
        return Err(DecodeError::Empty);
    }
    let (mono, rate) = decode_mono(file, path)?;
    if mono.is_empty() {
        return Err(DecodeError::NoSamples);
    }
    let resampled = resample(mono, rate)?;
    Ok(resampled.into_iter().map(|s| (s * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16).collect())
}

/// The mean of the channels, and the rate.
fn decode_mono(file: File, path: &Path) -> Result<(Vec<f32>, usize), DecodeError> {
    let mut hint = Hint::new();
    if let Some(extension) = path.extension().and_then(|e| e.to_str()) {
        hint.with_extension(extension);
    }
    let stream = MediaSourceStream::new(Box::new(file), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|_| DecodeError::NotAudio)?;
    let track = format.default_track(TrackType::Audio).ok_or(DecodeError::NotAudio)?;
    let track_id = track.id;
    let parameters = track.codec_params.as_ref().and_then(|p| p.audio()).ok_or(DecodeError::UnsupportedCodec)?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|_| DecodeError::UnsupportedCodec)?;
    let (mut mono, mut interleaved) = (Vec::new(), Vec::<f32>::new());
    let mut rate = 0;
    let mut damaged = 0usize;
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) if packet.track_id == track_id => packet,
            Ok(Some(_)) => continue,
            // A file that was cut short ends where it ends: what is there is kept.
            Ok(None) | Err(SymphoniaError::IoError(_)) => break,
            Err(_) => return Err(DecodeError::Damaged),
        };
        match decoder.decode(&packet) {
            Ok(buffer) => {
                let channels = buffer.spec().channels().count().max(1);
                rate = buffer.spec().rate() as usize;
                buffer.copy_to_vec_interleaved(&mut interleaved);
                mono.extend(interleaved.chunks_exact(channels).map(|f| f.iter().sum::<f32>() / channels as f32));
            }
            Err(SymphoniaError::DecodeError(_) | SymphoniaError::IoError(_)) => damaged += 1,
            Err(_) => return Err(DecodeError::Damaged),
        }
        if mono.len() > MAX_SECONDS * rate.max(1) {
            return Err(DecodeError::TooLong);
        }
    }
    if mono.is_empty() && damaged > 0 { Err(DecodeError::Damaged) } else { Ok((mono, rate)) }
}

fn resample(mono: Vec<f32>, rate: usize) -> Result<Vec<f32>, DecodeError> {
    let target = SAMPLE_RATE_HZ as usize;
    if rate == target {
        return Ok(mono);
    }
    let mut resampler =
        Fft::<f32>::new(rate, target, CHUNK_FRAMES, 1, FixedSync::Input).map_err(|_| DecodeError::Damaged)?;
    let input = InterleavedSlice::new(&mono, 1, mono.len()).map_err(|_| DecodeError::Damaged)?;
    let output = resampler.process_all(&input, mono.len(), None).map_err(|_| DecodeError::Damaged)?;
    Ok(output.take_data())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(path: &Path, rate: u32, channels: u16, frames: u32) {
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(path, spec).unwrap();
        for n in 0..frames {
            let sample = 12_000.0 * (f64::from(n) * 440.0 * std::f64::consts::TAU / f64::from(rate)).sin();
            for _ in 0..channels {
                writer.write_sample(sample as i16).unwrap();
            }
        }
        writer.finalize().unwrap();
    }

    /// Frequency by counting upward zero crossings.
    fn pitch(pcm: &[i16]) -> f64 {
        let crossings = pcm.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
        crossings as f64 / crate::audio::seconds(pcm.len() as u64)
    }

    #[test]
    fn any_rate_and_channel_count_keeps_length_and_pitch() {
        let folder = tempfile::tempdir().unwrap();
        for (rate, channels) in [(8_000, 1), (16_000, 2), (22_050, 1), (44_100, 2), (48_000, 6), (96_000, 1)] {
            let path = folder.path().join(format!("{rate}-{channels}.wav"));
            wav(&path, rate, channels, 2 * rate);
            let pcm = decode(&path).unwrap();
            assert!(pcm.len().abs_diff(32_000) <= 16, "{rate} Hz gave {} samples", pcm.len());
            assert!((pitch(&pcm) - 440.0).abs() < 2.0, "{rate} Hz");
            let peak = pcm[8_000..24_000].iter().max().unwrap();
            assert!((11_700..12_300).contains(peak), "{rate} Hz: level {peak}");
        }
    }

    #[test]
    fn what_is_no_recording_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty.wav"), b"").unwrap();
        std::fs::write(path("text.wav"), b"this is not a recording, whatever its name says\n".repeat(40)).unwrap();
        wav(&path("zero.wav"), 16_000, 1, 0);
        assert!(matches!(decode(&path("empty.wav")), Err(DecodeError::Empty)));
        assert!(matches!(decode(&path("text.wav")), Err(DecodeError::NotAudio)));
        assert!(decode(&path("zero.wav")).is_err());
        assert!(matches!(decode(&path("missing.wav")), Err(DecodeError::Unreadable(_))));
        assert!(matches!(decode(folder.path()), Err(DecodeError::Unreadable(_))));
    }

    #[test]
    fn a_recording_that_breaks_off_is_kept_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.wav");
        wav(&path, 16_000, 1, 32_000);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let pcm = decode(&path).unwrap();
        assert!((14_000..=16_100).contains(&pcm.len()), "{} samples", pcm.len());
    }
}
