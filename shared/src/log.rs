//! Logging, set up once by each program: journald under systemd, else lines or JSON on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

/// How a program logs when it is not under journald.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One readable line per event.
    Lines,
    /// One JSON object per event.
    Json,
    /// Nothing, unless `RUST_LOG` asks for it: for commands whose output is their answer.
    Quiet,
}

/// Starts logging. `RUST_LOG` overrides the level; `under_journald` is whether systemd reads standard error.
pub fn start(style: Style, under_journald: bool) {
    let level = match style {
        Style::Lines | Style::Json => "info",
        Style::Quiet => "off",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let registry = tracing_subscriber::registry().with(filter);
    let journald = under_journald.then(tracing_journald::layer).and_then(Result::ok);
    let started = match (journald, style) {
        (Some(layer), _) => registry.with(layer).try_init(),
        (None, Style::Json) => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
        (None, Style::Lines | Style::Quiet) => registry
            .with(tracing_subscriber::fmt::layer().with_target(false).with_ansi(false).with_writer(std::io::stderr))
            .try_init(),
    };
    // Only a second start can fail, and then logging already works.
    drop(started);
}
