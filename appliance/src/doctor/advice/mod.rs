//! A finding in words: one sentence, the figures, what may be behind it, and what to type.

mod breaker;
mod consent;
mod guide;
mod link;
mod microphone;
mod parts;
mod sessions;

use serde_json::{Value, json};

use super::cause::Shell;
use super::finding::Finding;

/// How many of many are named.
const NAMED: usize = 5;

/// See the top of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Advice {
    /// One sentence.
    pub symptom: String,
    /// Figures by name.
    pub evidence: Vec<(&'static str, Value)>,
    /// Sentences.
    pub causes: Vec<String>,
    /// Commands, in the order in which to try them.
    pub next_steps: Vec<String>,
}

impl Finding {
    /// What to say, and to type on this root.
    #[must_use]
    pub fn advice(&self, shell: Shell<'_>) -> Advice {
        match self {
            Self::SettingsInvalid(problem) => parts::settings_invalid(problem, shell),
            Self::DatabaseUnusable { problem } => parts::database_unusable(problem, shell),
            Self::DatabaseDamaged(damage) => parts::database_damaged(damage, shell),
            Self::DamagedRows(rows) => parts::damaged_rows(rows, shell),
            Self::ModelUnusable(model) => parts::model_unusable(model),
            Self::OnnxRuntimeMissing => parts::onnx_runtime_missing(shell),
            Self::Board(ailment) => parts::board(ailment, shell),
            Self::MicrophoneUnusable { device, problem } => microphone::unusable(device, problem, shell),
            Self::MicrophoneBusy { device } => microphone::busy(device),
            Self::NoCard { device, card, present } => microphone::no_card(device, card, present, shell),
            Self::MicrophoneFlawed { flaw, device, meter } => microphone::flawed(*flaw, device, meter, shell),
            Self::MicrophoneUnnamed { present } => microphone::unnamed(present, shell),
            Self::MicrophoneFailing { session, device } => microphone::failing(session, device),
            Self::PanelUnusable { problem } => parts::panel_unusable(problem),
            Self::NoRoom(why) => consent::no_room(why, shell),
            Self::NotErased { sessions } => consent::not_erased(*sessions, shell),
            Self::WithdrawalOpen { sessions, refused, oldest, oldest_s } => {
                consent::withdrawal_open(*sessions, *refused, (oldest, *oldest_s), shell)
            }
            Self::BreakerOpen(open) | Self::BreakerStuckOpen(open) => breaker::breaker_open(open, shell),
            Self::BreakerRecovering(open) => breaker::breaker_recovering(open, shell),
            Self::BreakerDisabled(service) => breaker::breaker_disabled(*service, shell),
            Self::RetryExhaustion { messages, in_hour, in_day, causes } => {
                guide::retry_exhaustion(messages, *in_hour, *in_day, causes, shell)
            }
            Self::DiarizationAlwaysFailing { sessions, retry, causes, is_mended } => {
                guide::diarization_always_failing(*sessions, retry.as_deref(), causes, *is_mended, shell)
            }
            Self::AlertFiring(alert) => sessions::alert_firing(alert, shell),
            Self::DeadLetters(waiting) => sessions::dead_letters(waiting, shell),
            Self::Refused(waiting) => sessions::refused(waiting, shell),
            Self::Undiarized(waiting) => sessions::undiarized(waiting, shell),
            Self::ClinicUnreachable(owed, open) => link::clinic_unreachable(owed, open, shell),
            Self::ClinicSilent(owed) => link::clinic_silent(owed, shell),
            Self::RecorderSilent { silent_s } => link::recorder_silent(*silent_s, shell),
            Self::DaemonDeaf => link::daemon_deaf(shell),
            Self::NoDaemon { is_busy, waiting } => link::no_daemon(*is_busy, *waiting, shell),
            Self::NotEnrolled => link::not_enrolled(shell),
        }
    }
}

fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

fn span(seconds: u64) -> String {
    let unit = |number: u64, name| count(usize::try_from(number).unwrap_or(usize::MAX), name);
    match seconds {
        0..120 => unit(seconds, "second"),
        120..7200 => unit(seconds / 60, "minute"),
        7200..172_800 => unit(seconds / 3600, "hour"),
        _ => unit(seconds / 86_400, "day"),
    }
}

fn times(reasons: impl Iterator<Item = (String, usize)>) -> Value {
    json!(reasons.map(|(why, count)| format!("{count} × {why}")).collect::<Vec<_>>())
}

fn add(to: &mut Vec<String>, all: impl IntoIterator<Item = String>) {
    for one in all {
        if !to.contains(&one) {
            to.push(one);
        }
    }
}
