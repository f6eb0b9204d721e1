//! The PLDA of a voice model, read from its files.

use shared::error::EngineFault;

use super::{Installed, Models, Role, ranked};
use crate::diarize::plda::Plda;

/// A PLDA that is in the model folder and is what it should be.
#[derive(Debug, Clone)]
pub struct InstalledPlda {
    /// What it says of voices.
    pub plda: Plda,
    /// The ids of its files in the lock file.
    pub ids: Vec<String>,
}

impl Models {
    /// The PLDA of a voice model, given by its id; `None` where there is none.
    ///
    /// # Errors
    /// [`EngineFault::ModelUnusable`] if one of its files is missing or damaged.
    pub fn read_plda(&self, voice: &str) -> Result<Option<InstalledPlda>, EngineFault> {
        let Some(voice) = ranked(Role::Voice).find(|entry| entry.id == voice) else { return Ok(None) };
        let Some((transform, plda)) = self.plda(voice)? else { return Ok(None) };
        let ids = [&transform, &plda].map(|file| file.entry.id.clone()).to_vec();
        let bytes = |file: &Installed| {
            std::fs::read(&file.path).map_err(|_| self.unusable(Role::Plda, &file.entry.file, "cannot be read"))
        };
        let read = Plda::read(&bytes(&transform)?, &bytes(&plda)?);
        let plda = read.map_err(|why| self.unusable(Role::Plda, &plda.entry.file, &why.to_string()))?;
        Ok(Some(InstalledPlda { plda, ids }))
    }
}
