//! The microphone: what it is, what it does wrong, and what people are told of it. No engine is needed.

use std::path::Path;
use std::time::Duration;

use appliance::audio::{SAMPLE_RATE_HZ, seconds};
use serde_json::{Value, json};
use shared::record::GapCause;
use tests::microphone::Microphone;
use tests::{TestBox, wait_for};

fn start(room: &TestBox) -> String {
    room.ask("roomscribe", &["start", "--consent", "verbal"])["session_id"].as_str().unwrap().to_owned()
}

/// Two channels of 32 bits at 48 kHz: a tone of half of full scale in the left one.
fn write_stereo(file: &Path, seconds: usize) {
    let level = |n: usize| 0.5 * (n as f64 * 440.0 * std::f64::consts::TAU / 48_000.0).sin();
    let frame = |n: usize| [((level(n) * 2f64.powi(31)) as i32).to_le_bytes(), 0i32.to_le_bytes()].concat();
    std::fs::write(file, (0..seconds * 48_000).flat_map(frame).collect::<Vec<u8>>()).unwrap();
}

/// A stereo device of 32 bits at 48 kHz behind a plug that gives floats alone: ALSA itself refuses everything else.
fn with_stereo(bare: TestBox) -> TestBox {
    let (raw, config) = (bare.root().join("stereo.raw"), bare.root().join("asound.conf"));
    write_stereo(&raw, 8);
    let file =
        format!("type file slave.pcm {{ type null }} file \"/dev/null\" infile \"{}\" format raw", raw.display());
    let plug = format!("type plug slave {{ pcm {{ {file} }} format S32_LE rate 48000 channels 2 }}");
    let floats = format!("type lfloat slave {{ format S32_LE pcm {{ {plug} }} }}");
    std::fs::write(&config, format!("pcm.roomscribe_stereo {{ {floats} }}\n")).unwrap();
    bare.with("ALSA_CONFIG_PATH", &config.display().to_string()).with("ROOMSCRIBE_CAPTURE_DEVICE", "roomscribe_stereo")
}

#[test]
fn a_device_that_has_neither_16_khz_nor_16_bits_nor_one_channel_is_recorded_as_it_sounds() {
    let room = with_stereo(TestBox::bare());
    let _daemon = room.start_daemon();
    let session = start(&room);
    std::thread::sleep(Duration::from_millis(3_000));
    room.ask("roomscribe", &["stop"]);
    let pcm = room.heard(&session).read(0..u64::MAX).unwrap();
    // It has no clock, and waits for the board's.
    assert!((3.0..7.0).contains(&seconds(pcm.len() as u64)), "{} s", seconds(pcm.len() as u64));
    let tone = &pcm[..32_000];
    assert!(tone.iter().max().unwrap().abs_diff(8_192) < 20, "the mean of a tone and nothing");
    let crossings = tone.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
    assert!(crossings.abs_diff(880) <= 1, "{crossings} periods in two seconds");
}

/// A driver that answered no more used to stop the recording for ever, while the box said that it recorded.
#[test]
fn a_microphone_that_stops_giving_samples_is_told_and_is_a_gap_as_long_as_it_was() {
    let bare = TestBox::bare();
    let microphone = Microphone::counting(bare.root());
    let room = microphone.tell(bare);
    let _daemon = room.start_daemon();
    let session = start(&room);
    std::thread::sleep(Duration::from_millis(2_500));
    microphone.set_frozen(true);
    wait_for("the recorder to notice", || {
        (room.ask("roomscribe", &["status"])["capture"]["state"] == "failing").then_some(())
    });
    std::thread::sleep(Duration::from_millis(1_500));
    microphone.set_frozen(false);
    wait_for("sound to be back", || {
        (room.ask("roomscribe", &["status"])["capture"]["state"] == "recording").then_some(())
    });
    std::thread::sleep(Duration::from_millis(2_500));
    room.ask("roomscribe", &["stop"]);
    let spool = room.heard(&session);
    let gaps = spool.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let (gap, cause) = gaps[0].clone();
    assert_eq!(cause, GapCause::Unplugged);
    assert!(seconds(gap.end - gap.start) > 3.0, "{gaps:?}");
    // The counter went on with the clock: what lies between is as long on the timeline as it was.
    let pcm = spool.read(0..u64::MAX).unwrap();
    let position = |sample: i16| 16 * i64::from(sample);
    let after = gap.end as usize + SAMPLE_RATE_HZ as usize;
    let moved = position(pcm[after]) - position(pcm[gap.start as usize - 1]);
    let timeline = (after as u64 - gap.start + 1) as i64;
    assert!(moved.abs_diff(timeline) <= 6_400, "the microphone moved {moved} samples, the timeline {timeline}");
}

