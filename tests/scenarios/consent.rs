//! Off the record, and withdrawn: what is not to be heard is not, and what is to be gone is gone, from every file.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use shared::record::GapCause;
use tests::broker::Broker;
use tests::microphone::{Microphone, STALE, position};
use tests::stack::{ROOM, Stack};
use tests::{TestBox, conversation, now, wait_for, words};

/// A block of the microphone, which may be on its way.
const SLACK: u64 = 1_600;

#[test]
fn off_the_record_nothing_is_recorded_and_the_gap_is_as_long_as_it_lasted() {
    let bare = TestBox::bare();
    let microphone = Microphone::counting(bare.root());
    let room = microphone.tell(bare);
    let mut daemon = room.start_daemon();
    let session = room.ask("roomscribe", &["start", "--consent", "verbal"])["session_id"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(room.ask("roomscribe", &["pause", "--by", "client"])["status"], "paused");
    let paused = microphone.position(now()).unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(room.ask("roomscribe", &["status"])["capture"]["state"], "paused");
    // Neither a kill nor the next start lets it hear anything.
    daemon.kill();
    let _daemon = room.start_daemon();
    assert_eq!(room.ask("roomscribe", &["status"])["capture"]["state"], "paused");
    std::thread::sleep(Duration::from_millis(1_500));
    let resumed = microphone.position(now()).unwrap();
    assert_eq!(room.ask("roomscribe", &["resume", "--by", "client"])["status"], "recording");
    std::thread::sleep(Duration::from_millis(2_500));
    room.ask("roomscribe", &["stop"]);

    let spool = room.heard(&session);
    let gaps = spool.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    let (gap, cause) = gaps[0].clone();
    assert_eq!(cause, GapCause::OffRecord);
    let pcm = spool.read(0..u64::MAX).unwrap();
    let heard: BTreeSet<u64> = pcm.iter().map(|sample| position(*sample)).collect();
    let stale = appliance::audio::samples_in(STALE);
    let meanwhile: Vec<&u64> = heard.range(paused + SLACK..resumed.saturating_sub(stale + SLACK)).collect();
    assert!(meanwhile.is_empty(), "{} positions from off the record were kept", meanwhile.len());
    let lasted = resumed - paused;
    let gap = gap.end - gap.start;
    assert!(gap + 2 * SLACK >= lasted && gap < lasted + 2 * 16_000, "{gap} samples of gap, {lasted} off the record");
    let log = room.ask("roomscribe", &["audit"]);
    let told: Vec<(&str, &str)> =
        log["rows"].as_array().unwrap().iter().map(|row| (text(row, "actor"), text(row, "action"))).collect();
    assert!(told.contains(&("client", "session_paused")) && told.contains(&("client", "session_resumed")), "{told:?}");
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Every file under a folder but models and recordings that were handed in, that holds one of these.
fn holding(folder: &Path, needles: &[Vec<u8>]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let is_left_out = entry.ends_with("models") || entry.extension().is_some_and(|e| e == "wav");
        if entry.is_dir() && !is_left_out {
            found.extend(holding(&entry, needles));
        } else if entry.is_file() && !is_left_out {
            let bytes = std::fs::read(&entry).unwrap();
            found.extend(needles.iter().filter(|needle| contains(&bytes, needle)).map(|_| entry.display().to_string()));
        }
    }
    found
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|part| part == needle)
}

/// What would be found where the text of a record lies open: any two words that follow each other, as they were written.
fn spoken(record: &Value) -> Vec<Vec<u8>> {
    let texts = record["segments"].as_array().unwrap().iter().map(|segment| text(segment, "text"));
    let pairs = texts.flat_map(|said| {
        let words: Vec<&str> = said.split_whitespace().collect();
        words.windows(2).map(|pair| pair.join(" ").into_bytes()).collect::<Vec<_>>()
    });
    pairs.filter(|pair| pair.len() >= 7).collect()
}

