//! Withdrawn and expired sessions: what is left of them, and what cannot bring them back.

use super::balance_tests::{concluded, delivered};
use super::tests::{NOW, finish, new, store, window};
use super::*;
use crate::clock::WallTime;
use crate::record::Status;
use crate::seal::{Ack, AckResult, sha256};
use crate::task::Task;
use crate::wire::Withdrawal;

const DAY: i64 = 86_400_000;

fn word(session: &str, sha256: String, result: AckResult) -> Ack {
    Ack {
        version: 1,
        session: session.into(),
        revision: WITHDRAWAL,
        sha256,
        result,
        reason: None,
        stored_at: NOW.to_string(),
        key_id: String::new(),
        signature: String::new(),
    }
}

fn rows(store: &Store, session: &str) -> i64 {
    let sql =
        "select (select count(*) from work where session = ?1) + (select count(*) from windows where session = ?1)
      + (select count(*) from records where session = ?1) + (select count(*) from outbox where session = ?1)";
    store.lock().query_row(sql, [session], |row| row.get(0)).unwrap()
}

#[test]
fn a_withdrawn_session_is_worked_on_and_sent_no_more_and_then_has_no_rows() {
    let (_folder, store) = store();
    store.begin_session(&new("s"), NOW).unwrap();
    store.add_window("s", &window(0), &Task::ALL, 1000).unwrap();
    let claim = store.claim(Task::Transcription).unwrap().unwrap();
    assert!(store.withdraw("s", true, NOW).unwrap());
    assert!(!store.withdraw("s", true, NOW).unwrap(), "it is no news");
    assert_eq!(store.session("s").unwrap().status, Status::Withdrawn);
    assert!(!store.is_running(claim.id).unwrap());
    assert!(store.claim(Task::Diarization).unwrap().is_none());
    assert_eq!(store.to_erase().unwrap(), ["s"]);
    store.erase("s", NOW).unwrap();
    assert_eq!((rows(&store, "s"), store.to_erase().unwrap().len()), (0, 0));
    assert!(store.clean_up(NOW).unwrap());
    let row = store.session("s").unwrap();
    assert_eq!((row.consent.basis.as_str(), row.consent.by.as_deref()), ("withdrawn", None), "it might hold a name");
    assert!(row.ended_at.is_some() && !row.audio_kept && row.samples == 1000);
    assert_eq!(store.balance().unwrap().findings, []);
    let held = store.ledger().unwrap().terms[&LedgerTerm::Withdrawn];
    assert_eq!((held.sessions, held.samples), (1, 1000));
}

/// Workers that were at it when it was withdrawn come back with what they have.
#[test]
fn nothing_that_comes_late_brings_a_withdrawn_session_back() {
    let (_folder, store) = store();
    store.begin_session(&new("s"), NOW).unwrap();
    store.add_window("s", &window(0), &Task::ALL, 1000).unwrap();
    let claim = store.claim(Task::Transcription).unwrap().unwrap();
    store.withdraw("s", false, NOW).unwrap();
    store.keys().unwrap().destroy_all("s").unwrap();
    let late = || {
        store.complete(claim.id, 1, &"words", &[]).unwrap();
        store.fail(claim.id, 1, &"cause", &[]).unwrap();
        store.add_window("s", &window(1), &Task::ALL, 2000).unwrap();
        store.set_status("s", Status::Processing, NOW).unwrap();
        store.end_session("s", 1500, NOW, NOW).unwrap();
        store.content_lost("s", &StoreError::ContentGone, NOW).unwrap();
        assert!(!store.set_off_record("s", true, NOW).unwrap());
        assert!(store.finish(&finish("s", b"parcel", "sum"), NOW).is_err(), "there is no key to seal it with");
    };
    late();
    store.erase("s", NOW).unwrap();
    late();
    assert_eq!((rows(&store, "s"), store.session("s").unwrap().status), (0, Status::Withdrawn));
    assert_eq!(store.session("s").unwrap().samples, 1500, "how long it was may come late");
    assert!(matches!(store.retry("s", true, NOW), Err(QueueError::Withdrawn)));
    assert!(matches!(store.relabel("s", None, NOW), Err(QueueError::Withdrawn)));
    assert!(matches!(store.drop_session("s", |_| Ok(String::new()), NOW), Err(QueueError::Withdrawn)));
}

