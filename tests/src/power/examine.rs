//! What is left after a cut, looked at before anybody goes on with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use appliance::spool::{SpoolReader, spool_file};
use rusqlite::Connection;
use shared::keys::{BoxKeys, Purpose};
use shared::paths::Root;
use shared::store::KeyStore;

use super::heard::LIMIT;
use super::tally::Known;
use super::{World, data};

/// A parcel: session, revision, sha256.
type Parcel = (String, u32, String);

/// The databases of a box as they lie there, elsewhere: opening them recovers them, and that is the box's own business.
pub(super) struct Remains(tempfile::TempDir);

impl Remains {
    /// Takes a remains.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub(super) fn of(root: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let to = data(folder.path());
        std::fs::create_dir_all(&to).expect("a folder");
        for entry in std::fs::read_dir(data(root)).expect("the box's folder").map(|entry| entry.expect("an entry")) {
            // What is removed meanwhile by a box that runs was nothing that stays.
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                std::fs::copy(entry.path(), to.join(entry.file_name())).ok();
            }
        }
        Self(folder)
    }

    fn database(&self, name: &str) -> Connection {
        Connection::open(data(self.0.path()).join(name)).expect("a database")
    }

    /// The copied key store, if it can be opened: that of a box that runs may have been copied in the middle of something.
    #[must_use]
    pub(super) fn keys(&self) -> Option<KeyStore> {
        let root = Root::new(self.0.path());
        KeyStore::open(&root.key_store(), BoxKeys::find(&root, None).ok()?.keys).ok()
    }

    /// A session's recording on the box at `root`.
    #[must_use]
    pub(super) fn spool(&self, root: &Path, session: &str) -> Option<SpoolReader> {
        SpoolReader::open(&spool_file(&Root::new(root), session), &self.keys()?, session).ok()
    }

    /// SQLite's own check of both databases.
    ///
    /// # Panics
    /// If it finds anything.
    pub(super) fn assert_whole(&self) {
        for name in ["roomscribe.db", "keys.db"] {
            let database = self.database(name);
            let found: String =
                database.pragma_query_value(None, "integrity_check", |row| row.get(0)).expect("a check");
            assert_eq!(found, "ok", "{name}");
            let orphans = database.prepare("pragma foreign_key_check").and_then(|mut all| all.exists([]));
            assert_eq!(orphans, Ok(false), "{name} has rows of nothing");
        }
    }

    /// Every session with its status.
    fn sessions(&self) -> BTreeMap<String, String> {
        let database = self.database("roomscribe.db");
        let mut all = database.prepare("select id, status from sessions").expect("SQL");
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("SQL");
        rows.collect::<Result<_, _>>().expect("rows")
    }

    fn destroyed(&self) -> Vec<String> {
        let database = self.database("roomscribe.db");
        let mut all = database.prepare("select id from sessions where audio = 'destroyed'").expect("SQL");
        let rows = all.query_map([], |row| row.get(0)).expect("SQL");
        rows.collect::<Result<_, _>>().expect("rows")
    }

    /// What is owed, or was, and whether the clinic is known to have it.
    pub(super) fn owed(&self) -> BTreeMap<Parcel, bool> {
        let database = self.database("roomscribe.db");
        let mut all = database.prepare("select session, revision, sha256, state from outbox").expect("SQL");
        let rows = all.query_map([], |row| {
            let state: String = row.get(3)?;
            Ok(((row.get(0)?, row.get(1)?, row.get(2)?), state == "acknowledged"))
        });
        rows.and_then(Iterator::collect).expect("rows")
    }
}

impl World {
    /// Every parcel the clinic holds.
    ///
    /// # Panics
    /// If its database cannot be read.
    #[must_use]
    pub(super) fn held_at_the_clinic(&self) -> BTreeSet<Parcel> {
        let database = Connection::open(self.clinics.root().join("var/lib/roomscribe-clinic/clinic.db"));
        let database = database.expect("the clinic's database");
        database.busy_timeout(crate::PATIENCE).expect("a timeout");
        let mut all = database.prepare("select session_id, revision, sha256 from parcels").expect("SQL");
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.and_then(Iterator::collect).expect("rows")
    }

