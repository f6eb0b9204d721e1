//! What may happen at a bad moment: kills, locked databases, damaged files, callers that go away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tests::microphone::Microphone;
use tests::{TestBox, call, conversation, wait_for, words};

/// The conversation four times over: work for some seconds, in several windows.
fn long(wav: &Path) -> PathBuf {
    let mut reader = hound::WavReader::open(wav).unwrap();
    let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
    let long = wav.with_file_name("long.wav");
    let mut writer = hound::WavWriter::create(&long, reader.spec()).unwrap();
    (0..4).flat_map(|_| &samples).for_each(|s| writer.write_sample(*s).unwrap());
    writer.finalize().unwrap();
    long
}

/// Hands a file to the daemon and goes away before it answers.
fn hand_over_and_leave(room: &TestBox, file: &Path) -> String {
    let (body, root) = (json!({ "file": file }).to_string(), room.root().to_owned());
    std::thread::spawn(move || call(&root, "POST", "/process", &body, Duration::from_millis(30)));
    wait_for("the import", || {
        let listed = room.ask("roomscribe", &["sessions"]);
        listed["sessions"][0]["session_id"].as_str().map(str::to_owned)
    })
}

fn finished(room: &TestBox, session: &str) -> serde_json::Value {
    wait_for("the session to be concluded", || {
        let known = room.ask("roomscribe", &["sessions", session]);
        matches!(known["status"].as_str(), Some("done" | "failed")).then_some(known)
    })
}

fn exported(room: &TestBox, session: &str) -> serde_json::Value {
    serde_json::from_slice(&room.run(&["export", session, "--format", "json"]).stdout).unwrap()
}

/// Such a session used to be recorded or imported and never cut.
#[test]
fn a_caller_that_goes_away_leaves_its_session_in_good_hands() {
    let room = TestBox::new();
    let _daemon = room.start_daemon();
    let session = hand_over_and_leave(&room, &conversation(room.root()));
    assert_eq!(finished(&room, &session)["status"], "done");
}

#[test]
fn a_box_killed_again_and_again_while_it_works_finishes_every_window_once_it_may() {
    let room = TestBox::new();
    let mut daemon = room.start_daemon();
    let session = hand_over_and_leave(&room, &long(&conversation(room.root())));
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(900));
        daemon.kill();
        daemon = room.start_daemon();
    }
    let known = finished(&room, &session);
    assert_eq!((&known["status"], &known["duration_s"]), (&json!("done"), &json!(120.0)));
    let heard = words(&exported(&room, &session)).len();
    assert!((200..=280).contains(&heard), "{heard} words of 240");
}

/// The row that was running used to stay so until the next start.
#[test]
fn a_database_locked_for_longer_than_anybody_waits_costs_time_and_nothing_else() {
    let room = TestBox::new();
    let _daemon = room.start_daemon();
    let session = hand_over_and_leave(&room, &long(&conversation(room.root())));
    let database = room.root().join("var/lib/roomscribe/roomscribe.db");
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    wait_for("work under way", || {
        let sql = "select exists (select 1 from work where state = 'running')";
        connection.query_row(sql, [], |row| row.get::<_, bool>(0)).unwrap().then_some(())
    });
    connection.execute_batch("begin immediate").unwrap();
    std::thread::sleep(Duration::from_millis(12_500));
    connection.execute_batch("rollback").unwrap();
    assert_eq!(finished(&room, &session)["status"], "done");
}

/// One bad file used to keep the recorder down.
#[test]
fn a_damaged_recording_and_one_of_no_session_do_not_keep_the_box_from_starting() {
    let bare = TestBox::bare();
    let microphone = Microphone::counting(bare.root());
    let room = microphone.tell(bare);
    let mut daemon = room.start_daemon();
    let session = room.ask("roomscribe", &["start", "--consent", "verbal"])["session_id"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(1_500));
    daemon.kill();
    let spool = room.root().join("var/lib/roomscribe/spool");
    std::fs::write(spool.join(format!("{session}.rspool")), b"this was a recording").unwrap();
    let orphan = spool.join("7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11.rspool");
    std::fs::write(&orphan, b"nobody's").unwrap();
    let _daemon = room.start_daemon();
    assert_eq!(finished(&room, &session)["status"], "failed");
    assert!(!orphan.exists());
    let next = room.ask("roomscribe", &["start", "--consent", "verbal"]);
    assert_ne!(next["session_id"], json!(session));
    assert_eq!(room.ask("roomscribe", &["stop"])["status"], "queued");
}

#[test]
fn a_stop_counts_the_silence_of_a_microphone_that_is_gone() {
    let bare = TestBox::bare();
    let mut microphone = Microphone::counting(bare.root());
    let room = microphone.tell(bare);
    let mut daemon = room.start_daemon();
    let session = room.ask("roomscribe", &["start", "--consent", "verbal"])["session_id"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(2_500));
    daemon.kill();
    microphone.unplug();
    let _daemon = room.start_daemon();
    std::thread::sleep(Duration::from_millis(3_000));
    assert_eq!(room.ask("roomscribe", &["status"])["capture"]["state"], "failing");
    let stopped = room.ask("roomscribe", &["stop"]);
    assert_eq!(stopped["session_id"], json!(session));
    let seconds = stopped["duration_s"].as_f64().unwrap();
    assert!((4.5..9.0).contains(&seconds), "the session lasted {seconds} s");
}

#[test]
fn the_control_socket_takes_what_people_type_and_refuses_in_json() {
    let bare = TestBox::bare();
    let microphone = Microphone::counting(bare.root());
    let room = microphone.tell(bare);
    let _daemon = room.start_daemon();
    let call =
        |method: &str, path: &str, body: &str| call(room.root(), method, path, body, Duration::from_secs(20)).unwrap();
    let refused = call("POST", "/sessions", "");
    assert_eq!(refused.0, 400);
    assert!(refused.1["error"]["message"].as_str().unwrap().contains("without consent"));
    for (path, status) in [("/nowhere", 404), ("/breakers/translation/reset", 404), ("/sessions/current/stop", 409)] {
        let answer = call("POST", path, "");
        assert_eq!(answer.0, status, "{path}");
        assert!(answer.1["error"]["message"].is_string(), "{path}");
    }
    let unlinked = call("POST", "/breakers/sync/reset", "");
    assert_eq!(unlinked.0, 409);
    assert!(unlinked.1["error"]["message"].as_str().unwrap().contains("not enrolled"));
    assert_eq!(call("POST", "/sessions", "{").0, 400);
    for hint in [r#""participants": 0"#, r#""speakers": {"at_least": 3, "at_most": 2}"#, r#""speakers": {"about": 2}"#]
    {
        let body = format!(r#"{{"consent": {{"basis": "written"}}, {hint}}}"#);
        assert_eq!(call("POST", "/sessions", &body).0, 400, "{hint}");
    }
    let body =
        r#"{"consent": {"basis": "written", "by": "therapist", "at": "2026-01-01T00:00:00Z"}, "participants": 2}"#;
    let started = call("POST", "/sessions", body);
    assert_eq!((started.0, &started.1["status"]), (201, &json!("recording")));
    assert_eq!(call("POST", "/sessions", body).0, 409, "one session at a time");
    assert_eq!(call("POST", "/sessions/current/stop", "").0, 200);
}
