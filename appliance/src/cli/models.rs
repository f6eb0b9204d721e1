//! `roomscribe models`: what is installed, and how to get it.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use shared::paths::Root;

use super::{Answer, Failed, code, say};
use crate::models::fetch::{Outcome, Plan, fetch};
use crate::models::{LOCK, Models, Role};

#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// Every model of the lock file, and which are installed.
    #[command(after_help = "Example: roomscribe models list --root /tmp/box")]
    List,
    /// Fill the root's model folder with the best model of each role that can be had.
    #[command(after_help = "Example: roomscribe models fetch --root /tmp/box --from ../shared/models\n\n\
                            Without --from (and without ROOMSCRIBE_MODELS_FROM) models are downloaded from the sources \
                            in the lock file.")]
    Fetch {
        /// A folder to take models from, as FILE or FILE.zst; may be given several times.
        #[arg(long, env = "ROOMSCRIBE_MODELS_FROM", value_delimiter = ':')]
        from: Vec<PathBuf>,
        /// Also download what no folder has.
        #[arg(long)]
        network: bool,
        /// Accept models whose checksum is not known, and hold to the one found.
        #[arg(long)]
        pin: bool,
        /// Every model that can be had, not only the best of each role.
        #[arg(long)]
        all: bool,
        /// Only this role; may be given several times. So even a demonstration model of an optional role is had.
        #[arg(long, value_enum)]
        role: Vec<Role>,
    },
    /// Check every installed model against its checksum.
    #[command(after_help = "Example: roomscribe models verify --root /tmp/box")]
    Verify,
}

pub fn models(root: &Root, action: ModelsAction, json: bool) -> Answer {
    let models = Models::new(root);
    match action {
        ModelsAction::List => Ok(list(&models, json)),
        ModelsAction::Verify => Ok(verify(&models, json)),
        ModelsAction::Fetch { from, network, pin, all, role } => {
            let from: Vec<PathBuf> = from.into_iter().filter(|f| !f.as_os_str().is_empty()).collect();
            let network = network || from.is_empty();
            run_fetch(root, &models, &Plan { from, network, pin, all, roles: role }, json)
        }
    }
}

fn entry_json(models: &Models, entry: &'static crate::models::Entry) -> Value {
    let state = match models.check(entry) {
        Ok(_) => "installed".to_owned(),
        Err(_) if !models.folder().join(&entry.file).exists() => "absent".to_owned(),
        Err(why) => why.explain(),
    };
    json!({
        "id": entry.id, "role": entry.role, "rank": entry.rank, "file": entry.file, "sha256": entry.sha256,
        "licence": entry.licence, "demo": entry.demo, "sources": entry.sources, "state": state,
    })
}

fn list(models: &Models, json: bool) -> u8 {
    let all: Vec<Value> = LOCK.iter().map(|entry| entry_json(models, entry)).collect();
    if json {
        say(json!({ "folder": models.folder(), "models": all }));
        return code::DONE;
    }
    say(models.folder().display());
    let text = |model: &Value, key: &str| model[key].as_str().unwrap_or_default().to_owned();
    let wide = |key: &str| all.iter().map(|model| text(model, key).chars().count()).max().unwrap_or(0);
    let (id, file, licence) = (wide("id"), wide("file"), wide("licence"));
    for role in Role::ALL {
        say(role.name());
        for model in all.iter().filter(|m| m["role"] == role.name()) {
            let [name, path, terms, state] = ["id", "file", "licence", "state"].map(|key| text(model, key));
            say(format!("  {name:<id$}  {path:<file$}  {terms:<licence$}  {state}"));
        }
    }
    code::DONE
}

fn verify(models: &Models, json: bool) -> u8 {
    let used = |role| match models.used(role) {
        Ok(files) => files.into_iter().map(|file| (role, Ok(file))).collect(),
        Err(why) => vec![(role, Err(why))],
    };
    let results: Vec<(Role, Result<_, _>)> = Role::ALL.into_iter().flat_map(used).collect();
    let is_sound = results.iter().all(|(_, result)| result.is_ok());
    for (role, result) in &results {
        let line = match result {
            Ok(installed) => json!({"role": role, "model": installed.entry.id, "sha256": installed.sha256, "ok": true}),
            Err(why) => json!({"role": role, "ok": false, "problem": why.explain()}),
        };
        if json {
            say(line);
        } else {
            match result {
                Ok(installed) => say(format!("{:<12} {} is as it should be", role.name(), installed.entry.file)),
                Err(why) => say(format!("{:<12} {}", role.name(), why.explain())),
            }
        }
    }
    if is_sound { code::DONE } else { code::FAILED }
}

fn run_fetch(root: &Root, models: &Models, plan: &Plan, json: bool) -> Answer {
    let bar = std::io::stderr().is_terminal().then(ProgressBar::no_length);
    if let (Some(bar), Ok(style)) =
        (&bar, ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"))
    {
        bar.set_style(style);
    }
    let outcomes = fetch(models, plan, &mut |file, at, total| {
        if let Some(bar) = &bar {
            bar.set_message(file.to_owned());
            bar.set_length(total.unwrap_or(at));
            bar.set_position(at);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let outcomes =
        outcomes.map_err(|why| Failed::new(code::FAILED, format!("the model folder cannot be used: {why}")))?;
    for outcome in &outcomes {
        if json {
            say(json!(outcome));
        } else if let (Some(model), Some(from)) = (&outcome.model, &outcome.from) {
            say(format!("{:<12} {model} ({from})", outcome.role.name()));
            outcome.tried.iter().for_each(|tried| say(format!("{:<12} not {tried}", "")));
        }
    }
    let is_needed = |o: &&Outcome| o.role.is_required() || plan.roles.contains(&o.role);
    for outcome in outcomes.iter().filter(|o| !json && o.model.is_none() && !is_needed(o)) {
        say(format!("{:<12} none; a box can do without", outcome.role.name()));
        outcome.tried.iter().for_each(|tried| say(format!("{:<12} not {tried}", "")));
    }
    let missing: Vec<String> =
        outcomes.iter().filter(|o| o.model.is_none()).filter(is_needed).map(|o| missing(o, plan)).collect();
    if missing.is_empty() {
        return Ok(code::DONE);
    }
    let remedy =
        format!("give a folder that has them: roomscribe models fetch --root {} --from DIR", root.path().display());
    Err(Failed::new(code::FAILED, format!("{}; {remedy}", missing.join("; "))))
}

/// What could not be had, and where it was looked for.
fn missing(outcome: &Outcome, plan: &Plan) -> String {
    let files: Vec<&str> = crate::models::ranked(outcome.role).map(|m| m.file.as_str()).collect();
    let folders: Vec<String> = plan.from.iter().map(|f| f.display().to_string()).collect();
    let folders = if folders.is_empty() { "no folder".to_owned() } else { folders.join(", ") };
    let tried = if outcome.tried.is_empty() { String::new() } else { format!(" ({})", outcome.tried.join("; ")) };
    format!("no {} model could be had: looked for {} in {folders}{tried}", outcome.role.name(), files.join(", "))
}
