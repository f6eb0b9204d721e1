//! A recording from a file: WAV, FLAC, MP3 or Ogg Vorbis, at any rate and channel count, to 16 kHz mono.
//!
//! It is decoded in pieces, so that an hour needs no more memory than a minute. What cannot be decoded is a typed
//! cause with one sentence for people; what is damaged, or holds values that are no sound (NaN, infinity), is told as
//! such and keeps its time.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use crate::audio::SAMPLE_RATE_HZ;

/// Longest recording taken in: nobody sits in a room for longer.
const MAX_SECONDS: u64 = 8 * 3600;
/// Frames per step of the resampler.
const CHUNK_FRAMES: usize = 4096;
/// Rates that sound is recorded at, and more. A resampler between others takes gigabytes: a header of a few bytes would
/// cost the box its memory.
const RATES_HZ: RangeInclusive<usize> = 2_000..=384_000;
/// Float samples may be louder than full scale; from this on they are cut off, before a resampler reckons infinity of them.
const LOUDEST: f32 = 16.0;
/// Packets are this exact about their time, in seconds: less missing than this is no damage.
const JITTER: f64 = 0.1;

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be opened, or is no file.
    #[error("the file cannot be read: {0}")]
    Unreadable(io::Error),
    /// It has no bytes.
    #[error("the file is empty")]
    Empty,
    /// No format recognises it.
    #[error("the file is not a WAV, FLAC, MP3 or Ogg recording")]
    NotAudio,
    /// It has a format but a codec that is not supported.
    #[error("the recording uses an unsupported codec")]
    UnsupportedCodec,
    /// It is damaged throughout.
    #[error("the recording is damaged")]
    Damaged,
    /// Its samples are floats, and none of them a level.
    #[error("the recording holds values that are not numbers (NaN or infinity) instead of sound")]
    NotNumbers,
    /// It is sound in form and has no samples.
    #[error("the recording has no sound in it: its length is zero seconds")]
    NoSamples,
    /// It is longer than the box takes.
    #[error("the recording is longer than eight hours")]
    TooLong,
    /// What was decoded could not be written; says nothing about the recording.
    #[error("what was decoded cannot be written: {0}")]
    Sink(io::Error),
}

/// What a stretch of a recording holds.
#[derive(Debug)]
pub enum Stretch<'a> {
    /// Samples, 16 kHz mono.
    Sound(&'a [i16]),
    /// So many samples that cannot be decoded.
    Damaged(u64),
}

/// Decodes a file, stretch after stretch.
///
/// # Errors
/// [`DecodeError`]; what was decoded before has been given by then.
pub fn decode(path: &Path, sink: impl FnMut(Stretch<'_>) -> io::Result<()>) -> Result<(), DecodeError> {
    let metadata = path.metadata().map_err(DecodeError::Unreadable)?;
    if !metadata.is_file() {
        let problem = if metadata.is_dir() { "it is a folder" } else { "it is not a regular file" };
        return Err(DecodeError::Unreadable(io::Error::new(io::ErrorKind::InvalidInput, problem)));
    }
    if metadata.len() == 0 {
        return Err(DecodeError::Empty);
    }
    let file = File::open(path).map_err(DecodeError::Unreadable)?;
    let mut hint = Hint::new();
    if let Some(extension) = path.extension().and_then(|e| e.to_str()) {
        hint.with_extension(extension);
    }
    let stream = MediaSourceStream::new(Box::new(file), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|_| DecodeError::NotAudio)?;
    decode_track(format.as_mut(), sink)
}

fn decode_track(
    format: &mut dyn FormatReader,
    sink: impl FnMut(Stretch<'_>) -> io::Result<()>,
) -> Result<(), DecodeError> {
    let track = format.default_track(TrackType::Audio).ok_or(DecodeError::NotAudio)?;
    let track_id = track.id;
    let tick = track.time_base.map(|base| f64::from(base.numer.get()) / f64::from(base.denom.get()));
    let parameters = track.codec_params.as_ref().and_then(|p| p.audio()).ok_or(DecodeError::UnsupportedCodec)?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|_| DecodeError::UnsupportedCodec)?;
    let mut pipe = Pipe { sink, resampler: None, given: 0, heard: 0 };
    let (mut expected, mut was_damaged, mut no_numbers_until) = (None, false, None);
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) if packet.track_id == track_id => packet,
            Ok(Some(_)) => continue,
            // A file that was cut short ends where it ends: what is there is kept.
            Ok(None) | Err(SymphoniaError::IoError(_)) => break,
            Err(_) if pipe.given > 0 => break,
            Err(_) => return Err(DecodeError::Damaged),
        };
        let (at, ticks) = (packet.pts.get(), i64::try_from(packet.dur.get()).unwrap_or(0));
        let due = *expected.get_or_insert(at);
        let seconds = |until: i64| until.saturating_sub(due) as f64 * tick.unwrap_or(0.0);
        match mono(decoder.as_mut(), &packet)? {
            Heard::Damaged => was_damaged = true,
            Heard::NoNumbers => no_numbers_until = Some(at.saturating_add(ticks)),
            Heard::Sound(samples, rate) => {
                expected = Some(at.saturating_add(ticks));
                if seconds(at) > if no_numbers_until.take().is_some() { 0.0 } else { JITTER } {
                    pipe.damaged(seconds(at))?;
                }
                pipe.push(&samples, rate)?;
            }
        }
    }
    if let (Some(until), Some(due), Some(tick)) = (no_numbers_until, expected, tick) {
        pipe.damaged(until.saturating_sub(due) as f64 * tick)?;
    }
    pipe.finish()?;
    match pipe.heard {
        0 if no_numbers_until.is_some() => Err(DecodeError::NotNumbers),
        0 if was_damaged => Err(DecodeError::Damaged),
        0 => Err(DecodeError::NoSamples),
        _ => Ok(()),
    }
}

