//! The guide's six errors, and the local causes behind them.
//!
//! Every cause answers in exhaustive matches: what to do next, does it blame the engine, may the session go on
//! without it. A message is a constant sentence, so that people can group by it; what
//! differs from case to case is in `details`. Nothing here can hold what was said.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ailment::Ailment;
use crate::breaker::Service;
use crate::cause_text::{self, Hint};
use crate::task::Task;

/// What is worth trying after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: it would end the same way.
    GiveUp,
    /// The same again, after a wait.
    Again,
    /// The same once more; if that ends the same way, a smaller model.
    OnceMoreThenSmaller,
    /// A smaller model; never the same again.
    Smaller,
}

/// What a handler asks of an error.
pub trait Fault: std::error::Error + Send + Sync + 'static {
    /// What is worth trying next?
    fn advice(&self) -> Advice;
    /// May trying again, in whatever way, succeed?
    fn is_retryable(&self) -> bool {
        match self.advice() {
            Advice::GiveUp => false,
            Advice::Again | Advice::OnceMoreThenSmaller | Advice::Smaller => true,
        }
    }
    /// Does this say something about the engine, or only about this recording?
    fn blames_engine(&self) -> bool;
    /// The guide's name of the error.
    fn error_type(&self) -> &'static str;
    /// What differs from case to case.
    fn details(&self) -> Value;
    /// A wait that the failed service asked for.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
    /// What a health check would find, if that is what it died of: then no other call need find it the hard way.
    fn ailment(&self) -> Option<Ailment> {
        None
    }
}

/// Why an engine process gave no result. Both engines can die in each of these ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum EngineFault {
    /// No model for this role, or one that is damaged. `remedy` is a command.
    #[error("The model is missing or damaged")]
    ModelUnusable {
        /// File name of the model, or the role if none is installed.
        model: String,
        /// What is wrong with it.
        problem: String,
        /// How to get it.
        remedy: String,
    },
    /// It asked for more memory than it may have.
    #[error("The engine ran out of memory")]
    OutOfMemory {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// It did not answer in time.
    #[error("The engine did not answer in time")]
    DeadlineExceeded {
        /// The deadline, in milliseconds.
        limit_ms: u64,
    },
    /// It died of a signal.
    #[error("The engine process was killed by a signal")]
    ChildCrashed {
        /// Which signal.
        signal: i32,
    },
    /// It ended by itself.
    #[error("The engine process ended by itself")]
    ChildExited {
        /// Its exit code.
        code: i32,
    },
    /// It answered that it could not.
    #[error("The engine reported an error")]
    Reported {
        /// What the library calls it; never content.
        code: String,
    },
    /// It cannot be started at all.
    #[error("The engine is not available")]
    Unavailable {
        /// Why, and what to do.
        problem: String,
    },
    /// The board became too hot, and the work was stopped to cool it.
    #[error("The work was stopped because the board is too hot")]
    ThermalStop {
        /// Thousandths of a degree Celsius.
        milli_celsius: i64,
        /// The most at which work is begun.
        limit_milli_celsius: i64,
    },
    /// The disk has filled up: there is no room for what the work would give.
    #[error("The disk is full")]
    DiskFull {
        /// MiB that must be free for work to begin.
        limit_mib: u64,
    },
}

impl EngineFault {
    fn advice(&self) -> Advice {
        match self {
            Self::OutOfMemory { .. } | Self::ThermalStop { .. } => Advice::Smaller,
            Self::DeadlineExceeded { .. } => Advice::OnceMoreThenSmaller,
            Self::ChildCrashed { .. } | Self::ChildExited { .. } => Advice::Again,
            // A library's words decide only where they say something; a fresh process may do better.
            Self::Reported { code } => match cause_text::read(code) {
                Hint::Final => Advice::GiveUp,
                Hint::Retryable | Hint::Unknown => Advice::Again,
            },
            Self::ModelUnusable { .. } | Self::Unavailable { .. } | Self::DiskFull { .. } => Advice::GiveUp,
        }
    }

