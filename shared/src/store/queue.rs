//! What is not yet, or never will be, the clinic's: listed, tried again, dropped; and the ledger that counts it all.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::audit::{Action, By, tell};
use super::sessions::{SpeakerHint, event};
use super::{Store, StoreError};
use crate::clock::WallTime;
use crate::record::Status;
use crate::task::Task;
use crate::wire::EventKind;

/// Where a session stands on its way to the clinic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Being recorded or paused.
    Recording,
    /// To process.
    Queued,
    /// Its breaker lets nothing through.
    Postponed,
    /// It failed: kept, and a person or the night tries it again.
    DeadLetter,
    /// The clinic refused it, or its parcel is damaged: a person must look.
    Refused,
    /// Done or failed, and the clinic has not said that it has it.
    Undelivered,
    /// The clinic has it, without speakers; while there is audio they can still be told apart.
    Undiarized,
}

/// One session of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueItem {
    /// UUID.
    pub session_id: String,
    /// Where it stands.
    pub place: Place,
    /// `recording`, `queued`, …
    pub status: String,
    /// Its last revision, or the one it will have.
    pub revision: u32,
    /// When it was begun, RFC 3339 UTC.
    pub started_at: String,
    /// Since when it stands so, RFC 3339 UTC.
    pub since: String,
    /// A constant sentence per cause.
    pub error_message: Option<String>,
    /// How often it was tried again after it was concluded.
    pub replays: u32,
    /// Whether its audio still exists.
    pub audio_kept: bool,
    /// `pending`, `acknowledged` or `refused`.
    pub delivery: Option<String>,
    /// Why the clinic refused it.
    pub reason: Option<String>,
}

/// Why a session cannot be tried again or dropped.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The store failed, or has no such session.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is being recorded.
    #[error("It is being recorded: stop it first")]
    Recording,
    /// It is on its way.
    #[error("It is being processed already")]
    Underway,
    /// Nothing of it failed.
    #[error("Nothing of it failed: there is nothing to try again")]
    Nothing,
    /// It cannot be made again.
    #[error("Its audio no longer exists")]
    NoAudio,
    /// It is a good record.
    #[error("It is done; it waits for the clinic and is not dropped")]
    Done,
    /// It was dropped.
    #[error("It was dropped")]
    Dropped,
    /// Consent to it was withdrawn.
    #[error("Consent to it was withdrawn: nothing of it is left")]
    Withdrawn,
    /// It was kept as long as the site wants.
    #[error(
        "Its time was over, or its room was needed: what could be told of it is gone, and the clinic has its record"
    )]
    Expired,
    /// Its speakers were never told apart.
    #[error("Its speakers were not told apart before: there are no voices to compare again")]
    NoVoices,
}

impl From<rusqlite::Error> for QueueError {
    fn from(why: rusqlite::Error) -> Self {
        Self::Store(why.into())
    }
}

/// What dropping a session means for whoever works on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// It was a dead letter: its audio is to be destroyed.
    DeadLetter,
    /// It was to be processed: what was under way is to be stopped; it will be concluded as failed.
    Queued,
}

/// A term of the ledger. Each session has one: the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerTerm {
    /// Consent was withdrawn.
    Withdrawn,
    /// It was kept here as long as the site wants; the clinic has its record.
    Expired,
    /// A person dropped it.
    Dropped,
    /// It failed, or the clinic refused it.
    DeadLettered,
    /// The clinic has it.
    Acknowledged,
    /// Done, and not yet acknowledged.
    Transcribed,
    /// To process.
    Queued,
    /// Being recorded.
    Recording,
}

/// How many sessions and samples stand under one term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Sessions.
    pub sessions: u64,
    /// Samples at 16 kHz.
    pub samples: u64,
}

/// Everything that was ever recorded, by what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// All sessions.
    pub recorded: Held,
    /// By term.
    pub terms: std::collections::BTreeMap<LedgerTerm, Held>,
}

impl Ledger {
    /// Whether the terms add up to everything.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.sum() == self.recorded
    }

    /// What all terms hold together.
    #[must_use]
    pub fn sum(&self) -> Held {
        self.terms.values().fold(Held::default(), |sum, held| Held {
            sessions: sum.sessions + held.sessions,
            samples: sum.samples + held.samples,
        })
    }
}

