//! What a task of a session died of, read back from the stored error, and what to do about it.

use serde::Deserialize;
use serde_json::Value;
use shared::ailment::Ailment;
use shared::error::{EngineFault, ProcessingError};
use shared::paths::Root;
use shared::settings::Engine;
use shared::task::Task;

/// What a task died of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The engine gave no result.
    Engine(EngineFault),
    /// The recording did not allow it, or a person.
    Own(OwnCause),
    /// Its breaker let nothing through.
    Refused,
    /// It was stored by another version.
    Unknown,
}

/// Causes that are no engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum OwnCause {
    /// The audio cannot be decoded.
    AudioInvalid,
    /// Under one second.
    AudioTooShort,
    /// The work was begun three times and took the box down with it each time.
    ClaimsExhausted,
    /// A person has dropped the session.
    Dropped,
    /// What was stored of it cannot be read any more.
    Damaged,
}

/// How a task ended badly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fall {
    /// What it died of.
    pub cause: Cause,
    /// Whether trying again was worth it.
    pub is_retryable: bool,
}

/// Why a session has no words, and why it has no speakers, as its error tells it.
#[must_use]
pub fn falls(error: &ProcessingError) -> (Option<Fall>, Option<Fall>) {
    let details = &error.error_details;
    match error.error_type.as_str() {
        "TranscriptionError" => (Some(fall(details)), None),
        "PartialProcessingError" => (None, Some(fall(details))),
        "ParallelProcessingError" => {
            let speakers = &details["diarization_error"];
            (
                Some(fall(&details["transcription_error"])),
                Some(if speakers.is_null() { REFUSED } else { fall(speakers) }),
            )
        }
        "CircuitBreakerOpenError" => (None, Some(REFUSED)),
        _ => (None, None),
    }
}

const REFUSED: Fall = Fall { cause: Cause::Refused, is_retryable: false };

fn fall(details: &Value) -> Fall {
    let last = &details["last_exception"];
    let engine = EngineFault::deserialize(last).map(Cause::Engine);
    let cause = engine.or_else(|_| OwnCause::deserialize(last).map(Cause::Own)).unwrap_or(Cause::Unknown);
    Fall { cause, is_retryable: details["is_retryable"].as_bool().unwrap_or(false) }
}

/// Commands as they are to be typed for one root.
#[derive(Debug, Clone, Copy)]
pub struct Shell<'a>(pub &'a Root);

impl Shell<'_> {
    /// A command of the box.
    #[must_use]
    pub fn roomscribe(&self, arguments: &str) -> String {
        if self.0.is_system() {
            format!("roomscribe {arguments}")
        } else {
            format!("roomscribe {arguments} --root {}", self.0.path().display())
        }
    }

    /// Starting the daemon.
    #[must_use]
    pub fn start(&self) -> String {
        if self.0.is_system() { "systemctl start roomscribe".into() } else { self.roomscribe("run") }
    }

    /// Starting the daemon again, so that it reads its settings.
    fn restart(&self) -> Vec<String> {
        if self.0.is_system() { vec!["systemctl restart roomscribe".into()] } else { Vec::new() }
    }

    /// The log; a box in a folder has none but what its terminal shows.
    #[must_use]
    pub fn log(&self, unit: &str) -> Vec<String> {
        if self.0.is_system() { vec![format!("journalctl -u {unit} --since -1h")] } else { Vec::new() }
    }

    /// Sets a setting in a site file of its own.
    #[must_use]
    pub fn set(&self, section: &str, key: &str, value: impl std::fmt::Display) -> Vec<String> {
        let site = self.0.site();
        let file = site.join(format!("{key}.toml"));
        let mut steps = vec![
            format!("mkdir -p {}", site.display()),
            format!("printf '[{section}]\\n{key} = {value}\\n' > {}", file.display()),
        ];
        steps.extend(self.restart());
        steps
    }
}

/// What to say and to type about a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// A sentence.
    pub why: String,
    /// Commands.
    pub steps: Vec<String>,
}

impl Remedy {
    fn new(why: impl Into<String>, steps: Vec<String>) -> Self {
        Self { why: why.into(), steps }
    }
}