/// What a command prints, line by line.
fn lines(room: &TestBox, arguments: &[&str]) -> Vec<String> {
    let output = room.run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn levels_are_those_of_the_microphone_without_a_daemon_and_of_the_daemon_that_records() {
    let bare = TestBox::bare();
    let microphone = Microphone::sounding(bare.root(), 0.1, 0.0);
    let room = microphone.tell(bare);
    let is_right = |level: &Value| level["peak_dbfs"] == json!(-20.0) && level["rms_dbfs"] == json!(-23.0);
    let all = |state: &str| {
        let lines = lines(&room, &["levels", "--seconds", "2", "--json"]);
        let levels: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(levels.len() == 20 && levels.iter().all(|l| l["state"] == state && l["clipped"] == 0), "{levels:?}");
        // A tenth that was begun before the microphone, or the recording, was there is not whole.
        assert!(levels[2..].iter().all(is_right), "{levels:?}");
    };
    all("listening");
    let plain = lines(&room, &["levels", "--seconds", "2"]);
    assert!(plain.len() == 2 && plain[1].contains("peak   -20.0  rms   -23.0 dBFS"), "{plain:?}");
    let _daemon = room.start_daemon();
    all("listening");
    let session = start(&room);
    wait_for("a level", || room.ask("roomscribe", &["status"])["capture"]["rms_dbfs"].as_f64());
    all("recording");
    room.ask("roomscribe", &["stop"]);
    let gaps = room.heard(&session).gaps();
    assert!(gaps.is_empty(), "looking costs no sound: {gaps:?}");
}

#[test]
fn levels_of_a_microphone_that_is_not_there_say_so() {
    let room = TestBox::bare().with("ROOMSCRIBE_CAPTURE_DEVICE", "plughw:CARD=Nowhere");
    let output = room.run(&["levels", "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("plughw:CARD=Nowhere cannot be used"));
    let numbered = TestBox::bare().with("ROOMSCRIBE_CAPTURE_DEVICE", "plughw:0,0");
    let refused = numbered.run(&["run"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("card numbers change"));
}

/// What doctor finds of the microphone.
fn found(room: &TestBox) -> Vec<Value> {
    let told: Value = serde_json::from_slice(&room.run(&["doctor", "--json"]).stdout).unwrap();
    let of_microphone = |finding: &&Value| finding["id"].as_str().unwrap().starts_with("microphone");
    told["findings"].as_array().unwrap().iter().filter(of_microphone).cloned().collect()
}

#[test]
fn doctor_judges_what_the_microphone_gives() {
    for (peak, offset, expected) in [
        (0.1, 0.0, None),
        (0.0, 0.0, Some(("microphone_flat_line", "error"))),
        (1.5, 0.0, Some(("microphone_clipping", "warning"))),
        (0.1, 0.3, Some(("microphone_offset", "warning"))),
        (0.0005, 0.0, Some(("microphone_too_quiet", "info"))),
    ] {
        let bare = TestBox::bare();
        let microphone = Microphone::sounding(bare.root(), peak, offset);
        let room = microphone.tell(bare);
        let found = found(&room);
        let ids: Vec<_> = found.iter().map(|f| (f["id"].as_str().unwrap(), f["severity"].as_str().unwrap())).collect();
        assert_eq!(ids, Vec::from_iter(expected), "a peak of {peak} about {offset}");
    }
}

#[test]
fn doctor_tells_a_card_that_is_not_there_from_a_microphone_that_gives_nothing() {
    let away = TestBox::bare().with("ROOMSCRIBE_CAPTURE_DEVICE", "plughw:CARD=Nowhere");
    let finding = &found(&away)[0];
    assert_eq!((&finding["id"], &finding["severity"]), (&json!("microphone_card_missing"), &json!("error")));
    assert!(finding["symptom"].as_str().unwrap().contains("Nowhere"));
    let bare = TestBox::bare();
    let microphone = Microphone::counting(bare.root());
    microphone.set_frozen(true);
    let room = microphone.tell(bare);
    assert_eq!(found(&room)[0]["id"], "microphone_unusable");
}
