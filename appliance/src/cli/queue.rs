//! `roomscribe queue` and `roomscribe failures`: what is not well, and what a person can do about it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};
use shared::clock::{Clock as _, SystemClock, WallTime};
use shared::error::report;
use shared::paths::Root;
use shared::store::{By, Dropped, QueueError, Store};

use super::{Answer, Failed, client, code, say, waiting};
use crate::{forget, queue};

#[derive(Debug, Subcommand)]
pub enum QueueAction {
    /// Every session that is not, or not well, at the clinic.
    #[command(after_help = "Example: roomscribe queue list --json")]
    List,
    /// One session: where it stands, why, and what each failed attempt died of.
    #[command(after_help = "Example: roomscribe queue show 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11")]
    Show {
        /// Its id.
        session: String,
    },
    /// Try again what failed or was refused; speakers, too, where only the transcript succeeded.
    #[command(after_help = "Example: roomscribe queue retry 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11")]
    Retry {
        /// Its id.
        session: String,
    },
    /// Give a session up for good: its audio is destroyed.
    #[command(after_help = "Example: roomscribe queue drop 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11 --yes")]
    Drop {
        /// Its id.
        session: String,
        /// Do it: it cannot be undone.
        #[arg(long)]
        yes: bool,
    },
    /// Look for anything stored that cannot be read.
    #[command(after_help = "Example: roomscribe queue check")]
    Check,
    /// Put aside what cannot be read, so that the rest goes on.
    #[command(after_help = "Example: roomscribe queue repair")]
    Repair,
    /// Write what the clinic has not yet, sealed as it is, into a folder to carry there.
    #[command(after_help = "Example: roomscribe queue export --to /media/stick")]
    Export {
        /// The folder.
        #[arg(long)]
        to: PathBuf,
    },
}

pub fn now() -> WallTime {
    SystemClock::new().now().wall
}

