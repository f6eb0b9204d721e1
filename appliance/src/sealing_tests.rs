//! A session whose key is gone stops nobody, and audio loses its key before its file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::clock::{Clock as _, SystemClock};
use shared::error::{EngineFault, TaskFailure, TranscriptionError};
use shared::keys::{BoxKeys, Purpose};
use shared::paths::Root;
use shared::record::{Consent, Status, TimeQuality};
use shared::settings::Settings;
use shared::store::{Disk, KeyStore, NewSession, Row, RowState, SealedVoice, SpeakerHint, Store, WindowRow};
use shared::task::Task;
use tokio::task::LocalSet;

use crate::conclude::conclude_all;
use crate::context::{Aside, Context, Doors, StartError};
use crate::engine::{Heard, Transcriber};
use crate::worker::{Transcribed, transcription_lane};

const PATIENCE: Duration = Duration::from_secs(30);

struct Idle;

impl Transcriber for Idle {
    fn rungs(&self) -> u32 {
        1
    }

    async fn transcribe(&mut self, _: &[i16], _: u32) -> Result<Heard, EngineFault> {
        panic!("an engine works for what cannot be kept")
    }
}

fn box_in(folder: &Path, disk: &Disk) -> Arc<Context> {
    let clock = Arc::new(SystemClock::new());
    let opened = Context::open_with(Root::new(folder), Settings::default(), |root| {
        let boxes = BoxKeys::find(root, None).map_err(StartError::BoxKey)?;
        let keys = KeyStore::open_on(&root.key_store(), boxes.keys, Some(disk));
        let keys = Arc::new(keys.map_err(StartError::Keys)?);
        let store = Arc::new(Store::open_on(&root.database(), Some(disk))?.sealing_with(keys.clone()));
        Ok(Doors { clock, store, keys, vitals: None, aside: Aside::Threads })
    });
    Arc::new(opened.unwrap())
}

/// An ended session of one window without sound, transcribed or not.
fn session(context: &Context, id: &str, is_transcribed: bool) {
    let (store, now) = (&context.store, SystemClock::new().now().wall);
    let consent = Consent { basis: "verbal".into(), by: None, at: now.to_string() };
    let new = NewSession {
        id: id.into(),
        started_at: now,
        time_quality: TimeQuality::Synchronized,
        consent,
        status: Status::Recording,
        speakers: SpeakerHint::default(),
    };
    store.begin_session(&new, now).unwrap();
    let window = WindowRow { number: 0, start_sample: 0, end_sample: 16_000, blind_cut: false };
    store.add_window(id, &window, &[Task::Transcription], 16_000).unwrap();
    if is_transcribed {
        let claim = store.claim(Task::Transcription).unwrap().unwrap();
        let heard = Transcribed { model: "m".into(), phrases: Vec::new(), levels: Vec::new() };
        store.complete(claim.id, 1, &heard, &[]).unwrap();
    }
    store.end_session(id, 16_000, now, now).unwrap();
}

