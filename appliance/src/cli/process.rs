//! `roomscribe process`: recordings in, one record a line out.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use shared::paths::Root;
use shared::store::SpeakerHint;

use super::{Answer, Failed, client, code, say};
use crate::context::Context;
use crate::control::outcome;
use crate::daemon::start_work;
use crate::import::{ImportError, admit, concluded, take_in};

/// Processes every file in order; ends with the first code that is not 0.
pub async fn process(root: Root, files: Vec<PathBuf>, speakers: Option<SpeakerHint>) -> Answer {
    let hint = speakers.unwrap_or_default();
    let here = if client::is_reachable(&root).await { None } else { Some(start(&root)?) };
    let mut first = code::DONE;
    for (number, file) in files.iter().enumerate() {
        let bar = bar(file, number, files.len());
        let result = match &here {
            Some(context) => in_process(context, file, hint, &bar).await,
            None => by_daemon(&root, file, hint).await,
        };
        bar.finish_and_clear();
        let code = match result {
            Ok(answer) => {
                say(&answer);
                code_of(&answer, file)
            }
            Err(Failed { code, message }) => {
                say(json!({ "file": file.display().to_string(), "error": { "message": message } }));
                super::complain(&format!("{}: {message}", file.display()));
                code
            }
        };
        if first == code::DONE {
            first = code;
        }
    }
    // Other sessions of this root may be in work: that this command ends is not the fault of their windows.
    if let Some(context) = here {
        context.store.unclaim_running().map_err(|why| Failed::because(&why))?;
    }
    Ok(first)
}

fn start(root: &Root) -> Result<Arc<Context>, Failed> {
    let context = super::open_here(root)?;
    drop(start_work(&context));
    Ok(context)
}

/// A bar on a terminal, and nothing elsewhere.
fn bar(file: &Path, number: usize, count: usize) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{prefix} {spinner} {wide_msg} {pos}/{len} windows {elapsed}") {
        bar.set_style(style);
    }
    bar.set_prefix(format!("[{}/{count}]", number + 1));
    bar.set_message(file.display().to_string());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

async fn in_process(
    context: &Arc<Context>,
    file: &Path,
    speakers: SpeakerHint,
    bar: &ProgressBar,
) -> Result<Value, Failed> {
    let failed = |why: ImportError| match &why {
        ImportError::Refused(open) => {
            let reason = open.ailment.as_ref().map(shared::ailment::Ailment::explain);
            super::refused(open.retry_after.map(|d| d.as_secs_f64().ceil() as u64), reason.as_deref())
        }
        ImportError::Spool(_) | ImportError::Store(_) => Failed::because(&why),
    };
    admit(context).await.map_err(failed)?;
    let session = take_in(context, file, speakers).map_err(failed)?;
    let status = concluded(context, &session, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    let status = status.await.map_err(|why| Failed::because(&why))?;
    outcome(context, &session, status).map_err(|why| Failed::because(&why))
}

async fn by_daemon(root: &Root, file: &Path, speakers: SpeakerHint) -> Result<Value, Failed> {
    let absolute = std::path::absolute(file).map_err(|why| Failed::because(&why))?;
    let absolute = absolute.to_str().ok_or_else(|| Failed::new(code::FAILED, "the file's name is not UTF-8"))?;
    client::demand(root, Method::POST, "/process", Some(&json!({ "file": absolute, "speakers": speakers }))).await
}

/// The exit code of a record, with one sentence for people if it is not a transcript.
fn code_of(answer: &Value, file: &Path) -> u8 {
    let (code, why) = match (answer["status"].as_str(), answer["error"]["type"].as_str()) {
        (Some("done"), _) => return code::DONE,
        (Some("postponed"), _) => (code::REFUSED, "postponed: the transcription circuit breaker is open".to_owned()),
        (_, Some("TranscriptionError")) => (code::TRANSCRIPTION_FAILED, explain(answer)),
        (_, Some("ParallelProcessingError")) => (code::BOTH_FAILED, explain(answer)),
        _ => (code::FAILED, explain(answer)),
    };
    super::complain(&format!("{}: {why}", file.display()));
    code
}

fn explain(answer: &Value) -> String {
    let chain = answer["error"]["chain"].as_array().map(Vec::as_slice).unwrap_or_default();
    chain.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}
