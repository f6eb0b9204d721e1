//! The guide's two monitoring queries, to the letter, on the PostgreSQL in which the clinic server keeps its sessions; and
//! the box's own answer to the same questions.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tests::broker::Broker;
use tests::postgres::{EXHAUSTED, FAILED, Postgres};
use tests::{Running, TestBox, conversation, engine_of, stack, wait_for};

const INVALID: &str = "The audio is invalid";
const TRUNCATED: &str = "Transcription failed: The model is missing or damaged";
const KILLED: &str = "Retry exhausted: Transcription failed: The engine process was killed by a signal";
const VOICE_KILLED: &str = "Retry exhausted: Diarization failed: The engine process was killed by a signal";

/// Processes a recording while every engine of this kind is killed as soon as it is there.
fn process_killing(room: &TestBox, wav: &Path, kind: &str) -> Value {
    let output = room.root().join("killed.json");
    let mut command = room.command("roomscribe");
    command.arg("process").arg(wav).stdout(std::fs::File::create(&output).unwrap()).stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    let parent = running.0.id();
    tests::watch_for("the box to give up", Duration::from_millis(2), || {
        if let Some((engine, _)) = engine_of(parent, kind) {
            rustix::process::kill_process(engine, rustix::process::Signal::KILL).ok();
        }
        running.0.try_wait().unwrap()
    });
    serde_json::from_slice(&std::fs::read(output).unwrap()).unwrap()
}

/// Three sessions that ran out of attempts, one of them only for its speakers; one whose model is damaged; four that are
/// no recordings; one that goes well.
fn record(room: &TestBox) {
    let wav = conversation(room.root());
    assert_eq!(room.process(&wav).code, Some(0));
    for (kind, times, message) in [("transcriber", 2, KILLED), ("voices", 1, VOICE_KILLED)] {
        for _ in 0..times {
            assert_eq!(process_killing(room, &wav, kind)["error_message"], message);
        }
    }
    let bad = room.root().join("bad.wav");
    std::fs::write(&bad, b"not sound").unwrap();
    for _ in 0..4 {
        assert_eq!(room.process(&bad).record["error_message"], INVALID);
    }
    let model = std::fs::OpenOptions::new().write(true).open(room.model("demo-whisper-q8_0.bin")).unwrap();
    model.set_len(1_000_000).unwrap();
    assert_eq!(room.process(&wav).record["error_message"], TRUNCATED);
}

fn counted(rows: impl IntoIterator<Item = (String, u64)>) -> BTreeMap<String, u64> {
    rows.into_iter().collect()
}

fn at_clinic(postgres: &Postgres) -> [BTreeMap<String, u64>; 2] {
    let number = |text: &str| text.parse::<u64>().unwrap();
    let failed = postgres.ask(FAILED);
    assert!(failed.is_sorted_by(|a, b| number(&a[0]) >= number(&b[0])), "the most frequent first");
    [
        counted(failed.iter().map(|row| (row[1].clone(), number(&row[0])))),
        counted(postgres.ask(EXHAUSTED).iter().map(|row| (row[0].clone(), number(&row[1])))),
    ]
}

fn on_box(room: &TestBox) -> [BTreeMap<String, u64>; 2] {
    [&["failures", "--since", "1h"][..], &["failures", "--since", "1h", "--exhausted"]].map(|arguments| {
        let answer = room.ask("roomscribe", arguments);
        let rows = answer.as_array().unwrap().iter();
        counted(
            rows.map(|row| (row["error_message"].as_str().unwrap().to_owned(), row["failed_count"].as_u64().unwrap())),
        )
    })
}

/// Puts the dates of one session with this message back by two hours, on the box and in PostgreSQL.
fn age(room: &TestBox, postgres: &Postgres, message: &str, dates: &[&str]) {
    let database = rusqlite::Connection::open(room.root().join("var/lib/roomscribe/roomscribe.db")).unwrap();
    let find = "select id from sessions where error_message = ?1 and created_at > 1000 * unixepoch() - 3600000 limit 1";
    let id: String = database.query_row(find, [message], |row| row.get(0)).unwrap();
    for date in dates {
        let earlier = format!("update sessions set {date} = {date} - 7200000 where id = ?1");
        assert_eq!(database.execute(&earlier, [&id]).unwrap(), 1);
        let earlier =
            format!("update therapy_sessions set {date} = {date} - interval '2 hours' where id = '{id}' returning 1");
        assert_eq!(postgres.ask(&earlier).len(), 1);
    }
}

#[test]
fn the_guides_queries_on_the_clinics_sessions_and_the_boxs_own_counts_agree() {
    let room = TestBox::new();
    let broker = Broker::start(room.root());
    let postgres = Postgres::start();
    let room = room.with("ROOMSCRIBE_CLINIC_DATABASE", &postgres.url());
    let _http = stack::enrol(&room, &broker);
    let _clinic = room.start("roomscribe-clinic", &["run"]);
    let _sync = room.start("roomscribe-sync", &["run"]);
    record(&room);
    wait_for("the clinic to hold every session", || {
        let sessions = room.ask("roomscribe-clinic", &["sessions"]);
        (sessions.as_array().unwrap().len() == 9).then_some(())
    });
    let failed = |invalid, killed| counted([(INVALID.into(), invalid), (KILLED.into(), killed), (TRUNCATED.into(), 1)]);
    let exhausted = |killed| counted([(KILLED.into(), killed), (VOICE_KILLED.into(), 1)]);
    assert_eq!(at_clinic(&postgres), [failed(4, 2), exhausted(2)]);
    assert_eq!(on_box(&room), at_clinic(&postgres));

    // What failed longer ago is not counted; what was begun longer ago and failed just now is counted by the first alone.
    age(&room, &postgres, INVALID, &["created_at", "updated_at"]);
    age(&room, &postgres, KILLED, &["created_at"]);
    assert_eq!(at_clinic(&postgres), [failed(3, 2), exhausted(1)]);
    assert_eq!(on_box(&room), at_clinic(&postgres));
}
