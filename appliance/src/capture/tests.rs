use super::*;
use crate::audio::duration;
use crate::spool::SpoolReader;
use shared::clock::SystemClock;
use shared::keys::{BoxKey, BoxKeys};
use shared::store::KeyStore;
use std::sync::Mutex;

/// What a scripted microphone does at each read.
enum Do {
    Give(usize, i16),
    Fail(MicrophoneError),
    Wait(Duration),
    /// Never comes back, until the test is over.
    Hang,
}

struct Scripted(Arc<Mutex<std::collections::VecDeque<Do>>>);

impl MicrophoneDoor for Scripted {
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        Ok(Box::new(Scripted(self.0.clone())))
    }
}

impl Microphone for Scripted {
    fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError> {
        let next = self.0.lock().unwrap().pop_front();
        match next {
            Some(Do::Give(count, value)) => {
                let now = count.min(into.len());
                into[..now].fill(value);
                if count > now {
                    self.0.lock().unwrap().push_front(Do::Give(count - now, value));
                }
                Ok(now)
            }
            Some(Do::Fail(why)) => Err(why),
            Some(Do::Hang) => loop {
                thread::sleep(Duration::from_secs(60));
            },
            Some(Do::Wait(pause)) => {
                thread::sleep(pause);
                Ok(0)
            }
            None => {
                thread::sleep(Duration::from_millis(5));
                Ok(0)
            }
        }
    }
}

type Heard = (Vec<i16>, Vec<(std::ops::Range<u64>, GapCause)>);

fn record(script: Vec<Do>, interrupted: Option<Interruption>) -> Heard {
    record_while(script, Beginning { interrupted, is_off_record: false }, |_, script| {
        wait_for(|| script.lock().unwrap().is_empty());
    })
}

/// Records while something is done with the recording.
fn record_while(
    script: Vec<Do>,
    beginning: Beginning,
    act: impl FnOnce(&Recording, &Mutex<std::collections::VecDeque<Do>>),
) -> Heard {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let boxes = BoxKeys::only(BoxKey::generate().unwrap());
    let keys = KeyStore::open(&folder.path().join("keys.db"), boxes).unwrap();
    let spool = SpoolWriter::begin(&path, &keys, "s", &clock.now()).unwrap();
    let script = Arc::new(Mutex::new(script.into()));
    let recording = Recording::begin(Arc::new(Scripted(script.clone())), None, spool, clock, beginning);
    act(&recording, &script);
    thread::sleep(Duration::from_millis(50));
    recording.end(Ending::Final, Duration::from_secs(5)).unwrap();
    let reader = SpoolReader::open(&path, &keys, "s").unwrap();
    let gaps = reader.gaps();
    (reader.read(0..u64::MAX).unwrap(), gaps)
}

#[test]
fn everything_that_was_given_is_on_the_disk_when_it_ends() {
    let (pcm, gaps) = record((0..37).map(|n| Do::Give(997, n)).collect(), None);
    assert_eq!(pcm.len(), 37 * 997);
    assert!(pcm.iter().enumerate().all(|(at, s)| *s == (at / 997) as i16));
    assert!(gaps.is_empty());
}

#[test]
fn an_overrun_is_a_gap_as_long_as_the_clock_says() {
    let pause = Duration::from_millis(600);
    let script = vec![Do::Give(1600, 1), Do::Wait(pause), Do::Fail(MicrophoneError::Overrun), Do::Give(1600, 2)];
    let (pcm, gaps) = record(script, None);
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].0.start, gaps[0].1), (1600, GapCause::Overrun));
    let lasted = duration(gaps[0].0.end - gaps[0].0.start);
    assert!(lasted > Duration::from_millis(400) && lasted < Duration::from_millis(2_000), "{lasted:?}");
    assert_eq!((pcm[0], pcm[1600], pcm[pcm.len() - 1]), (1, 0, 2));
}

