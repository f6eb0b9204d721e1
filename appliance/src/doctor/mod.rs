//! What is wrong with a box, and what to type about it: a finding for each section of the guide's troubleshooting, and
//! for what else a technician meets.
//!
//!   gather ──▶ Evidence ──▶ diagnose ──▶ Finding ──▶ Advice: symptom, figures, causes, commands
//!
//! Looking changes nothing, and judging is pure. Nothing here knows what was said.

pub mod advice;
pub mod cause;
pub mod finding;
pub mod gather;
mod judge;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use shared::alert::Alert;
use shared::breaker::Service;
use shared::clock::WallTime;
use shared::guard::View;
use shared::record::DiarizationStatus;
use shared::settings::Settings;
use shared::store::{Damage, FailureCount, QueueItem, Rate};
use shared::wire::BoardHealth;

use crate::admission::NoRoom;
use crate::capture::level::Meter;
use crate::models::Role;
use cause::Fall;
pub use finding::{Finding, Severity};
pub use judge::diagnose;

/// Everything that is judged, as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// When it was looked.
    pub at: WallTime,
    /// Who works on this root.
    pub daemon: Daemon,
    /// As they would be read now, or the defaults if they cannot be.
    pub settings: Settings,
    /// Why they cannot be used.
    pub settings_problem: Option<SettingsProblem>,
    /// Roles without a model that can be used.
    pub unusable_models: Vec<UnusableModel>,
    /// Whether the library of the voice engine was found.
    pub has_onnx_runtime: bool,
    /// What its sensors say.
    pub board: BoardHealth,
    /// What it gives.
    pub microphone: Microphone,
    /// Why the button and the lights cannot be used, if the settings name any.
    pub panel_problem: Option<String>,
    /// Ids of the sound cards there are.
    pub cards: Vec<String>,
    /// What the database holds; nothing where there is none yet.
    pub stored: Stored,
    /// Why the database cannot be used.
    pub database_problem: Option<String>,
}

/// Who works on a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Daemon {
    /// Nobody.
    Absent,
    /// A command, or a daemon that is just starting.
    Busy,
    /// A daemon that takes a call and does not answer it.
    Deaf,
    /// A daemon.
    Answers {
        /// The session being recorded.
        session: Option<String>,
        /// Whether the microphone of that session gives nothing.
        is_failing: bool,
    },
}

/// Why the settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// The file that is wrong; `None` if it is the environment, or no one file.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub problem: String,
}

/// A role without a model that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableModel {
    /// Which role.
    pub role: Role,
    /// Its file, or the role if none is installed.
    pub model: String,
    /// What is wrong with it.
    pub problem: String,
    /// A command that mends it.
    pub remedy: String,
}

/// What the microphone gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Microphone {
    /// It was not tried: a session is being recorded, or it is not known whether one is.
    NotTried,
    /// It was listened to for two seconds.
    Heard(Meter),
    /// Another program holds it.
    Busy,
    /// The card that its name asks for is not there.
    NoCard {
        /// Its id.
        card: String,
        /// Those there are.
        present: Vec<String>,
    },
    /// It cannot be opened, or gives nothing.
    Unusable {
        /// What the system says.
        problem: String,
    },
}

/// What the database holds.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Those there are on this box.
    pub breakers: BTreeMap<Service, View>,
    /// Sessions that were concluded, the newest first.
    pub concluded: Vec<Concluded>,
    /// The guide's query: messages of sessions of the last hour that ran out of attempts.
    pub exhausted: Vec<FailureCount>,
    /// Sessions concluded in the last hour, and how many of them ran out of attempts.
    pub exhausted_in_hour: Rate,
    /// The same of the last day.
    pub exhausted_in_day: Rate,
    /// What is not, or not well, at the clinic.
    pub queue: Vec<Queued>,
    /// Why another session would be refused.
    pub no_room: Option<NoRoom>,
    /// Withdrawals that the clinic has not confirmed, the oldest first.
    pub withdrawals: Vec<Withdrawal>,
    /// Sessions of which nothing may be left, and something is.
    pub not_erased: usize,
    /// What cannot be read.
    pub damage: Vec<Damage>,
    /// The six alerts.
    pub alerts: Vec<Alert>,
    /// How old the health is that the recorder last stored.
    pub health_age: Option<Duration>,
}

/// A withdrawal that the clinic has not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// UUID.
    pub session: String,
    /// Whether the clinic refused it.
    pub is_refused: bool,
    /// How long ago it was.
    pub age: Duration,
}

/// One entry of the queue.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The entry.
    pub item: QueueItem,
    /// For how long it has stood so.
    pub age: Duration,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concluded {
    /// UUID.
    pub session: String,
    /// Whether there is a transcript.
    pub is_done: bool,
    /// Whether there are speakers.
    pub diarization: Option<DiarizationStatus>,
    /// Its length at 16 kHz.
    pub samples: u64,
    /// Whether its audio still exists.
    pub audio_kept: bool,
    /// Whether its message is that of the guide's query.
    pub is_exhausted: bool,
    /// Why there are no words.
    pub no_words: Option<Fall>,
    /// Why there are no speakers.
    pub no_speakers: Option<Fall>,
}

#[cfg(test)]
mod tests;
