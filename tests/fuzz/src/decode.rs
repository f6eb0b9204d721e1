//! Recordings from a file: the whole input is one, of whatever format.
//!
//! A rate that nobody records at needs a resampler that takes a second to make, and leads nowhere: in the headers such a
//! rate is mostly replaced by a usual one.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use appliance::decode::{DecodeError, Stretch, decode};

use super::Target;

/// Eight hours: no recording is taken in that is longer.
const MOST_SAMPLES: u64 = 8 * 3600 * 16_000;
/// A second at the lowest rate is a second at the box's, and a FLAC frame of silence has 65,535 samples in some bytes.
const MOST_SAMPLES_A_BYTE: u64 = 65_536;

/// The usual rates; from the box's own no resampler is needed.
const USUAL_HZ: [u32; 8] = [16_000, 8_000, 16_000, 44_100, 16_000, 48_000, 16_000, 96_000];
/// One of so many other rates is left as it is.
const LEFT: u32 = 256;

/// See the top of the file.
pub struct Decoding {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Target for Decoding {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { path: folder.path().join("recording"), _folder: folder }
    }

    fn run(&mut self, input: &[u8]) {
        let mut recording = input.to_vec();
        at_a_usual_rate(&mut recording);
        File::create(&self.path).and_then(|mut file| file.write_all(&recording)).expect("room for a file");
        let (mut sound, mut damaged) = (0u64, 0u64);
        let decoded = decode(&self.path, |stretch| {
            match stretch {
                Stretch::Sound(pcm) => sound += pcm.len() as u64,
                Stretch::Damaged(samples) => damaged += samples,
            }
            Ok(())
        });
        assert!(sound <= (input.len() as u64).saturating_mul(MOST_SAMPLES_A_BYTE), "sound comes from bytes");
        assert!(sound.saturating_add(damaged) <= MOST_SAMPLES, "nothing is given beyond eight hours");
        match decoded {
            Ok(()) => assert!(sound > 0, "a recording has sound"),
            Err(DecodeError::Empty) => assert!(input.is_empty(), "only a file without bytes is empty"),
            Err(DecodeError::Unreadable(why) | DecodeError::Sink(why)) => {
                panic!("a file in memory was not read: {why}")
            }
            Err(
                DecodeError::NotAudio
                | DecodeError::UnsupportedCodec
                | DecodeError::Damaged
                | DecodeError::NotNumbers
                | DecodeError::NoSamples
                | DecodeError::TooLong,
            ) => {}
        }
    }
}

fn at_a_usual_rate(recording: &mut [u8]) {
    let head = &recording[..recording.len().min(200)];
    let behind =
        |mark: &[u8], bytes: usize| head.windows(mark.len()).position(|part| part == mark).map(|at| at + bytes);
    if let Some(at) = behind(b"fmt ", 12).or_else(|| behind(b"\x01vorbis", 12))
        && let Some(rate) = recording.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>())
    {
        *rate = usual(u32::from_le_bytes(*rate)).to_le_bytes();
    }
    // FLAC has twenty bits of it.
    if recording.starts_with(b"fLaC")
        && let Some([high, middle, low]) = recording.get_mut(18..21)
    {
        let rate = u32::from_be_bytes([0, *high, *middle, *low]);
        let [_, first, second, third] = ((usual(rate >> 4) << 4) | (rate & 0xf)).to_be_bytes();
        (*high, *middle, *low) = (first, second, third);
    }
}

fn usual(rate: u32) -> u32 {
    if USUAL_HZ.contains(&rate) || rate.is_multiple_of(LEFT) { rate } else { USUAL_HZ[rate as usize % USUAL_HZ.len()] }
}
