//! What failed is kept, shown with its history, tried again by people and by night, given up only when somebody says so
//! twice; and what cannot be read keeps nothing else back.

use serde_json::{Value, json};
use shared::seal::sha256;
use tests::faults::{VOICE, WHISPER, clip};
use tests::{Running, TestBox, conversation, wait_for, words};

fn queue(room: &TestBox, arguments: &[&str]) -> Value {
    room.ask("roomscribe", &[&["queue"], arguments].concat())
}

/// Where a session stands in the queue.
fn place(room: &TestBox, session: &str) -> Value {
    let listed = queue(room, &["list"]);
    let all = listed["queue"].as_array().unwrap();
    all.iter().find(|item| item["session_id"] == session).map_or(Value::Null, |item| item["place"].clone())
}

fn code(room: &TestBox, arguments: &[&str]) -> Option<i32> {
    room.run(arguments).status.code()
}

/// What a command tells people.
fn said(room: &TestBox, arguments: &[&str]) -> String {
    String::from_utf8(room.run(arguments).stderr).unwrap()
}

/// The daemon before what is asked of it, or after it.
fn daemon_if(room: &TestBox, wanted: bool) -> Option<Running> {
    wanted.then(|| room.start_daemon())
}

/// A session that failed because the transcription model was cut short.
fn dead_letter(room: &TestBox) -> String {
    room.truncate(WHISPER);
    let failed = room.process(&clip());
    assert_eq!(failed.code, Some(3), "{}", failed.said);
    failed.record["session_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_failed_session_keeps_audio_cause_and_history_and_is_done_as_its_second_revision_when_tried_again() {
    for while_it_runs in [false, true] {
        let room = TestBox::new();
        let session = dead_letter(&room);
        let early = daemon_if(&room, while_it_runs);
        assert_eq!((place(&room, &session), room.spooled().len()), (json!("dead_letter"), 1));
        let shown = queue(&room, &["show", &session]);
        assert_eq!(shown["error_message"], "Transcription failed: The model is missing or damaged");
        let attempts = &shown["failed_attempts"][0];
        assert_eq!((&attempts["task"], &attempts["window"]), (&json!("transcription"), &json!(0)));
        let details = &attempts["attempts"][0]["details"];
        assert_eq!((&details["kind"], &details["model"]), (&json!("model_unusable"), &json!(WHISPER)));
        room.fetch_models();
        assert_eq!(queue(&room, &["retry", &session])["replays"], 1);
        let late = daemon_if(&room, !while_it_runs);
        let done = room.finished(&session);
        assert_eq!((&done["status"], &done["revision"]), (&json!("done"), &json!(2)));
        let record = room.record(&session);
        assert_eq!((&record["revision"], &record["error"]), (&json!(2), &Value::Null));
        assert!(!words(&record).is_empty());
        assert_eq!(place(&room, &session), Value::Null);
        assert!(said(&room, &["queue", "retry", &session]).contains("Nothing of it failed"));
        drop((early, late));
    }
}

#[test]
fn a_session_without_speakers_has_them_in_its_second_revision_once_there_is_a_model() {
    let room = TestBox::new();
    room.remove_model(VOICE);
    let done = room.process(&conversation(room.root()));
    let session = done.record["session_id"].as_str().unwrap();
    assert_eq!((&done.record["diarization_status"], place(&room, session)), (&json!("failed"), json!("undiarized")));
    room.fetch_models();
    let _daemon = room.start_daemon();
    queue(&room, &["retry", session]);
    assert_eq!(room.finished(session)["diarization_status"], "ok");
    let record = room.record(session);
    assert_eq!((&record["revision"], &record["speaker_count"]["best"]), (&json!(2), &json!(2)));
    assert_eq!(words(&record), words(&done.record), "what was transcribed is not transcribed again");
    assert_eq!(place(&room, session), Value::Null);
}

#[test]
fn a_session_is_given_up_only_when_somebody_says_so_twice_and_then_for_good() {
    for while_it_runs in [false, true] {
        let room = TestBox::new();
        let session = dead_letter(&room);
        let _daemon = daemon_if(&room, while_it_runs);
        assert_eq!(code(&room, &["queue", "drop", &session]), Some(2));
        assert_eq!((place(&room, &session), room.spooled().len()), (json!("dead_letter"), 1));
        assert_eq!(code(&room, &["queue", "drop", &session, "--yes"]), Some(0));
        wait_for("the audio to be destroyed", || room.spooled().is_empty().then_some(()));
        wait_for("that to be known", || (room.session(&session)["audio_kept"] == false).then_some(()));
        room.fetch_models();
        assert_eq!(code(&room, &["queue", "retry", &session]), Some(5));
        assert!(said(&room, &["queue", "retry", &session]).contains("It was dropped"));
        assert_eq!((place(&room, &session), &room.session(&session)["dropped"]), (Value::Null, &json!(true)));
    }
}

/// Four sessions, of which one stays sound.
fn four(room: &TestBox) -> [String; 4] {
    let clip = clip().display().to_string();
    let output = room.run(&["process", &clip, &clip, &clip, &clip]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let ids = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["session_id"].as_str().unwrap().to_owned());
    ids.collect::<Vec<_>>().try_into().unwrap()
}

/// Writes garbage over one session's consent, another's status and another's results.
fn damage(room: &TestBox, [consent, status, result, _]: &[String; 4]) {
    room.write_over("update sessions set consent = 'garbage' where id = ?1", consent);
    room.write_over("update sessions set status = 'nonsense' where id = ?1", status);
    let garbage = "update work set result = cast('garbage' as blob) where session = ?1 and task = 'transcription'";
    room.write_over(garbage, result);
}

/// What `queue check` finds: which field of which session.
fn checked(room: &TestBox, expected: Option<i32>) -> Vec<(String, String)> {
    let output = room.run(&["queue", "check", "--json"]);
    assert_eq!(output.status.code(), expected);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |d: &Value| format!("{}.{}", d["source"].as_str().unwrap(), d["field"].as_str().unwrap());
    let all = answer["damage"].as_array().unwrap();
    all.iter().map(|d| (name(d), d["key"].as_str().unwrap().to_owned())).collect()
}

fn listed(room: &TestBox) -> Vec<String> {
    let answer = room.ask("roomscribe", &["sessions"]);
    let all = answer["sessions"].as_array().unwrap();
    all.iter().map(|session| session["session_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn rows_that_cannot_be_read_stop_neither_the_start_nor_the_others_and_are_put_aside() {
    for while_it_runs in [false, true] {
        let room = TestBox::new();
        let sessions = four(&room);
        let early = daemon_if(&room, while_it_runs);
        damage(&room, &sessions);
        let [consent, status, result, sound] = &sessions;
        let readable = listed(&room);
        assert!(readable.contains(sound) && readable.contains(result));
        assert!(!readable.contains(consent) && !readable.contains(status));
        assert_eq!(code(&room, &["queue", "list"]), Some(0));
        let found = checked(&room, Some(5));
        for (field, session) in [("sessions.consent", consent), ("sessions.status", status), ("work.result", result)] {
            assert!(found.contains(&(field.to_owned(), session.clone())), "{field}");
        }
        if !while_it_runs {
            // What others are listed with is put aside at the start; what only one session needs waits for `repair`.
            let _daemon = room.start_daemon();
            assert_eq!(listed(&room).len(), 4);
            assert_eq!(checked(&room, Some(5)), [("work.result".to_owned(), result.clone())]);
        }
        assert_eq!(code(&room, &["queue", "repair"]), Some(0));
        assert_eq!(checked(&room, Some(0)), []);
        assert_eq!(listed(&room).len(), 4);
        assert_eq!(room.session(consent)["consent"]["basis"], "unreadable");
        assert_eq!(place(&room, status), "dead_letter");
        let aside = queue(&room, &["list"])["quarantined"].clone();
        assert_eq!(aside.as_array().unwrap().len(), 3);
        assert!(!aside.to_string().contains("garbage"), "what is put aside may have been said");
        drop(early);
    }
}

/// What `repair` promises: that what was damaged can be had again. Retrying such a session used to be refused, because
/// nothing of its work had failed.
#[test]
fn a_session_whose_row_or_record_was_damaged_is_made_again_of_what_is_there() {
    let room = TestBox::new();
    let [status, record, ..] = four(&room);
    let said_before = words(&room.record(&status));
    room.write_over("update sessions set status = 'nonsense' where id = ?1", &status);
    room.write_over("update records set record = x'00' where session = ?1", &record);
    assert_eq!(code(&room, &["queue", "repair"]), Some(0));
    let _daemon = room.start_daemon();
    for session in [&status, &record] {
        queue(&room, &["retry", session]);
        let done = room.finished(session);
        assert_eq!((&done["status"], &done["error_message"]), (&json!("done"), &Value::Null));
        assert_eq!((words(&room.record(session)), place(&room, session)), (said_before.clone(), Value::Null));
    }
    assert_eq!(room.session(&status)["revision"], 2);
    assert!(said(&room, &["queue", "retry", &status]).contains("Nothing of it failed"));
}

#[test]
fn what_the_clinic_has_not_can_be_carried_there_sealed() {
    let room = TestBox::new();
    room.enrol();
    let done = room.process(&conversation(room.root()));
    let session = done.record["session_id"].as_str().unwrap();
    let folder = room.root().join("stick");
    let answer = queue(&room, &["export", "--to", &folder.display().to_string()]);
    assert_eq!(answer["files"].as_array().unwrap().len(), 2);
    let parcel = std::fs::read(folder.join(format!("{session}.1.parcel"))).unwrap();
    assert!(parcel.starts_with(b"RSP1"));
    let owed = "select sha256 from outbox where session = ?1";
    let owed: String = room.database().query_row(owed, [session], |row| row.get(0)).unwrap();
    assert_eq!(sha256(&parcel), owed);
    let list = std::fs::read_to_string(folder.join("queue.json")).unwrap();
    assert!(list.contains(session));
    let spoken = words(&done.record);
    assert!(spoken.len() > 40);
    // Three words in a row: one alone may be a name of the list's.
    for phrase in spoken.windows(3).map(|three| three.join(" ")) {
        let is_in = |bytes: &[u8]| bytes.windows(phrase.len()).any(|w| w.eq_ignore_ascii_case(phrase.as_bytes()));
        assert!(!is_in(&parcel) && !is_in(list.as_bytes()), "what was said lies open");
    }
}

#[test]
fn in_its_off_peak_hours_the_box_tries_a_dead_letter_again_by_itself_and_at_others_not() {
    let room = TestBox::new();
    let session = dead_letter(&room);
    room.fetch_models();
    room.set("[replay]\nenabled = false\nfrom_hour = 3\nuntil_hour = 3");
    let mut by_day = room.start_daemon();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(place(&room, &session), "dead_letter");
    by_day.stop();
    room.set("[replay]\nfrom_hour = 3\nuntil_hour = 3");
    let _by_night = room.start_daemon();
    let done = wait_for("the night's work", || Some(room.session(&session)).filter(|s| s["status"] == "done"));
    assert_eq!((&done["revision"], &done["replays"]), (&json!(2), &json!(1)));
}