const PLACE: &str = "case
    when s.status in ('recording', 'paused') then 'recording'
    when s.status = 'postponed' then 'postponed'
    when s.status in ('queued', 'processing') then 'queued'
    when s.expired_at is not null then null
    when o.state = 'refused' then 'refused'
    when s.status = 'failed' and s.dropped_at is null then 'dead_letter'
    when o.state = 'pending' then 'undelivered'
    when s.status = 'done' and s.diarization_status = 'failed' and s.audio = 'kept' then 'undiarized'
    end";

pub(super) const TERM: &str = "case
    when s.status = 'withdrawn' then 'withdrawn'
    when s.expired_at is not null and s.status in ('done', 'failed') then 'expired'
    when s.dropped_at is not null and s.status = 'failed' then 'dropped'
    when s.status = 'failed' or (s.status = 'done' and o.state = 'refused') then 'dead_lettered'
    when s.status = 'done' and o.state = 'acknowledged' then 'acknowledged'
    when s.status = 'done' then 'transcribed'
    when s.status in ('queued', 'processing', 'postponed') then 'queued'
    when s.status in ('recording', 'paused') then 'recording'
    end";

pub(super) const WITH_OUTBOX: &str = "sessions s left join outbox o on o.session = s.id and o.revision = s.revision";

