//! The parent's end of an engine child: start it, ask it, and know how it died.
//!
//! A child stays warm between requests. Whatever goes wrong in a request ends the child, so that the next one
//! begins with a fresh process; a dropped request does the same. A child that died between two requests is replaced.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use shared::error::EngineFault;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::exchange::{exchange, receive};
use super::process::{self, Gone, Process};
use super::protocol::{self, HELLO, Nonsense, Reply, Request};

/// How often a child's memory is looked at. It fills memory at well under 1 GiB a second on a board.
const MEMORY_CHECK: Duration = Duration::from_millis(100);
/// What a child may reserve beyond the memory it may hold. whisper.cpp reserves half a GiB that it never touches,
/// whatever the model. Between two looks, and while nobody looks, this is how far a child can overshoot.
const RESERVED_BYTES: u64 = 1 << 30;
/// How long a child that closed its pipes, or was killed, may take to be gone.
const GRACE: Duration = Duration::from_secs(2);
/// What a child reported that closed its pipes and lives on.
pub const CLOSED_ITS_PIPES: &str = "the engine process closed its pipes";

/// How to start a child, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// This program, or a test's.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Resident memory it may hold.
    pub memory_bytes: u64,
    /// Time it may take to load its model.
    pub start_deadline: Duration,
}

#[derive(Debug)]
struct Running {
    process: Process,
    input: ChildStdin,
    output: ChildStdout,
}

/// An engine in a process of its own.
#[derive(Debug)]
pub struct EngineChild {
    spec: Spec,
    running: Option<Running>,
    /// The last process that was started. The next one begins when it is gone: two models may not fit.
    last: Option<Gone>,
    asked: u32,
}

enum Ended {
    Pipe,
    Nonsense(Nonsense),
    Memory,
    Deadline,
}

impl From<std::io::Error> for Ended {
    fn from(why: std::io::Error) -> Self {
        why.downcast().map_or(Self::Pipe, Self::Nonsense)
    }
}

impl EngineChild {
    /// A child that starts when it is first asked.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, running: None, last: None, asked: 0 }
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|r| r.process.pid().as_raw_nonzero().get().unsigned_abs())
    }

    /// Makes it start as `spec` says next time; a running child that was started otherwise is ended.
    pub fn configure(&mut self, spec: Spec) {
        if spec != self.spec {
            self.running = None;
        }
        self.spec = spec;
    }

    /// Asks, and waits for the answer. Dropping the future ends the child.
    ///
    /// # Errors
    /// [`EngineFault`]: how it died, or what it said.
    pub async fn ask(
        &mut self,
        request: &Request,
        binary: &[u8],
        deadline: Duration,
    ) -> Result<(Reply, Vec<u8>), EngineFault> {
        self.asked = self.asked.checked_add(1).unwrap_or(HELLO + 1);
        let number = self.asked;
        let before = protocol::before_binary(number, request, binary);
        let before = before.map_err(|_| reported("the request is too long for the engine process".into()))?;
        let mut running = match self.still_running().await {
            Some(running) => running,
            None => self.start().await?,
        };
        let Running { process, input, output } = &mut running;
        let exchange = exchange(input, [&before, binary], output, number);
        match limited(exchange, process, self.spec.memory_bytes, deadline).await {
            Ok((Reply::Failed { code }, _)) => Err(reported(code)),
            Ok(answer) => {
                self.running = Some(running);
                Ok(answer)
            }
            Err(ended) => Err(self.verdict(ended, process, deadline).await),
        }
    }

    /// Ends a child that answered, but not what it was asked.
    pub fn distrust(&mut self, why: &str) -> EngineFault {
        self.running = None;
        reported(why.into())
    }

    async fn still_running(&mut self) -> Option<Running> {
        let running = self.running.take()?;
        if !running.process.is_gone() {
            return Some(running);
        }
        let how = running.process.gone().status().await.map(how_it_died);
        let how = how.map_or_else(String::new, |fault| fault.explain());
        warn!(error = how, "An engine died while it had nothing to do.");
        None
    }

    async fn start(&mut self) -> Result<Running, EngineFault> {
        if let Some(last) = &mut self.last {
            // One that cannot even be killed holds a device that does not answer; it is not waited for any longer.
            timeout(GRACE, last.status()).await.ok();
        }
        let (starting, gone) = process::start(self.command(), self.spec.memory_bytes.saturating_add(RESERVED_BYTES));
        self.last = Some(gone);
        let started = match timeout(self.spec.start_deadline, starting).await {
            Ok(Ok(started)) => started.map_err(|why| cannot_start(&why))?,
            Ok(Err(_)) => return Err(reported("the engine process has no thread to wait for it".into())),
            Err(_) => return Err(late(self.spec.start_deadline)),
        };
        let process = started.process;
        let pipes = started.input.map(ChildStdin::from_std).zip(started.output.map(ChildStdout::from_std));
        let Some((Ok(input), Ok(mut output))) = pipes else {
            return Err(reported("the engine process has no pipes".into()));
        };
        let hello = receive(&mut output, HELLO);
        match limited(hello, &process, self.spec.memory_bytes, self.spec.start_deadline).await {
            Ok((Reply::Ready, _)) => {
                let engine = self.spec.arguments.get(1).map_or("", String::as_str);
                info!(engine, pid = process.pid().as_raw_nonzero(), "Engine started.");
                Ok(Running { process, input, output })
            }
            Ok((Reply::Failed { code }, _)) => Err(EngineFault::Unavailable { problem: code }),
            Ok((Reply::Phrases(_) | Reply::Probabilities | Reply::Scores { .. } | Reply::Vectors { .. }, _)) => {
                Err(nonsense(Nonsense::OtherRequest))
            }
            Err(ended) => Err(self.verdict(ended, &process, self.spec.start_deadline).await),
        }
    }

    fn command(&self) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(&self.spec.program);
        command.args(&self.spec.arguments).process_group(0);
        // ggml would start a debugger on itself before it aborts, which takes seconds and prints what is in memory.
        command.env("GGML_NO_BACKTRACE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    async fn verdict(&self, ended: Ended, process: &Process, deadline: Duration) -> EngineFault {
        let mut gone = process.gone();
        let how = match ended {
            Ended::Memory => EngineFault::OutOfMemory { limit_bytes: self.spec.memory_bytes },
            Ended::Deadline => late(deadline),
            Ended::Nonsense(what) => nonsense(what),
            Ended::Pipe => match timeout(GRACE, gone.status()).await {
                Ok(Some(status)) => how_it_died(status),
                Ok(None) | Err(_) => reported(CLOSED_ITS_PIPES.into()),
            },
        };
        process.kill();
        timeout(GRACE, gone.status()).await.ok();
        how
    }
}

