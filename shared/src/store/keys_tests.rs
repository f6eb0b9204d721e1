use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use proptest::prelude::*;
use rusqlite::Connection;

use super::keys::forget;
use super::tests::NOW;
use super::{Disk, KeyError, KeyStore};
use crate::keys::{BoxKey, BoxKeys, DataKey, Purpose, UnwrapError};

/// A folder with a store, and the key file that opens it.
struct Place {
    folder: tempfile::TempDir,
    key_file: String,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), key_file: BoxKey::generate().unwrap().line().to_string() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("keys.db")
    }

    fn open(&self) -> Result<KeyStore, KeyError> {
        KeyStore::open(&self.path(), BoxKeys::parse(&self.key_file).unwrap())
    }

    fn open_on(&self, disk: &Disk) -> KeyStore {
        KeyStore::open_on(&self.path(), BoxKeys::parse(&self.key_file).unwrap(), Some(disk)).unwrap()
    }

    /// The row as it lies in the file, read past the store.
    fn wrapped(&self, owner: &str, purpose: Purpose) -> Vec<u8> {
        Connection::open(self.path())
            .unwrap()
            .query_row("select wrapped from keys where owner = ?1 and purpose = ?2", [owner, purpose.name()], |row| {
                row.get(0)
            })
            .unwrap()
    }

    fn run(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

/// Whether eight bytes of a wrapped key's own (behind mark and box key id) are in any file of the folder.
fn is_a_trace_in(folder: &Path, wrapped: &[u8]) -> bool {
    let parts: std::collections::HashSet<&[u8]> = wrapped[20..].windows(8).collect();
    fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(8).any(|part| parts.contains(part))
    })
}

fn are_the_same(one: &DataKey, other: &DataKey) -> bool {
    one.seal("x", b"good morning").is_ok_and(|sealed| other.open("x", &sealed).is_ok())
}

#[test]
fn a_key_is_made_once_and_found_after_the_box_was_off() {
    let place = Place::new();
    let store = place.open().unwrap();
    let made = store.make("s", Purpose::Content, NOW).unwrap();
    assert!(are_the_same(&made, &store.make("s", Purpose::Content, NOW).unwrap()));
    drop(store);
    let store = place.open().unwrap();
    assert!(are_the_same(&made, &store.get("s", Purpose::Content).unwrap().unwrap()));
    assert!(store.get("s", Purpose::Audio).unwrap().is_none());
    assert!(store.get("t", Purpose::Content).unwrap().is_none());
}

#[test]
fn each_purpose_and_owner_has_a_key_of_its_own() {
    let place = Place::new();
    let store = place.open().unwrap();
    let audio = store.make("s", Purpose::Audio, NOW).unwrap();
    let content = store.make("s", Purpose::Content, NOW).unwrap();
    assert_eq!((audio.owner(), audio.purpose()), ("s", Purpose::Audio));
    assert!(!are_the_same(&audio, &content));
    assert_ne!(place.wrapped("s", Purpose::Audio)[20..], place.wrapped("s", Purpose::Content)[20..]);
    store.make("v", Purpose::Voice, NOW).unwrap();
    store.make("r", Purpose::Content, NOW).unwrap();
    assert_eq!(store.owners(Purpose::Content).unwrap(), ["r", "s"]);
    assert_eq!(store.owners(Purpose::Voice).unwrap(), ["v"]);
    let held = store.held().unwrap();
    assert_eq!(held.len(), 4);
    assert!(held.iter().all(|key| key.made_at == NOW && key.box_key.is_some()));
}

#[test]
fn only_an_id_can_own_a_key() {
    let place = Place::new();
    let store = place.open().unwrap();
    for owner in ["", "a b", "a\nb", "ä", "a/b", &"x".repeat(65)] {
        assert!(matches!(store.make(owner, Purpose::Voice, NOW), Err(KeyError::BadOwner)), "{owner:?}");
    }
    store.make("7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11", Purpose::Audio, NOW).unwrap();
}

