//! Starting and ending sessions, and going on with one after a restart.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::clock::Elapsed;
use shared::record::{Consent, GapCause, Status};
use shared::store::{NewSession, SessionRow, StoreError};
use tracing::{info, warn};
use uuid::Uuid;

use crate::capture::{Interruption, MicrophoneDoor, MicrophoneError, Progress, Recording};
use crate::context::{Context, time_quality};
use crate::spool::{SpoolReader, SpoolWriter};

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
    /// There is no room or no right to write.
    #[error("The recording cannot be written: {0}")]
    Disk(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Active {
    session: String,
    recording: Recording,
}

/// The one session that a room can have.
pub struct Sessions {
    context: Arc<Context>,
    door: Arc<dyn MicrophoneDoor>,
    active: Mutex<Option<Active>>,
}

impl Sessions {
    /// No session yet.
    #[must_use]
    pub fn new(context: Arc<Context>, door: Arc<dyn MicrophoneDoor>) -> Self {
        Self { context, door, active: Mutex::default() }
    }

    fn active(&self) -> std::sync::MutexGuard<'_, Option<Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being recorded, if anything, and how far it is.
    #[must_use]
    pub fn recording(&self) -> Option<(String, Arc<Progress>)> {
        self.active().as_ref().map(|a| (a.session.clone(), a.recording.progress.clone()))
    }

    /// Starts a session and returns its id. Blocks while the microphone is opened.
    ///
    /// # Errors
    /// [`SessionError`]; nothing is left behind then.
    pub fn start(&self, basis: Option<String>, by: Option<String>) -> Result<String, SessionError> {
        let mut active = self.active();
        if active.is_some() {
            return Err(SessionError::Busy);
        }
        let basis = match basis.filter(|b| !b.trim().is_empty()) {
            Some(basis) => basis,
            None if self.context.settings.session.require_consent => return Err(SessionError::NoConsent),
            None => "not_required".into(),
        };
        let microphone = self.door.open()?;
        let now = self.context.now();
        let id = Uuid::new_v4().to_string();
        let path = self.context.spool_file(&id);
        let spool = SpoolWriter::create(&path, &now)?;
        let new = NewSession {
            id: id.clone(),
            started_at: now.wall,
            time_quality: time_quality(),
            consent: Consent { basis, by, at: now.wall.to_string() },
            status: Status::Recording,
        };
        if let Err(why) = self.context.store.begin_session(&new, now.wall) {
            std::fs::remove_file(&path)?;
            return Err(why.into());
        }
        let clock = self.context.clock.clone();
        let recording = Recording::begin(self.door.clone(), Some(microphone), spool, clock, None);
        info!(session_id = id, "Recording.");
        *active = Some(Active { session: id.clone(), recording });
        Ok(id)
    }

    /// Ends the session being recorded; `session` names it if the caller means a particular one. Blocks until the
    /// last samples are on the disk.
    ///
    /// # Errors
    /// [`SessionError::NotRecording`], or what the store says.
    pub fn stop(&self, session: Option<&str>) -> Result<String, SessionError> {
        let mut active = self.active();
        let Some(Active { session, recording }) = active.take_if(|a| session.is_none_or(|s| s == a.session)) else {
            return Err(SessionError::NotRecording);
        };
        recording.end(PATIENCE);
        let samples = SpoolReader::open(&self.context.spool_file(&session))?.refresh()?;
        let now = self.context.now().wall;
        self.context.store.end_session(&session, samples, now, now)?;
        self.context.settled.notify_waiters();
        info!(session_id = session, seconds = crate::audio::seconds(samples), "Recording ended.");
        Ok(session)
    }

    /// Puts what was gathered on the disk and leaves the session to the next start, which goes on with it.
    pub fn suspend(&self) {
        if let Some(active) = self.active().take() {
            active.recording.end(PATIENCE);
        }
    }

    /// After a start: goes on with the session that was being recorded, if it is not too long ago, and ends every
    /// other that still says so.
    ///
    /// # Errors
    /// What the store or the disk says.
    pub fn take_up(&self) -> Result<(), SessionError> {
        for session in self.context.store.sessions_in(Status::Recording)? {
            self.take_up_one(&session)?;
        }
        Ok(())
    }

    fn take_up_one(&self, session: &SessionRow) -> Result<(), SessionError> {
        let now = self.context.now();
        let path = self.context.spool_file(&session.id);
        let (spool, left) = if path.exists() {
            SpoolWriter::reopen(&path, &now)?
        } else {
            SpoolWriter::create(&path, &now).map(|spool| (spool, crate::spool::Left { samples: 0, at: None }))?
        };
        let since = left.at.unwrap_or_else(|| now.clone());
        let down = now.since(&since);
        let limit = Duration::from_secs_f64(self.context.settings.capture.resume_within);
        let mut active = self.active();
        if down.duration() > limit || active.is_some() {
            warn!(
                session_id = session.id,
                seconds = down.duration().as_secs_f64(),
                "Away too long: the session ends where it stopped."
            );
            self.context.store.end_session(&session.id, left.samples, since.wall, now.wall)?;
            return Ok(());
        }
        let cause = match down {
            Elapsed::Counted(_) => GapCause::Restart,
            Elapsed::Rebooted(_) => GapCause::PowerLoss,
        };
        info!(session_id = session.id, seconds = down.duration().as_secs_f64(), "Going on with the session.");
        let interrupted = Some(Interruption { since, cause });
        let recording = Recording::begin(self.door.clone(), None, spool, self.context.clock.clone(), interrupted);
        *active = Some(Active { session: session.id.clone(), recording });
        Ok(())
    }
}
