use super::*;
use crate::clinic::fixture;
use shared::contract::Contract;
use shared::wire::{BoxHealth, CaptureHealth};

fn row(id: &str) -> BoxRow {
    let health = fixture::health(id, (StateName::Closed, 0), (StateName::Closed, 0));
    BoxRow { box_id: id.into(), said_online: true, health: Some(health), seen_at: None }
}

fn told(rows: &[BoxRow]) -> Wanted {
    of_all("north", rows, &Topics::new("north"))
}

#[test]
fn what_is_told_of_a_box_is_in_the_contract() {
    let (contract, topics) = (Contract::published().unwrap(), Topics::new("north"));
    let never_heard = BoxRow { health: None, ..row("room-2") };
    for (box_id, json) in told(&[row("room-1"), never_heard]) {
        let channel = contract.check(&topics.discovery(&box_id), &json, Some(true));
        assert_eq!(channel, Ok("discovery"), "{box_id}");
    }
    let mut strange: serde_json::Value = serde_json::from_slice(&told(&[row("room-1")])["room-1"]).unwrap();
    strange["components"]["recording"]["state_topic"] = topics.parcel("room-1", fixture::SESSION, 1).into();
    assert!(contract.check(&topics.discovery("room-1"), strange.to_string().as_bytes(), None).is_err());
}

#[test]
fn the_states_of_the_microphone_are_those_of_the_contract() {
    let document: serde_json::Value = serde_json::from_str(shared::wire::ASYNCAPI).unwrap();
    let states = &document["components"]["schemas"]["CaptureHealth"]["properties"]["state"]["enum"];
    assert_eq!(states, &serde_json::json!(CAPTURE));
}

/// What a template `{{ value_json.a.b }}` or `… if value_json.a.b …` reads.
fn path_of(template: &str) -> String {
    let (_, rest) = template.split_once("value_json.").unwrap();
    let path: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "._".contains(*c)).collect();
    format!("/{}", path.replace('.', "/"))
}

#[test]
fn every_entity_reads_a_field_of_the_board_or_of_its_boxs_health() {
    let topics = Topics::new("north");
    let mut row = row("room-1");
    let health = row.health.as_mut().unwrap();
    let silent = CaptureHealth { state: "silent".into(), recorded_s: 0.0, peak_dbfs: None };
    let sync = health.breakers[&Service::Transcription].clone();
    health.breakers.insert(Service::Sync, sync);
    *health = BoxHealth { capture: silent, ..health.clone() };
    let board = crate::clinic::board::compose("north", &[row.clone()], shared::clock::WallTime(0));
    let mut messages = BTreeMap::from([(topics.health("room-1"), serde_json::to_value(&row.health).unwrap())]);
    for breaker in &board.breakers {
        let topic = topics.board_breaker("room-1", breaker.service);
        messages.insert(topic, serde_json::to_value(breaker).unwrap());
    }
    let device = device("north", &row, &topics);
    assert_eq!(device.components.len(), 10);
    let ids: BTreeSet<&str> = device.components.values().map(|entity| entity.unique_id.as_str()).collect();
    assert_eq!(ids.len(), 10);
    for (name, entity) in &device.components {
        let read = |topic: &str, template: &str| messages[topic].pointer(&path_of(template)).cloned().unwrap();
        let state = read(&entity.state_topic, &entity.value_template);
        if !entity.options.is_empty() {
            assert!(entity.options.iter().any(|option| state == **option), "{name}: {state}");
        }
        for available in &entity.availability {
            assert!(read(&available.topic, available.value_template).is_boolean());
        }
        assert_eq!(entity.availability.is_empty(), name == "connected", "{name}");
    }
}

/// The end of each topic, and whether something is told.
fn ends(steps: &[Step]) -> Vec<(String, bool)> {
    let one = |step: &Step| {
        let (Step::Tell(publication) | Step::Clear(_, publication)) = step;
        assert!(publication.retain && matches!(step, Step::Tell(_)) != publication.payload.is_empty());
        let topic = publication.topic.strip_prefix("homeassistant/device/roomscribe-north/").unwrap();
        (topic.to_owned(), !publication.payload.is_empty())
    };
    steps.iter().map(one).collect()
}

#[test]
fn each_box_is_told_once_a_line_and_again_when_it_is_another() {
    let topics = Topics::new("north");
    let mut line = Told::default();
    let nobody = BTreeSet::new();
    let steps = line.update(told(&[row("room-1"), row("room-2")]), &nobody, &topics);
    assert_eq!(ends(&steps), [("room-1/config".into(), true), ("room-2/config".into(), true)]);
    let mut newer = row("room-2");
    newer.health.as_mut().unwrap().queue.queued = 7;
    assert!(
        line.update(told(&[row("room-1"), newer.clone()]), &nobody, &topics).is_empty(),
        "states are not told here"
    );
    newer.health.as_mut().unwrap().software = "1".into();
    let steps = line.update(told(&[row("room-1"), newer]), &nobody, &topics);
    assert_eq!(ends(&steps), [("room-2/config".into(), true)]);
}

#[test]
fn what_is_remembered_and_not_wanted_is_cleared_once_and_forgotten_when_the_broker_has_it() {
    let topics = Topics::new("north");
    let mut line = Told::default();
    let remembered = BTreeSet::from(["room-1".to_owned(), "room-2".to_owned()]);
    let steps = line.update(told(&[row("room-2")]), &remembered, &topics);
    assert_eq!(ends(&steps), [("room-1/config".into(), false), ("room-2/config".into(), true)]);
    line.clearing(Ticket(4), "room-1".into());
    assert!(line.update(told(&[row("room-2")]), &remembered, &topics).is_empty());
    assert_eq!((line.delivered(Ticket(3)), line.delivered(Ticket(4)).as_deref()), (None, Some("room-1")));
    let steps = line.update(told(&[row("room-1"), row("room-2")]), &remembered, &topics);
    assert_eq!(ends(&steps), [("room-1/config".into(), true)], "a box that is back is told again");
}
