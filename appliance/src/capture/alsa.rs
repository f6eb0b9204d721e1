//! ALSA. The only file that names the crate `alsa`.
//!
//! The device is taken as its hardware is: 16 kHz if it has that, else 48 kHz, else the nearest; as few channels as it
//! has; the first format of [`Encoding::ALL`]. ALSA's own resampling is switched off, because ours is better. It is never
//! waited for but in `wait`: a device that another program holds, or that hangs, is said to be so.
//!
//! The buffer holds seconds, so that a board that is busy costs no sound.

use alsa::pcm::{Access, Format, HwParams, PCM};
use alsa::{Direction, Output, ValueOr};
use rustix::io::Errno;
use std::time::Duration;

use super::MicrophoneError;
use super::card::Pcm;
use super::convert::{Encoding, Shape};
use crate::audio::SAMPLE_RATE_HZ;

/// How much the device may gather while nobody fetches. Cheap cards stall for a second or two.
const BUFFER_SECONDS: u32 = 4;
/// How often in a second the device wakes whoever waits.
const PERIODS_HZ: u32 = 10;
/// Rates that are taken. Beyond them nothing is a microphone.
const RATES_HZ: [u32; 2] = [8_000, 192_000];
/// What almost all hardware has that has not 16 kHz; three of its frames make one sample.
const USUAL_HZ: u32 = 48_000;

/// A capture device.
pub struct AlsaPcm {
    pcm: PCM,
    shape: Shape,
    is_quiet: bool,
}

impl AlsaPcm {
    pub fn open(device: &str) -> Result<Self, MicrophoneError> {
        // The library takes names as C does.
        let name = device.split('\0').next().unwrap_or_default();
        let opened = quiet().and_then(|()| PCM::new(name, Direction::Capture, true));
        let pcm = opened.map_err(|why| MicrophoneError::lost(device, errno(why)))?;
        let shape = configure(&pcm).map_err(|why| MicrophoneError::Unavailable {
            device: device.to_owned(),
            problem: format!("it offers no format, rate and channels that can be used: {why}"),
        })?;
        Ok(Self { pcm, shape, is_quiet: false })
    }

    /// Another thread may read than opened it.
    fn keep_quiet(&mut self) {
        if !self.is_quiet {
            self.is_quiet = quiet().is_ok();
        }
    }
}

/// The library writes to standard error what its error says anyway. From here on this thread keeps that to itself.
fn quiet() -> Result<(), alsa::Error> {
    Output::local_error_handler().map(drop)
}

/// The library has numbers of its own far above those of the system.
fn errno(why: alsa::Error) -> Errno {
    match why.errno() {
        number @ 1..=4095 => Errno::from_raw_os_error(number),
        _ => Errno::IO,
    }
}

fn format(encoding: Encoding) -> Format {
    match encoding {
        Encoding::S16 => Format::S16LE,
        Encoding::S24In3 => Format::S243LE,
        Encoding::S24In4 => Format::S24LE,
        Encoding::S32 => Format::S32LE,
        Encoding::Float => Format::FloatLE,
    }
}

fn configure(pcm: &PCM) -> Result<Shape, alsa::Error> {
    let parameters = HwParams::any(pcm)?;
    parameters.set_rate_resample(false)?;
    parameters.set_access(Access::RWInterleaved)?;
    let offered = |encoding: &Encoding| parameters.test_format(format(*encoding)).is_ok();
    let encoding = Encoding::ALL.into_iter().find(offered).unwrap_or(Encoding::S16);
    parameters.set_format(format(encoding))?;
    let channels = parameters.set_channels_near(1)?;
    let rate = [SAMPLE_RATE_HZ, USUAL_HZ].into_iter().find(|rate| parameters.test_rate(*rate).is_ok());
    let rate_hz = parameters.set_rate_near(rate.unwrap_or(SAMPLE_RATE_HZ), ValueOr::Nearest)?;
    if !(RATES_HZ[0]..=RATES_HZ[1]).contains(&rate_hz) {
        return Err(alsa::Error::unsupported("a rate between 8 and 192 kHz"));
    }
    parameters.set_buffer_size_near((BUFFER_SECONDS * rate_hz).into())?;
    parameters.set_period_size_near((rate_hz / PERIODS_HZ).into(), ValueOr::Nearest)?;
    pcm.hw_params(&parameters)?;
    Ok(Shape { encoding, channels: channels.max(1) as usize, rate_hz })
}

impl Pcm for AlsaPcm {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, Errno> {
        self.keep_quiet();
        self.pcm.io_bytes().readi(into).map_err(errno)
    }

    fn wait(&mut self, patience: Duration) -> Result<bool, Errno> {
        let milliseconds = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        self.pcm.wait(Some(milliseconds)).map_err(errno)
    }

    fn prepare(&mut self) -> Result<(), Errno> {
        self.pcm.prepare().map_err(errno)
    }

    fn start(&mut self) -> Result<(), Errno> {
        self.pcm.start().map_err(errno)
    }

    fn resume(&mut self) -> Result<(), Errno> {
        self.pcm.resume().map_err(errno)
    }
}
