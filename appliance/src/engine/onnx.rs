//! ONNX Runtime, in the child: Silero VAD, a speaker encoder, a segmentation network. The only file that names `ort`.
//!
//!   Silero VAD at 16 kHz   `input` [1, 64 of context + 512], `state` [2, 1, 128], `sr` ─▶ `output` [1, 1], `stateN`
//!   speaker encoder        [1, samples], or [1, frames, 80] of filter bank ─▶ [1, dimension]
//!   segmentation           [1, 1, 160000] ─▶ [1, frames, classes], pyannote's segmentation 3.0
//!
//! Networks of the last two kinds name their inputs and outputs as they like; the first of each is used.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::session::Session;
use ort::value::{Tensor, TensorRef};

use super::fbank::{FilterBank, MEL_BANDS, Window};
use super::protocol::{CHUNK, VAD_FRAME};
use crate::audio::to_float;
use crate::models::VoiceInput;

const CONTEXT: usize = 64;
const STATE: usize = 2 * 128;

/// How a speaker encoder is used.
pub struct VoiceModel {
    pub path: PathBuf,
    /// Samples of the shortest piece it takes; shorter ones are repeated up to it.
    pub minimum: usize,
    pub input: VoiceInput,
}

struct Encoder {
    session: Session,
    minimum: usize,
    bank: Option<FilterBank>,
}

/// The networks.
pub struct Onnx {
    vad: Session,
    voice: Option<Encoder>,
    segmentation: Option<Session>,
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

/// The one output of a network with one input, and its shape.
fn run<const N: usize>(
    session: &mut Session,
    shape: [usize; N],
    input: Vec<f32>,
) -> Result<(Vec<i64>, Vec<f32>), String> {
    let outputs = session.run(ort::inputs![Tensor::from_array((shape, input)).map_err(text)?]).map_err(text)?;
    let (shape, values) = outputs[0].try_extract_tensor::<f32>().map_err(text)?;
    Ok((shape.to_vec(), values.to_vec()))
}

impl Onnx {
    pub fn load(
        library: &Path,
        vad: &Path,
        voice: Option<VoiceModel>,
        segmentation: Option<&Path>,
        threads: u32,
    ) -> Result<Self, String> {
        let environment = ort::init_from(library).map_err(text)?.build().map_err(text)?;
        let encoder = |model: VoiceModel| -> Result<Encoder, String> {
            let bank = match model.input {
                VoiceInput::Waveform => None,
                VoiceInput::FbankHamming => Some(FilterBank::new(Window::Hamming)),
                VoiceInput::FbankPovey => Some(FilterBank::new(Window::Povey)),
            };
            Ok(Encoder { session: session(&environment, &model.path, threads)?, minimum: model.minimum, bank })
        };
        Ok(Self {
            vad: session(&environment, vad, 1)?,
            voice: voice.map(encoder).transpose()?,
            segmentation: segmentation.map(|model| session(&environment, model, threads)).transpose()?,
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

    /// The scores of every frame of each chunk, one after the other, and how many a frame has.
    pub fn segment(&mut self, pcm: &[i16], starts: &[usize]) -> Result<(usize, Vec<f32>), String> {
        let network = self.segmentation.as_mut().ok_or("no segmentation model was given")?;
        let samples = to_float(pcm);
        let (mut classes, mut scores) = (0, Vec::new());
        for start in starts {
            let rest = samples.get(*start..).ok_or("a chunk begins behind the audio")?;
            let mut chunk = rest[..rest.len().min(CHUNK)].to_vec();
            chunk.resize(CHUNK, 0.0);
            let (shape, values) = run(network, [1, 1, CHUNK], chunk)?;
            classes = shape.last().and_then(|n| usize::try_from(*n).ok()).unwrap_or(0);
            scores.extend(values);
        }
        Ok((classes, scores))
    }

    /// The vectors one after the other, and how long each is.
    pub fn embed(&mut self, pcm: &[i16], pieces: &[Vec<Range<usize>>]) -> Result<(usize, Vec<f32>), String> {
        let voice = self.voice.as_mut().ok_or("no voice model was given")?;
        let samples = to_float(pcm);
        let (mut dimension, mut vectors) = (0, Vec::new());
        for piece in pieces {
            let mut heard = Vec::new();
            for stretch in piece {
                heard.extend_from_slice(samples.get(stretch.clone()).ok_or("a piece is out of range")?);
            }
            if heard.is_empty() {
                return Err("a piece is empty".into());
            }
            let length = heard.len().max(voice.minimum);
            let repeated: Vec<f32> = heard.iter().copied().cycle().take(length).collect();
            let (_, vector) = match &mut voice.bank {
                None => run(&mut voice.session, [1, length], repeated)?,
                Some(bank) => {
                    let features = bank.normalized(&repeated);
                    run(&mut voice.session, [1, features.len() / MEL_BANDS, MEL_BANDS], features)?
                }
            };
            dimension = vector.len();
            vectors.extend(vector);
        }
        Ok((dimension, vectors))
    }
}
