//! What to say and to type about the parts of a box: settings, database, models, board, microphone.

use serde_json::{Value, json};
use shared::ailment::Ailment;
use shared::store::Damage;

use super::{Advice, NAMED, count};
use crate::doctor::cause::{Shell, look_at, reinstall};
use crate::doctor::{SettingsProblem, UnusableModel};
use crate::models::Role;

pub(super) fn settings_invalid(found: &SettingsProblem, shell: Shell<'_>) -> Advice {
    let (which, step) = match &found.file {
        Some(file) => (file.display().to_string(), format!("editor {}", file.display())),
        None => ("the environment".into(), "env | grep -E 'AUDIO_PROCESSING|_CIRCUIT_|ROOMSCRIBE'".into()),
    };
    Advice {
        symptom: "The settings are wrong: neither the daemon nor the link starts with them.".into(),
        evidence: vec![("where", json!(which)), ("problem", json!(found.problem))],
        causes: vec![
            "A name is misspelt, or a value is out of range. Defaults were used for what follows here.".into(),
        ],
        next_steps: vec![step, shell.roomscribe("doctor")],
    }
}

/// Getting out of a damaged database what can be read.
fn recover(shell: Shell<'_>) -> [String; 2] {
    let (folder, file) = (shell.0.data(), shell.0.database());
    let (folder, file) = (folder.display(), file.display());
    [format!("cp -a {folder} {folder}.copy"), format!("sqlite3 {file} .recover | sqlite3 {file}.recovered")]
}

pub(super) fn database_unusable(problem: &str, shell: Shell<'_>) -> Advice {
    let folder = shell.0.data();
    let mut steps = vec![format!("ls -l {}", folder.display()), format!("df -h {}", folder.display())];
    steps.extend(recover(shell));
    Advice {
        symptom: "The database cannot be used: nothing can be recorded.".into(),
        evidence: vec![("database", json!(shell.0.database())), ("problem", json!(problem))],
        causes: vec!["The disk is full or read-only, the file belongs to another user, or it is damaged.".into()],
        next_steps: steps,
    }
}

pub(super) fn database_damaged(damage: &Damage, shell: Shell<'_>) -> Advice {
    Advice {
        symptom: "The database file is damaged.".into(),
        evidence: vec![("why", json!(damage.why))],
        causes: vec!["The card is worn, or was pulled out while it was written to.".into()],
        next_steps: recover(shell).to_vec(),
    }
}

pub(super) fn damaged_rows(rows: &[Damage], shell: Shell<'_>) -> Advice {
    let line = |d: &Damage| format!("{}.{} of {}: {}; {}", d.source, d.field, d.key, d.why, d.remedy);
    let named: Vec<String> = rows.iter().take(NAMED).map(line).collect();
    Advice {
        symptom: format!("{} cannot be read.", count(rows.len(), "stored value")),
        evidence: vec![("values", json!(rows.len())), ("damage", json!(named))],
        causes: vec!["The card is worn, or something else than roomscribe wrote to the database.".into()],
        next_steps: vec![shell.roomscribe("queue check"), shell.roomscribe("queue repair")],
    }
}

pub(super) fn model_unusable(found: &UnusableModel) -> Advice {
    let means = match found.role {
        Role::Transcriber => "No session can be transcribed",
        Role::Vad => "Recordings are cut blindly, and no session has speakers",
        Role::Voice | Role::Segmentation | Role::Plda => "No session has speakers",
    };
    Advice {
        symptom: format!("{means}: {} {}.", found.model, found.problem),
        evidence: vec![("role", json!(found.role)), ("model", json!(found.model)), ("problem", json!(found.problem))],
        causes: vec![
            "It was never fetched, or the card lost part of it. Without a network, name a folder that has it.".into(),
        ],
        next_steps: vec![found.remedy.clone(), format!("{} --from DIR", found.remedy)],
    }
}

pub(super) fn onnx_runtime_missing(shell: Shell<'_>) -> Advice {
    Advice {
        symptom: "ONNX Runtime was not found: recordings are cut blindly, and no session has speakers.".into(),
        evidence: vec![(
            "looked_in",
            json!("ROOMSCRIBE_ONNXRUNTIME, lib beside the program's folder, /usr/lib/roomscribe"),
        )],
        causes: vec!["It is not installed, or not where this program looks.".into()],
        next_steps: vec![reinstall(shell)],
    }
}

pub(super) fn board(found: &Ailment, shell: Shell<'_>) -> Advice {
    let why = match found {
        Ailment::TooHot { .. } => "It lies in the sun, is covered, or its fan stands still.",
        Ailment::UnderVoltage => "The supply is not the board's own, or its cable is too thin.",
        Ailment::LowMemory { .. } => "Something else holds the memory.",
        Ailment::LowDisk { .. } => "Recordings that the clinic has not acknowledged fill it, or something else does.",
        Ailment::ModelUnusable { .. } => "It was never fetched, or the card lost part of it.",
    };
    Advice {
        symptom: format!("{found}: no work is begun until it is better; what was recorded waits."),
        evidence: board_figures(found),
        causes: vec![why.into()],
        next_steps: vec![look_at(found, shell)],
    }
}

fn board_figures(found: &Ailment) -> Vec<(&'static str, Value)> {
    let celsius = |milli: i64| json!(milli as f64 / 1000.0);
    match found {
        Ailment::TooHot { milli_celsius, limit_milli_celsius } => {
            vec![("celsius", celsius(*milli_celsius)), ("limit_celsius", celsius(*limit_milli_celsius))]
        }
        Ailment::UnderVoltage => vec![("under_voltage", json!(true))],
        Ailment::LowMemory { free_mib, limit_mib } | Ailment::LowDisk { free_mib, limit_mib } => {
            vec![("free_mib", json!(free_mib)), ("needed_mib", json!(limit_mib))]
        }
        Ailment::ModelUnusable { model, problem, .. } => vec![("model", json!(model)), ("problem", json!(problem))],
    }
}

pub(super) fn panel_unusable(problem: &str) -> Advice {
    Advice {
        symptom: "The button and the lights do not work.".into(),
        evidence: vec![("problem", json!(problem))],
        causes: vec!["panel.chip names a chip that this board does not have: see which there are.".into()],
        next_steps: vec!["ls /dev/gpiochip*".into(), "gpioinfo".into()],
    }
}