async fn until_concluded(context: &Context, ids: &[&str]) -> Vec<Status> {
    let all = async {
        loop {
            let states: Vec<Status> = ids.iter().map(|id| context.store.session(id).unwrap().status).collect();
            if states.iter().all(|status| matches!(status, Status::Done | Status::Failed)) {
                return states;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("they are concluded")
}

#[tokio::test]
async fn a_session_whose_key_is_gone_is_given_up_and_keeps_no_other_back() {
    let folder = tempfile::tempdir().unwrap();
    let context = box_in(folder.path(), &Disk::default());
    for (id, is_transcribed) in [("lost", true), ("sound", true), ("lost-before", false)] {
        session(&context, id, is_transcribed);
    }
    for lost in ["lost", "lost-before"] {
        context.keys.destroy(lost, &[Purpose::Content]).unwrap();
    }
    LocalSet::new()
        .run_until(async {
            tokio::task::spawn_local(transcription_lane(context.clone(), Idle));
            tokio::task::spawn_local(conclude_all(context.clone()));
            let states = until_concluded(&context, &["lost", "lost-before", "sound"]).await;
            assert_eq!(states, [Status::Failed, Status::Failed, Status::Done]);
        })
        .await;
    let lost = context.store.session("lost").unwrap();
    assert_eq!(lost.error_message.unwrap(), "What was stored of the session cannot be opened");
    let rows = context.store.rows::<Transcribed, TaskFailure<TranscriptionError>>("lost-before", Task::Transcription);
    let rows: Vec<Row<_, _>> = rows.collect::<Result<_, _>>().unwrap();
    assert_eq!(rows[0].state, RowState::Failed);
    assert_eq!(rows[0].cause.as_ref().unwrap().last_exception, TranscriptionError::Damaged);
    assert!(context.keys.get("lost", Purpose::Content).unwrap().is_none(), "it is not made again");
}

/// A box whose credential holds these lines.
fn box_with(folder: &Path, lines: &[&str]) -> Result<Context, StartError> {
    let credentials = folder.join("credentials");
    std::fs::create_dir_all(&credentials).unwrap();
    std::fs::write(credentials.join("box-keys"), lines.join("\n")).unwrap();
    let clock = Arc::new(SystemClock::new());
    Context::open(Root::new(folder.join("box")), Settings::default(), clock, Some(&credentials))
}

#[test]
fn a_new_box_key_wraps_everything_the_old_one_can_go_and_the_audit_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = [(); 2].map(|()| shared::keys::BoxKey::generate().unwrap().line());
    let rotated = |context: &Context| {
        let log = context.store.audit_log(None, 100).unwrap();
        log.rows.iter().filter(|row| row.action == "keys_rotated").count()
    };
    let context = box_with(folder.path(), &[&old]).unwrap();
    session(&context, "a", true);
    assert_eq!(rotated(&context), 0);
    drop(context);
    let context = box_with(folder.path(), &[&new, &old]).unwrap();
    assert_eq!(rotated(&context), 1);
    drop(context);
    let context = box_with(folder.path(), &[&new]).unwrap();
    assert!(context.keys.get("a", Purpose::Content).unwrap().is_some());
    assert_eq!(rotated(&context), 1, "there was nothing to wrap anew");
}

#[test]
fn why_there_is_no_box_key_is_said_once_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let why = box_with(folder.path(), &["no key"]).err().unwrap();
    let said = shared::error::report(&why);
    assert_eq!(said.matches("The box key file is malformed").count(), 1, "{said}");
    assert!(said.contains("Put the box key back"), "{said}");
}

#[test]
fn keys_of_no_session_are_destroyed_and_those_of_one_stay() {
    let folder = tempfile::tempdir().unwrap();
    let context = box_in(folder.path(), &Disk::default());
    session(&context, "a", true);
    for purpose in [Purpose::Content, Purpose::Voice] {
        context.keys.make("orphan", purpose, context.now().wall).unwrap();
    }
    crate::keeper::destroy_orphan_keys(&context);
    let held: Vec<_> = context.keys.held().unwrap().into_iter().map(|key| (key.owner, key.purpose)).collect();
    assert_eq!(held, [("a".to_owned(), Purpose::Content)]);
}

#[test]
fn a_database_that_knows_none_of_the_sessions_destroys_nothing_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let context = box_in(folder.path(), &Disk::default());
    let ids = ["a", "b", "c", "d", "e"];
    for id in ids {
        session(&context, id, true);
        context.keys.make(id, Purpose::Audio, context.now().wall).unwrap();
        std::fs::write(context.spool_file(id), "RSSP").unwrap();
    }
    let database = context.root.database();
    drop(context);
    std::fs::remove_file(database).unwrap();
    let context = box_in(folder.path(), &Disk::default());
    crate::keeper::remove_orphans(&context);
    crate::keeper::destroy_orphan_keys(&context);
    for id in ids {
        assert!(context.spool_file(id).exists());
        assert!(Purpose::ALL[..2].iter().all(|purpose| context.keys.get(id, *purpose).unwrap().is_some()));
    }
}

#[test]
fn a_voice_whose_destruction_was_cut_short_is_gone_at_the_next_start_and_one_that_is_whole_stays() {
    let folder = tempfile::tempdir().unwrap();
    let context = box_in(folder.path(), &Disk::default());
    let (store, keys, now) = (&context.store, &context.keys, context.now().wall);
    for id in ["whole", "half"] {
        let print = keys.make(id, Purpose::Voice, now).unwrap().seal("print", b"{}").unwrap();
        store.add_voice(&SealedVoice { id: id.into(), made_at: now, print }, now.into()).unwrap();
    }
    keys.destroy("half", &[Purpose::Voice]).unwrap();
    keys.make("never-kept", Purpose::Voice, now).unwrap();
    crate::keeper::destroy_orphan_keys(&context);
    let left: Vec<String> = store.voices().unwrap().into_iter().map(|voice| voice.id).collect();
    assert_eq!((left, keys.owners(Purpose::Voice).unwrap()), (vec!["whole".to_owned()], vec!["whole".to_owned()]));
    let log = store.audit_log(None, 100).unwrap();
    assert_eq!(log.rows.last().unwrap().action, "voice_destroyed");
    keys.destroy("whole", &[Purpose::Voice]).unwrap();
    for id in ["x", "y"] {
        store.add_voice(&SealedVoice { id: id.into(), made_at: now, print: vec![] }, now.into()).unwrap();
    }
    crate::keeper::destroy_orphan_keys(&context);
    assert_eq!(store.voices().unwrap().len(), 3, "where no key is left it is the key store that is lost");
}