    /// Does this say something about the engine? Heat and a full disk say something about the board, and have their
    /// own checks.
    fn blames_engine(&self) -> bool {
        match self {
            Self::ModelUnusable { .. }
            | Self::OutOfMemory { .. }
            | Self::DeadlineExceeded { .. }
            | Self::ChildCrashed { .. }
            | Self::ChildExited { .. }
            | Self::Reported { .. }
            | Self::Unavailable { .. } => true,
            Self::ThermalStop { .. } | Self::DiskFull { .. } => false,
        }
    }

    fn details(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    fn ailment(&self) -> Option<Ailment> {
        match self {
            Self::ModelUnusable { model, problem, remedy } => {
                let (model, problem, remedy) = (model.clone(), problem.clone(), remedy.clone());
                Some(Ailment::ModelUnusable { model, problem, remedy })
            }
            Self::ThermalStop { milli_celsius, limit_milli_celsius } => {
                let (milli_celsius, limit_milli_celsius) = (*milli_celsius, *limit_milli_celsius);
                Some(Ailment::TooHot { milli_celsius, limit_milli_celsius })
            }
            Self::DiskFull { limit_mib } => Some(Ailment::LowDisk { free_mib: 0, limit_mib: *limit_mib }),
            Self::OutOfMemory { .. }
            | Self::DeadlineExceeded { .. }
            | Self::ChildCrashed { .. }
            | Self::ChildExited { .. }
            | Self::Reported { .. }
            | Self::Unavailable { .. } => None,
        }
    }

    /// One line for people, with what differs from case to case.
    #[must_use]
    pub fn explain(&self) -> String {
        match self {
            Self::ModelUnusable { model, problem, remedy } => {
                format!("ModelUnusable: {model} {problem}; fetch it with: {remedy}")
            }
            Self::OutOfMemory { limit_bytes } => {
                format!("OutOfMemory: limit {} MiB", limit_bytes >> 20)
            }
            Self::DeadlineExceeded { limit_ms } => format!("DeadlineExceeded: after {limit_ms} ms"),
            Self::ChildCrashed { signal } => format!("ChildCrashed: signal {signal}"),
            Self::ChildExited { code } => format!("ChildExited: code {code}"),
            Self::Reported { code } => format!("Engine: {code}"),
            Self::Unavailable { problem } => format!("EngineUnavailable: {problem}"),
            Self::ThermalStop { milli_celsius, .. } => format!("ThermalStop: at {} °C", milli_celsius / 1000),
            Self::DiskFull { .. } => "DiskFull".into(),
        }
    }
}

/// Speech could not be turned into text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum TranscriptionError {
    /// The audio cannot be decoded.
    #[error("The audio is invalid")]
    AudioInvalid {
        /// What the decoder found.
        problem: String,
    },
    /// The work was begun three times and took the box down with it each time.
    #[error("Transcription was given up after three interrupted tries")]
    ClaimsExhausted,
    /// A person has dropped the session.
    #[error("The session was dropped by an operator")]
    Dropped,
    /// What was stored of it cannot be read any more.
    #[error("What was stored of the session is damaged")]
    Damaged,
    /// The engine gave no result.
    #[error("Transcription failed")]
    Engine {
        /// How.
        #[source]
        fault: EngineFault,
    },
}

impl TranscriptionError {
    /// The sentence people group by: this cause and what is beneath it.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::AudioInvalid { .. } | Self::ClaimsExhausted | Self::Dropped | Self::Damaged => self.to_string(),
            Self::Engine { fault } => format!("{self}: {fault}"),
        }
    }

    /// One line for people, with what differs from case to case.
    #[must_use]
    pub fn explain(&self) -> String {
        match self {
            Self::AudioInvalid { problem } => format!("AudioInvalid: {problem}"),
            Self::ClaimsExhausted => "ClaimsExhausted".into(),
            Self::Dropped => "Dropped".into(),
            Self::Damaged => "Damaged".into(),
            Self::Engine { fault } => fault.explain(),
        }
    }
}

