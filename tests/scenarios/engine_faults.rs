//! Both real engines, killed, stopped and starved while they work: each death has its name, and the next request gets
//! from a fresh process what it would have got before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use appliance::engine::child::{EngineChild, Spec};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use shared::error::EngineFault;
use tests::engine::{Answer, Question, Work, at_work, is_dead, process_of, send};
use tests::{PATIENCE, TestBox, now, stat};

/// Seconds of audio about which an engine is at work for longer than any of this takes.
const LONG: usize = 1200;
/// Seconds of audio of which the answers are compared.
const SHORT: usize = 6;

/// An engine that has answered once, and does so again after every fault.
struct Subject {
    child: EngineChild,
    spec: Spec,
    pid: Pid,
    short: Question,
    long: Question,
    answer: Answer,
}

impl Subject {
    async fn new(room: &TestBox, work: Work) -> Self {
        let spec = work.spec(room).await;
        let (short, long) = (Question::about(room, work, SHORT), Question::about(room, work, LONG));
        let mut child = EngineChild::new(spec.clone());
        let answer = short.ask(&mut child, PATIENCE).await.unwrap();
        Self { pid: process_of(&child), child, spec, short, long, answer }
    }

    /// What becomes of a long request while `meanwhile` happens to its process.
    async fn fault(&mut self, deadline: Duration, meanwhile: impl AsyncFnOnce(Pid)) -> EngineFault {
        let asked = self.long.ask(&mut self.child, deadline);
        let (answer, ()) = tokio::join!(asked, meanwhile(self.pid));
        answer.err().expect("the engine was not left alone")
    }

    async fn assert_answers(&mut self) {
        let again = self.short.ask(&mut self.child, PATIENCE).await.unwrap();
        assert!(again == self.answer, "the answer is the first one");
    }

    async fn assert_recovers(&mut self) {
        assert_eq!(stat(self.pid), None, "the process is gone and waited for");
        self.assert_answers().await;
        let before = std::mem::replace(&mut self.pid, process_of(&self.child));
        assert_ne!(self.pid, before, "by another process");
    }
}

/// Runs a scenario with each kind of work, on a runtime like the box's.
fn for_each_work(scenario: impl AsyncFn(Subject)) {
    let room = TestBox::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for work in Work::ALL {
        eprintln!("{work:?}");
        runtime.block_on(async { scenario(Subject::new(&room, work).await).await });
    }
}

const BUSY: Duration = Duration::from_millis(100);

#[test]
fn an_engine_killed_at_work_is_a_crash_with_its_signal() {
    for_each_work(async |mut subject| {
        for signal in [Signal::KILL, Signal::SEGV, Signal::ABORT] {
            let meanwhile = async |pid| {
                at_work(pid, BUSY).await;
                send(pid, signal, is_dead).await;
            };
            let fault = subject.fault(PATIENCE, meanwhile).await;
            assert_eq!(fault, EngineFault::ChildCrashed { signal: signal.as_raw() });
            subject.assert_recovers().await;
        }
    });
}

#[test]
fn a_stopped_engine_is_gone_at_its_deadline() {
    const DEADLINE: Duration = Duration::from_millis(2_500);
    for_each_work(async |mut subject| {
        let begun = now();
        let meanwhile = async |pid| {
            send(pid, Signal::STOP, |state| state == Some('T')).await;
            assert!(now() - begun < DEADLINE, "it was stopped before its deadline");
        };
        let fault = subject.fault(DEADLINE, meanwhile).await;
        assert_eq!(fault, EngineFault::DeadlineExceeded { limit_ms: 2_500 });
        assert!((DEADLINE..DEADLINE * 4).contains(&(now() - begun)));
        subject.assert_recovers().await;
    });
}

#[test]
fn an_engine_dropped_at_work_is_gone() {
    for_each_work(async |mut subject| {
        let asked = subject.long.ask(&mut subject.child, PATIENCE);
        tokio::select! {
            _ = asked => panic!("the request was dropped"),
            () = at_work(subject.pid, BUSY) => {}
        }
        assert_eq!(subject.child.pid(), None);
        // The next request waits for the process that holds the memory it needs.
        let again = subject.short.ask(&mut subject.child, PATIENCE).await.unwrap();
        assert!(again == subject.answer && stat(subject.pid).is_none());
    });
}

