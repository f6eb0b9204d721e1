//! Parcels as they were sealed, and the newest revision of each session as a row.

use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use serde::Serialize;
use shared::clock::WallTime;
use shared::record::{Record, TimeQuality};

use super::withdrawals::is_withdrawn;
use super::{ClinicStore, ClinicStoreError};

/// A parcel that was opened and may be kept.
pub struct Arrival<'a> {
    /// What was inside; only its metadata is kept in the clear.
    pub record: &'a Record,
    /// As it was sealed.
    pub parcel: &'a [u8],
    /// Of these bytes, hexadecimal.
    pub sha256: &'a str,
}

/// What is known of a parcel that was kept before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// From which box.
    pub box_id: String,
    /// Of its bytes, hexadecimal.
    pub sha256: String,
    /// When it was committed, RFC 3339 UTC.
    pub received_at: String,
}

/// What became of a parcel that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It is kept.
    New,
    /// One was kept before.
    Before(Held),
    /// Nothing of its session is held any more.
    Withdrawn,
}

/// A parcel with what its seal is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedParcel {
    /// From which box.
    pub box_id: String,
    /// From 1.
    pub revision: u32,
    /// As it was sealed.
    pub bytes: Vec<u8>,
}

/// A session's metadata, of its newest revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionRow {
    /// UUID.
    pub session_id: String,
    /// From which box.
    #[serde(rename = "box")]
    pub box_id: String,
    /// From 1.
    pub revision: u32,
    /// When its first revision came, RFC 3339 UTC.
    pub created_at: String,
    /// When this revision came, RFC 3339 UTC.
    pub updated_at: String,
    /// `done` or `failed`.
    pub status: String,
    /// A constant sentence per cause.
    pub error_message: Option<String>,
    /// The guide's name of the error.
    pub error_type: Option<String>,
    /// `ok`, `failed` or `skipped`.
    pub diarization_status: String,
    /// RFC 3339 UTC.
    pub started_at: String,
    /// RFC 3339 UTC.
    pub ended_at: String,
    /// Seconds, gaps included.
    pub duration_s: f64,
    /// How many voices.
    pub speakers: u32,
    /// How many segments.
    pub segments: u32,
    /// How many gaps.
    pub gaps: u32,
    /// `synchronized` or `unsynchronized`: how far the dates can be trusted.
    pub time_quality: String,
}

/// Failed sessions that say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureGroup {
    /// A constant sentence per cause.
    pub message: String,
    /// How many.
    pub sessions: u64,
    /// Of how many boxes.
    pub boxes: u64,
    /// When the last of them came, RFC 3339 UTC.
    pub last_at: String,
}

fn session(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        session_id: row.get("id")?,
        box_id: row.get("box")?,
        revision: row.get("revision")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
        status: row.get("status")?,
        error_message: row.get("error_message")?,
        error_type: row.get("error_type")?,
        diarization_status: row.get("diarization_status")?,
        started_at: row.get("started_at")?,
        ended_at: row.get("ended_at")?,
        duration_s: row.get("duration_s")?,
        speakers: row.get("speaker_count")?,
        segments: row.get("segment_count")?,
        gaps: row.get("gap_count")?,
        time_quality: row.get("time_quality")?,
    })
}

fn held(connection: &Connection, session: &str, revision: u32) -> Result<Option<Held>, ClinicStoreError> {
    let sql = "select box, sha256, received_at from parcels where session_id = ?1 and revision = ?2";
    let read = |row: &Row<'_>| Ok(Held { box_id: row.get(0)?, sha256: row.get(1)?, received_at: row.get(2)? });
    Ok(connection.query_row(sql, params![session, revision], read).optional()?)
}

