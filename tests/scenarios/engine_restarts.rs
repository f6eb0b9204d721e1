//! A thousand restarts in a row, each after another kind of end, leave nothing behind: no process, no descriptor, no
//! thread, no memory. Measured in a process of its own, whose every child and descriptor belongs to the engines.

use std::process::Command;
use std::time::Duration;

use appliance::engine::child::{EngineChild, Spec};
use rustix::process::{Pid, Signal};
use shared::error::EngineFault;
use tests::engine::{Answer, Question, Work, is_dead, send};
use tests::{PATIENCE, TestBox, children_of, now, wait_for};

const RESTARTS: usize = 1000;
/// Restarts before the first figures are taken: allocators and runtimes take what they keep.
const WARM_UP: usize = 50;
/// KiB by which resident memory may grow: a leak of 4 KiB a restart is seen.
const SLACK_KIB: u64 = 4 << 10;
/// Set in the process that measures.
const ALONE: &str = "ROOMSCRIBE_TEST_ALONE";

/// How an engine ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Signal(Signal),
    /// By itself: it finds no model.
    Exit,
    /// The request is dropped.
    Dropped,
    Deadline,
    Memory,
}

const ENDS: [End; 7] = [
    End::Signal(Signal::KILL),
    End::Signal(Signal::SEGV),
    End::Exit,
    End::Dropped,
    End::Deadline,
    End::Signal(Signal::ABORT),
    End::Memory,
];

/// A number whose end is [`End::Dropped`].
const DROPPED: usize = 3;

struct Subject {
    child: EngineChild,
    spec: Spec,
    short: Question,
    long: Question,
    answer: Answer,
}

impl Subject {
    async fn new(room: &TestBox, work: Work) -> Self {
        let spec = work.spec(room).await;
        let mut child = EngineChild::new(spec.clone());
        let (short, long) = (Question::about(room, work, 2), Question::about(room, work, 300));
        let answer = short.ask(&mut child, PATIENCE).await.unwrap();
        Self { child, spec, short, long, answer }
    }

    async fn restart(&mut self, number: usize) {
        let end = ENDS[number % ENDS.len()];
        // At every moment of a start and of a request in turn.
        let moment = Duration::from_millis((number * 7 % 60) as u64);
        let (child, spec) = (&mut self.child, self.spec.clone());
        match end {
            End::Signal(signal) => {
                child.configure(spec);
                let (answer, ()) = tokio::join!(self.long.ask(child, PATIENCE), kill_the_engine(signal, moment));
                assert_eq!(answer.err(), Some(EngineFault::ChildCrashed { signal: signal.as_raw() }));
            }
            End::Exit => {
                let arguments = spec.arguments.iter().map(|a| a.replace("/models/", "/none/")).collect();
                child.configure(Spec { arguments, ..spec });
                let fault = self.long.ask(child, PATIENCE).await.err();
                assert!(matches!(fault, Some(EngineFault::Unavailable { .. })), "{fault:?}");
            }
            End::Dropped => {
                child.configure(spec);
                assert!(tokio::time::timeout(moment, self.long.ask(child, PATIENCE)).await.is_err());
            }
            End::Deadline => {
                child.configure(spec);
                let fault = self.long.ask(child, Duration::from_millis(5)).await.err();
                assert_eq!(fault, Some(EngineFault::DeadlineExceeded { limit_ms: 5 }));
            }
            End::Memory => {
                child.configure(Spec { memory_bytes: 4 << 20, ..spec });
                let fault = self.long.ask(child, PATIENCE).await.err();
                assert_eq!(fault, Some(EngineFault::OutOfMemory { limit_bytes: 4 << 20 }));
            }
        }
    }

    async fn assert_answers(&mut self) {
        self.child.configure(self.spec.clone());
        assert!(self.short.ask(&mut self.child, PATIENCE).await.unwrap() == self.answer);
    }
}

/// The one child that lives, once it has lived for a while.
async fn kill_the_engine(signal: Signal, moment: Duration) {
    let alive = || living().first().copied();
    while alive().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(moment).await;
    let engine = alive().expect("it works for longer than that");
    send(engine, signal, is_dead).await;
}

fn living() -> Vec<Pid> {
    let children = children_of(std::process::id()).into_iter();
    children.filter(|(_, stat)| !is_dead(Some(stat.state))).map(|(pid, _)| pid).collect()
}

/// What a process can leak, of this one.
#[derive(Debug)]
struct Held {
    children: usize,
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

impl Held {
    fn now() -> Self {
        let entries = |folder: &str| std::fs::read_dir(folder).unwrap().count();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        Self {
            children: children_of(std::process::id()).len(),
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            resident_kib: resident.unwrap(),
        }
    }

    /// Once the last engine is gone.
    fn at_rest() -> Self {
        wait_for("every engine to be gone", || Some(Self::now()).filter(|held| held.children == 0 && held.threads <= 2))
    }
}

fn restart_in_this_process(work: Work) {
    let room = TestBox::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut subject = runtime.block_on(Subject::new(&room, work));
    runtime.block_on(async {
        for number in 0..WARM_UP {
            subject.restart(number).await;
        }
    });
    let (before, begun) = (Held::at_rest(), now());
    runtime.block_on(async {
        for number in 0..RESTARTS {
            subject.restart(number).await;
            if number % 100 == 0 {
                subject.assert_answers().await;
            }
        }
    });
    let took = now() - begun;
    // One more is dropped at work, and nothing is asked of the runtime afterwards: nothing may depend on it.
    runtime.block_on(async { subject.restart(DROPPED).await });
    let after = Held::at_rest();
    println!("{RESTARTS} restarts, {work:?}: {:.1} s; before {before:?}, after {after:?}", took.as_secs_f64());
    assert_eq!((after.children, after.descriptors, after.threads), (0, before.descriptors, before.threads));
    assert!(after.resident_kib < before.resident_kib + SLACK_KIB);
}

/// Runs this test again where nothing else runs.
fn restart_alone(name: &str, work: Work) {
    if std::env::var_os(ALONE).is_some() {
        return restart_in_this_process(work);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("engine_restarts::{name}"), "--exact", "--include-ignored", "--nocapture"]);
    let output = command.env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let figures: Vec<&str> = said.lines().filter(|line| line.contains(" restarts, ")).collect();
    assert_eq!(figures.len(), 1, "it ran: {said}");
    println!("{}", figures[0]);
}

#[test]
fn a_thousand_restarts_of_the_voice_engine_leave_nothing_behind() {
    restart_alone("a_thousand_restarts_of_the_voice_engine_leave_nothing_behind", Work::Speech);
}

#[test]
fn a_thousand_restarts_of_the_transcriber_leave_nothing_behind() {
    restart_alone("a_thousand_restarts_of_the_transcriber_leave_nothing_behind", Work::Transcribe);
}
