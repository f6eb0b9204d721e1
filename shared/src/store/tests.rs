use super::*;
use crate::breaker::{Service, StateName, Stored};
use crate::clock::{Clock as _, ScriptedClock, WallTime};
use crate::error::{TaskFailure, TranscriptionError};
use crate::guard::BreakerStore as _;
use crate::keys::BoxKeys;
use crate::paths::Root;
use crate::record::{Consent, DiarizationStatus, Status, TimeQuality};
use crate::seal::{Ack, AckResult};
use crate::task::Task;

pub(super) const NOW: WallTime = WallTime(1_767_225_600_000);
type Cause = TaskFailure<TranscriptionError>;

pub(super) fn new(id: &str) -> NewSession {
    NewSession {
        id: id.into(),
        started_at: NOW,
        time_quality: TimeQuality::Synchronized,
        consent: Consent { basis: "verbal".into(), by: None, at: NOW.to_string() },
        status: Status::Recording,
        speakers: SpeakerHint::default(),
    }
}

/// The keys of a box that lives in this folder.
pub(super) fn keys(folder: &Path) -> Arc<KeyStore> {
    let root = Root::new(folder);
    Arc::new(KeyStore::open(&root.key_store(), BoxKeys::find(&root, None).unwrap().keys).unwrap())
}

pub(super) fn store_in(folder: &Path, disk: Option<&Disk>) -> Store {
    Store::open_on(&folder.join("box.db"), disk).unwrap().sealing_with(keys(folder))
}

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = store_in(folder.path(), None);
    (folder, store)
}

pub(super) fn window(number: u32) -> WindowRow {
    let start_sample = u64::from(number) * 1000;
    WindowRow { number, start_sample, end_sample: start_sample + 1000, blind_cut: false }
}

pub(super) fn finish<'a>(session: &'a str, parcel: &'a [u8], sha256: &'a str) -> Finish<'a> {
    Finish {
        session,
        status: Status::Done,
        diarization_status: DiarizationStatus::Ok,
        error: None,
        record: b"{}",
        revision: 1,
        parcel: Some((parcel, sha256)),
    }
}

#[test]
fn a_row_that_kills_the_box_three_times_is_given_up() {
    let (folder, mut store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    store.add_window("a", &window(0), &[Task::Transcription], 1000).unwrap();
    for claim in 1..=3 {
        assert_eq!(store.claim(Task::Transcription).unwrap().unwrap().claims, claim);
        store = store_in(folder.path(), None);
        let exhausted: Cause = TaskFailure::at_once(TranscriptionError::ClaimsExhausted);
        store.take_back(Task::Transcription, &exhausted).unwrap();
    }
    assert!(store.claim(Task::Transcription).unwrap().is_none());
    let rows = store.rows::<serde_json::Value, Cause>("a", Task::Transcription).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(rows[0].state, RowState::Failed);
    assert_eq!(rows[0].cause.as_ref().unwrap().last_exception, TranscriptionError::ClaimsExhausted);
}

/// A claim whose commit the disk refused used to look like one: the window was tried uncounted, again and again.
#[test]
fn a_claim_that_the_disk_did_not_take_is_no_claim() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let store = store_in(folder.path(), Some(&disk));
    store.begin_session(&new("a"), NOW).unwrap();
    store.add_window("a", &window(0), &[Task::Transcription], 1000).unwrap();
    disk.set_full(true);
    assert!(store.claim(Task::Transcription).is_err());
    disk.set_full(false);
    assert_eq!(store.claim(Task::Transcription).unwrap().unwrap().claims, 1);
}

/// A full disk used to use up the claims of what it kept from being stored: the words were given up for it.
#[test]
fn results_that_the_disk_did_not_take_cost_no_claim() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let store = store_in(folder.path(), Some(&disk));
    store.begin_session(&new("a"), NOW).unwrap();
    store.add_window("a", &window(0), &[Task::Transcription], 1000).unwrap();
    for _ in 0..5 {
        let claim = store.claim(Task::Transcription).unwrap().unwrap();
        assert_eq!(claim.claims, 1);
        disk.set_full(true);
        assert!(store.complete(claim.id, 1, &serde_json::json!("kept"), &[]).is_err());
        assert!(store.give_back(Task::Transcription).is_err(), "nor is it given back on a full disk");
        disk.set_full(false);
        store.give_back(Task::Transcription).unwrap();
    }
}

