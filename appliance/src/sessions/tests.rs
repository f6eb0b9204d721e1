use super::*;
use shared::clock::{Clock, ScriptedClock, SystemClock};
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

fn box_with(folder: &std::path::Path, clock: &Arc<ScriptedClock>) -> (Arc<Context>, Sessions) {
    let opened = Context::open(Root::new(folder), Settings::default(), clock.clone(), None);
    let context = Arc::new(opened.unwrap());
    (context.clone(), Sessions::new(context, Arc::new(Quiet)))
}

/// A board without a battery: it is 1970 until a time server answers, in the middle of the session.
#[test]
fn a_session_that_began_without_a_clock_is_dated_from_its_end_and_loses_no_sample() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ScriptedClock::new());
    let right = clock.now().wall;
    clock.set_wall(WallTime(40_000));
    let (context, sessions) = box_with(folder.path(), &clock);
    let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    clock.set_wall(right);
    std::fs::create_dir_all(context.root.time_synchronized().parent().unwrap()).unwrap();
    std::fs::write(context.root.time_synchronized(), "").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    sessions.stop(None).unwrap();
    let row = context.store.session(&id).unwrap();
    let spool = SpoolReader::open(&context.spool_file(&id), &context.keys, &id).unwrap();
    assert_eq!((spool.gaps(), spool.samples()), (vec![], row.samples), "a step of the clock is no gap");
    let lasted = crate::audio::duration(row.samples).as_millis() as i64;
    assert_eq!((row.time_quality, row.started_at.0), (TimeQuality::Synchronized, right.0 - lasted));
}

#[test]
fn a_clock_that_is_set_while_a_session_lasts_changes_neither_its_length_nor_its_gaps() {
    for step in [-86_400_000, -3_600_000, 3_600_000, 86_400_000_i64] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ScriptedClock::new());
        let (context, sessions) = box_with(folder.path(), &clock);
        let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        clock.set_wall(WallTime(clock.now().wall.0 + step));
        // A restart of the program counts its downtime in uptime, whatever the wall clock says.
        sessions.suspend();
        drop((context, sessions));
        clock.pass(Duration::from_secs(7));
        let (context, sessions) = box_with(folder.path(), &clock);
        sessions.take_up().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        sessions.stop(None).unwrap();
        let spool = SpoolReader::open(&context.spool_file(&id), &context.keys, &id).unwrap();
        let gaps = spool.gaps();
        let seconds = crate::audio::seconds(gaps[0].0.end - gaps[0].0.start);
        assert_eq!((gaps.len(), gaps[0].1), (1, GapCause::Restart), "step {step}: {gaps:?}");
        assert!((6.5..7.5).contains(&seconds), "step {step}: {seconds} s");
    }
}

/// It used to go on with the session, whoever was in the room by then.
#[test]
fn after_a_reboot_with_a_clock_that_went_back_a_session_is_not_gone_on_with() {
    for (wall, goes_on) in [(20_000, true), (-1, false), (3_600_000, false)] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ScriptedClock::new());
        let (context, sessions) = box_with(folder.path(), &clock);
        let id = sessions.start(Some("verbal".into()), None, SpeakerHint::default()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        sessions.suspend();
        drop((context, sessions));
        clock.set_wall(WallTime(clock.now().wall.0 + wall));
        clock.reboot("b");
        let (context, sessions) = box_with(folder.path(), &clock);
        sessions.take_up().unwrap();
        assert_eq!(sessions.recording().is_some(), goes_on, "the wall clock moved {wall} ms");
        let status = context.store.session(&id).unwrap().status;
        assert_eq!(status, if goes_on { Status::Recording } else { Status::Queued });
    }
}
