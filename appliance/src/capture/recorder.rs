//! The thread that writes: blocks are gathered to seconds; each second is appended to the spool and synced before the
//! next is begun. What is not heard is a gap of the length that the clock says.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use shared::clock::{Clock, Now};
use shared::record::GapCause;
use tracing::{error, info, warn};

use super::ear::{Ear, Heard};
use super::mute::Mute;
use super::progress::Progress;
use super::{Ending, Interruption, Microphone, MicrophoneDoor, MicrophoneError, SILENT};
use crate::audio::{SAMPLE_RATE_HZ, duration, samples_in};
use crate::spool::{SpoolError, SpoolWriter};

/// How long to wait before opening a lost microphone again.
const REOPEN: Duration = Duration::from_secs(1);
/// How often the spool is told how long it has been off the record: a restart counts its downtime from there, and a card
/// wears.
const OFF_RECORD_TOLD: Duration = Duration::from_secs(10);
/// How long one wait for the ear lasts: whoever wants the recording to stop or to pause is heard in between.
const LOOK_UP: Duration = Duration::from_millis(50);
/// An ear that has said nothing for so long hangs in its driver: a device that merely gives nothing says so earlier.
const HUNG: Duration = Duration::from_secs(SILENT.as_secs() + 1);
/// How long opening may take: three seconds go by where another program holds the device.
const OPENING: Duration = Duration::from_secs(5);
/// How long an ear has to close its microphone, and to tell what it heard last.
const CLOSING: Duration = Duration::from_secs(1);
/// So many ears may hang in their drivers at a time: each holds a thread, and the device.
const HANGING: usize = 3;

pub(super) struct Recorder {
    door: Arc<dyn MicrophoneDoor>,
    spool: SpoolWriter,
    clock: Arc<dyn Clock>,
    interrupted: Option<Interruption>,
    last: Now,
    pending: Vec<i16>,
    is_muted: bool,
    muted: u64,
    /// Samples of the interruption that were written as a gap already.
    unheard: u64,
    progress: Arc<Progress>,
    stop: Arc<OnceLock<Ending>>,
    hanging: Vec<JoinHandle<()>>,
}

impl Recorder {
    pub fn new(
        door: Arc<dyn MicrophoneDoor>,
        spool: SpoolWriter,
        clock: Arc<dyn Clock>,
        interrupted: Option<Interruption>,
        progress: Arc<Progress>,
        stop: Arc<OnceLock<Ending>>,
    ) -> Self {
        let last = clock.now();
        let pending = Vec::with_capacity(2 * SAMPLE_RATE_HZ as usize);
        let (is_muted, muted, unheard, hanging) = (false, 0, 0, Vec::new());
        Self { door, spool, clock, interrupted, last, pending, is_muted, muted, unheard, progress, stop, hanging }
    }

    fn is_stopped(&self) -> bool {
        self.stop.get().is_some()
    }

    /// Records until it is told to stop, and gives the length of the timeline.
    pub fn run(&mut self, mut microphone: Option<Box<dyn Microphone>>) -> u64 {
        while !self.is_stopped() {
            if self.progress.is_off_record() {
                drop(microphone.take());
                self.stay_off_record();
                continue;
            }
            let pauses = self.progress.pauses();
            self.listen(microphone.take());
            if self.progress.pauses() != pauses {
                // It may be over already: it was a pause all the same.
                self.stay_off_record();
                continue;
            }
            if !self.is_stopped() {
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
        self.progress.set_failing(false);
        self.progress.silent();
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
                self.unheard += silent;
                self.progress.reached(self.spool.samples());
                self.last = now.clone();
                self.interrupted = Some(Interruption { since: now, ..interruption });
            }
            Err(why) => self.disk_trouble(&why, interruption),
        }
    }

