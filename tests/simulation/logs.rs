//! What a box writes into its log while everything goes wrong, held against the guide's chapter on logging.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tests::sim;
use tracing_subscriber::fmt::MakeWriter;

/// The guide's five fields.
const FIELDS: [&str; 5] = ["session_id", "error_type", "is_retryable", "retry_count", "circuit_breaker_state"];

/// What is logged about failures, at the guide's level of it.
const FAILURES: [(&str, &str); 6] = [
    ("An attempt failed; trying again.", "WARN"),
    ("Transcription failed for a window.", "ERROR"),
    ("Diarization failed for a window.", "WARN"),
    ("Session failed.", "ERROR"),
    ("Session failed: neither words nor speakers.", "ERROR"),
    ("Using undiarized transcript.", "WARN"),
];

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The log of a few worlds, as the box writes it in JSON.
fn log() -> String {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(lines.clone()).finish();
    tracing::subscriber::with_default(subscriber, || (1..=8).for_each(|seed| drop(sim::run(seed))));
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_failure_is_logged_at_its_level_with_the_guides_five_fields_and_never_a_word_that_was_said() {
    let _alone = crate::ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let log = log();
    assert!(!log.contains("word-"), "a word that was said is in the log");
    let mut levels: BTreeMap<String, String> = BTreeMap::new();
    let mut critical: Vec<String> = Vec::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let (message, level) = (event["message"].as_str().unwrap(), event["level"].as_str().unwrap());
        if event["severity"] == "critical" {
            assert_eq!((level, &event["target"]), ("ERROR", &Value::from("critical")), "journald's priority 2");
            critical.push(message.into());
        }
        if FAILURES.iter().any(|(failure, _)| *failure == message) {
            levels.insert(message.into(), level.into());
            let missing: Vec<&str> = FIELDS.into_iter().filter(|field| event[*field].is_null()).collect();
            assert!(missing.is_empty(), "{message} has no {missing:?}");
        }
    }
    let expected: BTreeMap<String, String> = FAILURES.map(|(m, l)| (m.to_owned(), l.to_owned())).into();
    assert_eq!(levels, expected, "each is seen, at its level");
    critical.sort();
    critical.dedup();
    assert_eq!(critical, ["Circuit breaker opened.", "Session failed: neither words nor speakers."]);
}
