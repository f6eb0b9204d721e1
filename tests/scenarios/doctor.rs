//! What a technician is told: each of the guide's troubleshooting sections, and what else goes wrong, provoked on a real
//! box, told by `roomscribe doctor`, mended, and told no more.

use std::path::Path;

use serde_json::{Value, json};
use tests::faults::{VAD, VOICE, WHISPER, clip};
use tests::microphone::Microphone;
use tests::{Running, TestBox, conversation, wait_for};

/// What is found, and the exit code.
fn doctor(room: &TestBox) -> (i32, Vec<Value>) {
    let output = room.run(&["doctor", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), answer["findings"].as_array().unwrap().clone())
}

/// The finding of this name, if it is there.
fn finding(room: &TestBox, id: &str) -> Option<Value> {
    doctor(room).1.into_iter().find(|finding| finding["id"] == id)
}

fn found(room: &TestBox, id: &str) -> Value {
    finding(room, id).unwrap_or_else(|| panic!("{id} is found"))
}

fn ids(room: &TestBox) -> Vec<String> {
    doctor(room).1.iter().map(|finding| finding["id"].as_str().unwrap().to_owned()).collect()
}

/// Whether one of the strings of a list holds these words.
fn has(list: &Value, words: &str) -> bool {
    list.as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(words))
}

/// Does what a finding says is to be typed, and that starts with these words.
fn obey(room: &TestBox, finding: &Value, start: &str) {
    let steps = finding["next_steps"].as_array().unwrap();
    let step = steps.iter().filter_map(Value::as_str).find(|step| step.starts_with(start)).expect("a step");
    room.type_in(step);
}

/// A box with a microphone: on it nothing is wrong.
fn furnished() -> (Microphone, TestBox) {
    let bare = TestBox::new();
    let microphone = Microphone::sounding(bare.root(), 0.1, 0.0);
    let room = microphone.tell(bare);
    (microphone, room)
}

#[test]
fn on_a_sound_box_nothing_is_wrong_with_a_daemon_and_without_and_while_it_records() {
    let (mut microphone, room) = furnished();
    assert_eq!(doctor(&room).0, 0);
    assert_eq!(ids(&room), ["not_enrolled", "no_daemon"]);
    let daemon = room.start_daemon();
    assert_eq!((doctor(&room).0, ids(&room)), (0, vec!["not_enrolled".to_owned()]));
    room.ask("roomscribe", &["start", "--consent", "verbal"]);
    assert_eq!((doctor(&room).0, ids(&room)), (0, vec!["not_enrolled".to_owned()]));
    let said = String::from_utf8(room.run(&["doctor"]).stdout).unwrap();
    assert!(said.starts_with("INFO  not_enrolled\n") && said.ends_with("\n1 finding\n"));
    assert!(microphone.is_alive());
    drop(daemon);
}

#[test]
fn a_microphone_that_is_away_is_told_before_a_session_and_during_one() {
    let (mut microphone, room) = furnished();
    let mut daemon = room.start_daemon();
    room.ask("roomscribe", &["start", "--consent", "verbal"]);
    daemon.kill();
    microphone.unplug();
    let away = found(&room, "microphone_unusable");
    assert_eq!((&away["severity"], &away["evidence"]["device"]), (&json!("error"), &json!("roomscribe_test")));
    let _daemon = room.start_daemon();
    let failing = wait_for("the recorder to notice", || finding(&room, "microphone_failing"));
    assert_eq!(failing["severity"], "error");
    assert!(finding(&room, "microphone_unusable").is_none(), "a microphone in use is not opened");
}

#[test]
fn a_breaker_that_a_person_holds_open_is_stuck_until_what_doctor_says_is_typed() {
    let (_microphone, room) = furnished();
    let _daemon = room.start_daemon();
    for service in ["transcription", "diarization"] {
        room.ask("roomscribe", &["breaker", "force-open", service]);
        let stuck = found(&room, "circuit_breaker_stuck_open");
        let evidence = &stuck["evidence"];
        assert_eq!((&evidence["service"], &evidence["state"]), (&json!(service), &json!("FORCED_OPEN")));
        assert!(evidence["since"].is_string() && evidence["open_s"].is_u64());
        assert_eq!(doctor(&room).0, 5);
        obey(&room, &stuck, "roomscribe breaker reset");
        assert_eq!((doctor(&room).0, ids(&room)), (0, vec!["not_enrolled".to_owned()]));
    }
}

