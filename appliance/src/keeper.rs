//! What the box does every second for others: its health and alerts for the sync daemon, its breakers against power
//! cuts, trying failed sessions again at night, and destroying the audio that the clinic's acknowledgement, or a person,
//! has made superfluous.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::alert::{self, Alert, AlertName, AlertState};
use shared::breaker::Service;
use shared::error::report;
use shared::keys::Purpose;
use shared::log::CRITICAL;
use shared::record::Status;
use shared::store::{Earlier, Parcel, StoreError};
use shared::wire::{AudioProcessingHealth, BoxHealth, BreakerHealth, CaptureHealth};
use tracing::{error, info, warn};

use crate::conclude::{last_record, seal};
use crate::context::Context;
use crate::forget;
use crate::prints;
use crate::replay::Night;
use crate::retention;
use crate::sessions::Sessions;
use crate::spool;

/// How often it looks.
const TICK: Duration = Duration::from_secs(1);
/// How often it looks for what has been kept long enough: that is counted in days, and asks every session.
const AGING: Duration = Duration::from_secs(60);
/// How often health is stored though only its figures moved: a card wears.
const REFRESH: Duration = Duration::from_secs(10);

/// The guide's four keys.
#[must_use]
pub fn audio_processing(context: &Context) -> AudioProcessingHealth {
    let (t, d) = (context.breakers.view(Service::Transcription), context.breakers.view(Service::Diarization));
    AudioProcessingHealth {
        transcription_circuit: t.state,
        diarization_circuit: d.state,
        transcription_failures: t.failure_count,
        diarization_failures: d.failure_count,
    }
}

/// The box's health, measured now.
///
/// # Errors
/// [`StoreError`].
pub fn health(context: &Context, sessions: Option<&Sessions>) -> Result<BoxHealth, StoreError> {
    let recording = sessions.and_then(Sessions::recording);
    let capture = match recording {
        None => CaptureHealth { state: "idle".into(), recorded_s: 0.0, peak_dbfs: None },
        Some((_, progress)) => CaptureHealth {
            state: progress.state().into(),
            recorded_s: crate::audio::seconds(progress.samples()),
            peak_dbfs: progress.peak_dbfs(),
        },
    };
    let breakers = breakers(context);
    let rates = context.store.rates(&context.now())?;
    Ok(BoxHealth {
        version: 1,
        box_id: context.settings.box_id().to_owned(),
        at: context.now().wall.to_string(),
        time_quality: context.time_quality(),
        alerts: alert::evaluate(&rates, &breakers),
        breakers,
        queue: context.store.queue()?,
        capture,
        board: context.vitals.board(),
        transcriber: context.last_transcriber(),
        rates,
        software: env!("CARGO_PKG_VERSION").into(),
    })
}

/// Every breaker by its service; that of the link as the sync daemon last kept it, and only on an enrolled box.
#[must_use]
pub fn breakers(context: &Context) -> BTreeMap<Service, BreakerHealth> {
    let is_shown = |service: &Service| context.breakers.owns(*service) || context.clinic.is_some();
    Service::ALL.into_iter().filter(is_shown).map(|s| (s, context.breakers.view(s).into())).collect()
}

/// What of health is news at once: everything but figures that move all the time.
fn news(health: &BoxHealth) -> impl PartialEq + use<> {
    let states: Vec<_> = health.breakers.values().map(|b| (b.state, b.failure_count, b.reason.is_some())).collect();
    let alerts: Vec<_> = health.alerts.iter().map(|a| (a.alert, a.state, a.services.clone())).collect();
    (states, alerts, health.queue.clone(), health.capture.state.clone(), health.transcriber.clone())
}

/// Says which alerts have begun or ended since `before`.
fn tell_alerts(before: &BTreeSet<AlertName>, alerts: &[Alert]) -> BTreeSet<AlertName> {
    let firing = |alert: &&Alert| alert.state == AlertState::Firing;
    for alert in alerts.iter().filter(firing).filter(|alert| !before.contains(&alert.alert)) {
        let (value, threshold, samples) = (alert.value, alert.threshold, alert.samples);
        warn!(alert = alert.alert.name(), value, threshold, samples, "An alert holds.");
    }
    let now: BTreeSet<AlertName> = alerts.iter().filter(firing).map(|alert| alert.alert).collect();
    for ended in before.difference(&now) {
        info!(alert = ended.name(), "An alert has ended.");
    }
    now
}

/// Destroys the audio that may go. Forgetting a key rewrites the key store, which takes seconds on a slow card: that many
/// sessions and no more are done before the box is looked after again.
const DESTROYED_AT_ONCE: usize = 4;
/// Of those that cannot be destroyed so many are tried each time, so that they do not keep others back.
const TRIED_AT_ONCE: usize = 16;