#[test]
fn a_microphone_that_goes_away_is_opened_again_and_the_time_between_is_a_gap() {
    let gone = MicrophoneError::Unavailable { device: "x".into(), problem: "y".into() };
    let (pcm, gaps) = record(vec![Do::Give(1600, 1), Do::Fail(gone), Do::Give(1600, 2)], None);
    assert_eq!(gaps[0].1, GapCause::Unplugged);
    assert!(duration(gaps[0].0.end - gaps[0].0.start) >= Duration::from_millis(800));
    assert_eq!(pcm[pcm.len() - 1], 2);
}

#[test]
fn downtime_before_the_first_sample_is_a_gap_of_its_own_cause() {
    let since = SystemClock::new().now();
    thread::sleep(Duration::from_millis(300));
    let (pcm, gaps) = record(vec![Do::Give(1600, 7)], Some(Interruption { since, cause: GapCause::Restart }));
    assert_eq!((gaps[0].0.start, gaps[0].1), (0, GapCause::Restart));
    assert_eq!(pcm.len() as u64, gaps[0].0.end + 1600);
}

/// A microphone that died and stayed dead used to leave no trace of the time after.
#[test]
fn silence_up_to_the_end_is_a_gap_too() {
    let gone = || MicrophoneError::Unavailable { device: "x".into(), problem: "y".into() };
    let (pcm, gaps) = record(vec![Do::Give(1600, 1), Do::Fail(gone()), Do::Fail(gone())], None);
    assert_eq!((gaps.len(), gaps[0].1), (1, GapCause::Unplugged));
    assert_eq!((gaps[0].0.start, gaps[0].0.end), (1600, pcm.len() as u64));
    assert!(duration(gaps[0].0.end - gaps[0].0.start) >= Duration::from_millis(1_000));
}

/// Half a minute is far more than anything takes here.
fn wait_for(what: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if what() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("waited too long");
}

#[test]
fn off_the_record_nothing_is_kept_and_the_time_is_a_gap() {
    let (pcm, gaps) = record_while(vec![Do::Give(1600, 1)], Beginning::default(), |recording, script| {
        wait_for(|| script.lock().unwrap().is_empty());
        thread::sleep(Duration::from_millis(50));
        recording.set_off_record(true);
        script.lock().unwrap().push_back(Do::Give(800, 66));
        thread::sleep(Duration::from_millis(400));
        let mut script_now = script.lock().unwrap();
        script_now.clear();
        script_now.push_back(Do::Give(1600, 2));
        drop(script_now);
        recording.set_off_record(false);
        wait_for(|| script.lock().unwrap().is_empty());
    });
    assert!(!pcm.contains(&66));
    assert_eq!((gaps.len(), gaps[0].0.start, gaps[0].1), (1, 1600, GapCause::OffRecord));
    assert!(duration(gaps[0].0.end - gaps[0].0.start) >= Duration::from_millis(350), "{gaps:?}");
    assert_eq!((pcm[0], pcm[pcm.len() - 1], pcm.iter().filter(|s| **s != 0).count()), (1, 2, 3200));
}

#[test]
fn a_recording_that_was_off_the_record_goes_on_off_the_record_after_a_restart() {
    let since = SystemClock::new().now();
    let interrupted = Some(Interruption { since, cause: GapCause::OffRecord });
    let beginning = Beginning { interrupted, is_off_record: true };
    let (pcm, gaps) = record_while(vec![Do::Give(1600, 66)], beginning, |recording, script| {
        thread::sleep(Duration::from_millis(300));
        assert!(recording.progress.is_off_record());
        assert_eq!(script.lock().unwrap().len(), 1, "the microphone is closed");
    });
    assert!(pcm.iter().all(|s| *s == 0));
    assert!(gaps.iter().all(|(_, cause)| *cause == GapCause::OffRecord), "{gaps:?}");
    assert_eq!(gaps.last().unwrap().0.end, pcm.len() as u64);
}

