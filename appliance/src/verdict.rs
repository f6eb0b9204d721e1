//! The decision matrix: from how both tasks ended to what becomes of the session. Decides; does nothing.

use serde_json::json;
use shared::error::{
    CircuitBreakerOpenError, DiarizationError, ParallelProcessingError, PartialProcessingError, ProcessingError,
    TaskFailure, TranscriptionError,
};
use shared::store::{Row, RowState};
use shared::task::Task;

/// How a task ended over all windows of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended<E> {
    /// Every window is done.
    Ok,
    /// Some were refused by the breaker, and none failed.
    Refused,
    /// At least one failed; the first.
    Failed(TaskFailure<E>),
    /// There was nothing to do: too short, or switched off.
    NotTried,
}

impl<E: Clone> Ended<E> {
    /// From the rows of one task.
    #[must_use]
    pub fn of<R>(rows: &[Row<R, TaskFailure<E>>]) -> Self {
        if rows.is_empty() {
            return Self::NotTried;
        }
        if let Some(cause) = rows.iter().filter(|r| r.state == RowState::Failed).find_map(|r| r.cause.clone()) {
            return Self::Failed(cause);
        }
        if rows.iter().all(|r| r.state == RowState::Done) { Self::Ok } else { Self::Refused }
    }
}

/// Why a session has no speakers though it was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The task failed.
    Failed(TaskFailure<DiarizationError>),
    /// Its breaker let nothing through.
    Refused(CircuitBreakerOpenError),
}

impl Loss {
    fn fallback_available(&self, require_diarization: bool) -> bool {
        match self {
            Self::Failed(failure) => failure.last_exception.fallback_available(require_diarization),
            Self::Refused(_) => !require_diarization,
        }
    }

    /// As the session keeps it.
    #[must_use]
    pub fn into_processing_error(self, session: &str) -> ProcessingError {
        match self {
            Self::Failed(failure) => PartialProcessingError::Diarization(failure).into_processing_error(session),
            Self::Refused(refusal) => ProcessingError {
                error_type: "CircuitBreakerOpenError".into(),
                message: "The diarization circuit breaker is open".into(),
                session_id: session.into(),
                error_details: json!({
                    "service_name": refusal.service_name,
                    "failure_count": refusal.failure_count,
                    "retry_after": refusal.retry_after.map(|d| d.as_secs_f64()),
                    "reason": refusal.ailment.as_ref().map(|ailment| ailment.explain()),
                    "is_retryable": false,
                    "retry_count": 0,
                    "succeeded_task": Task::Transcription,
                    "failed_task": Task::Diarization,
                }),
                chain: vec!["CircuitBreakerOpenError: The diarization circuit breaker is open".into()],
            },
        }
    }
}

/// What becomes of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A transcript with speakers.
    Diarized,
    /// A transcript without: the cause, or `None` if speakers were not tried for.
    Undiarized(Option<Loss>),
    /// No transcript, or one that the site does not accept without speakers.
    Failed(Failure),
    /// Tried again when the transcription breaker lets it.
    Postponed,
}

/// Why a session failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// One half did.
    Partial(PartialProcessingError),
    /// Speakers were refused where the site demands them.
    Refused(CircuitBreakerOpenError),
    /// Both did.
    Parallel(ParallelProcessingError),
}

impl Failure {
    /// As the session keeps it.
    #[must_use]
    pub fn into_processing_error(self, session: &str) -> ProcessingError {
        match self {
            Self::Partial(error) => error.into_processing_error(session),
            Self::Refused(refusal) => Loss::Refused(refusal).into_processing_error(session),
            Self::Parallel(error) => error.into_processing_error(session),
        }
    }

    /// Whether both tasks failed, which is logged as critical.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        match self {
            Self::Partial(_) | Self::Refused(_) => false,
            Self::Parallel(_) => true,
        }
    }
}

