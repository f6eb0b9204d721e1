//! Scripted engines: each window's samples say which session and window they are, and the seed says what happens to
//! every attempt at it. What happened is written down as the ground truth that records are held against.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use appliance::audio::SAMPLE_RATE_HZ;
use appliance::diarize::powerset::Set;
use appliance::engine::protocol::VAD_FRAME;
use appliance::engine::{Heard, HeardWord, Phrase, Transcriber, VoiceModels, Voices};
use shared::error::EngineFault;
use shared::record::Said;
use shared::task::Task;
use tokio::sync::Notify;

use super::dice::SimDice;

/// Samples of one window: two seconds.
pub const WINDOW: u64 = 2 * SAMPLE_RATE_HZ as u64;

/// What becomes of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It goes well.
    Well,
    /// The engine process is killed.
    Crash,
    /// It wants too much memory, with the best model.
    Hungry,
    /// It does not answer in time.
    Late,
    /// The library says that the recording is no recording.
    Final,
    /// The whole box goes down with it.
    KillBox,
}

/// Names one row of work: session, window, task.
pub type RowKey = (u16, u16, Task);

/// What was seen of one row.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Attempts that were begun.
    pub begun: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts during which the box went down.
    pub kills: u32,
    /// Attempts that went well.
    pub successes: u32,
    /// How often the recorder died while the row was claimed.
    pub deaths: u32,
}

/// What all engines of a simulation share.
pub struct Script {
    dice: RefCell<SimDice>,
    plans: RefCell<BTreeMap<RowKey, Vec<Act>>>,
    /// Ground truth.
    pub seen: RefCell<BTreeMap<RowKey, Seen>>,
    /// Every call fails while this is set: what opens a breaker.
    pub outage: Cell<Option<Task>>,
    /// No more faults.
    pub kind: Cell<bool>,
    /// Windows that wait for the box to go down.
    killers: RefCell<BTreeSet<RowKey>>,
    /// Rung when the box is to go down.
    pub kill: Rc<Notify>,
}

impl Script {
    /// Engines of this seed.
    #[must_use]
    pub fn new(dice: SimDice) -> Self {
        Self {
            dice: RefCell::new(dice),
            plans: RefCell::default(),
            seen: RefCell::default(),
            outage: Cell::new(None),
            kind: Cell::new(false),
            killers: RefCell::default(),
            kill: Rc::default(),
        }
    }

    /// Whether a window waits for the box to go down.
    #[must_use]
    pub fn is_kill_pending(&self) -> bool {
        !self.killers.borrow().is_empty()
    }

    /// The box goes down, with what is at work.
    pub fn note_kill(&self) {
        let mut seen = self.seen.borrow_mut();
        for key in self.killers.borrow().iter() {
            seen.entry(*key).or_default().kills += 1;
        }
    }

    fn plan(dice: &mut SimDice) -> Vec<Act> {
        if !dice.happens(0.3) {
            return Vec::new();
        }
        if dice.happens(0.15) {
            return vec![Act::KillBox; dice.number(1..7) as usize];
        }
        let all = [Act::Crash, Act::Crash, Act::Crash, Act::Hungry, Act::Late, Act::Final];
        (0..dice.number(1..5)).filter_map(|_| dice.one_of(&all).copied()).collect()
    }

    fn next(&self, key: RowKey) -> Act {
        if self.kind.get() {
            return Act::Well;
        }
        if self.outage.get() == Some(key.2) {
            return Act::Crash;
        }
        let mut plans = self.plans.borrow_mut();
        let plan = plans.entry(key).or_insert_with(|| Self::plan(&mut self.dice.borrow_mut()));
        if plan.is_empty() { Act::Well } else { plan.remove(0) }
    }