impl Fault for TranscriptionError {
    fn advice(&self) -> Advice {
        match self {
            Self::AudioInvalid { .. } | Self::ClaimsExhausted | Self::Dropped | Self::Damaged => Advice::GiveUp,
            Self::Engine { fault } => fault.advice(),
        }
    }

    fn blames_engine(&self) -> bool {
        match self {
            Self::AudioInvalid { .. } | Self::ClaimsExhausted | Self::Dropped | Self::Damaged => false,
            Self::Engine { fault } => fault.blames_engine(),
        }
    }

    fn ailment(&self) -> Option<Ailment> {
        match self {
            Self::AudioInvalid { .. } | Self::ClaimsExhausted | Self::Dropped | Self::Damaged => None,
            Self::Engine { fault } => fault.ailment(),
        }
    }

    fn error_type(&self) -> &'static str {
        "TranscriptionError"
    }

    fn details(&self) -> Value {
        match self {
            Self::AudioInvalid { problem } => json!({"kind": "audio_invalid", "problem": problem}),
            Self::ClaimsExhausted => json!({"kind": "claims_exhausted"}),
            Self::Dropped => json!({"kind": "dropped"}),
            Self::Damaged => json!({"kind": "damaged"}),
            Self::Engine { fault } => fault.details(),
        }
    }
}

/// Voices could not be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum DiarizationError {
    /// The audio cannot be decoded.
    #[error("The audio is invalid")]
    AudioInvalid,
    /// Under one second.
    #[error("The audio is too short")]
    AudioTooShort,
    /// The work was begun three times and took the box down with it each time.
    #[error("Diarization was given up after three interrupted tries")]
    ClaimsExhausted,
    /// A person has dropped the session.
    #[error("The session was dropped by an operator")]
    Dropped,
    /// What was stored of it cannot be read any more.
    #[error("What was stored of the session is damaged")]
    Damaged,
    /// The engine gave no result.
    #[error("Diarization failed")]
    Engine {
        /// How.
        #[source]
        fault: EngineFault,
    },
}

impl DiarizationError {
    /// Whether a transcript without speakers is acceptable. Every local cause leaves one; only a site that
    /// demands speakers refuses it.
    #[must_use]
    pub fn fallback_available(&self, require_diarization: bool) -> bool {
        match self {
            Self::AudioInvalid
            | Self::AudioTooShort
            | Self::ClaimsExhausted
            | Self::Dropped
            | Self::Damaged
            | Self::Engine { .. } => !require_diarization,
        }
    }

    /// The sentence people group by: this cause and what is beneath it.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::AudioInvalid | Self::AudioTooShort | Self::ClaimsExhausted | Self::Dropped | Self::Damaged => {
                self.to_string()
            }
            Self::Engine { fault } => format!("{self}: {fault}"),
        }
    }

    /// One line for people, with what differs from case to case.
    #[must_use]
    pub fn explain(&self) -> String {
        match self {
            Self::AudioInvalid => "AudioInvalid".into(),
            Self::AudioTooShort => "AudioTooShort".into(),
            Self::ClaimsExhausted => "ClaimsExhausted".into(),
            Self::Dropped => "Dropped".into(),
            Self::Damaged => "Damaged".into(),
            Self::Engine { fault } => fault.explain(),
        }
    }
}

impl Fault for DiarizationError {
    fn advice(&self) -> Advice {
        match self {
            Self::AudioInvalid | Self::AudioTooShort | Self::ClaimsExhausted | Self::Dropped | Self::Damaged => {
                Advice::GiveUp
            }
            Self::Engine { fault } => fault.advice(),
        }
    }

    fn blames_engine(&self) -> bool {
        match self {
            Self::AudioInvalid | Self::AudioTooShort | Self::ClaimsExhausted | Self::Dropped | Self::Damaged => false,
            Self::Engine { fault } => fault.blames_engine(),
        }
    }

