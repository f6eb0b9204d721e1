//! The clinic's keys are changed while a box owes it a record that was sealed to the old ones.

use std::time::Duration;

use tests::broker::Broker;
use tests::faults::clip;
use tests::microphone::Microphone;
use tests::stack::{ROOM, Stack};
use tests::{TestBox, call};

fn processed(stack: &Stack) -> String {
    let body = serde_json::json!({ "file": clip() }).to_string();
    let (_, made) = call(stack.room.root(), "POST", "/process", &body, Duration::from_secs(120)).expect("a record");
    made["session_id"].as_str().expect("its session").to_owned()
}

#[test]
fn records_sealed_before_and_after_the_keys_are_changed_are_acknowledged_and_open() {
    let mut stack = Stack::start_on(TestBox::new(), Broker::start, Microphone::counting);
    let before = processed(&stack);
    drop(stack.delivered(&before));
    // Of this one the clinic hears only when the box has been told of the new keys.
    stack.sync.kill();
    let between = processed(&stack);
    let clinic = |arguments: &[&str]| {
        let done = stack.room.command("roomscribe-clinic").args(arguments).output().expect("the program starts");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    };
    assert_eq!(clinic(&["keys", "list"]).lines().count(), 1);
    assert!(clinic(&["keys", "rotate"]).contains("restart roomscribe-clinic"));
    assert_eq!(clinic(&["keys", "list"]).lines().count(), 2);
    let link = stack.room.root().join("link.toml");
    std::fs::write(&link, clinic(&["invite", ROOM])).expect("a file");
    let enrolled = stack.room.command("roomscribe-sync").args(["enrol", "--from"]).arg(&link).output();
    assert!(enrolled.is_ok_and(|told| told.status.success()), "the box is enrolled again");
    stack.clinic.kill();
    stack.clinic = stack.room.start("roomscribe-clinic", &["run"]);
    stack.daemon.stop();
    stack.daemon = stack.room.start_daemon();
    stack.restart_sync();
    let after = processed(&stack);
    for session in [&before, &between, &after] {
        assert_eq!(stack.delivered(session)["session_id"], session.as_str());
    }
    assert_eq!(stack.held(), 3);
}
