//! A session that is recorded in real time and the same audio as one file end the same, and so do both ways of telling
//! speakers apart.

use std::path::Path;
use std::time::Duration;

use tests::microphone::Microphone;
use tests::{TestBox, conversation, fixture, wait_for};

fn write_wav(path: &Path, pcm: &[i16]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: appliance::audio::SAMPLE_RATE_HZ,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    pcm.iter().for_each(|sample| wav.write_sample(*sample).unwrap());
    wav.finalize().unwrap();
}

/// The demo segmentation network, which is had only by asking for its role.
fn with_segmentation(room: &TestBox) {
    let from = fixture("models").display().to_string();
    let got = room.run(&["models", "fetch", "--role", "segmentation", "--from", &from]);
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
}

/// Records the conversation in real time, then processes what was recorded as one file in a box of the same models.
fn both_ways(prepare: impl Fn(&TestBox), models: usize) {
    let room = TestBox::new();
    prepare(&room);
    let microphone = Microphone::playing(room.root(), &conversation(room.root()));
    let room = microphone.tell(room);
    let daemon = room.start_daemon();
    let session = room.ask("roomscribe", &["start", "--consent", "verbal"])["session_id"].as_str().unwrap().to_owned();
    // The conversation alone is one window.
    std::thread::sleep(Duration::from_secs(3));
    microphone.cue();
    wait_for("the recording to be played", || microphone.is_played().then_some(()));
    room.ask("roomscribe", &["stop"]);
    let state = || room.ask("roomscribe", &["sessions", &session])["status"].clone();
    wait_for("the session to be done", || (state() == "done").then_some(()));
    let streamed = room.ask("roomscribe", &["export", &session, "--format", "json"]);
    drop(daemon);

    let pcm = room.heard(&session).read(0..u64::MAX).unwrap();
    let other = TestBox::new();
    prepare(&other);
    let wav = other.root().join("whole.wav");
    write_wav(&wav, &pcm);
    let whole = other.process(&wav).record;
    for key in ["segments", "speakers", "gaps", "duration_s", "models"] {
        // What was said is not for a test's output.
        assert!(streamed[key] == whole[key], "{key} differ");
    }
    assert_eq!(whole["models"].as_array().unwrap().len(), models);
    assert_eq!(whole["speakers"].as_array().unwrap().len(), 2);
    assert!(whole["duration_s"].as_f64().unwrap() > 30.5, "more than one window");
}

#[test]
fn a_session_in_real_time_and_as_one_file_is_the_same() {
    both_ways(|_| (), 3);
}

#[test]
fn so_it_is_with_a_segmentation_network() {
    both_ways(with_segmentation, 4);
}
