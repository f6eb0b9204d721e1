//! `roomscribe relabel`: the speakers of a session, told apart once more.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use shared::paths::Root;
use shared::store::{By, SpeakerHint};

use super::{Answer, Failed, client, code, say, waiting};
use crate::conclude::conclude;
use crate::control::session_json;

/// How often it is looked whether the daemon is done …
const LOOK: Duration = Duration::from_millis(200);
/// … and how many times: it takes seconds for hours of speech, and a minute on a board that has other work.
const LOOKS: u32 = 300;

/// Does it, by the daemon if there is one.
pub async fn relabel(root: Root, session: String, speakers: Option<SpeakerHint>, json: bool) -> Answer {
    let bar = waiting("comparing voices");
    let done = if client::is_reachable(&root).await {
        by_daemon(&root, &session, speakers).await
    } else {
        here(&root, &session, speakers)
    };
    bar.finish_and_clear();
    let (before, mut after) = done?;
    after["changed"] = json!(before["revision"] != after["revision"]);
    say(if json { after.to_string() } else { describe(&root, &session, &after) });
    Ok(if after["status"] == "failed" { code::FAILED } else { code::DONE })
}

fn describe(root: &Root, session: &str, after: &Value) -> String {
    let root = super::of_root(root);
    match (after["status"].as_str(), after["changed"] == true) {
        (Some("done"), false) => format!("Session {session}: as before, in revision {}.", after["revision"]),
        (Some("done"), true) => {
            format!(
                "Session {session}: revision {}. Read it with: roomscribe export {session}{root}",
                after["revision"]
            )
        }
        (Some("queued" | "processing"), _) => {
            format!("Session {session} is still in work; roomscribe sessions {session}{root} says when it is done.")
        }
        (status, _) => {
            format!("Session {session} is {} now; see: roomscribe queue show {session}{root}", status.unwrap_or("-"))
        }
    }
}

async fn by_daemon(root: &Root, id: &str, speakers: Option<SpeakerHint>) -> Result<(Value, Value), Failed> {
    let path = format!("/sessions/{id}");
    let before = client::demand(root, Method::GET, &path, None).await?;
    let relabel = json!({ "speakers": speakers });
    let mut after = client::demand(root, Method::POST, &format!("{path}/relabel"), Some(&relabel)).await?;
    for _ in 0..LOOKS {
        if !matches!(after["status"].as_str(), Some("queued" | "processing")) {
            break;
        }
        tokio::time::sleep(LOOK).await;
        after = client::demand(root, Method::GET, &path, None).await?;
    }
    Ok((before, after))
}

fn here(root: &Root, id: &str, speakers: Option<SpeakerHint>) -> Result<(Value, Value), Failed> {
    super::store(root)?;
    let context = super::open_here(root)?;
    let store = &context.store;
    let before = store.session(id).map_err(|why| Failed::because(&why))?;
    store.relabel(id, speakers, By::local(context.now().wall)).map_err(|why| Failed::because(&why))?;
    let queued = store.session(id).map_err(|why| Failed::because(&why))?;
    // Where that fails it is left for the daemon to try again.
    conclude(&context, &queued).map_err(|why| Failed::because(&why))?;
    let after = store.session(id).map_err(|why| Failed::because(&why))?;
    Ok((session_json(store, &before), session_json(store, &after)))
}