impl Store {
    /// Every session that is not, or not well, at the clinic: the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn queue_items(&self, limit: u32) -> Result<Vec<QueueItem>, StoreError> {
        let sql = format!(
            "select s.id, {PLACE} as place, s.status, s.revision, s.started_at, s.updated_at, s.error_message,
               s.replays, s.audio, o.state, o.reason
             from {WITH_OUTBOX} where place is not null order by s.created_at, s.rowid limit ?1"
        );
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement.query_map([limit], |row| Ok((item(row)?, row.get::<_, String>(1)?)))?;
        let items = rows.collect::<Result<Vec<_>, _>>()?;
        items.into_iter().map(|(item, place)| Ok(QueueItem { place: super::named(place)?, ..item })).collect()
    }

    /// Puts what failed or was refused of a concluded session to work again. It keeps its revision until its outcome is
    /// another. `diarize` also asks for speakers where none were tried for.
    ///
    /// # Errors
    /// [`QueueError`]; nothing is changed then.
    pub fn retry(&self, session: &str, diarize: bool, by: impl Into<By>) -> Result<(), QueueError> {
        let by @ By { at: now, .. } = by.into();
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let standing = standing(&transaction, session)?;
        standing.may_be_done_again()?;
        if diarize && standing.audio_kept {
            transaction.execute(
                "insert or ignore into work (session, number, task)
                 select session, number, ?2 from work where session = ?1 and task = ?3",
                params![session, Task::Diarization.name(), Task::Transcription.name()],
            )?;
        }
        let unfinished: bool = transaction.query_row(
            "select exists (select 1 from work where session = ?1 and state in ('failed', 'refused', 'pending'))",
            [session],
            |row| row.get(0),
        )?;
        if unfinished && standing.audio_kept {
            self.content_is_there(&transaction, session)?;
            transaction.execute(
                "update work set state = 'pending', claims = 0, cause = null
                 where session = ?1 and state in ('failed', 'refused')",
                [session],
            )?;
            transaction.execute(
                "update sessions set status = 'queued', replays = replays + 1, replayed_at = ?2, updated_at = ?2
                 where id = ?1",
                params![session, now.0],
            )?;
            event(&transaction, now, &EventKind::Session { session: session.into(), status: Status::Queued })?;
        } else {
            let resent = transaction.execute(
                "update outbox set state = 'pending', reason = null
                 where session = ?1 and state = 'refused' and reason is not 'damaged'",
                [session],
            )?;
            // A sealed parcel is sent again as it is; only what is made anew needs the key of what was said.
            if resent == 0 {
                self.content_is_there(&transaction, session)?;
            }
            // What was done is there still: the next revision is made of it, where a parcel, a record or the session's
            // own row was damaged.
            let remade = transaction.execute(
                "update sessions set status = 'queued', replays = replays + 1, replayed_at = ?2, updated_at = ?2
                 where id = ?1 and not ?3 and not ?4 and (status = 'failed'
                   or not exists (select 1 from records where session = ?1)
                   or exists (select 1 from outbox where session = ?1
                     and revision = sessions.revision and state = 'refused' and reason = 'damaged'))",
                params![session, now.0, resent > 0, unfinished],
            )?;
            match (resent + remade, unfinished) {
                (0, true) => return Err(QueueError::NoAudio),
                (0, false) => return Err(QueueError::Nothing),
                _ => {}
            }
        }
        tell(&transaction, by, Action::SessionRetried, session)?;
        transaction.commit()?;
        Ok(())
    }

    /// Has the speakers of a session told apart once more, from the voices that are kept and without its audio; `speakers`
    /// is how many there are, where somebody says so now. Another outcome is the next revision.
    ///
    /// # Errors
    /// [`QueueError`]; nothing is changed then.
    pub fn relabel(&self, session: &str, speakers: Option<SpeakerHint>, by: impl Into<By>) -> Result<(), QueueError> {
        let by @ By { at: now, .. } = by.into();
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        standing(&transaction, session)?.may_be_done_again()?;
        self.content_is_there(&transaction, session)?;
        let is_diarized =
            "select exists (select 1 from sessions where id = ?1 and status = 'done' and diarization_status = 'ok')";
        if !transaction.query_row(is_diarized, [session], |row| row.get::<_, bool>(0))? {
            return Err(QueueError::NoVoices);
        }
        if let Some(hint) = speakers {
            transaction.execute(
                "update sessions set speakers_at_least = ?2, speakers_at_most = ?3 where id = ?1",
                params![session, hint.at_least, hint.at_most],
            )?;
        }
        transaction
            .execute("update sessions set status = 'queued', updated_at = ?2 where id = ?1", params![session, now.0])?;
        event(&transaction, now, &EventKind::Session { session: session.into(), status: Status::Queued })?;
        tell(&transaction, by, Action::SessionRelabelled, session)?;
        transaction.commit()?;
        Ok(())
    }

    /// Refuses a session of which nothing could be kept. Who has no keys leaves that to who does the work.
    fn content_is_there(&self, connection: &Connection, session: &str) -> Result<(), StoreError> {
        match self.content_key(session) {
            Err(StoreError::NoKeys) => Ok(()),
            Err(why) => Err(why),
            Ok(_) => {
                // It may have been lost, and be back.
                connection.execute("update sessions set content = 'sealed' where id = ?1", [session])?;
                Ok(())
            }
        }
    }

    /// Gives a session up for good. `cause` becomes that of the rows that were still to do.
    ///
    /// # Errors
    /// [`QueueError`]; nothing is changed then.
    pub fn drop_session(
        &self,
        session: &str,
        cause: impl Fn(Task) -> Result<String, serde_json::Error>,
        by: impl Into<By>,
    ) -> Result<Dropped, QueueError> {
        let by @ By { at: now, .. } = by.into();
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let standing = standing(&transaction, session)?;
        let dropped = match (standing.status.as_str(), standing.delivery.as_deref()) {
            ("withdrawn", _) => return Err(QueueError::Withdrawn),
            ("recording" | "paused", _) => return Err(QueueError::Recording),
            (_, _) if standing.expired => return Err(QueueError::Expired),
            ("queued" | "processing" | "postponed", _) => Dropped::Queued,
            ("failed", _) | (_, Some("refused")) => Dropped::DeadLetter,
            _ => return Err(QueueError::Done),
        };
        if dropped == Dropped::Queued {
            for task in Task::ALL {
                transaction.execute(
                    "update work set state = 'failed', cause = ?3
                     where session = ?1 and task = ?2 and state in ('pending', 'running', 'refused')",
                    params![session, task.name(), cause(task).map_err(StoreError::from)?],
                )?;
            }
            transaction.execute("update sessions set status = 'queued' where id = ?1", [session])?;
        }
        transaction
            .execute("update sessions set dropped_at = ?2, updated_at = ?2 where id = ?1", params![session, now.0])?;
        tell(&transaction, by, Action::SessionDropped, session)?;
        transaction.commit()?;
        Ok(dropped)
    }

    /// Sessions that may be tried again by themselves: failed, or without speakers, with audio, at most `times` times
    /// and not again within `pause` milliseconds. Audio that is no audio is left out: it will not become any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn to_replay(&self, times: u32, pause_ms: i64, now: WallTime) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select id from sessions where audio = 'kept' and dropped_at is null and expired_at is null and replays < ?1
               and content <> 'lost'
               and (status = 'failed' or (status = 'done' and diarization_status = 'failed'))
               and error_message is not 'The audio is invalid'
               and (replayed_at is null or replayed_at > ?3 or replayed_at < ?3 - ?2)
             order by created_at, rowid limit 100",
        )?;
        Ok(statement.query_map(params![times, pause_ms, now.0], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// Dropped dead letters whose audio still exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn dropped_with_audio(&self) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select id from sessions where audio = 'kept' and dropped_at is not null and status in ('failed', 'done')",
        )?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// Counts everything that was ever recorded, by what became of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn ledger(&self) -> Result<Ledger, StoreError> {
        ledger_of(&*self.lock().transaction()?)
    }
}

