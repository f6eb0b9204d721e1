//! The voice engine as the worker sees it: VAD and the best speaker encoder installed, in one child.
//!
//! Two of its users share the child: the windows, which need VAD alone, and the diarization of each window.

use std::ops::Range;
use std::sync::Arc;

use shared::error::EngineFault;
use tokio::sync::Mutex;

use super::Voices;
use super::child::EngineChild;
use super::protocol::{Reply, Request, floats};
use crate::audio::to_bytes;
use crate::engines::Engines;
use crate::models::Role;

/// See the top of the file. Clones share the child.
#[derive(Clone)]
pub struct ChildVoices {
    engines: Arc<Engines>,
    child: Arc<Mutex<Option<EngineChild>>>,
}

impl ChildVoices {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(engines: Arc<Engines>) -> Self {
        Self { engines, child: Arc::default() }
    }

    async fn ask(&self, request: Request, pcm: &[i16]) -> Result<(Reply, Vec<u8>), EngineFault> {
        let vad = self.engines.model(Role::Vad, 0).await?;
        let voice = match (&request, self.engines.model(Role::Voice, 0).await) {
            (_, Ok(voice)) => Some(voice),
            // Windows can be cut without a speaker encoder.
            (Request::Speech, Err(_)) => None,
            (_, Err(why)) => return Err(why),
        };
        let spec = self.engines.voices_spec(&vad, voice.as_ref())?;
        let mut child = self.child.lock().await;
        let child = child.get_or_insert_with(|| EngineChild::new(spec.clone()));
        child.configure(spec);
        child.ask(&request, &to_bytes(pcm), self.engines.deadline(pcm.len())).await
    }
}

fn unexpected() -> EngineFault {
    EngineFault::Reported { code: "the voice engine answered something else".into() }
}

impl Voices for ChildVoices {
    async fn model(&mut self) -> Result<String, EngineFault> {
        Ok(self.engines.model(Role::Voice, 0).await?.entry.id.clone())
    }

    async fn speech(&mut self, pcm: &[i16]) -> Result<Vec<f32>, EngineFault> {
        match self.ask(Request::Speech, pcm).await? {
            (Reply::Probabilities, binary) => Ok(floats(&binary)),
            _ => Err(unexpected()),
        }
    }

    async fn embed(&mut self, pcm: &[i16], pieces: &[Range<usize>]) -> Result<Vec<Vec<f32>>, EngineFault> {
        if pieces.is_empty() {
            return Ok(Vec::new());
        }
        match self.ask(Request::Embed { pieces: pieces.to_vec() }, pcm).await? {
            (Reply::Vectors { dimension }, binary) if dimension > 0 => {
                let vectors: Vec<Vec<f32>> = floats(&binary).chunks_exact(dimension).map(<[f32]>::to_vec).collect();
                if vectors.len() == pieces.len() { Ok(vectors) } else { Err(unexpected()) }
            }
            _ => Err(unexpected()),
        }
    }
}