/// Keeps, for ever. `sessions` is the room; a box that only imports has none.
pub async fn keep(context: Arc<Context>, sessions: Option<Arc<Sessions>>) {
    let mut kept = None;
    let mut at = tokio::time::Instant::now();
    let mut night = Night::default();
    let mut firing = BTreeSet::new();
    let mut aged = None;
    loop {
        let done = tick(&context, sessions.as_deref(), &mut night, |health| {
            firing = tell_alerts(&firing, &health.alerts);
            let is_news = kept.as_ref() != Some(&news(health)) || at.elapsed() >= REFRESH;
            if is_news {
                kept = Some(news(health));
                at = tokio::time::Instant::now();
            }
            is_news
        });
        if let Err(why) = done {
            error!(error = %report(&why), "The box's health could not be stored; trying again.");
        }
        let (shared, is_time) = (context.clone(), aged.is_none_or(|at: tokio::time::Instant| at.elapsed() >= AGING));
        if is_time {
            aged = Some(tokio::time::Instant::now());
        }
        let destroyed = context.aside(move || {
            destroy_what_may_go(&shared)?;
            retention::make_room(&shared)?;
            if is_time { retention::look(&shared) } else { Ok(()) }
        });
        if let Some(Err(why)) = destroyed.await {
            error!(error = %report(&why), "What may be destroyed could not be looked for; trying again.");
        }
        tokio::time::sleep(TICK).await;
    }
}

fn tick(
    context: &Context,
    sessions: Option<&Sessions>,
    night: &mut Night,
    is_news: impl FnOnce(&BoxHealth) -> bool,
) -> Result<(), StoreError> {
    if let Some(sessions) = sessions {
        sessions.settle()?;
    }
    context.breakers.tick();
    let health = health(context, sessions)?;
    if is_news(&health) {
        context.store.keep_health(&health)?;
        context.breakers.checkpoint();
    }
    night.replay(context)
}

/// Destroys the audio, and the sessions, that the store says may go, a few at a time.
///
/// # Errors
/// [`StoreError`]; it can be repeated.
pub fn destroy_what_may_go(context: &Context) -> Result<(), StoreError> {
    let mut erased = 0;
    for session in context.store.to_erase()?.into_iter().take(TRIED_AT_ONCE) {
        match forget::whole_session(context, &session) {
            Ok(()) => erased += 1,
            Err(why) => {
                error!(session_id = session, error = %report(&why), "Not everything of a session could be destroyed; trying again.");
            }
        }
        if erased == DESTROYED_AT_ONCE {
            break;
        }
    }
    context.store.clean_up(context.now().wall)?;
    let acknowledged =
        context.store.audio_to_destroy()?.into_iter().map(|session| (session, "The clinic has the record."));
    let dropped = context.store.dropped_with_audio()?.into_iter().map(|session| (session, "The session was dropped."));
    for (session, why) in acknowledged.chain(dropped).take(DESTROYED_AT_ONCE) {
        destroy_audio(context, &session, why)?;
    }
    Ok(())
}

fn destroy_audio(context: &Context, session: &str, why: &'static str) -> Result<(), StoreError> {
    match forget::audio(&context.keys, &context.spool_file(session), session) {
        Err(why) => error!(session_id = session, error = %report(&why), "Audio could not be destroyed; trying again."),
        Ok(()) => {
            context.store.audio_destroyed(session, context.now().wall)?;
            info!(session_id = session, why, "Audio destroyed.");
        }
    }
    Ok(())
}

/// What a start or an import leaves that is cut short belongs to no session: one of each. If there is more, it is the
/// database that is not the one it was, and nothing that it does not know may be destroyed for that.
const STRANGE: usize = 4;

/// Those of `sessions` that the database does not know; none of them if it does not know too many.
fn unknown(context: &Context, sessions: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let is_unknown = |session: &String| context.store.has_session(session).is_ok_and(|known| !known);
    let unknown: BTreeSet<String> = sessions.into_iter().filter(is_unknown).collect();
    if unknown.len() > STRANGE {
        error!(
            target: CRITICAL, sessions = unknown.len(), severity = "critical",
            "The database does not know sessions whose keys or recordings are here: is it the right one? All are kept."
        );
        return BTreeSet::new();
    }
    unknown
}

/// Destroys the keys of text that belong to no session: what a start left that was cut short. Nothing is sealed with them
/// that anybody would look for. The same for voices whose enrolment, or destruction, was cut short.
pub fn destroy_orphan_keys(context: &Context) {
    let owners = context.keys.owners(Purpose::Content).unwrap_or_default();
    // Whoever puts an older key store back brings keys back that were to be gone for ever.
    for session in owners.iter().filter(|session| context.store.is_to_be_gone(session).unwrap_or(false)) {
        let destroyed = context.keys.destroy_all(session).is_ok();
        warn!(session_id = session, destroyed, "A key was back of a session of which nothing may be left.");
    }
    for session in unknown(context, owners) {
        let destroyed = context.keys.destroy(&session, &[Purpose::Content]).is_ok();
        warn!(session_id = session, destroyed, "A key of no session was found.");
    }
    if let Err(why) = prints::finish(&context.store, &context.keys, context.now().wall) {
        error!(error = %report(&why), "Voices that were being enrolled or destroyed could not be looked for.");
    }
}

