//! What a device gives, whatever its format, channels and rate, to 16 kHz mono. Streaming: no sample is dropped or made
//! up over hours, and the delay of the filter is taken off at the beginning, so that positions do not shift.
//!
//! Channels are averaged as in recordings from files. A device that gives 16 kHz mono in 16 bits is passed on as it is.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Adjustable as _, Async, FixedAsync, Resampler as _, SincInterpolationParameters, WindowFunction};

use crate::audio::SAMPLE_RATE_HZ;
use crate::decode::mean;

/// How a sample lies in memory, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Signed 16 bits.
    S16,
    /// Signed 24 bits in three bytes.
    S24In3,
    /// Signed 24 bits in the lower part of four bytes.
    S24In4,
    /// Signed 32 bits.
    S32,
    /// 32-bit float, full scale at 1.
    Float,
}

impl Encoding {
    /// In the order in which they are asked for: the record keeps 16 bits.
    pub const ALL: [Self; 5] = [Self::S16, Self::S24In3, Self::S24In4, Self::S32, Self::Float];

    /// Bytes of one sample.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::S16 => 2,
            Self::S24In3 => 3,
            Self::S24In4 | Self::S32 | Self::Float => 4,
        }
    }

    /// A sample between -1 and 1.
    fn level(self, sample: &[u8]) -> f32 {
        match (self, sample) {
            (Self::S16, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            // The sign is what the highest byte says; the fourth of `S24In4` is padding.
            (Self::S24In3, &[a, b, c]) | (Self::S24In4, &[a, b, c, _]) => {
                (i32::from_le_bytes([0, a, b, c]) >> 8) as f32 / 8_388_608.0
            }
            (Self::S32, &[a, b, c, d]) => (f64::from(i32::from_le_bytes([a, b, c, d])) / 2_147_483_648.0) as f32,
            (Self::Float, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            // No other length comes out of `chunks_exact`.
            (Self::S16 | Self::S24In3 | Self::S24In4 | Self::S32 | Self::Float, _) => 0.0,
        }
    }
}

/// How a device gives its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// One sample.
    pub encoding: Encoding,
    /// Samples of a frame.
    pub channels: usize,
    /// Frames of a second, as the device claims.
    pub rate_hz: u32,
}

impl Shape {
    /// Bytes of one frame.
    #[must_use]
    pub fn frame_bytes(self) -> usize {
        self.encoding.bytes() * self.channels
    }

    fn is_ours(self) -> bool {
        self == Self { encoding: Encoding::S16, channels: 1, rate_hz: SAMPLE_RATE_HZ }
    }
}

/// The resampler cannot be made, or took offence: neither happens with a rate between 8 and 192 kHz.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its rate of {0} Hz cannot be converted")]
pub struct NotConvertible(u32);

/// See the top of the file.
pub struct Converter {
    shape: Shape,
    resampler: Option<Resampling>,
}

impl Converter {
    /// For a device of this shape, at the rate that it claims.
    ///
    /// # Errors
    /// [`NotConvertible`].
    pub fn new(shape: Shape) -> Result<Self, NotConvertible> {
        let same = shape.rate_hz == SAMPLE_RATE_HZ;
        let resampler = if same { None } else { Some(Resampling::new(shape.rate_hz, 1.0)?) };
        Ok(Self { shape, resampler })
    }

    /// From now on takes the device for one that gives `speed` times as many frames in a second as it claims.
    ///
    /// # Errors
    /// [`NotConvertible`] if that is not possible; everything is then as before.
    pub fn correct(&mut self, speed: f64) -> Result<(), NotConvertible> {
        match &mut self.resampler {
            Some(resampling) => resampling.correct(speed),
            none => {
                *none = Some(Resampling::new(self.shape.rate_hz, speed)?);
                Ok(())
            }
        }
    }

    /// Takes whole frames, and appends what they are at 16 kHz mono; the last 20 ms or so come with later ones.
    ///
    /// # Errors
    /// [`NotConvertible`].
    pub fn push(&mut self, frames: &[u8], into: &mut Vec<i16>) -> Result<(), NotConvertible> {
        if self.shape.is_ours() && self.resampler.is_none() {
            into.extend(frames.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])));
            return Ok(());
        }
        let (encoding, channels) = (self.shape.encoding, self.shape.channels);
        let mut frame = Vec::with_capacity(channels);
        let mono = frames.chunks_exact(self.shape.frame_bytes()).map(|bytes| {
            frame.clear();
            frame.extend(bytes.chunks_exact(encoding.bytes()).map(|sample| encoding.level(sample)));
            // A frame without a number in it keeps its time.
            mean(&frame).unwrap_or(0.0)
        });
        match &mut self.resampler {
            None => into.extend(mono.map(to_16_bits)),
            Some(resampling) => {
                resampling.take(mono);
                resampling.give(into)?;
            }
        }
        Ok(())
    }

    /// Appends what is still held of the frames so far; the next are a new beginning.
    ///
    /// # Errors
    /// [`NotConvertible`].
    pub fn finish(&mut self, into: &mut Vec<i16>) -> Result<(), NotConvertible> {
        let Some(resampling) = self.resampler.take() else { return Ok(()) };
        self.resampler = Some(Resampling::new(resampling.rate_hz, resampling.speed)?);
        resampling.finish(into)
    }
}

