//! Starting and ending sessions, pausing and withdrawing them, and going on with one after a restart.
//!
//!   Idle ── start ──▶ Starting ── microphone open, row and spool made ──▶ Recording ── stop, withdraw ──▶ Stopping ──▶ Idle
//!   Recording ── pause ──▶ off the record ── resume ──▶ Recording          any ── the daemon stops ──▶ Suspended
//!
//! No lock is held while a microphone or a disk takes its time: whoever asks meanwhile is told the state.

mod consent;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::clock::{Elapsed, WallTime};
use shared::error::report;
use shared::record::{Consent, GapCause, Status, TimeQuality};
use shared::store::{Actor, By, NewSession, SessionRow, SpeakerHint, StoreError};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::admission::{self, NoRoom};
use crate::capture::{
    Beginning, Ending, Interruption, Microphone, MicrophoneDoor, MicrophoneError, Progress, Recording,
};
use crate::context::Context;
use crate::forget;
use crate::spool::{Left, SpoolError, SpoolReader, SpoolWriter};

/// How many failed starts are cleaned up after without a restart: nobody presses a button more often on a full disk.
const LEFT: usize = 32;
/// How long ending waits for the microphone's last samples.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a session could not be started or ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// One is under way.
    #[error("A session is being recorded already")]
    Busy,
    /// The site demands consent and none was given.
    #[error("This site records nobody without consent: say what it rests on, e.g. --consent verbal")]
    NoConsent,
    /// There is no room for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// It is not the one being recorded.
    #[error("No session is being recorded, or it is not this one")]
    NotRecording,
    /// There is nothing to record with.
    #[error(transparent)]
    Microphone(#[from] MicrophoneError),
    /// There is no room or no right to write, or no key to seal it with.
    #[error("The recording cannot be written: {0}")]
    Spool(#[from] SpoolError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

enum Slot {
    Idle,
    Starting,
    /// `off_record_since` is the uptime since when it is, if it is.
    Recording {
        session: String,
        recording: Recording,
        off_record_since: Option<Duration>,
    },
    Stopping {
        session: String,
    },
    Suspended,
}

/// The one session that a room can have.
pub struct Sessions {
    context: Arc<Context>,
    door: Arc<dyn MicrophoneDoor>,
    slot: Mutex<Slot>,
    /// Held while it is stored whether the session is off the record, so that the last store says what is so.
    storing: Mutex<()>,
    /// What was begun of sessions that are none and could not be removed: tried again every second. One for each start that
    /// failed on a full disk; what is more than [`LEFT`] waits for the next start of the program.
    left: Mutex<Vec<String>>,
}

impl Sessions {
    /// No session yet.
    #[must_use]
    pub fn new(context: Arc<Context>, door: Arc<dyn MicrophoneDoor>) -> Self {
        Self { context, door, slot: Mutex::new(Slot::Idle), storing: Mutex::default(), left: Mutex::default() }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being recorded, if anything, and how far it is.
    #[must_use]
    pub fn recording(&self) -> Option<(String, Arc<Progress>)> {
        match &*self.slot() {
            Slot::Recording { session, recording, .. } => Some((session.clone(), recording.progress.clone())),
            Slot::Idle | Slot::Starting | Slot::Stopping { .. } | Slot::Suspended => None,
        }
    }

    /// Starts a session and returns its id. Blocks while the microphone is opened.
    ///
    /// # Errors
    /// [`SessionError`]; nothing is left behind then.
    pub fn start(
        &self,
        basis: Option<String>,
        by: Option<String>,
        speakers: SpeakerHint,
    ) -> Result<String, SessionError> {
        let basis = match basis.filter(|b| !b.trim().is_empty()) {
            Some(basis) => basis,
            None if self.context.settings.session.require_consent => return Err(SessionError::NoConsent),
            None => "not_required".into(),
        };
        match &mut *self.slot() {
            slot @ Slot::Idle => *slot = Slot::Starting,
            Slot::Starting | Slot::Recording { .. } | Slot::Stopping { .. } | Slot::Suspended => {
                return Err(SessionError::Busy);
            }
        }
        let admitted = admission::look(&self.context).map_err(SessionError::from).and_then(|room| Ok(room?));
        let opened = admitted.and_then(|()| Ok(self.door.open()?));
        let begun = opened.and_then(|open| self.begin(open, basis, by, speakers));
        let (slot, answer) = match begun {
            Ok((session, recording)) => {
                info!(session_id = session, "Recording.");
                (Slot::Recording { session: session.clone(), recording, off_record_since: None }, Ok(session))
            }
            Err(why) => (Slot::Idle, Err(why)),
        };
        *self.slot() = slot;
        self.context.begun.notify_waiters();
        answer
    }

    fn begin(
        &self,
        microphone: Box<dyn Microphone>,
        basis: String,
        by: Option<String>,
        speakers: SpeakerHint,
    ) -> Result<(String, Recording), SessionError> {
        let now = self.context.now();
        let id = Uuid::new_v4().to_string();
        let path = self.context.spool_file(&id);
        let begun = SpoolWriter::begin(&path, &self.context.keys, &id, &now);
        let spool = begun.inspect_err(|_| self.forget(&id))?;
        let new = NewSession {
            id: id.clone(),
            started_at: now.wall,
            time_quality: self.context.time_quality(),
            consent: Consent { basis, by, at: now.wall.to_string() },
            status: Status::Recording,
            speakers,
        };
        if let Err(why) = self.context.store.begin_session(&new, now.wall) {
            self.forget(&id);
            return Err(why.into());
        }
        let clock = self.context.clock.clone();
        Ok((id, Recording::begin(self.door.clone(), Some(microphone), spool, clock, Beginning::default())))
    }

    /// Takes away what was begun of a session that is none.
    fn forget(&self, session: &str) {
        if let Err(why) = forget::begun(&self.context, session) {
            warn!(session_id = session, error = %report(&why), "What was begun of a session could not be removed; trying again.");
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            if left.len() < LEFT {
                left.push(session.to_owned());
            }
        }
    }

    /// Tries again to take away what could not be.
    fn forget_what_is_left(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|session| forget::begun(&self.context, session).is_err());
    }

    /// Ends the session being recorded; `session` names it if the caller means a particular one. Blocks until the
    /// last samples are on the disk.
    ///
    /// # Errors
    /// [`SessionError::NotRecording`], or what the store says; [`Sessions::settle`] ends the session then.
    pub fn stop(&self, session: Option<&str>) -> Result<String, SessionError> {
        self.stop_by(session, Actor::Local)
    }

    fn stop_by(&self, session: Option<&str>, actor: Actor) -> Result<String, SessionError> {
        let (session, recording) = self.take_out(session).ok_or(SessionError::NotRecording)?;
        let samples = recording.end(Ending::Final, PATIENCE);
        let ended = self.ended(&session, samples, actor);
        *self.slot() = Slot::Idle;
        ended?;
        Ok(session)
    }

    /// Takes what is being recorded out of its slot, which is left at `Stopping`; None if it is not `session`.
    fn take_out(&self, session: Option<&str>) -> Option<(String, Recording)> {
        let mut slot = self.slot();
        let name = match &*slot {
            Slot::Recording { session: name, .. } if session.is_none_or(|s| s == name) => name.clone(),
            Slot::Idle | Slot::Starting | Slot::Recording { .. } | Slot::Stopping { .. } | Slot::Suspended => {
                return None;
            }
        };
        match std::mem::replace(&mut *slot, Slot::Stopping { session: name }) {
            Slot::Recording { session, recording, .. } => Some((session, recording)),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Stores that a session's recording is over.
    fn ended(&self, session: &str, samples: Option<u64>, actor: Actor) -> Result<(), SessionError> {
        let samples = match samples {
            Some(samples) => samples,
            None => SpoolReader::open(&self.context.spool_file(session), &self.context.keys, session)?.samples(),
        };
        let now = self.context.now().wall;
        self.date(session, samples, now);
        self.context.store.end_session(session, samples, now, By { actor, at: now })?;
        self.context.settled.notify_waiters();
        info!(session_id = session, seconds = crate::audio::seconds(samples), "Recording ended.");
        Ok(())
    }

    /// A session that began before the clock was right is dated from its end, if it is right by now: samples tell how long
    /// ago that was.
    fn date(&self, session: &str, samples: u64, ended_at: WallTime) {
        let is_right = match self.context.time_quality() {
            TimeQuality::Synchronized => self.context.store.session(session).map(|row| row.time_quality),
            TimeQuality::Unsynchronized => return,
        };
        let lasted = i64::try_from(crate::audio::duration(samples).as_millis()).unwrap_or(i64::MAX);
        let dated = is_right.and_then(|at_start| match at_start {
            TimeQuality::Synchronized => Ok(()),
            TimeQuality::Unsynchronized => {
                self.context.store.date(session, WallTime(ended_at.0.saturating_sub(lasted)))
            }
        });
        if let Err(why) = dated {
            warn!(session_id = session, error = %report(&why), "The session keeps the date of a clock that was not right.");
        }
    }

    /// Puts what was gathered on the disk and leaves the session to the next start, which goes on with it. Nothing is
    /// started or settled after this.
    pub fn suspend(&self) {
        let before = std::mem::replace(&mut *self.slot(), Slot::Suspended);
        if let Slot::Recording { recording, .. } = before {
            recording.end(Ending::Suspended, PATIENCE);
        }
    }

    /// Ends every session that says it is being recorded and is not: one whose end could not be stored. Also one that has
    /// lasted, or has been off the record, longer than a site allows.
    ///
    /// # Errors
    /// What the store says.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.forget_what_is_left();
        let overdue = self.overdue();
        if let Some((session, why)) = overdue {
            warn!(session_id = session, why, "The session is ended.");
            match self.stop_by(Some(&session), Actor::Box) {
                Ok(_) | Err(SessionError::NotRecording) => {}
                Err(why) => {
                    error!(session_id = session, error = %report(&why), "The session's end could not be stored.")
                }
            }
        }
        if matches!(*self.slot(), Slot::Suspended) {
            return Ok(());
        }
        if let Some((session, progress)) = self.recording() {
            // Where it could not be stored when it was asked for, and where somebody withdrew it without asking here.
            self.store_off_record(&session, &progress, Actor::Box)?;
            self.end_if_withdrawn(&session)?;
        }
        for session in self.under_way()? {
            // Asked for each, after the store was read and without holding others up: one that has begun meanwhile is not
            // ended, and one that is over can never be recorded again.
            if !self.is_in_hand(&session.id) {
                self.end_where_it_stopped(&session);
            }
        }
        Ok(())
    }

    /// Whether a session is, or may be, the one in the slot.
    fn is_in_hand(&self, id: &str) -> bool {
        match &*self.slot() {
            Slot::Starting | Slot::Suspended => true,
            Slot::Idle => false,
            Slot::Recording { session, .. } | Slot::Stopping { session } => session == id,
        }
    }

    /// Every session that says it is being recorded, off the record or not.
    fn under_way(&self) -> Result<Vec<SessionRow>, StoreError> {
        let mut all = self.context.store.sessions_in(Status::Recording)?;
        all.extend(self.context.store.sessions_in(Status::Paused)?);
        Ok(all)
    }

    /// After a start: goes on with the session that was being recorded, if it is not too long ago, and ends every
    /// other that still says so. Trouble with one keeps no other, and no start, back.
    ///
    /// # Errors
    /// What the store says.
    pub fn take_up(&self) -> Result<(), StoreError> {
        for session in self.under_way()? {
            if let Err(why) = self.take_up_one(&session) {
                error!(session_id = session.id, error = %report(&why), "The session cannot be gone on with.");
                self.end_where_it_stopped(&session);
            }
        }
        Ok(())
    }

    fn take_up_one(&self, session: &SessionRow) -> Result<(), SessionError> {
        let now = self.context.now();
        let (spool, left) = self.reopen(session)?;
        let since = left.at.clone().unwrap_or_else(|| now.clone());
        let down = now.since(&since);
        let limit = Duration::from_secs_f64(self.context.settings.capture.resume_within);
        // After a reboot the wall clock is all there is. Where it went back nobody knows how long the box was away, and whoever
        // is in the room by now may never have consented.
        let is_unknown = matches!(down, Elapsed::Rebooted(_)) && now.wall < since.wall;
        let mut slot = self.slot();
        if left.ended || is_unknown || down.duration() > limit || !matches!(*slot, Slot::Idle) {
            let seconds = down.duration().as_secs_f64();
            warn!(session_id = session.id, seconds, is_unknown, "The session ends where it stopped.");
            self.context.store.end_session(&session.id, left.samples, since.wall, now.wall)?;
            return Ok(());
        }
        let is_off_record = session.status == Status::Paused;
        let cause = match down {
            _ if is_off_record => GapCause::OffRecord,
            Elapsed::Counted(_) => GapCause::Restart,
            Elapsed::Rebooted(_) => GapCause::PowerLoss,
        };
        info!(session_id = session.id, seconds = down.duration().as_secs_f64(), "Going on with the session.");
        let beginning = Beginning { interrupted: Some(Interruption { since, cause }), is_off_record };
        let recording = Recording::begin(self.door.clone(), None, spool, self.context.clock.clone(), beginning);
        let off_record_since = is_off_record.then_some(now.uptime);
        *slot = Slot::Recording { session: session.id.clone(), recording, off_record_since };
        Ok(())
    }

    fn reopen(&self, session: &SessionRow) -> Result<(SpoolWriter, Left), SessionError> {
        let (now, path, keys) = (self.context.now(), self.context.spool_file(&session.id), &self.context.keys);
        if path.exists() {
            return Ok(SpoolWriter::reopen(&path, keys, &session.id, &now)?);
        }
        let spool = SpoolWriter::begin(&path, keys, &session.id, &now)?;
        Ok((spool, Left { samples: 0, at: None, ended: false }))
    }

    /// Ends a session with what can be read of it.
    fn end_where_it_stopped(&self, session: &SessionRow) {
        let readable = SpoolReader::open(&self.context.spool_file(&session.id), &self.context.keys, &session.id);
        let samples = match readable {
            Ok(spool) => spool.samples(),
            // It is ended as soon as it can be read: `settle` looks every second.
            Err(why) if why.is_passing() => {
                warn!(session_id = session.id, error = %report(&why), "The session's recording cannot be read yet.");
                return;
            }
            Err(why) => {
                error!(session_id = session.id, error = %report(&why), "The session's recording cannot be read.");
                session.samples
            }
        };
        let now = self.context.now().wall;
        match self.context.store.end_session(&session.id, samples, now, now) {
            Ok(()) => warn!(session_id = session.id, "The session ends where it stopped."),
            Err(why) => {
                error!(session_id = session.id, error = %report(&why), "The session's end could not be stored.")
            }
        }
    }
}

#[cfg(test)]
mod tests;
