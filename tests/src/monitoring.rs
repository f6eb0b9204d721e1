//! The alert rules and the dashboard of `sync/monitoring`, and which metrics they name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::repository;

/// Where they lie.
#[must_use]
pub fn folder() -> PathBuf {
    repository().join("sync/monitoring")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect("it is in the repository")
}

/// The alert rules.
#[must_use]
pub fn rules() -> String {
    read("roomscribe.rules.yml")
}

/// The dashboard.
///
/// # Panics
/// If it is not JSON.
#[must_use]
pub fn dashboard() -> Value {
    serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON")
}

/// What its panels and variables ask Prometheus.
#[must_use]
pub fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.filter_map(|target| target["expr"].as_str().map(str::to_owned)).collect()
}

/// Every metric of ours that a text names.
#[must_use]
pub fn metrics_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("roomscribe_") || word.starts_with("resilience4j_"))
        .map(str::to_owned)
        .collect()
}

/// Every metric of rules and dashboard must be on one of the pages.
///
/// # Panics
/// If one is not, with its name.
pub fn assert_measured(pages: &[String]) {
    let named = metrics_named(&(rules() + &dashboard().to_string()));
    let missing: Vec<&String> = named.iter().filter(|name| !pages.iter().any(|page| holds(page, name))).collect();
    assert!(!named.is_empty() && missing.is_empty(), "no page has {missing:?}");
}

/// Whether a page has the metric, or the summary that it is a part of.
fn holds(page: &str, name: &str) -> bool {
    let whole = name.strip_suffix("_sum").or(name.strip_suffix("_count"));
    let is = |line: &str, name: &str, kind: &str| line.strip_prefix("# TYPE ") == Some(&format!("{name} {kind}"));
    page.lines().any(|line| {
        let plain = is(line, name, "gauge") || is(line, name, "counter");
        plain || whole.is_some_and(|whole| is(line, whole, "summary"))
    })
}
