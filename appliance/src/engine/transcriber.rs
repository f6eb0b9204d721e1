//! The transcriber as the worker sees it: the best model installed, or a smaller one, in a child.

use std::sync::Arc;
use std::time::Duration;

use shared::error::EngineFault;

use super::child::EngineChild;
use super::protocol::{Reply, Request};
use super::{Heard, Transcriber};
use crate::engines::Engines;
use crate::models::Role;

/// See the top of the file.
pub struct ChildTranscriber {
    engines: Arc<Engines>,
    child: Option<EngineChild>,
}

impl ChildTranscriber {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(engines: Arc<Engines>) -> Self {
        Self { engines, child: None }
    }
}

impl Transcriber for ChildTranscriber {
    fn rungs(&self) -> u32 {
        self.engines.rungs(Role::Transcriber)
    }

    async fn transcribe(&mut self, pcm: &[i16], rung: u32) -> Result<Heard, EngineFault> {
        let model = self.engines.model(Role::Transcriber, rung).await?;
        let spec = self.engines.transcriber_spec(&model);
        let child = self.child.get_or_insert_with(|| EngineChild::new(spec.clone()));
        child.configure(spec);
        let deadline: Duration = self.engines.deadline(pcm.len());
        match child.ask(&Request::Transcribe, &crate::audio::to_bytes(pcm), deadline).await? {
            (Reply::Phrases(phrases), _) => Ok(Heard { model: model.entry.id.clone(), phrases }),
            _ => Err(child.distrust("the transcriber answered something else")),
        }
    }
}
