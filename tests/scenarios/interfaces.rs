//! What others build on, as others' programs read it: the contract of the link, a broker on which nothing else passes, and
//! the clinic's HTTP.

use std::net::TcpStream;

use serde_json::{Value, json};
use shared::wire::{ASYNCAPI, Topics};
use tests::broker::Broker;
use tests::stack::{CLINIC, enrol};
use tests::validators::{asyncapi_parser_accepts, schemathesis_accepts};
use tests::{TestBox, get, repository, wait_for};

#[test]
fn the_contract_of_the_link_is_asyncapi_to_its_own_parser_and_with_a_mistake_it_is_not() {
    asyncapi_parser_accepts(&repository().join("shared/schema/asyncapi-v1.json")).unwrap();
    let mistaken = |pointer: &str, value: Value, names: &str| {
        let mut document: Value = serde_json::from_str(ASYNCAPI).unwrap();
        *document.pointer_mut(pointer).unwrap() = value;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("asyncapi.json");
        std::fs::write(&file, document.to_string()).unwrap();
        let told = asyncapi_parser_accepts(&file).unwrap_err();
        assert!(told.contains(names), "{pointer}: {told}");
    };
    mistaken("/operations/boxSendsParcel/action", json!("shout"), "operations/boxSendsParcel/action");
    mistaken("/channels/ack/messages/ack/$ref", json!("#/components/messages/nowhere"), "invalid-ref");
    mistaken("/components/schemas/Board/type", json!("thing"), "schemas/Board");
    mistaken("/servers/box/bindings/mqtt/lastWill/qos", json!(7), "servers/box");
}

#[test]
fn a_message_that_is_not_in_the_contract_fails_its_test_unless_it_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let topics = Topics::new(CLINIC);
    let broker = Broker::start(folder.path());
    broker.publish(&topics.status("room-1"), "online");
    broker.publish(&topics.health("room-9"), "{\"said\": \"xylophone\"}");
    broker.publish("elsewhere", "xylophone");
    let (breaches, messages) = broker.breaches();
    assert_eq!((breaches.len(), messages), (2, 3));
    assert!(breaches[0].contains("boxHealth") && breaches[1].contains("elsewhere is not in the contract"));
    assert!(!breaches.concat().contains("xylophone"));
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(broker)));
    assert!(ended.is_err(), "its test has failed");

    let mut broker = Broker::start(folder.path());
    broker.tolerate(&topics.health("room-9"));
    broker.publish(&topics.health("room-9"), "no JSON");
    assert_eq!(broker.breaches(), (vec![], 1));
    broker.kill();
    broker.restart();
    broker.publish(&topics.status("room-1"), "away");
    assert_eq!(broker.breaches().0.len(), 1, "it listens to a broker that was away, too");
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(broker))).is_err());
}

/// A box that says all that it may.
fn health() -> Value {
    json!({
        "version": 1, "box": "room-1", "at": "2026-01-01T00:00:00.000Z", "time_quality": "synchronized",
        "breakers": {
            "transcription": {"state": "OPEN", "failure_count": 5, "retry_after_s": 30, "open_s": 90, "reason": "No model"},
            "diarization": {"state": "CLOSED", "failure_count": 0, "retry_after_s": null},
        },
        "queue": {"recording": 1, "queued": 2, "unacknowledged": 3, "dead_lettered": 4},
        "capture": {"state": "recording", "recorded_s": 1.5, "peak_dbfs": -12.5},
        "board": {"celsius": 61.5, "under_voltage": false, "free_memory_mib": 512, "free_disk_mib": null},
        "alerts": [{
            "alert": "breaker_open", "state": "firing", "value": 1.0, "threshold": 0.0, "samples": 2,
            "services": ["transcription"],
        }],
        "rates": {
            "transcription": {"failed": 1, "total": 40}, "diarization": {"failed": 0, "total": 40},
            "exhausted": {"failed": 0, "total": 3}, "processing": [[60.0, 1.5]],
        },
        "software": "0.1.0",
    })
}

#[test]
fn schemathesis_finds_no_server_error_and_no_answer_that_is_not_as_documented() {
    let room = TestBox::bare();
    let broker = Broker::start(room.root());
    let http = enrol(&room, &broker);
    let _clinic = room.start("roomscribe-clinic", &["run"]);
    let says = |path: &str| get(TcpStream::connect(("127.0.0.1", http)).ok()?, path);
    broker.publish(&Topics::new(CLINIC).health("room-1"), &health().to_string());
    wait_for("the clinic to hear of the box", || says("/api/v1/alerts").filter(|alerts| alerts[0].is_object()));
    let url = format!("http://127.0.0.1:{http}");
    schemathesis_accepts(&url, &format!("{url}/api/v1/openapi.json"), None).unwrap_or_else(|why| panic!("{why}"));

    // A document that says something else, and a server that fails.
    let mut mistaken = says("/api/v1/openapi.json").unwrap();
    mistaken["components"]["schemas"]["ServerHealth"]["required"] = json!(["mood"]);
    let file = room.folder().join("openapi.json");
    std::fs::write(&file, mistaken.to_string()).unwrap();
    let told = schemathesis_accepts(&url, &file.display().to_string(), Some("/health")).unwrap_err();
    assert!(told.contains("mood"), "{told}");
    let store = shared::paths::Root::new(room.root()).clinic().join("clinic.db");
    rusqlite::Connection::open(store).unwrap().execute_batch("drop table events").unwrap();
    let told = schemathesis_accepts(&url, &file.display().to_string(), Some("/api/v1/events")).unwrap_err();
    assert!(told.contains("Server error"), "{told}");
}
