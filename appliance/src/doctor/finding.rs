//! One thing that is wrong, or worth knowing, with the figures that say so.

use serde::Serialize;
use shared::ailment::Ailment;
use shared::alert::Alert;
use shared::breaker::{Service, StateName};
use shared::guard::View;
use shared::store::{Damage, FailureCount, Rate};
use shared::task::Task;

use super::cause::Cause;
use super::{SettingsProblem, UnusableModel};
use crate::admission::NoRoom;
use crate::capture::level::{Flaw, Meter};
use crate::models::Role;

/// How bad it is. The order is that in which people should read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something does not work until somebody acts.
    Error,
    /// Something works less well than it should.
    Warning,
    /// Worth knowing; nothing is wrong.
    Info,
}

impl Severity {
    /// As it stands in JSON and in front of a finding.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// So many times the same cause.
pub type Counted = (Cause, usize);

/// Sessions of the queue that stand alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub sessions: usize,
    /// The oldest of them, for commands.
    pub oldest: String,
    /// Why, as they say it, with how many say so.
    pub reasons: Vec<(String, usize)>,
    /// Whether the oldest still has its audio.
    pub audio_kept: bool,
}

/// Where the clinic is, and what waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// Its broker.
    pub broker: String,
    /// Parcels that wait.
    pub parcels: usize,
    /// Seconds that the oldest has waited.
    pub oldest_s: u64,
}

/// See the top of the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A setting is wrong.
    SettingsInvalid(SettingsProblem),
    /// The database cannot be used.
    DatabaseUnusable {
        /// Why.
        problem: String,
    },
    /// The database file's own structure is damaged.
    DatabaseDamaged(Damage),
    /// Rows of the database cannot be read.
    DamagedRows(Vec<Damage>),
    /// A model is missing or damaged.
    ModelUnusable(UnusableModel),
    /// The voice engine's library is not there.
    OnnxRuntimeMissing,
    /// The board is not fit for work.
    Board(Ailment),
    /// The microphone cannot be opened.
    MicrophoneUnusable {
        /// ALSA's name of it.
        device: String,
        /// What the system says.
        problem: String,
    },
    /// Another program holds the microphone.
    MicrophoneBusy {
        /// ALSA's name of it.
        device: String,
    },
    /// The card that the microphone's name asks for is not there.
    NoCard {
        /// ALSA's name of the microphone.
        device: String,
        /// The card's id.
        card: String,
        /// Those there are.
        present: Vec<String>,
    },
    /// What the microphone gives is not what a room sounds like.
    MicrophoneFlawed {
        /// In which way.
        flaw: Flaw,
        /// ALSA's name of it.
        device: String,
        /// What was heard, in figures.
        meter: Meter,
    },
    /// Which microphone is used is left to chance.
    MicrophoneUnnamed {
        /// Cards to choose from.
        present: Vec<String>,
    },
    /// A session is being recorded and the microphone gives nothing.
    MicrophoneFailing {
        /// Which session.
        session: String,
        /// ALSA's name of it.
        device: String,
    },
    /// The button and the lights cannot be used.
    PanelUnusable {
        /// What the system says.
        problem: String,
    },
    /// Another session would be refused.
    NoRoom(NoRoom),
    /// Consent was withdrawn, and something of the sessions is still here.
    NotErased {
        /// How many.
        sessions: usize,
    },
    /// Consent was withdrawn, and the clinic has not said for long, or does not, that it has destroyed its part.
    WithdrawalOpen {
        /// How many.
        sessions: usize,
        /// How many of them it refused.
        refused: usize,
        /// The oldest.
        oldest: String,
        /// Seconds since that was withdrawn.
        oldest_s: u64,
    },
    /// A breaker lets nothing through.
    BreakerOpen(OpenBreaker),
    /// A breaker has let nothing through for long, or a person holds it open: the guide's first section.
    BreakerStuckOpen(OpenBreaker),
    /// A breaker that a health check had opened lets calls try again.
    BreakerRecovering(OpenBreaker),
    /// A breaker is switched off.
    BreakerDisabled(Service),
    /// Too many sessions run out of attempts: the guide's second section.
    RetryExhaustion {
        /// The guide's query: messages and how often.
        messages: Vec<FailureCount>,
        /// Of the last hour.
        in_hour: Rate,
        /// Of the last day.
        in_day: Rate,
        /// What the last attempts died of, the most frequent first.
        causes: Vec<(Task, Counted)>,
    },
    /// No session has speakers any more: the guide's third section.
    DiarizationAlwaysFailing {
        /// How many in a row, up to now.
        sessions: usize,
        /// The newest that can be tried again.
        retry: Option<String>,
        /// What they died of, the most frequent first.
        causes: Vec<Counted>,
        /// Whether the most frequent of them is there no more.
        is_mended: bool,
    },
    /// An alert holds that no other finding explains.
    AlertFiring(Alert),
    /// Sessions failed and wait for somebody.
    DeadLetters(Waiting),
    /// The clinic refused parcels, or they are damaged.
    Refused(Waiting),
    /// Sessions are without speakers that could have some.
    Undiarized(Waiting),
    /// Parcels wait because the clinic cannot be reached.
    ClinicUnreachable(Owed, OpenBreaker),
    /// Parcels wait, and nothing says why.
    ClinicSilent(Owed),
    /// The daemon answers, and its keeper does not work.
    RecorderSilent {
        /// Seconds since it last stored its health.
        silent_s: u64,
    },
    /// A daemon takes calls and answers none.
    DaemonDeaf,
    /// No daemon runs, or it is just busy elsewhere.
    NoDaemon {
        /// Whether another command works on the root.
        is_busy: bool,
        /// Sessions that wait to be processed.
        waiting: usize,
    },
    /// The box has no clinic.
    NotEnrolled,
}

