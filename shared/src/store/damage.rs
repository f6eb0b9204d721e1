//! Rows that cannot be read any more: found, put aside as they were, and made readable again, so that none stops the
//! rest. What was found is kept in `quarantine` and shown to nobody: it may have been said, and is then sealed.
//!
//!   sessions.status    ▶ failed: a dead letter that a person can retry
//!   sessions.…         ▶ the value that promises least
//!   work.result        ▶ to do again while there is audio, else failed
//!   outbox.parcel      ▶ refused: no longer the bytes that were sealed
//!   events, breakers, health ▶ as if they had not been kept

use rusqlite::types::Value;
use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::content::result_place;
use super::{Store, StoreError, named};
use crate::breaker::Stored;
use crate::clock::WallTime;
use crate::error::ProcessingError;
use crate::keys::is_sealed;
use crate::record::{Consent, DiarizationStatus, Status, TimeQuality};
use crate::seal::sha256;
use crate::task::Task;
use crate::wire::{BoxHealth, EventKind};

/// One thing that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Which table, or `database` for the file itself.
    pub source: &'static str,
    /// Which row, so that a person finds it: a session's id where there is one.
    pub key: String,
    /// Which column.
    pub field: &'static str,
    /// What is wrong with it; never its value.
    pub why: &'static str,
    /// What making it readable means.
    pub remedy: &'static str,
}

/// Something that was put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// From 1.
    pub id: i64,
    /// When, RFC 3339 UTC.
    pub at: String,
    /// Which table.
    pub source: String,
    /// Which row.
    pub key: String,
    /// Which column.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

/// A damaged column: how it is found and made readable. `?1` is the row's id.
struct Column {
    source: &'static str,
    field: &'static str,
    /// Gives row id, key, value.
    select: &'static str,
    is_readable: fn(&Value) -> bool,
    why: &'static str,
    fix: &'static str,
    remedy: &'static str,
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        Value::Blob(bytes) => std::str::from_utf8(bytes).ok(),
        Value::Null | Value::Integer(_) | Value::Real(_) => None,
    }
}

fn is_name<T: DeserializeOwned>(value: &Value) -> bool {
    text(value).is_some_and(|t| named::<T>(t.into()).is_ok())
}

fn is_json<T: DeserializeOwned>(value: &Value) -> bool {
    text(value).is_some_and(|t| serde_json::from_str::<T>(t).is_ok())
}

fn or_null(value: &Value, is_readable: fn(&Value) -> bool) -> bool {
    matches!(value, Value::Null) || is_readable(value)
}

const NO_NAME: &str = "is none of the names that this version knows";
const NO_JSON: &str = "is not the JSON that this version writes";

