//! The button and the lights, on a thread of their own: whoever cannot type must be able to start, pause and stop, and
//! whoever sits in the room must see whether they are heard.
//!
//!   idle ── press ──▶ recording ── press ──▶ off the record ── press ──▶ recording
//!   recording, off the record ── hold for two seconds ──▶ ended
//!
//! A chip that is not there, or goes away, is tried again; the session goes on meanwhile.

mod gpio;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use shared::error::report;
use shared::store::SpeakerHint;
use tracing::{info, warn};

use crate::admission;
use crate::context::Context;
use crate::sessions::{SessionError, Sessions};

/// Held so long, it ends the session: nobody does that by chance.
const HOLD: Duration = Duration::from_secs(2);
/// How often lights are looked after, and so the longest that one lags behind.
const LOOK: Duration = Duration::from_millis(100);
/// How long the trouble light blinks after a press that could not be obeyed.
const BLINKS: Duration = Duration::from_secs(5);
/// How often room for another session is looked for: it reads the disk's state and counts rows.
const ROOM: Duration = Duration::from_secs(10);
/// How long to wait before opening a lost chip again.
const REOPEN: Duration = Duration::from_secs(5);

/// The panel does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("The button and the lights on {chip} cannot be used: {problem}")]
pub struct PanelError {
    /// The chip.
    pub chip: String,
    /// What the system says.
    pub problem: String,
}

/// What is lit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lights {
    /// Everything that is said is recorded.
    pub recording: bool,
    /// There is a session, and nothing is heard.
    pub paused: bool,
    /// Somebody should look.
    pub trouble: bool,
}

/// An open panel.
pub trait Panel: Send {
    /// Waits at most `patience` for the button to move; says whether it went down, and how long ago, if it has.
    ///
    /// # Errors
    /// [`PanelError`]; it is to be opened anew.
    fn wait(&mut self, patience: Duration) -> Result<Option<Move>, PanelError>;

    /// Shows exactly these.
    ///
    /// # Errors
    /// [`PanelError`]; it is to be opened anew.
    fn show(&mut self, lights: Lights) -> Result<(), PanelError>;
}

/// The button moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Whether it went down.
    pub is_down: bool,
    /// How long ago: whoever reads it may have been held up.
    pub ago: Duration,
}

/// How a panel is opened.
pub trait PanelDoor: Send {
    /// Opens it.
    ///
    /// # Errors
    /// [`PanelError`].
    fn open(&self) -> Result<Box<dyn Panel>, PanelError>;
}

/// What a person did with the button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gesture {
    Press,
    Hold,
}

/// The button, from how it moves.
#[derive(Debug, Default)]
struct Button {
    /// Since when it is down, while that has meant nothing yet.
    down: Option<Duration>,
}

impl Button {
    /// What it means that it moved, or did not, by `now`. A hold counts while it is still held, so that the light answers.
    fn gesture(&mut self, moved: Option<bool>, now: Duration) -> Option<Gesture> {
        match (moved, self.down) {
            (Some(true), None) => {
                self.down = Some(now);
                None
            }
            (Some(false), Some(since)) => {
                self.down = None;
                Some(if now.saturating_sub(since) >= HOLD { Gesture::Hold } else { Gesture::Press })
            }
            (None | Some(true), Some(since)) if now.saturating_sub(since) >= HOLD => {
                self.down = None;
                Some(Gesture::Hold)
            }
            (None | Some(true), _) | (Some(false), None) => None,
        }
    }
}

/// The box's panel while it runs; it goes dark when this is dropped.
pub struct Running {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It looks up ten times a second, but for the opening of a microphone.
            drop(thread.join());
        }
    }
}

/// Starts the panel, if the settings name any line of one.
#[must_use]
pub fn start(context: &Arc<Context>, sessions: &Arc<Sessions>) -> Option<Running> {
    let lines = context.settings.panel.clone();
    lines.lines().next()?;
    let chip = context.root.path().join("dev").join(&lines.chip);
    Some(start_on(gpio::Board { chip, lines }, context.clone(), sessions.clone()))
}

