//! Records and parcels for a clinic that has no box: what a test of its store needs.

use serde_json::{Value, json};
use shared::clock::WallTime;
use shared::record::Record;
use shared::seal::{Address, ClinicPublic, sha256};
use sync::clinic::store::{Arrival, ClinicStore, ClinicStoreError, Kept, Place, postgres};

use crate::postgres::Postgres;

/// Whose records they are.
pub const BOX: &str = "room-1";

/// The store on a server, as a clinic server of its own would open it.
///
/// # Panics
/// If it cannot be opened.
#[must_use]
pub fn store_on(postgres: &Postgres) -> ClinicStore {
    ClinicStore::at(&place_of(postgres)).expect("the store opens")
}

/// Where that store is.
///
/// # Panics
/// Never, for a server of the kit.
#[must_use]
pub fn place_of(postgres: &Postgres) -> Place {
    let address = postgres::Address::parse(&postgres.url(), None).expect("an address");
    Place::Server(Box::new(address))
}

/// A session's id.
#[must_use]
pub fn session(number: u32) -> String {
    format!("7f1f6a0e-9a60-4b0e-8f3c-{number:012}")
}

/// A record in which nothing is said; failed, if there is a message.
///
/// # Panics
/// If a record has changed its shape.
#[must_use]
pub fn record(session: &str, revision: u32, error_message: Option<&str>) -> Record {
    let at = "2026-01-01T00:00:00.000Z";
    let status = if error_message.is_some() { "failed" } else { "done" };
    let error = error_message.map(|message| json!({ "type": "TranscriptionError", "chain": [message] }));
    let value: Value = json!({
        "version": 1, "session_id": session, "box": BOX, "revision": revision, "status": status,
        "diarization_status": "ok", "error_message": error_message, "error": error, "started_at": at,
        "ended_at": "2026-01-01T00:01:05.250Z", "duration_s": 65.25, "time_quality": "synchronized",
        "consent": { "basis": "verbal", "by": null, "at": at }, "speakers": [],
        "speaker_count": { "best": 2, "maybe": null }, "segments": [], "gaps": [], "models": [],
        "attempts": { "transcription": 1, "diarization": 1 },
        "processing": { "seconds": 1.0, "seconds_after_end": 0.5 },
    });
    serde_json::from_value(value).expect("a record")
}

/// Seals as a box does that was told these keys.
///
/// # Panics
/// If it cannot be sealed.
#[must_use]
pub fn seal(public: &ClinicPublic, clinic: &str, record: &Record) -> Vec<u8> {
    let address = Address { clinic, box_id: BOX, session: &record.session_id, revision: record.revision };
    public.seal(record, &address).expect("a parcel")
}

/// Lets the store keep these bytes as this record's parcel.
///
/// # Errors
/// Of the store.
pub fn keep(store: &ClinicStore, record: &Record, parcel: &[u8], now: WallTime) -> Result<Kept, ClinicStoreError> {
    let sha256 = sha256(parcel);
    store.keep(&Arrival { record, parcel, sha256: &sha256 }, now)
}
