//! The thread that listens: from the microphone into a queue, in real time where that is allowed. The disk is another
//! thread's, so that a card that syncs for seconds costs no sound.
//!
//! It opens the microphone, too: whoever waits for what it says sees both an opening and a read that never end. Then it
//! is left behind, and what it hears later goes nowhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use shared::clock::{Clock, Now};
use tracing::warn;

use super::pace::Pace;
use super::priority;
use super::progress::Progress;
use super::{BLOCK_SAMPLES, Microphone, MicrophoneDoor, MicrophoneError};

/// Blocks of 10 ms that may wait for the disk, half a minute: less than 1 MB. A disk that is away for longer makes the
/// microphone run over, which is a gap.
const QUEUE: usize = 3000;
/// How long to wait between asking whether a thread has ended.
const POLL: Duration = Duration::from_millis(5);

/// What the thread says.
#[derive(Debug)]
pub enum Heard {
    /// The microphone is open.
    Open,
    /// Samples, and when the last of them came.
    Sound(Vec<i16>, Now),
    /// Before the next samples, so many were lost.
    Missing(u64),
    /// Nothing comes; unless the error goes on, the microphone is closed.
    Trouble(MicrophoneError),
}

/// See the top of the file.
pub struct Ear {
    heard: Receiver<Heard>,
    is_to_end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Ear {
    /// Listens with a microphone that is open already, or opens one. Falls silent when the recording goes off the
    /// record.
    pub fn open(
        door: Arc<dyn MicrophoneDoor>,
        microphone: Option<Box<dyn Microphone>>,
        clock: Arc<dyn Clock>,
        progress: Arc<Progress>,
    ) -> Self {
        let (says, heard) = mpsc::sync_channel(QUEUE);
        let is_to_end = Arc::new(AtomicBool::new(false));
        let pauses = progress.pauses();
        let listener = Listener { says, is_to_end: is_to_end.clone(), clock, progress, pauses };
        let thread = thread::spawn(move || {
            priority::raise();
            let opened = microphone.map_or_else(|| door.open(), Ok);
            // Nobody listens any more if it cannot be said.
            drop(match opened {
                Ok(microphone) => listener.listen(microphone),
                Err(why) => listener.say(Heard::Trouble(why)),
            });
        });
        Self { heard, is_to_end, thread }
    }

    /// What it says next.
    ///
    /// # Errors
    /// If it says nothing for so long, or nothing ever again.
    pub fn next(&self, patience: Duration) -> Result<Heard, RecvTimeoutError> {
        self.heard.recv_timeout(patience)
    }

    /// Lets it end after what it is just hearing; what it has to say until then can still be asked for.
    pub fn end(&self) {
        self.is_to_end.store(true, Ordering::SeqCst);
    }

    /// Lets it go, and waits so long until it has closed the microphone. Gives the thread if it has not.
    pub fn close(self, patience: Duration) -> Option<JoinHandle<()>> {
        self.end();
        let Self { heard, thread, .. } = self;
        drop(heard);
        let mut waited = Duration::ZERO;
        while !thread.is_finished() && waited < patience {
            thread::sleep(POLL);
            waited += POLL;
        }
        (!thread.is_finished()).then_some(thread)
    }
}

/// Nobody listens to this thread any more.
struct Forsaken;

struct Listener {
    says: SyncSender<Heard>,
    is_to_end: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    progress: Arc<Progress>,
    /// How often the recording had gone off the record when this began.
    pauses: u64,
}

impl Listener {
    fn say(&self, heard: Heard) -> Result<(), Forsaken> {
        self.says.send(heard).map_err(|_| Forsaken)
    }

    fn is_off_record(&self) -> bool {
        self.progress.pauses() != self.pauses || self.progress.is_off_record()
    }

    fn listen(&self, mut microphone: Box<dyn Microphone>) -> Result<(), Forsaken> {
        self.say(Heard::Open)?;
        let mut block = [0; BLOCK_SAMPLES];
        let mut pace = Pace::new();
        while !self.is_to_end.load(Ordering::SeqCst) && !self.is_off_record() {
            match microphone.read(&mut block) {
                // What came while somebody asked for silence is not kept either.
                Ok(_) if self.is_off_record() => return Ok(()),
                Ok(0) => {}
                Ok(count) => self.sound(&block[..count], &mut pace, microphone.as_mut())?,
                Err(why) if why.goes_on() => {
                    pace = Pace::new();
                    self.say(Heard::Trouble(why))?;
                }
                Err(why) => return self.say(Heard::Trouble(why)),
            }
        }
        let rest = if self.is_off_record() { Vec::new() } else { microphone.rest() };
        if rest.is_empty() { Ok(()) } else { self.say(Heard::Sound(rest, self.clock.now())) }
    }

    fn sound(&self, pcm: &[i16], pace: &mut Pace, microphone: &mut dyn Microphone) -> Result<(), Forsaken> {
        let now = self.clock.now();
        let found = pace.heard(pcm.len(), now.uptime);
        if let Some(speed) = found.speed {
            let is_corrected = microphone.correct(speed);
            warn!(
                measured_hz = (speed * f64::from(crate::audio::SAMPLE_RATE_HZ)).round(),
                percent = ((speed - 1.0) * 1000.0).round() / 10.0,
                is_corrected,
                "The microphone does not sample at the rate that it claims."
            );
        }
        if found.missing > 0 {
            self.say(Heard::Missing(found.missing))?;
        }
        self.say(Heard::Sound(pcm.to_vec(), now))?;
        thread::sleep(found.hold);
        Ok(())
    }
}