/// Decides. `refusal` says why the diarization breaker refuses, for rows that say only that it did.
#[must_use]
pub fn decide(
    transcription: Ended<TranscriptionError>,
    diarization: Ended<DiarizationError>,
    refusal: CircuitBreakerOpenError,
    require_diarization: bool,
) -> Verdict {
    let loss = match diarization {
        Ended::Ok => Ok(()),
        Ended::NotTried => Err(None),
        Ended::Refused => Err(Some(Loss::Refused(refusal))),
        Ended::Failed(failure) => Err(Some(Loss::Failed(failure))),
    };
    match (transcription, loss) {
        (Ended::Ok, Ok(())) => Verdict::Diarized,
        (Ended::Ok, Err(None)) => Verdict::Undiarized(None),
        (Ended::Ok, Err(Some(why))) if why.fallback_available(require_diarization) => Verdict::Undiarized(Some(why)),
        (Ended::Ok, Err(Some(Loss::Failed(why)))) => {
            Verdict::Failed(Failure::Partial(PartialProcessingError::Diarization(why)))
        }
        (Ended::Ok, Err(Some(Loss::Refused(refusal)))) => Verdict::Failed(Failure::Refused(refusal)),
        (Ended::Refused, _) => Verdict::Postponed,
        (Ended::Failed(transcription_error), Err(Some(Loss::Failed(why)))) => {
            let diarization_error = Some(why);
            Verdict::Failed(Failure::Parallel(ParallelProcessingError { transcription_error, diarization_error }))
        }
        (Ended::Failed(transcription_error), Err(Some(Loss::Refused(_)))) => {
            let diarization_error = None;
            Verdict::Failed(Failure::Parallel(ParallelProcessingError { transcription_error, diarization_error }))
        }
        (Ended::Failed(why), Ok(()) | Err(None)) => {
            Verdict::Failed(Failure::Partial(PartialProcessingError::Transcription(why)))
        }
        (Ended::NotTried, _) => Verdict::Failed(Failure::Partial(PartialProcessingError::Transcription(
            TaskFailure::at_once(TranscriptionError::AudioInvalid { problem: "nothing was recorded".into() }),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::breaker::Service;
    use shared::error::EngineFault;

    fn refusal() -> CircuitBreakerOpenError {
        CircuitBreakerOpenError {
            service_name: Service::Diarization,
            failure_count: 5,
            retry_after: None,
            ailment: None,
        }
    }

    fn transcription() -> [Ended<TranscriptionError>; 4] {
        let failure =
            TaskFailure::at_once(TranscriptionError::Engine { fault: EngineFault::ChildCrashed { signal: 9 } });
        [Ended::Ok, Ended::Refused, Ended::Failed(failure), Ended::NotTried]
    }

    fn diarization() -> [Ended<DiarizationError>; 4] {
        let failure =
            TaskFailure::at_once(DiarizationError::Engine { fault: EngineFault::OutOfMemory { limit_bytes: 1 } });
        [Ended::Ok, Ended::Refused, Ended::Failed(failure), Ended::NotTried]
    }

    /// Every combination of the matrix, by short names: T/D ok, refused, failed, not tried.
    #[test]
    fn every_combination_is_decided_as_the_design_says() {
        let expected = [
            ["diarized", "undiarized failed", "undiarized failed", "undiarized skipped"],
            ["postponed", "postponed", "postponed", "postponed"],
            ["failed partial", "failed both", "failed both", "failed partial"],
            ["failed partial", "failed partial", "failed partial", "failed partial"],
        ];
        for (t, transcription) in transcription().into_iter().enumerate() {
            for (d, diarization) in diarization().into_iter().enumerate() {
                let verdict = decide(transcription.clone(), diarization, refusal(), false);
                let name = match verdict {
                    Verdict::Diarized => "diarized",
                    Verdict::Undiarized(Some(_)) => "undiarized failed",
                    Verdict::Undiarized(None) => "undiarized skipped",
                    Verdict::Failed(failure) if failure.is_critical() => "failed both",
                    Verdict::Failed(_) => "failed partial",
                    Verdict::Postponed => "postponed",
                };
                assert_eq!(name, expected[t][d], "row {t}, column {d}");
            }
        }
    }

    #[test]
    fn a_site_that_demands_speakers_gets_no_transcript_without_them() {
        let [ok, refused, failed, not_tried] = diarization();
        let decide = |d| decide(Ended::Ok, d, refusal(), true);
        assert_eq!(decide(ok), Verdict::Diarized);
        assert!(matches!(decide(refused), Verdict::Failed(Failure::Refused(_))));
        assert!(matches!(decide(failed), Verdict::Failed(Failure::Partial(_))));
        assert_eq!(decide(not_tried), Verdict::Undiarized(None));
    }

    #[test]
    fn a_failed_transcription_is_reported_as_such_and_both_as_both() {
        let [_, _, failed, _] = transcription();
        let [ok, _, lost, _] = diarization();
        let error = |verdict| match verdict {
            Verdict::Failed(failure) => failure.into_processing_error("s"),
            other => panic!("{other:?}"),
        };
        assert_eq!(error(decide(failed.clone(), ok, refusal(), false)).error_type, "TranscriptionError");
        let both = error(decide(failed, lost, refusal(), false));
        assert_eq!(both.error_type, "ParallelProcessingError");
        assert_eq!(both.error_details["diarization_error"]["last_exception"]["kind"], "out_of_memory");
    }
}