impl Cause {
    /// What to say and to type about it where a task died of it.
    #[must_use]
    pub fn remedy(&self, task: Task, shell: Shell<'_>) -> Remedy {
        match self {
            Self::Engine(fault) => engine_remedy(fault, task, shell),
            Self::Own(cause) => cause.remedy(shell),
            Self::Refused => Remedy::new(
                format!("The {task} circuit breaker let nothing through."),
                vec![shell.roomscribe("breaker list")],
            ),
            Self::Unknown => Remedy::new(
                "What it died of was stored by another version of this program.",
                vec![shell.roomscribe("queue list")],
            ),
        }
    }
}

impl OwnCause {
    fn remedy(self, shell: Shell<'_>) -> Remedy {
        match self {
            Self::AudioInvalid => Remedy::new("The audio cannot be decoded.", vec![shell.roomscribe("queue list")]),
            Self::AudioTooShort => Remedy::new(
                "The recordings are under one second: too short to tell voices apart.",
                vec![shell.roomscribe("sessions")],
            ),
            Self::ClaimsExhausted => {
                let mut steps = shell.log("roomscribe");
                steps.push(shell.roomscribe("queue list"));
                Remedy::new("The box went down three times while it worked on the same window.", steps)
            }
            Self::Dropped => Remedy::new("A person dropped the session.", vec![shell.roomscribe("queue list")]),
            Self::Damaged => {
                Remedy::new("What was stored of the session is damaged.", vec![shell.roomscribe("queue check")])
            }
        }
    }
}

fn engine_remedy(fault: &EngineFault, task: Task, shell: Shell<'_>) -> Remedy {
    let verify = || shell.roomscribe("models verify");
    let with_log = |step| shell.log("roomscribe").into_iter().chain([step]).collect();
    match fault {
        EngineFault::ModelUnusable { model, problem, remedy } => {
            Remedy::new(format!("Out of order: {model} {problem}."), vec![remedy.clone()])
        }
        EngineFault::OutOfMemory { limit_bytes } => out_of_memory(limit_bytes >> 20, task, shell),
        EngineFault::DeadlineExceeded { limit_ms } => Remedy::new(
            format!("The engine did not answer in {} s: the board is too slow for its model.", limit_ms / 1000),
            vec![shell.roomscribe("models fetch --all"), verify()],
        ),
        EngineFault::ChildCrashed { signal } => Remedy::new(
            format!("The engine process was killed by signal {signal}{}.", signal_means(*signal)),
            with_log(verify()),
        ),
        EngineFault::ChildExited { code } => {
            Remedy::new(format!("The engine process ended by itself with code {code}."), with_log(verify()))
        }
        EngineFault::Reported { code } => {
            Remedy::new(format!("The engine reported: {}.", code.trim_end_matches('.')), with_log(verify()))
        }
        EngineFault::Unavailable { problem } => Remedy::new(
            format!("The engine cannot be started: {}.", problem.trim_end_matches('.')),
            vec![reinstall(shell)],
        ),
        EngineFault::ThermalStop { milli_celsius, .. } => Remedy::new(
            format!("The work was stopped at {} °C: the board is too hot.", milli_celsius / 1000),
            vec![temperatures(shell)],
        ),
        EngineFault::DiskFull { .. } => {
            Remedy::new("The disk is full.", vec![format!("df -h {}", shell.0.data().display())])
        }
    }
}

/// Twice the limit, or what is shipped if that is more.
fn out_of_memory(limit_mib: u64, task: Task, shell: Shell<'_>) -> Remedy {
    let shipped = Engine::default();
    let (key, shipped_mib) = match task {
        Task::Transcription => ("transcriber_memory_mib", shipped.transcriber_memory_mib),
        Task::Diarization => ("voice_memory_mib", shipped.voice_memory_mib),
    };
    let why = format!("The engine needs more memory than engine.{key} lets it have: {limit_mib} MiB.");
    Remedy::new(why, shell.set("engine", key, (2 * limit_mib).max(shipped_mib)))
}

fn signal_means(signal: i32) -> &'static str {
    match signal {
        4 => " (an instruction that this processor does not have)",
        6 => " (it gave up by itself)",
        7 | 11 => " (it touched memory that is not its own)",
        9 => " (the kernel, when memory ran short, or a person)",
        _ => "",
    }
}

/// Getting the voice engine's library.
#[must_use]
pub fn reinstall(shell: Shell<'_>) -> String {
    if shell.0.is_system() { "apt-get install --reinstall roomscribe".into() } else { "./dev setup".into() }
}