#[test]
fn a_withdrawal_is_owed_before_any_parcel_until_the_clinic_confirms_exactly_it() {
    let (_folder, store) = store();
    delivered(&store, "s");
    store.begin_session(&new("t"), NOW).unwrap();
    store.finish(&finish("t", b"parcel", "t"), NOW).unwrap();
    store.withdraw("s", true, NOW).unwrap();
    let message = store.withdrawal_message("s").unwrap();
    let read: Withdrawal = serde_json::from_slice(&message).unwrap();
    assert_eq!((read.version, read.session.as_str(), read.at), (1, "s", NOW.to_string()));
    let owed: Vec<_> = store.owed(9).unwrap().into_iter().map(|p| (p.session, p.revision)).collect();
    assert_eq!(owed, [("s".into(), WITHDRAWAL), ("t".into(), 1)]);
    let (_other, unsent) = super::tests::store();
    unsent.begin_session(&new("u"), NOW).unwrap();
    unsent.finish(&finish("u", b"parcel", "u"), NOW).unwrap();
    unsent.withdraw("u", true, NOW).unwrap();
    assert_eq!(unsent.owed(9).unwrap().iter().map(|parcel| parcel.revision).collect::<Vec<_>>(), [WITHDRAWAL]);
    let sum = sha256(&message);
    assert!(!store.acknowledge(&word("s", sum.clone(), AckResult::Stored), NOW).unwrap());
    assert!(!store.acknowledge(&word("s", sha256(b"else"), AckResult::Withdrawn), NOW).unwrap());
    assert!(!store.acknowledge(&word("t", sum.clone(), AckResult::Withdrawn), NOW).unwrap());
    assert_eq!(store.withdrawal("s").unwrap(), Some(AtClinic::Owed));
    assert!(store.acknowledge(&word("s", sum.clone(), AckResult::Withdrawn), NOW).unwrap());
    assert!(!store.acknowledge(&word("s", sum, AckResult::Withdrawn), NOW).unwrap(), "it is owed no more");
    assert_eq!(store.withdrawal("s").unwrap(), Some(AtClinic::Confirmed));
    assert_eq!(store.owed(9).unwrap().len(), 1);
    assert_eq!(store.withdrawal("t").unwrap(), None);
}

#[test]
fn a_box_without_a_clinic_owes_no_withdrawal_and_an_unknown_session_cannot_be_withdrawn() {
    let (_folder, store) = store();
    store.begin_session(&new("s"), NOW).unwrap();
    store.withdraw("s", false, NOW).unwrap();
    assert_eq!((store.owed(9).unwrap().len(), store.withdrawal("s").unwrap()), (0, Some(AtClinic::None)));
    assert!(!store.withdraw("s", true, NOW).unwrap(), "but it has one now");
    assert_eq!(store.withdrawal("s").unwrap(), Some(AtClinic::Owed));
    assert!(matches!(store.withdraw("x", false, NOW), Err(StoreError::NoSession)));
}

#[test]
fn off_the_record_and_back_is_told_and_does_not_touch_what_has_ended() {
    let (_folder, store) = store();
    store.begin_session(&new("s"), NOW).unwrap();
    assert!(store.set_off_record("s", true, NOW).unwrap());
    assert!(!store.set_off_record("s", true, NOW).unwrap());
    assert_eq!(store.session("s").unwrap().status, Status::Paused);
    assert!(store.set_off_record("s", false, NOW).unwrap());
    store.end_session("s", 10, NOW, NOW).unwrap();
    assert!(!store.set_off_record("s", true, NOW).unwrap());
    assert_eq!(store.session("s").unwrap().status, Status::Queued);
    let told: Vec<String> = store.audit_log(None, 99).unwrap().rows.into_iter().map(|row| row.action).collect();
    assert_eq!(told, ["session_started", "session_paused", "session_resumed", "session_ended"]);
}