fn reported(code: String) -> EngineFault {
    EngineFault::Reported { code }
}

fn nonsense(what: Nonsense) -> EngineFault {
    reported(what.to_string())
}

fn late(limit: Duration) -> EngineFault {
    EngineFault::DeadlineExceeded { limit_ms: limit.as_millis().try_into().unwrap_or(u64::MAX) }
}

/// A program that is not there stays away; a shortage of processes or memory passes.
fn cannot_start(why: &std::io::Error) -> EngineFault {
    let problem = format!("the engine process cannot be started ({})", why.kind());
    match why.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => EngineFault::Unavailable { problem },
        _ => reported(problem),
    }
}

fn how_it_died(status: ExitStatus) -> EngineFault {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.signal(), status.code()) {
        (Some(signal), _) => EngineFault::ChildCrashed { signal },
        (None, code) => EngineFault::ChildExited { code: code.unwrap_or(-1) },
    }
}

/// Waits for `exchange` while the child keeps its limits. A child that dies may still have answered in full.
async fn limited<T>(
    exchange: impl Future<Output = std::io::Result<T>>,
    process: &Process,
    memory_bytes: u64,
    deadline: Duration,
) -> Result<T, Ended> {
    let is_over = || most_resident_bytes(process).is_some_and(|bytes| bytes > memory_bytes);
    let over = async {
        while !is_over() {
            sleep(MEMORY_CHECK).await;
        }
    };
    let mut gone = process.gone();
    let dead = async {
        gone.status().await;
        sleep(GRACE).await;
    };
    let answer = tokio::select! {
        answer = timeout(deadline, exchange) => answer.map_err(|_| Ended::Deadline)?,
        () = over => return Err(Ended::Memory),
        () = dead => return Err(Ended::Pipe),
    };
    // The verdict does not hang on when it was looked at.
    if is_over() { Err(Ended::Memory) } else { Ok(answer?) }
}

/// The most resident memory a process has ever held, from `/proc/PID/status`.
fn most_resident_bytes(process: &Process) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid().as_raw_nonzero())).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child made of a shell script: what it does after `ready` is the test's.
    fn shell(script: &str) -> EngineChild {
        let hello = protocol::before_binary(HELLO, &Reply::Ready, &[]).unwrap();
        let octal: String = hello.iter().map(|b| format!("\\{b:03o}")).collect();
        EngineChild::new(Spec {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), format!("printf '{octal}'; {script}")],
            memory_bytes: 64 << 20,
            start_deadline: Duration::from_secs(10),
        })
    }

    async fn fault(mut child: EngineChild, deadline: Duration) -> EngineFault {
        child.ask(&Request::Speech, &[], deadline).await.unwrap_err()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn each_way_of_dying_has_its_name() {
        assert_eq!(fault(shell("kill -9 $$"), LONG).await, EngineFault::ChildCrashed { signal: 9 });
        assert_eq!(fault(shell("kill -6 $$"), LONG).await, EngineFault::ChildCrashed { signal: 6 });
        assert_eq!(fault(shell("exit 3"), LONG).await, EngineFault::ChildExited { code: 3 });
        let slow = fault(shell("sleep 60"), Duration::from_millis(200)).await;
        assert_eq!(slow, EngineFault::DeadlineExceeded { limit_ms: 200 });
        let hungry = fault(shell("x=aaaaaaaa; while :; do x=$x$x; done"), LONG).await;
        assert_eq!(hungry, EngineFault::OutOfMemory { limit_bytes: 64 << 20 });
        let missing = EngineChild::new(Spec { program: "/nonexistent".into(), ..shell("").spec });
        assert!(matches!(fault(missing, LONG).await, EngineFault::Unavailable { .. }));
    }

    #[tokio::test]
    async fn a_dropped_request_ends_the_child() {
        let mut child = shell("sleep 60");
        let request = child.ask(&Request::Speech, &[], LONG);
        assert!(tokio::time::timeout(Duration::from_millis(500), request).await.is_err());
        assert_eq!(child.pid(), None);
    }
}
