//! Who did what and when is written down, chained, and holds nothing that was said; what is done to the log is found.

use serde_json::{Value, json};
use tests::faults::{WHISPER, clip};
use tests::microphone::Microphone;
use tests::{Running, TestBox, conversation, conversation_reference, plain, wait_for, words};

/// What the log and its verdict say by themselves.
const OWN: [&str; 14] = [
    "the", "audit", "log", "whole", "rows", "left", "out", "session", "started", "ended", "record", "box", "reset",
    "sound",
];

type Row = (String, String, Option<String>);

fn rows_of(answer: &Value) -> Vec<Row> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let all = answer["rows"].as_array().unwrap();
    let row = |row: &Value| (text(row, "actor"), text(row, "action"), row["subject"].as_str().map(str::to_owned));
    all.iter().map(row).collect()
}

fn rows(room: &TestBox) -> Vec<Row> {
    rows_of(&room.ask("roomscribe", &["audit"]))
}

fn row(actor: &str, action: &str, subject: &str) -> Row {
    (actor.into(), action.into(), Some(subject.into()))
}

fn verified(room: &TestBox, more: &[&str]) -> (Value, Option<i32>) {
    let output = room.run(&[&["audit", "--verify", "--json"], more].concat());
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

fn daemon_if(room: &TestBox, wanted: bool) -> Option<Running> {
    wanted.then(|| room.start_daemon())
}

fn done(room: &TestBox, arguments: &[&str]) {
    let output = room.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_session_leaves_who_started_ended_and_read_it_and_no_word_of_what_was_said() {
    let room = TestBox::new();
    let microphone = Microphone::playing(room.root(), &conversation(room.root()));
    let room = microphone.tell(room);
    let mut daemon = room.start_daemon();
    let started = room.ask("roomscribe", &["start", "--consent", "verbal", "--by", "therapist"]);
    let session = started["session_id"].as_str().unwrap();
    microphone.cue();
    wait_for("the recording to be played", || microphone.is_played().then_some(()));
    room.ask("roomscribe", &["stop"]);
    assert_eq!(room.finished(session)["status"], "done");
    done(&room, &["export", session]);
    done(&room, &["breaker", "force-open", "diarization"]);
    done(&room, &["breaker", "reset", "diarization"]);
    done(&room, &["relabel", session, "--speakers", "1"]);
    daemon.stop();
    done(&room, &["export", session, "--format", "json"]);
    let expected = [
        row("therapist", "session_started", session),
        row("local", "session_ended", session),
        row("local", "record_exported", session),
        row("local", "breaker_forced", "diarization"),
        row("local", "breaker_reset", "diarization"),
        row("local", "session_relabelled", session),
        row("local", "record_exported", session),
    ];
    assert_eq!(rows(&room), expected);
    let shown = room.run(&["audit"]).stdout;
    let told = [shown, room.run(&["audit", "--json"]).stdout, verified(&room, &[]).0.to_string().into_bytes()].concat();
    let told = plain(&String::from_utf8(told).unwrap().replace(|c: char| !c.is_alphanumeric(), " "));
    let reference = conversation_reference();
    let turns = reference["turns"].as_array().unwrap();
    let mut spoken: Vec<String> = turns.iter().flat_map(|t| plain(t["text"].as_str().unwrap())).collect();
    spoken.extend(words(&room.record(session)));
    // Short ones are in ids, and some the log uses by itself.
    spoken.retain(|word| word.len() > 2 && !OWN.contains(&word.as_str()));
    assert!(spoken.len() > 40);
    assert!(!spoken.iter().any(|word| told.contains(word)), "a word that was said is in the audit log");
}

#[test]
fn retries_drops_and_the_destruction_of_audio_are_written_down_with_a_daemon_and_without() {
    for while_it_runs in [false, true] {
        let room = TestBox::new();
        room.set("[replay]\nenabled = false");
        room.truncate(WHISPER);
        let failed = room.process(&clip());
        assert_eq!(failed.code, Some(3), "{}", failed.said);
        let session = failed.record["session_id"].as_str().unwrap();
        let mut daemon = daemon_if(&room, while_it_runs);
        done(&room, &["queue", "retry", session]);
        let _later = daemon_if(&room, !while_it_runs);
        done(&room, &["queue", "drop", session, "--yes"]);
        wait_for("the audio to be gone", || (room.session(session)["audio_kept"] == false).then_some(()));
        let expected = [
            row("local", "imported", session),
            row("local", "session_retried", session),
            row("local", "session_dropped", session),
            row("box", "audio_destroyed", session),
        ];
        assert_eq!(rows(&room), expected);
        let refused = room.run(&["queue", "retry", session]);
        assert_eq!((refused.status.code(), rows(&room).len()), (Some(5), 4), "what was refused was not done");
        let early = room.ask("roomscribe", &["audit", "--since", "1h"]);
        assert_eq!((rows_of(&early).len(), &early["left_out"]), (4, &json!(0)));
        assert!(verified(&room, &[]).0["sound"] == true);
        drop(daemon.take());
    }
}

#[test]
fn what_is_done_to_the_log_is_found_and_a_noted_head_finds_one_that_was_made_anew() {
    for while_it_runs in [false, true] {
        let room = TestBox::new();
        let session = room.process(&clip()).record["session_id"].as_str().unwrap().to_owned();
        let _daemon = daemon_if(&room, while_it_runs);
        (0..4).for_each(|_| done(&room, &["export", &session]));
        let (verdict, code) = verified(&room, &[]);
        assert_eq!((code, &verdict["rows"], &verdict["flaw"]), (Some(0), &json!(5), &Value::Null));
        let head = verdict["head"].as_str().unwrap();
        let text = String::from_utf8(room.run(&["audit", "--verify"]).stdout).unwrap();
        assert!(text.contains(head));
        assert_eq!(verified(&room, &["--noted", head]).1, Some(0));
        let (other, code) = verified(&room, &["--noted", &format!("5:{}", "0".repeat(64))]);
        assert_eq!((code, &other["flaw"]), (Some(5), &json!({ "kind": "rewritten", "number": 5 })));
        assert_eq!(room.run(&["audit", "--verify", "--noted", "5"]).status.code(), Some(2));

        let harm = |sql: &str| {
            room.database().execute_batch(sql).unwrap();
            let (verdict, code) = verified(&room, &[]);
            assert_eq!((code, &verdict["sound"]), (Some(5), &json!(false)));
            verdict["flaw"].clone()
        };
        let keep = "create table aside as select * from audit; create table head_aside as select * from audit_head";
        room.database().execute_batch(keep).unwrap();
        let restore = "delete from audit; insert into audit select * from aside";
        assert_eq!(
            harm("update audit set actor = 'clinic' where number = 2"),
            json!({ "kind": "altered", "number": 2 })
        );
        assert_eq!(harm(&format!("{restore} where number <> 3")), json!({ "kind": "missing", "number": 3 }));
        assert_eq!(harm(&format!("{restore} where number < 4")), json!({ "kind": "cut_off", "number": 4 }));
        let swap = "update audit set number = -1 where number = 2; update audit set number = 2 where number = 4;
                    update audit set number = 4 where number = -1";
        let swapped = json!({ "kind": "reordered", "number": 2, "found_at": 4 });
        assert_eq!(harm(&format!("{restore}; {swap}")), swapped);
        let said = room.run(&["audit", "--verify"]);
        assert!(String::from_utf8_lossy(&said.stderr).contains("stands as 4"));
        room.database().execute_batch(restore).unwrap();
        assert_eq!(verified(&room, &["--noted", head]).1, Some(0));
    }
}