/// A microphone that is gone when the session goes on used to be told as time off the record.
#[test]
fn a_microphone_that_does_not_come_back_from_a_pause_is_a_gap_of_its_own() {
    let gone = || MicrophoneError::Unavailable { device: "x".into(), problem: "y".into() };
    let (_, gaps) = record_while(vec![Do::Give(1600, 1)], Beginning::default(), |recording, script| {
        wait_for(|| script.lock().unwrap().is_empty());
        thread::sleep(Duration::from_millis(50));
        recording.set_off_record(true);
        thread::sleep(Duration::from_millis(100));
        script.lock().unwrap().extend([Do::Fail(gone()), Do::Give(1600, 2)]);
        recording.set_off_record(false);
        wait_for(|| script.lock().unwrap().is_empty());
    });
    let causes: Vec<GapCause> = gaps.iter().map(|(_, cause)| *cause).collect();
    assert_eq!(causes, [GapCause::OffRecord, GapCause::Unplugged]);
}

/// Each fault that a microphone has: what was heard before and after it is kept, what it is called, and that it goes on.
#[test]
fn every_fault_is_a_gap_of_its_cause_and_the_recording_goes_on() {
    let device = || "x".to_owned();
    for (fault, cause) in [
        (MicrophoneError::Overrun, GapCause::Overrun),
        (MicrophoneError::Suspended, GapCause::Unplugged),
        (MicrophoneError::Busy { device: device() }, GapCause::Unplugged),
        (MicrophoneError::Stalled { device: device() }, GapCause::Unplugged),
        (MicrophoneError::Unavailable { device: device(), problem: "gone".into() }, GapCause::Unplugged),
    ] {
        let script =
            vec![Do::Give(1600, 1), Do::Fail(fault.clone()), Do::Wait(Duration::from_millis(100)), Do::Give(1600, 2)];
        let (pcm, gaps) = record(script, None);
        assert_eq!((gaps.len(), gaps[0].0.start, gaps[0].1), (1, 1600, cause), "{fault}");
        assert_eq!((pcm[..1600].to_vec(), pcm[pcm.len() - 1600..].to_vec()), (vec![1; 1600], vec![2; 1600]), "{fault}");
    }
}

/// A read that does not come back used to stop the recording for ever, with everybody believing that it went on.
#[test]
fn a_microphone_that_hangs_in_its_driver_is_left_behind_and_another_is_opened() {
    let script = vec![Do::Give(1600, 1), Do::Hang, Do::Give(1600, 2)];
    let (pcm, gaps) = record(script, None);
    assert_eq!((gaps.len(), gaps[0].0.start, gaps[0].1), (1, 1600, GapCause::Unplugged));
    let lasted = duration(gaps[0].0.end - gaps[0].0.start);
    assert!(lasted > Duration::from_secs(3) && lasted < Duration::from_secs(12), "{lasted:?}");
    assert_eq!(pcm[pcm.len() - 1], 2);
}

#[test]
fn a_pause_that_is_over_before_anybody_looked_is_a_gap_all_the_same() {
    let (pcm, gaps) = record_while(vec![Do::Give(1600, 1)], Beginning::default(), |recording, script| {
        wait_for(|| script.lock().unwrap().is_empty());
        thread::sleep(Duration::from_millis(50));
        recording.set_off_record(true);
        recording.set_off_record(false);
        thread::sleep(Duration::from_millis(200));
        script.lock().unwrap().push_back(Do::Give(1600, 2));
        wait_for(|| script.lock().unwrap().is_empty());
    });
    assert_eq!((gaps.len(), gaps[0].0.start, gaps[0].1), (1, 1600, GapCause::OffRecord));
    assert_eq!(pcm[pcm.len() - 1], 2);
}

#[test]
fn a_session_that_begins_asks_whoever_looks_at_the_microphone_to_let_go_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = folder.path().join("wanted");
    let busy = || Err(MicrophoneError::Busy { device: "x".into() });
    let asked = std::cell::Cell::new(0);
    let opened = wait_while_busy(busy(), &wanted, || {
        assert!(wanted.exists());
        asked.set(asked.get() + 1);
        if asked.get() == 3 { Ok(()) } else { busy() }
    });
    assert!(opened.is_ok() && !wanted.exists());
    assert!(wait_while_busy(busy(), &wanted, busy).is_err(), "it is not asked for ever");
    let gone = || Err::<(), _>(MicrophoneError::Hung);
    assert!(wait_while_busy(gone(), &wanted, || panic!("nobody holds it")).is_err());
}
