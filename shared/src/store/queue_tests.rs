//! What is kept of failed and damaged sessions, and what is counted.

use std::time::Duration;

use super::tests::{NOW, finish, new, store, window};
use super::*;
use crate::breaker::Service;
use crate::clock::{Clock as _, Now, ScriptedClock, WallTime};
use crate::error::{FailedAttempt, ProcessingError, TaskFailure, TranscriptionError};
use crate::guard::{BreakerStore as _, Outcome};
use crate::record::{DiarizationStatus, Status};
use crate::task::Task;

type Cause = TaskFailure<TranscriptionError>;

fn cause() -> Cause {
    TaskFailure::at_once(TranscriptionError::ClaimsExhausted)
}

fn error(session: &str, message: &str) -> ProcessingError {
    ProcessingError {
        error_type: "TranscriptionError".into(),
        message: message.into(),
        session_id: session.into(),
        error_details: serde_json::Value::Null,
        chain: vec![],
    }
}

/// A session of two windows, the second of which failed, concluded as failed.
fn failed(store: &Store, id: &str, message: &str) {
    store.begin_session(&new(id), NOW).unwrap();
    for number in 0..2 {
        store.add_window(id, &window(number), &[Task::Transcription], 2000).unwrap();
    }
    store.end_session(id, 2000, NOW, NOW).unwrap();
    let first = store.claim(Task::Transcription).unwrap().unwrap();
    store.complete(first.id, 1, &serde_json::json!("kept"), &[]).unwrap();
    let second = store.claim(Task::Transcription).unwrap().unwrap();
    let attempt =
        FailedAttempt { number: 1, rung: 0, error: "x".into(), details: serde_json::Value::Null, waited_ms: 0 };
    store.fail(second.id, 1, &cause(), &[attempt]).unwrap();
    let why = error(id, message);
    let parcel = id.as_bytes();
    let sum = crate::seal::sha256(parcel);
    let outcome = Finish {
        status: Status::Failed,
        diarization_status: DiarizationStatus::Skipped,
        error: Some(&why),
        ..finish(id, parcel, &sum)
    };
    store.finish(&outcome, NOW).unwrap();
}

fn drop_session(store: &Store, id: &str) -> Result<Dropped, QueueError> {
    store.drop_session(id, |_| serde_json::to_string(&cause()), NOW)
}

#[test]
fn a_dead_letter_is_tried_again_where_it_failed_and_nowhere_else() {
    let (_folder, store) = store();
    failed(&store, "a", "m");
    assert_eq!(store.queue_items(9).unwrap()[0].place, Place::DeadLetter);
    assert_eq!(store.histories("a").unwrap().len(), 1);
    store.retry("a", false, NOW).unwrap();
    assert!(matches!(store.retry("a", false, NOW), Err(QueueError::Underway)));
    let claim = store.claim(Task::Transcription).unwrap().unwrap();
    assert_eq!((claim.window.number, claim.claims), (1, 1), "only the window that failed");
    assert!(store.claim(Task::Transcription).unwrap().is_none());
    assert_eq!((store.session("a").unwrap().replays, store.next_revision("a").unwrap()), (1, 2));
}