fn quality(quality: TimeQuality) -> &'static str {
    match quality {
        TimeQuality::Synchronized => "synchronized",
        TimeQuality::Unsynchronized => "unsynchronized",
    }
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// The row changes only if this revision is not older than the one it shows.
fn upsert(connection: &Connection, record: &Record, now: &str) -> Result<(), ClinicStoreError> {
    connection.execute(
        "insert into therapy_sessions (id, box, revision, created_at, updated_at, status, error_message, error_type,
           diarization_status, started_at, ended_at, duration_s, speaker_count, segment_count, gap_count, time_quality)
         values (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
         on conflict (id) do update set box = ?2, revision = ?3, updated_at = ?4, status = ?5, error_message = ?6,
           error_type = ?7, diarization_status = ?8, started_at = ?9, ended_at = ?10, duration_s = ?11,
           speaker_count = ?12, segment_count = ?13, gap_count = ?14, time_quality = ?15
         where excluded.revision > therapy_sessions.revision",
        params![
            record.session_id,
            record.box_id,
            record.revision,
            now,
            record.status.name(),
            record.error_message,
            record.error.as_ref().map(|e| &e.error_type),
            record.diarization_status.name(),
            record.started_at,
            record.ended_at,
            record.duration_s,
            count(&record.speakers),
            count(&record.segments),
            count(&record.gaps),
            quality(record.time_quality),
        ],
    )?;
    Ok(())
}

impl ClinicStore {
    /// What is known of a parcel, if it was kept.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn held(&self, session: &str, revision: u32) -> Result<Option<Held>, ClinicStoreError> {
        held(&self.lock(), session, revision)
    }

    /// Keeps a parcel and brings its session's row up to date, in one transaction. If another was kept first
    /// under the same session and revision, or its session was withdrawn, nothing changes.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep(&self, arrival: &Arrival<'_>, now: WallTime) -> Result<Kept, ClinicStoreError> {
        let Arrival { record, parcel, sha256 } = arrival;
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if is_withdrawn(&transaction, &record.session_id)? {
            return Ok(Kept::Withdrawn);
        }
        if let Some(first) = held(&transaction, &record.session_id, record.revision)? {
            return Ok(Kept::Before(first));
        }
        let now = now.to_string();
        transaction.execute(
            "insert into parcels (session_id, revision, box, sha256, received_at, parcel)
             values (?1, ?2, ?3, ?4, ?5, ?6)",
            params![record.session_id, record.revision, record.box_id, sha256, now, parcel],
        )?;
        upsert(&transaction, record, &now)?;
        transaction.commit()?;
        Ok(Kept::New)
    }

    /// The newest sessions first, at most `limit`.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn sessions(&self, limit: u32) -> Result<Vec<SessionRow>, ClinicStoreError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("select * from therapy_sessions order by started_at desc, id limit ?1")?;
        Ok(statement.query_map([limit], session)?.collect::<Result<_, _>>()?)
    }

    /// The failed sessions, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn failed_sessions(&self, limit: u32) -> Result<Vec<SessionRow>, ClinicStoreError> {
        let connection = self.lock();
        let sql = "select * from therapy_sessions where status = 'failed' order by updated_at desc, id limit ?1";
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_map([limit], session)?.collect::<Result<_, _>>()?)
    }

    /// Failed sessions by their message, as the guide groups them: the most frequent first, at most `limit`.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn failure_groups(&self, limit: u32) -> Result<Vec<FailureGroup>, ClinicStoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select coalesce(error_message, ''), count(*) as failed_count, count(distinct box), max(updated_at)
             from therapy_sessions where status = 'failed'
             group by error_message order by failed_count desc, error_message limit ?1",
        )?;
        let read = |row: &Row<'_>| {
            Ok(FailureGroup {
                message: row.get(0)?,
                sessions: row.get::<_, i64>(1)?.unsigned_abs(),
                boxes: row.get::<_, i64>(2)?.unsigned_abs(),
                last_at: row.get(3)?,
            })
        };
        Ok(statement.query_map([limit], read)?.collect::<Result<_, _>>()?)
    }

    /// How many sessions there are of each status.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn session_counts(&self) -> Result<Vec<(String, u64)>, ClinicStoreError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("select status, count(*) from therapy_sessions group by status")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
        Ok(rows.map(|row| row.map(|(s, n)| (s, n.unsigned_abs()))).collect::<Result<_, _>>()?)
    }

    /// The newest parcel of a session, sealed.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn newest_parcel(&self, session: &str) -> Result<Option<SealedParcel>, ClinicStoreError> {
        let sql = "select box, revision, parcel from parcels where session_id = ?1 order by revision desc limit 1";
        let read = |row: &Row<'_>| Ok(SealedParcel { box_id: row.get(0)?, revision: row.get(1)?, bytes: row.get(2)? });
        Ok(self.lock().query_row(sql, [session], read).optional()?)
    }
}
