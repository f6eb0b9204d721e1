//! A parcel arrives: is it new, is it ours, can it be read? The answer is an acknowledgement.
//!
//! ```text
//! held, same bytes ─▶ duplicate          held, other bytes or box ─▶ refused (conflict)
//! opens ─▶ committed ─▶ stored           does not ─▶ refused (malformed, unreadable, invalid)
//! session withdrawn ─▶ refused (withdrawn)
//!
//! a withdrawal ─▶ everything of the session is gone ─▶ withdrawn      of another box ─▶ refused (conflict)
//! ```
//!
//! When [`take`] returns an acknowledgement, what it says is on the disk.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::clock::WallTime;
use shared::seal::{Ack, AckResult, Address, SealError, sha256};
use shared::store::WITHDRAWAL;
use shared::wire::Withdrawal;

use super::Clinic;
use super::store::{Arrival, ClinicStoreError, Held, Kept};

/// Parcels by what became of them, since the start.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; 4]);

/// Every result, in the order of [`Counters`].
pub const RESULTS: [AckResult; 4] = [AckResult::Stored, AckResult::Duplicate, AckResult::Refused, AckResult::Withdrawn];

impl Counters {
    fn slot(&self, result: AckResult) -> &AtomicU64 {
        match result {
            AckResult::Stored => &self.0[0],
            AckResult::Duplicate => &self.0[1],
            AckResult::Refused => &self.0[2],
            AckResult::Withdrawn => &self.0[3],
        }
    }

    /// How many had this result.
    #[must_use]
    pub fn get(&self, result: AckResult) -> u64 {
        self.slot(result).load(Ordering::Relaxed)
    }

    fn count(&self, result: AckResult) {
        self.slot(result).fetch_add(1, Ordering::Relaxed);
    }
}

/// What a topic says about its parcel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// From which box.
    pub box_id: String,
    /// UUID.
    pub session: String,
    /// From 1.
    pub revision: u32,
}

struct Answer {
    result: AckResult,
    reason: Option<&'static str>,
    stored_at: String,
}

impl Answer {
    fn refused(reason: &'static str, now: WallTime) -> Self {
        Self { result: AckResult::Refused, reason: Some(reason), stored_at: now.to_string() }
    }

    fn about(held: Held, label: &Label, sha256: &str, now: WallTime) -> Self {
        if held.sha256 == sha256 && held.box_id == label.box_id {
            Self { result: AckResult::Duplicate, reason: None, stored_at: held.received_at }
        } else {
            Self::refused("conflict", now)
        }
    }
}

fn reason(why: &SealError) -> &'static str {
    match why {
        SealError::Malformed | SealError::TooLarge => "malformed",
        SealError::OtherKey | SealError::Forged | SealError::Key => "unreadable",
        SealError::NoRecord => "invalid",
    }
}

/// Whether it is a date as boxes write them, RFC 3339. What is none cannot be kept as one.
#[must_use]
pub fn is_date(text: &str) -> bool {
    text.parse::<jiff::Timestamp>().is_ok()
}

/// Takes a parcel, or says why not. The acknowledgement is signed by each key that a box may have been told, that of now
/// first.
///
/// # Errors
/// [`ClinicStoreError`]: nothing was decided, and the parcel must come again.
pub fn take(clinic: &Clinic, label: &Label, parcel: &[u8]) -> Result<Vec<Ack>, ClinicStoreError> {
    let sha256 = sha256(parcel);
    let answer = decide(clinic, label, parcel, &sha256)?;
    let ack = unsigned(clinic, label, sha256, answer);
    Ok(clinic.keys.sign(&ack, &clinic.settings.clinic, &label.box_id))
}

fn unsigned(clinic: &Clinic, label: &Label, sha256: String, answer: Answer) -> Ack {
    let Answer { result, reason, stored_at } = answer;
    clinic.counters.count(result);
    Ack {
        version: 1,
        session: label.session.clone(),
        revision: label.revision,
        sha256,
        result,
        reason: reason.map(str::to_owned),
        stored_at,
        key_id: String::new(),
        signature: String::new(),
    }
}

