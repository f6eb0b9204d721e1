//! What a child can write instead of an answer. A shell script does it once, then becomes the real engine: each kind of
//! nonsense has its name, nothing waits for it, and the next request is answered as if it had not been.

use std::time::Duration;

use appliance::engine::child::{CLOSED_ITS_PIPES, EngineChild, Spec};
use appliance::engine::protocol::{HELLO, Nonsense, Reply, write};
use rustix::process::Signal;
use shared::error::EngineFault;
use tests::engine::{Answer, Question, Work};
use tests::{PATIENCE, TestBox, now, processes, wait_for};

/// Time for a child that does not answer.
const DEADLINE: Duration = Duration::from_millis(500);

/// Samples of the request, and bytes of the message: more than a pipe holds.
const SECONDS: usize = 6;
const REQUEST_BYTES: usize = 12 + 8 + SECONDS * 32_000;

fn message(number: u32, reply: &Reply, binary: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, number, reply, binary).unwrap();
    bytes
}

/// A command that prints these bytes.
fn print(bytes: &[u8]) -> String {
    let octal: String = bytes.iter().map(|b| format!("\\{b:03o}")).collect();
    format!("printf '{octal}'")
}

/// The same, in one write.
fn print_at_once(bytes: &[u8]) -> String {
    format!("{} | dd bs=64k iflag=fullblock status=none", print(bytes))
}

fn hello() -> Vec<u8> {
    message(HELLO, &Reply::Ready, &[])
}

/// A script that says hello and goes on when the first request begins to come.
fn deaf(then: &str) -> String {
    format!("{}; head -c 12 >/dev/null; {then}", print(&hello()))
}

/// A script that says hello, reads the first request and goes on.
fn greeted(then: &str) -> String {
    format!("{}; head -c {REQUEST_BYTES} >/dev/null; {then}", print(&hello()))
}

/// An answer to the first request.
fn answer() -> Vec<u8> {
    message(1, &Reply::Probabilities, &[0; 16])
}

/// Announces parts of these lengths.
fn head(json: u32, binary: u32) -> Vec<u8> {
    [1, json, binary].iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// A real voice engine, in whose place `script` runs the first time.
struct Subject {
    room: TestBox,
    spec: Spec,
    question: Question,
    answer: Answer,
}

impl Subject {
    async fn new() -> Self {
        let room = TestBox::new();
        let (spec, question) = (Work::Speech.spec(&room).await, Question::about(&room, Work::Speech, SECONDS));
        assert_eq!(question.length(), REQUEST_BYTES);
        let answer = question.ask(&mut EngineChild::new(spec.clone()), PATIENCE).await.unwrap();
        Self { room, spec, question, answer }
    }

    fn child(&self, script: &str) -> EngineChild {
        let been = tempfile::tempdir_in(self.room.root()).unwrap().keep().join("been");
        let script = format!("if mkdir \"$0\" 2>/dev/null; then {script}; else exec \"$@\"; fi");
        let mut arguments = vec!["-c".into(), script, been.display().to_string()];
        arguments.push(self.spec.program.display().to_string());
        arguments.extend(self.spec.arguments.iter().cloned());
        EngineChild::new(Spec { program: "/bin/sh".into(), arguments, ..self.spec.clone() })
    }

    /// What a request meets while the script runs; after it the engine answers.
    async fn fault(&self, script: &str, deadline: Duration) -> EngineFault {
        let (mut child, begun) = (self.child(script), now());
        let fault = self.question.ask(&mut child, deadline).await.err().expect(script);
        assert!(now() - begun < Duration::from_secs(20), "{script}");
        assert_eq!(child.pid(), None, "{script}");
        self.assert_answers(&mut child, script).await;
        fault
    }

    async fn assert_answers(&self, child: &mut EngineChild, script: &str) {
        let answer = self.question.ask(child, PATIENCE).await.expect(script);
        assert!(answer == self.answer, "{script}");
    }
}

fn run(scenario: impl AsyncFnOnce(Subject)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { scenario(Subject::new().await).await });
}

fn broken(what: Nonsense) -> EngineFault {
    EngineFault::Reported { code: what.to_string() }
}

