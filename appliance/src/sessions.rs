//! Starting and ending sessions, and going on with one after a restart.
//!
//!   Idle ── start ──▶ Starting ── microphone open, row and spool made ──▶ Recording ── stop ──▶ Stopping ──▶ Idle
//!   any ── the daemon stops ──▶ Suspended
//!
//! No lock is held while a microphone or a disk takes its time: whoever asks meanwhile is told the state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::clock::Elapsed;
use shared::error::report;
use shared::record::{Consent, GapCause, Status};
use shared::store::{By, NewSession, SessionRow, SpeakerHint, StoreError};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::capture::{
    Beginning, Ending, Interruption, Microphone, MicrophoneDoor, MicrophoneError, Progress, Recording,
};
use crate::context::{Context, time_quality};
use crate::forget;
use crate::spool::{Left, SpoolError, SpoolReader, SpoolWriter};

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
    /// It is not the one being recorded.
    #[error("This session is not being recorded")]
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
    Recording { session: String, recording: Recording },
    Stopping { session: String },
    Suspended,
}

/// The one session that a room can have.
pub struct Sessions {
    context: Arc<Context>,
    door: Arc<dyn MicrophoneDoor>,
    slot: Mutex<Slot>,
}

impl Sessions {
    /// No session yet.
    #[must_use]
    pub fn new(context: Arc<Context>, door: Arc<dyn MicrophoneDoor>) -> Self {
        Self { context, door, slot: Mutex::new(Slot::Idle) }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being recorded, if anything, and how far it is.
    #[must_use]
    pub fn recording(&self) -> Option<(String, Arc<Progress>)> {
        match &*self.slot() {
            Slot::Recording { session, recording } => Some((session.clone(), recording.progress.clone())),
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
        let opened = self.door.open().map_err(SessionError::from);
        let begun = opened.and_then(|open| self.begin(open, basis, by, speakers));
        let (slot, answer) = match begun {
            Ok((session, recording)) => {
                info!(session_id = session, "Recording.");
                (Slot::Recording { session: session.clone(), recording }, Ok(session))
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
        let spool = begun.inspect_err(|_| forget::begun(&self.context.keys, &self.context.spool_file(&id), &id))?;
        let new = NewSession {
            id: id.clone(),
            started_at: now.wall,
            time_quality: time_quality(),
            consent: Consent { basis, by, at: now.wall.to_string() },
            status: Status::Recording,
            speakers,
        };
        if let Err(why) = self.context.store.begin_session(&new, now.wall) {
            forget::begun(&self.context.keys, &self.context.spool_file(&id), &id);
            return Err(why.into());
        }
        let clock = self.context.clock.clone();
        Ok((id, Recording::begin(self.door.clone(), Some(microphone), spool, clock, Beginning::default())))
    }

    /// Ends the session being recorded; `session` names it if the caller means a particular one. Blocks until the
    /// last samples are on the disk.
    ///
    /// # Errors
    /// [`SessionError::NotRecording`], or what the store says; [`Sessions::settle`] ends the session then.
    pub fn stop(&self, session: Option<&str>) -> Result<String, SessionError> {
        let (session, recording) = {
            let mut slot = self.slot();
            let name = match &*slot {
                Slot::Recording { session: name, .. } if session.is_none_or(|s| s == name) => name.clone(),
                Slot::Idle | Slot::Starting | Slot::Recording { .. } | Slot::Stopping { .. } | Slot::Suspended => {
                    return Err(SessionError::NotRecording);
                }
            };
            match std::mem::replace(&mut *slot, Slot::Stopping { session: name }) {
                Slot::Recording { session, recording } => (session, recording),
                other => {
                    *slot = other;
                    return Err(SessionError::NotRecording);
                }
            }
        };
        let samples = recording.end(Ending::Final, PATIENCE);
        let ended = self.ended(&session, samples);
        *self.slot() = Slot::Idle;
        ended?;
        Ok(session)
    }

    /// Stores that a session's recording is over.
    fn ended(&self, session: &str, samples: Option<u64>) -> Result<(), SessionError> {
        let samples = match samples {
            Some(samples) => samples,
            None => SpoolReader::open(&self.context.spool_file(session), &self.context.keys, session)?.samples(),
        };
        let now = self.context.now().wall;
        self.context.store.end_session(session, samples, now, By::local(now))?;
        self.context.settled.notify_waiters();
        info!(session_id = session, seconds = crate::audio::seconds(samples), "Recording ended.");
        Ok(())
    }

    /// Puts what was gathered on the disk and leaves the session to the next start, which goes on with it. Nothing is
    /// started or settled after this.
    pub fn suspend(&self) {
        let before = std::mem::replace(&mut *self.slot(), Slot::Suspended);
        if let Slot::Recording { recording, .. } = before {
            recording.end(Ending::Suspended, PATIENCE);
        }
    }

    /// Ends every session that says it is being recorded and is not: one whose end could not be stored.
    ///
    /// # Errors
    /// What the store says.
    pub fn settle(&self) -> Result<(), StoreError> {
        // The slot is held while the store is read, so that no session begins in between.
        let slot = self.slot();
        let current = match &*slot {
            Slot::Starting | Slot::Suspended => return Ok(()),
            Slot::Idle => None,
            Slot::Recording { session, .. } | Slot::Stopping { session } => Some(session.as_str()),
        };
        for session in self.context.store.sessions_in(Status::Recording)? {
            if current != Some(session.id.as_str()) {
                self.end_where_it_stopped(&session);
            }
        }
        Ok(())
    }

    /// After a start: goes on with the session that was being recorded, if it is not too long ago, and ends every
    /// other that still says so. Trouble with one keeps no other, and no start, back.
    ///
    /// # Errors
    /// What the store says.
    pub fn take_up(&self) -> Result<(), StoreError> {
        for session in self.context.store.sessions_in(Status::Recording)? {
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
        let mut slot = self.slot();
        if left.ended || down.duration() > limit || !matches!(*slot, Slot::Idle) {
            let seconds = down.duration().as_secs_f64();
            warn!(session_id = session.id, seconds, "The session ends where it stopped.");
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
        *slot = Slot::Recording { session: session.id.clone(), recording };
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
mod tests {
    use super::*;
    use shared::clock::SystemClock;
    use shared::paths::Root;
    use shared::settings::Settings;

    struct Quiet;

    impl MicrophoneDoor for Quiet {
        fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
            Ok(Box::new(Quiet))
        }
    }

    impl Microphone for Quiet {
        fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError> {
            std::thread::sleep(Duration::from_millis(10));
            into.fill(0);
            Ok(into.len())
        }
    }

    fn box_in(folder: &std::path::Path) -> (Arc<Context>, Sessions) {
        let opened = Context::open(Root::new(folder), Settings::default(), Arc::new(SystemClock::new()), None);
        let context = Arc::new(opened.unwrap());
        (context.clone(), Sessions::new(context, Arc::new(Quiet)))
    }

    /// What settles sessions runs until the very end of the daemon: it used to end the one that was to be gone on with.
    #[test]
    fn a_suspended_session_is_not_settled_and_the_next_start_goes_on_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (context, sessions) = box_in(folder.path());
        let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        sessions.suspend();
        sessions.settle().unwrap();
        assert_eq!(context.store.session(&id).unwrap().status, Status::Recording);
        assert!(matches!(sessions.start(Some("verbal".into()), None, SpeakerHint::default()), Err(SessionError::Busy)));
        drop((context, sessions));
        let (context, sessions) = box_in(folder.path());
        sessions.take_up().unwrap();
        assert_eq!(sessions.recording().unwrap().0, id);
        sessions.settle().unwrap();
        assert_eq!(sessions.stop(None).unwrap(), id);
        assert_eq!(context.store.session(&id).unwrap().status, Status::Queued);
    }

    #[test]
    fn a_session_whose_end_could_not_be_stored_is_ended_soon_after() {
        let folder = tempfile::tempdir().unwrap();
        let (context, sessions) = box_in(folder.path());
        let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
        *sessions.slot() = Slot::Idle;
        sessions.settle().unwrap();
        assert_eq!(context.store.session(&id).unwrap().status, Status::Queued);
    }
}
