//! A therapist who agreed to it is known again by the voice, until the print is destroyed.

use std::path::PathBuf;

use serde_json::{Value, json};
use tests::recordings::{RATE_HZ, float_wav, samples, stretch};
use tests::{TestBox, conversation, conversation_reference};

/// Everything one person says in the conversation, twice over: ten seconds of speech and more.
fn alone(room: &TestBox, speaker: &str) -> PathBuf {
    let heard = samples(&conversation(room.root()));
    let reference = conversation_reference();
    let turns = reference["turns"].as_array().unwrap().iter().filter(|turn| turn["speaker"] == speaker);
    let seconds = |turn: &Value, key: &str| turn[key].as_f64().unwrap();
    let once: Vec<f32> = turns
        .flat_map(|turn| {
            let said = stretch(&heard, seconds(turn, "start"), seconds(turn, "end"));
            said.iter().copied().chain(std::iter::repeat_n(0.0, RATE_HZ as usize / 3)).collect::<Vec<f32>>()
        })
        .collect();
    float_wav(&room.root().join(format!("{speaker}.wav")), 1, &[once.clone(), once].concat())
}

fn speakers(record: &Value) -> Vec<(&str, &Value)> {
    record["speakers"].as_array().unwrap().iter().map(|s| (s["label"].as_str().unwrap(), &s["role"])).collect()
}

fn refused(room: &TestBox, arguments: &[&str], code: i32, why: &str) {
    let done = room.run(arguments);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(code), "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn an_enrolled_therapist_is_named_in_every_session_until_the_print_is_destroyed() {
    let room = TestBox::new();
    let (alone, talk) = (alone(&room, "therapist"), conversation(room.root()));
    let before = room.process(&talk).record;
    assert_eq!(speakers(&before), [("Speaker 1", &Value::Null), ("Speaker 2", &Value::Null)]);

    let enrolled = room.ask("roomscribe", &["voice", "enrol", "--consent", "written", alone.to_str().unwrap()]);
    let id = enrolled["voice_id"].as_str().unwrap();
    assert!(enrolled["speech_s"].as_f64().unwrap() >= 10.0);
    let named = room.process(&talk).record;
    // The therapist speaks first.
    assert_eq!(speakers(&named), [("Therapist", &json!("therapist")), ("Speaker 1", &Value::Null)]);
    let segments = named["segments"].as_array().unwrap();
    assert_eq!(segments.len(), before["segments"].as_array().unwrap().len());
    for (then, now) in before["segments"].as_array().unwrap().iter().zip(segments) {
        let expected = if then["speaker"] == "Speaker 1" { "Therapist" } else { "Speaker 1" };
        assert_eq!(now["speaker"], expected);
    }
    let captions = room.run(&["export", named["session_id"].as_str().unwrap(), "--format", "vtt"]);
    assert!(String::from_utf8_lossy(&captions.stdout).contains("<v Therapist>"));

    let earlier = before["session_id"].as_str().unwrap();
    let daemon = room.start_daemon();
    room.ask("roomscribe", &["relabel", earlier]);
    assert_eq!(speakers(&room.record(earlier))[0].0, "Therapist", "an earlier session, told apart again");
    let listed = room.ask("roomscribe", &["voice", "list"]);
    assert_eq!(listed["voices"][0]["voice_id"], id);
    assert_eq!(room.ask("roomscribe", &["voice", "destroy", id, "--yes"])["destroyed"], id);
    assert_eq!(room.ask("roomscribe", &["voice", "list"])["voices"], json!([]));
    let told = room.ask("roomscribe", &["audit"]).to_string();
    assert!(told.contains("voice_enrolled") && told.contains("voice_destroyed") && !told.contains("Therapist"));
    drop(daemon);
    assert_eq!(speakers(&room.process(&talk).record)[0].0, "Speaker 1");
    refused(&room, &["voice", "destroy", id, "--yes"], 5, "no voice of this id");
}

#[test]
fn nothing_of_a_print_lies_on_the_disk_in_plain() {
    let room = TestBox::new();
    let alone = alone(&room, "therapist");
    let label = "Therapist Quixotic";
    let arguments = ["voice", "enrol", "--consent", "written", "--label", label, alone.to_str().unwrap()];
    room.ask("roomscribe", &arguments);
    let mut folders = vec![room.root().to_owned()];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                let holds = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
                assert!(!holds(b"Quixotic") && !holds(b"\"vector\"") && !holds(b"speech_s"), "{}", path.display());
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 4, "the databases are among them");
    refused(&room, &arguments, 5, "already: destroy it first");
}

#[test]
fn a_recording_of_two_or_of_too_little_and_a_box_s_own_labels_are_refused() {
    let room = TestBox::new();
    let talk = conversation(room.root());
    let enrol = |file: &str, more: &[&str]| {
        [&["voice", "enrol", "--consent", "written", file][..], more].concat().iter().map(|s| (*s).to_owned()).collect()
    };
    let check = |arguments: Vec<String>, why: &str| {
        refused(&room, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), 5, why);
    };
    check(enrol(talk.to_str().unwrap(), &[]), "more than one voice");
    let short = float_wav(&room.root().join("short.wav"), 1, &samples(&talk)[..4 * RATE_HZ as usize]);
    check(enrol(short.to_str().unwrap(), &[]), "seconds of speech");
    check(enrol(talk.to_str().unwrap(), &["--label", "Speaker 1"]), "a label has");
    check(enrol("/dev/null", &[]), "regular file");
    refused(&room, &["voice", "enrol", talk.to_str().unwrap()], 2, "--consent");
    assert_eq!(room.ask("roomscribe", &["voice", "list"])["voices"], json!([]));
}
