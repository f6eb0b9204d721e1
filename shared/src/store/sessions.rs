//! Sessions and their records.

use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::Value;

use super::audit::{Action, Actor, By, tell};
use super::content::record_place;
use super::{Store, StoreError, named};
use crate::breaker::Service;
use crate::clock::WallTime;
use crate::error::ProcessingError;
use crate::keys::Purpose;
use crate::record::{Consent, DiarizationStatus, Status, TimeQuality};
use crate::wire::{EventKind, QueueHealth};

/// A session about to begin.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// UUID.
    pub id: String,
    /// When.
    pub started_at: WallTime,
    /// How far `started_at` can be trusted.
    pub time_quality: TimeQuality,
    /// Why it may be recorded.
    pub consent: Consent,
    /// `Recording`, or `Queued` for an import.
    pub status: Status,
    /// How many speakers it has, as far as somebody said.
    pub speakers: SpeakerHint,
}

/// How many speakers a session has, as far as people know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpeakerHint {
    /// From 1.
    pub at_least: Option<u32>,
    /// Not less than at least.
    pub at_most: Option<u32>,
}

impl SpeakerHint {
    /// The most speakers that are told apart.
    pub const MOST: u32 = 20;

    /// Whether it can be true.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let (least, most) = (self.at_least.unwrap_or(1), self.at_most.unwrap_or(Self::MOST));
        1 <= least && least <= most && most <= Self::MOST
    }
}

impl std::str::FromStr for SpeakerHint {
    type Err = String;

    /// Reads `2`, `2-3`, `2-` (at least) or `-3` (at most).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| if part.is_empty() { Some(None) } else { part.parse().ok().map(Some) };
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let read = number(least).zip(number(most)).map(|(at_least, at_most)| Self { at_least, at_most });
        read.filter(|hint| *hint != Self::default() && hint.is_possible()).ok_or_else(|| {
            format!(
                "{text:?} is no number of speakers: write 2, 2-3, 2- (at least) or -3 (at most), up to {}",
                Self::MOST
            )
        })
    }
}

/// A session as it stands.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// UUID.
    pub id: String,
    /// The revision its next record will have, or its last one has.
    pub revision: u32,
    /// Where it stands.
    pub status: Status,
    /// Once decided.
    pub diarization_status: Option<DiarizationStatus>,
    /// A constant sentence per cause.
    pub error_message: Option<String>,
    /// The cause in full.
    pub error: Option<ProcessingError>,
    /// Why it may be recorded.
    pub consent: Consent,
    /// How far its dates can be trusted.
    pub time_quality: TimeQuality,
    /// When.
    pub started_at: WallTime,
    /// When, if it has.
    pub ended_at: Option<WallTime>,
    /// Its length so far, gaps included, at 16 kHz.
    pub samples: u64,
    /// Time the engines were at work for it.
    pub engine_seconds: f64,
    /// Whether its audio still exists.
    pub audio_kept: bool,
    /// Whether a person has dropped it.
    pub dropped: bool,
    /// Whether nothing more can come of it: it was kept as long as the site wants.
    pub expired: bool,
    /// How often it was tried again after it was concluded.
    pub replays: u32,
    /// How many speakers it has, as far as somebody said.
    pub speakers: SpeakerHint,
}

/// How a session ends, to be stored in one transaction.
#[derive(Clone)]
pub struct Finish<'a> {
    /// UUID.
    pub session: &'a str,
    /// `Done` or `Failed`.
    pub status: Status,
    /// Decided.
    pub diarization_status: DiarizationStatus,
    /// Why it failed, or lost its speakers.
    pub error: Option<&'a ProcessingError>,
    /// The record, JSON.
    pub record: &'a [u8],
    /// Its revision.
    pub revision: u32,
    /// The sealed parcel and its sha256, if this box has a clinic.
    pub parcel: Option<(&'a [u8], &'a str)>,
}

