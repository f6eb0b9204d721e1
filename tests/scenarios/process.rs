//! `roomscribe process` on sound recordings.

use tests::{Processed, TestBox, conversation, conversation_reference, fixture, plain, word_errors, words};

#[test]
fn the_conversation_is_written_down_and_each_sentence_is_whose_it_is() {
    let room = TestBox::new();
    let done = room.process(&conversation(room.root()));
    let reference = conversation_reference();
    let turns = reference["turns"].as_array().unwrap();
    let expected: Vec<String> = turns.iter().flat_map(|t| plain(t["text"].as_str().unwrap())).collect();
    let errors = word_errors(&expected, &words(&done.record));
    // whisper.cpp alone, same model and file: 15.0 % of 60 words.
    assert!(errors * 100 <= 16 * expected.len(), "{errors} of {} words are wrong", expected.len());
    let mut whose = std::collections::BTreeMap::new();
    for segment in done.record["segments"].as_array().unwrap() {
        let middle = (segment["start"].as_f64().unwrap() + segment["end"].as_f64().unwrap()) / 2.0;
        let turn = turns.iter().find(|t| (t["start"].as_f64().unwrap()..=t["end"].as_f64().unwrap()).contains(&middle));
        let speaker = turn.expect("every segment lies in a turn")["speaker"].as_str().unwrap();
        whose.entry(segment["speaker"].as_str().unwrap().to_owned()).or_insert_with(Vec::new).push(speaker);
    }
    assert_eq!(whose.len(), 2);
    assert!(
        whose.values().all(|speakers| speakers.iter().all(|s| *s == speakers[0])),
        "nobody is confused with another"
    );
}

#[test]
fn flac_mp3_and_ogg_at_any_rate_and_channel_count_go_through_the_same_pipeline() {
    let room = TestBox::new();
    for name in ["stereo-44100.flac", "mono-22050.mp3", "stereo-48000.ogg"] {
        let done = room.process(&fixture("audio").join(name));
        assert_eq!(done.code, Some(0), "{name}: {}", done.said);
        let seconds = done.record["duration_s"].as_f64().unwrap();
        assert!((seconds - 4.0).abs() < 0.15, "{name} lasts {seconds} s");
        assert_eq!(done.record["diarization_status"], "ok", "{name}");
        let heard = words(&done.record).len();
        assert!((8..=14).contains(&heard), "{name}: {heard} words of eleven");
    }
}

#[test]
fn the_same_file_gives_the_same_words_whatever_came_before() {
    let room = TestBox::new();
    let wav = conversation(room.root()).display().to_string();
    let mp3 = fixture("audio/mono-22050.mp3").display().to_string();
    let output = room.run(&["process", &wav, &mp3, &wav]);
    let records: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(words(&records[0]).len() > 40 && words(&records[0]) == words(&records[2]));
}

#[test]
fn a_number_of_speakers_that_somebody_knows_is_kept_to() {
    let room = TestBox::new();
    let wav = conversation(room.root()).display().to_string();
    for (hint, found) in [("1", 1), ("3-", 3)] {
        let done = Processed::of(room.run(&["process", "--speakers", hint, &wav]));
        assert_eq!(done.record["speakers"].as_array().unwrap().len(), found, "--speakers {hint}");
        assert_eq!(done.record["speaker_count"]["best"], found);
    }
    let wrong = room.run(&["process", "--speakers", "3-2", &wav]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("write 2, 2-3, 2- (at least) or -3 (at most)"));
}