const COLUMNS: &[Column] = &[
    Column {
        source: "sessions",
        field: "status",
        select: "select rowid, id, status from sessions",
        is_readable: is_name::<Status>,
        why: NO_NAME,
        fix: "update sessions set error = null,
                status = iif(exists (select 1 from erasures e where e.session = id and e.why = 'withdrawn'),
                  'withdrawn', 'failed'),
                error_type = 'ProcessingError', error_message = 'What was stored of the session is damaged'
              where rowid = ?1",
        remedy: "the session becomes a dead letter; roomscribe queue retry processes it again",
    },
    Column {
        source: "sessions",
        field: "diarization_status",
        select: "select rowid, id, diarization_status from sessions",
        is_readable: |value| or_null(value, is_name::<DiarizationStatus>),
        why: NO_NAME,
        fix: "update sessions set diarization_status = 'failed' where rowid = ?1",
        remedy: "it counts as failed",
    },
    Column {
        source: "sessions",
        field: "error",
        select: "select rowid, id, error from sessions",
        is_readable: |value| or_null(value, is_json::<ProcessingError>),
        why: NO_JSON,
        fix: "update sessions set error = null where rowid = ?1",
        remedy: "its message stays, its details go",
    },
    Column {
        source: "sessions",
        field: "consent",
        select: "select rowid, id, consent from sessions",
        is_readable: is_json::<Consent>,
        why: NO_JSON,
        fix:
            "update sessions set consent = '{\"basis\":\"unreadable\",\"by\":null,\"at\":\"1970-01-01T00:00:00.000Z\"}'
              where rowid = ?1",
        remedy: "its basis is told as unreadable",
    },
    Column {
        source: "sessions",
        field: "time_quality",
        select: "select rowid, id, time_quality from sessions",
        is_readable: is_name::<TimeQuality>,
        why: NO_NAME,
        fix: "update sessions set time_quality = 'unsynchronized' where rowid = ?1",
        remedy: "its dates are not to be trusted",
    },
    Column {
        source: "work",
        field: "state",
        select: "select id, session, state from work",
        is_readable: is_name::<super::RowState>,
        why: NO_NAME,
        fix: "update work set state = 'pending', result = null, claims = 0 where id = ?1",
        remedy: "the window is done again",
    },
    Column {
        source: "events",
        field: "event",
        select: "select id, cast(id as text), event from events where sent <> 1",
        is_readable: is_json::<EventKind>,
        why: NO_JSON,
        fix: "update events set sent = 1 where id = ?1",
        remedy: "it is not sent",
    },
    Column {
        source: "breakers",
        field: "stored",
        select: "select rowid, service, stored from breakers",
        is_readable: is_json::<Stored>,
        why: NO_JSON,
        fix: "delete from breakers where rowid = ?1",
        remedy: "the breaker begins closed",
    },
    Column {
        source: "health",
        field: "health",
        select: "select one, 'health', health from health",
        is_readable: is_json::<BoxHealth>,
        why: NO_JSON,
        fix: "delete from health where one = ?1",
        remedy: "the box measures it anew",
    },
];

/// Looked at only by `check` and `repair`: they read everything. What lies behind a blob counts as read with it.
const CONTENT: &[Column] = &[Column {
    source: "work",
    field: "history",
    select: "select id, session, history from work",
    is_readable: |value| or_null(value, is_json::<IgnoredAny>),
    why: NO_JSON,
    fix: "update work set history = null where id = ?1",
    remedy: "its attempts are forgotten",
}];

/// As [`CONTENT`], and sealed: `select` also gives the place that each is sealed for. A store without keys takes what
/// is sealed for readable.
const SEALED: &[Column] = &[
    Column {
        source: "work",
        field: "result",
        select: "select id, session, result, 'work/' || task || '/' || number from work where result is not null",
        is_readable: is_json::<IgnoredAny>,
        why: NO_JSON,
        fix: "update work set state = 'pending', result = null, claims = 0 where id = ?1",
        remedy: "the window is done again if its session is",
    },
    Column {
        source: "records",
        field: "record",
        select: "select rowid, session, record, 'record/' || revision from records",
        is_readable: is_json::<IgnoredAny>,
        why: NO_JSON,
        fix: "delete from records where rowid = ?1",
        remedy: "the clinic may have it; roomscribe queue retry makes the next revision",
    },
];

struct Found {
    damage: Damage,
    row: i64,
    value: Value,
    /// None where nothing can be done about it.
    fix: Option<&'static str>,
}

const GONE: &str = "cannot be opened: the key of the session's content is gone";
const GONE_REMEDY: &str = "if keys.db was lost, put it back from before; repair changes nothing of it";

fn search(connection: &Connection, columns: &'static [Column]) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    for column in columns {
        let mut statement = connection.prepare(column.select)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let value: Value = row.get(2)?;
            if !(column.is_readable)(&value) {
                let Column { source, field, why, remedy, fix, .. } = *column;
                let damage = Damage { source, key: row.get(1)?, field, why, remedy };
                found.push(Found { damage, row: row.get(0)?, value, fix: Some(fix) });
            }
        }
    }
    Ok(found)
}

/// Whether a value that may be sealed can be read.
enum Reading {
    Readable,
    Damaged,
    Gone,
}

