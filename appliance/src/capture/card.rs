//! A microphone out of a bare capture device: its samples converted, its errors mended where the handle can be kept.
//!
//!   read ── EPIPE ──▶ prepare, start ──▶ Overrun            (read on)
//!        ── ESTRPIPE ──▶ resume, or prepare, start ──▶ Suspended   (read on)
//!        ── nothing for 2 s ──▶ Stalled   ── any other ──▶ Busy, Unavailable      (to be opened again)
//!
//! It starts when it is first read from: what a device gathered before anybody listened is nobody's, and would make it
//! look as if it were ahead of the clock. What was heard before an error is given before it is told: the filter's rest belongs in front of the gap.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::convert::{Converter, Shape};
use super::error::{Remedy, SILENT, remedy};
use super::{Microphone, MicrophoneError};

/// How long one wait for samples lasts: whoever listens looks up in between.
const WAIT: Duration = Duration::from_millis(100);
/// Where a device says that there is something and there is not, so that it is not asked without end.
const PAUSE: Duration = Duration::from_millis(10);
/// How often, a tenth of a second apart, a device that wakes up is asked to resume: drivers take up to a second.
const RESUMES: u32 = 10;
/// So often a device may be mended without giving a sample in between; then it is opened anew.
const MENDED: u32 = 5;

/// A bare capture device, as ALSA has it. Calls return at once, but `wait`.
pub trait Pcm: Send {
    /// How it gives its samples.
    fn shape(&self) -> Shape;
    /// Frames, as many as there are and fit.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Errno>;
    /// Whether there is something to read within `patience`.
    fn wait(&mut self, patience: Duration) -> Result<bool, Errno>;
    /// Makes it ready to start.
    fn prepare(&mut self) -> Result<(), Errno>;
    /// Starts it.
    fn start(&mut self) -> Result<(), Errno>;
    /// Goes on after a sleep; `EAGAIN` as long as the hardware wakes up.
    fn resume(&mut self) -> Result<(), Errno>;
}

/// See the top of the file.
pub struct Card<P> {
    pcm: P,
    device: String,
    converter: Converter,
    bytes: Vec<u8>,
    ready: VecDeque<i16>,
    fault: Option<MicrophoneError>,
    silent: Duration,
    mended: u32,
    is_started: bool,
}

impl<P: Pcm> Card<P> {
    /// Of a device that is set up.
    ///
    /// # Errors
    /// [`MicrophoneError::Unavailable`] if what it gives cannot be converted.
    pub fn new(device: &str, pcm: P) -> Result<Self, MicrophoneError> {
        let shape = pcm.shape();
        let converter = Converter::new(shape)
            .map_err(|why| MicrophoneError::Unavailable { device: device.to_owned(), problem: why.to_string() })?;
        // 10 ms at a time, as everything here.
        let frames = (shape.rate_hz / 100).max(1) as usize;
        Ok(Self {
            pcm,
            device: device.to_owned(),
            converter,
            bytes: vec![0; frames * shape.frame_bytes()],
            ready: VecDeque::new(),
            fault: None,
            silent: Duration::ZERO,
            mended: 0,
            is_started: false,
        })
    }

    /// Fetches from the device: samples to `ready`, or a fault, or nothing yet.
    fn fetch(&mut self) {
        if !std::mem::replace(&mut self.is_started, true)
            && let Err(errno) = self.pcm.start()
        {
            return self.lost(MicrophoneError::lost(&self.device, errno));
        }
        match self.pcm.read(&mut self.bytes) {
            Ok(0) => self.wait(),
            Ok(frames) => {
                (self.silent, self.mended) = (Duration::ZERO, 0);
                let bytes = (frames * self.pcm.shape().frame_bytes()).min(self.bytes.len());
                let mut pcm = Vec::new();
                if let Err(why) = self.converter.push(&self.bytes[..bytes], &mut pcm) {
                    self.fault = Some(self.unavailable(why.to_string()));
                }
                self.ready.extend(pcm);
            }
            Err(errno) => self.mend(errno),
        }
    }

    fn wait(&mut self) {
        match self.pcm.wait(WAIT) {
            Ok(true) => {
                // Something is there, or will be at once; a device that only says so is found out by its silence.
                if !self.silent.is_zero() {
                    thread::sleep(PAUSE);
                }
                self.silent += PAUSE;
            }
            Ok(false) => self.silent += WAIT,
            Err(errno) => self.mend(errno),
        }
        if self.silent >= SILENT {
            self.lost(MicrophoneError::Stalled { device: self.device.clone() });
        }
    }

    fn mend(&mut self, errno: Errno) {
        let (mended, told) = match remedy(errno) {
            Remedy::Wait => return self.wait_after(errno),
            Remedy::Restart => (self.restart(), MicrophoneError::Overrun),
            Remedy::Resume => (self.resume(), MicrophoneError::Suspended),
            Remedy::Reopen => (Err(errno), MicrophoneError::lost(&self.device, errno)),
        };
        self.mended += 1;
        match mended {
            Ok(()) if self.mended <= MENDED => self.lost(told),
            Ok(()) => self.lost(self.unavailable("it stops again and again".into())),
            Err(errno) => self.lost(MicrophoneError::lost(&self.device, errno)),
        }
    }

    /// `wait` itself may be interrupted.
    fn wait_after(&mut self, errno: Errno) {
        match errno {
            Errno::INTR => self.silent += PAUSE,
            _ => self.wait(),
        }
    }

    fn restart(&mut self) -> Result<(), Errno> {
        self.pcm.prepare()?;
        self.pcm.start()
    }

    fn resume(&mut self) -> Result<(), Errno> {
        for _ in 0..RESUMES {
            match self.pcm.resume() {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN) => thread::sleep(WAIT),
                // Most hardware cannot go on where it was.
                Err(_) => break,
            }
        }
        self.restart()
    }

    /// What the filter holds was heard before this.
    fn lost(&mut self, why: MicrophoneError) {
        self.silent = Duration::ZERO;
        let rest = self.rest();
        self.ready.extend(rest);
        self.fault = Some(why);
    }

    fn unavailable(&self, problem: String) -> MicrophoneError {
        MicrophoneError::Unavailable { device: self.device.clone(), problem }
    }
}

impl<P: Pcm> Microphone for Card<P> {
    fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError> {
        if self.ready.is_empty() && self.fault.is_none() {
            self.fetch();
        }
        if let Some(why) = self.fault.take_if(|_| self.ready.is_empty()) {
            return Err(why);
        }
        let count = self.ready.len().min(into.len());
        into.iter_mut().zip(self.ready.drain(..count)).for_each(|(into, sample)| *into = sample);
        Ok(count)
    }

    fn rest(&mut self) -> Vec<i16> {
        let mut rest: Vec<i16> = self.ready.drain(..).collect();
        // Where it cannot be had, it is some 10 ms that are missing.
        drop(self.converter.finish(&mut rest));
        rest
    }

    fn correct(&mut self, speed: f64) -> bool {
        self.converter.correct(speed).is_ok()
    }
}

#[cfg(test)]
mod tests;