#[test]
fn the_file_is_for_its_user_alone_and_keeps_no_log_of_what_was() {
    let place = Place::new();
    let store = place.open().unwrap();
    assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o777, 0o600);
    let connection = store.connection.lock().unwrap();
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let text = |name| connection.pragma_query_value(None, name, |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(number("secure_delete"), 1);
    assert_eq!(number("synchronous"), 3, "extra");
    assert_eq!(number("temp_store"), 2, "memory");
    assert_eq!(number("user_version"), 1);
    assert_eq!(text("journal_mode"), "delete");
}

#[test]
fn a_destroyed_key_leaves_no_byte_and_the_others_stay() {
    let place = Place::new();
    let store = place.open().unwrap();
    for owner in ["a", "b", "c"] {
        store.make(owner, Purpose::Audio, NOW).unwrap();
        store.make(owner, Purpose::Content, NOW).unwrap();
    }
    let (audio, content) = (place.wrapped("b", Purpose::Audio), place.wrapped("b", Purpose::Content));
    assert!(is_a_trace_in(place.folder.path(), &audio), "the search finds what is there");
    assert!(store.destroy("b", &[Purpose::Audio]).unwrap());
    assert!(!is_a_trace_in(place.folder.path(), &audio));
    assert!(is_a_trace_in(place.folder.path(), &content));
    assert!(store.get("b", Purpose::Audio).unwrap().is_none());
    assert!(store.get("b", Purpose::Content).unwrap().is_some());
    assert!(store.destroy_all("b").unwrap());
    assert!(!is_a_trace_in(place.folder.path(), &content));
    assert!(!store.destroy_all("b").unwrap(), "there is nothing more to destroy");
    assert_eq!(store.held().unwrap().len(), 4);
    assert!(!store.is_rewrite_owed().unwrap());
}

#[test]
fn a_key_that_is_made_again_is_another() {
    let place = Place::new();
    let store = place.open().unwrap();
    let before = store.make("s", Purpose::Audio, NOW).unwrap();
    store.destroy_all("s").unwrap();
    assert!(!are_the_same(&before, &store.make("s", Purpose::Audio, NOW).unwrap()));
}

#[test]
fn a_key_is_destroyed_without_the_box_key_that_wraps_it() {
    let mut place = Place::new();
    place.open().unwrap().make("s", Purpose::Audio, NOW).unwrap();
    let wrapped = place.wrapped("s", Purpose::Audio);
    place.key_file = BoxKey::generate().unwrap().line().to_string();
    assert!(place.open().unwrap().destroy_all("s").unwrap());
    assert!(!is_a_trace_in(place.folder.path(), &wrapped));
}

#[test]
fn what_a_power_cut_left_of_a_destruction_is_finished_when_the_store_is_opened() {
    let place = Place::new();
    let store = place.open().unwrap();
    store.make("s", Purpose::Audio, NOW).unwrap();
    store.make("t", Purpose::Audio, NOW).unwrap();
    let wrapped = place.wrapped("s", Purpose::Audio);
    assert!(forget(&mut store.connection.lock().unwrap(), "s", &[Purpose::Audio]).unwrap());
    assert!(store.is_rewrite_owed().unwrap());
    drop(store);
    // Worse than SQLite leaves it: the bytes are still in a page that is free.
    place.run(&format!(
        "pragma secure_delete = off; create table left (b blob); insert into left values (x'{}'); drop table left",
        hex::encode(&wrapped)
    ));
    assert!(is_a_trace_in(place.folder.path(), &wrapped));
    let store = place.open().unwrap();
    assert!(!is_a_trace_in(place.folder.path(), &wrapped));
    assert!(!store.is_rewrite_owed().unwrap());
    assert_eq!(store.owners(Purpose::Audio).unwrap(), ["t"]);
}

