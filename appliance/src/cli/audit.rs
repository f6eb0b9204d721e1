//! `roomscribe audit`: who did what and when, and whether the log of it is whole.

use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;
use shared::paths::Root;
use shared::store::{Action, AuditEntry, AuditHead, By, Store};

use super::queue::{now, span};
use super::{Answer, Failed, client, code, complain, say, waiting};
use crate::audit;

/// What of the log is wanted.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// How far back, by the box's clock: 90s, 15m, 1h, 7d.
    #[arg(long, value_parser = span, conflicts_with = "verify")]
    since: Option<Duration>,
    /// Hold every row against the one before it, and print the head.
    #[arg(long)]
    verify: bool,
    /// A head that was printed before and kept elsewhere, NUMBER:HASH: is its row still that row?
    #[arg(long, requires = "verify", value_name = "HEAD")]
    noted: Option<AuditHead>,
}

/// Prints the log, or what is wrong with it.
pub async fn audit(root: Root, arguments: AuditArguments, json: bool) -> Answer {
    let AuditArguments { since, verify, noted } = arguments;
    let is_reachable = client::is_reachable(&root).await;
    if !verify {
        let answer = match is_reachable {
            true => client::demand(&root, Method::GET, &list_path(since), None).await?,
            false => audit::log(&super::store(&root)?, since, now()).map_err(|why| Failed::because(&why))?,
        };
        say(if json { answer.to_string() } else { table(&answer) });
        return Ok(code::DONE);
    }
    let bar = waiting("walking the chain");
    let answer = match is_reachable {
        true => client::demand(&root, Method::GET, &verify_path(noted.as_ref()), None).await,
        false => super::store(&root)
            .and_then(|store| audit::verify(&store, noted.as_ref()).map_err(|why| Failed::because(&why))),
    };
    bar.finish_and_clear();
    Ok(judge(&answer?, json))
}

/// Prints what walking the chain has found; the code says whether it is whole.
fn judge(answer: &Value, json: bool) -> u8 {
    let (message, is_sound) = (answer["message"].as_str().unwrap_or_default(), answer["sound"] == true);
    if json {
        say(answer);
    } else if is_sound {
        let head = answer["head"].as_str().unwrap_or_default();
        say(format!("{message}\nIts head, to be noted where this box cannot write: {head}"));
    }
    if is_sound {
        return code::DONE;
    }
    complain(message);
    code::FAILED
}

/// What was said is about to be read: that is written down first, or it is not read.
pub fn exported(store: &Store, session: &str) -> Result<(), Failed> {
    let entry = AuditEntry { by: By::local(now()), action: Action::RecordExported, subject: Some(session) };
    store.audit(&entry).map_err(|why| Failed::because(&why))
}

fn list_path(since: Option<Duration>) -> String {
    since.map_or("/audit".into(), |since| format!("/audit?since_s={}", since.as_secs()))
}

fn verify_path(noted: Option<&AuditHead>) -> String {
    noted.map_or("/audit/verify".into(), |noted| format!("/audit/verify?noted={noted}"))
}

fn table(answer: &Value) -> String {
    let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Whoever can write the database must not reach the terminal of whoever reads it.
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").escape_default().to_string();
    let line = |row: &Value| {
        format!(
            "{:>6}  {:<24}  {:<13}  {:<18}  {}",
            row["number"].as_i64().unwrap_or(0),
            text(row, "at"),
            text(row, "actor"),
            text(row, "action"),
            text(row, "subject")
        )
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    let left_out = answer["left_out"].as_u64().unwrap_or(0);
    if left_out > 0 {
        lines.insert(0, format!("{left_out} older rows are left out; ask for less with --since"));
    }
    if lines.is_empty() {
        lines.push("Nothing was done.".into());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_log_is_a_line_a_row_and_says_what_it_leaves_out() {
        let row = json!({ "number": 7, "at": "2026-01-01T00:00:00.000Z", "actor": "local\u{1b}[2J",
                          "action": "record_exported", "subject": "a" });
        let text = table(&json!({ "rows": [row], "left_out": 3 }));
        assert!(text.starts_with("3 older rows are left out") && text.ends_with("record_exported     a"), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert_eq!(table(&json!({ "rows": [], "left_out": 0 })), "Nothing was done.");
    }

    #[test]
    fn a_log_that_is_not_whole_fails() {
        let answer = |sound: bool| json!({ "sound": sound, "rows": 1, "head": "1:00", "message": "m" });
        assert_eq!((judge(&answer(true), false), judge(&answer(false), true)), (code::DONE, code::FAILED));
    }
}
