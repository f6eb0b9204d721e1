//! The alerts that hold, in sentences.

use maud::{Markup, html};
use shared::alert::{Alert, AlertName};
use shared::wire::{BoardAlert, WHOLE_CLINIC};

use super::{date, name};

/// The section at the top of the page; one line if all is well.
pub(super) fn section(held: &[BoardAlert]) -> Markup {
    html! {
        @if held.is_empty() {
            p.dim { "No alerts." }
        } @else {
            h2 { "Alerts" }
            ul.card.alerts { @for alert in held { (item(alert)) } }
        }
    }
}

fn item(held: &BoardAlert) -> Markup {
    let whose = if held.box_id == WHOLE_CLINIC { "All rooms" } else { &held.box_id };
    let away = if held.online { "" } else { ", offline" };
    html! {
        li {
            b.bad { (whose) } " " (sentence(&held.alert)) " "
            span.since { "since " (date(&held.since)) (away) }
        }
    }
}

/// What was measured, and the limit it is over.
fn sentence(alert: &Alert) -> String {
    let (value, limit, samples) = (alert.value.unwrap_or_default(), alert.threshold, alert.samples);
    let rate = |what: &str| format!("{} of {samples} {what} (limit {})", percent(value), percent(limit));
    let services = alert.services.iter().map(|service| name(*service)).collect::<Vec<_>>().join(", ");
    match alert.alert {
        AlertName::TranscriptionFailureRate => rate("transcription calls failed within 15 minutes"),
        AlertName::DiarizationFailureRate => rate("diarization calls failed within 15 minutes"),
        AlertName::BreakerOpen => format!("Circuit breaker open: {services}"),
        AlertName::BreakerOpenLong => {
            format!("Circuit breaker open for over {:.0} minutes: {services}", limit / 60.0)
        }
        AlertName::RetryExhaustion => rate("sessions ran out of attempts within a day"),
        AlertName::ProcessingTime => {
            format!("Records take {value:.0} s per hour of audio after a session's end (limit {limit:.0} s)")
        }
    }
}

/// At most one decimal.
fn percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::alert::AlertState;
    use shared::breaker::Service;

    fn held(alert: AlertName, value: f64, samples: u64) -> BoardAlert {
        let services = match alert {
            AlertName::BreakerOpen | AlertName::BreakerOpenLong => vec![Service::Transcription, Service::Sync],
            AlertName::TranscriptionFailureRate
            | AlertName::DiarizationFailureRate
            | AlertName::RetryExhaustion
            | AlertName::ProcessingTime => vec![],
        };
        let (state, threshold) = (AlertState::Firing, alert.threshold());
        let alert = Alert { alert, state, value: Some(value), threshold, samples, services };
        let since = "2026-01-01T08:30:00.000Z".into();
        BoardAlert { version: 1, box_id: "room-1".into(), alert, since, online: true }
    }

    #[test]
    fn every_alert_says_what_was_measured_and_its_limit() {
        let cases = [
            (
                AlertName::TranscriptionFailureRate,
                0.125,
                "12.5 % of 40 transcription calls failed within 15 minutes (limit 5 %)",
            ),
            (
                AlertName::DiarizationFailureRate,
                0.2,
                "20 % of 40 diarization calls failed within 15 minutes (limit 10 %)",
            ),
            (AlertName::BreakerOpen, 2.0, "Circuit breaker open: Transcription, Link"),
            (AlertName::BreakerOpenLong, 301.0, "Circuit breaker open for over 5 minutes: Transcription, Link"),
            (AlertName::RetryExhaustion, 0.03, "3 % of 40 sessions ran out of attempts within a day (limit 2 %)"),
            (
                AlertName::ProcessingTime,
                120.4,
                "Records take 120 s per hour of audio after a session's end (limit 90 s)",
            ),
        ];
        for (alert, value, expected) in cases {
            assert_eq!(sentence(&held(alert, value, 40).alert), expected);
        }
    }

    #[test]
    fn an_alert_says_whose_it_is_since_when_and_whether_that_is_still_known() {
        let one = held(AlertName::BreakerOpen, 1.0, 3);
        let all = BoardAlert { box_id: WHOLE_CLINIC.into(), online: false, ..held(AlertName::ProcessingTime, 99.0, 5) };
        let text = section(&[one, all]).into_string();
        assert!(text.contains("room-1</b> Circuit") && text.contains("since 2026-01-01 08:30 UTC</span>"));
        assert!(text.contains("All rooms</b> Records") && text.contains("08:30 UTC, offline"));
        assert_eq!(section(&[]).into_string(), "<p class=\"dim\">No alerts.</p>");
    }
}