#[test]
fn a_power_cut_before_a_destruction_is_committed_leaves_the_key() {
    let place = Place::new();
    let disk = Disk::default();
    let store = place.open_on(&disk);
    store.make("s", Purpose::Audio, NOW).unwrap();
    disk.cut_power_after(0);
    assert!(store.destroy_all("s").is_err());
    drop(store);
    assert!(place.open().unwrap().get("s", Purpose::Audio).unwrap().is_some());
}

#[test]
fn what_is_owed_by_another_process_meanwhile_stays_owed() {
    let place = Place::new();
    let store = place.open().unwrap();
    for owner in ["a", "b"] {
        store.make(owner, Purpose::Audio, NOW).unwrap();
        forget(&mut store.connection.lock().unwrap(), owner, &[Purpose::Audio]).unwrap();
    }
    place.run("delete from owed where id <= 1");
    assert!(store.is_rewrite_owed().unwrap(), "each debt has its own number");
    store.destroy_all("nobody").unwrap();
    assert!(!store.is_rewrite_owed().unwrap(), "the next destruction pays it, whatever it destroys");
    store.make("c", Purpose::Audio, NOW).unwrap();
    forget(&mut store.connection.lock().unwrap(), "c", &[Purpose::Audio]).unwrap();
    place.run("delete from owed where id <= 2");
    assert!(store.is_rewrite_owed().unwrap(), "a number is never used again");
}

#[test]
fn after_a_rotation_the_old_box_key_is_not_needed() {
    let mut place = Place::new();
    let old = place.key_file.clone();
    let made = place.open().unwrap().make("s", Purpose::Content, NOW).unwrap();
    let wrapped = place.wrapped("s", Purpose::Content);
    let new = BoxKey::generate().unwrap();
    place.key_file = format!("{}{old}", *new.line());
    let store = place.open().unwrap();
    store.make("t", Purpose::Content, NOW).unwrap();
    assert_eq!(store.rewrap().unwrap(), 1);
    assert_eq!(store.rewrap().unwrap(), 0, "nothing is left to do");
    assert!(!is_a_trace_in(place.folder.path(), &wrapped), "who has the old box key finds nothing to unwrap");
    assert!(store.held().unwrap().iter().all(|key| key.box_key == Some(new.id())));
    drop(store);
    place.key_file = new.line().to_string();
    assert!(are_the_same(&made, &place.open().unwrap().get("s", Purpose::Content).unwrap().unwrap()));
    place.key_file = old;
    let why = place.open().unwrap().get("s", Purpose::Content).unwrap_err();
    assert!(matches!(why, KeyError::OtherBoxKey { needs } if needs == new.id()));
    assert!(why.remedy().contains("Add the box key"));
}

#[test]
fn a_rotation_that_cannot_be_whole_changes_nothing() {
    let mut place = Place::new();
    let lost = place.key_file.clone();
    place.open().unwrap().make("b", Purpose::Content, NOW).unwrap();
    let old = BoxKey::generate().unwrap().line().to_string();
    place.key_file = old.clone();
    place.open().unwrap().make("a", Purpose::Content, NOW).unwrap();
    let before = place.wrapped("a", Purpose::Content);
    place.key_file = format!("{}{old}", *BoxKey::generate().unwrap().line());
    let needs = BoxKeys::parse(&lost).unwrap().first();
    assert!(matches!(place.open().unwrap().rewrap(), Err(KeyError::OtherBoxKey { needs: n }) if n == needs));
    assert!(place.wrapped("a", Purpose::Content) == before);
}

#[test]
fn a_row_passed_off_as_anothers_is_refused() {
    let place = Place::new();
    let store = place.open().unwrap();
    store.make("s", Purpose::Audio, NOW).unwrap();
    store.make("t", Purpose::Audio, NOW).unwrap();
    place.run("update keys set wrapped = (select wrapped from keys where owner = 's') where owner = 't'");
    assert!(matches!(store.get("t", Purpose::Audio), Err(KeyError::DamagedKey(UnwrapError::Forged))));
    assert!(matches!(store.make("t", Purpose::Audio, NOW), Err(KeyError::DamagedKey(UnwrapError::Forged))));
    place.run("update keys set wrapped = x'00' where owner = 't'");
    assert!(matches!(store.get("t", Purpose::Audio), Err(KeyError::DamagedKey(UnwrapError::Malformed))));
    assert!(store.get("s", Purpose::Audio).unwrap().is_some(), "the others are well");
}

