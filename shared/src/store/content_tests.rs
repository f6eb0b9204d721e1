//! What was said is sealed, opens with its key alone, and what was plain before becomes so.

use std::path::Path;

use serde_json::{Value, json};

use super::tests::{NOW, finish, keys, new, store, store_in, window};
use super::*;
use crate::error::{TaskFailure, TranscriptionError};
use crate::keys::{Purpose, is_sealed};
use crate::record::Status;
use crate::task::Task;

type Cause = TaskFailure<TranscriptionError>;

const WORD: &str = "marmalade";
/// 0.1, 0.2, … as they would stand in memory, and in JSON as base64.
const VECTOR: &str = "zczMPc3MTD6amZk+zczMPgAAAD+amRk/MzMzP83MTD9mZmY/AACAPw==";

fn said() -> Value {
    json!({ "phrases": [{ "text": format!("pass the {WORD} please") }], "vectors": VECTOR })
}

fn record_json() -> Vec<u8> {
    serde_json::to_vec(&json!({ "segments": [{ "text": WORD.repeat(3) }] })).unwrap()
}

/// One window done for both tasks, and a record.
fn finished(store: &Store, id: &str) {
    store.begin_session(&new(id), NOW).unwrap();
    store.add_window(id, &window(0), &Task::ALL, 1000).unwrap();
    for task in Task::ALL {
        let claim = store.claim(task).unwrap().unwrap();
        store.complete(claim.id, 1, &said(), &[]).unwrap();
    }
    store.end_session(id, 1000, NOW, NOW).unwrap();
    let sum = crate::seal::sha256(b"parcel");
    store.finish(&Finish { record: &record_json(), ..finish(id, b"parcel", &sum) }, NOW).unwrap();
}

fn results(store: &Store, id: &str, task: Task) -> Result<Vec<Option<Value>>, StoreError> {
    store.rows::<Value, Cause>(id, task).map(|row| Ok(row?.result)).collect()
}

/// Every file under a folder that holds one of these.
fn holding(folder: &Path, needles: &[&[u8]]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(holding(&entry, needles));
        } else {
            let bytes = std::fs::read(&entry).unwrap();
            if needles.iter().any(|needle| bytes.windows(needle.len()).any(|part| part == *needle)) {
                found.push(entry.display().to_string());
            }
        }
    }
    found
}

fn spoken_in(folder: &Path) -> Vec<String> {
    use base64::Engine as _;
    let standard = base64::prelude::BASE64_STANDARD;
    let vector = standard.decode(VECTOR).unwrap();
    let encoded: Vec<String> = (0..3)
        .map(|shift| {
            let text = standard.encode(format!("{}{WORD}", "x".repeat(shift)));
            text[4..text.len() - 4].to_owned()
        })
        .collect();
    let mut needles = vec![WORD.as_bytes(), VECTOR.as_bytes(), &vector[..]];
    needles.extend(encoded.iter().map(String::as_bytes));
    holding(folder, &needles)
}

/// Makes of a store what a release before this one would have left.
fn as_before(store: &Store, id: &str) {
    let connection = store.lock();
    let (result, record) = (serde_json::to_vec(&said()).unwrap(), record_json());
    connection.execute("update work set result = ?2 where session = ?1", rusqlite::params![id, result]).unwrap();
    connection.execute("update records set record = ?2 where session = ?1", rusqlite::params![id, record]).unwrap();
    connection.execute("update sessions set content = 'plain' where id = ?1", [id]).unwrap();
}

#[test]
fn nothing_that_was_said_stands_in_any_file_and_all_of_it_is_read() {
    let (folder, store) = store();
    finished(&store, "a");
    assert_eq!(spoken_in(folder.path()), [""; 0]);
    assert_eq!(store.record("a").unwrap().unwrap(), record_json());
    for task in Task::ALL {
        assert_eq!(results(&store, "a", task).unwrap(), [Some(said())]);
    }
    assert!(store.check().unwrap().is_empty());
}

