//! The four rows of the decision matrix, with real faults, and what the breaker makes of them.

use std::time::Duration;

use serde_json::Value;
use tests::faults::{VOICE, WHISPER};
use tests::{TestBox, assert_fits_schema, conversation, engine_of, wait_for, watch_for};

fn chain(record: &Value) -> String {
    record["error"]["chain"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[test]
fn both_tasks_go_well_and_the_transcript_has_speakers() {
    let room = TestBox::new();
    let done = room.process(&conversation(room.root()));
    assert_eq!(done.code, Some(0), "{}", done.said);
    assert_eq!((&done.record["status"], &done.record["diarization_status"]), (&"done".into(), &"ok".into()));
    assert_eq!(done.record["speaker_count"]["best"], 2);
    assert_fits_schema(&done.record);
}

#[test]
fn a_missing_voice_model_costs_the_speakers_and_nothing_else() {
    let room = TestBox::new();
    room.remove_model(VOICE);
    let done = room.process(&conversation(room.root()));
    assert_eq!(done.code, Some(0), "{}", done.said);
    assert_eq!((&done.record["status"], &done.record["diarization_status"]), (&"done".into(), &"failed".into()));
    let segments = done.record["segments"].as_array().unwrap();
    assert!(segments.len() > 5 && segments.iter().all(|s| s["speaker"] == "Unknown Speaker"));
    assert!(chain(&done.record).contains(VOICE) && chain(&done.record).contains("roomscribe models fetch"));
    assert_eq!(done.record["error"]["type"], "PartialProcessingError");
    assert_fits_schema(&done.record);
}

#[test]
fn a_truncated_whisper_model_fails_the_session_and_says_which_file_and_how_to_fetch_it() {
    let room = TestBox::new();
    room.truncate(WHISPER);
    let done = room.process(&conversation(room.root()));
    assert_eq!(done.code, Some(3), "{}", done.said);
    assert_eq!(
        (&done.record["status"], &done.record["error"]["type"]),
        (&"failed".into(), &"TranscriptionError".into())
    );
    assert_eq!(done.record["diarization_status"], "ok");
    let why = format!("ModelUnusable: {WHISPER} is truncated; fetch it with: roomscribe models fetch --root");
    assert!(chain(&done.record).contains(&why) && done.said.contains(&why), "{}", done.said);
    assert!(done.record["segments"].as_array().unwrap().is_empty());
    assert_eq!(room.spooled().len(), 1, "a failed session keeps its audio");
    assert_fits_schema(&done.record);
}

#[test]
fn with_both_models_gone_both_causes_are_stored() {
    let room = TestBox::new();
    room.truncate(WHISPER);
    room.remove_model(VOICE);
    let done = room.process(&conversation(room.root()));
    assert_eq!(done.code, Some(4), "{}", done.said);
    assert_eq!(done.record["error"]["type"], "ParallelProcessingError");
    assert!(chain(&done.record).contains(WHISPER) && chain(&done.record).contains(VOICE));
    assert_fits_schema(&done.record);
}

/// Kills the engine of this kind once it has worked for a while on its first window.
fn killed_in_mid_window(kind: &str, worked: Duration) -> Value {
    let room = TestBox::new();
    let wav = conversation(room.root());
    let output = room.root().join("record.json");
    let mut command = room.command("roomscribe");
    command.arg("process").arg(&wav).stdout(std::fs::File::create(&output).unwrap());
    let mut running = tests::Running(command.spawn().unwrap());
    let parent = running.0.id();
    let busy = || engine_of(parent, kind).filter(|(_, used)| *used >= worked);
    let engine = watch_for("an engine at work", Duration::from_millis(2), busy);
    rustix::process::kill_process(engine.0, rustix::process::Signal::KILL).unwrap();
    let status = wait_for("the box to finish", || running.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    serde_json::from_slice(&std::fs::read(output).unwrap()).unwrap()
}

/// The record of a run in which the engine was killed before it was done: where this thread slept too long, it is
/// run again.
fn recovered(kind: &str, task: &str, worked: Duration) -> Value {
    let mut runs = (0..5).map(|_| killed_in_mid_window(kind, worked));
    let hit = runs.find(|record| {
        assert_eq!((&record["status"], &record["diarization_status"]), (&"done".into(), &"ok".into()));
        record["attempts"][task] != 1
    });
    hit.expect("one of five engines is killed before it is done")
}

#[test]
fn a_transcriber_killed_in_mid_window_is_retried_and_recovers() {
    let record = recovered("transcriber", "transcription", Duration::from_millis(200));
    assert_eq!(record["attempts"]["transcription"], 2);
    assert!(record["segments"].as_array().unwrap().len() > 5);
}

#[test]
fn a_voice_engine_killed_in_mid_window_is_retried_and_recovers() {
    let record = recovered("voices", "diarization", Duration::from_millis(80));
    assert_eq!(record["attempts"]["diarization"], 2);
    assert_eq!(record["speaker_count"]["best"], 2);
}

#[test]
fn a_breaker_opened_by_real_failures_refuses_the_next_file_and_is_still_open_in_the_next_process() {
    let room = TestBox::new().with("TRANSCRIPTION_CIRCUIT_FAILURE_THRESHOLD", "2");
    // No engine fits into this, so that every call fails; a damaged model would open the breaker at the first.
    room.set("[engine]\ntranscriber_memory_mib = 1");
    let wav = conversation(room.root());
    for _ in 0..2 {
        let failed = room.process(&wav);
        assert_eq!(failed.code, Some(3), "{}", failed.said);
        assert_eq!(failed.record["error_message"], "Transcription failed: The engine ran out of memory");
    }
    let refused = room.process(&wav);
    assert_eq!(refused.code, Some(75), "{}", refused.said);
    let daemon = room.start_daemon();
    let breaker = &room.ask("roomscribe", &["breaker"])["transcription"];
    assert_eq!((&breaker["state"], &breaker["failure_count"]), (&"OPEN".into(), &2.into()));
    assert_eq!(room.process(&wav).code, Some(75), "also through the daemon");
    let reset = room.run(&["breaker", "reset", "transcription"]);
    assert!(reset.status.success() && String::from_utf8_lossy(&reset.stdout).contains("transcription: CLOSED"));
    drop(daemon);
}