#[test]
fn an_engine_killed_between_two_requests_is_replaced_and_nobody_notices() {
    for_each_work(async |mut subject| {
        send(subject.pid, Signal::KILL, |state| state.is_none()).await;
        // The thread that waited for it tells the child a moment later.
        tokio::time::sleep(Duration::from_millis(200)).await;
        subject.assert_recovers().await;
    });
}

#[test]
fn an_engine_over_its_memory_limit_is_out_of_memory() {
    const MIB: u64 = 1 << 20;
    for_each_work(async |mut subject| {
        let most = tests::engine::most_resident_bytes(subject.pid);
        // While it loads, and while it works on a request.
        for limit_bytes in [8 * MIB, most + 24 * MIB] {
            subject.child.configure(Spec { memory_bytes: limit_bytes, ..subject.spec.clone() });
            let fault = subject.fault(PATIENCE, async |_| {}).await;
            assert_eq!(fault, EngineFault::OutOfMemory { limit_bytes });
            subject.child.configure(subject.spec.clone());
            subject.assert_recovers().await;
        }
    });
}

#[test]
fn an_engine_that_reports_an_error_is_replaced() {
    let room = TestBox::new();
    for_each_work(async |mut subject| {
        let arguments = &subject.spec.arguments;
        let other = if arguments.contains(&"transcriber".into()) { Work::Speech } else { Work::Transcribe };
        let answer = Question::about(&room, other, 1).ask(&mut subject.child, PATIENCE).await;
        assert!(matches!(answer, Err(EngineFault::Reported { .. })));
        assert_eq!(subject.child.pid(), None);
        subject.assert_answers().await;
    });
}

fn of_process(pid: Pid, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{file}", pid.as_raw_nonzero()))
}

#[test]
fn the_kernel_holds_an_engine_to_its_memory_when_nobody_looks_and_keeps_no_dump_of_what_was_said() {
    for_each_work(async |mut subject| {
        let limits = std::fs::read_to_string(of_process(subject.pid, "limits")).unwrap();
        let is_limited = |name, to: u64| {
            let line = limits.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            line.split_ascii_whitespace().take(2).all(|limit| limit == to.to_string())
        };
        assert!(is_limited("Max data size", subject.spec.memory_bytes + (1 << 30)), "{limits}");
        assert!(is_limited("Max core file size", 0), "{limits}");
        subject.assert_answers().await;
    });
}

#[test]
fn what_a_library_prints_goes_nowhere_and_it_starts_no_debugger() {
    for_each_work(async |subject| {
        let nowhere = Path::new("/dev/null");
        assert_eq!(std::fs::read_link(of_process(subject.pid, "fd/1")).unwrap(), nowhere);
        assert_eq!(std::fs::read_link(of_process(subject.pid, "fd/2")).unwrap(), nowhere);
        let environment = std::fs::read(of_process(subject.pid, "environ")).unwrap();
        assert!(environment.split(|b| *b == 0).any(|variable| variable == b"GGML_NO_BACKTRACE=1"));
    });
}

#[test]
fn a_library_that_gets_no_more_memory_aborts_at_once() {
    let room = TestBox::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut subject = Subject::new(&room, Work::Transcribe).await;
        for mib in [200, 100] {
            let limit = Rlimit { current: Some(mib << 20), maximum: Some(mib << 20) };
            rustix::process::prlimit(Some(subject.pid), Resource::Data, limit).unwrap();
            let begun = now();
            let fault = subject.fault(PATIENCE, async |_| {}).await;
            assert_eq!(fault, EngineFault::ChildCrashed { signal: Signal::ABORT.as_raw() });
            assert!(now() - begun < Duration::from_secs(10));
            subject.assert_recovers().await;
        }
    });
}
