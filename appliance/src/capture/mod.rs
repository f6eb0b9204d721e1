//! From the microphone to the disk. Nothing slow stands between the two.
//!
//!   microphone ─▶ ear (a thread, in real time) ─▶ queue ─▶ recorder (a thread) ─▶ spool, synced second by second
//!
//! Whatever interrupts the microphone becomes a gap, as long as the clock says it lasted, and the microphone is opened
//! again until it is back or the session ends: `error` says what is done about what, `pace` holds samples against the
//! clock, `mute` knows a microphone that is switched off. Off the record the microphone is closed: nothing that is heard
//! after that was asked for is kept, and the time is a gap (`off_record`).

#[cfg(feature = "alsa")]
mod alsa;
pub mod card;
pub mod convert;
mod ear;
mod error;
pub mod level;
mod mute;
mod pace;
mod priority;
mod progress;
mod recorder;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

use shared::clock::{Clock, Now};
use shared::record::GapCause;
use tracing::warn;

use crate::audio::SAMPLE_RATE_HZ;
use crate::spool::SpoolWriter;
pub use error::{MicrophoneError, SILENT};
pub use progress::Progress;
use recorder::Recorder;

/// Samples asked for at a time: 10 ms. Small, because ALSA's `file` plug-in takes a short read of a FIFO for a whole one:
/// whoever plays into it in blocks of any multiple of this is heard as played.
pub const BLOCK_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 100;
/// How often, and how many times, a session that begins tries a microphone that somebody else holds: `doctor` lets go of
/// it after two seconds, `levels` at once.
const BUSY_WAIT: Duration = Duration::from_millis(200);
const BUSY_TRIES: u32 = 15;

/// An open microphone: 16 kHz, mono.
pub trait Microphone: Send {
    /// Waits for samples, for a tenth of a second or so, and says how many it gave.
    ///
    /// # Errors
    /// [`MicrophoneError`].
    fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError>;

    /// What was heard and not given yet, when no more is to be read.
    fn rest(&mut self) -> Vec<i16> {
        Vec::new()
    }

    /// Told that it gives so many times as many samples in a second as it should: converts them, if it can.
    fn correct(&mut self, _speed: f64) -> bool {
        false
    }
}

/// How a microphone is opened.
pub trait MicrophoneDoor: Send + Sync {
    /// Opens it.
    ///
    /// # Errors
    /// [`MicrophoneError`].
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError>;
}

/// The board's own microphone.
#[derive(Debug, Clone)]
pub struct Board {
    /// ALSA's name of it.
    pub device: String,
    /// A file by which whoever just looks is asked to let go of it; none where there is nobody to ask.
    pub wanted: Option<PathBuf>,
}

impl Board {
    /// For looking only: whoever holds it is left alone.
    #[must_use]
    pub fn to_look(device: &str) -> Self {
        Self { device: device.to_owned(), wanted: None }
    }

    #[cfg(feature = "alsa")]
    fn try_open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        Ok(Box::new(card::Card::new(&self.device, alsa::AlsaPcm::open(&self.device)?)?))
    }

    #[cfg(not(feature = "alsa"))]
    fn try_open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        let problem = "this program was built without the feature alsa".into();
        Err(MicrophoneError::Unavailable { device: self.device.clone(), problem })
    }
}

impl MicrophoneDoor for Board {
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        let (opened, Some(wanted)) = (self.try_open(), self.wanted.as_ref()) else { return self.try_open() };
        wait_while_busy(opened, wanted, || {
            thread::sleep(BUSY_WAIT);
            self.try_open()
        })
    }
}

/// Asks whoever looks to let go, and tries again a few times.
fn wait_while_busy<T>(
    mut opened: Result<T, MicrophoneError>,
    wanted: &Path,
    try_again: impl Fn() -> Result<T, MicrophoneError>,
) -> Result<T, MicrophoneError> {
    let mut tries = 0;
    while matches!(opened, Err(MicrophoneError::Busy { .. })) && tries < BUSY_TRIES {
        // Where it cannot be written, those who look let go after a while all the same.
        drop(std::fs::write(wanted, ""));
        opened = try_again();
        tries += 1;
    }
    if tries > 0 {
        drop(std::fs::remove_file(wanted));
    }
    opened
}

/// What a recorder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The session is over.
    Final,
    /// The daemon stops; its next start goes on with the session.
    Suspended,
}

/// A recording under way.
pub struct Recording {
    stop: Arc<OnceLock<Ending>>,
    ended: mpsc::Receiver<u64>,
    recorder: Thread,
    /// What others may see of it.
    pub progress: Arc<Progress>,
}

/// How a recording begins or goes on.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// The downtime before this, if any.
    pub interrupted: Option<Interruption>,
    /// Whether it begins off the record.
    pub is_off_record: bool,
}

/// An interruption that becomes a gap when sound is back.
#[derive(Debug, Clone)]
pub struct Interruption {
    /// When the last sample came.
    pub since: Now,
    /// Why no more did.
    pub cause: GapCause,
}

impl Recording {
    /// Begins to record into `spool`. `microphone` is the opened one, if it was opened already.
    #[must_use]
    pub fn begin(
        door: Arc<dyn MicrophoneDoor>,
        microphone: Option<Box<dyn Microphone>>,
        spool: SpoolWriter,
        clock: Arc<dyn Clock>,
        beginning: Beginning,
    ) -> Self {
        let stop = Arc::new(OnceLock::new());
        let progress = Arc::new(Progress::new(spool.samples(), beginning.is_off_record));
        let (end, ended) = mpsc::channel();
        let mut recorder = Recorder::new(door, spool, clock, beginning.interrupted, progress.clone(), stop.clone());
        let running = thread::spawn(move || {
            end.send(recorder.run(microphone)).ok();
        });
        Self { stop, ended, recorder: running.thread().clone(), progress }
    }

    /// Goes off the record, or back onto it. Nothing that the microphone gives after this has returned is kept while it
    /// is off.
    pub fn set_off_record(&self, is_off_record: bool) {
        self.progress.set_off_record(is_off_record);
        self.recorder.unpark();
    }

    /// Ends it and waits until the last samples are on the disk, at most `patience`. Gives its length on the timeline
    /// if it is known.
    pub fn end(self, ending: Ending, patience: Duration) -> Option<u64> {
        // It is told once: `self` is gone after this.
        self.stop.set(ending).ok();
        self.recorder.unpark();
        let samples = self.ended.recv_timeout(patience).ok();
        if samples.is_none() {
            warn!("The microphone did not stop in time; what it gave is on the disk up to the last second.");
        }
        samples
    }
}

#[cfg(test)]
mod tests;
