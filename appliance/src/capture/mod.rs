//! From the microphone to the disk, on a thread of its own. Nothing slow stands between the two.
//!
//! Blocks are gathered to seconds; each second is appended to the spool and synced before the next is begun. Whatever
//! interrupts the microphone becomes a gap, as long as the clock says it lasted, and the microphone is opened again
//! until it is back or the session ends. Off the record the microphone is closed: nothing that is heard after that was
//! asked for is kept, and the time is a gap (`off_record`).

#[cfg(feature = "alsa")]
mod alsa;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, Thread};
use std::time::Duration;

use shared::clock::{Clock, Now};
use shared::record::GapCause;
use tracing::{error, info, warn};

use crate::audio::{SAMPLE_RATE_HZ, duration, peak_dbfs, samples_in};
use crate::spool::{SpoolError, SpoolWriter};

/// Samples asked for at a time: 10 ms. Small, because ALSA's `file` plug-in takes a short read of a FIFO for a whole one:
/// whoever plays into it in blocks of any multiple of this is heard as played.
pub const BLOCK_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 100;
/// How long to wait before opening a lost microphone again.
const REOPEN: Duration = Duration::from_secs(1);
/// How often the spool is told how long it has been off the record: a restart counts its downtime from there, and a card
/// wears.
const OFF_RECORD_TOLD: Duration = Duration::from_secs(10);
/// A device that runs this far ahead of the clock does not sample a room; it is slowed down to it.
const AHEAD: Duration = Duration::from_secs(1);

/// Why the microphone gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MicrophoneError {
    /// It had more than was fetched in time; it goes on by itself.
    #[error("The microphone ran over")]
    Overrun,
    /// It is not there, or went away, or stopped.
    #[error("The microphone {device} cannot be used: {problem}")]
    Unavailable {
        /// Its name.
        device: String,
        /// What the system says.
        problem: String,
    },
}

/// An open microphone: 16 kHz, mono.
pub trait Microphone: Send {
    /// Waits for samples and says how many it gave.
    ///
    /// # Errors
    /// [`MicrophoneError`].
    fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError>;
}

/// How a microphone is opened.
pub trait MicrophoneDoor: Send + Sync {
    /// Opens it.
    ///
    /// # Errors
    /// [`MicrophoneError::Unavailable`].
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError>;
}

/// The board's own microphone.
#[derive(Debug, Clone)]
pub struct Board {
    /// ALSA's name of it.
    pub device: String,
}

impl MicrophoneDoor for Board {
    #[cfg(feature = "alsa")]
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        Ok(Box::new(alsa::AlsaMicrophone::open(&self.device)?))
    }

    #[cfg(not(feature = "alsa"))]
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        let problem = "this program was built without the feature alsa".into();
        Err(MicrophoneError::Unavailable { device: self.device.clone(), problem })
    }
}

/// What others may see of a recording under way.
#[derive(Debug)]
pub struct Progress {
    samples: AtomicU64,
    peak_decibel_tenths: AtomicI64,
    is_failing: AtomicBool,
    is_off_record: AtomicBool,
}

/// Stands for "no peak yet, or silence".
const NO_PEAK: i64 = i64::MIN;

impl Progress {
    /// Its length so far on the timeline.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// The loudest sample of the last second, dB relative to full scale; `None` for silence or before the first.
    #[must_use]
    pub fn peak_dbfs(&self) -> Option<f64> {
        let tenths = self.peak_decibel_tenths.load(Ordering::Relaxed);
        (tenths != NO_PEAK).then(|| tenths as f64 / 10.0)
    }

    /// Whether the microphone or the disk gives trouble just now.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Whether nothing is to be heard just now.
    #[must_use]
    pub fn is_off_record(&self) -> bool {
        self.is_off_record.load(Ordering::SeqCst)
    }

