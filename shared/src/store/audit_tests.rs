//! The audit log: what is in it, what is not, and that whatever is done to it is found.

use proptest::prelude::*;

use super::tests::{NOW, finish, new, store, window};
use super::*;
use crate::breaker::{Service, StateName};
use crate::clock::{Clock as _, ScriptedClock, WallTime};
use crate::error::{TaskFailure, TranscriptionError};
use crate::guard::Breakers;
use crate::record::{Consent, Status};
use crate::task::Task;

type Row = (String, String, Option<String>);

fn rows(store: &Store) -> Vec<Row> {
    let log = store.audit_log(None, u32::MAX).unwrap();
    log.rows.into_iter().map(|row| (row.actor, row.action, row.subject)).collect()
}

fn row(actor: &str, action: &str, subject: &str) -> Row {
    (actor.into(), action.into(), Some(subject.into()))
}

fn entry(action: Action, subject: Option<&str>) -> AuditEntry<'_> {
    AuditEntry { by: By::local(NOW), action, subject }
}

/// A log of ten rows.
fn ten() -> (tempfile::TempDir, Store) {
    let (folder, store) = store();
    for n in 0..10 {
        store.audit(&entry(Action::RecordExported, Some(&format!("session-{n}")))).unwrap();
    }
    assert_eq!(flaw(&store), None);
    (folder, store)
}

fn flaw(store: &Store) -> Option<Flaw> {
    store.verify_audit(None).unwrap().flaw
}

fn harm(store: &Store, sql: &str) {
    store.lock().execute_batch(sql).unwrap();
}

