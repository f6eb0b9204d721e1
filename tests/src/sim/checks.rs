//! What must be true at every moment of a simulation, read from the databases with eyes of its own: nothing here asks
//! the code that is under test what it believes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use shared::breaker::Service;
use shared::keys::{BoxKeys, Purpose, is_sealed};
use shared::paths::Root;
use shared::record::{DiarizationStatus, Record, Status, UNKNOWN_SPEAKER};
use shared::seal::{Ack, AckResult, Address, ClinicKeys, sha256};
use shared::store::{KeyStore, open_content, record_place};
use shared::task::Task;

use super::engines::{Script, word};
use super::machines::{BOX, CLINIC};

/// Opens a database for reading beside its owner.
///
/// # Errors
/// What SQLite says.
pub fn eyes(path: &Path) -> Result<Connection, String> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(text)
}

fn text(why: impl std::fmt::Display) -> String {
    why.to_string()
}

/// What the simulation knows of its sessions.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Number, as the samples carry it.
    pub number: u16,
    /// Windows of it that were recorded.
    pub windows: u16,
    /// Whether its recording has ended.
    pub ended: bool,
    /// Whether a person dropped it.
    pub dropped: bool,
    /// Whether consent to it was withdrawn.
    pub withdrawn: bool,
    /// How often a person tried it again.
    pub retries: u32,
}

/// Sessions by id.
pub type Sessions = BTreeMap<String, Known>;

/// Whether the clinic's database holds exactly this parcel.
///
/// # Errors
/// What SQLite says.
pub fn is_held(clinic: &Connection, session: &str, revision: u32, sha256: &str) -> Result<bool, String> {
    let sql = "select 1 from parcels where session_id = ?1 and revision = ?2 and sha256 = ?3";
    let found = clinic.query_row(sql, params![session, revision, sha256], |_| Ok(())).optional().map_err(text)?;
    Ok(found.is_some())
}

fn holds_any(clinic: &Connection, session: &str) -> Result<bool, String> {
    let sql = "select exists (select 1 from parcels where session_id = ?1)";
    clinic.query_row(sql, [session], |row| row.get(0)).map_err(text)
}

/// An acknowledgement on the wire must be true already.
///
/// # Errors
/// If it is not.
pub fn acknowledged_truly(clinic: &Connection, payload: &[u8]) -> Result<(), String> {
    let ack: Ack = serde_json::from_slice(payload).map_err(text)?;
    let says_so = matches!(ack.result, AckResult::Stored | AckResult::Duplicate);
    if says_so && !is_held(clinic, &ack.session, ack.revision, &ack.sha256)? {
        return Err(format!("revision {} of {} was acknowledged before it was stored", ack.revision, ack.session));
    }
    if ack.result == AckResult::Withdrawn && holds_any(clinic, &ack.session)? {
        return Err(format!("{} is said to be gone from the clinic, which holds a parcel of it", ack.session));
    }
    Ok(())
}

/// Looks at everything after each step.
pub struct Checker {
    room: Connection,
    keys: KeyStore,
    clinic: Connection,
    judged: BTreeSet<(String, u32)>,
    /// Records that were opened, and as what bytes they were stored then: opening all of them at each step takes long.
    opened: BTreeMap<(String, u32), (Vec<u8>, Record)>,
}

