//! How a program ends when it cannot do what it was asked.

use std::process::ExitCode;

use shared::error::report;

/// Why a command failed, as its exit code and one sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The command line, or what it points at, is wrong. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A setting, key file or enrolment is missing or wrong. Exit code 78.
    #[error("{0}")]
    Configuration(String),
    /// Something this program needs is not there. Exit code 69.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else. Exit code 1.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// From `sysexits.h`, where it has one.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Configuration(_) => 78,
            Self::Unavailable(_) => 69,
            Self::Other(_) => 1,
        }
    }

    /// A configuration failure: what was being done, and the whole chain of why it failed.
    pub fn configuration(doing: &str, why: &dyn std::error::Error) -> Self {
        Self::Configuration(format!("{doing}: {}", report(why)))
    }

    /// Any other failure, told the same way.
    pub fn other(doing: &str, why: &dyn std::error::Error) -> Self {
        Self::Other(format!("{doing}: {}", report(why)))
    }
}

/// Ends a program: says why on standard error, and gives the code.
#[must_use]
pub fn end(program: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{program}: {why}");
            ExitCode::from(why.code())
        }
    }
}