fn to_16_bits(level: f32) -> i16 {
    (level * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16
}

/// How far from its claim a device's rate may be taken to be: 44.1 for 48 kHz is 9 %.
const MOST_OFF: f64 = 1.25;
/// Length of the filter, in frames of the device: what can alias is 100 dB down.
const FILTER_FRAMES: usize = 256;

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A windowed sinc at a ratio that can be set while it runs.
struct Resampling {
    rate_hz: u32,
    speed: f64,
    filter: Async<f32>,
    waiting: Vec<f32>,
    /// What the filter gives before the first sample has passed it.
    skip: usize,
    /// Samples that the frames so far make, and those that were given of them.
    owed: f64,
    given: u64,
}

impl Resampling {
    fn new(rate_hz: u32, speed: f64) -> Result<Self, NotConvertible> {
        let wrong = NotConvertible(rate_hz);
        let ratio = f64::from(SAMPLE_RATE_HZ) / f64::from(rate_hz);
        let parameters = SincInterpolationParameters::new(FILTER_FRAMES, WindowFunction::BlackmanHarris2);
        // 10 ms at a time: more would only make what is heard later.
        let step = (rate_hz / 100).max(1) as usize;
        let filter = Async::<f32>::new_sinc(ratio, MOST_OFF, &parameters, step, 1, FixedAsync::Input);
        let filter = filter.map_err(|_| wrong.clone())?;
        let mut made = Self { rate_hz, speed: 1.0, filter, waiting: Vec::new(), skip: 0, owed: 0.0, given: 0 };
        made.correct(speed)?;
        made.align();
        Ok(made)
    }

    /// The filter's first output is one step after the half of its length. As much silence in front as makes that a whole
    /// number of samples, and those left out: then sample 0 is frame 0.
    fn align(&mut self) {
        let period = self.rate_hz / gcd(self.rate_hz, SAMPLE_RATE_HZ);
        let delay = (FILTER_FRAMES / 2).next_multiple_of(period as usize);
        let silence = delay - FILTER_FRAMES / 2;
        self.waiting = vec![0.0; silence];
        self.owed = -self.worth(silence);
        self.skip = (self.worth(delay).round() as usize).saturating_sub(1);
    }

    fn correct(&mut self, speed: f64) -> Result<(), NotConvertible> {
        let set = self.filter.set_resample_ratio_relative(1.0 / speed, false);
        set.map_err(|_| NotConvertible(self.rate_hz))?;
        self.speed = speed;
        Ok(())
    }

    fn take(&mut self, mono: impl Iterator<Item = f32>) {
        self.waiting.extend(mono);
    }

    /// Samples that so many frames are.
    fn worth(&self, frames: usize) -> f64 {
        frames as f64 * f64::from(SAMPLE_RATE_HZ) / (f64::from(self.rate_hz) * self.speed)
    }

    fn give(&mut self, into: &mut Vec<i16>) -> Result<(), NotConvertible> {
        let mut from = 0;
        while self.waiting.len() - from >= self.filter.input_frames_next() {
            let step = self.filter.input_frames_next();
            let wrong = || NotConvertible(self.rate_hz);
            let input = InterleavedSlice::new(&self.waiting[from..from + step], 1, step).map_err(|_| wrong())?;
            let output = self.filter.process(&input, None).map_err(|_| wrong())?.take_data();
            let skipped = self.skip.min(output.len());
            self.skip -= skipped;
            self.given += (output.len() - skipped) as u64;
            into.extend(output[skipped..].iter().copied().map(to_16_bits));
            self.owed += self.worth(step);
            from += step;
        }
        self.waiting.drain(..from);
        Ok(())
    }

    fn finish(mut self, into: &mut Vec<i16>) -> Result<(), NotConvertible> {
        let end = (self.owed + self.worth(self.waiting.len())).round() as u64;
        let mut rest = Vec::new();
        let before = self.given;
        while self.given < end {
            self.waiting.resize(self.waiting.len() + self.filter.input_frames_next(), 0.0);
            self.give(&mut rest)?;
        }
        rest.truncate(usize::try_from(end.saturating_sub(before)).unwrap_or(0));
        into.extend(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