/// Destroys everything of a session to which consent was withdrawn, and takes nothing of it from then on. The
/// acknowledgement, of revision 0, is signed as that of a parcel. None: it is no withdrawal, and there is nothing to answer.
///
/// # Errors
/// [`ClinicStoreError`]: nothing was decided, and it must come again.
pub fn forget(clinic: &Clinic, box_id: &str, session: &str, payload: &[u8]) -> Result<Vec<Ack>, ClinicStoreError> {
    let read = serde_json::from_slice::<Withdrawal>(payload).ok();
    if read.is_none_or(|withdrawal| withdrawal.version != 1 || withdrawal.session != session) {
        return Ok(Vec::new());
    }
    let now = clinic.clock.now().wall;
    let answer = if clinic.store.withdraw(session, box_id, now)? {
        Answer { result: AckResult::Withdrawn, reason: None, stored_at: now.to_string() }
    } else {
        Answer::refused("conflict", now)
    };
    let label = Label { box_id: box_id.into(), session: session.into(), revision: WITHDRAWAL };
    let ack = unsigned(clinic, &label, sha256(payload), answer);
    Ok(clinic.keys.sign(&ack, &clinic.settings.clinic, box_id))
}

fn decide(clinic: &Clinic, label: &Label, parcel: &[u8], sha256: &str) -> Result<Answer, ClinicStoreError> {
    let now = clinic.clock.now().wall;
    let Label { box_id, session, revision } = label;
    if clinic.store.is_withdrawn(session)? {
        return Ok(Answer::refused("withdrawn", now));
    }
    if let Some(held) = clinic.store.held(session, *revision)? {
        return Ok(Answer::about(held, label, sha256, now));
    }
    let address = Address { clinic: &clinic.settings.clinic, box_id, session, revision: *revision };
    let record = match clinic.keys.open(parcel, &address) {
        Ok(record) if is_date(&record.started_at) && is_date(&record.ended_at) => record,
        Ok(_) => return Ok(Answer::refused("invalid", now)),
        Err(why) => return Ok(Answer::refused(reason(&why), now)),
    };
    // Another server may have been faster.
    Ok(match clinic.store.keep(&Arrival { record: &record, parcel, sha256 }, now)? {
        Kept::New => Answer { result: AckResult::Stored, reason: None, stored_at: now.to_string() },
        Kept::Before(held) => Answer::about(held, label, sha256, now),
        Kept::Withdrawn => Answer::refused("withdrawn", now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::{self, SESSION};

    fn label(revision: u32) -> Label {
        Label { box_id: "room-1".into(), session: SESSION.into(), revision }
    }

    fn took(clinic: &Clinic, label: &Label, parcel: &[u8]) -> Ack {
        take(clinic, label, parcel).unwrap().remove(0)
    }

    fn outcome(ack: &Ack) -> (AckResult, Option<&str>) {
        (ack.result, ack.reason.as_deref())
    }

    #[test]
    fn a_parcel_is_stored_once_and_every_repeat_is_a_duplicate() {
        let world = fixture::World::new();
        let parcel = world.parcel(&fixture::record(SESSION, 1));
        let first = took(&world.clinic, &label(1), &parcel);
        world.clock.pass(std::time::Duration::from_secs(9));
        let again = took(&world.clinic, &label(1), &parcel);
        assert_eq!((outcome(&first), outcome(&again)), ((AckResult::Stored, None), (AckResult::Duplicate, None)));
        assert_eq!(first.stored_at, again.stored_at, "when it was committed");
        assert!(world.public.believes(&again, "north", "room-1"));
        assert_eq!(world.clinic.store.sessions(9).unwrap().len(), 1);
        assert_eq!(world.clinic.counters.get(AckResult::Duplicate), 1);
    }

    #[test]
    fn a_server_that_dies_between_commit_and_ack_says_duplicate_when_it_is_back() {
        let world = fixture::World::new();
        let parcel = world.parcel(&fixture::record(SESSION, 1));
        drop(took(&world.clinic, &label(1), &parcel));
        let world = world.killed();
        let ack = took(&world.clinic, &label(1), &parcel);
        assert_eq!(outcome(&ack), (AckResult::Duplicate, None));
    }

    #[test]
    fn other_bytes_for_the_same_revision_are_a_conflict_and_change_nothing() {
        let world = fixture::World::new();
        let record = fixture::record(SESSION, 1);
        took(&world.clinic, &label(1), &world.parcel(&record));
        let before = world.clinic.store.newest_parcel(SESSION).unwrap();
        let ack = took(&world.clinic, &label(1), &world.parcel(&record));
        assert_eq!(outcome(&ack), (AckResult::Refused, Some("conflict")), "sealing twice gives other bytes");
        assert_eq!(world.clinic.store.newest_parcel(SESSION).unwrap(), before);
        let same = before.unwrap().bytes;
        let elsewhere = Label { box_id: "room-2".into(), ..label(1) };
        assert_eq!(outcome(&took(&world.clinic, &elsewhere, &same)), (AckResult::Refused, Some("conflict")));
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_not_kept() {
        let world = fixture::World::new();
        let stranger = fixture::World::new();
        let record = fixture::record(SESSION, 1);
        let other = fixture::Record { session_id: "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a99".into(), ..record.clone() };
        let cases = [
            (b"no parcel".to_vec(), "malformed"),
            (stranger.parcel(&record), "unreadable"),
            (world.parcel(&fixture::record(SESSION, 2)), "unreadable"),
            (world.parcel_addressed(&other, SESSION, 1), "invalid"),
            (world.parcel(&fixture::Record { ended_at: "later".into(), ..record.clone() }), "invalid"),
        ];
        for (parcel, reason) in cases {
            let ack = took(&world.clinic, &label(1), &parcel);
            assert_eq!(outcome(&ack), (AckResult::Refused, Some(reason)));
        }
        assert!(world.clinic.store.sessions(9).unwrap().is_empty());
        assert_eq!(world.clinic.counters.get(AckResult::Refused), 5);
    }

    fn withdrawal(session: &str) -> Vec<u8> {
        let at = "2026-01-01T00:00:00.000Z".into();
        serde_json::to_vec(&Withdrawal { version: 1, session: session.into(), at }).unwrap()
    }

    fn forgotten(world: &fixture::World, box_id: &str, session: &str) -> Ack {
        let mut words = forget(&world.clinic, box_id, session, &withdrawal(session)).unwrap();
        assert_eq!(words.len(), 1, "there is one key");
        words.remove(0)
    }

    #[test]
    fn a_withdrawn_session_is_gone_and_its_parcels_are_taken_no_more() {
        let world = fixture::World::new();
        let parcel = world.parcel(&fixture::record(SESSION, 1));
        took(&world.clinic, &label(1), &parcel);
        let message = withdrawal(SESSION);
        for _ in 0..2 {
            let ack = forgotten(&world, "room-1", SESSION);
            assert_eq!((outcome(&ack), ack.revision), ((AckResult::Withdrawn, None), 0));
            assert_eq!(ack.sha256, sha256(&message));
            assert!(world.public.believes(&ack, "north", "room-1"));
        }
        assert_eq!(world.clinic.store.newest_parcel(SESSION).unwrap(), None);
        let row = &world.clinic.store.sessions(9).unwrap()[0];
        assert_eq!((row.status.as_str(), row.segments, row.speakers), ("withdrawn", 0, 0));
        for revision in [1, 2] {
            let late = took(&world.clinic, &label(revision), &world.parcel(&fixture::record(SESSION, revision)));
            assert_eq!(outcome(&late), (AckResult::Refused, Some("withdrawn")));
        }
    }

    #[test]
    fn a_withdrawal_may_come_before_the_parcel_and_not_from_another_box() {
        let world = fixture::World::new();
        took(&world.clinic, &label(1), &world.parcel(&fixture::record(SESSION, 1)));
        let other = forgotten(&world, "room-2", SESSION);
        assert_eq!(outcome(&other), (AckResult::Refused, Some("conflict")));
        assert!(world.clinic.store.newest_parcel(SESSION).unwrap().is_some());
        let unheard = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a99";
        forgotten(&world, "room-1", unheard);
        let label = Label { session: unheard.into(), ..label(1) };
        let late = took(&world.clinic, &label, &world.parcel(&fixture::record(unheard, 1)));
        assert_eq!(outcome(&late), (AckResult::Refused, Some("withdrawn")));
        for nonsense in [&b"{}"[..], b"", &withdrawal(SESSION)] {
            assert_eq!(forget(&world.clinic, "room-1", unheard, nonsense).unwrap(), []);
        }
    }

    #[test]
    fn a_session_is_withdrawn_at_the_clinic_whichever_box_it_came_from() {
        let world = fixture::World::new();
        took(&world.clinic, &label(1), &world.parcel(&fixture::record(SESSION, 1)));
        let now = WallTime(0);
        let unknown = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a99";
        assert!(!world.clinic.store.withdraw_here(unknown, now).unwrap());
        assert!(world.clinic.store.withdraw_here(SESSION, now).unwrap());
        assert_eq!(world.clinic.store.newest_parcel(SESSION).unwrap(), None);
        let late = took(&world.clinic, &label(2), &world.parcel(&fixture::record(SESSION, 2)));
        assert_eq!(outcome(&late), (AckResult::Refused, Some("withdrawn")));
        assert_eq!(forgotten(&world, "room-1", SESSION).result, AckResult::Withdrawn, "its box may say so, too");
    }

    /// With `secure_delete` alone its parcel would still stand in the write-ahead log.
    #[test]
    fn no_byte_of_a_withdrawn_parcel_is_left_in_the_clinic_s_files() {
        let world = fixture::World::new();
        let parcel = world.parcel(&fixture::record(SESSION, 1));
        took(&world.clinic, &label(1), &parcel);
        let probe = &parcel[40..72];
        let holds = |world: &fixture::World| {
            let files = std::fs::read_dir(world.folder()).unwrap().map(|entry| entry.unwrap().path());
            files.filter(|f| f.is_file()).any(|f| std::fs::read(f).unwrap().windows(probe.len()).any(|w| w == probe))
        };
        assert!(holds(&world));
        forgotten(&world, "room-1", SESSION);
        assert!(!holds(&world));
    }

    /// A box that was enrolled before knows nothing of the new keys, and must be answered all the same.
    #[test]
    fn after_a_rotation_boxes_of_before_and_after_are_served_and_old_parcels_open() {
        let world = fixture::World::new();
        let (before, first) = (world.public.clone(), world.parcel(&fixture::record(SESSION, 1)));
        took(&world.clinic, &label(1), &first);
        let world = world.rotated();
        assert_eq!(world.clinic.keys.ids().len(), 2);
        let address = |revision| Address { clinic: "north", box_id: "room-1", session: SESSION, revision };
        let late = before.seal(&fixture::record(SESSION, 2), &address(2)).unwrap();
        let new = world.parcel(&fixture::record(SESSION, 3));
        for (parcel, revision, public) in [(&first, 1, &before), (&late, 2, &before), (&new, 3, &world.public)] {
            let words = take(&world.clinic, &label(revision), parcel).unwrap();
            assert!(
                words.iter().all(|ack| matches!(ack.result, AckResult::Stored | AckResult::Duplicate)),
                "{words:?}"
            );
            // The box may have been enrolled again since it was sealed.
            for told in [public, &before, &world.public] {
                assert!(words.iter().any(|ack| told.believes(ack, "north", "room-1")), "revision {revision}");
            }
            assert!(world.clinic.keys.open(parcel, &address(revision)).is_ok());
        }
        let words = forget(&world.clinic, "room-1", SESSION, &withdrawal(SESSION)).unwrap();
        for public in [&before, &world.public] {
            assert!(words.iter().any(|ack| public.believes(ack, "north", "room-1")));
        }
    }

    #[test]
    fn an_older_revision_that_comes_late_is_kept_and_does_not_replace_the_newer() {
        let world = fixture::World::new();
        let failed = fixture::failed(SESSION, 1);
        let newer = took(&world.clinic, &label(2), &world.parcel(&fixture::record(SESSION, 2)));
        let older = took(&world.clinic, &label(1), &world.parcel(&failed));
        assert_eq!((newer.result, older.result), (AckResult::Stored, AckResult::Stored));
        let row = &world.clinic.store.sessions(9).unwrap()[0];
        assert_eq!((row.revision, row.status.as_str()), (2, "done"));
        assert_eq!(world.clinic.store.newest_parcel(SESSION).unwrap().unwrap().revision, 2);
    }
}
