//! A room speaks, and the clinic reads who said what.

use std::time::Duration;

use serde_json::{Value, json};
use tests::microphone::Microphone;
use tests::stack::{CLINIC, ROOM, Stack};
use tests::{assert_fits_schema, conversation, conversation_reference, plain, wait_for, word_errors, words};

fn playing() -> Stack {
    Stack::start(|folder| Microphone::playing(folder, &conversation(folder)))
}

fn start(stack: &Stack) -> String {
    let answer = stack.room.ask("roomscribe", &["start", "--consent", "verbal", "--by", "therapist"]);
    stack.microphone.cue();
    answer["session_id"].as_str().unwrap().to_owned()
}

const HEALTH: [&str; 4] =
    ["transcription_circuit", "diarization_circuit", "transcription_failures", "diarization_failures"];

#[test]
fn a_conversation_goes_from_microphone_to_clinic_and_its_audio_is_destroyed_when_the_clinic_has_it() {
    let stack = playing();
    let session = start(&stack);
    wait_for("the recording to be played", || stack.microphone.is_played().then_some(()));
    stack.room.ask("roomscribe", &["stop"]);
    let record = stack.delivered(&session);
    assert_fits_schema(&record);
    assert_eq!(
        (&record["status"], &record["diarization_status"], &record["box"]),
        (&"done".into(), &"ok".into(), &ROOM.into())
    );
    assert_eq!((&record["speaker_count"]["best"], &record["gaps"]), (&2.into(), &json!([])));
    assert_eq!((&record["consent"]["basis"], &record["consent"]["by"]), (&"verbal".into(), &"therapist".into()));
    let reference = conversation_reference();
    let turns = reference["turns"].as_array().unwrap();
    let expected: Vec<String> = turns.iter().flat_map(|t| plain(t["text"].as_str().unwrap())).collect();
    let errors = word_errors(&expected, &words(&record));
    assert!(errors * 100 <= 30 * expected.len(), "{errors} of {} words are wrong", expected.len());
    wait_for("the audio to be destroyed", || stack.room.spooled().is_empty().then_some(()));
    assert_eq!(stack.held(), 1);
    breaker_health_is_published(&stack);
}

/// The same four keys on the box and at the clinic, and a retained board that changes when a breaker opens.
fn breaker_health_is_published(stack: &Stack) {
    let board = || stack.broker.retained(&format!("roomscribe/v1/{CLINIC}/board/breakers"));
    let closed = wait_for("the board", &board);
    assert_eq!(closed["transcription_circuit"], "CLOSED");
    stack.room.ask("roomscribe", &["breaker", "force-open", "transcription"]);
    let at_box = stack.box_says("/health/audio-processing").unwrap();
    assert_eq!(at_box["transcription_circuit"], "FORCED_OPEN");
    let opened = wait_for("the board to change", || board().filter(|b| b["transcription_circuit"] == "FORCED_OPEN"));
    let at_clinic = stack.clinic_says("/health/audio-processing").unwrap();
    let at_clinic_of_box = stack.clinic_says(&format!("/health/audio-processing?box={ROOM}")).unwrap();
    for answer in [&at_box, &opened, &at_clinic, &at_clinic_of_box] {
        let values: Vec<Value> = HEALTH.iter().map(|key| answer[key].clone()).collect();
        assert_eq!(values, [json!("FORCED_OPEN"), json!("CLOSED"), json!(0), json!(0)]);
    }
}

#[test]
fn a_recorder_killed_during_the_session_goes_on_with_it_and_the_clinic_gets_it_once() {
    let mut stack = playing();
    let session = start(&stack);
    std::thread::sleep(Duration::from_secs(12));
    stack.daemon.kill();
    std::thread::sleep(Duration::from_secs(3));
    stack.daemon = stack.room.start_daemon();
    assert_eq!(stack.room.ask("roomscribe", &["status"])["session"], json!(session));
    wait_for("the recording to be played", || stack.microphone.is_played().then_some(()));
    stack.room.ask("roomscribe", &["stop"]);
    let record = stack.delivered(&session);
    assert_eq!(record["status"], "done");
    let gaps = record["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1);
    let length = gaps[0]["end"].as_f64().unwrap() - gaps[0]["start"].as_f64().unwrap();
    assert_eq!(gaps[0]["cause"], "restart");
    // It was away for three seconds and its start; of those, what waited in the microphone's pipe was heard.
    let least = 3.0 - tests::microphone::STALE.as_secs_f64() - 0.1;
    assert!((least..6.0).contains(&length), "the gap is {length} s long");
    assert!(record["segments"].as_array().unwrap().len() >= 5);
    assert_eq!(stack.held(), 1);
}

#[test]
fn without_a_broker_the_box_records_and_processes_and_keeps_what_it_owes_until_there_is_one() {
    let mut stack = playing();
    stack.broker.kill();
    let session = start(&stack);
    std::thread::sleep(Duration::from_secs(5));
    stack.room.ask("roomscribe", &["stop"]);
    let known = |key: &str| stack.room.ask("roomscribe", &["sessions", &session])[key].clone();
    wait_for("the record", || (known("status") == "done").then_some(()));
    assert_eq!(known("delivery"), "pending");
    assert_eq!(stack.room.spooled().len(), 1, "audio stays until the clinic has the record");
    stack.broker.restart();
    assert_eq!(stack.delivered(&session)["status"], "done");
    assert_eq!(stack.held(), 1);
}
