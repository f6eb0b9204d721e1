//! The parent's end of an engine child: start it, ask it, and know how it died.
//!
//! A child stays warm between requests. Whatever goes wrong in a request ends the child, so that the next one
//! begins with a fresh process; a dropped request does the same.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use shared::error::EngineFault;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};
use tracing::info;

use super::protocol::{self, Reply, Request};

/// How often a child's memory is looked at. It fills memory at well under 1 GiB a second on a board.
const MEMORY_CHECK: Duration = Duration::from_millis(100);
/// How long a child that closed its pipes may take to be gone before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How to start a child, and its limits.
#[derive(Debug, Clone)]
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
}

enum Ended {
    Io,
    Memory,
    Deadline,
}

impl EngineChild {
    /// A child that starts when it is first asked.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, running: None }
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|r| r.process.id())
    }

    /// Makes it start as `spec` says next time; a running child that was started otherwise is ended.
    pub fn configure(&mut self, spec: Spec) {
        if spec.arguments != self.spec.arguments {
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
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start().await?,
        };
        let message = protocol::encode(request, binary).map_err(|e| reported(&e))?;
        let exchange = async {
            running.input.write_all(&message).await?;
            receive(&mut running.output).await
        };
        let pid = running.process.id();
        match limited(exchange, pid, self.spec.memory_bytes, deadline).await {
            Ok((Reply::Failed { code }, _)) => {
                self.running = Some(running);
                Err(EngineFault::Reported { code })
            }
            Ok(answer) => {
                self.running = Some(running);
                Ok(answer)
            }
            Err(ended) => Err(self.verdict(ended, running.process, deadline).await),
        }
    }

    async fn start(&self) -> Result<Running, EngineFault> {
        let unavailable = |problem: String| EngineFault::Unavailable { problem };
        let mut process = Command::new(&self.spec.program)
            .args(&self.spec.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| unavailable(format!("the engine process cannot be started ({})", e.kind())))?;
        let (Some(input), Some(mut output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(unavailable("the engine process has no pipes".into()));
        };
        let (pid, limit) = (process.id(), self.spec.memory_bytes);
        match limited(receive(&mut output), pid, limit, self.spec.start_deadline).await {
            Ok((Reply::Ready, _)) => {
                info!(engine = self.spec.arguments.get(1).map_or("", String::as_str), pid, "Engine started.");
                Ok(Running { process, input, output })
            }
            Ok((Reply::Failed { code }, _)) => Err(unavailable(code)),
            Ok(_) => Err(unavailable("the engine process does not speak this protocol".into())),
            Err(ended) => Err(self.verdict(ended, process, self.spec.start_deadline).await),
        }
    }

    async fn verdict(&self, ended: Ended, mut process: Process, deadline: Duration) -> EngineFault {
        match ended {
            Ended::Memory => {
                drop(process.kill().await);
                EngineFault::OutOfMemory { limit_bytes: self.spec.memory_bytes }
            }
            Ended::Deadline => {
                drop(process.kill().await);
                EngineFault::DeadlineExceeded { limit_ms: deadline.as_millis().try_into().unwrap_or(u64::MAX) }
            }
            Ended::Io => match tokio::time::timeout(GRACE, process.wait()).await {
                Ok(Ok(status)) => how_it_died(status),
                Ok(Err(_)) | Err(_) => {
                    drop(process.kill().await);
                    EngineFault::Reported { code: "the engine process closed its pipes".into() }
                }
            },
        }
    }
}

fn reported(error: &std::io::Error) -> EngineFault {
    EngineFault::Reported { code: error.kind().to_string() }
}

fn how_it_died(status: ExitStatus) -> EngineFault {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.signal(), status.code()) {
        (Some(signal), _) => EngineFault::ChildCrashed { signal },
        (None, code) => EngineFault::ChildExited { code: code.unwrap_or(-1) },
    }
}

async fn receive(from: &mut ChildStdout) -> std::io::Result<(Reply, Vec<u8>)> {
    let mut head = [0; 8];
    from.read_exact(&mut head).await?;
    let (json, binary) = protocol::lengths(head)?;
    let (mut json, mut binary) = (vec![0; json], vec![0; binary]);
    from.read_exact(&mut json).await?;
    from.read_exact(&mut binary).await?;
    Ok((serde_json::from_slice(&json)?, binary))
}

/// Waits for `exchange` while the child keeps its limits.
async fn limited<T>(
    exchange: impl Future<Output = std::io::Result<T>>,
    pid: Option<u32>,
    memory_bytes: u64,
    deadline: Duration,
) -> Result<T, Ended> {
    let over = async {
        loop {
            tokio::time::sleep(MEMORY_CHECK).await;
            if pid.and_then(resident_bytes).is_some_and(|bytes| bytes > memory_bytes) {
                return;
            }
        }
    };
    tokio::select! {
        answer = tokio::time::timeout(deadline, exchange) => match answer {
            Ok(answer) => answer.map_err(|_| Ended::Io),
            Err(_) => Err(Ended::Deadline),
        },
        () = over => Err(Ended::Memory),
    }
}

/// Resident memory of a process, from `/proc/PID/statm`.
fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child made of a shell script: what it does after `ready` is the test's.
    fn shell(script: &str) -> EngineChild {
        let hello = protocol::encode(&Reply::Ready, &[]).unwrap();
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