/// Counted as of one moment, if in a transaction: another process may be beginning a session.
pub(super) fn ledger_of(connection: &Connection) -> Result<Ledger, StoreError> {
    let held = |row: &rusqlite::Row<'_>, at: usize| -> rusqlite::Result<Held> {
        Ok(Held { sessions: row.get::<_, i64>(at)?.unsigned_abs(), samples: row.get::<_, i64>(at + 1)?.unsigned_abs() })
    };
    let recorded =
        connection.query_row("select count(*), coalesce(sum(samples), 0) from sessions", [], |row| held(row, 0))?;
    let sql = format!("select {TERM} as term, count(*), sum(s.samples) from {WITH_OUTBOX} group by term");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, Option<String>>(0)?, held(row, 1)?)))?;
    let mut terms = std::collections::BTreeMap::new();
    for row in rows {
        // A session without a term is missing from the sum, which then does not add up, as it should not.
        if let (Some(term), held) = row? {
            terms.insert(super::named(term)?, held);
        }
    }
    Ok(Ledger { recorded, terms })
}

struct Standing {
    status: String,
    audio_kept: bool,
    dropped: bool,
    expired: bool,
    delivery: Option<String>,
}

impl Standing {
    fn may_be_done_again(&self) -> Result<(), QueueError> {
        match (self.status.as_str(), self.dropped) {
            ("withdrawn", _) => Err(QueueError::Withdrawn),
            ("recording" | "paused", _) => Err(QueueError::Recording),
            ("queued" | "processing" | "postponed", _) => Err(QueueError::Underway),
            (_, _) if self.expired => Err(QueueError::Expired),
            (_, true) => Err(QueueError::Dropped),
            (_, false) => Ok(()),
        }
    }
}

fn standing(connection: &Connection, session: &str) -> Result<Standing, QueueError> {
    let sql = format!(
        "select s.status, s.audio = 'kept', s.dropped_at is not null, o.state, s.expired_at is not null
         from {WITH_OUTBOX} where s.id = ?1"
    );
    let found = connection
        .query_row(&sql, [session], |row| {
            Ok(Standing {
                status: row.get(0)?,
                audio_kept: row.get(1)?,
                dropped: row.get(2)?,
                delivery: row.get(3)?,
                expired: row.get(4)?,
            })
        })
        .optional()?;
    found.ok_or(QueueError::Store(StoreError::NoSession))
}

fn item(row: &rusqlite::Row<'_>) -> rusqlite::Result<QueueItem> {
    Ok(QueueItem {
        session_id: row.get(0)?,
        place: Place::Queued,
        status: row.get(2)?,
        revision: row.get(3)?,
        started_at: WallTime(row.get(4)?).to_string(),
        since: WallTime(row.get(5)?).to_string(),
        error_message: row.get(6)?,
        replays: row.get(7)?,
        audio_kept: row.get::<_, String>(8)? == "kept",
        delivery: row.get(9)?,
        reason: row.get(10)?,
    })
}
