//! What to say and to type about the daemon, and about the link to the clinic.

use serde_json::{Value, json};

use super::breaker::breaker_open;
use super::{Advice, add, span};
use crate::doctor::cause::Shell;
use crate::doctor::finding::{OpenBreaker, Owed};

fn owed(owed: &Owed) -> Vec<(&'static str, Value)> {
    vec![("records", json!(owed.parcels)), ("oldest_s", json!(owed.oldest_s)), ("broker", json!(owed.broker))]
}

fn wait(records: usize) -> String {
    if records == 1 { "1 record waits".into() } else { format!("{records} records wait") }
}

pub(super) fn clinic_unreachable(waiting: &Owed, open: &OpenBreaker, shell: Shell<'_>) -> Advice {
    let mut evidence = owed(waiting);
    evidence.push(("sync_circuit", json!(open.view.state)));
    let mut breaker = breaker_open(open, shell);
    breaker.next_steps.push(shell.roomscribe("queue export --to DIR"));
    Advice {
        symptom: format!("The clinic cannot be reached; {} for it.", wait(waiting.parcels)),
        evidence,
        causes: breaker.causes,
        next_steps: breaker.next_steps,
    }
}

pub(super) fn clinic_silent(waiting: &Owed, shell: Shell<'_>) -> Advice {
    let steps = if shell.0.is_system() {
        vec!["systemctl status roomscribe-sync".into(), "journalctl -u roomscribe-sync --since -1h".into()]
    } else {
        vec![format!("roomscribe-sync run --root {}", shell.0.path().display())]
    };
    Advice {
        symptom: format!("The clinic has not acknowledged a record for {}.", span(waiting.oldest_s)),
        evidence: owed(waiting),
        causes: vec!["roomscribe-sync does not run here, or the clinic's server does not run there.".into()],
        next_steps: steps,
    }
}

pub(super) fn recorder_silent(silent_s: u64, shell: Shell<'_>) -> Advice {
    let mut steps = vec![format!("df -h {}", shell.0.data().display())];
    add(&mut steps, shell.log("roomscribe"));
    Advice {
        symptom: format!("The daemon answers, but has stored nothing for {}.", span(silent_s)),
        evidence: vec![("silent_s", json!(silent_s))],
        causes: vec!["The disk is full or stalls, or another program holds the database.".into()],
        next_steps: steps,
    }
}

pub(super) fn daemon_deaf(shell: Shell<'_>) -> Advice {
    Advice {
        symptom: "The daemon does not answer.".into(),
        evidence: vec![("control_socket", json!(shell.0.find_control_socket()))],
        causes: vec!["It hangs, or was stopped by a signal.".into()],
        next_steps: if shell.0.is_system() {
            vec!["systemctl restart roomscribe".into()]
        } else {
            vec!["ps -eo pid,stat,args | grep '[r]oomscribe run'".into()]
        },
    }
}

pub(super) fn no_daemon(is_busy: bool, waiting: usize, shell: Shell<'_>) -> Advice {
    let (symptom, cause, step) = if is_busy {
        let symptom = "No daemon runs; another roomscribe command works on this root.";
        (symptom, "The daemon takes its turn when that ends.", "ps -eo pid,args | grep '[r]oomscribe'".into())
    } else {
        let symptom = "No daemon runs: nothing is recorded, and nothing is worked on.";
        (symptom, "It was not started, or it ended.", shell.start())
    };
    Advice {
        symptom: symptom.into(),
        evidence: vec![("sessions_waiting", json!(waiting))],
        causes: vec![cause.into()],
        next_steps: vec![step],
    }
}

pub(super) fn not_enrolled(shell: Shell<'_>) -> Advice {
    let root = if shell.0.is_system() { String::new() } else { format!(" --root {}", shell.0.path().display()) };
    Advice {
        symptom: "The box belongs to no clinic: records stay here.".into(),
        evidence: Vec::new(),
        causes: vec![
            "On the clinic's server, roomscribe-clinic invite BOX prints a code, and what to type here.".into(),
        ],
        next_steps: vec![format!("roomscribe-sync enrol --code CODE --clinic HOST{root}")],
    }
}
