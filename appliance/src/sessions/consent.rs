//! Consent while a session lasts and after: off the record, back onto it, and withdrawn.
//!
//! Off the record the recorder hears nothing from the moment it is asked, whether or not that can be stored; what was not
//! stored is soon. A withdrawal is stored first, and nothing is destroyed before: else a power cut could leave a session
//! that nobody knows is to be destroyed. Where it cannot be stored, a session that is being recorded stays off the record.

use std::sync::PoisonError;
use std::time::Duration;

use shared::error::report;
use shared::record::Status;
use shared::store::{Actor, By, StoreError};
use tracing::{error, info, warn};

use super::{PATIENCE, SessionError, Sessions, Slot};
use crate::capture::{Ending, Progress};
use crate::forget;

impl Sessions {
    /// Goes off the record: nothing is heard until [`Sessions::resume`]. `session` names the session if the caller means a
    /// particular one, `by` is the role of who asks. One that is off the record already stays so.
    ///
    /// # Errors
    /// [`SessionError::NotRecording`].
    pub fn pause(&self, session: Option<&str>, by: Option<&str>) -> Result<String, SessionError> {
        self.set_off_record(session, by, true)
    }

    /// Goes back onto the record.
    ///
    /// # Errors
    /// [`SessionError::NotRecording`].
    pub fn resume(&self, session: Option<&str>, by: Option<&str>) -> Result<String, SessionError> {
        self.set_off_record(session, by, false)
    }

    fn set_off_record(&self, session: Option<&str>, by: Option<&str>, is_off: bool) -> Result<String, SessionError> {
        let now = self.context.now();
        let session = match &mut *self.slot() {
            Slot::Recording { session: name, recording, off_record_since } if session.is_none_or(|s| s == name) => {
                recording.set_off_record(is_off);
                *off_record_since = is_off.then_some(off_record_since.unwrap_or(now.uptime));
                name.clone()
            }
            Slot::Idle | Slot::Starting | Slot::Recording { .. } | Slot::Stopping { .. } | Slot::Suspended => {
                return Err(SessionError::NotRecording);
            }
        };
        let stored = match self.recording() {
            Some((id, progress)) if id == session => self.store_off_record(&session, &progress, Actor::of_role(by)),
            Some(_) | None => Ok(()),
        };
        if let Err(why) = stored {
            warn!(session_id = session, error = %report(&why), "A pause, or its end, could not be stored; trying again.");
        }
        Ok(session)
    }

    /// Stores whether the session is off the record, as it is by then.
    pub(super) fn store_off_record(&self, session: &str, progress: &Progress, actor: Actor) -> Result<(), StoreError> {
        let _one_at_a_time = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_off = progress.is_off_record();
        let by = By { actor, at: self.context.now().wall };
        match self.context.store.set_off_record(session, is_off, by)? {
            false => {}
            true if is_off => info!(session_id = session, "Off the record."),
            true => info!(session_id = session, "On the record again."),
        }
        Ok(())
    }

    /// Ends a recording whose session a command withdrew past the daemon, as it was starting.
    pub(super) fn end_if_withdrawn(&self, session: &str) -> Result<(), StoreError> {
        if self.context.store.session(session)?.status != Status::Withdrawn {
            return Ok(());
        }
        if let Some((session, recording)) = self.take_out(Some(session)) {
            recording.set_off_record(true);
            recording.end(Ending::Final, PATIENCE);
            *self.slot() = Slot::Idle;
            warn!(session_id = session, "Consent was withdrawn; the recording is ended.");
        }
        Ok(())
    }

    /// Which session has lasted, or has been off the record, longer than a site allows, and which of both.
    pub(super) fn overdue(&self) -> Option<(String, &'static str)> {
        let limits = &self.context.settings.session;
        let uptime = self.context.now().uptime;
        match &*self.slot() {
            Slot::Recording { session, recording, off_record_since } => {
                let paused = off_record_since.map(|since| uptime.saturating_sub(since));
                let is_over = |span: Duration, limit: f64| span.as_secs_f64() > limit;
                let lasted = crate::audio::duration(recording.progress.samples());
                if paused.is_some_and(|paused| is_over(paused, limits.pause_at_most * 60.0)) {
                    Some((session.clone(), "it was off the record for as long as session.pause_at_most"))
                } else if is_over(lasted, limits.at_most * 3600.0) {
                    Some((session.clone(), "it has lasted as long as session.at_most"))
                } else {
                    None
                }
            }
            Slot::Idle | Slot::Starting | Slot::Stopping { .. } | Slot::Suspended => None,
        }
    }

    /// Consent is withdrawn: the session ends if it is being recorded, and everything that was said in it is destroyed.
    /// `session` None is the one being recorded. What cannot be destroyed now is as soon as it can be.
    ///
    /// # Errors
    /// [`SessionError::NotRecording`] where none is named and none is recorded; what the store says: then it is not
    /// withdrawn, and if it was being recorded it is off the record.
    pub fn withdraw(&self, session: Option<&str>, by: Option<&str>) -> Result<String, SessionError> {
        let recorded = self.set_off_record(session, by, true);
        let session = match (recorded, session) {
            (Ok(recorded), _) => recorded,
            (Err(SessionError::NotRecording), Some(named)) => named.to_owned(),
            (Err(why), _) => return Err(why),
        };
        let now = self.context.now().wall;
        let by = By { actor: Actor::of_role(by), at: now };
        let is_news = self.context.store.withdraw(&session, self.context.clinic.is_some(), by)?;
        if let Some((session, recording)) = self.take_out(Some(&session)) {
            let samples = recording.end(Ending::Final, PATIENCE);
            let told = samples.map(|samples| self.context.store.end_session(&session, samples, now, by));
            *self.slot() = Slot::Idle;
            if let Some(Err(why)) = told {
                error!(session_id = session, error = %report(&why), "The length of a withdrawn session could not be stored.");
            }
        }
        if is_news {
            info!(session_id = session, "Consent was withdrawn.");
        }
        for waiting in [&self.context.dropped, &self.context.work, &self.context.settled, &self.context.begun] {
            waiting.notify_waiters();
        }
        if let Err(why) = forget::whole_session(&self.context, &session) {
            error!(session_id = session, error = %report(&why), "Not everything of a session could be destroyed; trying again.");
        }
        Ok(session)
    }
}
