//! Sessions of which nothing may be left: consent was withdrawn, or they have been kept as long as the site wants.
//!
//!   begun: nobody works on it or sends it any more ─▶ keys destroyed, recording removed ─▶ erased: its rows are gone
//!     ─▶ cleaned: the write-ahead log, which had them, is empty      a withdrawal is owed to the clinic until it confirms
//!
//! Beginning is one transaction, so that no power cut forgets it; everything after can be repeated and is, until it is
//! done. What stays is that there was a session: its id, its dates, its length, for the ledger.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::audit::{Action, By, tell};
use super::sessions::event;
use super::{BUSY, Parcel, Store, StoreError, named};
use crate::clock::WallTime;
use crate::record::{Consent, Status};
use crate::seal::{Ack, AckResult, sha256};
use crate::wire::{EventKind, Withdrawal};

/// Why nothing of a session may be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Consent was withdrawn.
    Withdrawn,
    /// It was kept as long as the site wants.
    Expired,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }
}

/// Where a withdrawal stands at the clinic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtClinic {
    /// This box had no clinic when it was withdrawn.
    None,
    /// It has not confirmed yet.
    Owed,
    /// It has signed that nothing of it is left there.
    Confirmed,
    /// It will not do it; a person must look.
    Refused,
}

/// The tables that hold what was said, or what was made of it, with the column that names the session.
const TABLES: [(&str, &str); 5] =
    [("work", "session"), ("windows", "session"), ("records", "session"), ("outbox", "session"), ("quarantine", "key")];

/// A withdrawal travels as revision 0 of its session.
pub const WITHDRAWAL: u32 = 0;

fn begin(connection: &Connection, session: &str, why: Why, clinic: &str, now: WallTime) -> Result<(), StoreError> {
    connection.execute(
        "insert into erasures (session, why, begun_at, clinic) values (?1, ?2, ?3, ?4)
         on conflict (session) do update set why = ?2, begun_at = ?3, clinic = ?4, erased_at = null, cleaned_at = null",
        params![session, why.name(), now.0, clinic],
    )?;
    Ok(())
}

