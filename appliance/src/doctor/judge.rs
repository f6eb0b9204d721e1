//! From what was seen to what is wrong. Decides; looks at nothing.

use std::time::Duration;

use shared::alert::{AlertName, AlertState};
use shared::breaker::{Service, StateName};
use shared::clock::WallTime;
use shared::error::EngineFault;
use shared::record::DiarizationStatus;
use shared::store::{Place, Rate};
use shared::task::Task;
use shared::wire::BoardHealth;

use super::cause::{Cause, OwnCause};
use super::finding::{Counted, Finding, OpenBreaker, Owed, Waiting};
use super::{Concluded, Daemon, Evidence, Microphone, Queued, Withdrawal};
use crate::audio::SAMPLE_RATE_HZ;
use crate::models::Role;
use crate::vitals::ailment;

/// Sessions in a row without speakers that are more than bad luck.
const IN_A_ROW: usize = 3;
/// Concluded sessions that are looked at for what a breaker's last calls died of.
const LATEST: usize = 10;
/// A parcel is acknowledged within seconds; this is far more.
const SILENT: Duration = Duration::from_secs(5 * 60);
/// A clinic confirms a withdrawal within seconds, and one whose server is down is back within a day.
const UNCONFIRMED: Duration = Duration::from_secs(24 * 3600);
/// The recorder stores its health every ten seconds.
const RECORDER_SILENT: Duration = Duration::from_secs(30);

/// What is wrong, the most severe first.
#[must_use]
pub fn diagnose(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(evidence.settings_problem.clone().map(Finding::SettingsInvalid));
    found.extend(evidence.database_problem.clone().map(|problem| Finding::DatabaseUnusable { problem }));
    damage(evidence, &mut found);
    board(evidence, &mut found);
    found.extend(evidence.unusable_models.iter().cloned().map(Finding::ModelUnusable));
    if !evidence.has_onnx_runtime {
        found.push(Finding::OnnxRuntimeMissing);
    }
    microphone(evidence, &mut found);
    found.extend(evidence.panel_problem.clone().map(|problem| Finding::PanelUnusable { problem }));
    room(evidence, &mut found);
    consent(evidence, &mut found);
    breakers(evidence, &mut found);
    found.extend(retry_exhaustion(evidence));
    found.extend(diarization_always_failing(evidence));
    queue(evidence, &mut found);
    link(evidence, &mut found);
    alerts(evidence, &mut found);
    daemon(evidence, &mut found);
    found.sort_by_key(Finding::severity);
    found
}

fn damage(evidence: &Evidence, found: &mut Vec<Finding>) {
    let (file, rows): (Vec<_>, Vec<_>) = evidence.stored.damage.iter().cloned().partition(|d| d.source == "database");
    found.extend(file.into_iter().map(Finding::DatabaseDamaged));
    if !rows.is_empty() {
        found.push(Finding::DamagedRows(rows));
    }
}

/// Each sensor by itself: what opens a breaker is only the first.
fn board(evidence: &Evidence, found: &mut Vec<Finding>) {
    let BoardHealth { celsius, under_voltage, free_memory_mib, free_disk_mib } = evidence.board;
    let alone = [
        BoardHealth { free_disk_mib, ..BoardHealth::default() },
        BoardHealth { free_memory_mib, ..BoardHealth::default() },
        BoardHealth { celsius, ..BoardHealth::default() },
        BoardHealth { under_voltage, ..BoardHealth::default() },
    ];
    found.extend(alone.iter().filter_map(|board| ailment(board, &evidence.settings.health)).map(Finding::Board));
}

/// What the board's own sensors say already is said once.
fn room(evidence: &Evidence, found: &mut Vec<Finding>) {
    let is_told = |finding: &Finding| matches!(finding, Finding::Board(_));
    found.extend(evidence.stored.no_room.clone().filter(|_| !found.iter().any(is_told)).map(Finding::NoRoom));
}