/// How often a message was seen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FailureCount {
    /// How many sessions.
    pub failed_count: u64,
    /// A constant sentence per cause.
    pub error_message: Option<String>,
}

const FAILED_SINCE: &str = "select count(*) as failed_count, error_message from sessions
    where status = 'failed' and updated_at > ?1 and ?2 = '%' group by error_message order by failed_count desc, error_message";
const LIKE_SINCE: &str = "select count(*) as failed_count, error_message from sessions
    where error_message like ?2 and created_at > ?1 group by error_message order by failed_count desc, error_message";

pub(super) const COLUMNS: &str = "id, revision, status, diarization_status, error_message, error, consent, time_quality, \
                       started_at, ended_at, samples, engine_seconds, audio, dropped_at, replays, \
                       speakers_at_least, speakers_at_most, expired_at";

type Raw = (String, Option<String>, Option<String>, String, String, SessionRow);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    let placeholder = SessionRow {
        id: row.get(0)?,
        revision: row.get(1)?,
        status: Status::Queued,
        diarization_status: None,
        error_message: row.get(4)?,
        error: None,
        consent: Consent { basis: String::new(), by: None, at: String::new() },
        time_quality: TimeQuality::Unsynchronized,
        started_at: WallTime(row.get(8)?),
        ended_at: row.get::<_, Option<i64>>(9)?.map(WallTime),
        samples: row.get::<_, i64>(10)?.try_into().unwrap_or(0),
        engine_seconds: row.get(11)?,
        audio_kept: row.get::<_, String>(12)? == "kept",
        dropped: row.get::<_, Option<i64>>(13)?.is_some(),
        expired: row.get::<_, Option<i64>>(17)?.is_some(),
        replays: row.get(14)?,
        speakers: SpeakerHint { at_least: row.get(15)?, at_most: row.get(16)? },
    };
    Ok((row.get(2)?, row.get(3)?, row.get(5)?, row.get(6)?, row.get(7)?, placeholder))
}

fn typed((status, diarization, error, consent, quality, row): Raw) -> Result<SessionRow, StoreError> {
    Ok(SessionRow {
        status: named(status)?,
        diarization_status: diarization.map(named).transpose()?,
        error: error.map(|e| serde_json::from_str(&e)).transpose()?,
        consent: serde_json::from_str(&consent)?,
        time_quality: named(quality)?,
        ..row
    })
}

pub(super) fn event(connection: &rusqlite::Connection, at: WallTime, what: &EventKind) -> Result<(), StoreError> {
    let sent = match what {
        EventKind::Breaker { service: Service::Transcription | Service::Diarization, .. }
        | EventKind::Session { .. } => 0,
        // Release 1 knows neither: it must not stumble over what it cannot read.
        EventKind::Breaker { service: Service::Sync, .. } => 2,
    };
    connection.execute(
        "insert into events (at, event, sent) values (?1, ?2, ?3)",
        params![at.0, serde_json::to_string(what)?, sent],
    )?;
    Ok(())
}

fn insert(connection: &rusqlite::Connection, new: &NewSession, now: WallTime) -> Result<(), StoreError> {
    connection.execute(
        "insert into sessions (id, status, consent, time_quality, started_at, created_at, updated_at,
           speakers_at_least, speakers_at_most, content)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, 'sealed')",
        params![
            new.id,
            new.status.name(),
            serde_json::to_string(&new.consent)?,
            quality_name(new.time_quality)?,
            new.started_at.0,
            now.0,
            new.speakers.at_least,
            new.speakers.at_most
        ],
    )?;
    event(connection, now, &EventKind::Session { session: new.id.clone(), status: new.status })
}

fn quality_name(quality: TimeQuality) -> Result<String, StoreError> {
    match serde_json::to_value(quality)? {
        Value::String(name) => Ok(name),
        other => Ok(other.to_string()),
    }
}