    async fn attempt(&self, key: RowKey, rung: u32) -> Result<(), EngineFault> {
        let act = self.next(key);
        let takes = self.dice.borrow_mut().millis(100..2_500);
        let note = |change: fn(&mut Seen)| change(self.seen.borrow_mut().entry(key).or_default());
        note(|seen| seen.begun += 1);
        if act == Act::KillBox {
            self.killers.borrow_mut().insert(key);
            let _until_it_is_stopped = Killer { script: self, key };
            self.kill.notify_one();
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(if act == Act::Late { takes * 6 } else { takes }).await;
        let fault = match act {
            Act::Well | Act::KillBox => None,
            Act::Hungry if rung > 0 => None,
            Act::Crash => Some(EngineFault::ChildCrashed { signal: 9 }),
            Act::Hungry => Some(EngineFault::OutOfMemory { limit_bytes: 1 }),
            Act::Late => Some(EngineFault::DeadlineExceeded { limit_ms: 1 }),
            Act::Final => Some(EngineFault::Reported { code: "invalid audio format".into() }),
        };
        match fault {
            None => {
                note(|seen| seen.successes += 1);
                Ok(())
            }
            Some(fault) => {
                note(|seen| seen.failures += 1);
                Err(fault)
            }
        }
    }
}

/// An attempt that takes the box down, unless it is stopped before.
struct Killer<'a> {
    script: &'a Script,
    key: RowKey,
}

impl Drop for Killer<'_> {
    fn drop(&mut self) {
        self.script.killers.borrow_mut().remove(&self.key);
    }
}

/// The samples of a window: they say which it is.
#[must_use]
pub fn samples(session: u16, window: u16) -> Vec<i16> {
    let mut pcm = vec![100; WINDOW as usize];
    (pcm[0], pcm[1]) = (session.cast_signed(), window.cast_signed());
    pcm
}

fn key(pcm: &[i16], task: Task) -> RowKey {
    (pcm[0].cast_unsigned(), pcm[1].cast_unsigned(), task)
}

/// The word that is said in a window, and nowhere else.
#[must_use]
pub fn word(session: u16, window: u16) -> String {
    format!("word-{session}-{window}")
}

/// The name of a model.
#[must_use]
pub fn model(rung: u32) -> String {
    format!("sim-{rung}")
}

/// A transcriber with two models.
pub struct SimTranscriber(pub Rc<Script>);

impl Transcriber for SimTranscriber {
    fn rungs(&self) -> u32 {
        2
    }

    async fn transcribe(&mut self, pcm: &[i16], rung: u32) -> Result<Heard, EngineFault> {
        let (session, window, _) = key(pcm, Task::Transcription);
        self.0.attempt((session, window, Task::Transcription), rung).await?;
        let text = Said(word(session, window));
        let words = vec![HeardWord { start: 0.4, end: 1.6, text, probability: 0.9 }];
        Ok(Heard { model: model(rung), phrases: vec![Phrase { start: 0.4, end: 1.6, words }] })
    }
}

/// One voice, always speaking.
#[derive(Clone)]
pub struct SimVoices(pub Rc<Script>);

impl Voices for SimVoices {
    async fn models(&mut self) -> Result<VoiceModels, EngineFault> {
        Ok(VoiceModels { voice: "sim-voice".into(), segmentation: None })
    }

    async fn segment(&mut self, _: &[i16], _: &[usize]) -> Result<Vec<Vec<Set>>, EngineFault> {
        Err(EngineFault::Unavailable { problem: "there is no segmentation here".into() })
    }

    async fn speech(&mut self, pcm: &[i16]) -> Result<Vec<f32>, EngineFault> {
        Ok(vec![1.0; pcm.len().div_ceil(VAD_FRAME)])
    }

    async fn embed(&mut self, pcm: &[i16], pieces: &[Vec<Range<usize>>]) -> Result<Vec<Vec<f32>>, EngineFault> {
        self.0.attempt(key(pcm, Task::Diarization), 0).await?;
        Ok(pieces.iter().map(|_| vec![1.0, 0.0, 0.0, 0.0]).collect())
    }
}

/// How long a box is down after it was killed.
#[must_use]
pub fn downtime(dice: &mut SimDice) -> Duration {
    dice.millis(300..9_000)
}
