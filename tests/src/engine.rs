//! Real engine children, asked directly: how they are started, what they are asked, what they answered.

use std::path::PathBuf;
use std::time::Duration;

use appliance::audio::{SAMPLE_RATE_HZ, to_bytes};
use appliance::engine::child::{EngineChild, Spec};
use appliance::engine::protocol::{Reply, Request, write};
use appliance::engines::Engines;
use appliance::models::Role;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use shared::error::EngineFault;
use shared::paths::Root;
use shared::settings::Engine;

use crate::{PATIENCE, TestBox, conversation, stat};

/// What an engine can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The transcriber.
    Transcribe,
    /// The voice engine, voice activity.
    Speech,
    /// The voice engine, speaker vectors.
    Embed,
}

/// An answer, for comparing. It is never printed: it is what was said.
#[derive(Clone, PartialEq)]
pub struct Answer(Value, Vec<u8>);

impl From<(Reply, Vec<u8>)> for Answer {
    fn from((reply, binary): (Reply, Vec<u8>)) -> Self {
        Self(serde_json::to_value(reply).unwrap_or_default(), binary)
    }
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 3] = [Self::Transcribe, Self::Speech, Self::Embed];

    /// How the engine that does it is started on the models of `room`.
    ///
    /// # Panics
    /// If a model or ONNX Runtime is missing.
    pub async fn spec(self, room: &TestBox) -> Spec {
        let engines = Engines::of(crate::program("roomscribe"), &Root::new(room.root()), Engine::default());
        let model = async |role| engines.model(role, 0).await.expect("the demo models are there");
        match self {
            Self::Transcribe => engines.transcriber_spec(&model(Role::Transcriber).await),
            Self::Speech | Self::Embed => {
                let (vad, voice) = (model(Role::Vad).await, model(Role::Voice).await);
                engines.voices_spec(&vad, Some(&voice), None).expect("./dev setup installs ONNX Runtime")
            }
        }
    }

    fn request(self, pcm: &[i16]) -> Request {
        let step = 2 * SAMPLE_RATE_HZ as usize;
        let pieces = (0..pcm.len() / step).map(|i| std::iter::once(i * step..(i + 1) * step).collect());
        match self {
            Self::Transcribe => Request::Transcribe,
            Self::Speech => Request::Speech,
            Self::Embed => Request::Embed { pieces: pieces.collect() },
        }
    }
}

/// A request and its audio.
pub struct Question {
    request: Request,
    pcm: Vec<u8>,
}

impl Question {
    /// About the conversation, cut or repeated to so many seconds.
    ///
    /// # Panics
    /// If the fixture is damaged.
    #[must_use]
    pub fn about(room: &TestBox, work: Work, seconds: usize) -> Self {
        let wav: PathBuf = conversation(room.root());
        let samples = hound::WavReader::open(wav).expect("the fixture is there").into_samples::<i16>();
        let once: Vec<i16> = samples.collect::<Result<_, _>>().expect("the fixture is whole");
        let pcm: Vec<i16> = once.iter().copied().cycle().take(seconds * SAMPLE_RATE_HZ as usize).collect();
        Self { request: work.request(&pcm), pcm: to_bytes(&pcm) }
    }

    /// How many bytes a child is sent.
    ///
    /// # Panics
    /// If it is too long.
    #[must_use]
    pub fn length(&self) -> usize {
        let mut message = Vec::new();
        write(&mut message, 1, &self.request, &self.pcm).expect("a request is shorter");
        message.len()
    }

    /// Asks it of a child.
    ///
    /// # Errors
    /// Those of the child.
    pub async fn ask(&self, child: &mut EngineChild, deadline: Duration) -> Result<Answer, EngineFault> {
        child.ask(&self.request, &self.pcm, deadline).await.map(Answer::from)
    }
}

/// The process of a child.
///
/// # Panics
/// If it does not run.
#[must_use]
pub fn process_of(child: &EngineChild) -> Pid {
    let pid = child.pid().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).expect("the engine is running")
}

/// Waits until a process has used so much more processor time: it is at work.
///
/// # Panics
/// If it never is.
pub async fn at_work(pid: Pid, much: Duration) {
    let used = || stat(pid).map(|s| s.used).expect("the engine is running");
    let (begun, before) = (crate::now(), used());
    while used() < before + much {
        assert!(crate::now() - begun < PATIENCE, "the engine never worked");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sends a signal until the process is as it should be. The first `SIGSEGV` from outside is taken by Rust's own
/// handler, which looks for a stack overflow, finds none and lets the second one through.
///
/// # Panics
/// If it never is.
pub async fn send(pid: Pid, signal: Signal, has_worked: impl Fn(Option<char>) -> bool) {
    let begun = crate::now();
    while !has_worked(stat(pid).map(|s| s.state)) {
        rustix::process::kill_process(pid, signal).ok();
        assert!(crate::now() - begun < PATIENCE, "the engine does not mind {signal:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Dead, whether or not somebody has waited for it.
#[must_use]
pub fn is_dead(state: Option<char>) -> bool {
    matches!(state, None | Some('Z' | 'X'))
}

/// The most resident memory a process has held.
///
/// # Panics
/// If it is gone.
#[must_use]
pub fn most_resident_bytes(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("it is running");
    let kib = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a figure in KiB") * 1024
}
