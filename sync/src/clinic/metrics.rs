//! `GET /metrics` of the clinic: what a box says of itself with the label `box`, and what the clinic adds. What is judged
//! over all boxes has the label `box="board"`, which no box can have.

use shared::clock::WallTime;
use shared::metrics::{Family, alerts, breakers};
use shared::wire::WHOLE_CLINIC;

use super::alerts::together;
use super::board::is_online;
use super::ingest::{Counters, RESULTS};
use super::store::BoxRow;

/// Everything, as one page.
#[must_use]
pub fn render(
    rows: &[BoxRow],
    sessions: &[(String, u64)],
    counters: &Counters,
    connected: bool,
    now: WallTime,
) -> String {
    let all = together(rows, now);
    let known = || rows.iter().filter_map(|row| Some((Some(("box", row.box_id.as_str())), row.health.as_ref()?)));
    let mut page = breakers(&known().map(|(of, health)| (of, &health.breakers)).collect::<Vec<_>>());
    let of_boxes = known().map(|(of, health)| (of, health.alerts.as_slice()));
    let of_all = (Some(("box", WHOLE_CLINIC)), all.as_slice());
    page += &alerts(&of_boxes.chain([of_all]).collect::<Vec<_>>());
    let mut online = Family::new("roomscribe_box_online", "gauge", "Whether the box is there");
    for row in rows {
        online.add(&[("box", &row.box_id)], u8::from(is_online(row, now)));
    }
    let mut held = Family::new("roomscribe_sessions", "gauge", "Sessions the clinic holds, by status");
    for (status, count) in sessions {
        held.add(&[("status", status)], count);
    }
    let help = "Parcels since the start, by what became of them";
    let mut parcels = Family::new("roomscribe_parcels_total", "counter", help);
    for result in RESULTS {
        parcels.add(&[("result", result.name())], counters.get(result));
    }
    let mut broker = Family::new("roomscribe_broker_connected", "gauge", "Whether there is a line to the broker");
    broker.add(&[], u8::from(connected));
    page + &[online, held, parcels, broker].map(Family::finish).concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::health;
    use shared::breaker::StateName;

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
            "roomscribe_broker_connected 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        assert_eq!(page.lines().filter(|l| l.contains("circuitbreaker_state{") && l.ends_with(" 1")).count(), 2);
    }
}
