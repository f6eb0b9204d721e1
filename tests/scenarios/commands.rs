//! What the clinic asks of a box, over a real broker, and what it may not.

use serde_json::{Value, json};
use shared::clock::{Clock as _, SystemClock};
use shared::command::{CommandName, Order};
use shared::seal::ClinicKeys;
use shared::wire::Topics;
use tests::broker::Broker;
use tests::microphone::Microphone;
use tests::stack::{CLINIC, ROOM, Stack};
use tests::{TestBox, box_page, wait_for};

/// The exit code, and what it said.
fn ask(stack: &Stack, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = stack.room.command("roomscribe-clinic");
    let done = command.args(["command", ROOM]).args(arguments).output().unwrap();
    (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
}

fn state(stack: &Stack) -> Value {
    stack.room.ask("roomscribe", &["status"])["capture"]["state"].clone()
}

#[test]
fn a_clinic_starts_pauses_ends_and_withdraws_a_session_where_the_site_allows_it() {
    let room = TestBox::bare();
    room.set("[commands]\nallow = [\"start\", \"stop\", \"pause\", \"resume\", \"withdraw\", \"health-check\"]\n");
    let stack = Stack::start_on(room, Broker::start, Microphone::counting);
    let done = (Some(0), "Done.\n".to_owned());
    assert_eq!(ask(&stack, &["health-check"]), done);
    let (code, said) = ask(&stack, &["stop"]);
    assert!(code == Some(1) && said.contains("the box answered: refused: "), "{said}");
    assert_eq!(ask(&stack, &["start", "--consent", "verbal"]), done);
    assert_eq!(state(&stack), "recording");
    assert_eq!(ask(&stack, &["pause"]), done);
    assert_eq!(state(&stack), "paused");
    assert_eq!(ask(&stack, &["resume"]), done);
    assert_eq!(ask(&stack, &["stop"]), done);
    let (code, said) = ask(&stack, &["breaker-reset", "--service", "transcription"]);
    assert!(code == Some(1) && said.contains("not allowed"), "{said}");

    let session = stack.room.ask("roomscribe", &["sessions"])["sessions"][0]["session_id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&stack, &["withdraw", "--session", &session]), done);
    wait_for("the withdrawal", || {
        let told = stack.room.ask("roomscribe", &["sessions", &session]);
        (told["withdrawal"] == json!({ "erased": true, "clinic": "confirmed" })).then_some(())
    });

    let here = stack.room.ask("roomscribe", &["audit"]);
    let rows = here["rows"].as_array().unwrap().iter();
    let by_clinic: Vec<&str> =
        rows.filter(|row| row["actor"] == "clinic").filter_map(|row| row["subject"].as_str()).collect();
    assert_eq!(by_clinic, ["health-check", "stop", "start", "pause", "resume", "stop", "withdraw"]);
    let there = stack.room.ask("roomscribe-clinic", &["commands"]);
    let there: Vec<&str> = there.as_array().unwrap().iter().rev().filter_map(|row| row["outcome"].as_str()).collect();
    assert_eq!(there, ["done", "refused", "done", "done", "done", "done", "not_allowed", "done"]);
}

#[test]
fn an_order_that_the_clinic_did_not_sign_is_ignored_and_counted_and_one_that_nobody_hears_ends() {
    let mut stack = Stack::start_on(TestBox::bare(), Broker::start, Microphone::counting);
    stack.room.ask("roomscribe", &["start", "--consent", "verbal"]);
    let order = Order {
        version: 1,
        id: "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11".into(),
        clinic: CLINIC.into(),
        box_id: ROOM.into(),
        name: CommandName::Stop,
        session: None,
        service: None,
        consent: None,
        by: "administrator".into(),
        issued_at: SystemClock::new().now().wall.to_string(),
        valid_for_s: 60,
    };
    let forged = serde_json::to_string(&ClinicKeys::generate().command(&order)[0]).unwrap();
    let topics = Topics::new(CLINIC);
    stack.broker.tolerate(&topics.command(ROOM, CommandName::Stop));
    stack.broker.tolerate(&topics.ack(ROOM));
    stack.broker.publish(&topics.command(ROOM, CommandName::Stop), &forged);
    stack.broker.publish(&topics.ack(ROOM), "{}");
    let counted = |what: &str| format!("roomscribe_link_disbelieved_total{{what=\"{what}\"}} 1\n");
    wait_for("both to be counted", || {
        let page = box_page(stack.room.root(), "/metrics")?;
        (page.contains(&counted("command")) && page.contains(&counted("acknowledgement"))).then_some(())
    });
    assert_eq!(state(&stack), "recording");

    stack.sync.kill();
    let (code, said) = ask(&stack, &["stop", "--within", "1"]);
    assert!(code == Some(69) && said.contains("the box did not answer in time"), "{said}");
    // Its time is over by the broker's count as well: nothing is stopped when the box comes back.
    stack.restart_sync();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(state(&stack), "recording");
}
