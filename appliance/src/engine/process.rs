//! A process that is killed when nobody holds it any more, and that is always waited for.
//!
//! Each has a thread that starts it and stays until it is gone, whatever becomes of who asked for it and of their
//! runtime: nothing is left as a zombie, its number is never another's when it is killed, and "die with your parent",
//! which Linux ties to the thread that started a process, is tied to one that lives as long. It leads a group of its
//! own, and what it started is killed with it.

use std::io;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use tokio::sync::{oneshot, watch};

/// A running process. Dropping it kills it, without waiting.
#[derive(Debug)]
pub struct Process {
    life: Arc<Life>,
    gone: Gone,
}

/// A process and its pipes.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub process: Process,
    /// Its standard input, if the command asked for a pipe.
    pub input: Option<ChildStdin>,
    /// Its standard output, likewise.
    pub output: Option<ChildStdout>,
}

#[derive(Debug)]
struct Life {
    pid: Pid,
    is_over: Mutex<bool>,
}

/// Knows when a process is gone, and outlives it.
#[derive(Debug, Clone)]
pub struct Gone(watch::Receiver<Option<ExitStatus>>);

impl Gone {
    /// Waits until the process is gone and waited for. `None` if it never began, or if its status is another's to know
    /// (somebody ignores the death of children).
    pub async fn status(&mut self) -> Option<ExitStatus> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    fn is_known(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }
}

/// Starts a process that may hold `data_bytes` of writable memory: a limit that nobody has to look after. What comes
/// back first are the process and its pipes; not taking them kills it.
pub fn start(command: Command, data_bytes: u64) -> (oneshot::Receiver<io::Result<Started>>, Gone) {
    let (started, starting) = oneshot::channel();
    let (over, gone) = watch::channel(None);
    let gone = Gone(gone);
    let process_gone = gone.clone();
    let thread = std::thread::Builder::new().name("engine".into());
    // Without a thread both channels close, and who waits on them learns of it.
    drop(thread.spawn(move || keep(command, data_bytes, started, process_gone, &over)));
    (starting, gone)
}

fn keep(
    mut command: Command,
    data_bytes: u64,
    started: oneshot::Sender<io::Result<Started>>,
    gone: Gone,
    over: &watch::Sender<Option<ExitStatus>>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(why) => return drop(started.send(Err(why))),
    };
    let life = Arc::new(Life { pid: Pid::from_child(&child), is_over: Mutex::new(false) });
    let limit = Rlimit { current: Some(data_bytes), maximum: Some(data_bytes) };
    // Where this is not allowed there are still the looks at its memory.
    rustix::process::prlimit(Some(life.pid), Resource::Data, limit).ok();
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let process = Process { life: life.clone(), gone };
    drop(started.send(Ok(Started { process, input, output })));
    let status = life.outlive(&mut child);
    if let Ok(status) = status {
        over.send_replace(Some(status));
    }
}

impl Life {
    /// Waits for the end, and ends what is left of the group while its number cannot be another's yet.
    fn outlive(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let dead = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(rustix::process::waitid(WaitId::Pid(self.pid), dead), Err(rustix::io::Errno::INTR)) {}
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::process::kill_process_group(self.pid, Signal::KILL).ok();
        *is_over = true;
        child.wait()
    }

    fn kill(&self) {
        let is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_over {
            rustix::process::kill_process_group(self.pid, Signal::KILL).ok();
        }
    }
}

impl Process {
    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.life.pid
    }

    /// Kills it and what it started; a process that is stopped dies as well.
    pub fn kill(&self) {
        self.life.kill();
    }

    /// Whether it is gone already.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.is_known()
    }

    /// Knows when it is gone.
    #[must_use]
    pub fn gone(&self) -> Gone {
        self.gone.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
