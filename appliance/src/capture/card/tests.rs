use std::sync::{Arc, Mutex};

use super::*;
use crate::capture::convert::Encoding;

/// What a scripted device does when it is asked to read, or to wait.
enum Do {
    /// Gives so many frames of this value.
    Give(usize, i16),
    /// Says this when it is read from.
    Fail(Errno),
    /// Has nothing, and says so when it is read from and after a wait.
    Nothing,
    /// Has nothing, and lets whoever waits believe that it has.
    Pretend,
}

/// A device that writes down what is done to it.
struct Scripted {
    shape: Shape,
    script: VecDeque<Do>,
    resumes: VecDeque<Errno>,
    starts: VecDeque<Errno>,
    done: Arc<Mutex<Vec<&'static str>>>,
}

impl Scripted {
    fn note(&self, what: &'static str) {
        self.done.lock().unwrap().push(what);
    }
}

impl Pcm for Scripted {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, Errno> {
        match self.script.pop_front() {
            Some(Do::Give(frames, value)) => {
                let now = frames.min(into.len() / self.shape.frame_bytes());
                if frames > now {
                    self.script.push_front(Do::Give(frames - now, value));
                }
                let sample = value.to_le_bytes().repeat(self.shape.channels);
                into.chunks_exact_mut(sample.len()).take(now).for_each(|frame| frame.copy_from_slice(&sample));
                Ok(now)
            }
            Some(Do::Fail(errno)) => Err(errno),
            Some(nothing @ (Do::Nothing | Do::Pretend)) => {
                self.script.push_front(nothing);
                Err(Errno::AGAIN)
            }
            None => Err(Errno::NODEV),
        }
    }

    fn wait(&mut self, patience: Duration) -> Result<bool, Errno> {
        match self.script.front() {
            Some(Do::Nothing) => {
                assert_eq!(patience, WAIT);
                Ok(false)
            }
            Some(Do::Give(..) | Do::Fail(_) | Do::Pretend) | None => Ok(true),
        }
    }

    fn prepare(&mut self) -> Result<(), Errno> {
        self.note("prepare");
        Ok(())
    }

    fn start(&mut self) -> Result<(), Errno> {
        self.note("start");
        self.starts.pop_front().map_or(Ok(()), Err)
    }

    fn resume(&mut self) -> Result<(), Errno> {
        self.note("resume");
        self.resumes.pop_front().map_or(Ok(()), Err)
    }
}

struct Outcome {
    pcm: Vec<i16>,
    /// What was told, and after how many samples.
    told: Vec<(usize, MicrophoneError)>,
    done: Vec<&'static str>,
}

fn play_on(shape: Shape, script: Vec<Do>, resumes: Vec<Errno>) -> Outcome {
    let done = Arc::new(Mutex::new(Vec::new()));
    let (script, resumes) = (script.into(), resumes.into());
    let pcm = Scripted { shape, script, resumes, starts: VecDeque::new(), done: done.clone() };
    let mut card = Card::new("mic", pcm).unwrap();
    let (mut pcm, mut told, mut block) = (Vec::new(), Vec::new(), [0; 160]);
    loop {
        match card.read(&mut block) {
            Ok(count) => pcm.extend_from_slice(&block[..count]),
            Err(why) => {
                let goes_on = why.goes_on();
                told.push((pcm.len(), why));
                if !goes_on {
                    break;
                }
            }
        }
    }
    let done = done.lock().unwrap().clone();
    Outcome { pcm, told, done }
}

const OURS: Shape = Shape { encoding: Encoding::S16, channels: 1, rate_hz: 16_000 };

fn play(script: Vec<Do>) -> Outcome {
    play_on(OURS, script, Vec::new())
}

fn gone() -> MicrophoneError {
    MicrophoneError::Unavailable { device: "mic".into(), problem: "it is not there".into() }
}

fn stalled() -> MicrophoneError {
    MicrophoneError::Stalled { device: "mic".into() }
}

#[test]
fn short_reads_and_waits_in_between_cost_nothing() {
    let script =
        vec![Do::Give(1, 1), Do::Give(159, 2), Do::Fail(Errno::AGAIN), Do::Fail(Errno::INTR), Do::Give(500, 3)];
    let outcome = play(script);
    assert_eq!(outcome.pcm, [vec![1], vec![2; 159], vec![3; 500]].concat());
    assert_eq!((outcome.told, outcome.done), (vec![(660, gone())], vec!["start"]));
}

