//! Everything that was ever recorded adds up, and whatever is taken away is missed: with a daemon and without one.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use shared::clock::{Clock as _, SystemClock};
use tests::faults::{WHISPER, clip};
use tests::{Running, TestBox};

/// What `roomscribe ledger` answers, its code, and what it says to people.
fn ledger(room: &TestBox) -> (Value, Option<i32>, String) {
    let output = room.run(&["ledger", "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    (serde_json::from_slice(&output.stdout).expect(&said), output.status.code(), said)
}

/// What does not add up: kinds with their sessions.
fn findings(room: &TestBox) -> Vec<(String, String)> {
    let (answer, code, said) = ledger(room);
    let all = answer["findings"].as_array().unwrap();
    assert_eq!(
        (code, said.contains("does not add up")),
        if all.is_empty() { (Some(0), false) } else { (Some(5), true) }
    );
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    all.iter().map(|finding| (text(finding, "kind"), text(finding, "session_id"))).collect()
}

fn daemon_if(room: &TestBox, wanted: bool) -> Option<Running> {
    wanted.then(|| room.start_daemon())
}

fn processed(room: &TestBox, code: i32) -> String {
    let done = room.process(&clip());
    assert_eq!(done.code, Some(code), "{}", done.said);
    done.record["session_id"].as_str().unwrap().to_owned()
}

#[test]
fn what_was_recorded_is_the_sum_of_its_terms_in_sessions_and_hours() {
    for while_it_runs in [false, true] {
        let room = TestBox::new();
        let done = processed(&room, 0);
        room.set("[replay]\nenabled = false");
        room.put("notes.mp3", "this is no recording");
        let failed = room.process(&room.root().join("notes.mp3"));
        assert_eq!(failed.code, Some(3), "{}", failed.said);
        room.truncate(WHISPER);
        let dropped = processed(&room, 3);
        let _daemon = daemon_if(&room, while_it_runs);
        room.ask("roomscribe", &["queue", "drop", &dropped, "--yes"]);
        let (answer, code, _) = ledger(&room);
        assert_eq!((code, &answer["balances"]), (Some(0), &json!(true)), "{answer}");
        let sessions = |term: &Value| term["sessions"].as_u64().unwrap_or(0);
        assert_eq!(sessions(&answer["recorded"]), 3);
        for term in ["transcribed", "dead_lettered", "dropped"] {
            assert_eq!(sessions(&answer["terms"][term]), 1, "{term} of {done}, {dropped}");
        }
        let samples = answer["recorded"]["samples"].as_f64().unwrap();
        let hours = answer["recorded"]["hours"].as_f64().unwrap();
        assert!(samples > 2.0 * 16_000.0 && (hours - samples / 16_000.0 / 3600.0).abs() < 1e-4);
        let text = String::from_utf8(room.run(&["ledger"]).stdout).unwrap();
        assert!(text.contains("accounted for") && text.contains("dead_lettered"), "{text}");
    }
}

#[test]
fn whatever_is_taken_away_is_missed_with_its_session() {
    for while_it_runs in [false, true] {
        let room = TestBox::new();
        let [gone, file, record, word] = [0; 4].map(|code| processed(&room, code));
        assert_eq!(findings(&room), []);
        let _daemon = daemon_if(&room, while_it_runs);
        let spool = room.root().join("var/lib/roomscribe/spool");
        std::fs::remove_file(spool.join(format!("{file}.rspool"))).unwrap();
        let stray = std::fs::File::create(spool.join("stray.rspool")).unwrap();
        let now = Duration::from_millis(SystemClock::new().now().wall.0.unsigned_abs());
        stray.set_modified(UNIX_EPOCH + now - Duration::from_secs(600)).unwrap();
        room.write_over("delete from records where session = ?1", &record);
        let believed = "insert into outbox (session, revision, sha256, parcel, state, created_at)
            values (?1, 1, 'x', x'00', 'acknowledged', 0)";
        room.write_over(believed, &word);
        let database = room.database();
        database.pragma_update(None, "foreign_keys", false).unwrap();
        for (table, session) in
            [("windows", "session"), ("work", "session"), ("records", "session"), ("sessions", "id")]
        {
            let forget = format!("delete from {table} where {session} = ?1");
            assert!(database.execute(&forget, [&gone]).unwrap() > 0, "{table}");
        }
        drop(database);
        std::fs::remove_file(spool.join(format!("{gone}.rspool"))).unwrap();
        let mut expected = [
            ("session_gone".to_owned(), gone),
            ("no_record".to_owned(), record),
            ("acknowledged_without_word".to_owned(), word),
            ("audio_missing".to_owned(), file),
            ("spool_of_no_session".to_owned(), "stray".to_owned()),
        ];
        let mut found = findings(&room);
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_session_that_no_term_knows_fails_the_sum_by_its_length() {
    let room = TestBox::new();
    let session = processed(&room, 0);
    room.write_over("update sessions set status = 'vanished' where id = ?1", &session);
    let (answer, code, said) = ledger(&room);
    assert_eq!((code, &answer["balances"]), (Some(5), &json!(false)));
    let samples = answer["recorded"]["samples"].as_u64().unwrap();
    assert!(said.contains("differ by 1 sessions") && said.contains(&format!("{samples} samples")), "{said}");
    let kinds: Vec<&str> = answer["findings"].as_array().unwrap().iter().filter_map(|f| f["kind"].as_str()).collect();
    assert_eq!(kinds, ["terms_differ", "no_term"]);
}

#[test]
fn a_root_on_which_there_has_been_no_box_has_no_ledger() {
    let room = TestBox::bare();
    let output = room.run(&["ledger"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no box"));
}