/// The pages that a box and a clinic show to whoever asks, and what is retained for everybody.
fn shown(stack: &Stack) -> Vec<u8> {
    let mut all = Vec::new();
    for path in ["/metrics", "/status", "/health/audio-processing", "/sessions", "/queue", "/audit", "/ledger"] {
        all.extend(tests::box_page(stack.room.root(), path).expect("a page of the box").into_bytes());
    }
    for path in ["/metrics", "/api/v1/boxes", "/api/v1/sessions", "/api/v1/events", "/api/v1/alerts", "/health"] {
        all.extend(stack.clinic_page(path).expect("a page of the clinic").into_bytes());
    }
    for topic in [format!("{ROOM}/health"), format!("{ROOM}/status"), "board/breakers".into()] {
        let retained = stack.broker.retained(&format!("roomscribe/v1/{}/{topic}", tests::stack::CLINIC));
        all.extend(retained.map(|told| told.to_string().into_bytes()).unwrap_or_default());
    }
    all
}

/// The wrapped keys of a session, as they stand in the key store.
fn wrapped_keys(room: &TestBox, session: &str) -> Vec<Vec<u8>> {
    let file = room.root().join("var/lib/roomscribe/keys.db");
    let store = rusqlite::Connection::open(file).unwrap();
    let mut statement = store.prepare("select wrapped from keys where owner = ?1").unwrap();
    statement.query_map([session], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn parcel(room: &TestBox, session: &str) -> Vec<u8> {
    let store = rusqlite::Connection::open(room.root().join("var/lib/roomscribe-clinic/clinic.db")).unwrap();
    store.query_row("select parcel from parcels where session_id = ?1", [session], |row| row.get(0)).unwrap()
}

/// Thirty-two bytes from the middle of a long value: SQLite breaks those into pages.
fn probes(values: &[Vec<u8>]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value[value.len() / 2 - 16..value.len() / 2 + 16].to_vec()).collect()
}

#[test]
fn what_was_said_lies_open_nowhere_and_after_a_withdrawal_nothing_of_it_is_left_here_or_at_the_clinic() {
    let stack = Stack::start_on(TestBox::new(), Broker::persistent, Microphone::counting);
    let talk = conversation(stack.room.root());
    let body = serde_json::json!({ "file": talk }).to_string();
    let (_, made) = tests::call(stack.room.root(), "POST", "/process", &body, Duration::from_secs(180)).unwrap();
    let session = text(&made, "session_id").to_owned();
    let record = stack.delivered(&session);
    let needles = spoken(&record);
    assert!(needles.len() > 30 && words(&record).len() > 50, "{} pairs of words", needles.len());
    let opened = stack.room.command("roomscribe-clinic").args(["show", &session, "--json"]).output().unwrap().stdout;
    assert!(needles.iter().all(|needle| contains(&opened, needle)), "this search can find something");

    assert_eq!(holding(stack.room.root(), &needles), BTreeSet::new());
    let shown_before = shown(&stack);
    assert!(shown_before.len() > 10_000 && needles.iter().all(|needle| !contains(&shown_before, needle)));
    assert!(stack.room.root().join("mosquitto.db").exists(), "what the broker keeps was looked through");

    let (keys, sealed) = (wrapped_keys(&stack.room, &session), parcel(&stack.room, &session));
    assert!(!keys.is_empty());
    let mut traces = probes(&[sealed]);
    traces.extend(keys);
    assert!(holding(stack.room.root(), &traces).len() >= 3, "keys and parcel are there before");
    let answer = stack.room.ask("roomscribe", &["withdraw", &session, "--by", "client", "--yes"]);
    assert_eq!((&answer["status"], &answer["withdrawal"]["erased"]), (&"withdrawn".into(), &true.into()));
    wait_for("the clinic's word", || {
        let known = stack.room.ask("roomscribe", &["sessions", &session]);
        (known["withdrawal"]["clinic"] == "confirmed").then_some(())
    });
    let left = || holding(stack.room.root(), &traces);
    wait_for("the last trace to go", || left().is_empty().then_some(()));
    assert!(stack.room.spooled().is_empty());
    let known = stack.clinic_says("/api/v1/sessions").unwrap().to_string();
    assert!(known.contains("withdrawn") && !known.contains("\"done\""), "{known}");
    for program in ["roomscribe", "roomscribe-clinic"] {
        let arguments: &[&str] = if program == "roomscribe" { &["export", &session] } else { &["show", &session] };
        let refused = stack.room.command(program).args(arguments).output().unwrap();
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && why.contains("withdrawn"), "{program}: {why}");
    }
    assert_eq!(stack.room.ask("roomscribe", &["ledger"])["terms"]["withdrawn"]["sessions"], 1);
    assert_eq!(stack.room.ask("roomscribe", &["audit", "--verify"])["flaw"], Value::Null);
}

