//! The published breaker health: every breaker of every box, and the worst of them.
//!
//! Plain values: no clock, no store, no network.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use shared::breaker::{Service, StateName};
use shared::clock::WallTime;
use shared::wire::{AudioProcessingHealth, Board, BoardBreaker, Topics};

use super::store::BoxRow;
use crate::uplink::Publication;

/// A box repeats its health every 30 s; one that was not heard three times is not there, whatever the broker
/// last kept of it. A broker that dies publishes no last wills.
pub const SILENT: Duration = Duration::from_secs(90);

/// Whether a box is there.
#[must_use]
pub fn is_online(row: &BoxRow, now: WallTime) -> bool {
    row.said_online && row.seen_at.is_some_and(|seen| now.since(seen) < SILENT)
}

/// The guide's four keys for one box; one that has not said anything yet counts as healthy.
#[must_use]
pub fn health_of(row: &BoxRow) -> AudioProcessingHealth {
    let breaker = |service| row.health.as_ref().and_then(|health| health.breakers.get(&service));
    let state = |service| breaker(service).map_or(StateName::Closed, |b| b.state);
    let failures = |service| breaker(service).map_or(0, |b| b.failure_count);
    AudioProcessingHealth {
        transcription_circuit: state(Service::Transcription),
        diarization_circuit: state(Service::Diarization),
        transcription_failures: failures(Service::Transcription),
        diarization_failures: failures(Service::Diarization),
    }
}

/// The worst state and the largest counts; of no boxes at all, `CLOSED` and 0.
#[must_use]
pub fn worst(rows: &[BoxRow]) -> AudioProcessingHealth {
    let all: Vec<_> = rows.iter().map(health_of).collect();
    let state = |of: fn(&AudioProcessingHealth) -> StateName| all.iter().map(of).max().unwrap_or(StateName::Closed);
    let count = |of: fn(&AudioProcessingHealth) -> u32| all.iter().map(of).max().unwrap_or(0);
    AudioProcessingHealth {
        transcription_circuit: state(|h| h.transcription_circuit),
        diarization_circuit: state(|h| h.diarization_circuit),
        transcription_failures: count(|h| h.transcription_failures),
        diarization_failures: count(|h| h.diarization_failures),
    }
}

/// The board of a clinic.
#[must_use]
pub fn compose(clinic: &str, rows: &[BoxRow], now: WallTime) -> Board {
    let breakers = rows.iter().flat_map(|row| {
        let health = row.health.iter();
        health.flat_map(move |health| {
            health.breakers.iter().map(move |(service, breaker)| BoardBreaker {
                box_id: row.box_id.clone(),
                service: *service,
                online: is_online(row, now),
                breaker: breaker.clone(),
                at: health.at.clone(),
            })
        })
    });
    let breakers = breakers.collect();
    Board { version: 1, clinic: clinic.into(), at: now.to_string(), worst: worst(rows), breakers }
}

/// Knows what was published on this line.
#[derive(Debug, Default)]
pub struct Published {
    board: Option<Board>,
    breakers: BTreeMap<String, BoardBreaker>,
}

pub(super) fn retained(topic: String, value: &impl Serialize) -> Option<Publication> {
    serde_json::to_vec(value).ok().map(|json| Publication::retained(topic, json))
}

impl Published {
    /// What must be published so that `board` is; nothing if only its date is new.
    pub fn update(&mut self, board: &Board, topics: &Topics) -> Vec<Publication> {
        let is_same = |last: &Board| Board { at: board.at.clone(), ..last.clone() } == *board;
        if self.board.as_ref().is_some_and(is_same) {
            return Vec::new();
        }
        let mut news: Vec<Publication> = retained(topics.board_breakers(), board).into_iter().collect();
        for breaker in &board.breakers {
            let topic = topics.board_breaker(&breaker.box_id, breaker.service);
            if self.breakers.get(&topic) != Some(breaker) {
                news.extend(retained(topic.clone(), breaker));
                self.breakers.insert(topic, breaker.clone());
            }
        }
        self.board = Some(board.clone());
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::health;
    use StateName::{Closed, Disabled, ForcedOpen, HalfOpen, Open};

    const NOW: WallTime = WallTime(1_767_225_600_000);

    fn row(id: &str, transcription: (StateName, u32), diarization: (StateName, u32)) -> BoxRow {
        let health = Some(health(id, transcription, diarization));
        BoxRow { box_id: id.into(), said_online: true, health, seen_at: Some(NOW) }
    }

    #[test]
    fn the_roll_up_is_the_worst_state_and_the_largest_count() {
        let rows = [row("a", (HalfOpen, 5), (Disabled, 0)), row("b", (Open, 1), (Disabled, 7))];
        let worst = worst(&rows);
        assert_eq!((worst.transcription_circuit, worst.diarization_circuit), (Open, Disabled));
        assert_eq!((worst.transcription_failures, worst.diarization_failures), (5, 7));
        let forced = [row("a", (ForcedOpen, 0), (Closed, 0)), row("b", (Open, 9), (Disabled, 0))];
        let worst = super::worst(&forced);
        assert_eq!((worst.transcription_circuit, worst.diarization_circuit), (ForcedOpen, Closed));
    }

    #[test]
    fn a_clinic_without_boxes_is_closed_and_zero() {
        let board = compose("north", &[], NOW);
        assert_eq!((board.worst.transcription_circuit, board.worst.transcription_failures), (Closed, 0));
        assert!(board.breakers.is_empty());
    }

    #[test]
    fn a_box_that_left_or_fell_silent_is_offline_and_still_counted() {
        let left = BoxRow { said_online: false, ..row("a", (Open, 5), (Closed, 0)) };
        let silent = BoxRow { seen_at: Some(WallTime(NOW.0 - 90_000)), ..row("b", (Closed, 0), (Closed, 6)) };
        let never = BoxRow { seen_at: None, ..row("c", (Closed, 0), (Closed, 0)) };
        let board = compose("north", &[left, silent, never, row("d", (Closed, 0), (Closed, 0))], NOW);
        let online: Vec<bool> = board.breakers.iter().map(|b| b.online).collect();
        assert_eq!(online, [false, false, false, false, false, false, true, true]);
        assert_eq!((board.worst.transcription_circuit, board.worst.diarization_failures), (Open, 6));
    }

    #[test]
    fn only_what_changed_is_published() {
        let topics = Topics::new("north");
        let mut published = Published::default();
        let rows = [row("a", (Closed, 0), (Closed, 0)), row("b", (Closed, 0), (Closed, 0))];
        assert_eq!(published.update(&compose("north", &rows, NOW), &topics).len(), 5, "everything at first");
        let later = WallTime(NOW.0 + 1000);
        assert!(published.update(&compose("north", &rows, later), &topics).is_empty(), "a date is no change");
        let rows = [row("a", (Open, 5), (Closed, 0)), row("b", (Closed, 0), (Closed, 0))];
        let changed = published.update(&compose("north", &rows, later), &topics);
        let changed: Vec<&str> = changed.iter().map(|p| p.topic.as_str()).collect();
        let root = "roomscribe/v1/north/board/breakers";
        assert_eq!(changed, [root.to_owned(), format!("{root}/a/transcription")]);
    }
}