#[test]
fn without_keys_nothing_is_read_and_nothing_written() {
    let (folder, store) = store();
    finished(&store, "a");
    let other = Store::open(&folder.path().join("box.db")).unwrap();
    assert!(matches!(other.record("a"), Err(StoreError::NoKeys)));
    assert!(matches!(results(&other, "a", Task::Diarization), Err(StoreError::NoKeys)));
    assert!(matches!(other.begin_session(&new("b"), NOW), Err(StoreError::NoKeys)));
    assert!(matches!(other.finish(&Finish { revision: 2, ..finish("a", b"q", "r") }, NOW), Err(StoreError::NoKeys)));
    assert!(other.check().unwrap().is_empty(), "what it cannot open it does not call damaged");
    assert!(!other.has_session("b").unwrap());
    assert_eq!((other.owed(9).unwrap().len(), other.parcel("a", 1).unwrap().unwrap()), (1, b"parcel".to_vec()));
}

#[test]
fn a_destroyed_key_is_never_made_again_and_loses_its_session_alone() {
    let (folder, store) = store();
    finished(&store, "a");
    finished(&store, "b");
    keys(folder.path()).destroy("a", &[Purpose::Content]).unwrap();
    assert!(matches!(store.record("a"), Err(StoreError::ContentGone)));
    assert!(matches!(results(&store, "a", Task::Transcription), Err(StoreError::ContentGone)));
    let again = store.finish(&Finish { revision: 2, ..finish("a", b"q", "r") }, NOW);
    assert!(matches!(again, Err(StoreError::ContentGone)));
    let why = TaskFailure::at_once(TranscriptionError::Damaged);
    let mended = store.mend_rows::<Value, Cause>("a", Task::Transcription, &why, NOW);
    assert!(matches!(mended, Err(StoreError::ContentGone)), "it is no damage");
    assert!(matches!(store.relabel("a", None, NOW), Err(QueueError::Store(StoreError::ContentGone))));
    let told: Vec<_> = store.check().unwrap().into_iter().map(|d| (d.key, d.field)).collect();
    assert_eq!(told, [("a".to_owned(), "result"), ("a".to_owned(), "record")]);
    assert_eq!(store.repair(NOW).unwrap(), [], "nor is it mended away");
    assert_eq!(store.adopt_earlier(NOW).unwrap(), 0);
    assert_eq!(keys(folder.path()).get("a", Purpose::Content).unwrap().map(|_| ()), None);
    assert_eq!(store.record("b").unwrap().unwrap(), record_json());
}

#[test]
fn a_session_in_work_whose_content_is_lost_becomes_a_dead_letter_that_nights_leave_alone() {
    let (folder, store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    store.add_window("a", &window(0), &[Task::Transcription], 1000).unwrap();
    let claim = store.claim(Task::Transcription).unwrap().unwrap();
    store.end_session("a", 1000, NOW, NOW).unwrap();
    assert!(store.content_trouble("a").unwrap().is_none());
    keys(folder.path()).destroy_all("a").unwrap();
    let why = store.complete(claim.id, 1, &said(), &[]).unwrap_err();
    assert!(why.is_content_lost() && store.content_trouble("a").unwrap().is_some());
    store.content_lost("a", &why, NOW).unwrap();
    let lost = store.session("a").unwrap();
    assert_eq!((lost.status, lost.error.unwrap().chain.len()), (Status::Failed, 2));
    assert!(store.claim(Task::Transcription).unwrap().is_none());
    assert!(store.to_replay(9, 0, NOW).unwrap().is_empty());
    assert_eq!(store.queue().unwrap().dead_lettered, 1);
}

#[test]
fn a_key_that_is_back_makes_its_session_whole_again_and_a_sealed_parcel_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path(), None);
    finished(&store, "a");
    store.lock().execute("update outbox set state = 'refused', reason = 'unreadable'", []).unwrap();
    let keys_db = crate::paths::Root::new(folder.path()).key_store();
    let elsewhere = folder.path().join("elsewhere");
    drop(store);
    std::fs::rename(&keys_db, &elsewhere).unwrap();
    let store = store_in(folder.path(), None);
    store.content_lost("a", &StoreError::ContentGone, NOW).unwrap();
    store.retry("a", true, NOW).unwrap();
    assert_eq!(store.outbox_state("a", 1).unwrap(), Some(OutboxState::Pending));
    assert_eq!(store.welcome_back().unwrap(), 0);
    drop(store);
    std::fs::rename(&elsewhere, &keys_db).unwrap();
    let store = store_in(folder.path(), None);
    assert_eq!((store.welcome_back().unwrap(), store.welcome_back().unwrap()), (1, 0));
    as_before(&store, "a");
}