fn failed(why: &QueueError) -> Failed {
    Failed::because(why)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// `roomscribe queue`
pub async fn queue(root: Root, action: QueueAction, json: bool) -> Answer {
    let is_reachable = client::is_reachable(&root).await;
    let bar = is_slow(&action).then(|| waiting("reading everything that is stored"));
    let answer = act(&root, &action, is_reachable).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let answer = answer?;
    say(if json { answer.to_string() } else { describe(&action, &answer) });
    let is_damaged = |key: &str| answer[key].as_array().is_some_and(|found| !found.is_empty());
    Ok(if matches!(action, QueueAction::Check) && is_damaged("damage") { code::FAILED } else { code::DONE })
}

/// Whether it reads all content: seconds for a year of sessions.
fn is_slow(action: &QueueAction) -> bool {
    match action {
        QueueAction::Check | QueueAction::Repair | QueueAction::Export { .. } => true,
        QueueAction::List | QueueAction::Show { .. } | QueueAction::Retry { .. } | QueueAction::Drop { .. } => false,
    }
}

async fn act(root: &Root, action: &QueueAction, is_reachable: bool) -> Result<Value, Failed> {
    match action {
        QueueAction::Export { to } => {
            let files = queue::export(&super::store(root)?, to).map_err(|why| Failed::because(&why))?;
            Ok(json!({ "files": files }))
        }
        QueueAction::Drop { yes: false, session } => {
            let message = format!("this destroys the audio of {session} for good; add --yes to do it");
            Err(Failed::new(code::USAGE, message))
        }
        action if is_reachable => {
            let (method, path) = path(action);
            client::demand(root, method, &path, None).await
        }
        action => offline(root, action),
    }
}

fn path(action: &QueueAction) -> (Method, String) {
    match action {
        QueueAction::List | QueueAction::Export { .. } => (Method::GET, "/queue".into()),
        QueueAction::Show { session } => (Method::GET, format!("/queue/{session}")),
        QueueAction::Retry { session } => (Method::POST, format!("/queue/{session}/retry")),
        QueueAction::Drop { session, .. } => (Method::POST, format!("/queue/{session}/drop")),
        QueueAction::Check => (Method::GET, "/queue/check".into()),
        QueueAction::Repair => (Method::POST, "/queue/repair".into()),
    }
}

/// Without a daemon: what is put to work again is done by the next one.
fn offline(root: &Root, action: &QueueAction) -> Result<Value, Failed> {
    let store = match action {
        QueueAction::Check | QueueAction::Repair => super::store_with_keys(root)?,
        QueueAction::List
        | QueueAction::Show { .. }
        | QueueAction::Retry { .. }
        | QueueAction::Drop { .. }
        | QueueAction::Export { .. } => super::store(root)?,
    };
    let because = |why| Failed::because(&why);
    match action {
        QueueAction::List | QueueAction::Export { .. } => queue::list(&store).map_err(because),
        QueueAction::Show { session } => queue::show(&store, session).map_err(because),
        QueueAction::Retry { session } => {
            store.retry(session, true, By::local(now())).map_err(|why| failed(&why))?;
            queue::show(&store, session).map_err(because)
        }
        QueueAction::Drop { session, .. } => {
            let dropped = queue::drop_session(&store, session, By::local(now())).map_err(|why| failed(&why))?;
            destroy_audio(root, &store, session, dropped)?;
            queue::show(&store, session).map_err(because)
        }
        QueueAction::Check => Ok(json!({ "damage": store.check().map_err(because)? })),
        QueueAction::Repair => Ok(json!({ "mended": store.repair(now()).map_err(because)? })),
    }
}

/// Where no daemon does it. A session that was to be processed keeps its audio until one has concluded it.
fn destroy_audio(root: &Root, store: &Store, session: &str, dropped: Dropped) -> Result<(), Failed> {
    match dropped {
        Dropped::Queued => return Ok(()),
        Dropped::DeadLetter => {}
    }
    forget::audio_without_daemon(root, session).map_err(|why| {
        let why = report(&why);
        let message = format!("the session is dropped; the box destroys its audio at its next start, not now: {why}");
        Failed::new(code::FAILED, message)
    })?;
    store.audio_destroyed(session, By::local(now())).map_err(|why| Failed::because(&why))
}

fn describe(action: &QueueAction, answer: &Value) -> String {
    match action {
        QueueAction::List => table(answer),
        QueueAction::Show { .. } => serde_json::to_string_pretty(answer).unwrap_or_default(),
        QueueAction::Retry { session } => format!("Session {session} is tried again: {}.", text(answer, "status")),
        QueueAction::Drop { session, .. } if answer["audio_kept"] == true => {
            format!("Session {session} is dropped; the box destroys its audio when it no longer works on it.")
        }
        QueueAction::Drop { session, .. } => format!("Session {session} is dropped; its audio is destroyed."),
        QueueAction::Check => damage(answer, "damage", "Everything stored can be read."),
        QueueAction::Repair => damage(answer, "mended", "There was nothing to repair."),
        QueueAction::Export { to } => {
            let count = answer["files"].as_array().map_or(0, |files| files.len().saturating_sub(1));
            format!("{count} sealed parcels and queue.json are in {}.", to.display())
        }
    }
}

fn table(answer: &Value) -> String {
    let all = answer["queue"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = all
        .iter()
        .map(|item| {
            let why = item["reason"].as_str().or(item["error_message"].as_str());
            let why = why.map(|why| format!("\n    {why}")).unwrap_or_default();
            let audio = if item["audio_kept"] == true { "audio kept" } else { "no audio" };
            format!(
                "{:<36}  {:<12}  {:<24}  revision {}, {} replays, {audio}{why}",
                text(item, "session_id"),
                text(item, "place"),
                text(item, "since"),
                item["revision"],
                item["replays"]
            )
        })
        .collect();
    if lines.is_empty() {
        lines.push("The queue is empty: the clinic has everything.".into());
    }
    let aside = answer["quarantined"].as_array().map_or(0, Vec::len);
    if aside > 0 {
        lines.push(format!("{aside} damaged values were put aside; roomscribe queue list --json names them."));
    }
    lines.join("\n")
}

fn damage(answer: &Value, key: &str, none: &str) -> String {
    let all = answer[key].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return none.into();
    }
    let line = |d: &Value| {
        let (source, field) = (text(d, "source"), text(d, "field"));
        format!("{source}.{field} of {}: {}; {}", text(d, "key"), text(d, "why"), text(d, "remedy"))
    };
    let mut lines: Vec<String> = all.iter().map(line).collect();
    if key == "damage" {
        lines.push("Put it aside with: roomscribe queue repair".into());
    }
    lines.join("\n")
}

/// Reads `90s`, `15m`, `1h` or `7d`.
///
/// # Errors
/// A sentence for whoever typed it.
pub fn span(text: &str) -> Result<Duration, String> {
    let unit = |c: char| match c {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    };
    let read = text.char_indices().next_back().and_then(|(at, last)| {
        let count: u64 = text[..at].parse().ok().filter(|count| *count <= 100_000)?;
        Some(Duration::from_secs(count * unit(last)?))
    });
    read.ok_or_else(|| format!("{text:?} is no length of time: write it as 90s, 15m, 1h or 7d"))
}

/// `roomscribe failures`: the guide's two monitoring queries.
pub fn failures(root: &Root, since: Duration, exhausted: bool, json: bool) -> Answer {
    let store = super::store(root)?;
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let like = exhausted.then_some("%Retry exhausted%");
    let rows = store.failures(WallTime(now().0.saturating_sub(ms)), like).map_err(|why| Failed::because(&why))?;
    if json {
        say(json!(rows));
    } else if rows.is_empty() {
        say("No session failed.");
    } else {
        say("failed_count  error_message");
        rows.iter()
            .for_each(|row| say(format!("{:>12}  {}", row.failed_count, row.error_message.as_deref().unwrap_or("-"))));
    }
    Ok(code::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_nonsense_is_not() {
        assert_eq!(span("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!((span("15m"), span("90s")), (Ok(Duration::from_secs(900)), Ok(Duration::from_secs(90))));
        for bad in ["", "h", "1", "1 h", "-1h", "1ü", "99999999999999999999d"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
