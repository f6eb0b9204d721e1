//! One breaker, read everywhere it is shown, at every transition: command, health, metrics, MQTT board, log.

use serde_json::Value;
use tests::microphone::Microphone;
use tests::stack::{CLINIC, ROOM, Stack};
use tests::{box_page, conversation, promtool_accepts, wait_for};

const WHISPER: &str = "demo-whisper-q8_0.bin";

/// State and failures in a row.
type Seen = (String, u64);

fn seen(state: &Value, count: &Value) -> Option<Seen> {
    Some((state.as_str()?.to_owned(), count.as_u64()?))
}

/// The state that is 1, and the failures in a row, of the transcription breaker on a page of metrics.
fn measured(page: &str) -> Option<Seen> {
    let lines = || page.lines().filter(|line| line.contains("name=\"transcription\""));
    let label = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!("{key}=\""))?;
        Some(rest.split_once('"')?.0.to_uppercase())
    };
    let mut states = lines().filter(|l| l.starts_with("resilience4j_circuitbreaker_state{") && l.ends_with(" 1"));
    let state = label(states.next()?, "state")?;
    assert!(states.next().is_none(), "it is in one state");
    let failed = lines().find(|l| l.starts_with("resilience4j_circuitbreaker_buffered_calls{"))?;
    Some((state, failed.rsplit_once(' ')?.1.parse().ok()?))
}

/// The last move of the transcription breaker in the recorder's log.
fn logged(stack: &Stack) -> Option<Seen> {
    let log = std::fs::read_to_string(stack.room.root().join("roomscribe.log")).ok()?;
    let mut events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_move = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["service_name"] == "transcription" && message.starts_with("Circuit breaker ")
    };
    let last = events.rfind(is_move)?;
    seen(&last["circuit_breaker_state"], &last["failure_count"])
}

/// Every surface but the log, by name.
fn shown(stack: &Stack) -> Vec<(&'static str, Option<Seen>)> {
    let of =
        |health: Option<Value>| health.and_then(|h| seen(&h["transcription_circuit"], &h["transcription_failures"]));
    let listed = stack.room.ask("roomscribe", &["breaker", "list"]);
    let listed = seen(&listed["transcription"]["state"], &listed["transcription"]["failure_count"]);
    let board = |topic: &str| stack.broker.retained(&format!("roomscribe/v1/{CLINIC}/board/breakers{topic}"));
    let one = board(&format!("/{ROOM}/transcription")).and_then(|b| seen(&b["state"], &b["failure_count"]));
    vec![
        ("breaker list", listed),
        ("the box's health", of(stack.box_says("/health/audio-processing"))),
        ("the box's metrics", box_page(stack.room.root(), "/metrics").as_deref().and_then(measured)),
        ("the clinic's health", of(stack.clinic_says(&format!("/health/audio-processing?box={ROOM}")))),
        ("the clinic's metrics", stack.clinic_page("/metrics").as_deref().and_then(measured)),
        ("the board", of(board(""))),
        ("the board, one breaker", one),
    ]
}

/// Waits until the clinic has heard it too, then holds every surface against the same state and count.
fn all_agree(stack: &Stack, state: &str, count: u64) {
    let expected = Some((state.to_owned(), count));
    let mut last = Vec::new();
    let agreed = tests::try_for(std::time::Duration::from_secs(20), || {
        last = shown(stack);
        last.iter().all(|(_, seen)| *seen == expected)
    });
    assert!(agreed, "{state}, {count} failures, is shown as {last:?}");
    promtool_accepts(&box_page(stack.room.root(), "/metrics").unwrap());
    promtool_accepts(&stack.clinic_page("/metrics").unwrap());
}

#[test]
fn command_health_metrics_board_and_log_agree_at_every_transition() {
    let mut stack = Stack::start(|folder| Microphone::playing(folder, &conversation(folder)));
    stack.daemon.stop();
    stack.daemon = stack.room.start("roomscribe", &["run", "--json"]);
    wait_for("the box to answer", || stack.box_says("/health/audio-processing"));
    all_agree(&stack, "CLOSED", 0);

    let wav = conversation(stack.room.root());
    let model = stack.room.model(WHISPER);
    let sound = std::fs::read(&model).unwrap();
    std::fs::write(&model, &sound[..sound.len() / 2]).unwrap();
    assert_eq!(stack.room.process(&wav).code, Some(3));
    all_agree(&stack, "OPEN", 1);
    assert_eq!(logged(&stack), Some(("OPEN".into(), 1)));
    let reason = stack.room.ask("roomscribe", &["breaker", "list"])["transcription"]["reason"].clone();
    assert!(reason.as_str().unwrap().contains(WHISPER));

    std::fs::write(&model, &sound).unwrap();
    assert_eq!(stack.room.process(&wav).code, Some(0), "one success of two");
    all_agree(&stack, "HALF_OPEN", 1);
    assert_eq!(logged(&stack), Some(("HALF_OPEN".into(), 1)));
    assert_eq!(stack.room.process(&wav).code, Some(0));
    all_agree(&stack, "CLOSED", 0);
    assert_eq!(logged(&stack), Some(("CLOSED".into(), 0)));

    for (action, state) in [("force-open", "FORCED_OPEN"), ("disable", "DISABLED"), ("reset", "CLOSED")] {
        stack.room.ask("roomscribe", &["breaker", action, "transcription"]);
        all_agree(&stack, state, 0);
        assert_eq!(logged(&stack), Some((state.into(), 0)));
    }
    the_breaker_of_the_link_is_moved_through_the_store(&stack);
}

/// It belongs to another process, which a person reaches through the recorder's socket all the same.
fn the_breaker_of_the_link_is_moved_through_the_store(stack: &Stack) {
    let state = || stack.room.ask("roomscribe", &["breaker", "list"])["sync"]["state"].clone();
    assert_eq!(state(), "CLOSED");
    stack.room.ask("roomscribe", &["breaker", "force-open", "sync"]);
    wait_for("the link to be held open", || (state() == "FORCED_OPEN").then_some(()));
    wait_for("the clinic to miss the box", || {
        let boxes = stack.clinic_says("/api/v1/boxes")?;
        (boxes[0]["online"] == false).then_some(())
    });
    stack.room.ask("roomscribe", &["breaker", "reset", "sync"]);
    wait_for("the link to be back", || {
        let boxes = stack.clinic_says("/api/v1/boxes")?;
        (boxes[0]["online"] == true && state() == "CLOSED").then_some(())
    });
}