/// A breaker that lets nothing through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBreaker {
    /// What it guards.
    pub service: Service,
    /// How it stands.
    pub view: View,
    /// Since when it has not been closed, RFC 3339 UTC, where that is known.
    pub since: Option<String>,
    /// What the last calls died of, the most frequent first; empty for the link.
    pub causes: Vec<Counted>,
    /// Where its broker is, for the link.
    pub broker: Option<String>,
    /// Whether a daemon must be started before it can be told to reset it.
    pub needs_daemon: bool,
}

impl Finding {
    /// Its name, for machines and manuals.
    #[must_use]
    pub fn id(&self) -> &'static str {
        match self {
            Self::SettingsInvalid(_) => "settings_invalid",
            Self::DatabaseUnusable { .. } => "database_unusable",
            Self::DatabaseDamaged(_) => "database_damaged",
            Self::DamagedRows(_) => "damaged_rows",
            Self::ModelUnusable(_) => "model_unusable",
            Self::OnnxRuntimeMissing => "onnx_runtime_missing",
            Self::Board(ailment) => board_id(ailment),
            Self::MicrophoneUnusable { .. } => "microphone_unusable",
            Self::MicrophoneBusy { .. } => "microphone_busy",
            Self::NoCard { .. } => "microphone_card_missing",
            Self::MicrophoneFlawed { flaw, .. } => match flaw {
                Flaw::FlatLine => "microphone_flat_line",
                Flaw::Offset => "microphone_offset",
                Flaw::Clipping => "microphone_clipping",
                Flaw::TooQuiet => "microphone_too_quiet",
            },
            Self::MicrophoneUnnamed { .. } => "microphone_unnamed",
            Self::MicrophoneFailing { .. } => "microphone_failing",
            Self::PanelUnusable { .. } => "panel_unusable",
            Self::NoRoom(_) => "no_room_for_a_session",
            Self::NotErased { .. } => "withdrawn_and_not_destroyed",
            Self::WithdrawalOpen { .. } => "withdrawal_not_confirmed",
            Self::BreakerOpen(_) => "circuit_breaker_open",
            Self::BreakerStuckOpen(_) => "circuit_breaker_stuck_open",
            Self::BreakerRecovering(_) => "circuit_breaker_recovering",
            Self::BreakerDisabled(_) => "circuit_breaker_disabled",
            Self::RetryExhaustion { .. } => "high_retry_exhaustion",
            Self::DiarizationAlwaysFailing { .. } => "diarization_always_failing",
            Self::AlertFiring(_) => "alert_firing",
            Self::DeadLetters(_) => "dead_letters",
            Self::Refused(_) => "refused_by_clinic",
            Self::Undiarized(_) => "undiarized_sessions",
            Self::ClinicUnreachable(..) => "clinic_unreachable",
            Self::ClinicSilent(_) => "clinic_silent",
            Self::RecorderSilent { .. } => "recorder_silent",
            Self::DaemonDeaf => "daemon_not_answering",
            Self::NoDaemon { .. } => "no_daemon",
            Self::NotEnrolled => "not_enrolled",
        }
    }

    /// How bad it is. Without words there is no record; without speakers there still is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let without = |task: Task| match task {
            Task::Transcription => Severity::Error,
            Task::Diarization => Severity::Warning,
        };
        match self {
            Self::SettingsInvalid(_)
            | Self::DatabaseUnusable { .. }
            | Self::DatabaseDamaged(_)
            | Self::DamagedRows(_)
            | Self::Board(_)
            | Self::MicrophoneUnusable { .. }
            | Self::MicrophoneBusy { .. }
            | Self::NoCard { .. }
            | Self::MicrophoneFailing { .. }
            | Self::RecorderSilent { .. }
            | Self::NoRoom(_)
            | Self::NotErased { .. }
            | Self::Refused(_)
            | Self::DaemonDeaf => Severity::Error,
            Self::MicrophoneFlawed { flaw, .. } => match flaw {
                Flaw::FlatLine => Severity::Error,
                Flaw::Offset | Flaw::Clipping => Severity::Warning,
                // A room may well be empty while somebody looks.
                Flaw::TooQuiet => Severity::Info,
            },
            Self::ModelUnusable(model) => match model.role {
                Role::Transcriber => without(Task::Transcription),
                Role::Vad | Role::Voice | Role::Segmentation | Role::Plda => without(Task::Diarization),
            },
            // Half open, it is on its way: somebody may only have to wait for the next session.
            Self::BreakerStuckOpen(open) => match (open.service, open.view.state) {
                (Service::Transcription, StateName::Open | StateName::ForcedOpen) => Severity::Error,
                (Service::Transcription, StateName::HalfOpen | StateName::Closed | StateName::Disabled)
                | (Service::Diarization | Service::Sync, _) => Severity::Warning,
            },
            Self::RetryExhaustion { causes, .. } => {
                causes.iter().map(|(task, _)| without(*task)).min().unwrap_or(Severity::Warning)
            }
            Self::WithdrawalOpen { refused: 1.., .. } => Severity::Error,
            Self::WithdrawalOpen { .. }
            | Self::PanelUnusable { .. }
            | Self::OnnxRuntimeMissing
            | Self::BreakerOpen(_)
            | Self::DiarizationAlwaysFailing { .. }
            | Self::AlertFiring(_)
            | Self::DeadLetters(_)
            | Self::ClinicUnreachable(..)
            | Self::ClinicSilent(_) => Severity::Warning,
            Self::BreakerRecovering(_)
            | Self::BreakerDisabled(_)
            | Self::MicrophoneUnnamed { .. }
            | Self::Undiarized(_)
            | Self::NoDaemon { .. }
            | Self::NotEnrolled => Severity::Info,
        }
    }
}

fn board_id(ailment: &Ailment) -> &'static str {
    match ailment {
        Ailment::TooHot { .. } => "board_too_hot",
        Ailment::UnderVoltage => "power_supply_too_weak",
        Ailment::LowMemory { .. } => "low_memory",
        Ailment::LowDisk { .. } => "low_disk",
        Ailment::ModelUnusable { .. } => "model_unusable",
    }
}
