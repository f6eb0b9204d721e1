use super::*;
use shared::clock::SystemClock;
use shared::paths::Root;
use shared::settings::Settings;

struct Quiet;

impl MicrophoneDoor for Quiet {
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        Ok(Box::new(Quiet))
    }
}

impl Microphone for Quiet {
    fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError> {
        std::thread::sleep(Duration::from_millis(10));
        into.fill(0);
        Ok(into.len())
    }
}

fn box_in(folder: &std::path::Path) -> (Arc<Context>, Sessions) {
    let opened = Context::open(Root::new(folder), Settings::default(), Arc::new(SystemClock::new()), None);
    let context = Arc::new(opened.unwrap());
    (context.clone(), Sessions::new(context, Arc::new(Quiet)))
}

/// What settles sessions runs until the very end of the daemon: it used to end the one that was to be gone on with.
#[test]
fn a_suspended_session_is_not_settled_and_the_next_start_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (context, sessions) = box_in(folder.path());
    let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    sessions.suspend();
    sessions.settle().unwrap();
    assert_eq!(context.store.session(&id).unwrap().status, Status::Recording);
    assert!(matches!(sessions.start(Some("verbal".into()), None, SpeakerHint::default()), Err(SessionError::Busy)));
    drop((context, sessions));
    let (context, sessions) = box_in(folder.path());
    sessions.take_up().unwrap();
    assert_eq!(sessions.recording().unwrap().0, id);
    sessions.settle().unwrap();
    assert_eq!(sessions.stop(None).unwrap(), id);
    assert_eq!(context.store.session(&id).unwrap().status, Status::Queued);
}

#[test]
fn a_session_whose_end_could_not_be_stored_is_ended_soon_after() {
    let folder = tempfile::tempdir().unwrap();
    let (context, sessions) = box_in(folder.path());
    let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
    *sessions.slot() = Slot::Idle;
    sessions.settle().unwrap();
    assert_eq!(context.store.session(&id).unwrap().status, Status::Queued);
}

fn recording_in(folder: &std::path::Path) -> (Arc<Context>, Sessions, String) {
    let (context, sessions) = box_in(folder);
    let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
    (context, sessions, id)
}

#[test]
fn a_paused_session_is_still_off_the_record_after_a_restart_and_can_be_ended_so() {
    let folder = tempfile::tempdir().unwrap();
    let (context, sessions, id) = recording_in(folder.path());
    assert!(matches!(sessions.pause(Some("another"), None), Err(SessionError::NotRecording)));
    for _ in 0..2 {
        assert_eq!(sessions.pause(None, Some("client")).unwrap(), id);
    }
    assert_eq!(context.store.session(&id).unwrap().status, Status::Paused);
    drop((context, sessions));
    let (context, sessions) = box_in(folder.path());
    sessions.take_up().unwrap();
    assert!(sessions.recording().unwrap().1.is_off_record());
    sessions.settle().unwrap();
    assert_eq!(context.store.session(&id).unwrap().status, Status::Paused);
    assert_eq!(sessions.resume(Some(&id), None).unwrap(), id);
    assert_eq!(context.store.session(&id).unwrap().status, Status::Recording);
    sessions.pause(None, None).unwrap();
    sessions.stop(None).unwrap();
    assert_eq!(context.store.session(&id).unwrap().status, Status::Queued);
    assert!(matches!(sessions.resume(None, None), Err(SessionError::NotRecording)));
    let rows = context.store.audit_log(None, 99).unwrap().rows;
    let paused: Vec<_> = rows.iter().filter(|row| row.action == "session_paused").map(|row| &row.actor[..]).collect();
    assert_eq!(paused, ["client", "local"]);
}

/// Whether recording, keys and rows of a session are there.
fn left(context: &Context, id: &str) -> (bool, usize, bool) {
    let keys = context.keys.held().unwrap().into_iter().filter(|key| key.owner == id).count();
    (context.spool_file(id).exists(), keys, context.store.record(id).unwrap().is_some())
}

#[test]
fn a_session_that_is_withdrawn_while_it_lasts_ends_and_nothing_of_it_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (context, sessions, id) = recording_in(folder.path());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(left(&context, &id), (true, 2, false));
    sessions.withdraw(None, Some("client")).unwrap();
    assert!(sessions.recording().is_none());
    assert_eq!(left(&context, &id), (false, 0, false));
    assert_eq!(context.store.session(&id).unwrap().status, Status::Withdrawn);
    assert!(context.store.session(&id).unwrap().samples > 0, "how long it was is known");
    assert_eq!(sessions.withdraw(Some(&id), None).unwrap(), id, "again is no error");
    assert!(matches!(sessions.withdraw(None, None), Err(SessionError::NotRecording)));
    sessions.settle().unwrap();
    assert!(sessions.start(Some("verbal".into()), None, SpeakerHint::default()).is_ok(), "the room is free");
    assert_eq!(context.store.session(&id).unwrap().status, Status::Withdrawn);
}

/// A power cut between storing a withdrawal and carrying it out.
#[test]
fn what_was_withdrawn_and_not_destroyed_is_not_taken_up_and_is_destroyed_by_whoever_looks_next() {
    let folder = tempfile::tempdir().unwrap();
    let (context, sessions, id) = recording_in(folder.path());
    context.store.withdraw(&id, false, context.now().wall).unwrap();
    sessions.suspend();
    drop((context, sessions));
    let (context, sessions) = box_in(folder.path());
    sessions.take_up().unwrap();
    assert!(sessions.recording().is_none());
    assert_eq!(left(&context, &id), (true, 2, false));
    crate::keeper::destroy_what_may_go(&context).unwrap();
    assert_eq!(left(&context, &id), (false, 0, false));
}

#[test]
fn a_key_of_a_withdrawn_session_that_comes_back_with_an_older_key_store_is_destroyed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (context, sessions, id) = recording_in(folder.path());
    let before = std::fs::read(context.root.key_store()).unwrap();
    sessions.withdraw(None, None).unwrap();
    let file = context.root.key_store();
    drop((context, sessions));
    std::fs::write(file, before).unwrap();
    let (context, _sessions) = box_in(folder.path());
    assert_eq!(left(&context, &id).1, 2);
    crate::keeper::destroy_orphan_keys(&context);
    assert_eq!(left(&context, &id).1, 0);
}

#[test]
fn a_session_that_is_off_the_record_or_lasts_too_long_is_ended() {
    for (pause, most) in [(0.0, 24.0), (1440.0, 0.0)] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        (settings.session.pause_at_most, settings.session.at_most) = (pause, most);
        let opened = Context::open(Root::new(folder.path()), settings, Arc::new(SystemClock::new()), None);
        let context = Arc::new(opened.unwrap());
        let sessions = Sessions::new(context.clone(), Arc::new(Quiet));
        let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
        if pause == 0.0 {
            sessions.pause(None, None).unwrap();
        }
        while context.store.session(&id).unwrap().status != Status::Queued {
            std::thread::sleep(Duration::from_millis(100));
            sessions.settle().unwrap();
        }
        assert!(sessions.recording().is_none());
        let last = context.store.audit_log(None, 99).unwrap().rows.pop().unwrap();
        assert_eq!((last.actor.as_str(), last.action.as_str()), ("box", "session_ended"));
    }
}