#[test]
fn nothing_is_put_aside_as_nothing_because_the_keys_are_busy() {
    let (folder, store) = store();
    finished(&store, "a");
    store
        .lock()
        .execute("update work set result = cast('plain and damaged' as blob) where task = 'transcription'", [])
        .unwrap();
    let keys_db = crate::paths::Root::new(folder.path()).key_store();
    let busy = rusqlite::Connection::open(keys_db).unwrap();
    busy.execute_batch("begin exclusive").unwrap();
    let cause = TaskFailure::at_once(TranscriptionError::Damaged);
    store.mend_rows::<Value, Cause>("a", Task::Transcription, &cause, NOW).unwrap_err();
    busy.execute_batch("rollback").unwrap();
    let stored: Vec<u8> = store
        .lock()
        .query_row("select cast(result as blob) from work where task = 'transcription'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(stored, b"plain and damaged");
}

#[test]
fn a_sealed_value_opens_in_its_place_alone_and_a_flipped_bit_is_damage() {
    let (_folder, store) = store();
    finished(&store, "a");
    let swap =
        "update work set result = (select result from work where task = 'diarization') where task = 'transcription'";
    store.lock().execute(swap, []).unwrap();
    assert!(matches!(results(&store, "a", Task::Transcription), Err(StoreError::Damaged(DamagedRow::Seal(_)))));
    store.lock().execute("update records set record = cast('RSC1' || substr(record, 5, 60) as blob)", []).unwrap();
    assert!(matches!(store.record("a"), Err(StoreError::Damaged(_))));
    let fields: Vec<_> = store.check().unwrap().into_iter().map(|d| (d.source, d.field)).collect();
    assert_eq!(fields, [("work", "result"), ("records", "record")]);
    let why = TaskFailure::at_once(TranscriptionError::Damaged);
    assert_eq!(store.mend_rows::<Value, Cause>("a", Task::Transcription, &why, NOW).unwrap(), 1);
    assert_eq!(store.repair(NOW).unwrap().len(), 1);
    assert_eq!(results(&store, "a", Task::Transcription).unwrap(), [None]);
}

#[test]
fn what_is_put_aside_is_sealed() {
    let (folder, store) = store();
    finished(&store, "a");
    let damaged = format!("{{ {WORD}");
    store.lock().execute("update work set result = cast(?1 as blob)", [&damaged]).unwrap();
    store.lock().execute("update records set record = cast(?1 as blob)", [&damaged]).unwrap();
    let why = TaskFailure::at_once(TranscriptionError::Damaged);
    assert_eq!(store.mend_rows::<Value, Cause>("a", Task::Transcription, &why, NOW).unwrap(), 1);
    assert_eq!(store.repair(NOW).unwrap().len(), 2);
    let place = content::aside_place("work", "result");
    let stored: Vec<u8> =
        store.lock().query_row("select value from quarantine order by id limit 1", [], |row| row.get(0)).unwrap();
    assert_eq!(store.open_sealed("a", &place, stored).unwrap(), damaged.as_bytes());
    assert_eq!(store.seal_earlier().unwrap().sealed, 0);
    assert!(store.seal_earlier().unwrap().is_log_empty);
    drop(store);
    assert_eq!(spoken_in(folder.path()), [""; 0]);
}

#[test]
fn a_plain_database_of_before_is_read_and_then_sealed_and_leaves_nothing_in_the_file() {
    let (folder, store) = store();
    for id in ["a", "b", "c"] {
        finished(&store, id);
        as_before(&store, id);
    }
    keys(folder.path()).destroy_all("a").unwrap();
    store
        .lock()
        .execute(
            "insert into quarantine (at, source, key, field, why, value) values (0, 'work', 'a', 'result', '', ?1)",
            [WORD.as_bytes()],
        )
        .unwrap();
    // Pages that were given back before anything was overwritten.
    store.lock().pragma_update(None, "secure_delete", false).unwrap();
    let large = WORD.repeat(20_000);
    store.lock().execute("insert into records values ('a', 9, cast(?1 as blob), 0)", [&large]).unwrap();
    store.lock().execute("delete from records where revision = 9", []).unwrap();
    drop(store);
    assert!(!spoken_in(folder.path()).is_empty());

    let store = store_in(folder.path(), None);
    assert_eq!(store.record("b").unwrap().unwrap(), record_json(), "it is read before it is sealed");
    assert_eq!(store.adopt_earlier(NOW).unwrap(), 3);
    assert_eq!(store.adopt_earlier(NOW).unwrap(), 0);
    let done = store.seal_earlier().unwrap();
    assert_eq!(done, Earlier { sealed: 3 * 3 + 1, left: 0, is_log_empty: true });
    assert_eq!(spoken_in(folder.path()), [""; 0]);
    for id in ["a", "b", "c"] {
        assert_eq!(store.record(id).unwrap().unwrap(), record_json());
        assert_eq!(results(&store, id, Task::Diarization).unwrap(), [Some(said())]);
    }
    assert_eq!(store.seal_earlier().unwrap(), Earlier { is_log_empty: true, ..Earlier::default() });
}

/// The power goes at each commit in turn; every next start goes on, and nothing is ever lost.
#[test]
fn sealing_what_was_plain_can_be_cut_short_anywhere() {
    for commits in 0..8 {
        let (folder, store) = store();
        for id in ["a", "b"] {
            finished(&store, id);
            as_before(&store, id);
        }
        keys(folder.path()).destroy_all("a").unwrap();
        drop(store);
        let disk = Disk::default();
        disk.cut_power_after(commits);
        let dying = store_in(folder.path(), Some(&disk));
        let went = dying.adopt_earlier(NOW).and_then(|_| dying.seal_earlier());
        assert_eq!(went.is_err(), disk.is_dead());
        drop(dying);
        let store = store_in(folder.path(), None);
        store.adopt_earlier(NOW).unwrap();
        store.seal_earlier().unwrap();
        assert_eq!(spoken_in(folder.path()), [""; 0], "cut after {commits}");
        for id in ["a", "b"] {
            assert_eq!(store.record(id).unwrap().unwrap(), record_json());
            assert_eq!(results(&store, id, Task::Transcription).unwrap(), [Some(said())]);
        }
    }
}

/// What was stored plain in a session whose key was destroyed stays, and is told.
#[test]
fn a_plain_value_without_a_key_is_left_and_keeps_no_other_back() {
    let (folder, store) = store();
    finished(&store, "a");
    finished(&store, "b");
    as_before(&store, "a");
    as_before(&store, "b");
    store.lock().execute("update sessions set content = 'sealed'", []).unwrap();
    keys(folder.path()).destroy_all("a").unwrap();
    let done = store.seal_earlier().unwrap();
    assert_eq!((done.sealed, done.left), (3, 3));
}

#[test]
fn compression_is_used_where_it_pays_and_large_content_comes_back() {
    let (folder, _store) = store();
    let key = keys(folder.path()).make("s", Purpose::Content, NOW).unwrap();
    let text = serde_json::to_vec(&json!({ "text": WORD.repeat(100_000) })).unwrap();
    let short = seal_content(&key, "x", &text).unwrap();
    assert!(short.len() < text.len() / 100 && is_sealed(&short));
    assert_eq!(open_content(&key, "x", &short).unwrap(), text);
    let tiny = seal_content(&key, "x", b"{}").unwrap();
    assert_eq!((tiny.len(), open_content(&key, "x", &tiny).unwrap()), (2 + 44, b"{}".to_vec()));
    let no_zstd = key.seal("x", &[0x28, 0xb5, 0x2f, 0xfd, 9, 9]).unwrap();
    assert!(matches!(open_content(&key, "x", &no_zstd), Err(StoreError::Damaged(DamagedRow::Packed))));
}
