//! The guide's six alerts, evaluated from counts. Decides; does nothing.
//!
//! Below its minimum of samples an alert has "insufficient data", which is neither good nor bad. An alert ends by
//! itself as soon as what it watches is good again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::breaker::{Service, StateName};
use crate::store::{Rate, Rates};
use crate::wire::BreakerHealth;

/// Which alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertName {
    /// Over 5 % of guarded transcription calls failed in 15 minutes.
    TranscriptionFailureRate,
    /// Over 10 % of guarded diarization calls failed in 15 minutes.
    DiarizationFailureRate,
    /// A breaker is open.
    BreakerOpen,
    /// A breaker is open, and has not been closed for over 5 minutes.
    BreakerOpenLong,
    /// Over 2 % of the sessions of a day ran out of attempts.
    RetryExhaustion,
    /// Records take over 90 s an hour of audio after the session's end.
    ProcessingTime,
}

impl AlertName {
    /// All six, in the guide's order.
    pub const ALL: [Self; 6] = [
        Self::TranscriptionFailureRate,
        Self::DiarizationFailureRate,
        Self::BreakerOpen,
        Self::BreakerOpenLong,
        Self::RetryExhaustion,
        Self::ProcessingTime,
    ];

    /// As it stands in topics, metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TranscriptionFailureRate => "transcription_failure_rate",
            Self::DiarizationFailureRate => "diarization_failure_rate",
            Self::BreakerOpen => "breaker_open",
            Self::BreakerOpenLong => "breaker_open_long",
            Self::RetryExhaustion => "retry_exhaustion",
            Self::ProcessingTime => "processing_time",
        }
    }

    /// The value above which it holds: a share for rates, seconds for times, a count for open breakers.
    #[must_use]
    pub fn threshold(self) -> f64 {
        match self {
            Self::TranscriptionFailureRate => 0.05,
            Self::DiarizationFailureRate => 0.10,
            Self::BreakerOpen => 0.0,
            Self::BreakerOpenLong => OPEN_LONG.as_secs_f64(),
            Self::RetryExhaustion => 0.02,
            Self::ProcessingTime => 90.0,
        }
    }

    /// Samples below which nothing is concluded.
    #[must_use]
    pub fn minimum(self) -> u64 {
        match self {
            Self::TranscriptionFailureRate | Self::DiarizationFailureRate => 20,
            Self::BreakerOpen | Self::BreakerOpenLong => 0,
            Self::RetryExhaustion => 10,
            Self::ProcessingTime => 5,
        }
    }
}

const OPEN_LONG: Duration = Duration::from_secs(5 * 60);

/// Whether an alert holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// All is well.
    Ok,
    /// Too little has happened to tell.
    InsufficientData,
    /// It holds.
    Firing,
}

impl AlertState {
    /// As it stands in JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::InsufficientData => "insufficient_data",
            Self::Firing => "firing",
        }
    }
}

/// One alert as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Which.
    pub alert: AlertName,
    /// Whether it holds.
    pub state: AlertState,
    /// What was measured, in the unit of its threshold; `null` where nothing was.
    pub value: Option<f64>,
    /// The value above which it holds.
    pub threshold: f64,
    /// How many samples the value was made of.
    pub samples: u64,
    /// The breakers it is about, for the two that are about breakers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

fn judge(alert: AlertName, value: Option<f64>, samples: u64) -> Alert {
    let threshold = alert.threshold();
    let state = match value {
        Some(_) | None if samples < alert.minimum() => AlertState::InsufficientData,
        None => AlertState::InsufficientData,
        Some(value) if value > threshold => AlertState::Firing,
        Some(_) => AlertState::Ok,
    };
    Alert { alert, state, value: value.map(rounded), threshold, samples, services: Vec::new() }
}

/// Four decimals: what is compared from second to second must not differ by nothing.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

fn rate(alert: AlertName, Rate { failed, total }: Rate) -> Alert {
    // Counts are far below 2^52.
    let share = (total > 0).then(|| failed as f64 / total as f64);
    judge(alert, share, total)
}

fn breakers(alert: AlertName, breakers: &BTreeMap<Service, BreakerHealth>) -> Alert {
    let is_open = |breaker: &&BreakerHealth| matches!(breaker.state, StateName::Open | StateName::ForcedOpen);
    let open: Vec<(Service, u64)> =
        breakers.iter().filter(|(_, b)| is_open(b)).map(|(service, b)| (*service, b.open_s.unwrap_or(0))).collect();
    let value = match alert {
        AlertName::BreakerOpenLong => open.iter().map(|(_, seconds)| *seconds).max().unwrap_or(0) as f64,
        AlertName::TranscriptionFailureRate
        | AlertName::DiarizationFailureRate
        | AlertName::BreakerOpen
        | AlertName::RetryExhaustion
        | AlertName::ProcessingTime => open.len() as f64,
    };
    let is_about = |seconds: u64| alert == AlertName::BreakerOpen || seconds as f64 > alert.threshold();
    let services = open.iter().filter(|(_, seconds)| is_about(*seconds)).map(|(service, _)| *service).collect();
    Alert { services, ..judge(alert, Some(value), breakers.len() as u64) }
}

/// Seconds after the end an hour of audio takes, over all sessions given.
fn processing(times: &[(f64, f64)]) -> Alert {
    let (audio, after): (f64, f64) = times.iter().fold((0.0, 0.0), |sum, t| (sum.0 + t.0, sum.1 + t.1));
    let value = (audio > 0.0).then(|| after / (audio / 3600.0));
    judge(AlertName::ProcessingTime, value, times.len() as u64)
}

