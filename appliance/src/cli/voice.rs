//! `roomscribe voice`: who agreed to be known again by the voice.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};
use shared::paths::Root;
use shared::record::Consent;

use super::{Answer, Failed, client, code, open_here, say, waiting};
use crate::control::voice_json;
use crate::engine::voices::ChildVoices;
use crate::prints::{self, Candidate};

#[derive(Debug, Subcommand)]
pub enum VoiceAction {
    /// Know a person again by the voice, who has agreed to it.
    #[command(after_help = "Example: roomscribe voice enrol --consent written --by therapist alone.wav\n\n\
                            The recording is of this one person, with ten seconds of speech or more; its first five \
                            minutes are heard, and nothing of it is kept. \
                            Sessions concluded from now on name the voice; roomscribe relabel does it for earlier ones.")]
    Enrol {
        /// The recording: WAV, FLAC, MP3 or Ogg.
        recording: PathBuf,
        /// What the right to do so rests on: verbal, written, …
        #[arg(long)]
        consent: String,
        /// Who noted it: a role, never a name.
        #[arg(long)]
        by: Option<String>,
        /// What records call the person.
        #[arg(long, default_value = "Therapist")]
        label: String,
        /// What the person is, one word.
        #[arg(long, default_value = "therapist")]
        role: String,
    },
    /// List the enrolled voices.
    #[command(after_help = "Example: roomscribe voice list --json")]
    List,
    /// Destroy the print of a voice for good.
    #[command(after_help = "Example: roomscribe voice destroy 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11 --yes")]
    Destroy {
        /// Its id.
        voice: String,
        /// Do it: it cannot be undone.
        #[arg(long)]
        yes: bool,
    },
}

/// `roomscribe voice`
pub async fn voice(root: Root, action: VoiceAction, json: bool) -> Answer {
    let is_reachable = client::is_reachable(&root).await;
    let bar = matches!(action, VoiceAction::Enrol { .. }).then(|| waiting("listening to the recording"));
    let answer = if is_reachable { by_daemon(&root, &action).await } else { here(&root, &action).await };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let answer = answer?;
    say(if json { answer.to_string() } else { describe(&root, &action, &answer) });
    Ok(code::DONE)
}

fn unsure(voice: &str) -> Failed {
    Failed::new(code::USAGE, format!("this destroys the voice print {voice} for good; add --yes to do it"))
}

fn absolute(file: &Path) -> Result<PathBuf, Failed> {
    std::path::absolute(file).map_err(|why| Failed::because(&why))
}

async fn by_daemon(root: &Root, action: &VoiceAction) -> Result<Value, Failed> {
    match action {
        VoiceAction::Enrol { recording, consent, by, label, role } => {
            let consent = json!({ "basis": consent, "by": by });
            let body = json!({ "file": absolute(recording)?, "consent": consent, "label": label, "role": role });
            client::demand(root, Method::POST, "/voices", Some(&body)).await
        }
        VoiceAction::List => client::demand(root, Method::GET, "/voices", None).await,
        VoiceAction::Destroy { voice, yes: false } => Err(unsure(voice)),
        VoiceAction::Destroy { voice, yes: true } => {
            client::demand(root, Method::DELETE, &format!("/voices/{voice}"), None).await
        }
    }
}

async fn here(root: &Root, action: &VoiceAction) -> Result<Value, Failed> {
    if let VoiceAction::Destroy { voice, yes: false } = action {
        return Err(unsure(voice));
    }
    if !matches!(action, VoiceAction::Enrol { .. }) {
        super::store(root)?;
    }
    let context = open_here(root)?;
    let failed = |why: prints::PrintError| Failed::because(&why);
    match action {
        VoiceAction::Enrol { recording, consent, by, label, role } => {
            let at = context.now().wall.to_string();
            let consent = Consent { basis: consent.clone(), by: by.clone(), at };
            let candidate = Candidate { label: label.clone(), role: role.clone(), consent };
            let mut engine = ChildVoices::new(context.engines.clone());
            let enrolled = prints::enrol(&context, &mut engine, recording, candidate).await.map_err(failed)?;
            Ok(voice_json(&enrolled))
        }
        VoiceAction::List => {
            let all = prints::all(&context.store, &context.keys).map_err(failed)?;
            Ok(json!({ "voices": all.iter().map(voice_json).collect::<Vec<_>>() }))
        }
        VoiceAction::Destroy { voice, .. } => {
            prints::destroy(&context.store, &context.keys, voice, context.now().wall).map_err(failed)?;
            Ok(json!({ "destroyed": voice }))
        }
    }
}

fn describe(root: &Root, action: &VoiceAction, answer: &Value) -> String {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("-").to_owned();
    match action {
        VoiceAction::Enrol { .. } => format!(
            "Enrolled {} ({}) as {}, from {:.0} s of speech. Destroy it with: roomscribe voice destroy {} --yes{}",
            text(answer, "label"),
            text(answer, "role"),
            text(answer, "voice_id"),
            answer["speech_s"].as_f64().unwrap_or(0.0),
            text(answer, "voice_id"),
            super::of_root(root)
        ),
        VoiceAction::List => {
            let all = answer["voices"].as_array().map(Vec::as_slice).unwrap_or_default();
            if all.is_empty() {
                return "No voice is enrolled.".into();
            }
            let line = |voice: &Value| {
                let (id, made_at) = (text(voice, "voice_id"), text(voice, "made_at"));
                let (label, role, model) = (text(voice, "label"), text(voice, "role"), text(voice, "model"));
                format!("{id:<36}  {made_at:<24}  {label} ({role}), {model}")
            };
            all.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        VoiceAction::Destroy { voice, .. } => format!("The voice print {voice} is destroyed."),
    }
}
