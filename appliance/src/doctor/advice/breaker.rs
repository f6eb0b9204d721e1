//! What to say and to type about a breaker that lets nothing through: the guide's "Circuit Breaker Stuck OPEN".

use serde_json::{Value, json};
use shared::breaker::{Service, StateName};
use shared::task::Task;

use super::{Advice, add, span};
use crate::doctor::cause::{Shell, look_at};
use crate::doctor::finding::OpenBreaker;

fn means(service: Service) -> &'static str {
    match service {
        Service::Transcription => "sessions are recorded and postponed",
        Service::Diarization => "sessions have no speakers",
        Service::Sync => "records wait for the clinic",
    }
}

/// A breaker that lets nothing through.
pub(super) fn breaker_open(open: &OpenBreaker, shell: Shell<'_>) -> Advice {
    let (service, view) = (open.service, &open.view);
    let seconds = view.open_for.map(|open| open.as_secs());
    let since = seconds.map(|s| format!(" for {}", span(s))).unwrap_or_default();
    let means = means(service);
    let symptom = match view.state {
        StateName::ForcedOpen => format!("A person has held the {service} circuit breaker open{since}: {means}."),
        StateName::HalfOpen => {
            format!("The {service} circuit breaker has not been closed{since}: it lets one call at a time try.")
        }
        StateName::Open | StateName::Closed | StateName::Disabled => {
            format!("The {service} circuit breaker has been open{since}: {means}.")
        }
    };
    let mut advice = Advice { symptom, evidence: figures(open), ..Advice::default() };
    causes(open, shell, &mut advice);
    if open.needs_daemon {
        add(&mut advice.next_steps, [shell.start()]);
    }
    add(&mut advice.next_steps, [shell.roomscribe(&format!("breaker reset {service}"))]);
    advice
}

/// A breaker that a health check had opened and that has passed since.
pub(super) fn breaker_recovering(open: &OpenBreaker, shell: Shell<'_>) -> Advice {
    let service = open.service;
    Advice {
        symptom: format!("The {service} circuit breaker lets one call at a time try."),
        evidence: figures(open),
        causes: vec!["A health check had opened it, and passes again: calls that succeed close it.".into()],
        next_steps: vec![shell.roomscribe("breaker list")],
    }
}

fn figures(open: &OpenBreaker) -> Vec<(&'static str, Value)> {
    let view = &open.view;
    let mut figures = vec![
        ("service", json!(open.service)),
        ("state", json!(view.state)),
        ("since", json!(open.since)),
        ("open_s", json!(view.open_for.map(|open| open.as_secs()))),
        ("failure_count", json!(view.failure_count)),
        ("retry_after_s", json!(view.retry_after.map(|wait| wait.as_secs()))),
    ];
    figures.extend(view.ailment.as_ref().map(|ailment| ("reason", json!(ailment.explain()))));
    figures.extend(open.broker.as_ref().map(|broker| ("broker", json!(broker))));
    figures
}

fn causes(open: &OpenBreaker, shell: Shell<'_>, advice: &mut Advice) {
    if open.view.state == StateName::ForcedOpen {
        advice.causes.push("Somebody typed breaker force-open; it stays so until it is reset.".into());
        return;
    }
    if let Some(ailment) = &open.view.ailment {
        advice.causes.push(format!("{}. It closes by itself when that is mended.", ailment.explain()));
        add(&mut advice.next_steps, [look_at(ailment, shell)]);
        return;
    }
    let task = match open.service {
        Service::Transcription => Task::Transcription,
        Service::Diarization => Task::Diarization,
        Service::Sync => {
            let broker = open.broker.as_deref().unwrap_or("unknown");
            advice.causes.push(format!("The clinic's broker at {broker} cannot be reached, or turns this box away."));
            let (host, port) = broker.rsplit_once(':').unwrap_or((broker, "1883"));
            advice.next_steps.push(format!("nc -vz {host} {port}"));
            add(&mut advice.next_steps, shell.log("roomscribe-sync"));
            return;
        }
    };
    for (cause, number) in open.causes.iter().take(3) {
        let remedy = cause.remedy(task, shell);
        advice.causes.push(format!("{number} × {}", remedy.why));
        add(&mut advice.next_steps, remedy.steps);
    }
    if open.causes.is_empty() {
        advice.causes.push("What its calls died of is no longer known; the log may tell.".into());
        add(&mut advice.next_steps, shell.log("roomscribe"));
    }
}

/// A breaker that is switched off.
pub(super) fn breaker_disabled(service: Service, shell: Shell<'_>) -> Advice {
    Advice {
        symptom: format!("The {service} circuit breaker is switched off: calls go on however many fail."),
        evidence: vec![("service", json!(service)), ("state", json!(StateName::Disabled))],
        causes: vec!["Somebody typed breaker disable; it stays so until it is reset.".into()],
        next_steps: vec![shell.roomscribe(&format!("breaker reset {service}"))],
    }
}
