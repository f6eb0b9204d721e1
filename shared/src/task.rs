//! The two tasks done to every window, side by side. Each is guarded by the breaker of the same name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::breaker::Service;

/// What is done to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Writing down what was said.
    Transcription,
    /// Telling the voices apart.
    Diarization,
}

impl Task {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Transcription, Self::Diarization];

    /// The breaker its calls go through.
    #[must_use]
    pub fn service(self) -> Service {
        match self {
            Self::Transcription => Service::Transcription,
            Self::Diarization => Service::Diarization,
        }
    }

    /// The guide's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.service().name()
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
