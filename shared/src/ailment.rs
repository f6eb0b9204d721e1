//! What a health check finds before work: reasons to open a breaker although no call has failed yet.
//!
//! The sentence is constant, so that people can group by it; what differs from case to case is in `explain`.

use serde::{Deserialize, Serialize};

/// Why work should not be begun now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Ailment {
    /// The board is too hot: it would slow down, and the audio with it.
    #[error("The board is too hot")]
    TooHot {
        /// Thousandths of a degree Celsius.
        milli_celsius: i64,
        /// The most at which work is begun.
        limit_milli_celsius: i64,
    },
    /// The power supply is too weak: the firmware says so.
    #[error("The power supply is too weak")]
    UnderVoltage,
    /// There is too little memory for the engine.
    #[error("There is too little free memory")]
    LowMemory {
        /// MiB that are free.
        free_mib: u64,
        /// MiB below which no work is begun.
        limit_mib: u64,
    },
    /// There is too little room for results.
    #[error("There is too little free disk space")]
    LowDisk {
        /// MiB that are free.
        free_mib: u64,
        /// MiB below which no work is begun.
        limit_mib: u64,
    },
    /// The model is missing or is not what it should be.
    #[error("The model is missing or damaged")]
    ModelUnusable {
        /// File name of the model, or the role if none is installed.
        model: String,
        /// What is wrong with it.
        problem: String,
        /// A command that mends it.
        remedy: String,
    },
}

impl Ailment {
    /// Whether it lies with the board and passes by itself, so that work need only wait for it.
    #[must_use]
    pub fn is_of_the_board(&self) -> bool {
        match self {
            Self::TooHot { .. } | Self::UnderVoltage | Self::LowMemory { .. } | Self::LowDisk { .. } => true,
            Self::ModelUnusable { .. } => false,
        }
    }

    /// One line for people, with what differs from case to case.
    #[must_use]
    pub fn explain(&self) -> String {
        let degrees = |milli: i64| format!("{}.{} °C", milli / 1000, (milli % 1000).abs() / 100);
        match self {
            Self::TooHot { milli_celsius, limit_milli_celsius } => {
                format!("{self}: {}, limit {}", degrees(*milli_celsius), degrees(*limit_milli_celsius))
            }
            Self::UnderVoltage => format!("{self}: use the supply that came with the board"),
            Self::LowMemory { free_mib, limit_mib } | Self::LowDisk { free_mib, limit_mib } => {
                format!("{self}: {free_mib} MiB, needed {limit_mib} MiB")
            }
            Self::ModelUnusable { model, problem, remedy } => {
                format!("ModelUnusable: {model} {problem}; fetch it with: {remedy}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_constant_and_an_explanation_has_the_figures() {
        let hot = Ailment::TooHot { milli_celsius: 81_250, limit_milli_celsius: 80_000 };
        assert_eq!(hot.to_string(), "The board is too hot");
        assert_eq!(hot.explain(), "The board is too hot: 81.2 °C, limit 80.0 °C");
        let full = Ailment::LowDisk { free_mib: 12, limit_mib: 64 };
        assert_eq!(full.explain(), "There is too little free disk space: 12 MiB, needed 64 MiB");
    }
}