#[test]
fn a_breaker_opened_by_failures_is_stuck_after_five_minutes_and_says_what_its_calls_died_of() {
    let room = TestBox::new().with("TRANSCRIPTION_CIRCUIT_FAILURE_THRESHOLD", "1");
    room.set("[engine]\ntranscriber_memory_mib = 1");
    assert_eq!(room.process(&clip()).code, Some(3));
    let open = found(&room, "circuit_breaker_open");
    assert_eq!((&open["severity"], &open["evidence"]["failure_count"]), (&json!("warning"), &json!(1)));
    assert!(has(&open["causes"], "more memory than engine.transcriber_memory_mib"));
    let later = "update breakers set stored = json_set(stored, '$.outage.passed.secs', 301) where service = ?1";
    room.write_over(later, "transcription");
    let stuck = found(&room, "circuit_breaker_stuck_open");
    assert_eq!((&stuck["severity"], &stuck["evidence"]["state"]), (&json!("error"), &json!("OPEN")));
    assert!(stuck["evidence"]["open_s"].as_u64().unwrap() > 300);
    assert!(has(&stuck["next_steps"], "roomscribe breaker reset transcription --root"));
    obey(&room, &stuck, "mkdir -p");
    obey(&room, &stuck, "printf");
    let _daemon = room.start_daemon();
    obey(&room, &stuck, "roomscribe breaker reset");
    assert!(finding(&room, "circuit_breaker_stuck_open").is_none());
    assert_eq!(room.process(&clip()).code, Some(0), "the memory that was typed is enough");
}

#[test]
fn sessions_that_ran_out_of_attempts_are_told_with_the_guides_messages_and_their_last_cause() {
    let room = TestBox::new();
    let failed = room.process_killing("transcriber", &clip());
    assert_eq!(failed.code, Some(3), "{}", failed.said);
    let message = "Retry exhausted: Transcription failed: The engine process was killed by a signal";
    assert_eq!(failed.record["error_message"], message);
    let high = found(&room, "high_retry_exhaustion");
    let evidence = &high["evidence"];
    assert_eq!((&high["severity"], &evidence["in_last_hour"]), (&json!("error"), &json!("1 of 1")));
    assert_eq!(evidence["messages_of_last_hour"], json!([format!("1 × {message}")]));
    assert!(evidence["most_frequent_last_cause"].as_str().unwrap().contains("killed by signal 9"));
    assert!(has(&high["next_steps"], "failures --since 1h --exhausted"));
    let counted = room.ask("roomscribe", &["failures", "--since", "1h", "--exhausted"]);
    assert_eq!(counted, json!([{ "failed_count": 1, "error_message": message }]));
    let session = failed.record["session_id"].as_str().unwrap();
    assert!(finding(&room, "dead_letters").is_some());
    let _daemon = room.start_daemon();
    obey(&room, &found(&room, "dead_letters"), "roomscribe queue retry");
    assert_eq!(room.finished(session)["status"], "done");
    assert!(finding(&room, "high_retry_exhaustion").is_none() && finding(&room, "dead_letters").is_none());
}

/// Three sessions without speakers, and what is found then.
fn always_failing(room: &TestBox) -> Value {
    for _ in 0..3 {
        assert!(finding(room, "diarization_always_failing").is_none());
        assert_eq!(room.process(&clip()).record["diarization_status"], "failed");
    }
    let found = found(room, "diarization_always_failing");
    assert_eq!((&found["severity"], &found["evidence"]["sessions"]), (&json!("warning"), &json!(3)));
    found
}