#[test]
fn a_withdrawal_that_the_clinic_cannot_hear_is_owed_until_it_does_whoever_is_killed_meanwhile() {
    let mut stack = Stack::start_on(TestBox::bare(), Broker::start, Microphone::counting);
    let start = |stack: &Stack| {
        let started = stack.room.ask("roomscribe", &["start", "--consent", "verbal"]);
        std::thread::sleep(Duration::from_millis(1_500));
        text(&started, "session_id").to_owned()
    };
    // The first is at the clinic, failed for want of models; of the second it never hears.
    let first = start(&stack);
    stack.room.ask("roomscribe", &["stop"]);
    let record = stack.delivered(&first);
    assert_eq!(record["status"], "failed");
    stack.broker.kill();
    let second = start(&stack);
    let unsaid = stack.room.run(&["withdraw", "current"]);
    assert_eq!(unsaid.status.code(), Some(2), "it is asked for twice");
    for session in ["current", &first] {
        let answer = stack.room.ask("roomscribe", &["withdraw", session, "--by", "client", "--yes"]);
        assert_eq!(answer["withdrawal"], serde_json::json!({ "erased": true, "clinic": "owed" }));
    }
    assert_eq!(stack.room.ask("roomscribe", &["status"])["session"], Value::Null);
    assert!(stack.room.spooled().is_empty());
    stack.daemon.kill();
    stack.restart_sync();
    stack.daemon = stack.room.start_daemon();
    stack.broker.restart();
    for session in [&first, &second] {
        wait_for("the clinic's word", || {
            let known = stack.room.ask("roomscribe", &["sessions", session]);
            (known["withdrawal"]["clinic"] == "confirmed").then_some(())
        });
    }
    let refused = stack.room.command("roomscribe-clinic").args(["show", &first]).output().unwrap();
    assert!(!refused.status.success());
    assert_eq!(stack.room.ask("roomscribe", &["ledger"])["terms"]["withdrawn"]["sessions"], 2);
}

#[test]
fn without_a_daemon_a_session_is_withdrawn_as_well() {
    let bare = TestBox::bare();
    let microphone = Microphone::counting(bare.root());
    let room = microphone.tell(bare);
    let daemon = room.start_daemon();
    let started = room.ask("roomscribe", &["start", "--consent", "verbal"]);
    std::thread::sleep(Duration::from_millis(1_500));
    drop(daemon);
    let session = text(&started, "session_id");
    let keys = wrapped_keys(&room, session);
    assert_eq!((keys.len(), room.spooled().len()), (2, 1));
    let answer = room.ask("roomscribe", &["withdraw", session, "--yes"]);
    assert_eq!(answer["withdrawal"], serde_json::json!({ "erased": true, "clinic": "none" }));
    assert!(room.spooled().is_empty() && holding(room.root(), &keys).is_empty());
    let _daemon = room.start_daemon();
    assert_eq!(room.ask("roomscribe", &["status"])["session"], Value::Null, "it is not gone on with");
    let unknown = room.run(&["withdraw", "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11", "--yes"]);
    assert_eq!(unknown.status.code(), Some(5));
}