impl Store {
    /// Consent to a session is withdrawn. From here on nobody works on it, sends it or reads it; the rest is to be
    /// destroyed ([`Store::to_erase`]), here and, if `has_clinic`, there. Says whether that is news.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub fn withdraw(&self, session: &str, has_clinic: bool, by: impl Into<By>) -> Result<bool, StoreError> {
        let by @ By { at: now, .. } = by.into();
        // What it rested on may have been said in words, and by whom may be a name.
        let withdrawn = Consent { basis: Status::Withdrawn.name().into(), by: None, at: now.to_string() };
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = transaction.execute(
            "update sessions set status = 'withdrawn', ended_at = coalesce(ended_at, ?2), updated_at = ?2,
               error_message = null, error_type = null, error = null, speakers_at_least = null, speakers_at_most = null,
               consent = ?3
             where id = ?1 and status <> 'withdrawn'",
            params![session, now.0, serde_json::to_string(&withdrawn)?],
        )?;
        if changed == 0 {
            let is_known = "select exists (select 1 from sessions where id = ?1)";
            let is_known = transaction.query_row(is_known, [session], |row| row.get(0))?;
            // Whatever the clinic said, or if there was none: it may have put back a database from before.
            transaction.execute(
                "update erasures set clinic = 'owed' where session = ?1 and why = 'withdrawn' and ?2",
                params![session, has_clinic],
            )?;
            transaction.commit()?;
            return if is_known { Ok(false) } else { Err(StoreError::NoSession) };
        }
        // What is under way is no longer its worker's, and what was sealed for the clinic is not sent.
        transaction.execute(
            "update work set state = 'failed' where session = ?1 and state in ('pending', 'running', 'refused')",
            [session],
        )?;
        transaction.execute("delete from outbox where session = ?1", [session])?;
        begin(&transaction, session, Why::Withdrawn, if has_clinic { "owed" } else { "none" }, now)?;
        event(&transaction, now, &EventKind::Session { session: session.into(), status: Status::Withdrawn })?;
        tell(&transaction, by, Action::SessionWithdrawn, session)?;
        transaction.commit()?;
        Ok(true)
    }

    /// What is left of a session has been kept long enough: it is to be destroyed here; the clinic has it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub fn expire(&self, session: &str, now: WallTime) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let changed = transaction.execute(
            "update sessions set expired_at = coalesce(expired_at, ?2)
             where id = ?1 and status in ('done', 'failed')
               and not exists (select 1 from erasures where session = sessions.id)",
            params![session, now.0],
        )?;
        if changed > 0 {
            begin(&transaction, session, Why::Expired, "none", now)?;
            tell(&transaction, now.into(), Action::SessionExpired, session)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// The audio of a session that could not be told, or not told apart, has been kept long enough, and is destroyed. One
    /// that has no words cannot get any now: it has expired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audio_expired(&self, session: &str, now: WallTime) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let destroyed = transaction.execute(
            "update sessions set audio = 'destroyed', audio_expired_at = ?2,
               expired_at = case status when 'failed' then ?2 else expired_at end
             where id = ?1 and audio <> 'destroyed'",
            params![session, now.0],
        )?;
        if destroyed > 0 {
            tell(&transaction, now.into(), Action::AudioDestroyed, session)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// Sessions without speakers, or without words, whose last record the clinic acknowledged before `before`, or at all,
    /// and whose audio is still here, at most `limit`: those that have words first, then the oldest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audio_acknowledged(&self, before: Option<WallTime>, limit: u32) -> Result<Vec<String>, StoreError> {
        self.acknowledged("s.audio = 'kept'", before, limit)
    }

    /// Concluded sessions without audio whose last record the clinic acknowledged before `before`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn content_acknowledged(&self, before: WallTime, limit: u32) -> Result<Vec<String>, StoreError> {
        let is_here = "s.audio <> 'kept' and not exists (select 1 from erasures e where e.session = s.id)";
        self.acknowledged(is_here, Some(before), limit)
    }

    /// By the later of two clocks, the box's when the word came and the clinic's that gave it: one that was wrong then
    /// must not end anything early.
    fn acknowledged(&self, fits: &str, before: Option<WallTime>, limit: u32) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(&format!(
            "select s.id from sessions s
               join outbox o on o.session = s.id and o.revision = s.revision and o.state = 'acknowledged'
               join acks a on a.session = s.id and a.revision = s.revision
             where s.status in ('done', 'failed') and {fits} and (?1 is null or (a.received_at < ?1
               and case when json_valid(a.ack) then a.ack ->> 'stored_at' end < ?2))
             order by s.status, a.received_at limit ?3"
        ))?;
        let dates = (before.map(|before| before.0), before.map(|before| before.to_string()));
        let found = statement.query_map(params![dates.0, dates.1, limit], |row| row.get(0))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Sessions whose keys, recording and rows are still to be destroyed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn to_erase(&self) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let sql = "select session from erasures where erased_at is null order by begun_at, session";
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// Whether nothing of a session may be left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_to_be_gone(&self, session: &str) -> Result<bool, StoreError> {
        let sql = "select exists (select 1 from erasures where session = ?1)";
        Ok(self.lock().query_row(sql, [session], |row| row.get(0))?)
    }

    /// A session's keys are destroyed and its recording is removed; now its rows go, too.
    ///
    /// # Errors
    /// [`StoreError`]; it can be repeated.
    pub fn erase(&self, session: &str, now: WallTime) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for (table, column) in TABLES {
            transaction.execute(&format!("delete from {table} where {column} = ?1"), [session])?;
        }
        let had_audio = transaction
            .execute("update sessions set audio = 'destroyed' where id = ?1 and audio <> 'destroyed'", [session])?;
        if had_audio > 0 {
            tell(&transaction, now.into(), Action::AudioDestroyed, session)?;
        }
        let erased = transaction.execute(
            "update erasures set erased_at = ?2 where session = ?1 and erased_at is null",
            params![session, now.0],
        )?;
        if erased > 0 {
            tell(&transaction, now.into(), Action::ContentDestroyed, session)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Empties the write-ahead log if rows that are gone may still stand in it. Says whether none do any more: another
    /// process may be reading.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clean_up(&self, now: WallTime) -> Result<bool, StoreError> {
        let connection = self.lock();
        let owed = "select exists (select 1 from erasures where erased_at is not null and cleaned_at is null)";
        if !connection.query_row(owed, [], |row| row.get::<_, bool>(0))? {
            return Ok(true);
        }
        if !empty_log(&connection, BUSY)? {
            return Ok(false);
        }
        connection.execute(
            "update erasures set cleaned_at = ?1 where erased_at is not null and cleaned_at is null",
            [now.0],
        )?;
        Ok(true)
    }

    /// Where the withdrawal of a session stands at the clinic, if it was withdrawn.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn withdrawal(&self, session: &str) -> Result<Option<AtClinic>, StoreError> {
        let sql = "select clinic from erasures where session = ?1 and why = 'withdrawn'";
        let found: Option<String> = self.lock().query_row(sql, [session], |row| row.get(0)).optional()?;
        Ok(found.map(named).transpose()?)
    }

    /// Withdrawals that the clinic has not confirmed, the oldest first: which session, how it stands, since when.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn withdrawals_open(&self) -> Result<Vec<(String, AtClinic, WallTime)>, StoreError> {
        let connection = self.lock();
        let sql = "select session, clinic, begun_at from erasures
                   where why = 'withdrawn' and clinic in ('owed', 'refused') order by begun_at, session";
        let mut statement = connection.prepare(sql)?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, WallTime(row.get(2)?))))?
            .collect::<Result<Vec<_>, _>>()?;
        rows.into_iter().map(|(session, clinic, at)| Ok((session, named(clinic)?, at))).collect()
    }

    /// What the clinic is to be told of a withdrawn session.
    ///
    /// # Errors
    /// [`StoreError::NoSession`] where it was not withdrawn.
    pub fn withdrawal_message(&self, session: &str) -> Result<Vec<u8>, StoreError> {
        let sql = "select begun_at from erasures where session = ?1 and why = 'withdrawn'";
        let at: Option<i64> = self.lock().query_row(sql, [session], |row| row.get(0)).optional()?;
        message(session, WallTime(at.ok_or(StoreError::NoSession)?))
    }

    /// Withdrawals that the clinic has not confirmed, as parcels of revision [`WITHDRAWAL`].
    pub(super) fn withdrawals_owed(connection: &Connection, limit: u32) -> Result<Vec<Parcel>, StoreError> {
        let sql = "select session, begun_at from erasures where clinic = 'owed' order by begun_at, session limit ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let owed = statement
            .query_map([limit], |row| Ok((row.get::<_, String>(0)?, WallTime(row.get(1)?))))?
            .collect::<Result<Vec<_>, _>>()?;
        let parcel = |(session, at): (String, WallTime)| {
            let sha256 = sha256(&message(&session, at)?);
            Ok(Parcel { session, revision: WITHDRAWAL, sha256 })
        };
        owed.into_iter().map(parcel).collect()
    }

    /// Writes the clinic's believed word on a withdrawal. Says whether it ended the debt.
    pub(super) fn withdrawal_answered(connection: &mut Connection, ack: &Ack) -> Result<bool, StoreError> {
        let clinic = match ack.result {
            AckResult::Withdrawn => "confirmed",
            AckResult::Refused => "refused",
            AckResult::Stored | AckResult::Duplicate => return Ok(false),
        };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "select begun_at from erasures where session = ?1 and clinic = 'owed'";
        let at: Option<i64> = transaction.query_row(sql, [&ack.session], |row| row.get(0)).optional()?;
        let Some(at) = at else { return Ok(false) };
        if sha256(&message(&ack.session, WallTime(at))?) != ack.sha256 {
            return Ok(false);
        }
        transaction.execute(
            "update erasures set clinic = ?2, word = ?3 where session = ?1",
            params![ack.session, clinic, serde_json::to_string(ack)?],
        )?;
        transaction.commit()?;
        Ok(true)
    }
}

fn message(session: &str, at: WallTime) -> Result<Vec<u8>, StoreError> {
    Ok(serde_json::to_vec(&Withdrawal { version: 1, session: session.into(), at: at.to_string() })?)
}

/// Empties a database's write-ahead log, and says whether it could be: another process may be reading from it. Does not wait
/// for that one, since whoever else needs the connection would wait, too; `busy` is how long it waits otherwise.
///
/// # Errors
/// What SQLite says.
pub fn empty_log(connection: &Connection, busy: Duration) -> rusqlite::Result<bool> {
    connection.busy_timeout(Duration::ZERO)?;
    let emptied = connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get::<_, i64>(0));
    connection.busy_timeout(busy)?;
    match emptied {
        Ok(busy) => Ok(busy == 0),
        Err(rusqlite::Error::SqliteFailure(why, _)) if why.code == ErrorCode::DatabaseBusy => Ok(false),
        Err(why) => Err(why),
    }
}
