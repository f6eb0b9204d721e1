//! The recorder away in the middle of a session: killed, or stopped and started.

use std::time::Duration;

use appliance::audio::SAMPLE_RATE_HZ;
use shared::record::GapCause;
use tests::microphone::{Microphone, SLACK, STALE, STEP, position};
use tests::{Running, TestBox, now};

/// Interrupts a recorder for two seconds. Checks that the gap is as long as the recorder was away and that nothing is
/// missing after it; gives how many samples are missing before it.
fn lost_by(interrupt: impl FnOnce(&mut Running)) -> u64 {
    let bare = TestBox::bare();
    let mut microphone = Microphone::counting(bare.root());
    let room = microphone.tell(bare);
    let mut daemon = room.start_daemon();
    let session = room.ask("roomscribe", &["start", "--consent", "verbal"])["session_id"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(4_300));
    let at_interruption = microphone.position(now()).unwrap();
    interrupt(&mut daemon);
    std::thread::sleep(Duration::from_millis(2_000));
    let daemon = room.start_daemon();
    std::thread::sleep(Duration::from_millis(3_000));
    room.ask("roomscribe", &["stop"]);
    assert!(microphone.is_alive());
    drop(daemon);

    let spool = room.heard(&session);
    let gaps = spool.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let (gap, cause) = gaps[0].clone();
    assert_eq!(cause, GapCause::Restart);
    let pcm = spool.read(0..u64::MAX).unwrap();

    let last_kept = position(pcm[gap.start as usize - 1]);
    let lost = at_interruption.saturating_sub(last_kept);
    assert!(gap.start >= 3 * u64::from(SAMPLE_RATE_HZ), "{} samples were kept", gap.start);

    // Skipping what waited in the pipe, the timeline runs as far after the gap as the microphone did.
    let after = gap.end as usize + appliance::audio::samples_in(STALE) as usize;
    let moved = position(pcm[after]) - last_kept;
    let timeline = after as u64 - (gap.start - 1);
    assert!(moved.abs_diff(timeline) <= 2 * SLACK, "the microphone moved {moved} samples, the timeline {timeline}");
    let unbroken = pcm[after..].windows(2).all(|w| position(w[1]).abs_diff(position(w[0])) <= STEP);
    assert!(unbroken, "nothing is missing after the gap");
    lost
}

#[test]
fn a_kill_costs_at_most_a_second_and_the_downtime_is_a_gap_as_long_as_it_was() {
    let lost = lost_by(Running::kill);
    assert!(lost <= u64::from(SAMPLE_RATE_HZ) + SLACK, "{lost} samples are lost");
}

#[test]
fn a_proper_stop_costs_nothing_but_the_downtime_and_the_next_start_goes_on() {
    let lost = lost_by(Running::stop);
    assert!(lost <= SLACK, "{lost} samples are lost");
}