    fn second(&self, samples: u64, pcm: &[i16]) {
        self.samples.store(samples, Ordering::Relaxed);
        let tenths = peak_dbfs(pcm).map_or(NO_PEAK, |db| (db * 10.0).round() as i64);
        self.peak_decibel_tenths.store(tenths, Ordering::Relaxed);
    }
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
        let progress = Arc::new(Progress {
            samples: AtomicU64::new(spool.samples()),
            peak_decibel_tenths: AtomicI64::new(NO_PEAK),
            is_failing: AtomicBool::new(false),
            is_off_record: AtomicBool::new(beginning.is_off_record),
        });
        let (end, ended) = mpsc::channel();
        let last = clock.now();
        let mut recorder = Recorder {
            door,
            spool,
            clock,
            interrupted: beginning.interrupted,
            last,
            pending: Vec::with_capacity(2 * SAMPLE_RATE_HZ as usize),
            progress: progress.clone(),
            stop: stop.clone(),
        };
        let running = thread::spawn(move || {
            end.send(recorder.run(microphone)).ok();
        });
        Self { stop, ended, recorder: running.thread().clone(), progress }
    }

    /// Goes off the record, or back onto it. Nothing that the microphone gives after this has returned is kept while it
    /// is off.
    pub fn set_off_record(&self, is_off_record: bool) {
        self.progress.is_off_record.store(is_off_record, Ordering::SeqCst);
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

struct Recorder {
    door: Arc<dyn MicrophoneDoor>,
    spool: SpoolWriter,
    clock: Arc<dyn Clock>,
    interrupted: Option<Interruption>,
    last: Now,
    pending: Vec<i16>,
    progress: Arc<Progress>,
    stop: Arc<OnceLock<Ending>>,
}

impl Recorder {
    fn is_stopped(&self) -> bool {
        self.stop.get().is_some()
    }

    /// Records until it is told to stop, and gives the length of the timeline.
    fn run(&mut self, mut microphone: Option<Box<dyn Microphone>>) -> u64 {
        while !self.is_stopped() {
            if self.progress.is_off_record() {
                drop(microphone.take());
                self.stay_off_record();
                continue;
            }
            match microphone.take().map_or_else(|| self.door.open(), Ok) {
                Ok(open) => self.listen(open),
                Err(why) => self.lost(&why, GapCause::Unplugged),
            }
            if !self.is_stopped() && !self.progress.is_off_record() {
                thread::park_timeout(REOPEN);
                self.extend_gap();
            }
        }
        self.flush();
        self.extend_gap();
        if self.stop.get() == Some(&Ending::Final)
            && let Err(why) = self.spool.finish(&self.clock.now())
        {
            error!(error = %why, "The end of the recording could not be written.");
        }
        self.spool.samples()
    }

    /// Hears nothing until it is on the record again, or the recording ends.
    fn stay_off_record(&mut self) {
        self.flush();
        self.interrupt(GapCause::OffRecord);
        self.progress.is_failing.store(false, Ordering::Relaxed);
        self.progress.peak_decibel_tenths.store(NO_PEAK, Ordering::Relaxed);
        while self.progress.is_off_record() && !self.is_stopped() {
            thread::park_timeout(OFF_RECORD_TOLD);
            self.extend_gap();
        }
    }

    /// From the last sample on, or from where another interruption has been told up to, nothing is heard for `cause`.
    fn interrupt(&mut self, cause: GapCause) {
        self.extend_gap();
        let since = self.interrupted.take().map_or_else(|| self.last.clone(), |before| before.since);
        self.interrupted = Some(Interruption { since, cause });
    }

    /// Writes the silence so far, if there is any, so that neither a restart nor the end of the session forgets it.
    fn extend_gap(&mut self) {
        let Some(interruption) = self.interrupted.take() else { return };
        let now = self.clock.now();
        let silent = samples_in(now.since(&interruption.since).duration());
        match self.spool.gap(silent, interruption.cause, &now) {
            Ok(()) => {
                self.last = now.clone();
                self.interrupted = Some(Interruption { since: now, ..interruption });
            }
            Err(why) => self.disk_trouble(&why, interruption),
        }
    }

    /// Records until the microphone is lost, the recording ends, or it is off the record.
    fn listen(&mut self, mut microphone: Box<dyn Microphone>) {
        let mut block = [0; BLOCK_SAMPLES];
        let (opened, mut given) = (self.clock.now(), 0u64);
        while !self.is_stopped() {
            match microphone.read(&mut block) {
                // What came while somebody asked for silence is not kept either.
                Ok(_) if self.progress.is_off_record() => return,
                Ok(0) => {}
                Ok(count) => {
                    given += count as u64;
                    self.heard(&block[..count]);
                    let passed = self.clock.now().since(&opened).duration();
                    if let Some(ahead) = duration(given).checked_sub(passed).filter(|a| *a > AHEAD) {
                        thread::sleep(ahead - AHEAD / 2);
                    }
                }
                Err(why @ MicrophoneError::Overrun) => self.lost(&why, GapCause::Overrun),
                Err(why @ MicrophoneError::Unavailable { .. }) => {
                    self.lost(&why, GapCause::Unplugged);
                    return;
                }
            }
        }
    }

    fn lost(&mut self, why: &MicrophoneError, cause: GapCause) {
        if !self.progress.is_failing.swap(true, Ordering::Relaxed) {
            warn!(error = %why, "Nothing is heard; trying again until it is.");
        }
        match &self.interrupted {
            None => {
                self.flush();
                self.interrupt(cause);
            }
            Some(Interruption { cause: GapCause::OffRecord, .. }) => self.interrupt(cause),
            Some(_) => {}
        }
    }

    fn heard(&mut self, block: &[i16]) {
        let now = self.clock.now();
        if let Some(interruption) = self.interrupted.take() {
            let silent = samples_in(now.since(&interruption.since).duration()).saturating_sub(block.len() as u64);
            match self.spool.gap(silent, interruption.cause, &now) {
                Ok(()) => info!(seconds = duration(silent).as_secs_f64(), "Sound is back."),
                Err(why) => {
                    self.disk_trouble(&why, interruption);
                    return;
                }
            }
        }
        self.progress.is_failing.store(false, Ordering::Relaxed);
        self.last = now;
        self.pending.extend_from_slice(block);
        if self.pending.len() >= SAMPLE_RATE_HZ as usize {
            self.flush();
        }
    }

    /// Puts what was gathered on the disk.
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pcm = std::mem::take(&mut self.pending);
        match self.spool.audio(&pcm, &self.last) {
            Ok(()) => self.progress.second(self.spool.samples(), &pcm),
            Err(why) => {
                let mut since = self.last.clone();
                since.uptime = since.uptime.saturating_sub(duration(pcm.len() as u64));
                self.disk_trouble(&why, Interruption { since, cause: GapCause::DiskFull });
            }
        }
    }

    fn disk_trouble(&mut self, why: &SpoolError, interruption: Interruption) {
        if !self.progress.is_failing.swap(true, Ordering::Relaxed) {
            error!(error = %why, "What is heard cannot be written; trying again until it can.");
        }
        self.interrupted = Some(interruption);
    }
}

#[cfg(test)]
mod tests;