/// All six of a box.
#[must_use]
pub fn evaluate(rates: &Rates, services: &BTreeMap<Service, BreakerHealth>) -> Vec<Alert> {
    let one = |alert| match alert {
        AlertName::TranscriptionFailureRate => rate(alert, rates.transcription),
        AlertName::DiarizationFailureRate => rate(alert, rates.diarization),
        AlertName::BreakerOpen | AlertName::BreakerOpenLong => breakers(alert, services),
        AlertName::RetryExhaustion => rate(alert, rates.exhausted),
        AlertName::ProcessingTime => processing(&rates.processing),
    };
    AlertName::ALL.into_iter().map(one).collect()
}

/// The rates of all boxes of a clinic together.
#[must_use]
pub fn pooled<'a>(boxes: impl Iterator<Item = &'a Rates>) -> Rates {
    let add =
        |a: Rate, b: Rate| Rate { failed: a.failed.saturating_add(b.failed), total: a.total.saturating_add(b.total) };
    boxes.fold(Rates::default(), |mut sum, rates| {
        sum.transcription = add(sum.transcription, rates.transcription);
        sum.diarization = add(sum.diarization, rates.diarization);
        sum.exhausted = add(sum.exhausted, rates.exhausted);
        sum.processing.extend_from_slice(&rates.processing);
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(state: StateName, open_s: Option<u64>) -> BreakerHealth {
        BreakerHealth { state, failure_count: 0, retry_after_s: None, open_s, reason: None }
    }

    fn state_of(alerts: &[Alert], name: AlertName) -> AlertState {
        alerts.iter().find(|a| a.alert == name).unwrap().state
    }

    fn rates(failed: u64, total: u64) -> Rates {
        let rate = Rate { failed, total };
        Rates { transcription: rate, diarization: rate, exhausted: rate, processing: vec![] }
    }

    #[test]
    fn a_rate_holds_above_its_threshold_and_not_at_it() {
        let state = |failed, total, name| state_of(&evaluate(&rates(failed, total), &BTreeMap::new()), name);
        assert_eq!(state(5, 100, AlertName::TranscriptionFailureRate), AlertState::Ok);
        assert_eq!(state(6, 100, AlertName::TranscriptionFailureRate), AlertState::Firing);
        assert_eq!(state(10, 100, AlertName::DiarizationFailureRate), AlertState::Ok);
        assert_eq!(state(11, 100, AlertName::DiarizationFailureRate), AlertState::Firing);
        assert_eq!(state(2, 100, AlertName::RetryExhaustion), AlertState::Ok);
        assert_eq!(state(3, 100, AlertName::RetryExhaustion), AlertState::Firing);
    }

    #[test]
    fn too_few_samples_are_neither_good_nor_bad() {
        let alerts = evaluate(&rates(19, 19), &BTreeMap::new());
        assert_eq!(state_of(&alerts, AlertName::TranscriptionFailureRate), AlertState::InsufficientData);
        assert_eq!(state_of(&alerts, AlertName::RetryExhaustion), AlertState::Firing, "ten sessions are enough");
        assert_eq!(state_of(&alerts, AlertName::ProcessingTime), AlertState::InsufficientData);
    }

    #[test]
    fn an_open_breaker_is_told_at_once_and_again_after_five_minutes_by_name() {
        let with = |open_s| {
            BTreeMap::from([
                (Service::Transcription, health(StateName::Open, Some(open_s))),
                (Service::Diarization, health(StateName::Closed, None)),
            ])
        };
        let alerts = evaluate(&Rates::default(), &with(300));
        assert_eq!(state_of(&alerts, AlertName::BreakerOpen), AlertState::Firing);
        assert_eq!(state_of(&alerts, AlertName::BreakerOpenLong), AlertState::Ok);
        let alerts = evaluate(&Rates::default(), &with(301));
        let long = alerts.iter().find(|a| a.alert == AlertName::BreakerOpenLong).unwrap();
        assert_eq!((long.state, long.services.as_slice()), (AlertState::Firing, [Service::Transcription].as_slice()));
        let half_open = BTreeMap::from([(Service::Transcription, health(StateName::HalfOpen, Some(999)))]);
        assert_eq!(state_of(&evaluate(&Rates::default(), &half_open), AlertName::BreakerOpenLong), AlertState::Ok);
    }

    #[test]
    fn processing_time_is_counted_per_hour_of_audio_over_the_last_sessions() {
        let state = |after| {
            let rates = Rates { processing: vec![(1800.0, after); 5], ..Rates::default() };
            state_of(&evaluate(&rates, &BTreeMap::new()), AlertName::ProcessingTime)
        };
        assert_eq!((state(45.0), state(45.1)), (AlertState::Ok, AlertState::Firing));
    }

    #[test]
    fn a_clinic_judges_the_calls_of_all_boxes_together() {
        let boxes = [rates(1, 12), rates(0, 12)];
        let state = |rates: &Rates| state_of(&evaluate(rates, &BTreeMap::new()), AlertName::TranscriptionFailureRate);
        assert_eq!(state(&boxes[0]), AlertState::InsufficientData);
        assert_eq!(state(&pooled(boxes.iter())), AlertState::Ok);
    }
}