impl Checker {
    /// Of a box and a clinic's database.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn new(room: &Root, clinic: &Path) -> Result<Self, String> {
        let boxes = BoxKeys::find(room, None).map_err(text)?;
        let keys = KeyStore::open(&room.key_store(), boxes.keys).map_err(text)?;
        let (room, clinic) = (eyes(&room.database())?, eyes(clinic)?);
        Ok(Self { room, keys, clinic, judged: BTreeSet::new(), opened: BTreeMap::new() })
    }

    /// Opens every record that is not stored as it was when it was last opened.
    fn open_records(&mut self) -> Result<(), String> {
        // Those of a withdrawn session may have lost their key, and are about to go.
        let sql = "select r.session, r.revision, r.record from records r join sessions s on s.id = r.session
             where s.status <> 'withdrawn'";
        let rows: Vec<((String, u32), Vec<u8>)> =
            select(&self.room, sql, [], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        let before = std::mem::take(&mut self.opened);
        for (name, stored) in rows {
            let known = before.get(&name).filter(|(bytes, _)| *bytes == stored).map(|(_, record)| record.clone());
            let record = known.map_or_else(|| self.open(&name, &stored), Ok)?;
            self.opened.insert(name, (stored, record));
        }
        Ok(())
    }

    fn open(&self, (session, revision): &(String, u32), stored: &[u8]) -> Result<Record, String> {
        if !is_sealed(stored) {
            return Err(format!("revision {revision} of {session} is stored plain"));
        }
        let key = self.keys.get(session, Purpose::Content).map_err(text)?;
        let key = key.ok_or_else(|| format!("{session} has a record and no key"))?;
        let json = open_content(&key, &record_place(*revision), stored).map_err(text)?;
        serde_json::from_slice(&json).map_err(text)
    }

    /// What the engines said is in the database, but not for everybody to read.
    fn results_are_sealed(&self) -> Result<(), String> {
        let sql = "select session from work where result is not null and substr(result, 1, 4) <> cast('RSC1' as blob)";
        match self.room.query_row(sql, [], |row| row.get::<_, String>(0)).optional().map_err(text)? {
            Some(session) => Err(format!("a result of {session} is stored plain")),
            None => Ok(()),
        }
    }

    fn has_audio_key(&self, session: &str) -> Result<bool, String> {
        Ok(self.keys.get(session, Purpose::Audio).map_err(text)?.is_some())
    }

    /// Everything that must always hold.
    ///
    /// # Errors
    /// What does not.
    pub fn look(&mut self, sessions: &Sessions, script: &Script, spool: impl Fn(&str) -> bool) -> Result<(), String> {
        self.open_records()?;
        self.results_are_sealed()?;
        self.nothing_is_acknowledged_that_is_not_held()?;
        self.every_record_has_its_parcel()?;
        self.audio_is_there_until_it_may_go(&spool)?;
        self.what_is_erased_is_gone(&spool)?;
        self.every_session_is_counted_once(sessions)?;
        self.what_was_done_is_written_down()?;
        self.no_window_takes_the_box_down_more_than_three_times(sessions, script)?;
        self.no_words_are_withheld_for_their_speakers()?;
        self.records_say_what_happened(sessions, script)
    }

    fn nothing_is_acknowledged_that_is_not_held(&self) -> Result<(), String> {
        let sql = "select session, revision, sha256 from outbox where state = 'acknowledged'";
        let rows: Vec<(String, u32, String)> =
            select(&self.room, sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for (session, revision, sum) in rows {
            if !is_held(&self.clinic, &session, revision, &sum)? {
                return Err(format!("the box believes that revision {revision} of {session} is held, and it is not"));
            }
        }
        Ok(())
    }

    fn every_record_has_its_parcel(&self) -> Result<(), String> {
        let sql = "select r.session from records r left join outbox o on o.session = r.session
             and o.revision = r.revision join sessions s on s.id = r.session
             where o.session is null and s.status <> 'withdrawn'";
        match self.room.query_row(sql, [], |row| row.get::<_, String>(0)).optional().map_err(text)? {
            Some(session) => Err(format!("the record of {session} has no parcel")),
            None => Ok(()),
        }
    }

    fn audio_is_there_until_it_may_go(&self, spool: &impl Fn(&str) -> bool) -> Result<(), String> {
        let acknowledged: Vec<(String, u32)> =
            select(&self.room, "select session, revision from outbox where state = 'acknowledged'", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let is_diarized = |name: &(String, u32)| {
            self.opened.get(name).is_some_and(|(_, record)| {
                record.status == Status::Done && record.diarization_status == DiarizationStatus::Ok
            })
        };
        let diarized: BTreeSet<String> =
            acknowledged.into_iter().filter(is_diarized).map(|(session, _)| session).collect();
        let sql = "select id, audio, dropped_at is not null or status = 'withdrawn' from sessions";
        let rows: Vec<(String, String, bool)> =
            select(&self.room, sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        for (session, audio, dropped) in rows {
            let may_go = diarized.contains(&session);
            if !dropped && !may_go && (audio != "kept" || !spool(&session) || !self.has_audio_key(&session)?) {
                return Err(format!("the audio of {session} is gone before its diarized record was acknowledged"));
            }
            if audio == "destroyed" && self.has_audio_key(&session)? {
                return Err(format!("the audio of {session} is said to be destroyed and its key is there"));
            }
        }
        Ok(())
    }

    /// A session is told to be erased once neither keys nor recording nor rows of it are left, and what was withdrawn stays so.
    fn what_is_erased_is_gone(&self, spool: &impl Fn(&str) -> bool) -> Result<(), String> {
        let sql = "select session from erasures where erased_at is not null";
        let erased: Vec<String> = select(&self.room, sql, [], |row| row.get(0))?;
        for session in erased {
            let sql = "select exists (select 1 from work where session = ?1 union all select 1 from windows where session = ?1
                 union all select 1 from records where session = ?1 union all select 1 from outbox where session = ?1)";
            let has_rows: bool = self.room.query_row(sql, [&session], |row| row.get(0)).map_err(text)?;
            let has_text_key = self.keys.get(&session, Purpose::Content).map_err(text)?.is_some();
            if has_rows || has_text_key || self.has_audio_key(&session)? || spool(&session) {
                return Err(format!("{session} is said to be erased, and something of it is left"));
            }
        }
        let sql = "select session from erasures e join sessions s on s.id = e.session
             where e.why = 'withdrawn' and s.status <> 'withdrawn'";
        match self.room.query_row(sql, [], |row| row.get::<_, String>(0)).optional().map_err(text)? {
            Some(session) => Err(format!("{session} was withdrawn and is back")),
            None => Ok(()),
        }
    }

    /// Conservation: recorded = the sum of the ledger's terms, counted here in other words.
    fn every_session_is_counted_once(&self, sessions: &Sessions) -> Result<(), String> {
        let known: Vec<String> = select(&self.room, "select id from sessions order by id", [], |row| row.get(0))?;
        let missing = sessions.keys().find(|id| known.binary_search(id).is_err());
        if let Some(missing) = missing {
            return Err(format!("session {missing} was begun and is gone"));
        }
        if known.len() != sessions.len() {
            return Err(format!("{} sessions were begun and {} are known", sessions.len(), known.len()));
        }
        Ok(())
    }

    /// A row of the audit log is there with what it tells, or neither is.
    fn what_was_done_is_written_down(&self) -> Result<(), String> {
        let sql = "with done (session, action) as (
               select id, 'session_started' from sessions
               union all select id, 'session_ended' from sessions where ended_at is not null and status <> 'withdrawn'
               union all select id, 'session_withdrawn' from sessions where status = 'withdrawn'
               union all select id, 'session_dropped' from sessions where dropped_at is not null
               union all select id, 'audio_destroyed' from sessions where audio = 'destroyed')
             select action || ' of ' || session from done where not exists (
               select 1 from audit a where a.subject = done.session and a.action = done.action) limit 1";
        match self.room.query_row(sql, [], |row| row.get::<_, String>(0)).optional().map_err(text)? {
            Some(done) => Err(format!("{done} is not in the audit log")),
            None => Ok(()),
        }
    }

    fn no_window_takes_the_box_down_more_than_three_times(
        &self,
        sessions: &Sessions,
        script: &Script,
    ) -> Result<(), String> {
        let seen = script.seen.borrow();
        for ((number, window, task), seen) in seen.iter() {
            let retries = sessions.values().find(|s| s.number == *number).map_or(0, |s| s.retries);
            if seen.kills > 3 * (1 + retries) {
                return Err(format!(
                    "window {window} of session {number} took the box down {} times ({task})",
                    seen.kills
                ));
            }
        }
        Ok(())
    }

    /// A session waits for its speakers only if its words were handed over before.
    fn no_words_are_withheld_for_their_speakers(&self) -> Result<(), String> {
        let sql = "select s.id, (select max(revision) from records r where r.session = s.id)
             from sessions s where s.status = 'postponed' and not exists (
               select 1 from work w where w.session = s.id and w.task = 'transcription' and w.state <> 'done')";
        let rows: Vec<(String, Option<u32>)> = select(&self.room, sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (session, last) in rows {
            let last = last.and_then(|revision| self.opened.get(&(session.clone(), revision)));
            if last.is_none_or(|(_, record)| record.status != Status::Done) {
                return Err(format!("the words of {session} are withheld until its speakers can be told apart"));
            }
        }
        Ok(())
    }

    fn records_say_what_happened(&mut self, sessions: &Sessions, script: &Script) -> Result<(), String> {
        for ((session, revision), (_, record)) in &self.opened {
            if self.judged.contains(&(session.clone(), *revision)) {
                continue;
            }
            let known = sessions.get(session).ok_or_else(|| format!("a record of an unknown session {session}"))?;
            let states = self.states(session)?;
            rows_are_true(known, &states, script).map_err(|why| format!("{session}, revision {revision}: {why}"))?;
            judge(known, record, &states).map_err(|why| format!("{session}, revision {revision}: {why}"))?;
            self.judged.insert((session.clone(), *revision));
        }
        Ok(())
    }

    fn states(&self, session: &str) -> Result<States, String> {
        let mut states = States::default();
        for task in Task::ALL {
            let sql = "select number, state from work where session = ?1 and task = ?2 order by number";
            let rows: Vec<(u16, String)> =
                select(&self.room, sql, params![session, task.name()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            states.0.insert(task, rows);
        }
        Ok(states)
    }

    /// Writes down, of a recorder that has just died, which rows it died at.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn note_death(&self, sessions: &Sessions, script: &Script) -> Result<(), String> {
        for task in Task::ALL {
            let sql = "select session, number from work where state = 'running' and task = ?1";
            let rows: Vec<(String, u16)> =
                select(&self.room, sql, [task.name()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut seen = script.seen.borrow_mut();
            for (session, window) in rows {
                let known = sessions.get(&session).ok_or_else(|| format!("a row of an unknown session {session}"))?;
                seen.entry((known.number, window, task)).or_default().deaths += 1;
            }
        }
        Ok(())
    }

    /// Whether a window of this service is being worked on.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn is_at_work(&self, service: Service) -> Result<bool, String> {
        let sql = "select exists (select 1 from work where task = ?1 and state = 'running')";
        self.room.query_row(sql, [service.name()], |row| row.get(0)).map_err(text)
    }

    /// What remains to be done: sessions not concluded, parcels not acknowledged.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn unfinished(&self) -> Result<String, String> {
        let sql = "select 'session ' || id || ' is ' || status from sessions
               where status not in ('done', 'failed', 'withdrawn')
             union all select 'withdrawal of ' || session || ' is not carried out' from erasures
               where erased_at is null or cleaned_at is null or clinic = 'owed'
             union all select 'parcel ' || session || '/' || revision || ' is ' || state from outbox
               where state <> 'acknowledged'";
        let rows: Vec<String> = select(&self.room, sql, [], |row| row.get(0))?;
        Ok(rows.join("; "))
    }

    /// Once faults have stopped and everything was tried again: every session is at the clinic, once, unchanged.
    ///
    /// # Errors
    /// What is not.
    pub fn everything_arrived(&self, sessions: &Sessions, keys: &ClinicKeys) -> Result<(), String> {
        let rows: Vec<(String, u32, Vec<u8>)> =
            select(&self.room, "select session, revision, record from records", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        for (session, revision, stored) in &rows {
            let sql = "select parcel, sha256, box from parcels where session_id = ?1 and revision = ?2";
            let found: Option<(Vec<u8>, String, String)> = self
                .clinic
                .query_row(sql, params![session, revision], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
                .map_err(text)?;
            let (parcel, sum, from) = found.ok_or_else(|| format!("{session}/{revision} never arrived"))?;
            let address = Address { clinic: CLINIC, box_id: BOX, session, revision: *revision };
            let opened = keys.open(&parcel, &address).map_err(text)?;
            let sent = self.open(&(session.clone(), *revision), stored)?;
            if sha256(&parcel) != sum || from != BOX || opened != sent {
                return Err(format!("{session}/{revision} was changed on its way"));
            }
        }
        let arrived: i64 = self.clinic.query_row("select count(*) from parcels", [], |row| row.get(0)).map_err(text)?;
        if arrived != i64::try_from(rows.len()).unwrap_or(-1) {
            return Err(format!("{} records were made and {arrived} arrived", rows.len()));
        }
        self.everything_is_well(sessions)
    }

    fn everything_is_well(&self, sessions: &Sessions) -> Result<(), String> {
        let sql = "select id, status, diarization_status, audio from sessions";
        let rows: Vec<(String, String, Option<String>, String)> =
            select(&self.room, sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        for (session, status, diarization, audio) in rows {
            let dropped = sessions.get(&session).is_some_and(|s| s.dropped);
            let at_clinic: Option<String> = self
                .clinic
                .query_row("select status from therapy_sessions where id = ?1", [&session], |row| row.get(0))
                .optional()
                .map_err(text)?;
            let is_withdrawn = sessions.get(&session).is_some_and(|s| s.withdrawn);
            if is_withdrawn != (status == "withdrawn") {
                return Err(format!("{session} is {status}, withdrawn: {is_withdrawn}"));
            }
            if is_withdrawn && (at_clinic.is_none() || at_clinic.as_deref() == Some("withdrawn")) {
                continue;
            }
            if at_clinic.as_deref() != Some(status.as_str()) {
                return Err(format!("{session} is {status} in the room and {at_clinic:?} at the clinic"));
            }
            let is_well = status == "done" && diarization.as_deref() == Some("ok");
            if !dropped && !is_well {
                let (states, known) = (self.states(&session)?, sessions.get(&session));
                return Err(format!(
                    "{session} is {status}, speakers {diarization:?}, though nothing is at fault any more: {states:?}, {known:?}"
                ));
            }
            if audio != "destroyed" {
                return Err(format!("the audio of {session} is still kept"));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct States(BTreeMap<Task, Vec<(u16, String)>>);

impl States {
    fn all(&self, task: Task) -> &[(u16, String)] {
        self.0.get(&task).map(Vec::as_slice).unwrap_or_default()
    }

    fn any(&self, task: Task, state: &str) -> bool {
        self.all(task).iter().any(|(_, s)| s == state)
    }

    fn are_all(&self, task: Task, state: &str) -> bool {
        !self.all(task).is_empty() && self.all(task).iter().all(|(_, s)| s == state)
    }
}

/// A row says done or failed only if an engine saw it so.
fn rows_are_true(known: &Known, states: &States, script: &Script) -> Result<(), String> {
    let seen = script.seen.borrow();
    for task in Task::ALL {
        for (window, state) in states.all(task) {
            let seen = seen.get(&(known.number, *window, task)).cloned().unwrap_or_default();
            let is_true = match state.as_str() {
                "done" => seen.successes > 0,
                // The box may have gone down before the engine was even asked.
                "failed" => seen.failures > 0 || seen.deaths >= 3 || known.dropped,
                _ => true,
            };
            if !is_true {
                return Err(format!("{task} of window {window} is {state}, and no engine ever said so: {seen:?}"));
            }
        }
    }
    Ok(())
}

/// The decision matrix, as the design has it.
fn judge(known: &Known, record: &Record, states: &States) -> Result<(), String> {
    let (t, d) = (Task::Transcription, Task::Diarization);
    let speakers = match () {
        () if states.all(d).is_empty() => DiarizationStatus::Skipped,
        () if states.are_all(d, "done") => DiarizationStatus::Ok,
        () => DiarizationStatus::Failed,
    };
    let (status, error) = match () {
        () if states.any(t, "failed") && speakers == DiarizationStatus::Failed => {
            (Status::Failed, Some("ParallelProcessingError"))
        }
        () if states.any(t, "failed") => (Status::Failed, Some("TranscriptionError")),
        () if !states.are_all(t, "done") => return Err("it was concluded though its transcription is not done".into()),
        () if speakers != DiarizationStatus::Failed => (Status::Done, None),
        () if states.any(d, "failed") => (Status::Done, Some("PartialProcessingError")),
        () => (Status::Done, Some("CircuitBreakerOpenError")),
    };
    if record.status != status || record.diarization_status != speakers {
        let (is, speaks) = (record.status, record.diarization_status);
        return Err(format!("it is {is}/{speaks:?} and should be {status}/{speakers:?}"));
    }
    let told = record.error.as_ref().map(|e| e.error_type.as_str());
    if told != error {
        return Err(format!("its error is {told:?} and should be {error:?}"));
    }
    if status == Status::Done { says_everything_once(known, record, speakers) } else { Ok(()) }
}

fn says_everything_once(known: &Known, record: &Record, speakers: DiarizationStatus) -> Result<(), String> {
    let said: Vec<&str> = record.segments.iter().map(|s| s.text.0.as_str()).collect();
    let expected: Vec<String> = (0..known.windows).map(|window| word(known.number, window)).collect();
    if said != expected {
        return Err(format!("it has {} segments, not one of each of {} windows in order", said.len(), expected.len()));
    }
    let unknown = record.segments.iter().filter(|s| s.speaker == UNKNOWN_SPEAKER).count();
    let should = if speakers == DiarizationStatus::Ok { 0 } else { said.len() };
    if unknown != should {
        return Err(format!("{unknown} of its segments are nobody's, and {should} should be"));
    }
    if record.segments.iter().any(|s| !s.model.starts_with("sim-")) {
        return Err("a segment does not say which model wrote it".into());
    }
    Ok(())
}

fn select<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, String> {
    let mut statement = connection.prepare_cached(sql).map_err(text)?;
    let rows = statement.query_map(parameters, read).map_err(text)?;
    rows.collect::<Result<_, _>>().map_err(text)
}