fn altered_parcels(connection: &Connection) -> Result<Vec<Found>, StoreError> {
    let mut statement =
        connection.prepare("select rowid, session, parcel, sha256 from outbox where state = 'pending'")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (bytes, sum): (Vec<u8>, String) = (row.get(2)?, row.get(3)?);
        if sha256(&bytes) != sum {
            let damage = Damage {
                source: "outbox",
                key: row.get(1)?,
                field: "parcel",
                why: "does not have its checksum",
                remedy: "it is sent no more; roomscribe queue retry makes the next revision",
            };
            let fix = Some("update outbox set state = 'refused', reason = 'damaged' where rowid = ?1");
            found.push(Found { damage, row: row.get(0)?, value: Value::Null, fix });
        }
    }
    Ok(found)
}

fn put_aside(
    connection: &Connection,
    now: WallTime,
    (source, key, field, why): (&str, &str, &str, &str),
    value: &Value,
) -> Result<(), StoreError> {
    connection.execute(
        "insert into quarantine (at, source, key, field, why, value) values (?1, ?2, ?3, ?4, ?5, cast(?6 as blob))",
        params![now.0, source, key, field, why, value],
    )?;
    Ok(())
}

impl Store {
    /// Everything that cannot be read, the file's own structure included. Reads all there is.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot even be looked for.
    pub fn check(&self) -> Result<Vec<Damage>, StoreError> {
        let connection = self.lock();
        let mut all: Vec<Damage> = Vec::new();
        let sound: String = connection.query_row("pragma integrity_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            all.push(Damage {
                source: "database",
                key: String::new(),
                field: "",
                why: "the file's structure is damaged",
                remedy: "copy the folder, then: sqlite3 roomscribe.db .recover",
            });
        }
        let content = self.search_sealed(&connection)?;
        let columns = [search(&connection, COLUMNS)?, search(&connection, CONTENT)?];
        for found in columns.into_iter().chain([content, altered_parcels(&connection)?]) {
            all.extend(found.into_iter().map(|f| f.damage));
        }
        Ok(all)
    }

    /// Puts aside what cannot be read of rows that others are listed with, and makes those readable. Cheap enough for
    /// every start; `repair` also reads all content.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub fn mend(&self, now: WallTime) -> Result<Vec<Damage>, StoreError> {
        let mut connection = self.lock();
        let found = search(&connection, COLUMNS)?;
        settle(&mut connection, found, now)
    }

    /// As [`Store::mend`], for everything that [`Store::check`] finds but the file's own structure.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub fn repair(&self, now: WallTime) -> Result<Vec<Damage>, StoreError> {
        let mut connection = self.lock();
        let mut found = search(&connection, COLUMNS)?;
        found.extend(search(&connection, CONTENT)?);
        found.extend(self.search_sealed(&connection)?);
        found.extend(altered_parcels(&connection)?);
        settle(&mut connection, found, now)
    }

    fn search_sealed(&self, connection: &Connection) -> Result<Vec<Found>, StoreError> {
        let mut found: Vec<Found> = Vec::new();
        for column in SEALED {
            let Column { source, field, why, remedy, fix, is_readable, .. } = *column;
            let mut statement = connection.prepare(column.select)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (key, value): (String, Value) = (row.get(1)?, row.get(2)?);
                let is_told =
                    |last: &Found| last.fix.is_none() && last.damage.source == source && last.damage.key == key;
                match self.reading(&key, &row.get::<_, String>(3)?, &value, is_readable)? {
                    Reading::Readable => {}
                    Reading::Damaged => {
                        let value = self.to_put_aside(&key, (source, field), value)?;
                        let damage = Damage { source, key, field, why, remedy };
                        found.push(Found { damage, row: row.get(0)?, value, fix: Some(fix) });
                    }
                    Reading::Gone if found.last().is_some_and(is_told) => {}
                    Reading::Gone => {
                        let damage = Damage { source, key, field, why: GONE, remedy: GONE_REMEDY };
                        found.push(Found { damage, row: row.get(0)?, value: Value::Null, fix: None });
                    }
                }
            }
        }
        Ok(found)
    }

    fn reading(
        &self,
        session: &str,
        place: &str,
        value: &Value,
        is_readable: fn(&Value) -> bool,
    ) -> Result<Reading, StoreError> {
        let is_readable = |value| if is_readable(value) { Reading::Readable } else { Reading::Damaged };
        let Value::Blob(stored) = value else { return Ok(is_readable(value)) };
        if !is_sealed(stored) {
            return Ok(is_readable(value));
        }
        match self.open_sealed(session, place, stored.clone()) {
            Ok(json) => Ok(is_readable(&Value::Blob(json))),
            Err(StoreError::NoKeys) => Ok(Reading::Readable),
            Err(StoreError::Damaged(_)) => Ok(Reading::Damaged),
            Err(why) if why.is_content_lost() => Ok(Reading::Gone),
            Err(why) => Err(why),
        }
    }

    /// Whether what was stored of a result is what `R` is read from.
    fn is_result<R: DeserializeOwned>(&self, session: &str, place: &str, stored: Vec<u8>) -> Result<bool, StoreError> {
        match self.open_sealed(session, place, stored) {
            Ok(json) => Ok(serde_json::from_slice::<R>(&json).is_ok()),
            Err(StoreError::Damaged(_)) => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Rows of a task of a session whose result or cause this version cannot read: a result is made again while there
    /// is audio, a cause becomes `damaged`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub fn mend_rows<R: DeserializeOwned, E: DeserializeOwned + Serialize>(
        &self,
        session: &str,
        task: Task,
        damaged: &E,
        now: WallTime,
    ) -> Result<usize, StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let damaged = serde_json::to_string(damaged)?;
        let mut mended = 0;
        for (id, number, result, cause) in contents(&transaction, session, task)? {
            let place = result_place(task.name(), number);
            let is_result = |stored: &Vec<u8>| self.is_result::<R>(session, &place, stored.clone());
            let bad_result = !result.as_ref().map_or(Ok(true), is_result)?;
            let bad_cause = cause.as_ref().is_some_and(|c| serde_json::from_str::<E>(c).is_err());
            if bad_result {
                let aside = self.to_put_aside(session, ("work", "result"), result.into())?;
                put_aside(&transaction, now, ("work", session, "result", NO_JSON), &aside)?;
                transaction.execute(
                    "update work set result = null, claims = 0, cause = ?2,
                       state = case when (select audio from sessions where id = ?3) = 'kept' then 'pending'
                                    else 'failed' end
                     where id = ?1",
                    params![id, damaged, session],
                )?;
            } else if bad_cause {
                put_aside(&transaction, now, ("work", session, "cause", NO_JSON), &cause.into())?;
                transaction.execute("update work set cause = ?2 where id = ?1", params![id, damaged])?;
            }
            mended += usize::from(bad_result || bad_cause);
        }
        transaction.commit()?;
        Ok(mended)
    }

    /// What was put aside, without its values.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("select id, at, source, key, field, why from quarantine order by id")?;
        let rows = statement.query_map([], |row| {
            Ok(Quarantined {
                id: row.get(0)?,
                at: WallTime(row.get(1)?).to_string(),
                source: row.get(2)?,
                key: row.get(3)?,
                field: row.get(4)?,
                why: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

type Content = (i64, u32, Option<Vec<u8>>, Option<String>);

fn contents(connection: &Connection, session: &str, task: Task) -> Result<Vec<Content>, StoreError> {
    let mut statement = connection
        .prepare("select id, number, result, cause from work where session = ?1 and task = ?2 order by number")?;
    let rows = statement
        .query_map(params![session, task.name()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn settle(connection: &mut Connection, found: Vec<Found>, now: WallTime) -> Result<Vec<Damage>, StoreError> {
    let mut mended = Vec::new();
    let transaction = connection.transaction()?;
    for Found { damage, row, value, fix } in found {
        let Some(fix) = fix else { continue };
        put_aside(&transaction, now, (damage.source, &damage.key, damage.field, damage.why), &value)?;
        transaction.execute(fix, [row])?;
        mended.push(damage);
    }
    transaction.commit()?;
    Ok(mended)
}