fn number(store: &Store, sql: &str) -> i64 {
    store.lock().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Made by other means (Python's `hashlib`): another release must come to the same.
#[test]
fn hashes_are_those_that_others_compute() {
    let (_folder, store) = store();
    let by = By { actor: Actor::Therapist, at: NOW };
    store.audit(&AuditEntry { by, action: Action::SessionStarted, subject: Some("a") }).unwrap();
    store.audit(&entry(Action::KeysRotated, None)).unwrap();
    let log = store.audit_log(None, 9).unwrap();
    assert_eq!(log.rows[0].hash, "8dcfc0d7be729a55f12f1daea93ec3d3c06f2d2174e2958205ddbaff0967cb77");
    assert_eq!(log.rows[1].hash, "799202e57cbc5e02b65cfc3ace968d677912317ff182b97744edcdddaa5d7e95");
    let verdict = store.verify_audit(None).unwrap();
    assert_eq!((verdict.rows, verdict.head.hash, verdict.flaw), (2, log.rows[1].hash.clone(), None));
}

#[test]
fn whatever_is_done_to_a_session_is_written_down_with_who_did_it() {
    let (_folder, store) = store();
    let consent = Consent { basis: "verbal".into(), by: Some("Therapist".into()), at: NOW.to_string() };
    store.begin_session(&NewSession { consent, ..new("a") }, NOW).unwrap();
    store.add_window("a", &window(0), &[Task::Transcription], 1000).unwrap();
    store.end_session("a", 1000, NOW, By::local(NOW)).unwrap();
    let claim = store.claim(Task::Transcription).unwrap().unwrap();
    let cause: TaskFailure<TranscriptionError> = TaskFailure::at_once(TranscriptionError::ClaimsExhausted);
    store.fail(claim.id, 1, &cause, &[]).unwrap();
    store.finish(&Finish { status: Status::Failed, ..finish("a", b"p", "s") }, NOW).unwrap();
    store.retry("a", false, NOW).unwrap();
    store.drop_session("a", |_| serde_json::to_string(&cause), By::local(NOW)).unwrap();
    store.audio_destroyed("a", NOW).unwrap();
    store.audio_destroyed("a", NOW).unwrap();
    store.import_session(&new("b"), 1000, None::<&()>, NOW).unwrap();
    store.finish(&finish("b", b"q", "t"), NOW).unwrap();
    store.relabel("b", None, By::local(NOW)).unwrap();
    store.withdraw("b", false, By { actor: Actor::Clinic, at: NOW }).unwrap();
    let expected = [
        row("therapist", "session_started", "a"),
        row("local", "session_ended", "a"),
        row("box", "session_retried", "a"),
        row("local", "session_dropped", "a"),
        row("box", "audio_destroyed", "a"),
        row("local", "imported", "b"),
        row("local", "session_relabelled", "b"),
        row("clinic", "session_withdrawn", "b"),
    ];
    assert_eq!(rows(&store), expected);
    assert_eq!(flaw(&store), None);
}

#[test]
fn what_was_refused_is_not_written_down() {
    let (_folder, store) = store();
    store.begin_session(&new("a"), NOW).unwrap();
    let cause = |_| Ok(String::new());
    assert!(store.retry("a", false, NOW).is_err() && store.relabel("a", None, NOW).is_err());
    assert!(store.drop_session("a", cause, NOW).is_err() && store.begin_session(&new("a"), NOW).is_err());
    assert_eq!(rows(&store), [row("local", "session_started", "a")]);
}

#[test]
fn what_people_ask_of_breakers_is_written_down_once_and_what_breakers_do_by_themselves_is_not() {
    let (_folder, store) = store();
    let (store, clock) = (std::sync::Arc::new(store), std::sync::Arc::new(ScriptedClock::new()));
    let policy = crate::breaker::Policy {
        failure_threshold: 1,
        timeout: std::time::Duration::from_secs(9),
        success_threshold: 1,
    };
    let breakers = |owned: &[Service]| Breakers::open(store.clone(), clock.clone(), owned, |_| policy);
    let recorder = breakers(&[Service::Transcription, Service::Diarization]);
    recorder.force_open(Service::Transcription);
    recorder.reset(Service::Transcription);
    recorder.reset(Service::Transcription);
    recorder.disable(Service::Diarization);
    recorder.checked(Service::Transcription, Some(crate::ailment::Ailment::UnderVoltage));
    assert_eq!(recorder.view(Service::Transcription).state, StateName::Open);
    recorder.tick();
    store.command_breaker(Service::Sync, BreakerCommand::ForceOpen, &clock.now()).unwrap();
    breakers(&[Service::Sync]).force_open(Service::Sync);
    let expected = [
        row("local", "breaker_forced", "transcription"),
        row("local", "breaker_reset", "transcription"),
        row("local", "breaker_reset", "transcription"),
        row("local", "breaker_disabled", "diarization"),
        row("local", "breaker_forced", "sync"),
    ];
    assert_eq!(rows(&store), expected);
}

#[test]
fn neither_names_nor_what_was_said_can_get_in() {
    let (_folder, store) = store();
    let consent = Consent { basis: "verbal".into(), by: Some("Anna Schmidt".into()), at: NOW.to_string() };
    store.begin_session(&NewSession { consent, ..new("a") }, NOW).unwrap();
    for said in ["so you felt sad", "", "é", &"x".repeat(65)] {
        store.audit(&entry(Action::VoiceEnrolled, Some(said))).unwrap();
    }
    let expected = ("local".to_owned(), "voice_enrolled".to_owned(), None);
    assert_eq!(rows(&store)[0], row("local", "session_started", "a"));
    assert!(rows(&store)[1..].iter().all(|row| *row == expected));
}

#[test]
fn a_row_and_what_it_tells_are_there_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    for commits in 0..6 {
        let disk = Disk::default();
        let store = Store::open_on(&path, Some(&disk)).unwrap();
        disk.cut_power_after(commits);
        for n in 0..3 {
            let id = format!("{commits}-{n}");
            drop(store.begin_session(&new(&id), NOW).and_then(|()| store.end_session(&id, 1, NOW, NOW)));
        }
        drop(store);
        let store = Store::open(&path).unwrap();
        let count = |action: &str| rows(&store).iter().filter(|row| row.1 == action).count() as i64;
        assert_eq!(count("session_started"), number(&store, "select count(*) from sessions"));
        assert_eq!(count("session_ended"), number(&store, "select count(*) from sessions where ended_at is not null"));
        assert_eq!(flaw(&store), None);
    }
}

#[test]
fn a_removed_row_is_missed_wherever_it_stood() {
    for gone in 1..=10 {
        let (_folder, store) = ten();
        harm(&store, &format!("delete from audit where number = {gone}"));
        let expected = if gone == 10 { Flaw::CutOff { number: 10 } } else { Flaw::Missing { number: gone } };
        assert_eq!(flaw(&store), Some(expected));
        // Rows that are written later do not hide it.
        store.audit(&entry(Action::KeysRotated, None)).unwrap();
        assert_eq!(flaw(&store), Some(Flaw::Missing { number: gone }));
    }
}

#[test]
fn rows_that_changed_places_are_found_with_where_they_stand() {
    let (_folder, store) = ten();
    let moved = "update audit set number = -1 where number = 4; update audit set number = 4 where number = 7;
                 update audit set number = 7 where number = -1;";
    harm(&store, moved);
    assert_eq!(flaw(&store), Some(Flaw::Reordered { number: 4, found_at: 7 }));
    let (_folder, store) = ten();
    harm(&store, "update audit set number = 50 where number = 3");
    assert_eq!(flaw(&store), Some(Flaw::Reordered { number: 3, found_at: 50 }));
}

#[test]
fn an_end_that_was_cut_off_is_missed_and_one_that_was_added_is_seen() {
    let (_folder, store) = ten();
    harm(&store, "delete from audit where number > 6");
    let verdict = store.verify_audit(None).unwrap();
    assert_eq!((verdict.rows, verdict.flaw), (6, Some(Flaw::CutOff { number: 7 })));
    harm(&store, "delete from audit");
    assert_eq!(flaw(&store), Some(Flaw::CutOff { number: 1 }));
    let (_folder, store) = ten();
    harm(&store, "update audit_head set number = 8, hash = (select hash from audit where number = 8)");
    assert_eq!(flaw(&store), Some(Flaw::Added { number: 9 }));
    harm(&store, "update audit_head set number = 10");
    assert_eq!(flaw(&store), Some(Flaw::HeadAltered));
    harm(&store, "delete from audit_head");
    assert_eq!(flaw(&store), Some(Flaw::HeadMissing));
    store.audit(&entry(Action::KeysRotated, None)).unwrap();
    assert_eq!(flaw(&store), Some(Flaw::HeadMissing), "it does not come back by itself");
    harm(&store, "insert into audit values (0, 0, 'box', 'imported', null, x'00')");
    assert_eq!(flaw(&store), Some(Flaw::Added { number: 0 }));
}

/// The one thing that a local chain cannot know by itself.
#[test]
fn a_log_that_was_made_anew_is_seen_by_a_head_that_was_noted_elsewhere_and_by_nothing_else() {
    let (_folder, store) = ten();
    let noted = store.verify_audit(None).unwrap().head;
    assert_eq!(noted.to_string().parse::<AuditHead>().unwrap(), noted);
    store.audit(&entry(Action::KeysRotated, None)).unwrap();
    assert_eq!(store.verify_audit(Some(&noted)).unwrap().flaw, None, "it may have grown");
    harm(&store, "delete from audit; update audit_head set number = 0, hash = zeroblob(32)");
    for _ in 0..5 {
        store.audit(&entry(Action::KeysRotated, None)).unwrap();
    }
    assert_eq!(flaw(&store), None);
    assert_eq!(store.verify_audit(Some(&noted)).unwrap().flaw, Some(Flaw::CutOff { number: 6 }));
    for _ in 0..9 {
        store.audit(&entry(Action::KeysRotated, None)).unwrap();
    }
    assert_eq!(store.verify_audit(Some(&noted)).unwrap().flaw, Some(Flaw::Rewritten { number: 10 }));
    for bad in ["", "7", "7:", "7:00", "x:00", &format!("-1:{}", "0".repeat(64)), &format!("1:{}", "g".repeat(64))] {
        assert!(bad.parse::<AuditHead>().is_err(), "{bad}");
    }
}

#[test]
fn a_harmed_log_keeps_nobody_from_recording() {
    for sql in [
        "delete from audit_head",
        "update audit_head set number = 3, hash = (select hash from audit where number = 3)",
        "update audit_head set number = 30",
        "delete from audit",
        "delete from audit; delete from audit_head",
        "update audit_head set number = 9223372036854775807",
        "update audit set number = 9223372036854775807 where number = 10",
        "update audit set number = 9223372036854775807 where number = 10;
         update audit_head set number = 9223372036854775807",
    ] {
        let (_folder, store) = ten();
        harm(&store, sql);
        store.begin_session(&new("a"), NOW).unwrap();
        store.begin_session(&new("b"), NOW).unwrap();
        assert!(flaw(&store).is_some(), "{sql}");
    }
}

#[test]
fn a_noted_row_that_is_another_and_one_that_is_not_there_any_more_are_told_apart() {
    let (_folder, store) = ten();
    let noted = |number: i64, hash: &str| store.verify_audit(Some(&AuditHead { number, hash: hash.into() })).unwrap();
    let whole = noted(3, &store.audit_log(None, 100).unwrap().rows[2].hash);
    assert_eq!((whole.rows, whole.flaw), (10, None));
    let another = noted(3, &"0".repeat(64));
    assert_eq!((another.rows, another.flaw), (2, Some(Flaw::Rewritten { number: 3 })));
    let beyond = noted(99, &"0".repeat(64));
    assert_eq!((beyond.rows, beyond.flaw), (10, Some(Flaw::CutOff { number: 11 })));
}

#[test]
fn nobody_passes_for_the_box_or_the_clinic() {
    let of = |role: &str| Actor::of_role(Some(role)).name();
    assert_eq!(
        ["box", "Clinic", " BOX ", "Therapist", "Dr. No"].map(of),
        ["local", "local", "local", "therapist", "local"]
    );
}

#[test]
fn a_long_log_is_read_in_pieces_and_shown_from_its_end() {
    let (_folder, store) = store();
    for _ in 0..2500 {
        super::audit::append(&store.lock(), &entry(Action::KeysRotated, None)).unwrap();
    }
    let verdict = store.verify_audit(None).unwrap();
    assert_eq!((verdict.rows, verdict.flaw), (2500, None));
    let log = store.audit_log(None, 2).unwrap();
    assert_eq!((log.rows.iter().map(|row| row.number).collect::<Vec<_>>(), log.left_out), (vec![2499, 2500], 2498));
    assert!(store.audit_log(Some(WallTime(NOW.0 + 1)), 9).unwrap().rows.is_empty());
    harm(&store, "update audit set at = at + 1 where number = 2001");
    assert_eq!(flaw(&store), Some(Flaw::Altered { number: 2001 }));
}

/// What a row can be changed into.
fn changes() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|at| format!("at = {at}")),
        "[a-z_]{0,12}".prop_map(|actor| format!("actor = '{actor}'")),
        "[a-z_]{0,12}".prop_map(|action| format!("action = '{action}'")),
        Just("subject = null".to_owned()),
        "[a-z0-9-]{0,12}".prop_map(|subject| format!("subject = '{subject}'")),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|hash| format!("hash = x'{}'", hex::encode(hash))),
        // A letter from one field to the next: lengths keep them apart.
        Just("actor = actor || substr(action, 1, 1), action = substr(action, 2)".to_owned()),
        Just("action = action || substr(subject, 1, 1), subject = substr(subject, 2)".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_altered_field_is_found_in_its_row(number in 1..=10_i64, change in changes()) {
        let (_folder, store) = ten();
        harm(&store, &format!("update audit set {change} where number = {number}"));
        prop_assert_eq!(flaw(&store), Some(Flaw::Altered { number }));
    }

    #[test]
    fn rows_in_any_other_order_are_found(a in 1..=10_i64, b in 1..=10_i64) {
        prop_assume!(a != b);
        let (_folder, store) = ten();
        harm(&store, &format!(
            "update audit set number = -1 where number = {a}; update audit set number = {a} where number = {b};
             update audit set number = {b} where number = -1;"
        ));
        let (number, found_at) = (a.min(b), a.max(b));
        prop_assert_eq!(flaw(&store), Some(Flaw::Reordered { number, found_at }));
    }
}