#[test]
fn a_damaged_file_is_an_error_and_not_a_new_store() {
    let place = Place::new();
    let store = place.open().unwrap();
    for number in 0..200 {
        store.make(&format!("s{number}"), Purpose::Content, NOW).unwrap();
    }
    drop(store);
    let whole = fs::read(place.path()).unwrap();
    let garbled = |range: std::ops::Range<usize>| {
        let mut bytes = whole.clone();
        bytes[range].fill(0x5a);
        bytes
    };
    let damages = [
        vec![],
        b"not a database".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        whole[..100].to_vec(),
        garbled(0..16),
        garbled(100..4096),
        garbled(4096..8192),
        vec![0; whole.len()],
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        fs::write(place.path(), &damage).unwrap();
        assert!(matches!(place.open(), Err(KeyError::DamagedFile)), "damage {number}");
        assert!(fs::read(place.path()).unwrap() == damage, "damage {number} is left to be looked at");
    }
    fs::write(place.path(), &whole).unwrap();
    assert_eq!(place.open().unwrap().held().unwrap().len(), 200);
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let place = Place::new();
    let store = place.open().unwrap();
    let limit = |pages: i64| {
        let connection = store.connection.lock().unwrap();
        connection.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0)).unwrap();
    };
    limit(8);
    let mut made = Vec::new();
    let why = loop {
        match store.make(&format!("s{}", made.len()), Purpose::Audio, NOW) {
            Ok(key) => made.push(key),
            Err(why) => break why,
        }
    };
    assert!(matches!(why, KeyError::Full));
    assert!(made.len() > 20);
    let all_are_there = |store: &KeyStore, made: &[DataKey]| {
        made.iter().all(|key| are_the_same(key, &store.get(key.owner(), Purpose::Audio).unwrap().unwrap()))
    };
    assert!(all_are_there(&store, &made));
    assert!(store.destroy_all("s0").unwrap(), "a withdrawal needs no room in the file");
    assert!(all_are_there(&store, &made[1..]));
    limit(1 << 20);
    store.make("later", Purpose::Audio, NOW).unwrap();
    drop(store);
    assert!(all_are_there(&place.open().unwrap(), &made[1..]));
}

#[test]
fn a_key_that_is_gone_while_the_file_cannot_be_rewritten_says_so_until_it_is() {
    let place = Place::new();
    let disk = Disk::default();
    let store = place.open_on(&disk);
    store.make("s", Purpose::Audio, NOW).unwrap();
    disk.cut_power_after(1);
    assert!(matches!(store.destroy_all("s"), Err(KeyError::RewriteOwed(_))));
    assert!(store.is_rewrite_owed().unwrap());
    assert!(store.get("s", Purpose::Audio).unwrap().is_none(), "the key is gone all the same");
    drop(store);
    assert!(!place.open().unwrap().is_rewrite_owed().unwrap());
}

#[test]
fn a_disk_that_takes_no_commit_keeps_every_key_readable() {
    let place = Place::new();
    let disk = Disk::default();
    let store = place.open_on(&disk);
    let made = store.make("s", Purpose::Audio, NOW).unwrap();
    disk.set_full(true);
    assert!(store.make("t", Purpose::Audio, NOW).is_err());
    assert!(store.destroy_all("s").is_err());
    assert!(store.rewrap().is_ok_and(|count| count == 0));
    assert!(are_the_same(&made, &store.get("s", Purpose::Audio).unwrap().unwrap()));
    disk.set_full(false);
    assert!(store.destroy_all("s").unwrap());
}

