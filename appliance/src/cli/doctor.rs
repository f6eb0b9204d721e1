//! `roomscribe doctor`: what is wrong, why, and what to type.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use shared::paths::Root;

use super::{Answer, client, code, say, waiting};
use crate::doctor::advice::Advice;
use crate::doctor::cause::Shell;
use crate::doctor::gather::{gather, without_socket};
use crate::doctor::{Daemon, Finding, Severity, diagnose};

/// A daemon answers within milliseconds; one that is busy storing takes seconds.
const ANSWER: Duration = Duration::from_secs(5);
/// Columns of a terminal.
const WIDTH: usize = 80;

/// `roomscribe doctor`
pub async fn doctor(root: Root, json: bool) -> Answer {
    let bar = waiting("looking at models, database, microphone and board");
    let found = diagnose(&gather(&root, daemon(&root).await, |name| std::env::var(name).ok()));
    bar.finish_and_clear();
    let shell = Shell(&root);
    if json {
        let findings: Vec<Value> = found.iter().map(|finding| as_json(finding, shell)).collect();
        say(json!({ "findings": findings }));
    } else {
        say(as_text(&found, shell));
    }
    let is_well = found.iter().all(|finding| finding.severity() == Severity::Info);
    Ok(if is_well { code::DONE } else { code::FAILED })
}

/// Who works on the root; of a daemon only what it alone knows.
async fn daemon(root: &Root) -> Daemon {
    if !client::is_reachable(root).await {
        return without_socket(root);
    }
    match tokio::time::timeout(ANSWER, client::demand(root, Method::GET, "/status", None)).await {
        Ok(Ok(status)) => Daemon::Answers {
            session: status["session"].as_str().map(str::to_owned),
            is_failing: status["capture"]["state"] == "failing",
        },
        Ok(Err(_)) | Err(_) => Daemon::Deaf,
    }
}

fn as_json(finding: &Finding, shell: Shell<'_>) -> Value {
    let Advice { symptom, evidence, causes, next_steps } = finding.advice(shell);
    let evidence: serde_json::Map<String, Value> =
        evidence.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    json!({
        "id": finding.id(), "severity": finding.severity(), "symptom": symptom, "evidence": evidence,
        "causes": causes, "next_steps": next_steps,
    })
}

fn as_text(found: &[Finding], shell: Shell<'_>) -> String {
    let mut lines = Vec::new();
    for finding in found {
        let Advice { symptom, evidence, causes, next_steps } = finding.advice(shell);
        lines.push(format!("{}  {}", finding.severity().name().to_uppercase(), finding.id()));
        lines.extend(wrapped(&symptom, "  ", "  "));
        for (name, value) in evidence {
            lines.extend(figure(name, &value));
        }
        lines.extend(causes.iter().flat_map(|cause| wrapped(cause, "  - ", "    ")));
        // A command is never broken: it is there to be copied.
        lines.extend(next_steps.iter().map(|step| format!("  $ {step}")));
        lines.push(String::new());
    }
    lines.push(match found.len() {
        0 => "Nothing is wrong.".into(),
        1 => "1 finding".into(),
        many => format!("{many} findings"),
    });
    lines.join("\n")
}

fn figure(name: &str, value: &Value) -> Vec<String> {
    let named = match name.strip_suffix("_s") {
        Some(name) => format!("{name} (s)"),
        None => name.to_owned(),
    };
    let head = format!("    {}: ", named.replace('_', " "));
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => wrapped(text, &head, "      "),
        Value::Array(all) => {
            let lines = all.iter().filter_map(Value::as_str).flat_map(|line| wrapped(line, "      ", "        "));
            std::iter::once(head.trim_end().to_owned()).chain(lines).collect()
        }
        other => vec![format!("{head}{other}")],
    }
}

/// Breaks text between words, so that no line is longer than a terminal is wide unless one word is.
fn wrapped(text: &str, first: &str, rest: &str) -> Vec<String> {
    let mut lines = vec![first.to_owned()];
    let mut is_begun = false;
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if is_begun && line + 1 + word.chars().count() > WIDTH {
            lines.push(rest.to_owned());
            is_begun = false;
        }
        if let Some(line) = lines.last_mut() {
            if is_begun {
                line.push(' ');
            }
            line.push_str(word);
            is_begun = true;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_a_long_word_stands_alone() {
        let text = "word ".repeat(40) + &"x".repeat(90);
        let lines = wrapped(&text, "  - ", "    ");
        assert!(lines[0].starts_with("  - word") && lines[1].starts_with("    word"));
        assert_eq!(lines.iter().filter(|line| line.chars().count() > WIDTH).count(), 1);
    }
}