    /// Records until the microphone is lost, the recording ends, or it is off the record.
    fn listen(&mut self, microphone: Option<Box<dyn Microphone>>) {
        self.hanging.retain(|thread| !thread.is_finished());
        if self.hanging.len() >= HANGING {
            return;
        }
        let ear = Ear::open(self.door.clone(), microphone, self.clock.clone(), self.progress.clone());
        let (mut mute, mut silent, mut patience) = (Mute::default(), Duration::ZERO, OPENING);
        // The ear falls silent by itself when the recording goes off the record; what it heard before is kept.
        while silent < patience {
            if self.is_stopped() {
                ear.end();
            }
            match ear.next(LOOK_UP) {
                Ok(heard) => {
                    (silent, patience) = (Duration::ZERO, HUNG);
                    self.take(heard, &mut mute);
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => silent += LOOK_UP,
            }
            if silent >= CLOSING && (self.is_stopped() || self.progress.is_off_record()) {
                break;
            }
        }
        if !self.is_stopped() && !self.progress.is_off_record() {
            self.lost(&MicrophoneError::Hung);
        }
        self.hanging.extend(ear.close(CLOSING));
    }

    fn take(&mut self, heard: Heard, mute: &mut Mute) {
        match heard {
            Heard::Open => {}
            Heard::Sound(pcm, at) => self.heard(&pcm, at, mute),
            Heard::Missing(samples) => self.missing(samples),
            Heard::Trouble(why) => self.lost(&why),
        }
    }

    fn lost(&mut self, why: &MicrophoneError) {
        if !self.progress.set_failing(true) {
            warn!(error = %why, "Nothing is heard; trying again until it is.");
        }
        self.progress.silent();
        match &self.interrupted {
            None => {
                self.flush();
                self.interrupt(why.cause());
            }
            Some(Interruption { cause: GapCause::OffRecord, .. }) => self.interrupt(why.cause()),
            Some(_) => {}
        }
    }

    /// Samples were lost where nobody said so: the timeline keeps the time.
    fn missing(&mut self, samples: u64) {
        warn!(seconds = duration(samples).as_secs_f64(), "The microphone gave less than time has passed.");
        self.flush();
        let at = self.last.clone();
        if let Err(why) = self.spool.gap(samples, GapCause::Overrun, &at) {
            let since = earlier(&at, samples);
            self.disk_trouble(&why, Interruption { since, cause: GapCause::Overrun });
        }
    }

    fn heard(&mut self, block: &[i16], at: Now, mute: &mut Mute) {
        if let Some(interruption) = self.interrupted.take() {
            let silent = samples_in(at.since(&interruption.since).duration()).saturating_sub(block.len() as u64);
            match self.spool.gap(silent, interruption.cause, &at) {
                Ok(()) => {
                    let unheard = std::mem::take(&mut self.unheard) + silent;
                    info!(seconds = duration(unheard).as_secs_f64(), "Sound is back.");
                }
                Err(why) => {
                    self.disk_trouble(&why, interruption);
                    return;
                }
            }
        }
        self.progress.set_failing(false);
        self.progress.heard(block);
        let is_muted = mute.is_muted(block);
        if is_muted != self.is_muted {
            info!(is_muted, "The microphone was switched off, or on again: it gives one value alone, or no more.");
            self.flush();
            self.is_muted = is_muted;
        }
        self.last = at;
        if is_muted {
            self.muted += block.len() as u64;
        } else {
            self.pending.extend_from_slice(block);
        }
        if self.muted.max(self.pending.len() as u64) >= u64::from(SAMPLE_RATE_HZ) {
            self.flush();
        }
    }

    /// Puts what was gathered on the disk.
    fn flush(&mut self) {
        self.flush_muted();
        if self.pending.is_empty() {
            return;
        }
        let pcm = std::mem::take(&mut self.pending);
        match self.spool.audio(&pcm, &self.last) {
            Ok(()) => self.progress.second(self.spool.samples(), &pcm),
            Err(why) => {
                let since = earlier(&self.last, pcm.len() as u64);
                self.disk_trouble(&why, Interruption { since, cause: GapCause::DiskFull });
            }
        }
    }

    fn flush_muted(&mut self) {
        let muted = std::mem::take(&mut self.muted);
        if muted == 0 {
            return;
        }
        match self.spool.gap(muted, GapCause::Muted, &self.last) {
            Ok(()) => self.progress.second(self.spool.samples(), &[]),
            Err(why) => {
                let since = earlier(&self.last, muted);
                self.disk_trouble(&why, Interruption { since, cause: GapCause::Muted });
            }
        }
    }

    fn disk_trouble(&mut self, why: &SpoolError, interruption: Interruption) {
        if !self.progress.set_failing(true) {
            error!(error = %why, "What is heard cannot be written; trying again until it can.");
        }
        self.interrupted = Some(interruption);
    }
}

/// So many samples before `now`.
fn earlier(now: &Now, samples: u64) -> Now {
    Now { uptime: now.uptime.saturating_sub(duration(samples)), ..now.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolReader;
    use shared::clock::ScriptedClock;
    use shared::keys::{BoxKey, BoxKeys};
    use shared::store::KeyStore;

    type Heards = Vec<(std::ops::Range<u64>, GapCause)>;

    /// What is on the disk after a recorder was told so, by hand.
    fn told(tell: impl FnOnce(&mut Recorder, &ScriptedClock, &mut Mute)) -> (Vec<i16>, Heards) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let clock = Arc::new(ScriptedClock::new());
        let boxes = BoxKeys::only(BoxKey::generate().unwrap());
        let keys = KeyStore::open(&folder.path().join("keys.db"), boxes).unwrap();
        let spool = SpoolWriter::begin(&path, &keys, "s", &clock.now()).unwrap();
        let progress = Arc::new(Progress::new(0, false));
        let door = Arc::new(super::super::Board::to_look("none"));
        let mut recorder = Recorder::new(door, spool, clock.clone(), None, progress, Arc::default());
        tell(&mut recorder, &clock, &mut Mute::default());
        recorder.flush();
        let reader = SpoolReader::open(&path, &keys, "s").unwrap();
        (reader.read(0..u64::MAX).unwrap(), reader.gaps())
    }

    fn sound(
        recorder: &mut Recorder,
        clock: &ScriptedClock,
        mute: &mut Mute,
        blocks: usize,
        of: impl Fn(usize) -> i16,
    ) {
        for n in 0..blocks {
            clock.pass(Duration::from_millis(10));
            recorder.take(Heard::Sound(vec![of(n); 160], clock.now()), mute);
        }
    }

    #[test]
    fn a_microphone_that_is_switched_off_is_a_gap_after_ten_seconds_and_no_sample_that_differs_is_lost() {
        let (pcm, gaps) = told(|recorder, clock, mute| {
            sound(recorder, clock, mute, 300, |n| n as i16 + 1);
            sound(recorder, clock, mute, 1_555, |_| 0);
            sound(recorder, clock, mute, 300, |n| n as i16 + 1);
        });
        assert_eq!(gaps, [((300 + 1_000) * 160..(300 + 1_555) * 160, GapCause::Muted)]);
        assert_eq!(pcm.len(), (300 + 1_555 + 300) * 160);
        let spoken: Vec<i16> = (1..=300).flat_map(|n| [n; 160]).collect();
        assert!(pcm[..300 * 160] == spoken[..] && pcm[1_855 * 160..] == spoken[..]);
    }

    #[test]
    fn what_was_lost_in_silence_is_an_overrun_where_it_was_found() {
        let (pcm, gaps) = told(|recorder, clock, mute| {
            sound(recorder, clock, mute, 150, |_| 1);
            recorder.take(Heard::Missing(20_000), mute);
            sound(recorder, clock, mute, 10, |_| 2);
        });
        assert_eq!((gaps, pcm.len()), (vec![(24_000..44_000, GapCause::Overrun)], 45_600));
    }

    /// What waits for a slow disk was heard when it was heard: the gap is as long as the silence, not as the wait.
    #[test]
    fn a_gap_is_as_long_as_the_clock_says_between_the_samples_however_late_they_are_written() {
        let (pcm, gaps) = told(|recorder, clock, mute| {
            sound(recorder, clock, mute, 100, |_| 1);
            recorder.take(Heard::Trouble(MicrophoneError::Suspended), mute);
            clock.pass(Duration::from_millis(2_510));
            let at = clock.now();
            clock.pass(Duration::from_secs(20));
            recorder.take(Heard::Sound(vec![2; 160], at), mute);
        });
        assert_eq!((gaps, pcm.len()), (vec![(16_000..56_000, GapCause::Unplugged)], 56_160));
    }
}