    fn ailment(&self) -> Option<Ailment> {
        match self {
            Self::AudioInvalid | Self::AudioTooShort | Self::ClaimsExhausted | Self::Dropped | Self::Damaged => None,
            Self::Engine { fault } => fault.ailment(),
        }
    }

    fn error_type(&self) -> &'static str {
        "DiarizationError"
    }

    fn details(&self) -> Value {
        match self {
            Self::AudioInvalid => json!({"kind": "audio_invalid"}),
            Self::AudioTooShort => json!({"kind": "audio_too_short"}),
            Self::ClaimsExhausted => json!({"kind": "claims_exhausted"}),
            Self::Dropped => json!({"kind": "dropped"}),
            Self::Damaged => json!({"kind": "damaged"}),
            Self::Engine { fault } => fault.details(),
        }
    }
}

/// The breaker refused the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("The circuit breaker is open")]
pub struct CircuitBreakerOpenError {
    /// Which service it guards.
    pub service_name: Service,
    /// Failed calls in a row.
    pub failure_count: u32,
    /// When to ask again; `None` if only a person can change that.
    pub retry_after: Option<Duration>,
    /// What a health check has found, if that is why.
    pub ailment: Option<Ailment>,
}

/// One attempt that failed, for the history that is stored with the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// From 1.
    pub number: u32,
    /// How many models smaller than the best were used.
    pub rung: u32,
    /// What it died of, as its constant sentence.
    pub error: String,
    /// What differs from case to case.
    pub details: Value,
    /// How long was waited after it, in milliseconds.
    pub waited_ms: u64,
}

/// Every attempt failed, though each might have gone well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Retry exhausted")]
pub struct RetryExhaustedError<E: Fault> {
    /// Attempts made, the first included.
    pub retry_count: u32,
    /// What the last attempt died of.
    #[source]
    pub last_exception: E,
    /// What each attempt died of.
    pub history: Vec<FailedAttempt>,
}

/// How a guarded call ended badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError<E: Fault> {
    /// It was never made.
    #[error(transparent)]
    Open(CircuitBreakerOpenError),
    /// It failed in a way that trying again does not mend.
    #[error("The call failed")]
    Failed {
        /// What the last attempt died of.
        #[source]
        last_exception: E,
        /// What each attempt died of.
        history: Vec<FailedAttempt>,
    },
    /// It was tried as often as allowed.
    #[error(transparent)]
    Exhausted(RetryExhaustedError<E>),
}

/// A finished failure of one task, as the work row keeps it and the verdict reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure<E> {
    /// Attempts made.
    pub retry_count: u32,
    /// Whether it ended because attempts ran out.
    pub exhausted: bool,
    /// What the last attempt died of.
    pub last_exception: E,
    /// What each attempt died of.
    pub history: Vec<String>,
}

impl<E: Fault> TaskFailure<E> {
    /// A failure that was not worth a second try.
    #[must_use]
    pub fn at_once(error: E) -> Self {
        let history = vec![error.to_string()];
        Self { retry_count: 1, exhausted: false, last_exception: error, history }
    }
}

impl<E: Fault> From<RetryExhaustedError<E>> for TaskFailure<E> {
    fn from(e: RetryExhaustedError<E>) -> Self {
        let history = e.history.into_iter().map(|attempt| attempt.error).collect();
        Self { retry_count: e.retry_count, exhausted: true, last_exception: e.last_exception, history }
    }
}

/// One task went well and the other did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartialProcessingError {
    /// There is no text: fatal, and reported as a [`TranscriptionError`].
    Transcription(TaskFailure<TranscriptionError>),
    /// There are no speakers.
    Diarization(TaskFailure<DiarizationError>),
}

impl PartialProcessingError {
    /// The task that went well.
    #[must_use]
    pub fn succeeded_task(&self) -> Task {
        match self {
            Self::Transcription(_) => Task::Diarization,
            Self::Diarization(_) => Task::Transcription,
        }
    }

