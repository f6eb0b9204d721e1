//! Boxes to Home Assistant, by its MQTT discovery (one retained message a device): which topics it may read, and how.
//!
//! ```text
//! switched on ─▶ wanted: every box      switched off ─▶ wanted: none
//! wanted ─▶ remembered by the store ─▶ published      remembered, not wanted ─▶ cleared ─▶ delivered ─▶ forgotten
//! ```
//!
//! It is told of the board and of the box's health alone, where nothing derives from what was said.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shared::breaker::{Service, StateName};
use shared::metrics::STATES;
use shared::wire::Topics;

use super::store::BoxRow;
use crate::uplink::{Publication, Ticket};

/// What [`shared::wire::CaptureHealth`] calls the states of the microphone.
const CAPTURE: [&str; 5] = ["idle", "recording", "paused", "failing", "silent"];

/// A device and its entities, in Home Assistant's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Device {
    device: About,
    origin: Origin,
    components: BTreeMap<String, Entity>,
    qos: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct About {
    identifiers: [String; 1],
    name: String,
    manufacturer: &'static str,
    model: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sw_version: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Origin {
    name: &'static str,
    sw_version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Availability {
    topic: String,
    value_template: &'static str,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Entity {
    platform: &'static str,
    unique_id: String,
    name: String,
    state_topic: String,
    value_template: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    availability: Vec<Availability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_of_measurement: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_category: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icon: Option<&'static str>,
}

/// Entities of a box before they are one device's.
struct Entities<'a> {
    topics: &'a Topics,
    clinic: &'a str,
    box_id: &'a str,
    all: BTreeMap<String, Entity>,
}

impl Entities<'_> {
    /// Whether the box is connected stands beside each of its breakers, and knows a box that has only fallen silent.
    fn presence(&self) -> String {
        self.topics.board_breaker(self.box_id, Service::Transcription)
    }

    fn add(&mut self, key: &str, entity: Entity) {
        let unique_id = format!("roomscribe-{}-{}-{key}", self.clinic, self.box_id);
        self.all.insert(key.into(), Entity { unique_id, ..entity });
    }

    fn connected(&mut self) {
        let entity = Entity {
            platform: "binary_sensor",
            name: "Connected".into(),
            state_topic: self.presence(),
            value_template: "{{ 'ON' if value_json.online else 'OFF' }}".into(),
            device_class: Some("connectivity"),
            entity_category: Some("diagnostic"),
            ..Entity::default()
        };
        self.add("connected", entity);
    }

    /// An entity that is unavailable while the box is away.
    fn of_box(&mut self, key: &str, entity: Entity) {
        let value_template = "{{ 'online' if value_json.online else 'offline' }}";
        let availability = vec![Availability { topic: self.presence(), value_template }];
        self.add(key, Entity { availability, ..entity });
    }

    fn capture(&mut self) {
        let state_topic = self.topics.health(self.box_id);
        let recording = Entity {
            platform: "binary_sensor",
            name: "Recording".into(),
            state_topic: state_topic.clone(),
            value_template: "{{ 'ON' if value_json.capture.state == 'recording' else 'OFF' }}".into(),
            device_class: Some("running"),
            icon: Some("mdi:record-rec"),
            ..Entity::default()
        };
        self.of_box("recording", recording);
        let microphone = Entity {
            platform: "sensor",
            name: "Microphone".into(),
            state_topic,
            value_template: "{{ value_json.capture.state }}".into(),
            device_class: Some("enum"),
            options: CAPTURE.map(str::to_owned).to_vec(),
            icon: Some("mdi:microphone"),
            ..Entity::default()
        };
        self.of_box("microphone", microphone);
    }

    fn breaker(&mut self, service: Service) {
        let (name, what) = match service {
            Service::Transcription => ("Transcription", "transcription_breaker"),
            Service::Diarization => ("Diarization", "diarization_breaker"),
            Service::Sync => ("Line", "line_breaker"),
        };
        let entity = Entity {
            platform: "sensor",
            name: format!("{name} breaker"),
            state_topic: self.topics.board_breaker(self.box_id, service),
            value_template: "{{ value_json.state }}".into(),
            device_class: Some("enum"),
            entity_category: Some("diagnostic"),
            options: STATES.map(|(state, _): (StateName, _)| state.to_string()).to_vec(),
            icon: Some("mdi:electric-switch"),
            ..Entity::default()
        };
        self.of_box(what, entity);
    }

    fn queue(&mut self) {
        for (key, name, icon) in [
            ("queued", "Sessions to be worked on", "mdi:tray-full"),
            ("unacknowledged", "Records to be sent", "mdi:upload"),
            ("dead_lettered", "Sessions that need a person", "mdi:alert"),
        ] {
            let entity = Entity {
                platform: "sensor",
                name: name.into(),
                state_topic: self.topics.health(self.box_id),
                value_template: format!("{{{{ value_json.queue.{key} }}}}"),
                state_class: Some("measurement"),
                entity_category: Some("diagnostic"),
                icon: Some(icon),
                ..Entity::default()
            };
            self.of_box(key, entity);
        }
    }

    fn temperature(&mut self) {
        let entity = Entity {
            platform: "sensor",
            name: "Temperature".into(),
            state_topic: self.topics.health(self.box_id),
            value_template: "{{ value_json.board.celsius }}".into(),
            device_class: Some("temperature"),
            state_class: Some("measurement"),
            unit_of_measurement: Some("°C"),
            entity_category: Some("diagnostic"),
            ..Entity::default()
        };
        self.of_box("temperature", entity);
    }
}

