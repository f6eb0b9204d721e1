//! ONNX Runtime, in the child: Silero VAD and a speaker encoder. The only file that names `ort`.
//!
//! Silero VAD at 16 kHz: `input` [1, 64 of context + 512], `state` [2, 1, 128], `sr`; gives `output` [1, 1] and
//! `stateN`. A speaker encoder: `waveform` [1, samples] to `embedding` [1, dimension], unit length.

use std::ops::Range;
use std::path::Path;

use ort::environment::Environment;
use ort::session::Session;
use ort::value::{Tensor, TensorRef};

use super::protocol::VAD_FRAME;
use crate::audio::to_float;

const CONTEXT: usize = 64;
const STATE: usize = 2 * 128;

/// The two networks.
pub struct Onnx {
    vad: Session,
    voice: Option<Session>,
    minimum: usize,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn session(environment: &Environment, model: &Path, threads: u32) -> Result<Session, String> {
    Session::builder(environment)
        .map_err(text)?
        .with_intra_threads(threads.max(1) as usize)
        .map_err(text)?
        .with_intra_op_spinning(false)
        .map_err(text)?
        .commit_from_file(model)
        .map_err(text)
}

impl Onnx {
    pub fn load(
        library: &Path,
        vad: &Path,
        voice: Option<&Path>,
        minimum: usize,
        threads: u32,
    ) -> Result<Self, String> {
        let environment = ort::init_from(library).map_err(text)?.build().map_err(text)?;
        Ok(Self {
            vad: session(&environment, vad, 1)?,
            voice: voice.map(|v| session(&environment, v, threads)).transpose()?,
            minimum,
        })
    }

    /// One probability a frame; the last frame is filled up with silence.
    pub fn speech(&mut self, pcm: &[i16]) -> Result<Vec<f32>, String> {
        let mut samples = vec![0.0; CONTEXT];
        samples.extend(to_float(pcm));
        samples.resize(CONTEXT + pcm.len().div_ceil(VAD_FRAME) * VAD_FRAME, 0.0);
        let mut state = vec![0.0f32; STATE];
        let rate = [16_000i64];
        let mut probabilities = Vec::with_capacity(samples.len() / VAD_FRAME);
        for at in (0..samples.len() - CONTEXT).step_by(VAD_FRAME) {
            let frame = &samples[at..at + CONTEXT + VAD_FRAME];
            let outputs = self
                .vad
                .run(ort::inputs![
                    "input" => TensorRef::from_array_view(([1, frame.len()], frame)).map_err(text)?,
                    "state" => Tensor::from_array(([2usize, 1, 128], state.clone())).map_err(text)?,
                    "sr" => TensorRef::from_array_view(([1usize], rate.as_slice())).map_err(text)?,
                ])
                .map_err(text)?;
            let (_, probability) = outputs["output"].try_extract_tensor::<f32>().map_err(text)?;
            probabilities.push(probability.first().copied().unwrap_or(0.0));
            let (_, next) = outputs["stateN"].try_extract_tensor::<f32>().map_err(text)?;
            state.copy_from_slice(next.get(..STATE).ok_or("the VAD's state has another size")?);
        }
        Ok(probabilities)
    }

    /// The vectors one after the other, and how long each is.
    pub fn embed(&mut self, pcm: &[i16], pieces: &[Range<usize>]) -> Result<(usize, Vec<f32>), String> {
        let voice = self.voice.as_mut().ok_or("no voice model was given")?;
        let samples = to_float(pcm);
        let (mut dimension, mut vectors) = (0, Vec::new());
        for piece in pieces {
            let piece = samples.get(piece.clone()).filter(|p| !p.is_empty()).ok_or("a piece is out of range")?;
            let repeated: Vec<f32> = piece.iter().copied().cycle().take(piece.len().max(self.minimum)).collect();
            let input = Tensor::from_array(([1, repeated.len()], repeated)).map_err(text)?;
            let outputs = voice.run(ort::inputs!["waveform" => input]).map_err(text)?;
            let (_, vector) = outputs["embedding"].try_extract_tensor::<f32>().map_err(text)?;
            dimension = vector.len();
            vectors.extend_from_slice(vector);
        }
        Ok((dimension, vectors))
    }
}