#[test]
fn ended_sessions_are_worked_on_before_the_one_being_recorded() {
    let (_folder, store) = store();
    for id in ["old", "now"] {
        store.begin_session(&new(id), NOW).unwrap();
        store.add_window(id, &window(0), &[Task::Diarization], 1000).unwrap();
    }
    store.end_session("now", 1000, NOW, NOW).unwrap();
    assert_eq!(store.claim(Task::Diarization).unwrap().unwrap().session, "now");
    assert_eq!(store.claim(Task::Diarization).unwrap().unwrap().session, "old");
    assert!(store.claim(Task::Transcription).unwrap().is_none());
}

#[test]
fn a_refused_row_costs_no_claim_and_comes_back_with_its_postponed_session() {
    let (_folder, store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    store.add_window("a", &window(0), &[Task::Transcription], 1000).unwrap();
    for _ in 0..5 {
        let claim = store.claim(Task::Transcription).unwrap().unwrap();
        assert_eq!(claim.claims, 1);
        store.refuse(claim.id).unwrap();
        store.set_status("a", Status::Postponed, NOW).unwrap();
        assert_eq!(store.admit_refused(Task::Transcription).unwrap(), 1);
        assert_eq!(store.session("a").unwrap().status, Status::Queued);
    }
}

#[test]
fn adding_a_window_again_after_a_restart_keeps_its_result() {
    let (_folder, store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    store.add_window("a", &window(0), &[Task::Transcription], 1000).unwrap();
    let claim = store.claim(Task::Transcription).unwrap().unwrap();
    store.complete(claim.id, 2, &serde_json::json!({"n": 1}), &[]).unwrap();
    store.add_window("a", &window(0), &[Task::Transcription], 1000).unwrap();
    let rows = store.rows::<serde_json::Value, Cause>("a", Task::Transcription).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!((rows.len(), rows[0].attempts, rows[0].state), (1, 2, RowState::Done));
    assert!(!store.has_work("a").unwrap());
}

#[test]
fn only_an_acknowledgement_of_exactly_these_bytes_ends_the_debt() {
    let (_folder, store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    store.finish(&finish("a", b"parcel", "right"), NOW).unwrap();
    let ack = |sha256: &str, result| Ack {
        version: 1,
        session: "a".into(),
        revision: 1,
        sha256: sha256.into(),
        result,
        reason: None,
        stored_at: NOW.to_string(),
        key_id: String::new(),
        signature: String::new(),
    };
    assert!(!store.acknowledge(&ack("wrong", AckResult::Stored), NOW).unwrap());
    assert_eq!(store.owed(9).unwrap().len(), 1);
    assert!(store.audio_to_destroy().unwrap().is_empty());
    assert!(store.acknowledge(&ack("right", AckResult::Duplicate), NOW).unwrap());
    assert_eq!(store.outbox_state("a", 1).unwrap(), Some(OutboxState::Acknowledged));
    assert_eq!(store.audio_to_destroy().unwrap(), ["a"]);
    assert!(!store.acknowledge(&ack("right", AckResult::Refused), NOW).unwrap(), "the first word stands");
    store.audio_destroyed("a", NOW).unwrap();
    assert!(store.audio_to_destroy().unwrap().is_empty());
}

#[test]
fn a_full_disk_leaves_neither_half_of_a_finish() {
    let (_folder, store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    let pages: i64 = store.lock().pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    store.lock().pragma_update(None, "max_page_count", pages + 2).unwrap();
    let parcel = vec![7; 1 << 20];
    assert!(store.finish(&finish("a", &parcel, "x"), NOW).is_err());
    store.lock().pragma_update(None, "max_page_count", 1_000_000).unwrap();
    assert_eq!(store.session("a").unwrap().status, Status::Recording);
    assert!(store.record("a").unwrap().is_none() && store.owed(9).unwrap().is_empty());
    store.finish(&finish("a", &parcel, "x"), NOW).unwrap();
    assert_eq!(store.parcel("a", 1).unwrap().unwrap().len(), 1 << 20);
}

#[test]
fn breakers_and_their_moves_are_kept_together() {
    let (_folder, store) = store();
    let clock = ScriptedClock::new();
    let stored = Stored { state: crate::breaker::State::ForcedOpen, failure_count: 4, outage: None };
    let moved = crate::breaker::Transition { from: StateName::Closed, to: StateName::ForcedOpen };
    assert!(store.keep(Service::Diarization, &stored, Some(moved), &[], &clock.now()));
    assert_eq!(store.kept(Service::Diarization), Some(stored));
    assert_eq!(store.kept(Service::Transcription), None);
    let events = store.unsent_events(9).unwrap();
    assert_eq!(events.len(), 1);
    store.events_sent(events[0].id).unwrap();
    assert!(store.unsent_events(9).unwrap().is_empty());
}

#[test]
fn the_queue_counts_every_session_once() {
    let (_folder, store) = store();
    for id in ["recording", "queued", "owed"] {
        store.begin_session(&new(id), NOW).unwrap();
    }
    store.end_session("queued", 1, NOW, NOW).unwrap();
    store.finish(&finish("owed", b"p", "s"), NOW).unwrap();
    let queue = store.queue().unwrap();
    assert_eq!((queue.recording, queue.queued, queue.unacknowledged, queue.dead_lettered), (1, 1, 1, 0));
}

#[test]
fn a_failed_session_that_the_clinic_refuses_is_one_dead_letter() {
    let (_folder, store) = store();
    for (id, status) in [("failed", Status::Failed), ("refused", Status::Done), ("both", Status::Failed)] {
        store.begin_session(&new(id), NOW).unwrap();
        store.finish(&Finish { status, ..finish(id, b"p", id) }, NOW).unwrap();
    }
    assert_eq!(store.queue().unwrap().dead_lettered, 2);
    store.parcel_damaged("refused", 1).unwrap();
    store.parcel_damaged("both", 1).unwrap();
    let queue = store.queue().unwrap();
    assert_eq!((queue.unacknowledged, queue.dead_lettered), (1, 3));
}

/// Release 2 kept the time of a session's first record beside the record alone.
#[test]
fn sessions_of_the_previous_release_know_when_they_were_concluded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    let old = Connection::open(&path).unwrap();
    MIGRATIONS[..2].iter().for_each(|sql| old.execute_batch(sql).unwrap());
    old.pragma_update(None, "user_version", 2).unwrap();
    old.execute_batch(
        "insert into sessions (id, status, consent, time_quality, started_at, ended_at, created_at, updated_at, samples)
           values ('a', 'done', '{}', 'synchronized', 0, 120000, 0, 999000, 1920000);
         insert into records values ('a', 1, x'7b7d', 150000), ('a', 2, x'7b7d', 900000);",
    )
    .unwrap();
    drop(old);
    assert_eq!(Store::open(&path).unwrap().processing_times(5).unwrap(), [(120.0, 30.0)]);
}

#[test]
fn how_long_processing_took_is_counted_to_the_first_record() {
    let (_folder, store) = store();
    let later = |seconds: i64| WallTime(NOW.0 + seconds * 1000);
    for (id, samples) in [("long", 16_000 * 90), ("short", 16_000)] {
        store.begin_session(&new(id), NOW).unwrap();
        store.end_session(id, samples, NOW, NOW).unwrap();
        store.finish(&finish(id, b"p", id), later(45)).unwrap();
    }
    store.finish(&Finish { revision: 2, ..finish("long", b"q", "r") }, later(9000)).unwrap();
    assert_eq!(store.processing_times(5).unwrap(), [(90.0, 45.0)]);
}
