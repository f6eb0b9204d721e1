//! Speakers are told apart once more, from what is kept of their voices.

use serde_json::{Value, json};
use tests::recordings::{RATE_HZ, float_wav, samples};
use tests::{TestBox, conversation};

/// The session of a conversation with a gap in it, whose audio is destroyed as after the clinic's acknowledgement.
fn without_audio(room: &TestBox) -> String {
    let mut heard = samples(&conversation(room.root()));
    heard.extend(std::iter::repeat_n(f32::NAN, 2 * RATE_HZ as usize));
    let done = room.process(&float_wav(&room.root().join("gap.wav"), 1, &heard));
    assert_eq!(done.code, Some(0), "{}", done.said);
    assert!(done.record["gaps"].as_array().unwrap().len() == 1);
    let session = done.record["session_id"].as_str().unwrap().to_owned();
    let file = room.spooled().remove(0);
    appliance::forget::audio(&room.keys(), &file, &session).unwrap();
    let changed = room.database().execute("update sessions set audio = 'destroyed' where id = ?1", [&session]);
    assert_eq!((changed.unwrap(), room.spooled().len()), (1, 0));
    session
}

fn told(room: &TestBox, session: &str, more: &[&str]) -> String {
    let done = room.run(&[&["relabel", session], more].concat());
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn speakers(record: &Value) -> (&Value, &Value) {
    (&record["revision"], &record["speaker_count"]["best"])
}

#[test]
fn a_session_without_audio_gets_other_speakers_and_keeps_words_and_gaps() {
    let room = TestBox::new();
    let session = without_audio(&room);
    let first = room.record(&session);
    assert_eq!(speakers(&first), (&json!(1), &json!(2)));
    assert!(told(&room, &session, &[]).contains("as before, in revision 1"));

    assert!(told(&room, &session, &["--speakers", "1"]).contains("revision 2"));
    let one = room.record(&session);
    assert_eq!(speakers(&one), (&json!(2), &json!(1)));
    assert!(tests::words(&one) == tests::words(&first), "the words are others");
    assert_eq!((&one["gaps"], &one["models"], &one["status"]), (&first["gaps"], &first["models"], &json!("done")));

    let daemon = room.start_daemon();
    assert!(told(&room, &session, &["--speakers", "2"]).contains("revision 3"));
    let two = room.record(&session);
    assert_eq!(two["revision"], 3);
    for key in ["segments", "speakers", "gaps"] {
        assert!(two[key] == first[key], "{key} differ");
    }
    drop(daemon);
}

/// Once its audio is destroyed a session can never be heard again: what its record was made of may be damaged, but the
/// record stands.
#[test]
fn a_good_record_is_not_replaced_by_a_worse_one() {
    let room = TestBox::new();
    let session = without_audio(&room);
    let first = room.record(&session);
    room.write_over("update work set result = x'00' where session = ?1 and task = 'diarization'", &session);
    let daemon = room.start_daemon();
    told(&room, &session, &["--speakers", "1"]);
    assert!(room.record(&session) == first, "the record is another");
    assert_eq!(room.session(&session)["status"], "done");
    drop(daemon);
}

#[test]
fn what_was_never_told_apart_cannot_be_told_apart_again_and_a_number_that_cannot_be_is_refused() {
    let room = TestBox::new();
    let heard = samples(&conversation(room.root()));
    let short = room.process(&float_wav(&room.root().join("short.wav"), 1, &heard[..RATE_HZ as usize / 2]));
    let session = short.record["session_id"].as_str().unwrap();
    let refused = room.run(&["relabel", session]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no voices to compare again"));
    assert_eq!(room.run(&["relabel", session, "--speakers", "0"]).status.code(), Some(2));
    assert_eq!(room.record(session)["revision"], 1);
    let unknown = room.run(&["relabel", "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11"]);
    assert_eq!(unknown.status.code(), Some(5));
}
