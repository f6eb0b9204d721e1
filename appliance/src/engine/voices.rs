//! The voice engine as the worker sees it: VAD and the best speaker encoder installed, in one child.
//!
//! Two of its users share the child: the windows, which need VAD alone, and the diarization of each window.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use shared::error::EngineFault;
use tokio::sync::Mutex;

use super::child::EngineChild;
use super::protocol::{Reply, Request, VAD_FRAME, floats};
use super::{VoiceModels, Voices};
use crate::audio::to_bytes;
use crate::diarize::powerset::{Powerset, Set};
use crate::engines::Engines;
use crate::models::{Installed, Role};

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

    /// The speaker encoder, and the segmentation network that is used beside it.
    async fn telling_apart(&self) -> Result<(Installed, Option<Installed>), EngineFault> {
        let voice = self.engines.model(Role::Voice, 0).await?;
        let segmentation = self.engines.segmentation(voice.entry).await?;
        Ok((voice, segmentation))
    }

    /// Asks, and reads the answer while the child is still this request's own.
    async fn ask<T>(
        &self,
        request: Request,
        pcm: &[i16],
        read: impl FnOnce(&Reply, &[f32]) -> Option<T>,
    ) -> Result<T, EngineFault> {
        let vad = self.engines.model(Role::Vad, 0).await?;
        let (voice, segmentation) = match (&request, self.telling_apart().await) {
            (_, Ok((voice, segmentation))) => (Some(voice), segmentation),
            // Windows can be cut without what tells speakers apart.
            (Request::Speech, Err(_)) => (None, None),
            (_, Err(why)) => return Err(why),
        };
        let spec = self.engines.voices_spec(&vad, voice.as_ref(), segmentation.as_ref())?;
        let mut child = self.child.lock().await;
        let child = child.get_or_insert_with(|| EngineChild::new(spec.clone()));
        child.configure(spec);
        let (reply, binary) = child.ask(&request, &to_bytes(pcm), self.engines.deadline(pcm.len())).await?;
        read(&reply, &floats(&binary)).ok_or_else(|| child.distrust("the voice engine answered something else"))
    }
}

/// One probability a frame.
fn probabilities(reply: &Reply, floats: &[f32], frames: usize) -> Option<Vec<f32>> {
    (matches!(reply, Reply::Probabilities) && floats.len() == frames).then(|| floats.to_vec())
}

/// One vector a piece.
fn vectors(reply: &Reply, floats: &[f32], pieces: usize) -> Option<Vec<Vec<f32>>> {
    let &Reply::Vectors { dimension } = reply else { return None };
    let fits = dimension > 0 && dimension.checked_mul(pieces) == Some(floats.len());
    fits.then(|| floats.chunks_exact(dimension).map(<[f32]>::to_vec).collect())
}

/// The classes of pyannote's segmentation 3.0: three speakers, two at once.
static CLASSES: LazyLock<Powerset> = LazyLock::new(|| Powerset::new(3, 2));

/// The sets of each chunk's frames.
fn sets(reply: &Reply, floats: &[f32], chunks: usize) -> Option<Vec<Vec<Set>>> {
    let &Reply::Scores { classes } = reply else { return None };
    let frames = floats.len().checked_div(classes.checked_mul(chunks)?)?;
    let fits = classes == CLASSES.classes().len() && frames * classes * chunks == floats.len() && frames > 0;
    fits.then(|| floats.chunks_exact(frames * classes).map(|chunk| CLASSES.decode(chunk)).collect())
}

impl Voices for ChildVoices {
    async fn models(&mut self) -> Result<VoiceModels, EngineFault> {
        let (voice, segmentation) = self.telling_apart().await?;
        let segmentation = segmentation.map(|installed| installed.entry.id.clone());
        Ok(VoiceModels { voice: voice.entry.id.clone(), segmentation })
    }

    async fn segment(&mut self, pcm: &[i16], starts: &[usize]) -> Result<Vec<Vec<Set>>, EngineFault> {
        let request = Request::Segment { starts: starts.to_vec() };
        self.ask(request, pcm, |reply, floats| sets(reply, floats, starts.len())).await
    }

    async fn speech(&mut self, pcm: &[i16]) -> Result<Vec<f32>, EngineFault> {
        let frames = pcm.len().div_ceil(VAD_FRAME);
        self.ask(Request::Speech, pcm, |reply, floats| probabilities(reply, floats, frames)).await
    }

    async fn embed(&mut self, pcm: &[i16], pieces: &[Vec<Range<usize>>]) -> Result<Vec<Vec<f32>>, EngineFault> {
        if pieces.is_empty() {
            return Ok(Vec::new());
        }
        let request = Request::Embed { pieces: pieces.to_vec() };
        self.ask(request, pcm, |reply, floats| vectors(reply, floats, pieces.len())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_size_is_none() {
        assert_eq!(probabilities(&Reply::Probabilities, &[0.5, 0.5], 2), Some(vec![0.5, 0.5]));
        assert_eq!(probabilities(&Reply::Probabilities, &[0.5], 2), None);
        assert_eq!(vectors(&Reply::Vectors { dimension: 2 }, &[1.0, 2.0], 1), Some(vec![vec![1.0, 2.0]]));
        for (dimension, pieces) in [(0, 1), (1, 1), (2, 2), (usize::MAX, 2)] {
            assert_eq!(vectors(&Reply::Vectors { dimension }, &[1.0, 2.0], pieces), None);
        }
        assert_eq!(vectors(&Reply::Ready, &[], 1), None);
        assert_eq!(sets(&Reply::Scores { classes: 7 }, &[0.0; 28], 2), Some(vec![vec![0, 0]; 2]));
        for (classes, chunks) in [(0, 1), (7, 0), (7, 3), (8, 2), (usize::MAX, 2)] {
            assert_eq!(sets(&Reply::Scores { classes }, &[0.0; 28], chunks), None);
        }
    }
}
