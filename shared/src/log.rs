//! Logging, set up once by each program: journald under systemd, else lines or JSON on standard error.

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;

/// The target of what is critical: journald's priority 2, which no level of `tracing` stands for.
pub const CRITICAL: &str = "critical";

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
    let started = match (under_journald.then(journald).flatten(), style) {
        (Some(layers), _) => registry.with(layers).try_init(),
        (None, Style::Json) => {
            let json = tracing_subscriber::fmt::layer().json().flatten_event(true);
            registry.with(json.with_writer(std::io::stderr)).try_init()
        }
        (None, Style::Lines | Style::Quiet) => registry
            .with(tracing_subscriber::fmt::layer().with_target(false).with_ansi(false).with_writer(std::io::stderr))
            .try_init(),
    };
    // Only a second start can fail, and then logging already works.
    drop(started);
}

/// The guide's fields by their own names (`SESSION_ID=…`), and what is critical under its own priority.
fn journald<S>() -> Option<impl tracing_subscriber::Layer<S>>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let mut critical = PriorityMappings::new();
    critical.error = Priority::Critical;
    let plain = tracing_journald::layer().ok()?.with_field_prefix(None);
    let grave = tracing_journald::layer().ok()?.with_field_prefix(None).with_priority_mappings(critical);
    let is_critical = |metadata: &tracing::Metadata<'_>| metadata.target() == CRITICAL;
    let plain = plain.with_filter(filter_fn(move |metadata| !is_critical(metadata)));
    Some(plain.and_then(grave.with_filter(filter_fn(is_critical))))
}
