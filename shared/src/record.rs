//! The session record, version 1: what the box makes, the parcel carries and the clinic keeps.
//!
//! `schema/record-v1.schema.json` is the contract; these types are checked against it by tests. Times are
//! seconds from the session's start with three decimals, gaps occupying time; dates are RFC 3339 UTC.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version these types write.
pub const VERSION: u32 = 1;

/// The label of a segment whose speaker is not known.
pub const UNKNOWN_SPEAKER: &str = "Unknown Speaker";

/// The contract, as JSON Schema (draft 2020-12).
pub const SCHEMA: &str = include_str!("../schema/record-v1.schema.json");

/// Words that were said. Its `Debug` tells only how many characters there are.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Said(pub String);

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Said({} characters)", self.0.chars().count())
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The room is being recorded.
    Recording,
    /// Off the record for now.
    Paused,
    /// Ended; work remains and none is under way.
    Queued,
    /// Ended; work is under way.
    Processing,
    /// There is a transcript.
    Done,
    /// There is none; the cause is stored.
    Failed,
    /// The transcription breaker is open; it will be tried again.
    Postponed,
    /// Consent was withdrawn; everything said is destroyed.
    Withdrawn,
}

impl Status {
    /// As it stands in JSON and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Paused => "paused",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Postponed => "postponed",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether speakers were told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiarizationStatus {
    /// They were.
    Ok,
    /// It was tried, or refused by its breaker, and every segment is `Unknown Speaker`.
    Failed,
    /// Not tried: under one second, undecodable, or switched off.
    Skipped,
}

impl DiarizationStatus {
    /// As it stands in JSON and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// How far the dates can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeQuality {
    /// The kernel says the clock follows a time server.
    Synchronized,
    /// It does not, or not yet.
    Unsynchronized,
}

/// Why the room may be recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// What it rests on, e.g. `written`, `verbal`, `import`.
    pub basis: String,
    /// Who noted it: a role, never a name.
    pub by: Option<String>,
    /// When, RFC 3339 UTC.
    pub at: String,
}

/// One voice of the session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speaker {
    /// `Speaker 1`, … in order of first speech.
    pub label: String,
    /// E.g. `therapist`, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<String>,
    /// How long they spoke.
    pub seconds: f64,
}

/// How many voices there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeakerCount {
    /// The count the labels use.
    pub best: u32,
    /// Another that is nearly as likely.
    pub maybe: Option<u32>,
}

/// One word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// The word.
    pub text: Said,
    /// The transcriber's own belief, 0 to 1.
    pub probability: f64,
}

/// What a reader should know about a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Text where no speech was heard.
    NonSpeech,
    /// A loop.
    Repetition,
    /// The transcriber was not sure.
    LowConfidence,
    /// Two voices at once.
    Overlap,
    /// Its window was cut without a pause.
    BlindCut,
}

impl Flag {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::NonSpeech, Self::Repetition, Self::LowConfidence, Self::Overlap, Self::BlindCut];

    /// As records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NonSpeech => "non_speech",
            Self::Repetition => "repetition",
            Self::LowConfidence => "low_confidence",
            Self::Overlap => "overlap",
            Self::BlindCut => "blind_cut",
        }
    }
}

/// A stretch of one speaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// A label of `speakers`, or `Unknown Speaker`.
    pub speaker: String,
    /// The text.
    pub text: Said,
    /// An id of `models`.
    pub model: String,
    /// The words of it.
    pub words: Vec<Word>,
    /// What a reader should know.
    pub flags: Vec<Flag>,
    /// Why it is flagged `non_speech` or `repetition`, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What speaks against a segment having been said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Mean probability of speech, 0 to 1, by the voice activity detector; none where speakers were not told apart.
    pub speech: Option<f64>,
    /// The loudest tenth of a second, dB relative to full scale.
    pub level_dbfs: Option<f64>,
    /// How much smaller the text is compressed: above 2.4 it says the same again and again.
    pub compression_ratio: f64,
}

/// Why nothing was heard for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The sound card had more than was fetched in time.
    Overrun,
    /// The microphone was away.
    Unplugged,
    /// The microphone was muted.
    Muted,
    /// The people asked for it.
    OffRecord,
    /// The wall clock moved.
    ClockStep,
    /// The daemon was not running.
    Restart,
    /// The board was not running.
    PowerLoss,
    /// There was no room on the disk.
    DiskFull,
    /// What was stored cannot be read.
    AudioInvalid,
}

impl GapCause {
    /// As it stands in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overrun => "overrun",
            Self::Unplugged => "unplugged",
            Self::Muted => "muted",
            Self::OffRecord => "off_record",
            Self::ClockStep => "clock_step",
            Self::Restart => "restart",
            Self::PowerLoss => "power_loss",
            Self::DiskFull => "disk_full",
            Self::AudioInvalid => "audio_invalid",
        }
    }
}

/// A stretch without sound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// Why.
    pub cause: GapCause,
}

