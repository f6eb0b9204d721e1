//! Engines are other processes: whisper.cpp and ONNX Runtime abort, hang and run out of memory, and a child does
//! that without hurting the recording. The parent holds deadline, memory limit and the verdict on how it died.

pub mod child;
mod exchange;
#[cfg(feature = "onnx")]
mod fbank;
pub mod phrases;
mod process;
pub mod protocol;
pub mod serve;
pub mod transcriber;
pub mod voices;

#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "whisper")]
mod whisper;

use std::future::Future;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use shared::error::EngineFault;
use shared::record::Said;

use crate::diarize::powerset::Set;

/// A word as the transcriber heard it; seconds from the start of the audio it was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeardWord {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// The word, without its leading space.
    pub text: Said,
    /// Mean probability of its tokens.
    pub probability: f64,
}

/// A phrase as the transcriber divides speech; seconds from the start of the audio it was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phrase {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// Its words.
    pub words: Vec<HeardWord>,
}

/// What a transcriber heard, and which model did.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Id of the model.
    pub model: String,
    /// In order of time.
    pub phrases: Vec<Phrase>,
}

/// Turns speech into words. Dropping the future stops the work: a deadline must not leave a core busy.
pub trait Transcriber {
    /// How many models there are to choose from, the best first; at least one.
    fn rungs(&self) -> u32;

    /// Transcribes 16 kHz mono with model `rung`, counted from the best, 0.
    fn transcribe(&mut self, pcm: &[i16], rung: u32) -> impl Future<Output = Result<Heard, EngineFault>>;
}

/// Which models tell voices apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoiceModels {
    /// Id of the speaker encoder.
    pub voice: String,
    /// Id of the segmentation network, where one is used.
    pub segmentation: Option<String>,
}

/// Hears where speech is and whose it may be.
pub trait Voices {
    /// The models that tell voices apart.
    fn models(&mut self) -> impl Future<Output = Result<VoiceModels, EngineFault>>;

    /// Probability of speech in each frame of [`protocol::VAD_FRAME`] samples.
    fn speech(&mut self, pcm: &[i16]) -> impl Future<Output = Result<Vec<f32>, EngineFault>>;

    /// Who speaks in each frame of the chunks of [`protocol::CHUNK`] samples that begin at `starts`; what lies behind
    /// `pcm` is silence.
    fn segment(&mut self, pcm: &[i16], starts: &[usize]) -> impl Future<Output = Result<Vec<Vec<Set>>, EngineFault>>;

    /// A vector per piece, whose stretches (in samples of `pcm`) are heard as one; vectors of one model are as long as
    /// each other.
    fn embed(
        &mut self,
        pcm: &[i16],
        pieces: &[Vec<Range<usize>>],
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, EngineFault>>;
}
