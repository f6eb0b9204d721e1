//! What to say and to type about sessions that wait for somebody, and about calls that fail too often.

use serde_json::{Value, json};
use shared::alert::{Alert, AlertName};

use super::{Advice, count, times};
use crate::doctor::cause::Shell;
use crate::doctor::finding::Waiting;

pub(super) fn alert_firing(alert: &Alert, shell: Shell<'_>) -> Advice {
    let (symptom, cause) = match alert.alert {
        AlertName::TranscriptionFailureRate => {
            ("Too many transcription calls failed in the last 15 minutes.", "The engine or its model is not sound.")
        }
        AlertName::DiarizationFailureRate => {
            ("Too many diarization calls failed in the last 15 minutes.", "The voice engine or a model is not sound.")
        }
        AlertName::ProcessingTime => (
            "Records take too long after the session's end.",
            "The board is too slow for its transcription model, or something else uses the processor.",
        ),
        AlertName::BreakerOpen | AlertName::BreakerOpenLong => {
            ("A circuit breaker is open.", "Its calls failed several times in a row, or a health check did.")
        }
        AlertName::RetryExhaustion => {
            ("Too many sessions of a day ran out of attempts.", "The engine or its model is not sound.")
        }
    };
    let steps = match alert.alert {
        AlertName::ProcessingTime => vec![shell.roomscribe("models fetch --all"), "top -b -n 1 | head -15".into()],
        AlertName::TranscriptionFailureRate
        | AlertName::DiarizationFailureRate
        | AlertName::BreakerOpen
        | AlertName::BreakerOpenLong
        | AlertName::RetryExhaustion => {
            vec![shell.roomscribe("failures --since 1h"), shell.roomscribe("models verify")]
        }
    };
    Advice {
        symptom: symptom.into(),
        evidence: vec![
            ("alert", json!(alert.alert)),
            ("value", json!(alert.value)),
            ("threshold", json!(alert.threshold)),
            ("samples", json!(alert.samples)),
        ],
        causes: vec![cause.into()],
        next_steps: steps,
    }
}

fn figures(waiting: &Waiting) -> Vec<(&'static str, Value)> {
    vec![
        ("sessions", json!(waiting.sessions)),
        ("why", times(waiting.reasons.iter().cloned())),
        ("oldest", json!(waiting.oldest)),
    ]
}

pub(super) fn dead_letters(waiting: &Waiting, shell: Shell<'_>) -> Advice {
    let oldest = &waiting.oldest;
    let (cause, last) = if waiting.audio_kept {
        let cause = "Mend what they say, then try them again; the box does so by itself in its off-peak hours.";
        (cause, format!("queue retry {oldest}"))
    } else {
        ("The oldest has no audio to try again with: give it up.", format!("queue drop {oldest} --yes"))
    };
    Advice {
        symptom: format!("{} failed, kept for somebody to look at: dead letters.", count(waiting.sessions, "session")),
        evidence: figures(waiting),
        causes: vec![cause.into()],
        next_steps: vec![
            shell.roomscribe("queue list"),
            shell.roomscribe(&format!("queue show {oldest}")),
            shell.roomscribe(&last),
        ],
    }
}

pub(super) fn refused(waiting: &Waiting, shell: Shell<'_>) -> Advice {
    let oldest = &waiting.oldest;
    Advice {
        symptom: format!("The clinic will not take {} as sent.", count(waiting.sessions, "record")),
        evidence: figures(waiting),
        causes: vec!["The clinic says why. Speak to whoever runs it, then send again.".into()],
        next_steps: vec![
            shell.roomscribe(&format!("queue show {oldest}")),
            shell.roomscribe(&format!("queue retry {oldest}")),
        ],
    }
}

pub(super) fn undiarized(waiting: &Waiting, shell: Shell<'_>) -> Advice {
    Advice {
        symptom: format!("{} without speakers can still get them.", count(waiting.sessions, "session")),
        evidence: figures(waiting),
        causes: vec!["Their audio is kept; the box tries again by itself in its off-peak hours.".into()],
        next_steps: vec![shell.roomscribe(&format!("queue retry {}", waiting.oldest))],
    }
}
