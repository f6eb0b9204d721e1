//! The ledger can fail: every way in which something may be missing is planted, and found with its session.

use super::tests::{NOW, finish, new, store, window};
use super::*;
use crate::record::{DiarizationStatus, Status};
use crate::seal::{Ack, AckResult};
use crate::task::Task;

/// A session of one window, acknowledged, its audio destroyed.
pub(super) fn delivered(store: &Store, id: &str) {
    concluded(store, id, true);
}

/// The same, whether or not its speakers could be told apart; without them the audio stays.
pub(super) fn concluded(store: &Store, id: &str, is_diarized: bool) {
    store.begin_session(&new(id), NOW).unwrap();
    store.add_window(id, &window(0), &[Task::Transcription], 1000).unwrap();
    store.end_session(id, 1000, NOW, NOW).unwrap();
    let diarization_status = if is_diarized { DiarizationStatus::Ok } else { DiarizationStatus::Failed };
    store.finish(&Finish { diarization_status, ..finish(id, b"parcel", id) }, NOW).unwrap();
    let ack = Ack {
        version: 1,
        session: id.into(),
        revision: 1,
        sha256: id.into(),
        result: AckResult::Stored,
        reason: None,
        stored_at: NOW.to_string(),
        key_id: String::new(),
        signature: String::new(),
    };
    assert!(store.acknowledge(&ack, NOW).unwrap());
    if is_diarized {
        store.audio_destroyed(id, NOW).unwrap();
    }
}

/// One session in every place.
fn everywhere() -> (tempfile::TempDir, Store) {
    let (folder, store) = store();
    for id in ["delivered", "other"] {
        delivered(&store, id);
    }
    for id in ["recording", "queued", "done", "failed"] {
        store.begin_session(&new(id), NOW).unwrap();
        store.add_window(id, &window(0), &[], 1000).unwrap();
    }
    store.end_session("queued", 1000, NOW, NOW).unwrap();
    store.finish(&finish("done", b"p", "s"), NOW).unwrap();
    store.finish(&Finish { status: Status::Failed, ..finish("failed", b"p", "t") }, NOW).unwrap();
    store.import_session(&new("no-sound"), 0, Some(&"cause"), NOW).unwrap();
    (folder, store)
}

fn found(store: &Store) -> Vec<Imbalance> {
    store.balance().unwrap().findings
}

fn after(sql: &str) -> Vec<Imbalance> {
    let (_folder, store) = everywhere();
    store.lock().pragma_update(None, "foreign_keys", false).unwrap();
    store.lock().execute_batch(sql).unwrap();
    found(&store)
}

fn id(session: &str) -> String {
    session.into()
}

#[test]
fn what_went_as_it_should_adds_up() {
    let (_folder, store) = everywhere();
    assert_eq!(found(&store), []);
    assert_eq!(store.balance().unwrap().ledger, store.ledger().unwrap());
    assert_eq!(store.ledger().unwrap().recorded, Held { sessions: 7, samples: 6000 });
}

#[test]
fn a_session_without_a_term_is_named_and_counted() {
    let held = |sessions, samples| Held { sessions, samples };
    let expected = [
        Imbalance::TermsDiffer { recorded: held(7, 6000), terms: held(6, 5000) },
        Imbalance::NoTerm { session_id: id("queued") },
    ];
    assert_eq!(after("update sessions set status = 'vanished' where id = 'queued'"), expected);
}

/// The terms alone add up then: they are counted from what is left.
#[test]
fn a_session_that_is_gone_altogether_is_missed() {
    let all_of_it = "delete from sessions where id = 'delivered'; delete from windows where session = 'delivered';
        delete from work where session = 'delivered'; delete from records where session = 'delivered';
        delete from outbox where session = 'delivered'; delete from acks where session = 'delivered';";
    assert_eq!(after(all_of_it), [Imbalance::SessionGone { session_id: id("delivered") }]);
    let found = after("delete from sessions where id = 'queued'");
    let left = Imbalance::RowsOfNoSession { session_id: id("queued"), table: "windows".into() };
    assert_eq!(found, [Imbalance::SessionGone { session_id: id("queued") }, left]);
}

#[test]
fn samples_that_no_window_covers_and_windows_that_cover_too_much_are_found() {
    let shorter = |session, samples| Imbalance::ShorterThanItsWindows { session_id: id(session), samples };
    let longer = |session, samples| Imbalance::LongerThanItsWindows { session_id: id(session), samples };
    assert_eq!(after("update sessions set samples = 400 where id = 'queued'"), [shorter("queued", 600)]);
    let twice = "insert into windows values ('queued', 1, 0, 1000, 0)";
    assert_eq!(after(twice), [shorter("queued", 1000)]);
    assert_eq!(after("update sessions set samples = 1700 where id = 'done'"), [longer("done", 700)]);
    assert_eq!(after("delete from windows where session = 'done'"), [longer("done", 1000)]);
}

#[test]
fn a_conclusion_without_its_record_is_found() {
    let no_record = |session| [Imbalance::NoRecord { session_id: id(session) }];
    assert_eq!(after("delete from records where session = 'failed'"), no_record("failed"));
    assert_eq!(after("update records set revision = 2 where session = 'done'"), no_record("done"));
}

#[test]
fn what_can_never_be_opened_has_no_record_and_is_no_mistake_of_the_ledger() {
    let (_folder, store) = everywhere();
    store.begin_session(&new("lost"), NOW).unwrap();
    store.end_session("lost", 0, NOW, NOW).unwrap();
    store.content_lost("lost", &StoreError::ContentGone, NOW).unwrap();
    assert_eq!(found(&store), []);
}

#[test]
fn an_acknowledgement_counts_only_with_the_clinics_word_for_these_bytes() {
    let without = |session| Imbalance::AcknowledgedWithoutWord { session_id: id(session), revision: 1 };
    for word in [
        "delete from acks where session = 'delivered'",
        "update acks set ack = 'garbage' where session = 'delivered'",
        "update acks set ack = '{}' where session = 'delivered'",
        "update acks set ack = replace(ack, 'stored', 'refused') where session = 'delivered'",
        "update outbox set sha256 = 'of something else' where session = 'delivered'",
    ] {
        assert_eq!(after(word), [without("delivered")], "{word}");
    }
    assert_eq!(after("update outbox set state = 'acknowledged' where session = 'done'"), [without("done")]);
}

#[test]
fn audio_that_went_before_the_clinic_had_its_speakers_is_found() {
    let undiarized = "update sessions set diarization_status = 'failed', audio = 'destroyed' where id = 'delivered'";
    assert_eq!(after(undiarized), [Imbalance::AudioGoneUnacknowledged { session_id: id("delivered") }]);
}

#[test]
fn audio_that_went_before_the_clinic_had_anything_is_found() {
    let gone = |session| [Imbalance::AudioGoneUnacknowledged { session_id: id(session) }];
    assert_eq!(after("update sessions set audio = 'destroyed' where id = 'done'"), gone("done"));
    assert_eq!(after("update outbox set state = 'pending' where session = 'delivered'"), gone("delivered"));
    assert_eq!(after("update sessions set audio = 'destroyed', dropped_at = 1 where id = 'failed'"), []);
}
