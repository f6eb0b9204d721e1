//! Destroying what was heard and said: the keys first, then the file, then the rows.
//!
//! Nothing of it can be read once the key is gone, whatever becomes of the file and of copies of it. A power cut between
//! the two leaves noise, which is removed at the next start ([`crate::keeper::remove_orphans`]) or by whoever tries
//! again: all of this can be repeated.

use std::io;
use std::path::Path;

use shared::clock::WallTime;
use shared::keys::{BoxKey, BoxKeys, Purpose};
use shared::paths::Root;
use shared::store::{KeyError, KeyStore, Store, StoreError};
use tracing::info;

use crate::context::Context;
use crate::spool::spool_file;

/// Why something is not destroyed, or not wholly; trying again goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// Its key could not be destroyed, or bytes of it may still be on the disk.
    #[error("The key could not be destroyed")]
    Key(#[source] KeyError),
    /// Its key is gone, its file is not.
    #[error("The file of destroyed audio could not be removed")]
    File(#[source] io::Error),
    /// Keys and file are gone, its rows are not: nobody can read them.
    #[error("What the database holds of it could not be removed")]
    Rows(#[source] StoreError),
}

/// Destroys the audio of a session: its key, then the spool file.
///
/// # Errors
/// [`ForgetError`].
pub fn audio(keys: &KeyStore, spool: &Path, session: &str) -> Result<(), ForgetError> {
    let destroyed = keys.destroy(session, &[Purpose::Audio]);
    match &destroyed {
        // With the rewriting owed the key is gone as well; that is tried again with the next call.
        Ok(_) | Err(KeyError::RewriteOwed(_)) => remove(spool).map_err(ForgetError::File)?,
        Err(
            KeyError::Sqlite(_)
            | KeyError::Full
            | KeyError::DamagedFile
            | KeyError::DamagedKey(_)
            | KeyError::OtherBoxKey { .. }
            | KeyError::BadOwner
            | KeyError::Folder(_)
            | KeyError::Cipher(_),
        ) => {}
    }
    destroyed.map(drop).map_err(ForgetError::Key)
}

/// Destroys everything of a session that was withdrawn or has expired: its keys, its recording, its rows.
///
/// # Errors
/// [`ForgetError`].
pub fn whole_session(context: &Context, session: &str) -> Result<(), ForgetError> {
    let erased = everything(&context.keys, &context.store, &context.spool_file(session), session, context.now().wall);
    erased.inspect(|()| info!(session_id = session, "Nothing of the session is left."))
}

fn everything(keys: &KeyStore, store: &Store, spool: &Path, session: &str, now: WallTime) -> Result<(), ForgetError> {
    let mut destroyed = keys.destroy_all(session);
    if matches!(destroyed, Err(KeyError::Full)) {
        // Its recording makes the room that destroying its keys needs. Of what was withdrawn nothing is worth keeping.
        remove(spool).map_err(ForgetError::File)?;
        destroyed = keys.destroy_all(session);
    }
    // Whatever hinders one step, the others are done.
    let removed = remove(spool);
    destroyed.map_err(ForgetError::Key)?;
    removed.map_err(ForgetError::File)?;
    store.erase(session, now).map_err(ForgetError::Rows)?;
    // What another process keeps in the log is looked for again.
    store.clean_up(now).map(drop).map_err(ForgetError::Rows)
}

/// As [`whole_session`], for a command that runs outside the service.
///
/// # Errors
/// [`ForgetError`].
pub fn whole_session_without_daemon(
    root: &Root,
    store: &Store,
    session: &str,
    now: WallTime,
) -> Result<(), ForgetError> {
    let spool = spool_file(root, session);
    if root.key_store().exists() {
        return everything(&keys_for_destroying(root)?, store, &spool, session, now);
    }
    remove(&spool).map_err(ForgetError::File)?;
    store.erase(session, now).map_err(ForgetError::Rows)
}

/// Destroying needs no box key.
fn keys_for_destroying(root: &Root) -> Result<KeyStore, ForgetError> {
    let any = BoxKey::generate().map_err(|why| ForgetError::Key(why.into()))?;
    KeyStore::open(&root.key_store(), BoxKeys::only(any)).map_err(ForgetError::Key)
}

/// Takes away what was begun of a session that is none. What cannot be is taken away at the next start of the program.
///
/// # Errors
/// [`ForgetError`].
pub fn begun(context: &Context, session: &str) -> Result<(), ForgetError> {
    audio(&context.keys, &context.spool_file(session), session)?;
    context.keys.destroy_all(session).map(drop).map_err(ForgetError::Key)
}

/// As [`audio`], for a command that runs outside the service and so has no box key: destroying needs none.
///
/// # Errors
/// [`ForgetError`].
pub fn audio_without_daemon(root: &Root, session: &str) -> Result<(), ForgetError> {
    let spool = spool_file(root, session);
    if !root.key_store().exists() {
        return remove(&spool).map_err(ForgetError::File);
    }
    audio(&keys_for_destroying(root)?, &spool, session)
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::remove_orphans;
    use crate::spool::SpoolWriter;
    use shared::clock::SystemClock;
    use shared::record::{Consent, Status, TimeQuality};
    use shared::settings::Settings;
    use shared::store::{Disk, NewSession, SpeakerHint};
    use std::sync::Arc;

    fn box_in(folder: &Path) -> Context {
        Context::open(Root::new(folder), Settings::default(), Arc::new(SystemClock::new()), None).unwrap()
    }

    /// A recording of a second.
    fn record(context: &Context, session: &str) {
        let begun = SpoolWriter::begin(&context.spool_file(session), &context.keys, session, &context.now());
        begun.unwrap().audio(&[1; 16_000], &context.now()).unwrap();
    }

    /// A session that has one.
    fn session(context: &Context, id: &str, status: Status) {
        record(context, id);
        let now = context.now().wall;
        let new = NewSession {
            id: id.into(),
            started_at: now,
            time_quality: TimeQuality::Unsynchronized,
            consent: Consent { basis: "import".into(), by: None, at: now.to_string() },
            status,
            speakers: SpeakerHint::default(),
        };
        context.store.import_session(&new, 16_000, None::<&()>, now).unwrap();
    }

    /// Whether its file and its key are there, and whether the database says that its audio is.
    fn standing(context: &Context, session: &str) -> (bool, bool, Option<bool>) {
        let key = context.keys.get(session, Purpose::Audio).unwrap();
        let row = context.store.session(session).ok();
        (context.spool_file(session).exists(), key.is_some(), row.map(|row| row.audio_kept))
    }

    #[test]
    fn audio_is_destroyed_with_its_key_and_destroying_it_again_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let context = box_in(folder.path());
        ["s", "t"].iter().for_each(|id| record(&context, id));
        for _ in 0..2 {
            audio(&context.keys, &context.spool_file("s"), "s").unwrap();
            assert_eq!(standing(&context, "s"), (false, false, None));
        }
        assert_eq!(standing(&context, "t"), (true, true, None));
    }

    #[test]
    fn where_the_key_cannot_be_destroyed_the_file_stays_and_where_the_file_cannot_go_the_key_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let context = box_in(folder.path());
        record(&context, "s");
        let (disk, any) = (Disk::default(), BoxKeys::only(BoxKey::generate().unwrap()));
        let keys = KeyStore::open_on(&context.root.key_store(), any, Some(&disk)).unwrap();
        disk.set_full(true);
        assert!(matches!(audio(&keys, &context.spool_file("s"), "s"), Err(ForgetError::Key(_))));
        assert_eq!(standing(&context, "s"), (true, true, None));
        let held = context.root.spool().join("held");
        std::fs::create_dir_all(held.join("x")).unwrap();
        assert!(matches!(audio(&context.keys, &held, "s"), Err(ForgetError::File(_))));
        assert_eq!(standing(&context, "s"), (true, false, None));
    }

    #[test]
    fn what_a_power_cut_left_of_destroyed_audio_is_removed_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let context = box_in(folder.path());
        for (id, status) in
            [("done", Status::Done), ("told", Status::Failed), ("kept", Status::Failed), ("queued", Status::Queued)]
        {
            session(&context, id, status);
        }
        record(&context, "nobody");
        context.keys.make("nobody-2", Purpose::Audio, context.now().wall).unwrap();
        for id in ["done", "told", "queued"] {
            context.keys.destroy(id, &[Purpose::Audio]).unwrap();
        }
        context.store.audio_destroyed("told", context.now().wall).unwrap();
        drop(context);
        let context = box_in(folder.path());
        remove_orphans(&context);
        assert_eq!(standing(&context, "done"), (false, false, Some(false)));
        assert_eq!(standing(&context, "told"), (false, false, Some(false)));
        assert_eq!(standing(&context, "kept"), (true, true, Some(true)));
        assert_eq!(standing(&context, "queued"), (true, false, Some(true)), "it is still to be told what it lost");
        assert_eq!(standing(&context, "nobody"), (false, false, None));
        assert_eq!(standing(&context, "nobody-2"), (false, false, None));
    }

    #[test]
    fn where_the_key_store_is_lost_recordings_wait_for_it_to_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let context = box_in(folder.path());
        session(&context, "failed", Status::Failed);
        for key in context.keys.held().unwrap() {
            context.keys.destroy_all(&key.owner).unwrap();
        }
        remove_orphans(&context);
        assert_eq!(standing(&context, "failed"), (true, false, Some(true)));
    }

    #[test]
    fn a_command_without_the_box_key_destroys_as_well_and_makes_no_key_store() {
        let folder = tempfile::tempdir().unwrap();
        let context = box_in(folder.path());
        record(&context, "s");
        std::fs::remove_file(context.root.development_box_keys()).unwrap();
        audio_without_daemon(&context.root, "s").unwrap();
        assert_eq!(standing(&context, "s"), (false, false, None));
        let bare = Root::new(folder.path().join("other"));
        std::fs::create_dir_all(bare.spool()).unwrap();
        std::fs::write(spool_file(&bare, "s"), b"RSSP").unwrap();
        audio_without_daemon(&bare, "s").unwrap();
        assert!(!spool_file(&bare, "s").exists() && !bare.key_store().exists());
    }
}
