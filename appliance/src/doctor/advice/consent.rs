//! What to say and to type about sessions that may not begin, and about those of which nothing may be left.

use serde_json::json;

use super::{Advice, count, span};
use crate::admission::NoRoom;
use crate::doctor::cause::Shell;

pub(super) fn no_room(why: &NoRoom, shell: Shell<'_>) -> Advice {
    let (evidence, cause) = match why {
        NoRoom::Disk { free_mib, limit_mib } => (
            vec![("free_mib", json!(free_mib)), ("needed_mib", json!(limit_mib))],
            "Sessions wait that the clinic has not acknowledged, or something else fills the disk. What the clinic has \
             acknowledged has gone already.",
        ),
        NoRoom::Heat { celsius } => (vec![("celsius", json!(celsius))], "No air gets to the board, or the sun does."),
        NoRoom::Behind { hours, limit } => (
            vec![("hours_of_work", json!(hours)), ("at_most", json!(limit))],
            "The engines did not work for long, or the board is too slow for its models.",
        ),
    };
    Advice {
        symptom: "Another session would be refused.".into(),
        evidence,
        causes: vec![cause.into()],
        next_steps: vec![shell.roomscribe("queue list"), format!("df -h {}", shell.0.data().display())],
    }
}

pub(super) fn not_erased(sessions: usize, shell: Shell<'_>) -> Advice {
    Advice {
        symptom: format!("Something of {} is left of which nothing may be.", count(sessions, "session")),
        evidence: vec![("sessions", json!(sessions))],
        causes: vec![
            "No daemon runs since consent was withdrawn, or the disk is full: destroying keys needs room for a journal.".into(),
        ],
        next_steps: vec![
            format!("df -h {}", shell.0.data().display()),
            "systemctl restart roomscribe".into(),
            shell.roomscribe("doctor"),
        ],
    }
}

pub(super) fn withdrawal_open(sessions: usize, refused: usize, oldest: (&str, u64), shell: Shell<'_>) -> Advice {
    let (id, seconds) = oldest;
    let (symptom, cause) = if refused > 0 {
        (
            format!("The clinic does not destroy {} to which consent was withdrawn.", count(refused, "session")),
            "It holds them as another box's: two boxes have had one id, or a box was replaced under another one.",
        )
    } else {
        (
            format!("The clinic has not confirmed that it destroyed {}.", count(sessions, "withdrawn session")),
            "It cannot be reached, or its release does not know withdrawals yet.",
        )
    };
    let mut next_steps =
        vec![shell.roomscribe(&format!("sessions {id}")), "journalctl -u roomscribe-sync --since -1d".into()];
    if refused > 0 {
        next_steps.push(format!("roomscribe-clinic withdraw {id} --yes    # on the clinic's server"));
    }
    Advice {
        symptom,
        evidence: vec![("sessions", json!(sessions)), ("oldest", json!(id)), ("since", json!(span(seconds)))],
        causes: vec![cause.into()],
        next_steps,
    }
}