#[test]
fn an_overrun_is_told_after_what_was_heard_before_and_the_same_handle_goes_on() {
    let outcome = play(vec![Do::Give(100, 1), Do::Fail(Errno::PIPE), Do::Give(100, 2)]);
    assert_eq!(outcome.told, [(100, MicrophoneError::Overrun), (200, gone())]);
    assert_eq!(outcome.done, ["start", "prepare", "start"]);
}

#[test]
fn a_suspended_device_is_resumed_once_it_is_awake_and_not_started() {
    let script = vec![Do::Give(100, 1), Do::Fail(Errno::STRPIPE), Do::Give(100, 2)];
    let outcome = play_on(OURS, script, vec![Errno::AGAIN, Errno::AGAIN]);
    assert_eq!(outcome.told, [(100, MicrophoneError::Suspended), (200, gone())]);
    assert_eq!(outcome.done, ["start", "resume", "resume", "resume"]);
}

#[test]
fn a_suspended_device_that_cannot_resume_or_does_not_wake_is_prepared_and_started() {
    let script = || vec![Do::Fail(Errno::STRPIPE), Do::Give(100, 2)];
    let outcome = play_on(OURS, script(), vec![Errno::NOSYS]);
    assert_eq!(outcome.done, ["start", "resume", "prepare", "start"]);
    let outcome = play_on(OURS, script(), vec![Errno::AGAIN; 100]);
    assert_eq!(outcome.done[1..11], ["resume"; 10]);
    assert_eq!((&outcome.done[11..], outcome.pcm.len()), (&["prepare", "start"][..], 100));
}

#[test]
fn a_device_that_is_gone_or_in_the_wrong_state_is_given_up_at_once() {
    for errno in [Errno::NODEV, Errno::BADFD, Errno::IO] {
        let outcome = play(vec![Do::Give(100, 1), Do::Fail(errno), Do::Give(100, 2)]);
        assert_eq!(outcome.told, [(100, MicrophoneError::lost("mic", errno))]);
        assert_eq!(outcome.done, ["start"], "nothing is tried on a handle that is no use");
    }
}

#[test]
fn a_device_that_gives_nothing_has_stalled_whether_or_not_it_pretends() {
    for nothing in [Do::Nothing, Do::Pretend] {
        let outcome = play(vec![Do::Give(100, 1), nothing]);
        assert_eq!(outcome.told, [(100, stalled())]);
    }
}

/// A capture left prepared looks alive and hears nothing.
#[test]
fn a_device_that_runs_over_without_a_sample_in_between_is_opened_again_in_the_end() {
    let script = (0..100).map(|_| Do::Fail(Errno::PIPE)).collect();
    let outcome = play(script);
    assert_eq!(outcome.told.len(), 6);
    assert!(matches!(outcome.told[5].1, MicrophoneError::Unavailable { .. }), "{:?}", outcome.told);
    let script = (0..20).flat_map(|_| [Do::Fail(Errno::PIPE), Do::Give(10, 1)]).collect();
    assert_eq!(play(script).told.len(), 21, "one that gives samples in between is not");
}

#[test]
fn a_device_that_does_not_start_says_why_and_starts_only_when_it_is_read() {
    let done = Arc::new(Mutex::new(Vec::new()));
    let (script, starts) = (VecDeque::new(), VecDeque::from([Errno::BUSY]));
    let scripted = Scripted { shape: OURS, script, resumes: VecDeque::new(), starts, done: done.clone() };
    let mut card = Card::new("mic", scripted).unwrap();
    assert!(done.lock().unwrap().is_empty());
    assert_eq!(card.read(&mut [0; 160]), Err(MicrophoneError::Busy { device: "mic".into() }));
}

/// What the filter holds when the device goes belongs in front of the gap.
#[test]
fn of_a_device_that_is_converted_nothing_is_missing_before_a_gap() {
    let shape = Shape { encoding: Encoding::S16, channels: 2, rate_hz: 48_000 };
    let outcome = play_on(shape, vec![Do::Give(48_000, 900), Do::Fail(Errno::PIPE), Do::Give(4_801, 700)], Vec::new());
    assert_eq!(outcome.told, [(16_000, MicrophoneError::Overrun), (17_600, gone())]);
    assert!(outcome.pcm[200..15_800].iter().all(|s| s.abs_diff(900) <= 1));
    assert!(outcome.pcm[16_200..17_400].iter().all(|s| s.abs_diff(700) <= 1));
}
