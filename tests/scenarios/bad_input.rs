//! What is no recording gets a clear error and leaves nothing behind.

use std::path::{Path, PathBuf};

use serde_json::json;
use tests::recordings::float_wav;
use tests::{TestBox, assert_fits_schema, conversation};

fn wav(path: &Path, samples: &[i16]) -> PathBuf {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    samples.iter().for_each(|s| writer.write_sample(*s).unwrap());
    writer.finalize().unwrap();
    path.to_owned()
}

#[test]
fn what_is_no_recording_is_a_transcription_error_and_leaves_only_its_failed_session() {
    let room = TestBox::new();
    let file = |name: &str, bytes: &[u8]| {
        let path = room.root().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let good = std::fs::read(conversation(room.root())).unwrap();
    let mut corrupt = good[..44].to_vec();
    corrupt[8..12].copy_from_slice(b"JUNK");
    corrupt.extend((0..60_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8));
    let bad = [
        file("empty.wav", b""),
        file("text.wav", &b"Minutes of the last meeting, item one. ".repeat(100)),
        file("corrupt.wav", &corrupt),
        wav(&room.root().join("zero.wav"), &[]),
        float_wav(&room.root().join("nan.wav"), 1, &[f32::NAN; 32_000]),
        room.root().join("nowhere.wav"),
    ];
    for path in &bad {
        let done = room.process(path);
        assert_eq!(done.code, Some(3), "{}: {}", path.display(), done.said);
        assert_eq!(done.record["status"], "failed");
        assert_eq!(done.record["error"]["type"], "TranscriptionError");
        assert_eq!(done.record["error_message"], "The audio is invalid");
        assert_eq!(done.record["diarization_status"], "skipped");
        // The first use of a root also says that it made a key.
        let about_the_file = done.said.lines().filter(|line| !line.contains("made a development key")).count();
        assert_eq!(about_the_file, 1, "one clear sentence: {}", done.said);
        assert_fits_schema(&done.record);
    }
    assert!(room.spooled().is_empty(), "nothing is left behind");
    let sessions = room.ask("roomscribe", &["sessions"]);
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), bad.len());
}

#[test]
fn bad_files_neither_open_a_breaker_nor_stop_the_good_ones_behind_them() {
    let room = TestBox::new().with("TRANSCRIPTION_CIRCUIT_FAILURE_THRESHOLD", "1");
    let good = conversation(room.root()).display().to_string();
    let bad = room.root().join("bad.wav");
    std::fs::write(&bad, b"not sound").unwrap();
    let bad = bad.display().to_string();
    let output = room.run(&["process", &bad, &bad, &good]);
    assert_eq!(output.status.code(), Some(3), "the first code that is not 0");
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|r| r["status"].clone()).collect();
    assert_eq!(statuses, [json!("failed"), json!("failed"), json!("done")]);
}

#[test]
fn less_than_a_second_is_transcribed_and_not_diarized() {
    let room = TestBox::new();
    let pcm: Vec<i16> =
        hound::WavReader::open(conversation(room.root())).unwrap().samples().map(Result::unwrap).collect();
    let done = room.process(&wav(&room.root().join("short.wav"), &pcm[8_000..22_000]));
    assert_eq!(done.code, Some(0), "{}", done.said);
    assert_eq!((&done.record["status"], &done.record["diarization_status"]), (&"done".into(), &"skipped".into()));
    assert_eq!(done.record["duration_s"], 0.875);
    assert_fits_schema(&done.record);
}

#[test]
fn a_wrong_command_line_is_a_usage_error_and_a_box_that_is_not_there_is_unreachable() {
    let room = TestBox::bare();
    assert_eq!(room.run(&["proces"]).status.code(), Some(2));
    assert_eq!(room.run(&["process"]).status.code(), Some(2));
    assert_eq!(room.run(&["breaker", "reset", "translation"]).status.code(), Some(2));
    let status = room.run(&["status"]);
    assert_eq!(status.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&status.stderr).contains("roomscribe run --root"));
}

#[test]
fn a_wrong_setting_names_itself_and_stops_the_start() {
    let room = TestBox::new().with("AUDIO_PROCESSING_MAX_RETRIES", "0");
    let output = room.run(&["run"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("retry.max_retries is 0"));
}