impl Store {
    /// Begins a session, with a key for what will be said in it.
    ///
    /// # Errors
    /// [`StoreError`]; there is no such session then.
    pub fn begin_session(&self, new: &NewSession, now: WallTime) -> Result<(), StoreError> {
        self.keys()?.make(&new.id, Purpose::Content, now)?;
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        insert(&transaction, new, now)?;
        let by = By { actor: Actor::of_role(new.consent.by.as_deref()), at: now };
        tell(&transaction, by, Action::SessionStarted, &new.id)?;
        transaction.commit()?;
        Ok(())
    }

    /// One session.
    ///
    /// # Errors
    /// [`StoreError::NoSession`] where there is none.
    pub fn session(&self, id: &str) -> Result<SessionRow, StoreError> {
        let sql = format!("select {COLUMNS} from sessions where id = ?1");
        let found = self.lock().query_row(&sql, [id], raw).optional()?;
        typed(found.ok_or(StoreError::NoSession)?)
    }

    /// The newest sessions first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sessions(&self, limit: u32) -> Result<Vec<SessionRow>, StoreError> {
        let sql = format!("select {COLUMNS} from sessions order by created_at desc, rowid desc limit ?1");
        self.select(&sql, params![limit])
    }

    /// Whether a session is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_session(&self, id: &str) -> Result<bool, StoreError> {
        let sql = "select exists (select 1 from sessions where id = ?1)";
        Ok(self.lock().query_row(sql, [id], |row| row.get(0))?)
    }

    /// All sessions in `status`, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sessions_in(&self, status: Status) -> Result<Vec<SessionRow>, StoreError> {
        let sql = format!("select {COLUMNS} from sessions where status = ?1 order by created_at, rowid");
        self.select(&sql, params![status.name()])
    }

    /// A damaged row keeps no other back: it is left out here, and made readable again by `mend`.
    pub(super) fn select(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<SessionRow>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map(parameters, raw)?.collect::<Result<Vec<_>, _>>()?;
        let readable = |row: Raw| {
            let id = row.5.id.clone();
            typed(row).inspect_err(|why| tracing::error!(session_id = id, error = %crate::error::report(why), "A stored session cannot be read.")).ok()
        };
        Ok(rows.into_iter().filter_map(readable).collect())
    }

    /// Sessions that failed since `since`, by their message, the most frequent first: the guide's monitoring query.
    /// `like`, if given, is a pattern the message must fit, as in the guide's second query; that one goes by when a
    /// session was begun.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn failures(&self, since: WallTime, like: Option<&str>) -> Result<Vec<FailureCount>, StoreError> {
        let connection = self.lock();
        let (sql, pattern) = match like {
            None => (FAILED_SINCE, "%"),
            Some(pattern) => (LIKE_SINCE, pattern),
        };
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![since.0, pattern], |row| {
            Ok(FailureCount { failed_count: row.get::<_, i64>(0)?.unsigned_abs(), error_message: row.get(1)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Moves a session to another status, with an event if that is news. One that was withdrawn stays so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_status(&self, id: &str, status: Status, now: WallTime) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let changed = transaction.execute(
            "update sessions set status = ?2, updated_at = ?3 where id = ?1 and status not in (?2, 'withdrawn')",
            params![id, status.name(), now.0],
        )?;
        if changed > 0 {
            event(&transaction, now, &EventKind::Session { session: id.into(), status })?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// A session waits for the breaker that refused its rows, if it still has any such: somebody may have dropped it since
    /// that was looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn postpone(&self, id: &str, now: WallTime) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let changed = transaction.execute(
            "update sessions set status = 'postponed', updated_at = ?2
             where id = ?1 and status in ('queued', 'processing')
               and exists (select 1 from work where session = ?1 and state = 'refused')",
            params![id, now.0],
        )?;
        if changed > 0 {
            event(&transaction, now, &EventKind::Session { session: id.into(), status: Status::Postponed })?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// A session that is being recorded goes off the record, or back onto it. Says whether that is news.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_off_record(&self, id: &str, is_off_record: bool, by: impl Into<By>) -> Result<bool, StoreError> {
        let by @ By { at: now, .. } = by.into();
        let (from, status, action) = match is_off_record {
            true => (Status::Recording, Status::Paused, Action::SessionPaused),
            false => (Status::Paused, Status::Recording, Action::SessionResumed),
        };
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let changed = transaction.execute(
            "update sessions set status = ?2, updated_at = ?3 where id = ?1 and status = ?4",
            params![id, status.name(), now.0, from.name()],
        )?;
        if changed > 0 {
            event(&transaction, now, &EventKind::Session { session: id.into(), status })?;
            tell(&transaction, by, action, id)?;
            transaction.commit()?;
        }
        Ok(changed > 0)
    }

    /// The recording has ended: its length is final, and work may finish. Of one that is not being recorded, as one that was
    /// withdrawn, only the length is told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn end_session(&self, id: &str, samples: u64, ended_at: WallTime, by: impl Into<By>) -> Result<(), StoreError> {
        let by @ By { at: now, .. } = by.into();
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let samples = i64::try_from(samples).unwrap_or(i64::MAX);
        transaction.execute("update sessions set samples = ?2 where id = ?1", params![id, samples])?;
        let ended = transaction.execute(
            "update sessions set ended_at = ?2, updated_at = ?3, status = ?4
             where id = ?1 and status in ('recording', 'paused')",
            params![id, ended_at.0, now.0, Status::Queued.name()],
        )?;
        if ended > 0 {
            event(&transaction, now, &EventKind::Session { session: id.into(), status: Status::Queued })?;
            tell(&transaction, by, Action::SessionEnded, id)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// A session began at `started_at`, by a clock that follows a time server; its consent was noted then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn date(&self, id: &str, started_at: WallTime) -> Result<(), StoreError> {
        self.lock().execute(
            "update sessions set created_at = created_at + (?2 - started_at), started_at = ?2, time_quality = ?3,
               consent = case when json_valid(consent) then json_set(consent, '$.at', ?4) else consent end
             where id = ?1",
            params![id, started_at.0, quality_name(TimeQuality::Synchronized)?, started_at.to_string()],
        )?;
        Ok(())
    }

    /// Begins a session whose recording has ended already, of this length: one that was imported. `failed`, if given,
    /// is why there is no sound in it; such a session keeps no audio.
    ///
    /// # Errors
    /// [`StoreError`]; there is no such session then.
    pub fn import_session(
        &self,
        new: &NewSession,
        samples: u64,
        failed: Option<&impl serde::Serialize>,
        now: WallTime,
    ) -> Result<(), StoreError> {
        self.keys()?.make(&new.id, Purpose::Content, now)?;
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        insert(&transaction, new, now)?;
        transaction.execute(
            "update sessions set samples = ?2, ended_at = ?3, audio = ?4 where id = ?1",
            params![
                new.id,
                i64::try_from(samples).unwrap_or(i64::MAX),
                now.0,
                if failed.is_some() { "destroyed" } else { "kept" }
            ],
        )?;
        if let Some(cause) = failed {
            super::work::insert_failed(&transaction, &new.id, cause)?;
        }
        tell(&transaction, By::local(now), Action::Imported, &new.id)?;
        transaction.commit()?;
        Ok(())
    }

    /// Adds to the time the engines were at work for a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_engine_seconds(&self, id: &str, seconds: f64) -> Result<(), StoreError> {
        self.lock()
            .execute("update sessions set engine_seconds = engine_seconds + ?2 where id = ?1", params![id, seconds])?;
        Ok(())
    }

    /// Stores a session's outcome, its record, sealed, and its parcel together, or nothing: of a session that was withdrawn
    /// meanwhile there is nothing to store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn finish(&self, finish: &Finish<'_>, now: WallTime) -> Result<(), StoreError> {
        let record = self.seal(finish.session, &record_place(finish.revision), finish.record)?;
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let error = finish.error.map(serde_json::to_string).transpose()?;
        let finished = transaction.execute(
            "update sessions set status = ?2, diarization_status = ?3, error_message = ?4, error_type = ?5, error = ?6,
             revision = ?7, updated_at = ?8, concluded_at = coalesce(concluded_at, ?8)
             where id = ?1 and status <> 'withdrawn'",
            params![
                finish.session,
                finish.status.name(),
                finish.diarization_status.name(),
                finish.error.map(|e| &e.message),
                finish.error.map(|e| &e.error_type),
                error,
                finish.revision,
                now.0
            ],
        )?;
        if finished == 0 {
            return Ok(());
        }
        transaction.execute(
            "insert into records (session, revision, record, created_at) values (?1, ?2, ?3, ?4)",
            params![finish.session, finish.revision, record, now.0],
        )?;
        if let Some((parcel, sha256)) = finish.parcel {
            transaction.execute(
                "insert into outbox (session, revision, sha256, parcel, created_at) values (?1, ?2, ?3, ?4, ?5)",
                params![finish.session, finish.revision, sha256, parcel, now.0],
            )?;
        }
        event(&transaction, now, &EventKind::Session { session: finish.session.into(), status: finish.status })?;
        transaction.commit()?;
        Ok(())
    }

    /// The revision the next record of a session has: one more than its last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn next_revision(&self, session: &str) -> Result<u32, StoreError> {
        let sql = "select coalesce(max(revision), 0) + 1 from (
             select revision from records where session = ?1 union all select revision from outbox where session = ?1)";
        Ok(self.lock().query_row(sql, [session], |row| row.get(0))?)
    }

    /// A session that was tried again ended as it had ended before: it stands as it stood, and there is no news.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unchanged(&self, session: &str, status: Status, now: WallTime) -> Result<(), StoreError> {
        self.set_status(session, status, now)
    }

    /// The newest record of a session, JSON, if it has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn record(&self, session: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "select revision, record from records where session = ?1 order by revision desc limit 1";
        let found = self.lock().query_row(sql, [session], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        found.map(|(revision, stored)| self.open_sealed(session, &record_place(revision), stored)).transpose()
    }

    /// Sessions whose audio the clinic's acknowledgement has made superfluous: their diarized record is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audio_to_destroy(&self) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select s.id from sessions s join outbox o on o.session = s.id and o.revision = s.revision
             where s.audio = 'kept' and s.status = 'done' and s.diarization_status = 'ok' and o.state = 'acknowledged'",
        )?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// The audio of a session no longer exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audio_destroyed(&self, session: &str, by: impl Into<By>) -> Result<(), StoreError> {
        let by = by.into();
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let destroyed = transaction
            .execute("update sessions set audio = 'destroyed' where id = ?1 and audio <> 'destroyed'", [session])?;
        if destroyed > 0 {
            tell(&transaction, by, Action::AudioDestroyed, session)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Sessions by what is still to be done for them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn queue(&self) -> Result<QueueHealth, StoreError> {
        let sql = "select
            (select count(*) from sessions where status in ('recording', 'paused')),
            (select count(*) from sessions where status in ('queued', 'processing', 'postponed')),
            (select count(*) from outbox where state = 'pending'),
            (select count(*) from sessions where status = 'failed' and dropped_at is null and expired_at is null)
            + (select count(*) from outbox o join sessions s on s.id = o.session and s.revision = o.revision
               where o.state = 'refused' and s.expired_at is null and not (s.status = 'failed' and s.dropped_at is null))";
        let count = |row: &Row<'_>, at| row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0));
        Ok(self.lock().query_row(sql, [], |row| {
            Ok(QueueHealth {
                recording: count(row, 0)?,
                queued: count(row, 1)?,
                unacknowledged: count(row, 2)?,
                dead_lettered: count(row, 3)?,
            })
        })?)
    }
}