/// One failed window of 120 fails its session's task and nothing else; its replay runs that window alone.
#[test]
fn of_120_windows_the_one_that_failed_is_done_again() {
    let (_folder, store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    for number in 0..120 {
        store.add_window("a", &window(number), &[Task::Transcription], 120_000).unwrap();
    }
    store.end_session("a", 120_000, NOW, NOW).unwrap();
    while let Some(claim) = store.claim(Task::Transcription).unwrap() {
        if claim.window.number == 77 {
            store.fail(claim.id, 3, &cause(), &[]).unwrap();
        } else {
            store.complete(claim.id, 1, &serde_json::json!(claim.window.number), &[]).unwrap();
        }
    }
    let outcome = Finish { status: Status::Failed, ..finish("a", b"p", "s") };
    store.finish(&outcome, NOW).unwrap();
    store.retry("a", true, NOW).unwrap();
    let claims: Vec<u32> =
        std::iter::from_fn(|| store.claim(Task::Transcription).unwrap()).map(|claim| claim.window.number).collect();
    assert_eq!(claims, [77]);
    let rows = store.rows::<serde_json::Value, Cause>("a", Task::Transcription).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(rows.iter().filter(|row| row.state == RowState::Done).count(), 119);
}

#[test]
fn speakers_are_asked_for_later_where_none_were_tried_for() {
    let (_folder, store) = store();
    failed(&store, "a", "m");
    assert!(store.claim(Task::Diarization).unwrap().is_none());
    store.retry("a", true, NOW).unwrap();
    assert_eq!(store.claim(Task::Diarization).unwrap().unwrap().window.number, 0);
    assert_eq!(store.claim(Task::Diarization).unwrap().unwrap().window.number, 1);
}

#[test]
fn without_audio_nothing_is_tried_again_and_what_is_well_is_left_alone() {
    let (_folder, store) = store();
    failed(&store, "a", "m");
    store.audio_destroyed("a", NOW).unwrap();
    assert!(matches!(store.retry("a", false, NOW), Err(QueueError::NoAudio)));
    store.begin_session(&new("b"), NOW).unwrap();
    assert!(matches!(store.retry("b", false, NOW), Err(QueueError::Recording)));
    store.finish(&finish("b", b"p", "s"), NOW).unwrap();
    assert!(matches!(store.retry("b", false, NOW), Err(QueueError::Nothing)));
    assert!(matches!(drop_session(&store, "b"), Err(QueueError::Done)));
    assert!(matches!(store.retry("c", false, NOW), Err(QueueError::Store(StoreError::NoSession))));
}

#[test]
fn a_dropped_session_stops_what_is_under_way_and_is_never_tried_again() {
    let (_folder, store) = store();
    failed(&store, "a", "m");
    store.retry("a", false, NOW).unwrap();
    let claim = store.claim(Task::Transcription).unwrap().unwrap();
    assert_eq!(drop_session(&store, "a").unwrap(), Dropped::Queued);
    assert!(!store.is_running(claim.id).unwrap());
    store.complete(claim.id, 1, &serde_json::json!("late"), &[]).unwrap();
    let rows = store.rows::<serde_json::Value, Cause>("a", Task::Transcription).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(rows[1].state, RowState::Failed, "a result that comes too late changes nothing");
    store.set_status("a", Status::Failed, NOW).unwrap();
    assert!(matches!(store.retry("a", false, NOW), Err(QueueError::Dropped)));
    assert_eq!(store.dropped_with_audio().unwrap(), ["a"]);
    assert_eq!(store.ledger().unwrap().terms[&LedgerTerm::Dropped].sessions, 1);
}

#[test]
fn a_refused_parcel_is_sent_again_as_it_was() {
    use crate::seal::{Ack, AckResult};
    let (_folder, store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    store.finish(&finish("a", b"p", "sum"), NOW).unwrap();
    let ack = Ack {
        version: 1,
        session: "a".into(),
        revision: 1,
        sha256: "sum".into(),
        result: AckResult::Refused,
        reason: Some("unreadable".into()),
        stored_at: NOW.to_string(),
        key_id: String::new(),
        signature: String::new(),
    };
    assert!(store.acknowledge(&ack, NOW).unwrap());
    let item = &store.queue_items(9).unwrap()[0];
    assert_eq!((item.place, item.reason.as_deref()), (Place::Refused, Some("unreadable")));
    store.retry("a", false, NOW).unwrap();
    assert_eq!(store.owed(9).unwrap()[0].sha256, "sum");
}

#[test]
fn nights_try_again_what_failed_a_few_times_and_never_what_is_no_recording() {
    const DAY_MS: i64 = 86_400_000;
    let (_folder, store) = store();
    failed(&store, "a", "m");
    failed(&store, "b", "The audio is invalid");
    let due = |at: i64| store.to_replay(2, DAY_MS / 2, WallTime(NOW.0 + at)).unwrap();
    assert_eq!(due(0), ["a"]);
    store.retry("a", false, NOW).unwrap();
    store.set_status("a", Status::Failed, NOW).unwrap();
    assert!(due(1).is_empty(), "not twice in one night");
    assert_eq!(due(DAY_MS), ["a"]);
    assert_eq!(due(-DAY_MS), ["a"], "a clock that was set back does not hold it up");
    store.retry("a", false, NOW).unwrap();
    store.set_status("a", Status::Failed, NOW).unwrap();
    assert!(due(DAY_MS).is_empty(), "not more often than allowed");
}

/// The guide's two monitoring queries.
#[test]
fn failures_are_counted_by_message_within_the_time_asked_for() {
    let (_folder, store) = store();
    failed(&store, "a", "Retry exhausted: x");
    failed(&store, "b", "Retry exhausted: x");
    failed(&store, "c", "y");
    let counts = |since: i64, like| {
        let rows = store.failures(WallTime(since), like).unwrap();
        rows.into_iter().map(|row| (row.failed_count, row.error_message.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(counts(NOW.0 - 1, None), [(2, "Retry exhausted: x".into()), (1, "y".into())]);
    assert_eq!(counts(NOW.0 - 1, Some("%Retry exhausted%")), [(2, "Retry exhausted: x".into())]);
    assert!(counts(NOW.0, None).is_empty(), "an hour ago is over");
}

#[test]
fn each_session_has_one_term_of_the_ledger() {
    let (_folder, store) = store();
    failed(&store, "dead", "m");
    for id in ["done", "queued", "recording"] {
        store.begin_session(&new(id), NOW).unwrap();
        store.add_window(id, &window(0), &[], 1000).unwrap();
    }
    store.end_session("queued", 1000, NOW, NOW).unwrap();
    store.finish(&finish("done", b"p", "s"), NOW).unwrap();
    let ledger = store.ledger().unwrap();
    assert!(ledger.balances());
    let terms: Vec<_> = ledger.terms.iter().map(|(term, held)| (*term, held.sessions, held.samples)).collect();
    use LedgerTerm::{DeadLettered, Queued, Recording, Transcribed};
    assert_eq!(terms, [(DeadLettered, 1, 2000), (Transcribed, 1, 1000), (Queued, 1, 1000), (Recording, 1, 1000)]);
    store.lock().execute("update sessions set status = 'vanished' where id = 'done'", []).unwrap();
    assert!(!store.ledger().unwrap().balances(), "a session without a term is missing from the sum");
}

#[test]
fn a_damaged_row_is_put_aside_and_stops_no_other() {
    let (_folder, store) = store();
    failed(&store, "a", "m");
    failed(&store, "b", "m");
    assert!(store.check().unwrap().is_empty());
    let harm = |sql: &str| store.lock().execute(sql, []).map(drop).unwrap();
    harm("update sessions set consent = 'garbage', status = 'nonsense' where id = 'a'");
    harm("update work set result = x'00' where session = 'a' and state = 'done'");
    harm("insert into breakers (service, stored, updated_at) values ('transcription', '{', 0)");
    harm("update outbox set parcel = x'00' where session = 'a'");
    assert_eq!(store.sessions(9).unwrap().len(), 1, "the other is still listed");
    let found: Vec<_> = store.check().unwrap().iter().map(|d| (d.source, d.field)).collect();
    let all = [
        ("sessions", "status"),
        ("sessions", "consent"),
        ("breakers", "stored"),
        ("work", "result"),
        ("outbox", "parcel"),
    ];
    assert_eq!(found, all);
    assert_eq!(store.mend(NOW).unwrap().len(), 3, "what others are listed with");
    assert_eq!(store.repair(NOW).unwrap().len(), 2);
    assert!(store.check().unwrap().is_empty());
    assert_eq!(store.quarantined().unwrap().len(), 5);
    assert_eq!(store.session("a").unwrap().status, Status::Failed, "a dead letter, which can be tried again");
    store.retry("a", false, NOW).unwrap();
    assert_eq!(store.claim(Task::Transcription).unwrap().unwrap().window.number, 0);
}

#[test]
fn a_result_of_another_shape_is_made_again_while_there_is_audio() {
    let (_folder, store) = store();
    failed(&store, "a", "m");
    assert_eq!(store.mend_rows::<u32, Cause>("a", Task::Transcription, &cause(), NOW).unwrap(), 1);
    let rows = store.rows::<u32, Cause>("a", Task::Transcription).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!((rows[0].state, rows[1].state), (RowState::Pending, RowState::Failed));
}

fn call(store: &Store, outcome: Outcome, now: &Now) {
    store.called(Service::Transcription, outcome, Duration::from_secs(1), now);
}

#[test]
fn calls_are_counted_within_their_window_whatever_the_wall_clock_does() {
    let (_folder, store) = store();
    let clock = ScriptedClock::new();
    clock.pass(Duration::from_secs(3600));
    let rate = |now: &Now| {
        let rate = store.call_rate(Service::Transcription, Duration::from_secs(900), now).unwrap();
        (rate.failed, rate.total)
    };
    for outcome in Outcome::ALL {
        call(&store, outcome, &clock.now());
    }
    assert_eq!(rate(&clock.now()), (1, 2), "refused and ignored calls say nothing");
    clock.set_wall(WallTime(0));
    assert_eq!(rate(&clock.now()), (1, 2), "a clock that was set back");
    clock.pass(Duration::from_secs(899));
    assert_eq!(rate(&clock.now()), (1, 2));
    clock.pass(Duration::from_secs(1));
    assert_eq!(rate(&clock.now()), (0, 0));
    clock.set_wall(NOW);
    call(&store, Outcome::Failed, &clock.now());
    clock.reboot("b");
    clock.pass(Duration::from_secs(60));
    assert_eq!(rate(&clock.now()), (1, 1), "a reboot ago, by the wall clock");
}

#[test]
fn sessions_that_ran_out_of_attempts_are_counted_among_those_of_the_day() {
    let (_folder, store) = store();
    failed(&store, "a", "Retry exhausted: x");
    failed(&store, "b", "y");
    let rate = store.exhaustion(WallTime(NOW.0 - 1)).unwrap();
    assert_eq!((rate.failed, rate.total), (1, 2));
    assert_eq!(store.exhaustion(NOW).unwrap(), Rate::default());
}

/// What release 1 asks of the database, in its own words: a rollback must find what it needs.
#[test]
fn the_previous_release_can_still_read_the_database() {
    let (_folder, store) = store();
    failed(&store, "a", "m");
    let clock = ScriptedClock::new();
    let forced = crate::breaker::Stored { state: crate::breaker::State::ForcedOpen, failure_count: 1, outage: None };
    let moved = crate::breaker::Transition {
        from: crate::breaker::StateName::Closed,
        to: crate::breaker::StateName::ForcedOpen,
    };
    assert!(store.keep(Service::Sync, &forced, Some(moved), &[], &clock.now()));
    let connection = store.lock();
    let all = connection
        .prepare(
            "select id, revision, status, diarization_status, error_message, error, consent, time_quality, started_at,
               ended_at, samples, engine_seconds, audio from sessions",
        )
        .unwrap()
        .query_map([], |row| row.get::<_, String>(2))
        .unwrap()
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    assert_eq!(all, ["failed"]);
    let events: Vec<String> = connection
        .prepare("select event from events where sent = 0")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(!events.is_empty() && events.iter().all(|event| !event.contains("sync")), "{events:?}");
    connection
        .execute("insert into work (session, number, task) values ('a', 0, 'diarization')", [])
        .expect("its writes still fit");
}

/// It used to be postponed for ever: what was refused was looked at before it was dropped, and stored after.
#[test]
fn a_session_that_was_dropped_meanwhile_is_not_postponed() {
    let (_folder, store) = store();
    for id in ["waits", "dropped"] {
        store.begin_session(&new(id), NOW).unwrap();
        store.add_window(id, &window(0), &[Task::Transcription], 1000).unwrap();
        store.end_session(id, 1000, NOW, NOW).unwrap();
        let claim = store.claim(Task::Transcription).unwrap().unwrap();
        store.refuse(claim.id).unwrap();
    }
    store.drop_session("dropped", |_| Ok("\"cause\"".into()), NOW).unwrap();
    for id in ["waits", "dropped"] {
        store.postpone(id, NOW).unwrap();
    }
    let status = |id| store.session(id).unwrap().status;
    assert_eq!((status("waits"), status("dropped")), (Status::Postponed, Status::Queued));
}
