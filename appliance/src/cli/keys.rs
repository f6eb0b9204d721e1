//! `roomscribe keys`: the box key, and the keys it wraps. Never shows a wrapped key, nor any that is in use.

use clap::Subcommand;
use serde_json::{Value, json};
use shared::keys::BoxKey;
use shared::paths::Root;

use super::{Answer, Failed, code, say};
use crate::context::open_keys;

#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Print a new box key, to be put into the credential box-keys of the service, above the ones that are there.
    #[command(after_help = "Example: roomscribe keys new | systemd-creds encrypt --name=box-keys - \
                            /etc/credstore.encrypted/box-keys\n\nAt its next start the box wraps all keys by the first; \
                            then the others can go. Keep a copy where the box is not: without it nothing can be read.")]
    New,
    /// List whose keys are kept, for what, since when, and which box key opens them.
    #[command(after_help = "Example: roomscribe keys list --json")]
    List,
}

/// `roomscribe keys`
pub fn keys(root: &Root, action: &KeysAction, json: bool) -> Answer {
    match action {
        KeysAction::New => {
            let key = BoxKey::generate().map_err(|why| Failed::because(&why))?;
            say(key.line().as_str());
            Ok(code::DONE)
        }
        KeysAction::List => list(root, json),
    }
}

fn list(root: &Root, json: bool) -> Answer {
    if !root.key_store().exists() {
        return Err(Failed::new(code::FAILED, format!("there is no key store in {}", root.data().display())));
    }
    let credentials = crate::daemon::credentials();
    let store = open_keys(root, credentials.as_deref()).map_err(|why| Failed::because(&why))?;
    let held = store.held().map_err(|why| Failed::because(&why))?;
    let rows: Vec<Value> = held
        .iter()
        .map(|key| {
            let opened_by = key.box_key.map(|id| id.to_string());
            json!({ "owner": key.owner, "purpose": key.purpose.name(), "made_at": key.made_at.to_string(), "box_key": opened_by })
        })
        .collect();
    if json {
        say(json!({ "keys": rows }));
        return Ok(code::DONE);
    }
    if held.is_empty() {
        say("No keys are kept.");
    }
    for key in &held {
        let opened_by = key.box_key.map_or("damaged".into(), |id| id.to_string());
        say(format!("{:<36}  {:<8}  {}  {opened_by}", key.owner, key.purpose.name(), key.made_at));
    }
    Ok(code::DONE)
}