#[test]
fn speakers_that_are_always_missing_for_want_of_a_model_come_back_with_it() {
    for file in [VOICE, VAD] {
        let room = TestBox::new();
        room.remove_model(file);
        let always = always_failing(&room);
        assert!(has(&always["causes"], file) && has(&always["next_steps"], "roomscribe models fetch"), "{file}");
        assert!(has(&always["evidence"]["died_of"], "2 × The diarization circuit breaker let nothing through"));
        let unusable = found(&room, "model_unusable");
        assert_eq!(
            (&unusable["severity"], &unusable["evidence"]["problem"]),
            (&json!("warning"), &json!("is missing"))
        );
        room.fetch_models();
        assert!(finding(&room, "model_unusable").is_none());
        let mended = found(&room, "diarization_always_failing");
        assert!(has(&mended["causes"], "mended since") && !has(&mended["next_steps"], "models fetch"));
        assert_eq!(room.process(&clip()).record["diarization_status"], "ok");
        assert!(finding(&room, "diarization_always_failing").is_none(), "{file}");
    }
}

#[test]
fn speakers_that_are_always_missing_for_want_of_memory_come_back_with_what_is_typed() {
    let room = TestBox::new();
    room.set("[engine]\nvoice_memory_mib = 1");
    let always = always_failing(&room);
    assert!(has(&always["causes"], "engine.voice_memory_mib lets it have: 1 MiB"));
    obey(&room, &always, "mkdir -p");
    obey(&room, &always, "printf");
    assert!(has(&found(&room, "diarization_always_failing")["causes"], "mended since"));
    assert_eq!(room.process(&clip()).record["diarization_status"], "ok");
    assert!(finding(&room, "diarization_always_failing").is_none());
}

#[test]
fn speakers_that_are_always_missing_because_recordings_are_too_short_say_so() {
    let room = TestBox::new();
    let mut long = hound::WavReader::open(conversation(room.root())).unwrap();
    let (short, spec) = (room.root().join("short.wav"), long.spec());
    let mut writer = hound::WavWriter::create(&short, spec).unwrap();
    long.samples::<i16>().take(12_000).for_each(|sample| writer.write_sample(sample.unwrap()).unwrap());
    writer.finalize().unwrap();
    for _ in 0..3 {
        assert_eq!(room.process(&short).record["diarization_status"], "skipped");
    }
    let always = found(&room, "diarization_always_failing");
    assert!(has(&always["causes"], "under one second"));
    assert_eq!(room.process(&clip()).record["diarization_status"], "ok");
    assert!(finding(&room, "diarization_always_failing").is_none());
}

/// What `roomscribe` does when it stands where it finds no ONNX Runtime.
fn without_runtime(room: &TestBox, program: &Path, arguments: &[&str]) -> Value {
    let mut command = std::process::Command::new(program);
    let output =
        command.args(arguments).env("ROOMSCRIBE_ROOT", room.root()).env_remove("ROOMSCRIBE_ONNXRUNTIME").output();
    serde_json::from_slice(&output.unwrap().stdout).unwrap()
}

#[test]
fn speakers_that_are_always_missing_for_want_of_onnx_runtime_come_back_with_it() {
    let room = TestBox::new();
    let alone = room.root().join("alone/roomscribe");
    std::fs::create_dir(alone.parent().unwrap()).unwrap();
    std::fs::copy(tests::program("roomscribe"), &alone).unwrap();
    for _ in 0..3 {
        let record = without_runtime(&room, &alone, &["process", &clip().display().to_string()]);
        assert_eq!((&record["status"], &record["diarization_status"]), (&json!("done"), &json!("failed")));
    }
    let seen = without_runtime(&room, &alone, &["doctor", "--json"]);
    let seen = |id: &str| seen["findings"].as_array().unwrap().iter().find(|f| f["id"] == id).cloned();
    assert!(seen("onnx_runtime_missing").is_some());
    assert!(has(&seen("diarization_always_failing").unwrap()["causes"], "libonnxruntime.so was found neither in"));
    assert!(finding(&room, "onnx_runtime_missing").is_none(), "here it is");
    assert!(has(&found(&room, "diarization_always_failing")["causes"], "mended since"));
    assert_eq!(room.process(&clip()).record["diarization_status"], "ok");
    assert!(finding(&room, "diarization_always_failing").is_none());
}

