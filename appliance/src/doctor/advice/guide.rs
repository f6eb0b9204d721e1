//! What to say and to type about the guide's "High Retry Exhaustion Rate" and "Diarization Always Failing".

use serde_json::json;
use shared::alert::AlertName;
use shared::store::{FailureCount, Rate};
use shared::task::Task;

use super::{Advice, add, times};
use crate::doctor::cause::Shell;
use crate::doctor::finding::Counted;

fn share(rate: Rate) -> String {
    format!("{} of {}", rate.failed, rate.total)
}

pub(super) fn retry_exhaustion(
    messages: &[FailureCount],
    in_hour: Rate,
    in_day: Rate,
    causes: &[(Task, Counted)],
    shell: Shell<'_>,
) -> Advice {
    let message = |m: &FailureCount| {
        let count = usize::try_from(m.failed_count).unwrap_or(usize::MAX);
        (m.error_message.clone().unwrap_or_default(), count)
    };
    let percent = AlertName::RetryExhaustion.threshold() * 100.0;
    let mut advice = Advice {
        symptom: format!("More than {percent:.0} % of the sessions ran out of attempts."),
        evidence: vec![
            ("in_last_hour", json!(share(in_hour))),
            ("in_last_day", json!(share(in_day))),
            ("messages_of_last_hour", times(messages.iter().map(message))),
        ],
        ..Advice::default()
    };
    if let Some((task, (cause, number))) = causes.first() {
        let remedy = cause.remedy(*task, shell);
        advice.evidence.push(("most_frequent_last_cause", json!(format!("{number} × {}", remedy.why))));
        advice.causes.push(remedy.why);
        add(&mut advice.next_steps, remedy.steps);
    }
    advice.causes.push("If it passes by itself within a minute or two, more attempts help.".into());
    add(&mut advice.next_steps, [shell.roomscribe("failures --since 1h --exhausted")]);
    add(&mut advice.next_steps, shell.set("retry", "max_retries", 5));
    advice
}

pub(super) fn diarization_always_failing(
    sessions: usize,
    retry: Option<&str>,
    causes: &[Counted],
    is_mended: bool,
    shell: Shell<'_>,
) -> Advice {
    let remedies: Vec<_> = causes.iter().map(|(cause, n)| (cause.remedy(Task::Diarization, shell), *n)).collect();
    let mut advice = Advice {
        symptom: format!("None of the last {sessions} sessions has speakers."),
        evidence: vec![
            ("sessions", json!(sessions)),
            ("died_of", times(remedies.iter().map(|(remedy, number)| (remedy.why.clone(), *number)))),
        ],
        ..Advice::default()
    };
    if is_mended {
        advice.causes.push("That is mended since: the next session should have speakers.".into());
    } else if let Some((remedy, _)) = remedies.into_iter().next() {
        advice.causes.push(remedy.why);
        advice.next_steps = remedy.steps;
    }
    advice.next_steps.extend(retry.map(|session| shell.roomscribe(&format!("queue retry {session}"))));
    advice
}