#[test]
fn garbage_on_the_pipe_has_its_own_name_and_is_not_waited_for() {
    let garbage = print(b"ggml.c:1555: GGML_ASSERT(ctx->mem_buffer != NULL) failed");
    let short = print(&head(2, 0));
    let (json, binary) = (print(&head(u32::MAX, 0)), print(&head(0, u32::MAX)));
    let other = print(&message(9, &Reply::Probabilities, &[]));
    let unreadable = format!(r#"{}; printf '{{"phrases":[{{"text":1}}]}}'"#, print(&head(24, 0)));
    let cases = [
        (garbage.clone(), Nonsense::TooLong),
        (greeted(&garbage), Nonsense::TooLong),
        (deaf(&garbage), Nonsense::TooLong),
        (deaf("yes | head -c 1000000"), Nonsense::TooLong),
        (greeted(&json), Nonsense::TooLong),
        (greeted(&binary), Nonsense::TooLong),
        (greeted(&format!("{short}; printf '}}{{'")), Nonsense::Unreadable),
        (greeted(&format!("{short}; printf '{{ '")), Nonsense::Unreadable),
        (greeted(&unreadable), Nonsense::Unreadable),
        (print(&answer()), Nonsense::OtherRequest),
        (print(&message(HELLO, &Reply::Probabilities, &[])), Nonsense::OtherRequest),
        (greeted(&other), Nonsense::OtherRequest),
    ];
    run(async |subject| {
        for (script, what) in cases {
            let (script, begun) = (script + "; sleep 60", now());
            assert_eq!(subject.fault(&script, PATIENCE).await, broken(what), "{script}");
            assert!(now() - begun < Duration::from_secs(10), "it is plain at once: {script}");
        }
    });
}

#[test]
fn a_child_that_exits_with_0_before_its_answer_is_whole_has_failed() {
    let half = |bytes: &[u8]| print(&bytes[..bytes.len() - 7]);
    let scripts = [
        "exit 0".to_owned(),
        format!("{}; exit 0", print(&hello()[..5])),
        format!("{}; exit 0", half(&hello())),
        greeted("exit 0"),
        greeted(&format!("{}; exit 0", print(&answer()[..5]))),
        greeted(&format!("{}; exit 0", half(&answer()))),
        greeted(&format!("{}; exit 0", print(&head(16 << 20, 64 << 20)))),
    ];
    run(async |subject| {
        for script in scripts {
            assert_eq!(subject.fault(&script, PATIENCE).await, EngineFault::ChildExited { code: 0 }, "{script}");
        }
        let killed = greeted(&format!("{}; kill -11 $$", half(&answer())));
        assert_eq!(subject.fault(&killed, PATIENCE).await, EngineFault::ChildCrashed { signal: 11 });
    });
}

#[test]
fn a_child_that_neither_answers_nor_reads_meets_its_deadline() {
    let scripts = [
        deaf("sleep 60"),
        greeted("sleep 60"),
        greeted(&format!("{}; sleep 60", print(&answer()[..13]))),
        greeted(&format!("{}; sleep 60", print(&head(16 << 20, 64 << 20)))),
    ];
    let late = EngineFault::DeadlineExceeded { limit_ms: 500 };
    run(async |subject| {
        for script in scripts {
            assert_eq!(subject.fault(&script, DEADLINE).await, late, "{script}");
        }
        let silent = Subject { spec: Spec { start_deadline: DEADLINE, ..subject.spec.clone() }, ..subject };
        let mut child = silent.child("sleep 60");
        assert_eq!(silent.question.ask(&mut child, PATIENCE).await.err(), Some(late));
    });
}

#[test]
fn a_child_that_closes_its_pipe_and_lives_on_is_ended() {
    run(async |subject| {
        let closed = EngineFault::Reported { code: CLOSED_ITS_PIPES.into() };
        for script in ["exec >&-; sleep 60".into(), deaf("exec >&-; sleep 60"), greeted("exec <&- >&-; sleep 60")] {
            assert_eq!(subject.fault(&script, PATIENCE).await, closed, "{script}");
        }
    });
}

#[test]
fn more_than_was_asked_never_becomes_the_answer_to_the_next_request() {
    run(async |subject| {
        let twice = print_at_once(&[answer(), answer()].concat());
        let trailing = print_at_once(&[&answer()[..], b"done\n"].concat());
        let greedy = print_at_once(&[hello(), answer()].concat());
        for script in [greeted(&twice), greeted(&trailing), greedy, deaf(&print(&answer()))] {
            let script = script + "; sleep 60";
            assert_eq!(subject.fault(&script, PATIENCE).await, broken(Nonsense::Unasked), "{script}");
        }
        // What comes when nobody looks is met by the next request, which knows its answer by its number.
        let garbage = b"a line of a library's log\n";
        for (more, what) in [(print(&answer()), Nonsense::OtherRequest), (print(garbage), Nonsense::TooLong)] {
            let later = greeted(&format!("{}; sleep 0.3; {more}; sleep 60", print(&answer())));
            let mut child = subject.child(&later);
            assert!(subject.question.ask(&mut child, PATIENCE).await.is_ok());
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(subject.question.ask(&mut child, PATIENCE).await.err(), Some(broken(what)));
            subject.assert_answers(&mut child, &later).await;
        }
    });
}

#[test]
fn a_child_that_answers_and_leaves_has_answered() {
    run(async |subject| {
        let leaves = greeted(&format!("{}; exit 0", print(&answer())));
        let mut child = subject.child(&leaves);
        assert!(subject.question.ask(&mut child, PATIENCE).await.is_ok());
        tokio::time::sleep(Duration::from_millis(500)).await;
        subject.assert_answers(&mut child, &leaves).await;
    });
}

fn is_running(marker: &str) -> bool {
    let command_line = |pid: rustix::process::Pid| std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
    processes().into_iter().any(|(pid, _)| {
        command_line(pid).is_ok_and(|line| line.split(|b| *b == 0).any(|argument| argument == marker.as_bytes()))
    })
}

#[test]
fn what_a_child_started_is_killed_with_it_and_holds_nothing_up() {
    run(async |subject| {
        // Each sleeps for a time of its own, by which it is found; it holds the pipe open.
        for (seconds, dies, expected) in [
            ("61.25", "kill -9 $$", EngineFault::ChildCrashed { signal: Signal::KILL.as_raw() }),
            ("61.5", "exit 3", EngineFault::ChildExited { code: 3 }),
            ("61.75", "sleep 60", EngineFault::DeadlineExceeded { limit_ms: 500 }),
        ] {
            let script = greeted(&format!("sleep {seconds} & {dies}"));
            assert_eq!(subject.fault(&script, DEADLINE).await, expected, "{script}");
            wait_for("the child's child to be gone", || (!is_running(seconds)).then_some(()));
        }
        // One that left the group holds the pipe open for as long as it likes, and nobody waits for it.
        let escaped = greeted("setsid sleep 8.25 & sleep 0.3; kill -9 $$");
        let begun = now();
        assert_eq!(subject.fault(&escaped, PATIENCE).await, EngineFault::ChildCrashed { signal: 9 });
        assert!(now() - begun < Duration::from_secs(8));
    });
}