#[test]
fn a_model_that_is_cut_short_is_told_with_its_file_and_mended_by_fetching_it() {
    let room = TestBox::new();
    room.truncate(WHISPER);
    let unusable = found(&room, "model_unusable");
    let evidence = &unusable["evidence"];
    assert_eq!((&unusable["severity"], &evidence["role"]), (&json!("error"), &json!("transcriber")));
    assert_eq!((&evidence["model"], &evidence["problem"]), (&json!(WHISPER), &json!("is truncated")));
    room.fetch_models();
    assert!(finding(&room, "model_unusable").is_none());
}

#[test]
fn a_board_that_is_too_hot_and_one_that_is_full_are_told_with_their_figures() {
    let (_microphone, room) = furnished();
    let _daemon = room.start_daemon();
    room.heat(85_000);
    let hot = found(&room, "board_too_hot");
    assert_eq!(hot["evidence"], json!({ "celsius": 85.0, "limit_celsius": 80.0 }));
    room.heat(50_000);
    room.set("[health]\nmin_disk_mib = 999999999");
    let full = found(&room, "low_disk");
    assert_eq!((&full["severity"], &full["evidence"]["needed_mib"]), (&json!("error"), &json!(999_999_999)));
    room.set("");
    assert_eq!(ids(&room), ["not_enrolled"]);
}

#[test]
fn rows_that_cannot_be_read_are_told_and_gone_after_what_doctor_says_is_typed() {
    let (_microphone, room) = furnished();
    let session = room.process(&clip()).record["session_id"].as_str().unwrap().to_owned();
    let _daemon = room.start_daemon();
    room.write_over("update sessions set consent = 'garbage' where id = ?1", &session);
    room.write_over("update work set result = x'00' where session = ?1", &session);
    let damaged = found(&room, "damaged_rows");
    assert_eq!((&damaged["severity"], &damaged["evidence"]["values"]), (&json!("error"), &json!(3)));
    assert!(has(&damaged["evidence"]["damage"], &format!("sessions.consent of {session}")));
    obey(&room, &damaged, "roomscribe queue repair");
    assert_eq!(ids(&room), ["not_enrolled"]);
}

#[test]
fn a_wrong_setting_is_told_with_its_file_while_nothing_can_start() {
    let room = TestBox::new();
    room.put("var/lib/roomscribe/site/wrong.toml", "[retry]\nmax_retry = 4\n");
    assert_eq!(room.run(&["run"]).status.code(), Some(5));
    let wrong = found(&room, "settings_invalid");
    assert!(wrong["evidence"]["where"].as_str().unwrap().ends_with("site/wrong.toml"));
    assert!(wrong["evidence"]["problem"].as_str().unwrap().contains("max_retry"));
    room.put("var/lib/roomscribe/site/wrong.toml", "[retry]\nmax_retries = 4\n");
    assert!(finding(&room, "settings_invalid").is_none());
}

/// Stops a process where it is, or lets it go on.
fn signal(running: &Running, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(running.0.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_daemon_that_hangs_is_told_and_does_not_make_doctor_hang() {
    let (_microphone, room) = furnished();
    let daemon = room.start_daemon();
    signal(&daemon, rustix::process::Signal::STOP);
    assert_eq!(found(&room, "daemon_not_answering")["severity"], "error");
    signal(&daemon, rustix::process::Signal::CONT);
    assert_eq!(ids(&room), ["not_enrolled"]);
}

#[test]
fn records_that_wait_for_a_clinic_that_cannot_be_reached_are_told_with_its_address() {
    let room = TestBox::new().with("SYNC_CIRCUIT_FAILURE_THRESHOLD", "1");
    room.enrol();
    assert_eq!(room.process(&clip()).code, Some(0));
    assert!(!ids(&room).iter().any(|id| id == "not_enrolled" || id.starts_with("clinic")), "not yet");
    let _sync = room.start("roomscribe-sync", &["run"]);
    let away = wait_for("the link to give up", || finding(&room, "clinic_unreachable"));
    assert_eq!((&away["evidence"]["records"], &away["evidence"]["sync_circuit"]), (&json!(1), &json!("OPEN")));
    assert!(away["evidence"]["broker"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(has(&away["next_steps"], "breaker reset sync") && has(&away["next_steps"], "nc -vz 127.0.0.1 "));
}
