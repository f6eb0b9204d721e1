//! A real kernel's sound card under the box: the recorder stopped, the card and its driver taken away and brought back; on
//! arm64 the button and the lights on a real GPIO chip.

use appliance::audio::{SAMPLE_RATE_HZ, samples_in, seconds};
use serde_json::Value;
use shared::record::GapCause;
use std::time::Duration;
use tests::TestBox;
use tests::machine::{Architecture, Mark, run};
use tests::positions::{Stretch, stretches};

#[test]
fn a_kernels_sound_card_that_is_stopped_taken_away_and_brought_back_leaves_its_gaps() {
    record_in(Architecture::HERE);
}

#[test]
#[ignore = "cross builds, and emulates a Pi 4's processor: ./dev test --arm"]
fn so_it_is_on_arm64_by_button_and_lights() {
    record_in(Architecture::Arm64);
}

/// What was heard before the card was opened, or of a player that began anew, is passed over.
const STALE: Duration = Duration::from_secs(1);
/// Between what happens in the machine and its being told by another process lies so much, under emulation.
const TELLING: f64 = 1.5;

fn record_in(architecture: Architecture) {
    let folder = tempfile::tempdir().unwrap();
    let marks = run(architecture, folder.path());
    let names: Vec<&str> = marks.iter().map(|mark| mark.name.as_str()).collect();
    let expected = [
        "booted",
        "recording",
        "off-record",
        "on-record",
        "stopped",
        "continued",
        "removed",
        "returned",
        "ended",
        "finished",
    ];
    assert_eq!(names, expected, "{marks:?}");
    let between = |from: &str, to: &str| at(&marks, to) - at(&marks, from);

    let room = TestBox::on(folder.path());
    let listed = room.ask("roomscribe", &["sessions"]);
    let session = listed["sessions"][0]["session_id"].as_str().unwrap();
    let spool = room.heard(session);
    let (gaps, pcm) = (spool.gaps(), spool.read(0..u64::MAX).unwrap());
    let causes: Vec<GapCause> = gaps.iter().map(|(_, cause)| *cause).collect();
    assert_eq!(causes, [GapCause::OffRecord, GapCause::Overrun, GapCause::Unplugged], "{gaps:?}, {marks:?}");
    let lengths: Vec<f64> = gaps.iter().map(|(gap, _)| seconds(gap.end - gap.start)).collect();
    let told = [between("off-record", "on-record"), between("stopped", "continued"), between("removed", "returned")];
    for (length, told) in lengths.iter().zip(told) {
        assert!((length - told).abs() <= TELLING, "gaps of {lengths:?} s, told as {told} s: {marks:?}");
    }
    // The timeline is as long as the machine's own clock says.
    let whole = seconds(pcm.len() as u64);
    assert!((whole - between("recording", "ended")).abs() <= TELLING, "{whole} s: {marks:?}");

    // The player went on while nothing was recorded, until its card was taken away: it counted over both gaps.
    let heard = stretches(&pcm, &gaps, samples_in(STALE), 0);
    assert_eq!(heard.len(), 4, "{heard:?}");
    for pair in heard[..3].windows(2) {
        assert_moved_as_told(pair);
    }

    // What a person is shown of it is the same, and the log has no panic.
    let record: Value = serde_json::from_slice(&room.run(&["export", session, "--format", "json"]).stdout).unwrap();
    let shown: Vec<&str> = record["gaps"].as_array().unwrap().iter().filter_map(|gap| gap["cause"].as_str()).collect();
    assert_eq!(shown, ["off_record", "overrun", "unplugged"], "{record}");
    let log = std::fs::read_to_string(folder.path().join("daemon.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(room.ask("roomscribe", &["ledger"])["balances"], true);
}

fn at(marks: &[Mark], name: &str) -> f64 {
    marks.iter().find(|mark| mark.name == name).unwrap().at
}

/// The card's clock is the kernel's timer: a tenth of a second of what it had buffered may lie on either side.
fn assert_moved_as_told(pair: &[Stretch]) {
    let (moved, told) = (pair[1].first - pair[0].last, pair[1].samples.start - pair[0].samples.end);
    assert!(
        moved.abs_diff(told) <= u64::from(SAMPLE_RATE_HZ) / 5,
        "the card moved {moved} samples over {told}: {pair:?}"
    );
}
