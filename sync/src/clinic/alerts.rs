//! The alerts that hold: of every box as it said, and of all boxes together.
//!
//! ```text
//! what boxes said ─▶ holding ─▶ begun and ended (log, store) ─▶ what to publish and what to clear
//! ```
//!
//! What a box judged stays as it last said while the box is away. What is judged over all boxes is judged again each
//! time, from calls that may still lie in the alert's window. Plain values: no clock, no store, no network.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::alert::{Alert, AlertName, AlertState, evaluate, pooled};
use shared::clock::WallTime;
use shared::store::Rates;
use shared::wire::{BoardAlert, Topics, WHOLE_CLINIC};

use super::board::{is_online, retained};
use super::store::BoxRow;
use crate::uplink::Publication;

/// One alert of one box, or of [`WHOLE_CLINIC`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Which alert.
    pub alert: AlertName,
    /// Whose.
    pub box_id: String,
}

impl Key {
    /// Of an alert on the board.
    #[must_use]
    pub fn of(held: &BoardAlert) -> Self {
        Self { alert: held.alert.alert, box_id: held.box_id.clone() }
    }
}

/// Since when alerts hold, RFC 3339 UTC.
pub type Since = BTreeMap<Key, String>;

/// How far back the calls of an alert lie at most; a box that was last heard before that has nothing to add to what is
/// judged together. `None` where they may be of any age.
fn window(alert: AlertName) -> Option<Duration> {
    match alert {
        AlertName::TranscriptionFailureRate | AlertName::DiarizationFailureRate => Some(Duration::from_secs(15 * 60)),
        AlertName::RetryExhaustion => Some(Duration::from_secs(24 * 3600)),
        AlertName::BreakerOpen | AlertName::BreakerOpenLong | AlertName::ProcessingTime => None,
    }
}

/// A breaker belongs to one box.
fn is_judged_together(alert: AlertName) -> bool {
    match alert {
        AlertName::TranscriptionFailureRate
        | AlertName::DiarizationFailureRate
        | AlertName::RetryExhaustion
        | AlertName::ProcessingTime => true,
        AlertName::BreakerOpen | AlertName::BreakerOpenLong => false,
    }
}

fn counted(rows: &[BoxRow], alert: AlertName, now: WallTime) -> impl Iterator<Item = &BoxRow> {
    let is_recent = move |row: &&BoxRow| {
        window(alert).is_none_or(|window| row.seen_at.is_some_and(|seen| now.since(seen) < window))
    };
    rows.iter().filter(is_recent)
}

/// What is judged over all boxes.
#[must_use]
pub fn together(rows: &[BoxRow], now: WallTime) -> Vec<Alert> {
    let pool = |alert| pooled(counted(rows, alert, now).flat_map(|row| &row.health).map(|health| &health.rates));
    let rates = Rates {
        transcription: pool(AlertName::TranscriptionFailureRate).transcription,
        diarization: pool(AlertName::DiarizationFailureRate).diarization,
        exhausted: pool(AlertName::RetryExhaustion).exhausted,
        processing: pool(AlertName::ProcessingTime).processing,
    };
    evaluate(&rates, &BTreeMap::new()).into_iter().filter(|alert| is_judged_together(alert.alert)).collect()
}

/// Every alert that holds, in the guide's order; one that `since` does not know holds since now.
#[must_use]
pub fn holding(rows: &[BoxRow], since: &Since, now: WallTime) -> Vec<BoardAlert> {
    let of_boxes = rows.iter().flat_map(|row| {
        let alerts = row.health.iter().flat_map(|health| &health.alerts);
        alerts.map(move |alert| (row.box_id.clone(), alert.clone(), is_online(row, now)))
    });
    let of_all = together(rows, now).into_iter().map(|alert| {
        let is_there = counted(rows, alert.alert, now).any(|row| is_online(row, now));
        (WHOLE_CLINIC.to_owned(), alert, is_there)
    });
    let firing = of_boxes.chain(of_all).filter(|(_, alert, _)| alert.state == AlertState::Firing);
    let held: BTreeMap<Key, BoardAlert> = firing
        .map(|(box_id, alert, online)| {
            let key = Key { alert: alert.alert, box_id: box_id.clone() };
            let since = since.get(&key).cloned().unwrap_or_else(|| now.to_string());
            (key, BoardAlert { version: 1, box_id, alert, since, online })
        })
        .collect();
    held.into_values().collect()
}

/// Alerts that have begun, and that have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// They hold, and did not.
    pub begun: Vec<Key>,
    /// They held, and do no more.
    pub ended: Vec<Key>,
}

impl Moves {
    /// From what held to what holds.
    #[must_use]
    pub fn between(before: &Since, held: &[BoardAlert]) -> Self {
        let now: Vec<Key> = held.iter().map(Key::of).collect();
        let ended = before.keys().filter(|key| !now.contains(key)).cloned().collect();
        Self { begun: now.into_iter().filter(|key| !before.contains_key(key)).collect(), ended }
    }

    /// Whether nothing has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.ended.is_empty()
    }
}

/// What to subscribe to, in order to hear what the broker keeps. An alert that only another version knows is its affair.
#[must_use]
pub fn subscriptions(topics: &Topics) -> [String; 6] {
    AlertName::ALL.map(|alert| topics.board_alert(alert, "+"))
}

/// Whether it is the topic of an alert.
#[must_use]
pub fn is_alert(topics: &Topics, topic: &str) -> bool {
    let whose = topic.rsplit_once('/').map_or("", |(_, whose)| whose);
    AlertName::ALL.into_iter().any(|alert| topics.board_alert(alert, whose) == topic)
}

/// Knows what the broker keeps, as far as it was published or heard on this line.
#[derive(Debug, Default)]
pub struct Published {
    kept: BTreeMap<String, Option<BoardAlert>>,
}

impl Published {
    /// The broker has kept something here from before this line. What was published on it since counts more.
    pub fn found(&mut self, topic: &str) {
        self.kept.entry(topic.to_owned()).or_default();
    }

    /// What must be published so that the broker keeps exactly what holds.
    pub fn update(&mut self, held: &[BoardAlert], topics: &Topics) -> Vec<Publication> {
        let mut before = std::mem::take(&mut self.kept);
        let mut news = Vec::new();
        for alert in held {
            let topic = topics.board_alert(alert.alert.alert, &alert.box_id);
            if before.remove(&topic).flatten().as_ref() != Some(alert) {
                news.extend(retained(topic.clone(), alert));
            }
            self.kept.insert(topic, Some(alert.clone()));
        }
        news.extend(before.into_keys().map(|topic| Publication::retained(topic, "")));
        news
    }
}

#[cfg(test)]
mod tests;
