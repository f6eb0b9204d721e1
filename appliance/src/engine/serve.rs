//! The child's end: load a model, say so, answer until the parent closes the pipe.
//!
//! The child dies with its parent, is the first to go when memory runs short, and yields the processor to capture.
//! The pipe to the parent is its alone: what a library prints goes nowhere, and no core dump holds what was said.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, Signal};

use super::protocol::{self, HELLO, Reply, Request};
use crate::models::{Alignment, VoiceInput};

/// What a child is started to be.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum EngineCommand {
    /// Speech to text.
    Transcriber {
        /// A Whisper model, ggml.
        #[arg(long)]
        model: PathBuf,
        /// What is known of its attention.
        #[arg(long, value_enum, default_value_t = Alignment::Unknown)]
        alignment: Alignment,
        /// Threads to use.
        #[arg(long)]
        threads: u32,
    },
    /// Where speech is, and whose.
    Voices {
        /// Silero VAD, ONNX.
        #[arg(long)]
        vad: PathBuf,
        /// A speaker encoder, ONNX.
        #[arg(long)]
        voice: Option<PathBuf>,
        /// The shortest piece the encoder takes, in samples.
        #[arg(long, default_value_t = 0)]
        minimum: usize,
        /// What the encoder takes.
        #[arg(long, value_enum, default_value_t = VoiceInput::Waveform)]
        input: VoiceInput,
        /// A segmentation network, ONNX.
        #[arg(long)]
        segmentation: Option<PathBuf>,
        /// Threads to use.
        #[arg(long)]
        threads: u32,
        /// ONNX Runtime.
        #[arg(long)]
        library: PathBuf,
    },
}

/// Something that answers requests.
trait Engine {
    /// The answer and its binary part.
    fn answer(&mut self, request: Request, pcm: &[i16]) -> Result<(Reply, Vec<u8>), String>;
}

/// Runs the child until its parent is gone.
///
/// # Errors
/// Whatever the pipes say, other than that they are closed.
pub fn serve(command: EngineCommand) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Neither is a reason not to work: without them the kernel only chooses less well.
    std::fs::write("/proc/self/oom_score_adj", "800").ok();
    rustix::process::nice(10).ok();
    let (mut input, mut output) = (io::stdin().lock(), take_output()?);
    let mut engine = match load(command) {
        Ok(engine) => engine,
        Err(code) => return protocol::write(&mut output, HELLO, &Reply::Failed { code }, &[]),
    };
    protocol::write(&mut output, HELLO, &Reply::Ready, &[])?;
    loop {
        let (number, request, binary) = match protocol::read::<Request>(&mut input) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            message => message?,
        };
        match engine.answer(request, &crate::audio::from_bytes(&binary)) {
            Ok((reply, binary)) => protocol::write(&mut output, number, &reply, &binary)?,
            Err(code) => protocol::write(&mut output, number, &Reply::Failed { code }, &[])?,
        }
    }
}

/// Moves standard output to where only this file writes.
fn take_output() -> io::Result<File> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(File::from(pipe))
}

fn load(command: EngineCommand) -> Result<Box<dyn Engine>, String> {
    match command {
        #[cfg(feature = "whisper")]
        EngineCommand::Transcriber { model, alignment, threads } => {
            Ok(Box::new(super::whisper::Whisper::load(&model, alignment, threads)?))
        }
        #[cfg(not(feature = "whisper"))]
        EngineCommand::Transcriber { .. } => Err("this program was built without the feature whisper".into()),
        #[cfg(feature = "onnx")]
        EngineCommand::Voices { vad, voice, minimum, input, segmentation, threads, library } => {
            let voice = voice.map(|path| super::onnx::VoiceModel { path, minimum, input });
            Ok(Box::new(super::onnx::Onnx::load(&library, &vad, voice, segmentation.as_deref(), threads)?))
        }
        #[cfg(not(feature = "onnx"))]
        EngineCommand::Voices { .. } => Err("this program was built without the feature onnx".into()),
    }
}

#[cfg(feature = "whisper")]
impl Engine for super::whisper::Whisper {
    fn answer(&mut self, request: Request, pcm: &[i16]) -> Result<(Reply, Vec<u8>), String> {
        match request {
            Request::Transcribe => Ok((Reply::Phrases(self.transcribe(pcm)?), Vec::new())),
            Request::Speech | Request::Segment { .. } | Request::Embed { .. } => {
                Err("the transcriber does not hear voices".into())
            }
        }
    }
}

#[cfg(feature = "onnx")]
impl Engine for super::onnx::Onnx {
    fn answer(&mut self, request: Request, pcm: &[i16]) -> Result<(Reply, Vec<u8>), String> {
        match request {
            Request::Speech => Ok((Reply::Probabilities, protocol::float_bytes(&self.speech(pcm)?))),
            Request::Segment { starts } => {
                let (classes, floats) = self.segment(pcm, &starts)?;
                Ok((Reply::Scores { classes }, protocol::float_bytes(&floats)))
            }
            Request::Embed { pieces } => {
                let (dimension, floats) = self.embed(pcm, &pieces)?;
                Ok((Reply::Vectors { dimension }, protocol::float_bytes(&floats)))
            }
            Request::Transcribe => Err("the voice engine does not transcribe".into()),
        }
    }
}