/// What a packet holds.
enum Heard {
    /// The mean of its channels, and its rate.
    Sound(Vec<f32>, usize),
    /// It cannot be decoded.
    Damaged,
    /// It can, and for a part of it no channel is a number.
    NoNumbers,
}

fn mono(decoder: &mut dyn AudioDecoder, packet: &Packet) -> Result<Heard, DecodeError> {
    match decoder.decode(packet) {
        Ok(buffer) => {
            let channels = buffer.spec().channels().count().max(1);
            let rate = buffer.spec().rate() as usize;
            let mut interleaved = Vec::<f32>::new();
            buffer.copy_to_vec_interleaved(&mut interleaved);
            if !RATES_HZ.contains(&rate) {
                return Ok(Heard::Damaged);
            }
            let mono: Option<Vec<f32>> = interleaved.chunks_exact(channels).map(mean).collect();
            Ok(mono.map_or(Heard::NoNumbers, |mono| Heard::Sound(mono, rate)))
        }
        Err(SymphoniaError::DecodeError(_) | SymphoniaError::IoError(_)) => Ok(Heard::Damaged),
        Err(_) => Err(DecodeError::Damaged),
    }
}

/// The mean of those channels of a frame that are numbers, if one is.
pub(crate) fn mean(frame: &[f32]) -> Option<f32> {
    let levels = || frame.iter().filter(|sample| sample.is_finite()).map(|sample| sample.clamp(-LOUDEST, LOUDEST));
    let count = levels().count();
    (count > 0).then(|| levels().sum::<f32>() / count as f32)
}

/// Takes mono at any rate and gives 16 kHz.
struct Pipe<S> {
    sink: S,
    resampler: Option<Converter>,
    /// Samples of time.
    given: u64,
    /// Samples of sound among them.
    heard: u64,
}