fn consent(evidence: &Evidence, found: &mut Vec<Finding>) {
    // What the daemon is just at is no finding; whether there is none is one of its own.
    if evidence.stored.not_erased > 0 {
        found.push(Finding::NotErased { sessions: evidence.stored.not_erased });
    }
    let is_open = |withdrawal: &&Withdrawal| withdrawal.is_refused || withdrawal.age >= UNCONFIRMED;
    let open: Vec<&Withdrawal> = evidence.stored.withdrawals.iter().filter(is_open).collect();
    // What was refused needs somebody, and is named first.
    if let Some(oldest) = open.iter().find(|withdrawal| withdrawal.is_refused).or(open.first()) {
        found.push(Finding::WithdrawalOpen {
            sessions: open.len(),
            refused: open.iter().filter(|withdrawal| withdrawal.is_refused).count(),
            oldest: oldest.session.clone(),
            oldest_s: oldest.age.as_secs(),
        });
    }
}

fn microphone(evidence: &Evidence, found: &mut Vec<Finding>) {
    let device = || evidence.settings.capture.device.clone();
    match &evidence.microphone {
        Microphone::NotTried => {}
        Microphone::Heard(meter) => {
            let flaws = meter.flaws();
            found.extend(flaws.into_iter().map(|flaw| Finding::MicrophoneFlawed {
                flaw,
                device: device(),
                meter: *meter,
            }));
        }
        Microphone::Busy => found.push(Finding::MicrophoneBusy { device: device() }),
        Microphone::NoCard { card, present } => {
            found.push(Finding::NoCard { device: device(), card: card.clone(), present: present.clone() });
        }
        Microphone::Unusable { problem } => {
            found.push(Finding::MicrophoneUnusable { device: device(), problem: problem.clone() });
        }
    }
    if device() == "default" {
        found.push(Finding::MicrophoneUnnamed { present: evidence.cards.clone() });
    }
    match &evidence.daemon {
        Daemon::Answers { session: Some(session), is_failing: true } => {
            found.push(Finding::MicrophoneFailing { session: session.clone(), device: device() });
        }
        Daemon::Answers { .. } | Daemon::Absent | Daemon::Busy | Daemon::Deaf => {}
    }
}