fn device(clinic: &str, row: &BoxRow, topics: &Topics) -> Device {
    let mut entities = Entities { topics, clinic, box_id: &row.box_id, all: BTreeMap::new() };
    entities.connected();
    entities.capture();
    Service::ALL.into_iter().for_each(|service| entities.breaker(service));
    entities.queue();
    entities.temperature();
    Device {
        device: About {
            identifiers: [format!("roomscribe-{clinic}-{}", row.box_id)],
            name: format!("Roomscribe {}", row.box_id),
            manufacturer: "Roomscribe",
            model: "Room box",
            sw_version: row.health.as_ref().map(|health| health.software.clone()),
        },
        origin: Origin { name: "roomscribe-clinic", sw_version: env!("CARGO_PKG_VERSION") },
        components: entities.all,
        qos: 1,
    }
}

/// What Home Assistant is told, by box.
pub type Wanted = BTreeMap<String, Vec<u8>>;

/// Of every box.
#[must_use]
pub fn of_all(clinic: &str, rows: &[BoxRow], topics: &Topics) -> Wanted {
    let one = |row: &BoxRow| Some((row.box_id.clone(), serde_json::to_vec(&device(clinic, row, topics)).ok()?));
    rows.iter().filter_map(one).collect()
}

/// Something to publish about a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is there.
    Tell(Publication),
    /// It must go; what was cleared is forgotten once the broker has it ([`Told::clearing`]).
    Clear(String, Publication),
}

/// What was published on this line.
#[derive(Debug, Default)]
pub struct Told {
    kept: Wanted,
    cleared: BTreeSet<String>,
    clearing: BTreeMap<Ticket, String>,
}

impl Told {
    /// What must be published so that the broker keeps exactly what is wanted; it may keep more from before, as
    /// `remembered` says.
    pub fn update(&mut self, wanted: Wanted, remembered: &BTreeSet<String>, topics: &Topics) -> Vec<Step> {
        let mut steps = Vec::new();
        for box_id in remembered.iter().filter(|id| !wanted.contains_key(*id)) {
            if self.cleared.insert(box_id.clone()) {
                let publication = Publication::retained(topics.discovery(box_id), "");
                steps.push(Step::Clear(box_id.clone(), publication));
            }
        }
        for (box_id, json) in &wanted {
            if self.kept.get(box_id) != Some(json) {
                steps.push(Step::Tell(Publication::retained(topics.discovery(box_id), json.clone())));
            }
            self.cleared.remove(box_id);
        }
        self.kept = wanted;
        steps
    }

    /// A clearing is under way.
    pub fn clearing(&mut self, ticket: Ticket, box_id: String) {
        self.clearing.insert(ticket, box_id);
    }

    /// The broker has this publication; gives the box that it no longer keeps anything of, if it is about one.
    pub fn delivered(&mut self, ticket: Ticket) -> Option<String> {
        self.clearing.remove(&ticket)
    }
}

#[cfg(test)]
mod tests;