#[test]
fn all_who_open_and_make_at_once_agree_on_one_store_and_one_key() {
    for _ in 0..10 {
        let place = Place::new();
        let start = Barrier::new(4);
        let keys: Vec<DataKey> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        place.open().unwrap().make("s", Purpose::Audio, NOW).unwrap()
                    })
                })
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| are_the_same(key, &keys[0])));
        let names: Vec<_> = fs::read_dir(place.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["keys.db"]);
    }
}

/// Does nothing unless [`a_process_killed_at_any_moment_leaves_no_trace_of_what_was_destroyed`] started it: makes and
/// destroys keys until it is killed, and writes down each wrapped key before it destroys it.
#[test]
fn one_that_is_killed() {
    let Some(folder) = std::env::var_os("ROOMSCRIBE_TEST_KEY_DESTROYER").map(PathBuf::from) else { return };
    let store = KeyStore::open(&folder.join("store/keys.db"), key_file_in(&folder)).unwrap();
    let reader = Connection::open(folder.join("store/keys.db")).unwrap();
    let mut seen = fs::OpenOptions::new().append(true).create(true).open(folder.join("seen")).unwrap();
    for number in 0.. {
        let owner = format!("{}-{number}", std::process::id());
        store.make(&owner, Purpose::Audio, NOW).unwrap();
        let wrapped: Vec<u8> =
            reader.query_row("select wrapped from keys where owner = ?1", [&owner], |row| row.get(0)).unwrap();
        seen.write_all(format!("{owner} {}\n", hex::encode(wrapped)).as_bytes()).unwrap();
        store.destroy_all(&owner).unwrap();
    }
}

fn key_file_in(folder: &Path) -> BoxKeys {
    BoxKeys::parse(&fs::read_to_string(folder.join("box-keys")).unwrap()).unwrap()
}

#[test]
fn a_process_killed_at_any_moment_leaves_no_trace_of_what_was_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("box-keys"), &*BoxKey::generate().unwrap().line()).unwrap();
    for kill in 0..12 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::keys_tests::one_that_is_killed"])
            .env("ROOMSCRIBE_TEST_KEY_DESTROYER", folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(60 + kill * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = KeyStore::open(&folder.path().join("store/keys.db"), key_file_in(folder.path())).unwrap();
        assert!(!store.is_rewrite_owed().unwrap());
        let kept = store.owners(Purpose::Audio).unwrap();
        for line in fs::read_to_string(folder.path().join("seen")).unwrap_or_default().lines() {
            let (owner, wrapped) = line.split_once(' ').unwrap();
            let is_kept = kept.iter().any(|kept| kept == owner);
            let is_there = is_a_trace_in(&folder.path().join("store"), &hex::decode(wrapped).unwrap());
            assert_eq!(is_there, is_kept, "kill {kill}, {owner}");
        }
    }
    let seen = fs::read_to_string(folder.path().join("seen")).unwrap();
    assert!(seen.lines().count() > 12, "the children came far enough to be killed in their work");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_is_made_and_destroyed_only_what_is_left_can_be_found(
        steps in proptest::collection::vec((0_u8..40, any::<bool>()), 1..80),
    ) {
        let place = Place::new();
        let store = place.open().unwrap();
        let (mut kept, mut gone) = (std::collections::BTreeMap::new(), Vec::new());
        for (number, makes) in steps {
            let owner = format!("s{number}");
            if makes {
                store.make(&owner, Purpose::Content, NOW).unwrap();
                kept.insert(owner.clone(), place.wrapped(&owner, Purpose::Content));
            } else {
                let was_there = kept.remove(&owner);
                prop_assert_eq!(store.destroy_all(&owner).unwrap(), was_there.is_some());
                gone.extend(was_there);
            }
        }
        prop_assert!(gone.iter().all(|wrapped| !is_a_trace_in(place.folder.path(), wrapped)));
        prop_assert!(kept.values().all(|wrapped| is_a_trace_in(place.folder.path(), wrapped)));
        prop_assert_eq!(store.owners(Purpose::Content).unwrap(), kept.keys().cloned().collect::<Vec<_>>());
    }
}
