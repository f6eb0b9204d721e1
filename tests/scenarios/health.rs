//! Breakers opened early: heat, a full disk and a damaged model refuse work before it fails, say why, and let it go on by
//! themselves when they are mended.

use serde_json::{Value, json};
use tests::faults::{WHISPER, clip};
use tests::microphone::Microphone;
use tests::{TestBox, conversation, wait_for};

fn breaker(room: &TestBox, service: &str) -> Value {
    room.ask("roomscribe", &["breaker", "list"])[service].clone()
}

fn status(room: &TestBox, session: &str, status: &str) {
    wait_for(status, || (room.session(session)["status"] == status).then_some(()));
}

/// Records some seconds of the conversation and gives the session.
fn recorded(room: &TestBox, microphone: &Microphone) -> String {
    let started = room.ask("roomscribe", &["start", "--consent", "verbal"]);
    microphone.cue();
    std::thread::sleep(std::time::Duration::from_secs(4));
    room.ask("roomscribe", &["stop"]);
    started["session_id"].as_str().unwrap().to_owned()
}

/// Both breakers are open for this reason, though nothing has failed.
fn both_open(room: &TestBox, reason: &str) {
    for service in ["transcription", "diarization"] {
        let open = wait_for("the breaker to open", || {
            Some(breaker(room, service)).filter(|breaker| breaker["state"] == "OPEN")
        });
        assert_eq!(open["failure_count"], 0, "{service}");
        assert!(open["reason"].as_str().unwrap().starts_with(reason), "{service}: {}", open["reason"]);
    }
}

#[test]
fn a_board_that_is_too_hot_postpones_a_session_and_works_on_it_by_itself_when_it_has_cooled() {
    let bare = TestBox::new();
    let microphone = Microphone::playing(bare.root(), &conversation(bare.root()));
    let room = microphone.tell(bare);
    let _daemon = room.start_daemon();
    room.heat(83_000);
    let session = recorded(&room, &microphone);
    status(&room, &session, "postponed");
    both_open(&room, "The board is too hot: 83.0 °C, limit 80.0 °C");
    let refused = room.run(&["process", &clip().display().to_string()]);
    assert_eq!(refused.status.code(), Some(75));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("The board is too hot: 83.0 °C"));
    assert_eq!(room.session(&session)["error_message"], Value::Null, "a refusal is no failure");
    room.heat(50_000);
    status(&room, &session, "done");
    let known = room.session(&session);
    assert_eq!((&known["revision"], &known["diarization_status"]), (&json!(1), &json!("ok")));
    assert_eq!(room.ask("roomscribe", &["failures"]), json!([]));
}

#[test]
fn a_full_disk_postpones_a_session_until_there_is_room() {
    let bare = TestBox::new();
    let microphone = Microphone::playing(bare.root(), &conversation(bare.root()));
    let room = microphone.tell(bare);
    room.set("[health]\nmin_disk_mib = 999999999");
    let mut daemon = room.start_daemon();
    let session = recorded(&room, &microphone);
    status(&room, &session, "postponed");
    both_open(&room, "There is too little free disk space: ");
    daemon.stop();
    room.set("");
    let _daemon = room.start_daemon();
    status(&room, &session, "done");
}

#[test]
fn a_damaged_model_fails_one_session_at_once_refuses_the_next_and_needs_no_reset_when_it_is_fetched() {
    for while_a_daemon_runs in [false, true] {
        let room = TestBox::new();
        let daemon = while_a_daemon_runs.then(|| room.start_daemon());
        assert_eq!(room.process(&clip()).code, Some(0));
        room.truncate(WHISPER);
        let failed = room.process(&clip());
        assert_eq!(failed.code, Some(3), "{}", failed.said);
        let why = format!("ModelUnusable: {WHISPER} is truncated; fetch it with: roomscribe models fetch --root");
        assert!(failed.said.contains(&why), "{}", failed.said);
        if while_a_daemon_runs {
            let open = breaker(&room, "transcription");
            assert_eq!((&open["state"], &open["failure_count"]), (&json!("OPEN"), &json!(1)));
            assert!(open["reason"].as_str().unwrap().contains(&why), "{}", open["reason"]);
        }
        let refused = room.process(&clip());
        assert_eq!(refused.code, Some(75));
        assert!(refused.said.contains(&why), "{}", refused.said);
        room.fetch_models();
        let done = room.process(&clip());
        assert_eq!((done.code, &done.record["status"]), (Some(0), &json!("done")), "{}", done.said);
        drop(daemon);
    }
}
