//! ALSA. The only file that names the crate `alsa`.
//!
//! The device is asked for exactly 16 kHz mono 16 bit: a `plughw:` name converts where the hardware gives something
//! else. The buffer holds seconds, so that a card that stalls while syncing costs no sound.

use alsa::pcm::{Access, Format, HwParams, PCM, State};
use alsa::{Direction, Output, ValueOr};

use super::{Microphone, MicrophoneError};
use crate::audio::SAMPLE_RATE_HZ;

/// Samples the device may gather while nobody fetches: 4 s. Cheap cards stall for a second or two.
const BUFFER_SAMPLES: i64 = 4 * SAMPLE_RATE_HZ as i64;
/// Samples after which the device wakes whoever waits: 100 ms, ten times a second.
const PERIOD_SAMPLES: i64 = SAMPLE_RATE_HZ as i64 / 10;
/// A device that gives nothing for this long is lost. Milliseconds.
const SILENT_MS: u32 = 2_000;

/// A capture device.
pub struct AlsaMicrophone {
    pcm: PCM,
    device: String,
}

impl AlsaMicrophone {
    pub fn open(device: &str) -> Result<Self, MicrophoneError> {
        let unavailable =
            |e: alsa::Error| MicrophoneError::Unavailable { device: device.to_owned(), problem: e.to_string() };
        // The library writes to standard error what its error says anyway. From here on this thread keeps that to itself.
        Output::local_error_handler().map_err(unavailable)?;
        let pcm = PCM::new(device, Direction::Capture, false).map_err(unavailable)?;
        configure(&pcm).map_err(unavailable)?;
        let rate = pcm.hw_params_current().and_then(|p| p.get_rate()).map_err(unavailable)?;
        if rate != SAMPLE_RATE_HZ {
            let problem = format!("it records at {rate} Hz and not at {SAMPLE_RATE_HZ} Hz; name it as plughw:…");
            return Err(MicrophoneError::Unavailable { device: device.to_owned(), problem });
        }
        pcm.start().map_err(unavailable)?;
        Ok(Self { pcm, device: device.to_owned() })
    }

    fn unavailable(&self, problem: impl ToString) -> MicrophoneError {
        MicrophoneError::Unavailable { device: self.device.clone(), problem: problem.to_string() }
    }

    /// After an overrun the device stands still until it is prepared and started.
    fn restart(&self) -> Result<(), alsa::Error> {
        self.pcm.prepare()?;
        self.pcm.start()
    }
}

fn configure(pcm: &PCM) -> Result<(), alsa::Error> {
    let parameters = HwParams::any(pcm)?;
    parameters.set_access(Access::RWInterleaved)?;
    parameters.set_format(Format::s16())?;
    parameters.set_channels(1)?;
    parameters.set_rate(SAMPLE_RATE_HZ, ValueOr::Nearest)?;
    parameters.set_buffer_size_near(BUFFER_SAMPLES)?;
    parameters.set_period_size_near(PERIOD_SAMPLES, ValueOr::Nearest)?;
    pcm.hw_params(&parameters)
}

impl Microphone for AlsaMicrophone {
    fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError> {
        match self.pcm.wait(Some(SILENT_MS)) {
            Ok(true) => {}
            Ok(false) => return Err(self.unavailable("it gives no samples")),
            Err(_) if self.pcm.state() == State::XRun => {}
            Err(why) => return Err(self.unavailable(why)),
        }
        let read = self.pcm.io_i16().and_then(|io| io.readi(into));
        match read {
            Ok(count) => Ok(count),
            Err(_) if matches!(self.pcm.state(), State::XRun | State::Suspended) => {
                self.restart().map_err(|e| self.unavailable(e))?;
                Err(MicrophoneError::Overrun)
            }
            Err(why) => Err(self.unavailable(why)),
        }
    }
}