fn start_on(door: impl PanelDoor + 'static, context: Arc<Context>, sessions: Arc<Sessions>) -> Running {
    let is_over = Arc::new(AtomicBool::new(false));
    let shared = is_over.clone();
    let thread = thread::spawn(move || Keeper::new(context, sessions).keep(&door, &shared));
    Running { is_over, thread: Some(thread) }
}

struct Keeper {
    context: Arc<Context>,
    sessions: Arc<Sessions>,
    button: Button,
    /// Until when the trouble light blinks.
    blinks_until: Duration,
    /// Whether there is room for another session, and when that was looked for.
    room: (bool, Option<Duration>),
    is_told: bool,
}

impl Keeper {
    fn new(context: Arc<Context>, sessions: Arc<Sessions>) -> Self {
        let (button, blinks_until) = (Button::default(), Duration::ZERO);
        Self { context, sessions, button, blinks_until, room: (true, None), is_told: false }
    }

    fn keep(&mut self, door: &impl PanelDoor, is_over: &AtomicBool) {
        let mut waited = REOPEN;
        while !is_over.load(Ordering::Relaxed) {
            if waited < REOPEN {
                thread::sleep(LOOK);
                waited += LOOK;
                continue;
            }
            match door.open().and_then(|panel| self.serve(panel, is_over)) {
                Ok(()) => return,
                Err(why) if self.is_told => drop(why),
                Err(why) => warn!(error = %report(&why), "The button and the lights do not work; trying again."),
            }
            (self.is_told, waited) = (true, Duration::ZERO);
        }
    }

    fn serve(&mut self, mut panel: Box<dyn Panel>, is_over: &AtomicBool) -> Result<(), PanelError> {
        if std::mem::take(&mut self.is_told) {
            info!("The button and the lights work again.");
        }
        self.button = Button::default();
        let mut shown = None;
        while !is_over.load(Ordering::Relaxed) {
            let moved = panel.wait(LOOK)?;
            let now = self.context.now().uptime.saturating_sub(moved.map_or(Duration::ZERO, |moved| moved.ago));
            if let Some(gesture) = self.button.gesture(moved.map(|moved| moved.is_down), now) {
                self.obey(gesture);
            }
            let lights = self.lights(self.context.clock.now().uptime);
            if shown != Some(lights) {
                panel.show(lights)?;
                shown = Some(lights);
            }
        }
        panel.show(Lights::default())
    }

    fn obey(&mut self, gesture: Gesture) {
        let is_off_record = self.sessions.recording().map(|(_, progress)| progress.is_off_record());
        let consent = self.context.settings.panel.consent.clone();
        let done: Result<String, SessionError> = match (is_off_record, gesture) {
            (None, Gesture::Press) => self.sessions.start(consent, None, SpeakerHint::default()),
            (None, Gesture::Hold) => return,
            (Some(false), Gesture::Press) => self.sessions.pause(None, None),
            (Some(true), Gesture::Press) => self.sessions.resume(None, None),
            (Some(_), Gesture::Hold) => self.sessions.stop(None),
        };
        if let Err(why) = done {
            warn!(error = %report(&why), "The button was pressed, and that could not be done.");
            self.blinks_until = self.context.now().uptime + BLINKS;
        }
    }

    fn lights(&mut self, now: Duration) -> Lights {
        let (mut lights, mut is_failing) = (Lights::default(), false);
        if let Some((_, progress)) = self.sessions.recording() {
            lights.paused = progress.is_off_record();
            is_failing = progress.is_failing();
            // It must never say that somebody is recorded who is not.
            lights.recording = !lights.paused && !is_failing && progress.is_heard();
        }
        let is_old = self.room.1.is_none_or(|at| now.saturating_sub(at) >= ROOM);
        if is_old {
            self.room = (admission::look(&self.context).is_ok_and(|room| room.is_ok()), Some(now));
        }
        let blinks = now < self.blinks_until && (now.as_millis() / 250).is_multiple_of(2);
        lights.trouble = is_failing || !self.room.0 || blinks;
        lights
    }
}

#[cfg(test)]
mod tests;