#[test]
fn audio_and_content_expire_by_the_later_of_both_clocks_and_only_once_acknowledged() {
    let (_folder, store) = store();
    concluded(&store, "undiarized", false);
    delivered(&store, "diarized");
    store.begin_session(&new("owed"), NOW).unwrap();
    store.finish(&finish("owed", b"parcel", "owed"), NOW).unwrap();
    let later = WallTime(NOW.0 + DAY);
    assert_eq!(store.audio_acknowledged(Some(NOW), 9).unwrap(), [""; 0]);
    assert_eq!(store.audio_acknowledged(Some(later), 9).unwrap(), ["undiarized"]);
    assert_eq!(store.content_acknowledged(later, 9).unwrap(), ["diarized"]);
    let clinic_later = format!("update acks set ack = json_set(ack, '$.stored_at', '{later}')");
    store.lock().execute_batch(&clinic_later).unwrap();
    assert_eq!(store.audio_acknowledged(Some(later), 9).unwrap(), [""; 0], "the box's clock was behind");
    assert_eq!(store.audio_acknowledged(Some(WallTime(later.0 + 1)), 9).unwrap(), ["undiarized"]);

    store.audio_expired("undiarized", later).unwrap();
    assert_eq!(store.balance().unwrap().findings, []);
    assert!(!store.session("undiarized").unwrap().expired, "its words are here");
    let two_days = WallTime(later.0 + DAY);
    assert_eq!(store.content_acknowledged(two_days, 9).unwrap().len(), 2);
    for session in ["undiarized", "diarized"] {
        store.expire(session, two_days).unwrap();
        store.erase(session, two_days).unwrap();
        assert_eq!(rows(&store, session), 0);
        assert!(matches!(store.retry(session, true, two_days), Err(QueueError::Expired)));
    }
    assert_eq!(store.content_acknowledged(two_days, 9).unwrap(), [""; 0]);
    let balance = store.balance().unwrap();
    assert_eq!((balance.findings, balance.ledger.terms[&LedgerTerm::Expired].sessions), (vec![], 2));
    assert_eq!(store.queue().unwrap().dead_lettered, 0);
}

#[test]
fn an_expired_session_can_still_be_withdrawn_so_that_the_clinic_is_told() {
    let (_folder, store) = store();
    delivered(&store, "s");
    store.expire("s", NOW).unwrap();
    store.erase("s", NOW).unwrap();
    assert!(store.withdraw("s", true, NOW).unwrap());
    assert_eq!(store.owed(9).unwrap().len(), 1);
    assert_eq!(store.to_erase().unwrap(), ["s"]);
    store.erase("s", NOW).unwrap();
    assert_eq!(store.balance().unwrap().findings, []);
}

/// A box whose database was put back from before a withdrawal sends the record once more.
#[test]
fn what_the_clinic_refuses_because_it_was_withdrawn_is_withdrawn_here_too() {
    let (_folder, store) = store();
    store.begin_session(&new("s"), NOW).unwrap();
    store.finish(&finish("s", b"parcel", "sum"), NOW).unwrap();
    let refused = Ack { revision: 1, reason: Some("withdrawn".into()), ..word("s", "sum".into(), AckResult::Refused) };
    assert!(store.acknowledge(&refused, NOW).unwrap());
    assert_eq!(store.session("s").unwrap().status, Status::Withdrawn);
    assert_eq!(store.to_erase().unwrap(), ["s"]);
    assert_eq!(store.without_parcel().unwrap(), [""; 0], "its record, which is still there, is not owed again");
}

/// A damaged status used to make a dead letter of any session.
#[test]
fn a_withdrawn_session_whose_status_is_damaged_is_withdrawn() {
    let (_folder, store) = store();
    store.begin_session(&new("s"), NOW).unwrap();
    store.withdraw("s", false, NOW).unwrap();
    store.lock().execute("update sessions set status = 'x'", []).unwrap();
    store.mend(NOW).unwrap();
    assert_eq!(store.session("s").unwrap().status, Status::Withdrawn);
}

#[test]
fn the_ledger_finds_rows_of_what_should_be_gone_and_withdrawals_that_nobody_carries_out() {
    let (_folder, store) = store();
    store.begin_session(&new("s"), NOW).unwrap();
    store.withdraw("s", false, NOW).unwrap();
    store.erase("s", NOW).unwrap();
    let plant = "insert into windows (session, number, start_sample, end_sample, blind_cut) values ('s', 0, 0, 0, 0)";
    store.lock().execute_batch(plant).unwrap();
    let found = store.balance().unwrap().findings;
    assert_eq!(found, [Imbalance::RowsOfErasedSession { session_id: "s".into(), table: "windows".into() }]);
    store.lock().execute_batch("delete from windows; delete from erasures").unwrap();
    assert_eq!(store.balance().unwrap().findings, [Imbalance::WithdrawnAndKept { session_id: "s".into() }]);
}
