//! A clinic in a folder, for tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use shared::alert::{Alert, AlertName, AlertState};
use shared::breaker::{Service, StateName};
use shared::clock::{Clock as _, ScriptedClock};
pub use shared::record::Record;
use shared::record::{
    Attempts, Consent, DiarizationStatus, Gap, GapCause, Processing, RecordError, Said, Segment, Speaker, SpeakerCount,
    Status, TimeQuality,
};
use shared::seal::{Address, ClinicKeys, ClinicPublic};
use shared::wire::{BoardAlert, BoxHealth, BreakerHealth, CaptureHealth, QueueHealth};

use super::Clinic;
use super::settings::{ClinicSettings, default_listen};
use super::store::ClinicStore;

pub const SESSION: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";
pub const DATE: &str = "2026-01-01T00:00:00.000Z";

pub struct World {
    folder: tempfile::TempDir,
    pub clinic: Arc<Clinic>,
    pub public: ClinicPublic,
    pub clock: Arc<ScriptedClock>,
}

fn clinic(folder: &Path, keys: ClinicKeys, clock: Arc<ScriptedClock>) -> Arc<Clinic> {
    let settings = ClinicSettings::new("north", "server-1", ("localhost".into(), 1883), default_listen()).unwrap();
    let store = ClinicStore::open(&folder.join("clinic.db")).unwrap();
    Arc::new(Clinic::new(settings, keys, store, clock))
}

impl World {
    pub fn new() -> Self {
        let (folder, clock, keys) = (tempfile::tempdir().unwrap(), Arc::default(), ClinicKeys::generate());
        let (sealing, signing) = keys.public_hex();
        let public = ClinicPublic::from_hex(&sealing, &signing).unwrap();
        let clinic = clinic(folder.path(), keys, Arc::clone(&clock));
        Self { folder, clinic, public, clock }
    }

    /// The same folder and keys under a new process.
    pub fn killed(self) -> Self {
        let keys = ClinicKeys::from_file(&self.clinic.keys.to_file()).unwrap();
        let clinic = clinic(self.folder.path(), keys, self.clock.clone());
        Self { clinic, ..self }
    }

    /// The same folder and records with new keys; `public` are those that boxes are told from now on.
    pub fn rotated(self) -> Self {
        let keys = ClinicKeys::from_file(&self.clinic.keys.to_file()).unwrap().rotated();
        let (sealing, signing) = keys.public_hex();
        let public = ClinicPublic::from_hex(&sealing, &signing).unwrap();
        let clinic = clinic(self.folder.path(), keys, self.clock.clone());
        Self { clinic, public, ..self }
    }

    /// With Home Assistant switched on or off.
    pub fn with_home_assistant(self, is_on: bool) -> Self {
        let mut clinic = Arc::into_inner(self.clinic).unwrap();
        clinic.settings.home_assistant = is_on;
        Self { clinic: Arc::new(clinic), ..self }
    }

    /// Where its files lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The date, RFC 3339 UTC.
    pub fn now(&self) -> String {
        self.clock.now().wall.to_string()
    }

    pub fn parcel(&self, record: &Record) -> Vec<u8> {
        self.parcel_addressed(record, &record.session_id, record.revision)
    }

    pub fn parcel_addressed(&self, record: &Record, session: &str, revision: u32) -> Vec<u8> {
        let address = Address { clinic: "north", box_id: "room-1", session, revision };
        self.public.seal(record, &address).unwrap()
    }
}

pub fn record(session: &str, revision: u32) -> Record {
    let segment = |start: f64, speaker: &str, text: &str| Segment {
        start,
        end: start + 2.0,
        speaker: speaker.into(),
        text: Said(text.into()),
        model: "m".into(),
        words: vec![],
        flags: vec![],
        evidence: None,
    };
    let speaker = |label: &str| Speaker { label: label.into(), role: None, seconds: 2.0 };
    Record {
        version: 1,
        session_id: session.into(),
        box_id: "room-1".into(),
        revision,
        status: Status::Done,
        diarization_status: DiarizationStatus::Ok,
        error_message: None,
        error: None,
        started_at: DATE.into(),
        ended_at: "2026-01-01T00:01:05.000Z".into(),
        duration_s: 65.0,
        time_quality: TimeQuality::Synchronized,
        consent: Consent { basis: "verbal".into(), by: None, at: DATE.into() },
        speakers: vec![speaker("Speaker 1"), speaker("Speaker 2")],
        speaker_count: SpeakerCount { best: 2, maybe: None },
        segments: vec![segment(0.5, "Speaker 1", "xylophone"), segment(61.25, "Speaker 2", "zeppelin\u{1b}[2J")],
        gaps: vec![Gap { start: 10.0, end: 13.2, cause: GapCause::PowerLoss }],
        models: vec![],
        attempts: Attempts::default(),
        processing: Processing::default(),
    }
}

pub fn failed(session: &str, revision: u32) -> Record {
    let message = "Retry exhausted: Transcription failed: The engine process was killed by a signal";
    Record {
        status: Status::Failed,
        error_message: Some(message.into()),
        error: Some(RecordError { error_type: "TranscriptionError".into(), chain: vec![message.into()] }),
        speakers: vec![],
        segments: vec![],
        ..record(session, revision)
    }
}

pub fn health(box_id: &str, transcription: (StateName, u32), diarization: (StateName, u32)) -> BoxHealth {
    let breaker = |(state, failure_count)| BreakerHealth {
        state,
        failure_count,
        retry_after_s: None,
        open_s: None,
        reason: None,
    };
    BoxHealth {
        version: 1,
        box_id: box_id.into(),
        at: DATE.into(),
        time_quality: TimeQuality::Synchronized,
        breakers: BTreeMap::from([
            (Service::Transcription, breaker(transcription)),
            (Service::Diarization, breaker(diarization)),
        ]),
        queue: QueueHealth::default(),
        capture: CaptureHealth { state: "idle".into(), recorded_s: 0.0, peak_dbfs: None },
        board: shared::wire::BoardHealth::default(),
        transcriber: None,
        alerts: Vec::new(),
        rates: shared::store::Rates::default(),
        software: "0".into(),
    }
}

/// A rate of 30 failures in 40 calls.
pub fn firing(alert: AlertName) -> Alert {
    let (state, services) = (AlertState::Firing, Vec::new());
    Alert { alert, state, value: Some(0.75), threshold: alert.threshold(), samples: 40, services }
}

pub fn held(box_id: &str, since: &str) -> BoardAlert {
    let alert = firing(AlertName::TranscriptionFailureRate);
    BoardAlert { version: 1, box_id: box_id.into(), alert, since: since.into(), online: true }
}