    /// The task that failed.
    #[must_use]
    pub fn failed_task(&self) -> Task {
        match self {
            Self::Transcription(_) => Task::Transcription,
            Self::Diarization(_) => Task::Diarization,
        }
    }
}

/// Both tasks failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParallelProcessingError {
    /// Why there is no text.
    pub transcription_error: TaskFailure<TranscriptionError>,
    /// Why there are no speakers; `None` if the breaker refused to try.
    pub diarization_error: Option<TaskFailure<DiarizationError>>,
}

/// The base of all: what a failed session keeps and shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessingError {
    /// The class of the error, by the guide's name.
    pub error_type: String,
    /// A constant sentence per cause, without numbers or ids.
    pub message: String,
    /// Which session.
    pub session_id: String,
    /// What differs from case to case.
    pub error_details: Value,
    /// From the outermost error to the innermost cause, each one line.
    pub chain: Vec<String>,
}

fn sentence<E: Fault>(failure: &TaskFailure<E>, cause: &str) -> String {
    if failure.exhausted { format!("Retry exhausted: {cause}") } else { cause.to_owned() }
}

fn details<E: Fault>(failure: &TaskFailure<E>) -> Value {
    json!({
        "is_retryable": failure.last_exception.is_retryable(),
        "retry_count": failure.retry_count,
        "last_exception": failure.last_exception.details(),
        "history": failure.history,
    })
}

impl PartialProcessingError {
    /// As the session keeps it.
    #[must_use]
    pub fn into_processing_error(self, session_id: &str) -> ProcessingError {
        let (succeeded, failed) = (self.succeeded_task().name(), self.failed_task().name());
        let (error_type, message, explained, mut error_details) = match &self {
            Self::Transcription(f) => (
                f.last_exception.error_type(),
                sentence(f, &f.last_exception.sentence()),
                f.last_exception.explain(),
                details(f),
            ),
            Self::Diarization(f) => (
                "PartialProcessingError",
                sentence(f, &f.last_exception.sentence()),
                f.last_exception.explain(),
                details(f),
            ),
        };
        // Audio that is no audio is decided before both tasks: nothing succeeded.
        let is_invalid = matches!(&self, Self::Transcription(f)
            if matches!(f.last_exception, TranscriptionError::AudioInvalid { .. }));
        error_details["succeeded_task"] = if is_invalid { Value::Null } else { json!(succeeded) };
        error_details["failed_task"] = json!(failed);
        error_details["failed_exception"] = error_details["last_exception"].clone();
        ProcessingError {
            error_type: error_type.into(),
            chain: vec![format!("{error_type}: {message}"), explained],
            message,
            session_id: session_id.into(),
            error_details,
        }
    }
}

impl ParallelProcessingError {
    /// As the session keeps it.
    #[must_use]
    pub fn into_processing_error(self, session_id: &str) -> ProcessingError {
        let t = &self.transcription_error;
        let transcription = sentence(t, &t.last_exception.sentence());
        let diarization = self
            .diarization_error
            .as_ref()
            .map_or_else(|| "The circuit breaker is open".to_owned(), |d| sentence(d, &d.last_exception.sentence()));
        let mut chain = vec![
            "ParallelProcessingError: Transcription and diarization failed".to_owned(),
            format!("TranscriptionError: {transcription}"),
            t.last_exception.explain(),
            format!("DiarizationError: {diarization}"),
        ];
        chain.extend(self.diarization_error.as_ref().map(|d| d.last_exception.explain()));
        ProcessingError {
            error_type: "ParallelProcessingError".into(),
            message: format!("Both tasks failed. {transcription}. {diarization}."),
            session_id: session_id.into(),
            error_details: json!({
                "is_retryable": t.last_exception.is_retryable(),
                "retry_count": t.retry_count,
                "transcription_error": details(t),
                "diarization_error": self.diarization_error.as_ref().map(details),
            }),
            chain,
        }
    }
}