/// Equal things counted, the most frequent first and of those the first seen.
fn counted<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<(T, usize)> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for one in all {
        match counts.iter_mut().find(|(seen, _)| *seen == one) {
            Some((_, count)) => *count += 1,
            None => counts.push((one, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// What the last calls of a service died of. A refusal is what the breaker did, not why.
fn last_causes(evidence: &Evidence, service: Service) -> Vec<Counted> {
    let latest = evidence.stored.concluded.iter().take(LATEST);
    counted(latest.filter_map(|session| {
        let fall = match service {
            Service::Transcription => session.no_words.as_ref(),
            Service::Diarization => session.no_speakers.as_ref(),
            Service::Sync => None,
        }?;
        (fall.cause != Cause::Refused).then(|| fall.cause.clone())
    }))
}

fn before(at: WallTime, passed: Duration) -> WallTime {
    WallTime(at.0.saturating_sub(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)))
}

fn broker(evidence: &Evidence) -> Option<String> {
    evidence.settings.link.as_ref().map(|link| format!("{}:{}", link.broker_host, link.broker_port))
}

/// A breaker that lets nothing through, if it does not.
fn open_breaker(evidence: &Evidence, service: Service) -> Option<OpenBreaker> {
    let view = evidence.stored.breakers.get(&service)?;
    match view.state {
        StateName::Closed | StateName::Disabled => None,
        StateName::HalfOpen | StateName::Open | StateName::ForcedOpen => Some(OpenBreaker {
            service,
            view: view.clone(),
            since: view.open_for.map(|open| before(evidence.at, open).to_string()),
            causes: last_causes(evidence, service),
            broker: if service == Service::Sync { broker(evidence) } else { None },
            needs_daemon: evidence.daemon == Daemon::Absent,
        }),
    }
}

fn breakers(evidence: &Evidence, found: &mut Vec<Finding>) {
    let long = Duration::from_secs_f64(AlertName::BreakerOpenLong.threshold());
    for (service, view) in &evidence.stored.breakers {
        if view.state == StateName::Disabled {
            found.push(Finding::BreakerDisabled(*service));
        }
        let Some(open) = open_breaker(evidence, *service) else { continue };
        let is_recovering = view.state == StateName::HalfOpen && view.failure_count == 0;
        if is_recovering {
            found.push(Finding::BreakerRecovering(open));
        } else if view.state == StateName::ForcedOpen || view.open_for.is_some_and(|open| open > long) {
            found.push(Finding::BreakerStuckOpen(open));
        } else if *service != Service::Sync || owed(evidence).is_none() {
            found.push(Finding::BreakerOpen(open));
        }
    }
}

/// The guide's rule: more than 2 % of sessions. An hour has few of them, a day may have enough to tell a share.
fn retry_exhaustion(evidence: &Evidence) -> Option<Finding> {
    let stored = &evidence.stored;
    let alert = AlertName::RetryExhaustion;
    let is_over = |rate: Rate| rate.total > 0 && rate.failed as f64 / rate.total as f64 > alert.threshold();
    let in_day = stored.exhausted_in_day.total >= alert.minimum() && is_over(stored.exhausted_in_day);
    let in_hour = !stored.exhausted.is_empty() && is_over(stored.exhausted_in_hour);
    if !in_day && !in_hour {
        return None;
    }
    let exhausted = stored.concluded.iter().filter(|session| session.is_exhausted);
    let died = exhausted.flat_map(|session| {
        let falls = [(Task::Transcription, &session.no_words), (Task::Diarization, &session.no_speakers)];
        falls.into_iter().filter_map(|(task, fall)| {
            fall.as_ref().filter(|fall| fall.is_retryable).map(|fall| (task, fall.cause.clone()))
        })
    });
    let causes = counted(died).into_iter().map(|((task, cause), count)| (task, (cause, count))).collect();
    Some(Finding::RetryExhaustion {
        messages: stored.exhausted.clone(),
        in_hour: stored.exhausted_in_hour,
        in_day: stored.exhausted_in_day,
        causes,
    })
}

fn is_too_short(session: &Concluded) -> bool {
    session.samples < u64::from(SAMPLE_RATE_HZ)
}

/// Whether what the voice engine died of is known to be there no more.
fn is_mended(cause: &Cause, evidence: &Evidence) -> bool {
    let fault = match cause {
        Cause::Engine(fault) => fault,
        Cause::Own(_) | Cause::Refused | Cause::Unknown => return false,
    };
    match fault {
        EngineFault::ModelUnusable { .. } => {
            evidence.unusable_models.iter().all(|model| model.role == Role::Transcriber)
        }
        EngineFault::Unavailable { .. } => evidence.has_onnx_runtime,
        EngineFault::OutOfMemory { limit_bytes } => evidence.settings.engine.voice_memory_mib > limit_bytes >> 20,
        EngineFault::DeadlineExceeded { .. }
        | EngineFault::ChildCrashed { .. }
        | EngineFault::ChildExited { .. }
        | EngineFault::Reported { .. }
        | EngineFault::ThermalStop { .. }
        | EngineFault::DiskFull { .. } => false,
    }
}

/// The newest sessions up to the first that has speakers, if those are many enough. Recordings too short for speakers
/// say nothing about the engine, unless there are no others.
fn diarization_always_failing(evidence: &Evidence) -> Option<Finding> {
    if !evidence.settings.session.diarization {
        return None;
    }
    let done = || evidence.stored.concluded.iter().filter(|session| session.samples > 0);
    let failed: Vec<&Concluded> = done()
        .filter(|session| session.diarization != Some(DiarizationStatus::Skipped))
        .take_while(|session| session.diarization == Some(DiarizationStatus::Failed))
        .collect();
    let short: Vec<&Concluded> =
        done().take_while(|s| s.diarization == Some(DiarizationStatus::Skipped) && is_too_short(s)).collect();
    let (run, causes) = if failed.len() >= IN_A_ROW {
        let causes = failed.iter().map(|s| s.no_speakers.as_ref().map_or(Cause::Unknown, |fall| fall.cause.clone()));
        let mut causes = counted(causes);
        // A breaker that refuses was opened by something, which tells more.
        causes.sort_by_key(|(cause, _)| *cause == Cause::Refused);
        (failed, causes)
    } else if short.len() >= IN_A_ROW {
        let causes = vec![(Cause::Own(OwnCause::AudioTooShort), short.len())];
        (short, causes)
    } else {
        return None;
    };
    let is_mended = causes.first().is_some_and(|(cause, _)| is_mended(cause, evidence));
    let retry = run.iter().find(|s| s.audio_kept && s.no_speakers.is_some()).map(|s| s.session.clone());
    Some(Finding::DiarizationAlwaysFailing { sessions: run.len(), retry, causes, is_mended })
}

/// Those of the queue that stand alike, if there are any.
fn waiting(items: &[&Queued], why: impl Fn(&Queued) -> Option<String>) -> Option<Waiting> {
    let oldest = items.first()?;
    Some(Waiting {
        sessions: items.len(),
        oldest: oldest.item.session_id.clone(),
        reasons: counted(items.iter().filter_map(|queued| why(queued))),
        audio_kept: oldest.item.audio_kept,
    })
}

fn queue(evidence: &Evidence, found: &mut Vec<Finding>) {
    let at = |place: Place| -> Vec<&Queued> {
        evidence.stored.queue.iter().filter(|queued| queued.item.place == place).collect()
    };
    let message = |queued: &Queued| queued.item.error_message.clone();
    found.extend(waiting(&at(Place::Refused), |queued| queued.item.reason.clone()).map(Finding::Refused));
    found.extend(waiting(&at(Place::DeadLetter), message).map(Finding::DeadLetters));
    found.extend(waiting(&at(Place::Undiarized), message).map(Finding::Undiarized));
}

/// What waits for the clinic, if anything does.
fn owed(evidence: &Evidence) -> Option<Owed> {
    let pending = || evidence.stored.queue.iter().filter(|q| q.item.delivery.as_deref() == Some("pending"));
    let oldest = pending().map(|queued| queued.age).max()?;
    Some(Owed { broker: broker(evidence)?, parcels: pending().count(), oldest_s: oldest.as_secs() })
}

fn link(evidence: &Evidence, found: &mut Vec<Finding>) {
    // A link that cannot be read is no link, and is told as a wrong setting.
    if evidence.settings.link.is_none() && evidence.settings_problem.is_none() {
        found.push(Finding::NotEnrolled);
    }
    match (owed(evidence), open_breaker(evidence, Service::Sync)) {
        (Some(owed), Some(open)) => found.push(Finding::ClinicUnreachable(owed, open)),
        (Some(owed), None) if owed.oldest_s > SILENT.as_secs() => found.push(Finding::ClinicSilent(owed)),
        (Some(_), None) | (None, Some(_) | None) => {}
    }
}

/// Alerts that nothing else here is about.
fn alerts(evidence: &Evidence, found: &mut Vec<Finding>) {
    let firing = evidence.stored.alerts.iter().filter(|alert| alert.state == AlertState::Firing);
    found.extend(
        firing
            .filter(|alert| match alert.alert {
                AlertName::TranscriptionFailureRate | AlertName::DiarizationFailureRate | AlertName::ProcessingTime => {
                    true
                }
                AlertName::BreakerOpen | AlertName::BreakerOpenLong | AlertName::RetryExhaustion => false,
            })
            .cloned()
            .map(Finding::AlertFiring),
    );
}

fn daemon(evidence: &Evidence, found: &mut Vec<Finding>) {
    let is_to_do = |q: &&Queued| matches!(q.item.place, Place::Queued | Place::Postponed);
    let waiting = evidence.stored.queue.iter().filter(is_to_do).count();
    match &evidence.daemon {
        Daemon::Absent => found.push(Finding::NoDaemon { is_busy: false, waiting }),
        Daemon::Busy => found.push(Finding::NoDaemon { is_busy: true, waiting }),
        Daemon::Deaf => found.push(Finding::DaemonDeaf),
        Daemon::Answers { .. } => {
            let silent = evidence.stored.health_age.filter(|age| *age > RECORDER_SILENT);
            found.extend(silent.map(|age| Finding::RecorderSilent { silent_s: age.as_secs() }));
        }
    }
}