impl<S: FnMut(Stretch<'_>) -> io::Result<()>> Pipe<S> {
    fn push(&mut self, mono: &[f32], rate: usize) -> Result<(), DecodeError> {
        let target = SAMPLE_RATE_HZ as usize;
        if self.resampler.as_ref().is_some_and(|r| r.rate != rate) {
            self.finish()?;
        }
        if rate == target {
            return self.give(mono);
        }
        let resampler = match &mut self.resampler {
            Some(resampler) => resampler,
            none => none.insert(Converter::new(rate)?),
        };
        let converted = resampler.push(mono)?;
        self.give(&converted)
    }

    fn damaged(&mut self, seconds: f64) -> Result<(), DecodeError> {
        self.finish()?;
        let samples = (seconds * f64::from(SAMPLE_RATE_HZ)).round() as u64;
        self.count(samples)?;
        (self.sink)(Stretch::Damaged(samples)).map_err(DecodeError::Sink)
    }

    /// Gives what the resampler still holds.
    fn finish(&mut self) -> Result<(), DecodeError> {
        match self.resampler.take() {
            Some(mut resampler) => {
                let rest = resampler.rest()?;
                self.give(&rest)
            }
            None => Ok(()),
        }
    }

    fn count(&mut self, samples: u64) -> Result<(), DecodeError> {
        self.given = self.given.saturating_add(samples);
        if self.given > MAX_SECONDS * u64::from(SAMPLE_RATE_HZ) { Err(DecodeError::TooLong) } else { Ok(()) }
    }

    fn give(&mut self, samples: &[f32]) -> Result<(), DecodeError> {
        self.count(samples.len() as u64)?;
        self.heard += samples.len() as u64;
        let pcm: Vec<i16> = samples.iter().map(|s| (s * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16).collect();
        (self.sink)(Stretch::Sound(&pcm)).map_err(DecodeError::Sink)
    }
}

/// A resampler that takes any number of frames at a time and gives as many seconds as it took.
struct Converter {
    rate: usize,
    fft: Fft<f32>,
    waiting: Vec<f32>,
    taken: u64,
    given: u64,
    skip: usize,
}

impl Converter {
    fn new(rate: usize) -> Result<Self, DecodeError> {
        let fft = Fft::<f32>::new(rate, SAMPLE_RATE_HZ as usize, CHUNK_FRAMES, 1, FixedSync::Input)
            .map_err(|_| DecodeError::UnsupportedCodec)?;
        let skip = fft.output_delay();
        Ok(Self { rate, fft, waiting: Vec::new(), taken: 0, given: 0, skip })
    }

    fn push(&mut self, mono: &[f32]) -> Result<Vec<f32>, DecodeError> {
        self.taken += mono.len() as u64;
        self.waiting.extend_from_slice(mono);
        let mut converted = Vec::new();
        let mut from = 0;
        while self.waiting.len() - from >= self.fft.input_frames_next() {
            let step = self.fft.input_frames_next();
            let input = InterleavedSlice::new(&self.waiting[from..from + step], 1, step);
            let output = self.fft.process(&input.map_err(|_| DecodeError::Damaged)?, None);
            converted.extend(output.map_err(|_| DecodeError::Damaged)?.take_data());
            from += step;
        }
        self.waiting.drain(..from);
        // What the filter gives before the first sample has passed it is not sound.
        let skipped = self.skip.min(converted.len());
        self.skip -= skipped;
        converted.drain(..skipped);
        self.given += converted.len() as u64;
        Ok(converted)
    }

    fn rest(&mut self) -> Result<Vec<f32>, DecodeError> {
        let owed = self.taken * u64::from(SAMPLE_RATE_HZ) / self.rate as u64;
        let missing = usize::try_from(owed.saturating_sub(self.given)).unwrap_or(0);
        let mut rest = Vec::new();
        while rest.len() < missing {
            rest.extend(self.push(&vec![0.0; self.fft.input_frames_next()])?);
        }
        rest.truncate(missing);
        Ok(rest)
    }
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

    fn float_wav(path: &Path, channels: u16, samples: &[f32]) {
        let spec = hound::WavSpec {
            channels,
            sample_rate: 16_000,
            bits_per_sample: 32,
            sample_format: hound::SampleFormat::Float,
        };
        let mut writer = hound::WavWriter::create(path, spec).unwrap();
        samples.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
        writer.finalize().unwrap();
    }

    fn all(path: &Path) -> Result<(Vec<i16>, u64), DecodeError> {
        let (mut pcm, mut damaged) = (Vec::new(), 0);
        decode(path, |stretch| {
            match stretch {
                Stretch::Sound(samples) => pcm.extend_from_slice(samples),
                Stretch::Damaged(samples) => damaged += samples,
            }
            Ok(())
        })?;
        Ok((pcm, damaged))
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
            let (pcm, damaged) = all(&path).unwrap();
            assert_eq!((pcm.len(), damaged), (32_000, 0), "{rate} Hz");
            assert!((pitch(&pcm) - 440.0).abs() < 2.0, "{rate} Hz");
            let peak = pcm[8_000..24_000].iter().max().unwrap();
            assert!((11_700..12_300).contains(peak), "{rate} Hz: level {peak}");
            let first = pcm.iter().position(|s| s.abs() > 3_000).unwrap();
            assert!(first < 40, "{rate} Hz begins {first} samples late");
        }
    }

    #[test]
    fn what_is_no_recording_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty.wav"), b"").unwrap();
        std::fs::write(path("text.wav"), b"this is not a recording, whatever its name says\n".repeat(40)).unwrap();
        wav(&path("zero.wav"), 16_000, 1, 0);
        assert!(matches!(all(&path("empty.wav")), Err(DecodeError::Empty)));
        assert!(matches!(all(&path("text.wav")), Err(DecodeError::NotAudio)));
        assert!(all(&path("zero.wav")).is_err());
        assert!(matches!(all(&path("missing.wav")), Err(DecodeError::Unreadable(_))));
        assert!(matches!(all(folder.path()), Err(DecodeError::Unreadable(_))));
    }

    /// A FIFO nobody writes to used to be waited on for ever.
    #[test]
    fn what_is_not_a_regular_file_is_not_waited_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(all(&path), Err(DecodeError::Unreadable(_))));
    }

    #[test]
    fn a_recording_that_breaks_off_is_kept_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.wav");
        wav(&path, 16_000, 1, 32_000);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let (pcm, _) = all(&path).unwrap();
        assert!((14_000..=16_100).contains(&pcm.len()), "{} samples", pcm.len());
    }

    /// They used to be silence.
    #[test]
    fn values_that_are_not_numbers_keep_their_time_and_are_no_sound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("float.wav");
        let of = |channels: u16, samples: &[f32]| {
            float_wav(&path, channels, samples);
            all(&path).map(|(pcm, damaged)| (pcm.len() as u64 + damaged, damaged, pcm))
        };
        for stretch in [0..8_000_u64, 16_000..24_000, 24_000..32_000, 20_000..20_001] {
            let mut samples = vec![0.25; 32_000];
            samples[stretch.start as usize..stretch.end as usize].fill(f32::NAN);
            let (length, damaged, pcm) = of(1, &samples).unwrap();
            let least = stretch.end - stretch.start;
            assert_eq!((length, (least..least + 2_400).contains(&damaged)), (32_000, true), "{damaged} damaged");
            assert!(pcm.iter().all(|sample| *sample == 8_192));
        }
        for value in [f32::NAN, f32::INFINITY] {
            assert!(matches!(of(1, &vec![value; 32_000]), Err(DecodeError::NotNumbers)));
            let (length, damaged, pcm) = of(2, &[0.25, value].repeat(32_000)).unwrap();
            assert_eq!((length, damaged), (32_000, 0));
            assert!(pcm.iter().all(|sample| *sample == 8_192), "the other channel is heard");
        }
    }

    /// Found when the fuzz target was made: such a header used to take gigabytes for a resampler, and the box with them.
    #[test]
    fn a_rate_that_nothing_records_at_is_damage_and_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rate.wav");
        wav(&path, 16_000, 1, 200);
        let sound = std::fs::read(&path).unwrap();
        for rate in [0, 1, 1_999, 384_001, 4_294_967_291_u32] {
            let mut bytes = sound.clone();
            bytes[24..28].copy_from_slice(&rate.to_le_bytes());
            std::fs::write(&path, &bytes).unwrap();
            assert!(all(&path).is_err(), "{rate} Hz");
        }
    }

    /// Found by fuzzing: the resampler used to panic.
    #[test]
    fn samples_louder_than_anything_are_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loud.wav");
        let loud: Vec<f32> = (0..20_000).map(|n| if n / 50 % 2 == 0 { f32::MAX } else { f32::MIN }).collect();
        float_wav(&path, 1, &loud);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[24..28].copy_from_slice(&44_100u32.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let (pcm, damaged) = all(&path).unwrap();
        assert_eq!((pcm.len(), damaged), (7_256, 0));
        assert!(pcm.contains(&i16::MAX) && pcm.contains(&i16::MIN));
    }

    /// Its samples used to be added up without a limit, modulo 2^64 in release.
    #[test]
    fn a_gap_longer_than_eight_hours_is_not_told() {
        let mut told = 0;
        let sink = |_: Stretch<'_>| {
            told += 1;
            Ok(())
        };
        let mut pipe = Pipe { sink, resampler: None, given: 16_000, heard: 16_000 };
        for seconds in [1e300, 1.2e15, 8.0 * 3600.0] {
            assert!(matches!(pipe.damaged(seconds), Err(DecodeError::TooLong)));
        }
        assert_eq!(told, 0);
    }

    #[test]
    fn what_is_damaged_in_the_middle_keeps_its_time() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/audio/stereo-44100.flac");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.flac");
        let mut bytes = std::fs::read(fixture).unwrap();
        let (whole, none) = {
            std::fs::write(&path, &bytes).unwrap();
            all(&path).unwrap()
        };
        assert_eq!(none, 0);
        let middle = bytes.len() / 2;
        bytes[middle..middle + 30_000].fill(0x55);
        std::fs::write(&path, &bytes).unwrap();
        let (pcm, damaged) = all(&path).unwrap();
        assert!(damaged > 4_000, "{damaged} samples are told as damaged");
        let total = pcm.len() as u64 + damaged;
        assert!(total.abs_diff(whole.len() as u64) < 2_000, "{total} of {} samples", whole.len());
    }
}