/// A model that had a part in this record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its id in the lock file.
    pub id: String,
    /// `transcriber`, `vad`, `voice`, …
    pub role: String,
    /// Its file name.
    pub file: String,
    /// Of the file, hexadecimal.
    pub sha256: String,
}

/// The highest number of attempts that any window needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// To write it down.
    pub transcription: u32,
    /// To tell the voices apart.
    pub diarization: u32,
}

/// What the work cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Processing {
    /// Time the engines were at work.
    pub seconds: f64,
    /// From the session's end to the record.
    pub seconds_after_end: f64,
}

/// Why a session failed, or lost its speakers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordError {
    /// The guide's name of the error.
    #[serde(rename = "type")]
    pub error_type: String,
    /// From the outermost error to the cause.
    pub chain: Vec<String>,
}

/// See the top of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Always [`VERSION`].
    pub version: u32,
    /// UUID.
    pub session_id: String,
    /// The box's id.
    #[serde(rename = "box")]
    pub box_id: String,
    /// From 1; a replay that changes the outcome is the next.
    pub revision: u32,
    /// `done` or `failed`.
    pub status: Status,
    /// Whether speakers were told apart.
    pub diarization_status: DiarizationStatus,
    /// A constant sentence per cause.
    pub error_message: Option<String>,
    /// The cause in full.
    pub error: Option<RecordError>,
    /// RFC 3339 UTC.
    pub started_at: String,
    /// RFC 3339 UTC.
    pub ended_at: String,
    /// Seconds, gaps included.
    pub duration_s: f64,
    /// How far the dates can be trusted.
    pub time_quality: TimeQuality,
    /// Why the room may be recorded.
    pub consent: Consent,
    /// In order of first speech.
    pub speakers: Vec<Speaker>,
    /// How many.
    pub speaker_count: SpeakerCount,
    /// In order of time.
    pub segments: Vec<Segment>,
    /// In order of time.
    pub gaps: Vec<Gap>,
    /// Every model that had a part.
    pub models: Vec<Model>,
    /// The highest of any window.
    pub attempts: Attempts,
    /// What it cost.
    pub processing: Processing,
}

/// Rounds seconds to the record's three decimals.
#[must_use]
pub fn seconds(s: f64) -> f64 {
    (s * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debug_line_never_holds_what_was_said() {
        let segment = Segment {
            start: 0.0,
            end: 1.0,
            speaker: "Speaker 1".into(),
            text: Said("xylophone".into()),
            model: "m".into(),
            words: vec![],
            flags: vec![],
            evidence: None,
        };
        assert!(!format!("{segment:?}").contains("xylophone"));
    }

    #[test]
    fn the_types_fit_the_schema_and_the_schema_refuses_what_they_could_not_say() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let record = Record {
            version: VERSION,
            session_id: "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11".into(),
            box_id: "room-1".into(),
            revision: 1,
            status: Status::Done,
            diarization_status: DiarizationStatus::Ok,
            error_message: None,
            error: Some(RecordError { error_type: "PartialProcessingError".into(), chain: vec!["a".into()] }),
            started_at: "2026-01-01T00:00:00.000Z".into(),
            ended_at: "2026-01-01T00:00:30.000Z".into(),
            duration_s: 30.0,
            time_quality: TimeQuality::Synchronized,
            consent: Consent { basis: "verbal".into(), by: None, at: "2026-01-01T00:00:00.000Z".into() },
            speakers: vec![Speaker { label: "Speaker 1".into(), role: None, seconds: 3.0 }],
            speaker_count: SpeakerCount { best: 1, maybe: None },
            segments: vec![Segment {
                start: 0.0,
                end: 1.0,
                speaker: UNKNOWN_SPEAKER.into(),
                text: Said("w".into()),
                model: "m".into(),
                words: vec![Word { start: 0.0, end: 1.0, text: Said("w".into()), probability: 0.5 }],
                flags: vec![Flag::NonSpeech, Flag::BlindCut],
                evidence: Some(Evidence { speech: Some(0.1), level_dbfs: Some(-62.0), compression_ratio: 0.8 }),
            }],
            gaps: vec![Gap { start: 1.0, end: 2.0, cause: GapCause::PowerLoss }],
            models: vec![Model { id: "m".into(), role: "voice".into(), file: "m.bin".into(), sha256: "0".repeat(64) }],
            attempts: Attempts::default(),
            processing: Processing::default(),
        };
        let mut value = serde_json::to_value(&record).unwrap();
        assert!(
            validator.is_valid(&value),
            "{:?}",
            validator.iter_errors(&value).map(|e| e.to_string()).collect::<Vec<_>>()
        );
        value["gaps"][0]["cause"] = "bored".into();
        assert!(!validator.is_valid(&value));
        value = serde_json::to_value(&record).unwrap();
        value["transcript"] = "extra".into();
        assert!(!validator.is_valid(&value));
    }
}