/// Seals what releases before this one stored plain.
pub fn seal_earlier(context: &Context) {
    match context.store.seal_earlier() {
        Ok(Earlier { sealed: 0, left: 0, is_log_empty: true }) => {}
        Ok(Earlier { sealed, left, is_log_empty }) => {
            info!(sealed, left, is_log_empty, "What was stored plain before is sealed.");
        }
        Err(why) => {
            error!(error = %report(&why), "What was stored plain before could not all be sealed; the next start tries again.");
        }
    }
}

/// Why a recording or its key is still there although nobody may or can use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphan {
    /// An import or a start was killed before there was a session.
    OfNoSession,
    /// What destroyed it was killed before the file was gone, and the database knows that it was destroyed.
    Destroyed,
    /// So it was, and the database does not know it.
    KeyGone,
}

/// Why the audio of a session that is known is an orphan, if it is one. A session that is still worked on keeps it in any
/// case.
fn orphan(context: &Context, session: &str) -> Result<Option<Orphan>, StoreError> {
    if !context.store.has_session(session)? {
        return Ok(None);
    }
    let row = context.store.session(session)?;
    let is_over = match row.status {
        Status::Done | Status::Failed | Status::Withdrawn => true,
        Status::Recording | Status::Paused | Status::Queued | Status::Processing | Status::Postponed => false,
    };
    // Without the key of its text, too, it is the key store that is lost: that may come back, and a file would not.
    let has_text = || context.keys.get(session, Purpose::Content).is_ok_and(|key| key.is_some());
    let is_gone = || has_text() && spool::is_gone(&context.spool_file(session), &context.keys, session);
    Ok(match row.audio_kept {
        false if is_over => Some(Orphan::Destroyed),
        true if is_over && is_gone() => Some(Orphan::KeyGone),
        true | false => None,
    })
}

/// Removes recordings, and keys of recordings, that are nobody's: what an import or a start left that was killed before
/// it was a session, and what the destruction of audio left that was killed between key and file.
pub fn remove_orphans(context: &Context) {
    let mut sessions: BTreeSet<String> = spool::recordings(&context.root).into_keys().collect();
    match context.keys.owners(Purpose::Audio) {
        Ok(owners) => sessions.extend(owners),
        Err(why) => error!(error = %report(&why), "Keys of no session could not be looked for."),
    }
    for session in unknown(context, sessions.iter().cloned()) {
        remove_orphan(context, &session, Orphan::OfNoSession);
    }
    for session in sessions {
        match orphan(context, &session) {
            Ok(None) => {}
            Ok(Some(orphan)) => remove_orphan(context, &session, orphan),
            Err(why) => error!(session_id = session, error = %report(&why), "A recording's session cannot be read."),
        }
    }
}

fn remove_orphan(context: &Context, session: &str, orphan: Orphan) {
    if let Err(why) = forget::audio(&context.keys, &context.spool_file(session), session) {
        error!(session_id = session, error = %report(&why), "An orphaned recording could not be removed.");
        return;
    }
    match orphan {
        Orphan::OfNoSession => warn!(session_id = session, "A recording of no session was removed."),
        Orphan::Destroyed => warn!(session_id = session, "What was left of destroyed audio was removed."),
        Orphan::KeyGone => {
            warn!(session_id = session, "The key of a recording is gone; what was left of its audio was removed.");
            if let Err(why) = context.store.audio_destroyed(session, context.now().wall) {
                error!(session_id = session, error = %report(&why), "That audio is destroyed could not be stored.");
            }
        }
    }
}

/// Owes the clinic every record that was made before this box knew it.
///
/// # Errors
/// [`StoreError`].
pub fn owe_earlier_records(context: &Context) -> Result<(), StoreError> {
    if context.clinic.is_none() {
        return Ok(());
    }
    for session in context.store.without_parcel()? {
        let read = last_record(context, &session);
        let lost = |why: &StoreError| why.is_content_lost();
        let Some(mut record) = (if read.as_ref().is_err_and(lost) { None } else { read? }) else {
            error!(session_id = session, "A stored record cannot be read; it is not sent.");
            continue;
        };
        record.box_id = context.settings.box_id().to_owned();
        match seal(context, &record) {
            Ok(Some((bytes, sha256))) => {
                let parcel = Parcel { session: record.session_id, revision: record.revision, sha256 };
                context.store.owe(&parcel, &bytes, context.now().wall)?;
            }
            Ok(None) => {}
            Err(why) => error!(session_id = record.session_id, error = %why, "The record cannot be sealed."),
        }
    }
    Ok(())
}
