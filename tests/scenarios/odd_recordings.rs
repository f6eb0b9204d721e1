//! Recordings that are sound in form and odd to hear: silence, music, one voice, many, too loud, half of it missing.

use serde_json::{Value, json};
use tests::recordings::{RATE_HZ, float_wav, music, pitched, samples, stretch};
use tests::{Processed, TestBox, assert_fits_schema, conversation, conversation_reference, word_errors, words};

fn process(room: &TestBox, name: &str, channels: u16, sound: &[f32]) -> Processed {
    let done = room.process(&float_wav(&room.root().join(name), channels, sound));
    assert_eq!((done.code, &done.record["status"]), (Some(0), &json!("done")), "{name}: {}", done.said);
    assert_fits_schema(&done.record);
    let segments = done.record["segments"].as_array().unwrap();
    let labels: Vec<&Value> = done.record["speakers"].as_array().unwrap().iter().map(|s| &s["label"]).collect();
    let is_known = |label: &Value| label == "Unknown Speaker" || labels.contains(&label);
    assert!(segments.iter().all(|s| is_known(&s["speaker"])), "{name}");
    assert_eq!(done.record["speaker_count"]["best"], labels.len());
    done
}

/// The stretches of one voice of the conversation.
fn turns(heard: &[f32], speaker: &str) -> Vec<Vec<f32>> {
    let reference = conversation_reference();
    let turns = reference["turns"].as_array().unwrap().iter().filter(|turn| turn["speaker"] == speaker);
    let seconds = |turn: &Value, key: &str| turn[key].as_f64().unwrap();
    turns.map(|turn| stretch(heard, seconds(turn, "start"), seconds(turn, "end")).to_vec()).collect()
}

fn pause() -> Vec<f32> {
    vec![0.0; RATE_HZ as usize / 3]
}

#[test]
fn silence_and_music_become_records_in_which_nobody_speaks() {
    let room = TestBox::new();
    let silent = process(&room, "silence.wav", 1, &vec![0.0; 10 * RATE_HZ as usize]).record;
    assert_eq!((&silent["segments"], &silent["gaps"], &silent["speakers"]), (&json!([]), &json!([]), &json!([])));
    assert_eq!((&silent["error"], &silent["diarization_status"]), (&Value::Null, &json!("ok")));
    let text = room.run(&["export", silent["session_id"].as_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&text.stdout), "(nobody spoke)\n");

    let played = process(&room, "music.wav", 1, &music(12)).record;
    assert_eq!((&played["speakers"], &played["diarization_status"]), (&json!([]), &json!("ok")));
    let heard = played["segments"].as_array().unwrap();
    assert!(heard.iter().all(|s| s["flags"].as_array().unwrap().contains(&json!("non_speech"))), "said by nobody");
    let spoken = room.run(&["export", played["session_id"].as_str().unwrap(), "--format", "rttm"]);
    assert!(spoken.status.success() && String::from_utf8_lossy(&spoken.stdout).trim().is_empty());
}

#[test]
fn one_voice_is_one_speaker_and_eight_are_written_down_too() {
    let room = TestBox::new();
    let heard = samples(&conversation(room.root()));
    let therapist = turns(&heard, "therapist");
    let alone: Vec<f32> = therapist.iter().flat_map(|turn| turn.iter().copied().chain(pause())).collect();
    let alone = process(&room, "one.wav", 1, &alone).record;
    assert_eq!((&alone["speaker_count"]["best"], &alone["diarization_status"]), (&json!(1), &json!("ok")));
    assert!(words(&alone).len() > 15);

    let client = turns(&heard, "client");
    let crowd = [0.8, 0.93, 1.08, 1.25].iter().flat_map(|factor| {
        [&therapist[1], &client[0]].into_iter().flat_map(|turn| pitched(turn, *factor).into_iter().chain(pause()))
    });
    let crowd = process(&room, "eight.wav", 1, &crowd.collect::<Vec<f32>>()).record;
    let found = crowd["speaker_count"]["best"].as_u64().unwrap();
    // The demo encoder cannot tell eight apart.
    assert!((2..=8).contains(&found) && crowd["diarization_status"] == "ok", "{found} speakers");
    assert!(words(&crowd).len() > 40);
}

#[test]
fn what_is_too_loud_is_heard_and_a_dead_channel_costs_nothing() {
    let room = TestBox::new();
    let heard = samples(&conversation(room.root()));
    let well = process(&room, "mono.wav", 1, &heard).record;
    for (name, other) in [("dead.wav", 0.0), ("nan.wav", f32::NAN)] {
        let stereo: Vec<f32> = heard.iter().flat_map(|sample| [*sample, other]).collect();
        let half = process(&room, name, 2, &stereo).record;
        let differ = word_errors(&words(&well), &words(&half));
        assert!(differ <= 2, "{name}: {differ} words differ");
        assert_eq!((&half["speaker_count"], &half["gaps"]), (&well["speaker_count"], &json!([])), "{name}");
    }
    let clipped: Vec<f32> = heard.iter().map(|sample| sample * 12.0).collect();
    let clipped = process(&room, "clipped.wav", 1, &clipped).record;
    assert_eq!((&clipped["diarization_status"], &clipped["gaps"]), (&json!("ok"), &json!([])));
    assert!(words(&clipped).len() * 2 > words(&well).len());
}

#[test]
fn values_that_are_not_numbers_are_a_gap_and_a_recording_of_nothing_else_is_named_to_the_technician() {
    let room = TestBox::new();
    let mut heard = samples(&conversation(room.root()));
    heard[..2 * RATE_HZ as usize].fill(f32::NAN);
    let part = process(&room, "part.wav", 1, &heard).record;
    let gaps = part["gaps"].as_array().unwrap();
    assert_eq!((gaps.len(), &gaps[0]["cause"], &part["duration_s"]), (1, &json!("audio_invalid"), &json!(30.0)));
    assert_eq!(gaps[0]["start"], 0.0);
    assert!((gaps[0]["end"].as_f64().unwrap() - 2.0).abs() < 0.1);
    assert!(part["segments"].as_array().unwrap().iter().all(|s| s["end"].as_f64().unwrap() > 2.1));

    let none = float_wav(&room.root().join("none.wav"), 1, &vec![f32::NAN; 3 * RATE_HZ as usize]);
    let none = room.process(&none);
    let chain = none.record["error"]["chain"].to_string();
    assert!(none.code == Some(3) && chain.contains("AudioInvalid: ") && chain.contains("not numbers"), "{}", none.said);
    let told = room.run(&["doctor", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let dead = told["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == "dead_letters").unwrap();
    assert!(dead.to_string().contains("The audio is invalid"));
}