/// The whole chain of an error in one line, for a log.
#[must_use]
pub fn report(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashed() -> TranscriptionError {
        TranscriptionError::Engine { fault: EngineFault::ChildCrashed { signal: 9 } }
    }

    #[test]
    fn messages_group_the_same_cause_and_carry_no_numbers() {
        for signal in [6, 9, 11] {
            let error = TranscriptionError::Engine { fault: EngineFault::ChildCrashed { signal } };
            assert_eq!(error.sentence(), "Transcription failed: The engine process was killed by a signal");
        }
    }

    #[test]
    fn an_exhausted_retry_says_so_first() {
        let failure = TaskFailure::from(RetryExhaustedError {
            retry_count: 3,
            last_exception: crashed(),
            history: vec![FailedAttempt { number: 1, rung: 0, error: "x".into(), details: Value::Null, waited_ms: 0 }],
        });
        let error = PartialProcessingError::Transcription(failure).into_processing_error("s");
        assert!(error.message.starts_with("Retry exhausted"));
        assert_eq!(error.session_id, "s");
        assert_eq!(error.error_type, "TranscriptionError");
        assert_eq!(error.error_details["retry_count"], 3);
        assert_eq!(error.error_details["failed_exception"]["signal"], 9);
        assert_eq!(error.error_details["succeeded_task"], "diarization");
    }

    #[test]
    fn short_or_broken_recordings_do_not_blame_the_engine() {
        assert!(!TranscriptionError::AudioInvalid { problem: String::new() }.blames_engine());
        assert!(!DiarizationError::AudioTooShort.blames_engine());
        assert!(crashed().blames_engine());
    }

    #[test]
    fn what_is_tried_next_depends_on_what_happened() {
        let advice = |fault| TranscriptionError::Engine { fault }.advice();
        assert_eq!(advice(EngineFault::OutOfMemory { limit_bytes: 1 }), Advice::Smaller);
        assert_eq!(
            advice(EngineFault::ThermalStop { milli_celsius: 85_000, limit_milli_celsius: 80_000 }),
            Advice::Smaller
        );
        assert_eq!(advice(EngineFault::DeadlineExceeded { limit_ms: 1 }), Advice::OnceMoreThenSmaller);
        assert_eq!(advice(EngineFault::ChildCrashed { signal: 11 }), Advice::Again);
        assert_eq!(advice(EngineFault::DiskFull { limit_mib: 128 }), Advice::GiveUp);
        assert_eq!(TranscriptionError::AudioInvalid { problem: String::new() }.advice(), Advice::GiveUp);
    }

    #[test]
    fn a_librarys_words_decide_only_by_whole_tokens() {
        let advice = |code: &str| TranscriptionError::Engine { fault: EngineFault::Reported { code: code.into() } };
        assert!(!advice("invalid audio format").is_retryable());
        assert!(advice("temporarily unavailable").is_retryable());
        assert!(advice("took 4003 ms").is_retryable(), "it says nothing, so a fresh process may try");
    }

    #[test]
    fn heat_and_a_full_disk_do_not_blame_the_engine() {
        for fault in [
            EngineFault::ThermalStop { milli_celsius: 1, limit_milli_celsius: 0 },
            EngineFault::DiskFull { limit_mib: 1 },
        ] {
            assert!(!TranscriptionError::Engine { fault: fault.clone() }.blames_engine());
            assert!(fault.ailment().is_some_and(|ailment| ailment.is_of_the_board()), "work waits for it");
            assert!(!DiarizationError::Engine { fault }.blames_engine());
        }
    }

    #[test]
    fn a_cause_survives_being_stored() {
        let stored = serde_json::to_string(&TaskFailure::at_once(crashed())).unwrap();
        let back: TaskFailure<TranscriptionError> = serde_json::from_str(&stored).unwrap();
        assert_eq!(back, TaskFailure::at_once(crashed()));
    }
}
