//! What to say and to type about a microphone.

use serde_json::json;

use super::Advice;
use crate::capture::level::{Flaw, Meter};
use crate::doctor::cause::Shell;

/// Choosing another: the first card there is, if there is one.
fn choose(present: &[String], shell: Shell<'_>) -> Vec<String> {
    let card = present.first().map_or("…", String::as_str);
    let mut steps = vec!["arecord -L".into()];
    steps.extend(shell.set("capture", "device", format!("\"plughw:CARD={card}\"")));
    steps
}

pub(super) fn unusable(device: &str, problem: &str, shell: Shell<'_>) -> Advice {
    Advice {
        symptom: "The microphone cannot be opened, or gives nothing: no session can be recorded.".into(),
        evidence: vec![("device", json!(device)), ("problem", json!(problem))],
        causes: vec!["It is not plugged in, its driver hangs, or capture.device names another.".into()],
        next_steps: choose(&[], shell),
    }
}

pub(super) fn busy(device: &str) -> Advice {
    Advice {
        symptom: "The microphone is in use by another program: no session can be recorded.".into(),
        evidence: vec![("device", json!(device))],
        causes: vec!["A sound server or another recorder holds it; the first command says which. End that.".into()],
        next_steps: vec!["fuser -v /dev/snd/*".into(), "cat /proc/asound/card*/pcm*c/sub*/status".into()],
    }
}

pub(super) fn no_card(device: &str, card: &str, present: &[String], shell: Shell<'_>) -> Advice {
    Advice {
        symptom: format!("There is no sound card {card}: no session can be recorded."),
        evidence: vec![("device", json!(device)), ("cards", json!(present))],
        causes: vec![
            "The microphone is not plugged in, or is another than the one that was set up. If it is another, name it."
                .into(),
        ],
        next_steps: choose(present, shell),
    }
}

pub(super) fn unnamed(present: &[String], shell: Shell<'_>) -> Advice {
    Advice {
        symptom: "Which microphone is used is left to the system: capture.device is \"default\".".into(),
        evidence: vec![("cards", json!(present))],
        causes: vec!["With a second card plugged in it may be another at the next start. Name the card.".into()],
        next_steps: choose(present, shell),
    }
}

pub(super) fn flawed(flaw: Flaw, device: &str, meter: &Meter, shell: Shell<'_>) -> Advice {
    let percent = |share: f64| json!((share * 1000.0).round() / 10.0);
    let level = meter.level();
    let (symptom, figure, cause) = match flaw {
        Flaw::FlatLine => (
            "The microphone gives one value and no sound.",
            ("peak_dbfs", json!(level.peak_dbfs)),
            "Its mute switch is on, its capture switch is off in the mixer, or nothing is plugged into the card.",
        ),
        Flaw::Offset => (
            "What the microphone gives is not about zero: loud voices will be cut off on one side.",
            ("offset_percent", percent(meter.offset())),
            "The input is meant for another kind of microphone, or is broken.",
        ),
        Flaw::Clipping => (
            "The microphone is too loud: what is said is cut off, and words are lost.",
            ("clipped_percent", percent(meter.clipped_share())),
            "Its gain is too high, or it hangs too near to somebody. Lower it in the mixer.",
        ),
        Flaw::TooQuiet => (
            "Next to nothing is heard.",
            ("rms_dbfs", json!(level.rms_dbfs)),
            "The room was silent just now; if it was not, the gain is too low or the wrong input is chosen.",
        ),
    };
    Advice {
        symptom: symptom.into(),
        evidence: vec![("device", json!(device)), figure],
        causes: vec![cause.into()],
        next_steps: vec![shell.roomscribe("levels --seconds 10"), "alsamixer -V capture".into()],
    }
}

pub(super) fn failing(session: &str, device: &str) -> Advice {
    Advice {
        symptom: "A session is being recorded, and its microphone gives nothing.".into(),
        evidence: vec![("session", json!(session)), ("device", json!(device))],
        causes: vec!["It was unplugged, or its plug is loose. The recording goes on by itself when it is back.".into()],
        next_steps: vec!["arecord -l".into()],
    }
}
