//! `roomscribe ledger`: whether everything that was ever recorded is accounted for.

use hyper::Method;
use serde_json::{Value, json};
use shared::paths::Root;
use shared::store::LedgerTerm;

use super::queue::now;
use super::{Answer, Failed, client, code, complain, say, waiting};
use crate::ledger;

/// As people add it up.
const TERMS: [LedgerTerm; 8] = [
    LedgerTerm::Withdrawn,
    LedgerTerm::Expired,
    LedgerTerm::Dropped,
    LedgerTerm::DeadLettered,
    LedgerTerm::Acknowledged,
    LedgerTerm::Transcribed,
    LedgerTerm::Queued,
    LedgerTerm::Recording,
];

/// Prints it, and fails if it does not add up.
pub async fn ledger(root: Root, json: bool) -> Answer {
    let bar = waiting("adding up");
    let answer = if client::is_reachable(&root).await {
        client::demand(&root, Method::GET, "/ledger", None).await
    } else {
        here(&root)
    };
    bar.finish_and_clear();
    let answer = answer?;
    say(if json { answer.to_string() } else { describe(&answer) });
    if answer["balances"] == true {
        return Ok(code::DONE);
    }
    complain(answer["message"].as_str().unwrap_or("the ledger does not add up"));
    Ok(code::FAILED)
}

fn here(root: &Root) -> Result<Value, Failed> {
    let store = super::store(root)?;
    let balance = ledger::balance(&store, root, now()).map_err(|why| Failed::because(&why))?;
    Ok(ledger::ledger_json(&balance))
}

fn line(name: &str, held: &Value) -> String {
    let (sessions, samples) = (held["sessions"].as_u64().unwrap_or(0), held["samples"].as_u64().unwrap_or(0));
    let hours = held["hours"].as_f64().unwrap_or(0.0);
    format!("{name:<14}  {sessions:>9}  {hours:>10.2}  {samples:>16}")
}

fn describe(answer: &Value) -> String {
    let mut lines = vec![format!("{:<14}  {:>9}  {:>10}  {:>16}", "", "sessions", "hours", "samples")];
    lines.push(line("recorded", &answer["recorded"]));
    for term in TERMS {
        let name = json!(term).as_str().unwrap_or_default().to_owned();
        lines.push(line(&format!("  {name}"), &answer["terms"][&name]));
    }
    let findings = answer["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    for finding in findings {
        let about = finding["session_id"].as_str().unwrap_or("the sums");
        lines.push(format!("{about}: {}", finding["message"].as_str().unwrap_or_default()));
    }
    if findings.is_empty() {
        lines.push(answer["message"].as_str().unwrap_or_default().to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_has_its_line_and_every_finding_its_session() {
        let held = json!({ "sessions": 2, "samples": 115_200_000, "hours": 2.0 });
        let answer = json!({
            "recorded": held, "terms": { "queued": held }, "balances": false,
            "findings": [{ "kind": "no_record", "session_id": "a", "message": "its record is missing" }],
        });
        let text = describe(&answer);
        assert_eq!(text.lines().count(), 2 + TERMS.len() + 1);
        assert!(text.contains("  queued                2        2.00         115200000"), "{text}");
        assert!(text.ends_with("a: its record is missing"));
    }
}