    /// Nothing runs; `delivered` is how far the microphone had been listened to, `since` since when at least.
    pub(super) fn examine(&mut self, delivered: u64, since: u64) {
        let remains = Remains::of(self.room.root());
        remains.assert_whole();
        self.tally.integrity_checks += 2;
        let sessions = remains.sessions();
        self.find(&sessions, since);
        for known in &self.sessions {
            let status = sessions.get(&known.id).unwrap_or_else(|| panic!("session {} is forgotten", known.id));
            assert!(!known.is_stopped || status != "recording", "that {} was stopped is forgotten", known.id);
        }
        let (owed, held) = (remains.owed(), self.held_at_the_clinic());
        for parcel in &held {
            assert!(owed.contains_key(parcel), "the clinic has {parcel:?}, and the box does not know it");
        }
        for (parcel, _) in owed.iter().filter(|(_, is_acknowledged)| **is_acknowledged) {
            assert!(held.contains(parcel), "the box believes that the clinic has {parcel:?}");
        }
        for known in self.sessions.iter().filter(|known| known.is_acknowledged) {
            let is_known = owed.iter().any(|((session, ..), is_acknowledged)| *session == known.id && *is_acknowledged);
            assert!(is_known, "that the clinic has {} is forgotten", known.id);
        }
        self.assert_audio(&remains, &owed);
        if let Some(current) = self.current {
            self.assert_heard(&remains, current, delivered, since);
            if self.sessions[current].is_stopped {
                self.current = None;
            }
        }
    }

    /// No audio is gone before the clinic has its record, and what is said to be destroyed has no key.
    fn assert_audio(&self, remains: &Remains, owed: &BTreeMap<Parcel, bool>) {
        let (keys, root) = (remains.keys().expect("a key store that opens"), self.room.root());
        let is_acknowledged =
            |id: &str| owed.iter().any(|((session, ..), is_acknowledged)| session == id && *is_acknowledged);
        for id in self.sessions.iter().map(|known| known.id.as_str()).filter(|id| !is_acknowledged(id)) {
            let spool = SpoolReader::open(&spool_file(&Root::new(root), id), &keys, id);
            assert!(spool.is_ok(), "the audio of {id} is gone: {:?}", spool.err());
        }
        for id in remains.destroyed() {
            assert!(matches!(keys.get(&id, Purpose::Audio), Ok(None)), "{id} is said to be destroyed and has its key");
        }
    }

    /// A session that nobody was told of.
    fn find(&mut self, sessions: &BTreeMap<String, String>, since: u64) {
        let is_new = |id: &&String| !self.sessions.iter().any(|known| known.id == **id);
        let new: Vec<String> = sessions.keys().filter(is_new).cloned().collect();
        assert!(new.len() <= 1, "{new:?} were never asked for");
        new.iter().for_each(|id| self.take_up(id, since));
    }

    /// At most a second of what was delivered is missing.
    fn assert_heard(&mut self, remains: &Remains, current: usize, delivered: u64, since: u64) {
        let root = self.root();
        let spool = remains.spool(&root, &self.sessions[current].id);
        let spool = spool.unwrap_or_else(|| panic!("{} cannot be read", self.sessions[current].id));
        let kept_up_to = super::heard::last_position(&spool, delivered);
        let lost = delivered.saturating_sub(kept_up_to.unwrap_or(0).max(since));
        assert!(lost <= LIMIT, "{lost} samples are lost");
        self.tally.lost.push(lost);
        let known = &mut self.sessions[current];
        known.kept = spool.samples();
        known.cuts += 1;
        let deaf = kept_up_to.unwrap_or(known.begun);
        match known.deaf.last() {
            Some(last) if last.end == u64::MAX => {}
            _ => known.deaf.push(deaf..u64::MAX),
        }
    }
}

impl Known {
    /// Whether the microphone may have lost what lies between two positions.
    pub(super) fn excuses(&self, lost: &std::ops::Range<u64>) -> bool {
        self.deaf.iter().any(|deaf| deaf.start <= lost.start && lost.end <= deaf.end)
    }
}
