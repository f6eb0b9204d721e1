//! Parcels as they were sealed, and the newest revision of each session as a row.

use serde::Serialize;
use shared::clock::WallTime;
use shared::record::{Record, TimeQuality};

use super::sql::{Row, Transaction, Value};
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

/// In the order of [`session`].
const SESSIONS: &str = "select id, box, revision, created_at, updated_at, status, error_message, error_type,
    diarization_status, started_at, ended_at, duration_s, speaker_count, segment_count, gap_count, time_quality
  from therapy_sessions order by started_at desc, id limit ?1";

fn session(mut row: Row) -> Result<SessionRow, ClinicStoreError> {
    Ok(SessionRow {
        session_id: row.text()?,
        box_id: row.text()?,
        revision: row.count()?,
        created_at: row.text()?,
        updated_at: row.text()?,
        status: row.text()?,
        error_message: row.maybe_text()?,
        error_type: row.maybe_text()?,
        diarization_status: row.text()?,
        started_at: row.text()?,
        ended_at: row.text()?,
        duration_s: row.real()?,
        speakers: row.count()?,
        segments: row.count()?,
        gaps: row.count()?,
        time_quality: row.text()?,
    })
}

const HELD: &str = "select box, sha256, received_at from parcels where session_id = ?1 and revision = ?2";

fn held(rows: Vec<Row>) -> Result<Option<Held>, ClinicStoreError> {
    let read = |mut row: Row| Ok(Held { box_id: row.text()?, sha256: row.text()?, received_at: row.text()? });
    rows.into_iter().next().map(read).transpose()
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
fn upsert(transaction: &mut dyn Transaction, record: &Record, now: &str) -> Result<(), ClinicStoreError> {
    transaction.run(
        "insert into therapy_sessions (id, box, revision, created_at, updated_at, status, error_message, error_type,
           diarization_status, started_at, ended_at, duration_s, speaker_count, segment_count, gap_count, time_quality)
         values (?1, ?2, ?3, ?4, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
         on conflict (id) do update set box = ?2, revision = ?3, updated_at = ?4, status = ?5, error_message = ?6,
           error_type = ?7, diarization_status = ?8, started_at = ?9, ended_at = ?10, duration_s = ?11,
           speaker_count = ?12, segment_count = ?13, gap_count = ?14, time_quality = ?15
         where excluded.revision > therapy_sessions.revision",
        &[
            record.session_id.as_str().into(),
            record.box_id.as_str().into(),
            record.revision.into(),
            now.into(),
            record.status.name().into(),
            record.error_message.as_deref().into(),
            record.error.as_ref().map(|e| e.error_type.as_str()).into(),
            record.diarization_status.name().into(),
            record.started_at.as_str().into(),
            record.ended_at.as_str().into(),
            Value::Real(record.duration_s),
            count(&record.speakers).into(),
            count(&record.segments).into(),
            count(&record.gaps).into(),
            quality(record.time_quality).into(),
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
        held(self.ask(HELD, &[session.into(), revision.into()])?)
    }

    /// Keeps a parcel and brings its session's row up to date, in one transaction. If another was kept first
    /// under the same session and revision, or its session was withdrawn, nothing changes.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep(&self, arrival: &Arrival<'_>, now: WallTime) -> Result<Kept, ClinicStoreError> {
        let (Arrival { record, parcel, sha256 }, now) = (arrival, now.to_string());
        self.alone(&record.session_id, |transaction| {
            if is_withdrawn(transaction, &record.session_id)? {
                return Ok(Kept::Withdrawn);
            }
            let key = [record.session_id.as_str().into(), record.revision.into()];
            if let Some(first) = held(transaction.ask(HELD, &key)?)? {
                return Ok(Kept::Before(first));
            }
            let [session, revision] = key;
            transaction.run(
                "insert into parcels (session_id, revision, box, sha256, received_at, parcel)
                 values (?1, ?2, ?3, ?4, ?5, ?6)",
                &[
                    session,
                    revision,
                    record.box_id.as_str().into(),
                    (*sha256).into(),
                    now.as_str().into(),
                    Value::Bytes(parcel),
                ],
            )?;
            upsert(transaction, record, &now)?;
            Ok(Kept::New)
        })
    }

    /// The newest sessions first, at most `limit`.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn sessions(&self, limit: u32) -> Result<Vec<SessionRow>, ClinicStoreError> {
        self.ask(SESSIONS, &[limit.into()])?.into_iter().map(session).collect()
    }

    /// How many sessions there are of each status.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn session_counts(&self) -> Result<Vec<(String, u64)>, ClinicStoreError> {
        let rows = self.ask("select status, count(*) from therapy_sessions group by status order by status", &[])?;
        rows.into_iter().map(|mut row| Ok((row.text()?, row.int()?.unsigned_abs()))).collect()
    }

    /// The newest parcel of a session, sealed.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn newest_parcel(&self, session: &str) -> Result<Option<SealedParcel>, ClinicStoreError> {
        let sql = "select box, revision, parcel from parcels where session_id = ?1 order by revision desc limit 1";
        let read = |mut row: Row| Ok(SealedParcel { box_id: row.text()?, revision: row.count()?, bytes: row.bytes()? });
        self.ask(sql, &[session.into()])?.into_iter().next().map(read).transpose()
    }
}
