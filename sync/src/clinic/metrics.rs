//! `GET /metrics`: Prometheus' text format, breakers by the names that resilience4j dashboards know.

use std::fmt::Write as _;

use shared::breaker::StateName;
use shared::clock::WallTime;

use super::board::is_online;
use super::ingest::{Counters, RESULTS};
use super::store::BoxRow;

const STATES: [(StateName, &str); 5] = [
    (StateName::Closed, "closed"),
    (StateName::Open, "open"),
    (StateName::HalfOpen, "half_open"),
    (StateName::ForcedOpen, "forced_open"),
    (StateName::Disabled, "disabled"),
];

/// One metric's lines.
struct Family(String);

impl Family {
    fn new(name: &str, kind: &str, help: &str) -> Self {
        Self(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"))
    }

    /// Label values are ids and names of enums, so nothing in them needs escaping.
    fn add(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }
}

fn breakers(rows: &[BoxRow]) -> String {
    let (state, calls) = ("resilience4j_circuitbreaker_state", "resilience4j_circuitbreaker_buffered_calls");
    let mut states = Family::new(state, "gauge", "The states of the circuit breaker");
    let mut failed = Family::new(calls, "gauge", "The number of buffered failed calls: failures in a row");
    for row in rows {
        for (service, breaker) in row.health.iter().flat_map(|health| &health.breakers) {
            let (name, of) = (("name", service.name()), ("box", row.box_id.as_str()));
            for (is, label) in STATES {
                states.add(state, &[name, ("state", label), of], u64::from(breaker.state == is));
            }
            failed.add(calls, &[name, ("kind", "failed"), of], u64::from(breaker.failure_count));
        }
    }
    states.0 + &failed.0
}

/// Everything, as one page.
#[must_use]
pub fn render(
    rows: &[BoxRow],
    sessions: &[(String, u64)],
    counters: &Counters,
    connected: bool,
    now: WallTime,
) -> String {
    let mut page = breakers(rows);
    let name = "roomscribe_box_online";
    let mut online = Family::new(name, "gauge", "Whether the box is there");
    for row in rows {
        online.add(name, &[("box", &row.box_id)], u64::from(is_online(row, now)));
    }
    let name = "roomscribe_sessions";
    let mut held = Family::new(name, "gauge", "Sessions the clinic holds, by status");
    for (status, count) in sessions {
        held.add(name, &[("status", status)], *count);
    }
    let name = "roomscribe_parcels_total";
    let mut parcels = Family::new(name, "counter", "Parcels since the start, by what became of them");
    for result in RESULTS {
        parcels.add(name, &[("result", result.name())], counters.get(result));
    }
    let name = "roomscribe_broker_connected";
    let mut broker = Family::new(name, "gauge", "Whether there is a line to the broker");
    // A sample without labels has no braces' worth of meaning, and Prometheus takes the empty ones.
    broker.add(name, &[], u64::from(connected));
    for family in [online, held, parcels, broker] {
        page.push_str(&family.0);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::health;

    #[test]
    fn a_breaker_is_in_exactly_one_state_under_the_names_dashboards_know() {
        let now = WallTime(1_767_225_600_000);
        let health = health("room-1", (StateName::Open, 5), (StateName::Closed, 0));
        let row = BoxRow { box_id: "room-1".into(), said_online: true, health: Some(health), seen_at: Some(now) };
        let page = render(&[row], &[("done".into(), 2)], &Counters::default(), true, now);
        for line in [
            r#"resilience4j_circuitbreaker_state{name="transcription",state="open",box="room-1"} 1"#,
            r#"resilience4j_circuitbreaker_state{name="transcription",state="closed",box="room-1"} 0"#,
            r#"resilience4j_circuitbreaker_buffered_calls{name="transcription",kind="failed",box="room-1"} 5"#,
            r#"roomscribe_box_online{box="room-1"} 1"#,
            r#"roomscribe_sessions{status="done"} 2"#,
            r#"roomscribe_parcels_total{result="stored"} 0"#,
            "roomscribe_broker_connected{} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert_eq!(page.lines().filter(|l| l.contains("circuitbreaker_state{") && l.ends_with(" 1")).count(), 2);
    }
}
