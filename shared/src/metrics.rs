//! Prometheus' text format, and the breakers by the names that resilience4j dashboards know. Box and clinic write the
//! same families; a clinic adds the label `box`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::alert::{Alert, AlertState};
use crate::breaker::{Service, StateName};
use crate::guard::{Outcome, Tally};
use crate::wire::BreakerHealth;

/// The content type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every state with resilience4j's name of it.
pub const STATES: [(StateName, &str); 5] = [
    (StateName::Closed, "closed"),
    (StateName::Open, "open"),
    (StateName::HalfOpen, "half_open"),
    (StateName::ForcedOpen, "forced_open"),
    (StateName::Disabled, "disabled"),
];

/// One metric's lines.
pub struct Family {
    name: &'static str,
    lines: String,
}

impl Family {
    /// A metric of this kind: `gauge`, `counter` or `summary`.
    #[must_use]
    pub fn new(name: &'static str, kind: &str, help: &str) -> Self {
        Self { name, lines: format!("# HELP {name} {help}\n# TYPE {name} {kind}\n") }
    }

    /// One sample.
    pub fn add(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.sample("", labels, value);
    }

    /// One sample of a summary: `_count` or `_sum`.
    pub fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.sample(suffix, labels, value);
    }

    /// Label values are ids and names of enums; what comes from elsewhere is escaped all the same.
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", quoted(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a string cannot fail.
        let _ = writeln!(self.lines, "{}{suffix}{labels} {value}", self.name);
    }

    /// All lines.
    #[must_use]
    pub fn finish(self) -> String {
        self.lines
    }
}

/// The breakers of one box; `of` is `("box", id)` at a clinic and nothing on the box itself.
pub type Breakers<'a> = (Option<(&'a str, &'a str)>, &'a BTreeMap<Service, BreakerHealth>);

fn with<'a>(labels: &[(&'a str, &'a str)], of: Option<(&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().chain(of).collect()
}

/// States and counts of breakers.
#[must_use]
pub fn breakers(boxes: &[Breakers<'_>]) -> String {
    let mut states = Family::new(
        "resilience4j_circuitbreaker_state",
        "gauge",
        "The states of the circuit breaker: 1 for the one it is in",
    );
    let mut failed = Family::new(
        "resilience4j_circuitbreaker_buffered_calls",
        "gauge",
        "The number of buffered failed calls: failures in a row",
    );
    let mut open =
        Family::new("roomscribe_breaker_open_seconds", "gauge", "Seconds since it was last closed; 0 if it is");
    for (of, breakers) in boxes {
        for (service, breaker) in *breakers {
            let name = ("name", service.name());
            for (is, label) in STATES {
                states.add(&with(&[name, ("state", label)], *of), u8::from(breaker.state == is));
            }
            failed.add(&with(&[name, ("kind", "failed")], *of), breaker.failure_count);
            open.add(&with(&[name], *of), breaker.open_s.unwrap_or(0));
        }
    }
    states.finish() + &failed.finish() + &open.finish()
}

/// Guarded calls and transitions of this process.
#[must_use]
pub fn tallies(tallies: &[(Service, Tally)]) -> String {
    let mut calls = Family::new(
        "resilience4j_circuitbreaker_calls_seconds",
        "summary",
        "Guarded calls since the start, retries included, by how they ended",
    );
    let mut refused = Family::new(
        "resilience4j_circuitbreaker_not_permitted_calls_total",
        "counter",
        "Calls that were not made because the circuit breaker let nothing through",
    );
    let mut moved = Family::new(
        "roomscribe_breaker_transitions_total",
        "counter",
        "Transitions since the start, by where they led",
    );
    for (service, tally) in tallies {
        let name = ("name", service.name());
        for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Ignored] {
            let labels = [name, ("kind", outcome.name())];
            calls.part("_count", &labels, tally.calls.get(&outcome).copied().unwrap_or(0));
            calls.part("_sum", &labels, tally.took.get(&outcome).copied().unwrap_or_default().as_secs_f64());
        }
        refused
            .add(&[name, ("kind", Outcome::Refused.name())], tally.calls.get(&Outcome::Refused).copied().unwrap_or(0));
        for (to, label) in STATES {
            moved.add(&[name, ("to", label)], tally.moved.get(&to).copied().unwrap_or(0));
        }
    }
    calls.finish() + &refused.finish() + &moved.finish()
}

/// Alerts of one box; `of` as for [`Breakers`].
pub type Alerts<'a> = (Option<(&'a str, &'a str)>, &'a [Alert]);

/// Whether each alert holds, and what was measured.
#[must_use]
pub fn alerts(boxes: &[Alerts<'_>]) -> String {
    let mut firing = Family::new("roomscribe_alert_firing", "gauge", "Whether the alert holds");
    let mut enough = Family::new("roomscribe_alert_data", "gauge", "Whether there are enough samples to tell");
    let mut value =
        Family::new("roomscribe_alert_value", "gauge", "What was measured, in the unit of the alert's threshold");
    for (of, alerts) in boxes {
        for alert in *alerts {
            let labels = with(&[("alert", alert.alert.name())], *of);
            firing.add(&labels, u8::from(alert.state == AlertState::Firing));
            enough.add(&labels, u8::from(alert.state != AlertState::InsufficientData));
            if let Some(measured) = alert.value {
                value.add(&labels, measured);
            }
        }
    }
    firing.finish() + &enough.finish() + &value.finish()
}
