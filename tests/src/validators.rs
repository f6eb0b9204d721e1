//! Other people's programs that read what is written here: exports, contracts, alert rules. Where one refuses, it is
//! said where, and never what was said there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::repository;

/// What `./dev setup` fetched for the tests.
fn check(name: &str) -> PathBuf {
    let fetched = std::env::var_os("ROOMSCRIBE_TEST_CHECKS");
    let path = fetched.map_or_else(|| repository().join("target/checks"), PathBuf::from).join(name);
    assert!(path.exists(), "{} is missing: run ./dev setup", path.display());
    path
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    command.output().unwrap_or_else(|why| panic!("{} is missing: run ./dev setup ({why})", program.display()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// NIST's `rttmValidator.pl` must take a file without a warning. There is no text in one that it could show.
///
/// # Panics
/// If it does not, with its words.
pub fn rttm_validator_accepts(file: &Path) {
    let said = run(Command::new("perl").arg(check("sctk/rttmValidator.pl")).arg("-i").arg(file));
    let words = text(&said.stdout) + &text(&said.stderr);
    let is_silent = said.stderr.is_empty() && !words.contains("ERROR") && !words.contains("WARNING");
    assert!(said.status.success() && is_silent, "rttmValidator.pl: {words}");
}

/// Whether NIST's `stmValidator.pl` takes a file as being in this language (it knows `english`, and all others alike).
#[must_use]
pub fn stm_validator_accepts(file: &Path, language: &str) -> bool {
    let program = check("sctk/stmValidator.pl");
    let said = run(Command::new("perl").arg(program).args(["-s", "-l", language, "-i"]).arg(file));
    said.status.success() && said.stderr.is_empty()
}

/// A cue, as the W3C's parser for `WebVTT` reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Cue {
    /// Seconds.
    pub start: f64,
    /// Seconds.
    pub end: f64,
    /// Of `<v>`, as it stands there.
    pub speaker: Option<String>,
    /// Of the outermost tag.
    pub classes: Vec<String>,
    /// Of all tags.
    pub text: shared::record::Said,
}

/// The cues of each file, as the W3C's parser reads them without a complaint.
///
/// # Panics
/// If it has one, with its words.
#[must_use]
pub fn webvtt_cues(files: &[PathBuf]) -> Vec<Vec<Cue>> {
    let mut node = Command::new(check("node"));
    node.arg(repository().join("tests/tools/read_webvtt.js")).arg(check("webvtt-parser")).args(files);
    let said = run(&mut node);
    assert!(said.status.success(), "read_webvtt.js: {}", text(&said.stderr));
    let read: Vec<Value> =
        text(&said.stdout).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(read.len(), files.len());
    for (file, found) in files.iter().zip(&read) {
        assert_eq!(found["errors"], serde_json::json!([]), "{}", file.display());
    }
    read.iter().map(|found| found["cues"].as_array().into_iter().flatten().map(cue).collect()).collect()
}

fn cue(cue: &Value) -> Cue {
    let classes = cue["classes"].as_array().into_iter().flatten();
    Cue {
        start: cue["start"].as_f64().unwrap_or_default(),
        end: cue["end"].as_f64().unwrap_or_default(),
        speaker: cue["speaker"].as_str().map(str::to_owned),
        classes: classes.filter_map(Value::as_str).map(str::to_owned).collect(),
        text: shared::record::Said(cue["text"].as_str().unwrap_or_default().to_owned()),
    }
}

/// Every file must hold a `DocumentReference` that the R4B models of `fhir.resources` take.
///
/// # Panics
/// If one does not, with the places.
pub fn fhir_models_accept(files: &[PathBuf]) {
    let mut python = Command::new("/usr/bin/python3");
    python.arg(repository().join("tests/tools/check_fhir.py")).args(files).env("PYTHONPATH", check("fhir"));
    let said = run(&mut python);
    assert!(said.status.success(), "check_fhir.py: {}{}", text(&said.stdout), text(&said.stderr));
}

/// What the AsyncAPI initiative's parser has to say of a document: nothing, or a line for each complaint.
///
/// # Errors
/// The complaints.
///
/// # Panics
/// If the parser cannot be run.
pub fn asyncapi_parser_accepts(file: &Path) -> Result<(), String> {
    let mut node = Command::new(check("node"));
    node.arg(repository().join("tests/tools/check_asyncapi.js")).arg(check("asyncapi/node_modules")).arg(file);
    let said = run(&mut node);
    assert!(said.stderr.is_empty(), "check_asyncapi.js: {}", text(&said.stderr));
    if said.status.success() && said.stdout.is_empty() { Ok(()) } else { Err(text(&said.stdout)) }
}

/// Whether `promtool` takes a file, asked as its words say.
///
/// # Errors
/// What it says where it does not.
///
/// # Panics
/// If it cannot be run.
pub fn promtool_says(words: &[&str], file: &Path) -> Result<(), String> {
    let said = run(Command::new("promtool").args(words).arg(file));
    if said.status.success() { Ok(()) } else { Err(text(&said.stdout) + &text(&said.stderr)) }
}

/// What Schemathesis makes of a server at `url`, whose OpenAPI document is at `document` (an address or a file): nothing, or
/// its report. Every check it has: no server error, and every answer as documented. `only` is one path, or nothing for all.
///
/// # Errors
/// The report.
///
/// # Panics
/// If it cannot be run.
pub fn schemathesis_accepts(url: &str, document: &str, only: Option<&str>) -> Result<(), String> {
    // It leaves a folder where it stands.
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let mut python = Command::new("/usr/bin/python3");
    python.current_dir(scratch.path()).env("PYTHONPATH", check("schemathesis"));
    python.args(["-m", "schemathesis.cli", "run", document, "--url", url]);
    // What boxes are enrolled by is served on another listener.
    python.args(["--checks", "all", "--generation-deterministic", "--no-color", "--exclude-tag", "enrolment"]);
    python.args(["--max-examples", if only.is_some() { "1" } else { "20" }, "--request-timeout", "10"]);
    python.args(only.iter().flat_map(|path| ["--include-path", path]));
    let said = run(&mut python);
    if said.status.success() { Ok(()) } else { Err(text(&said.stdout) + &text(&said.stderr)) }
}
