//! `roomscribe ledger`, with or without a daemon: whether everything that was ever recorded is accounted for, in the
//! database and in the spool folder.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::mem::discriminant;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use shared::clock::WallTime;
use shared::paths::Root;
use shared::store::{Balance, Held, Imbalance, Store, StoreError};

use crate::audio::SAMPLE_RATE_HZ;
use crate::spool::{self, spool_file};

/// Files and rows are not written at one moment: what is found is looked at once more after so long.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// A recording that was written to so lately may be becoming a session: an import is, while it is decoded.
const YOUNG_MS: u64 = 60_000;

/// The ledger with everything that does not add up. Blocks for a second if something does not.
///
/// # Errors
/// [`StoreError`].
pub fn balance(store: &Store, root: &Root, now: WallTime) -> Result<Balance, StoreError> {
    let first = look(store, root, now)?;
    if first.findings.is_empty() {
        return Ok(first);
    }
    std::thread::sleep(SECOND_LOOK);
    let mut second = look(store, root, now)?;
    second.findings.retain(|finding| first.findings.iter().any(|before| is_same(before, finding)));
    Ok(second)
}

/// Whether it is the same thing; how much is wrong may change meanwhile.
fn is_same(a: &Imbalance, b: &Imbalance) -> bool {
    discriminant(a) == discriminant(b) && a.session() == b.session()
}

fn look(store: &Store, root: &Root, now: WallTime) -> Result<Balance, StoreError> {
    let files = spool::recordings(root);
    let mut balance = store.balance()?;
    let said: BTreeMap<String, bool> = store.audio_said_to_be_kept()?.into_iter().collect();
    for (session, is_kept) in &said {
        let (session_id, is_there) = (session.clone(), spool_file(root, session).exists());
        match (is_kept, is_there) {
            (true, false) => balance.findings.push(Imbalance::AudioMissing { session_id }),
            (false, true) => balance.findings.push(Imbalance::AudioLeft { session_id }),
            (true, true) | (false, false) => {}
        }
    }
    let strange = files.into_iter().filter(|(session, file)| !said.contains_key(session) && !is_young(file, now));
    balance.findings.extend(strange.map(|(session_id, _)| Imbalance::SpoolOfNoSession { session_id }));
    Ok(balance)
}

fn is_young(file: &Metadata, now: WallTime) -> bool {
    let since_1970 = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok();
    let modified = file.modified().ok().and_then(since_1970);
    modified.and_then(|at| i64::try_from(at.as_millis()).ok()).is_some_and(|at| now.0.abs_diff(at) < YOUNG_MS)
}

fn hours(samples: u64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE_HZ) / 3600.0
}

fn held_json(held: Held) -> Value {
    json!({ "sessions": held.sessions, "samples": held.samples, "hours": (hours(held.samples) * 1e4).round() / 1e4 })
}

/// The ledger as it is answered.
#[must_use]
pub fn ledger_json(balance: &Balance) -> Value {
    let terms = balance.ledger.terms.iter().map(|(term, held)| (json!(term), held_json(*held)));
    let terms: serde_json::Map<String, Value> =
        terms.map(|(term, held)| (term.as_str().unwrap_or_default().to_owned(), held)).collect();
    let findings = balance.findings.iter().map(|finding| {
        let mut told = json!(finding);
        told["message"] = json!(finding.to_string());
        told
    });
    json!({
        "recorded": held_json(balance.ledger.recorded),
        "terms": terms,
        "balances": balance.findings.is_empty(),
        "findings": findings.collect::<Vec<_>>(),
        "message": sentence(balance),
    })
}

/// Whether it adds up, and by how much it does not.
fn sentence(balance: &Balance) -> String {
    if balance.findings.is_empty() {
        return "Everything recorded is accounted for.".into();
    }
    let (recorded, terms) = (balance.ledger.recorded, balance.ledger.sum());
    let sessions = recorded.sessions.abs_diff(terms.sessions);
    let samples = recorded.samples.abs_diff(terms.samples);
    let mut about: Vec<&str> = balance.findings.iter().filter_map(Imbalance::session).collect();
    about.sort_unstable();
    about.dedup();
    format!(
        "the ledger does not add up: what was recorded and the sum of its terms differ by {sessions} sessions and \
         {samples} samples ({:.2} h), and {} things are wrong with {} sessions",
        hours(samples),
        balance.findings.len(),
        about.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock::{Clock as _, SystemClock};
    use shared::record::{Consent, Status, TimeQuality};
    use shared::store::{NewSession, SpeakerHint};

    fn box_in(folder: &std::path::Path) -> (Root, Store) {
        let root = Root::new(folder);
        std::fs::create_dir_all(root.spool()).unwrap();
        let keys = crate::context::open_keys(&root, None).unwrap();
        let store = Store::open(&root.database()).unwrap().sealing_with(std::sync::Arc::new(keys));
        (root, store)
    }

    fn now() -> WallTime {
        SystemClock::new().now().wall
    }

    fn session(root: &Root, store: &Store, id: &str) {
        let new = NewSession {
            id: id.into(),
            started_at: now(),
            time_quality: TimeQuality::Synchronized,
            consent: Consent { basis: "verbal".into(), by: None, at: now().to_string() },
            status: Status::Queued,
            speakers: SpeakerHint::default(),
        };
        store.import_session(&new, 57_600_000, None::<&()>, now()).unwrap();
        spool(root, id, 0);
    }

    fn spool(root: &Root, id: &str, age_s: u64) {
        let file = std::fs::File::create(root.spool().join(format!("{id}.rspool"))).unwrap();
        let at = UNIX_EPOCH + Duration::from_millis(now().0.unsigned_abs()) - Duration::from_secs(age_s);
        file.set_modified(at).unwrap();
    }

    #[test]
    fn files_and_rows_are_held_against_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let (root, store) = box_in(folder.path());
        for id in ["sound", "missing", "left"] {
            session(&root, &store, id);
        }
        spool(&root, "becoming", 30);
        assert_eq!(balance(&store, &root, now()).unwrap().findings, []);
        std::fs::remove_file(root.spool().join("missing.rspool")).unwrap();
        store.audio_destroyed("left", now()).unwrap();
        spool(&root, "stray", 90);
        let found = balance(&store, &root, now()).unwrap();
        let id = |session: &str| session.to_owned();
        let expected = [
            Imbalance::AudioGoneUnacknowledged { session_id: id("left") },
            Imbalance::AudioLeft { session_id: id("left") },
            Imbalance::AudioMissing { session_id: id("missing") },
            Imbalance::SpoolOfNoSession { session_id: id("stray") },
        ];
        assert_eq!(found.findings, expected);
        let told = ledger_json(&found);
        assert_eq!((&told["balances"], &told["recorded"]["hours"]), (&json!(false), &json!(3.0)));
        assert_eq!(told["terms"]["queued"]["sessions"], 3);
        assert!(told["message"].as_str().unwrap().contains("4 things are wrong with 3 sessions"));
    }

    #[test]
    fn what_is_wrong_for_a_moment_alone_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let (root, store) = box_in(folder.path());
        session(&root, &store, "dropped");
        std::fs::remove_file(root.spool().join("dropped.rspool")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(SECOND_LOOK / 4);
                spool(&root, "dropped", 0);
            });
            assert_eq!(balance(&store, &root, now()).unwrap().findings, []);
        });
    }
}