/// Looking at what a health check has found, or mending it.
#[must_use]
pub fn look_at(ailment: &Ailment, shell: Shell<'_>) -> String {
    let data = shell.0.data();
    match ailment {
        // Thousandths of a degree.
        Ailment::TooHot { .. } => temperatures(shell),
        Ailment::UnderVoltage => "vcgencmd get_throttled".into(),
        Ailment::LowMemory { .. } => "ps -eo rss,args --sort=-rss | head".into(),
        Ailment::LowDisk { .. } => format!("du -xh --max-depth=2 {} | sort -h | tail", data.display()),
        Ailment::ModelUnusable { remedy, .. } => remedy.clone(),
    }
}

fn temperatures(shell: Shell<'_>) -> String {
    format!("cat {}", shell.0.path().join("sys/class/thermal/thermal_zone*/temp").display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::error::{
        DiarizationError, ParallelProcessingError, PartialProcessingError, TaskFailure, TranscriptionError,
    };

    const LATE: EngineFault = EngineFault::DeadlineExceeded { limit_ms: 9000 };

    fn no_words(last: TranscriptionError) -> Fall {
        let error = PartialProcessingError::Transcription(TaskFailure::at_once(last)).into_processing_error("s");
        falls(&error).0.unwrap()
    }

    fn no_speakers(last: DiarizationError) -> Fall {
        let error = PartialProcessingError::Diarization(TaskFailure::at_once(last)).into_processing_error("s");
        falls(&error).1.unwrap()
    }

    #[test]
    fn every_cause_is_read_back_from_what_is_stored() {
        use OwnCause::{AudioInvalid, AudioTooShort, ClaimsExhausted, Damaged, Dropped};
        let late = Fall { cause: Cause::Engine(LATE), is_retryable: true };
        assert_eq!(no_words(TranscriptionError::Engine { fault: LATE }), late);
        assert_eq!(no_speakers(DiarizationError::Engine { fault: LATE }), late);
        let own = |cause| Fall { cause: Cause::Own(cause), is_retryable: false };
        let invalid = TranscriptionError::AudioInvalid { problem: "x".into() };
        assert_eq!(no_words(invalid), own(AudioInvalid));
        assert_eq!(no_words(TranscriptionError::ClaimsExhausted), own(ClaimsExhausted));
        assert_eq!(no_words(TranscriptionError::Dropped), own(Dropped));
        assert_eq!(no_words(TranscriptionError::Damaged), own(Damaged));
        assert_eq!(no_speakers(DiarizationError::AudioInvalid), own(AudioInvalid));
        assert_eq!(no_speakers(DiarizationError::AudioTooShort), own(AudioTooShort));
    }

    #[test]
    fn both_causes_of_a_session_are_read_back_and_a_refusal_is_one() {
        let both = |diarization_error| {
            let transcription_error = TaskFailure::at_once(TranscriptionError::Dropped);
            let error = ParallelProcessingError { transcription_error, diarization_error }.into_processing_error("s");
            falls(&error).1.unwrap().cause
        };
        let late = TaskFailure::at_once(DiarizationError::Engine { fault: LATE });
        assert_eq!((both(Some(late)), both(None)), (Cause::Engine(LATE), Cause::Refused));
    }

    #[test]
    fn what_another_version_stored_is_no_reason_to_stop() {
        let error = ProcessingError {
            error_type: "TranscriptionError".into(),
            message: "?".into(),
            session_id: "s".into(),
            error_details: serde_json::json!({"last_exception": {"kind": "gremlins"}}),
            chain: Vec::new(),
        };
        assert_eq!(falls(&error).0.unwrap().cause, Cause::Unknown);
    }

    #[test]
    fn commands_name_the_root_where_it_is_not_the_machines_own() {
        let (system, folder) = (Root::new("/"), Root::new("/tmp/box"));
        assert_eq!(Shell(&system).roomscribe("queue list"), "roomscribe queue list");
        assert_eq!(Shell(&folder).roomscribe("queue list"), "roomscribe queue list --root /tmp/box");
        let hungry = Cause::Engine(EngineFault::OutOfMemory { limit_bytes: 512 << 20 });
        let steps = hungry.remedy(Task::Diarization, Shell(&system)).steps;
        assert_eq!(
            steps[1],
            "printf '[engine]\\nvoice_memory_mib = 1024\\n' > /var/lib/roomscribe/site/voice_memory_mib.toml"
        );
        assert_eq!(steps[2], "systemctl restart roomscribe");
    }
}
