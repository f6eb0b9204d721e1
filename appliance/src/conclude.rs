//! The end of a session: verdict, labels, record and parcel, stored in one transaction.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shared::breaker::Service;
use shared::error::{
    CircuitBreakerOpenError, DiarizationError, ProcessingError, TaskFailure, TranscriptionError, report,
};
use shared::log::CRITICAL;
use shared::record::{
    Attempts, DiarizationStatus, Gap, GapCause, Model, Processing, Record, RecordError, Speaker, SpeakerCount, Status,
    VERSION, seconds,
};
use shared::seal::{Address, SealError, sha256};
use shared::store::{DamagedRow, Finish, OutboxState, Row, SessionRow, Store, StoreError, WindowRow};
use shared::task::Task;
use tracing::{error, info, warn};

use crate::audio::LEVEL_SAMPLES;
use crate::context::Context;
use crate::diarize::global::Bounds;
use crate::diarize::{self, Turn};
use crate::label::{Sound, Spoken, label};
use crate::models::{InstalledPlda, LOCK, Models, Role};
use crate::prints::{self, Name};
use crate::spool::{SpoolError, SpoolReader};
use crate::track::Track;
use crate::verdict::{Ended, Loss, Verdict, decide};
use crate::voicing::Voiced;
use crate::who::{Heard, Who};
use crate::worker::Transcribed;

/// How often sessions are looked at by themselves.
const LOOK: Duration = Duration::from_secs(1);

type TranscriptionRow = Row<Transcribed, TaskFailure<TranscriptionError>>;
type DiarizationRow = Row<(), TaskFailure<DiarizationError>>;

/// Why a session could not be concluded.
#[derive(Debug, thiserror::Error)]
pub enum ConcludeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record cannot be written as JSON.
    #[error("The record could not be written")]
    Record(#[source] DamagedRow),
    /// The gaps of the recording cannot be read yet.
    #[error("The spool could not be read")]
    Spool(#[from] SpoolError),
}

impl From<serde_json::Error> for ConcludeError {
    fn from(why: serde_json::Error) -> Self {
        Self::Record(why.into())
    }
}

/// Concludes every session whose work is done, for ever.
pub async fn conclude_all(context: Arc<Context>) {
    loop {
        let rung = context.settled.notified();
        if let Err(why) = conclude_ready(&context).await {
            error!(error = %report(&why), "Sessions could not be looked for; trying again.");
        }
        drop(tokio::time::timeout(LOOK, rung).await);
    }
}

async fn conclude_ready(context: &Arc<Context>) -> Result<(), StoreError> {
    for status in [Status::Queued, Status::Processing] {
        for session in context.store.sessions_in(status)? {
            let cut_up_to = context.store.windows(&session.id)?.last().map_or(0, |w| w.end_sample);
            if session.ended_at.is_some() && cut_up_to >= session.samples && !context.store.has_work(&session.id)? {
                let (id, shared) = (session.id.clone(), context.clone());
                // Clustering and sealing take a while; meanwhile the box listens.
                let concluded = context.aside(move || conclude(&shared, &session)).await;
                if let Some(Err(why)) = concluded {
                    error!(session_id = id, error = %report(&why), "A session could not be concluded; trying again.");
                    mend(context, &id, &why)?;
                }
            }
        }
    }
    Ok(())
}

/// What cannot be read of a session is made again, or given up, so that it does not stand still for ever.
fn mend(context: &Context, session: &str, why: &ConcludeError) -> Result<(), StoreError> {
    let (store, now) = (&context.store, context.now().wall);
    match why {
        ConcludeError::Store(StoreError::Damaged(_)) => {}
        // Nothing that is made of it could be kept.
        ConcludeError::Store(why) if why.is_content_lost() => return store.content_lost(session, why, now),
        ConcludeError::Store(_) | ConcludeError::Record(_) | ConcludeError::Spool(_) => return Ok(()),
    }
    let transcription = TaskFailure::at_once(TranscriptionError::Damaged);
    let diarization = TaskFailure::at_once(DiarizationError::Damaged);
    let rows = store.mend_rows::<Transcribed, _>(session, Task::Transcription, &transcription, now)?
        + store.mend_rows::<Voiced, _>(session, Task::Diarization, &diarization, now)?;
    warn!(session_id = session, rows, "Results that cannot be read were put aside.");
    context.work.notify_waiters();
    Ok(())
}

/// Decides one session and stores what follows.
///
/// # Errors
/// [`ConcludeError`]; the session then stands as it stood.
pub fn conclude(context: &Context, session: &SessionRow) -> Result<(), ConcludeError> {
    let rows = context.store.rows(&session.id, Task::Transcription);
    let transcription: Vec<TranscriptionRow> = rows.collect::<Result<_, _>>()?;
    let (diarization, heard) = heard(&context.store, &session.id)?;
    let view = context.breakers.view(Service::Diarization);
    let refusal = CircuitBreakerOpenError {
        service_name: Service::Diarization,
        failure_count: view.failure_count,
        retry_after: view.retry_after,
        ailment: view.ailment,
    };
    let require = context.settings.session.require_diarization;
    let tried = Ended::of(&diarization);
    let diarized = tried == Ended::Ok;
    let skipped = tried == Ended::NotTried;
    let verdict = decide(Ended::of(&transcription), tried, refusal, require);
    let status_of_speakers = match (diarized, skipped) {
        (true, _) => DiarizationStatus::Ok,
        (false, true) => DiarizationStatus::Skipped,
        (false, false) => DiarizationStatus::Failed,
    };
    match verdict {
        // Tried again for its speakers: its words were handed over before, so there is time to wait for them.
        Verdict::Undiarized(Some(Loss::Refused(_))) if has_transcript(context, session)? => {
            info!(session_id = session.id, "Its speakers wait until the circuit breaker lets them be told apart.");
            Ok(context.store.postpone(&session.id, context.now().wall)?)
        }
        Verdict::Postponed => {
            warn!(
                session_id = session.id, error_type = "CircuitBreakerOpenError", is_retryable = false, retry_count = 0,
                circuit_breaker_state = %context.breakers.view(Service::Transcription).state, severity = "warning",
                "Session postponed until the circuit breaker lets it through."
            );
            context.store.postpone(&session.id, context.now().wall)?;
            Ok(())
        }
        Verdict::Diarized => {
            let plda = plda(&context.engines.models(), &heard);
            let who = heard.who(Bounds::of(&context.settings.session, session.speakers), plda.as_ref());
            keep(context, session, &transcription, who.as_ref(), DiarizationStatus::Ok, None, true)
        }
        Verdict::Undiarized(loss) => {
            let error = loss.map(|l| l.into_processing_error(&session.id));
            keep(context, session, &transcription, None, status_of_speakers, error, true)
        }
        Verdict::Failed(failure) => {
            let is_critical = failure.is_critical();
            let failed = failure.into_processing_error(&session.id);
            announce_failure(context, &failed, is_critical);
            keep(context, session, &[], None, status_of_speakers, Some(failed), false)
        }
    }
}

fn announce_failure(context: &Context, failed: &ProcessingError, is_critical: bool) {
    let details = &failed.error_details;
    let is_retryable = details["is_retryable"].as_bool().unwrap_or(false);
    let retry_count = details["retry_count"].as_u64().unwrap_or(0);
    let state = context.breakers.view(Service::Transcription).state;
    let (session_id, error_type, error) = (&failed.session_id, &failed.error_type, failed.chain.join(": "));
    if is_critical {
        error!(
            target: CRITICAL, session_id, error_type, is_retryable, retry_count, circuit_breaker_state = %state,
            severity = "critical", error, "Session failed: neither words nor speakers."
        );
    } else {
        error!(
            session_id, error_type, is_retryable, retry_count, circuit_breaker_state = %state, severity = "error",
            error, "Session failed."
        );
    }
}

/// The newest record of a session, if it has one that can be read.
///
/// # Errors
/// [`StoreError`].
pub fn last_record(context: &Context, session: &str) -> Result<Option<Record>, StoreError> {
    match context.store.record(session) {
        Ok(json) => Ok(json.and_then(|json| serde_json::from_slice(&json).ok())),
        Err(StoreError::Damaged(_)) => Ok(None),
        Err(why) => Err(why),
    }
}

fn has_transcript(context: &Context, session: &SessionRow) -> Result<bool, StoreError> {
    Ok(last_record(context, &session.id)?.is_some_and(|record| record.status == Status::Done))
}

/// Whether a session that was told well, and can never be heard again, would now be told worse: because what its record was
/// made of is damaged.
fn is_worse(context: &Context, session: &SessionRow, record: &Record) -> Result<bool, StoreError> {
    let rank = |record: &Record| (record.status == Status::Done, record.diarization_status == DiarizationStatus::Ok);
    let last = if session.audio_kept { None } else { last_record(context, &session.id)? };
    Ok(last.is_some_and(|last| rank(record) < rank(&last)))
}

/// Whether a session that was tried again ended as it had ended before.
fn is_as_before(context: &Context, session: &SessionRow, record: &Record) -> Result<bool, StoreError> {
    // A session whose row was damaged says something else than its last record.
    let is_told = session.error_message == record.error_message;
    if !is_told || context.store.outbox_state(&session.id, session.revision)? == Some(OutboxState::Refused) {
        return Ok(false);
    }
    Ok(last_record(context, &session.id)?.is_some_and(|last| {
        last.status == record.status
            && last.diarization_status == record.diarization_status
            && last.error_message == record.error_message
            && last.speaker_count == record.speaker_count
            && last.speakers == record.speakers
            && last.segments == record.segments
    }))
}

fn keep(
    context: &Context,
    session: &SessionRow,
    transcription: &[TranscriptionRow],
    who: Option<&Who>,
    diarization_status: DiarizationStatus,
    error: Option<ProcessingError>,
    is_done: bool,
) -> Result<(), ConcludeError> {
    let status = if is_done { Status::Done } else { Status::Failed };
    let mut record = compose(context, session, transcription, who)?;
    record.status = status;
    record.diarization_status = diarization_status;
    record.error_message = error.as_ref().map(|e| e.message.clone());
    record.error = error.as_ref().map(|e| RecordError { error_type: e.error_type.clone(), chain: e.chain.clone() });
    if is_worse(context, session, &record)? {
        error!(session_id = session.id, "What was stored of a session is damaged; its last record stands.");
        return Ok(context.store.unchanged(&session.id, Status::Done, context.now().wall)?);
    }
    if is_as_before(context, session, &record)? {
        context.store.unchanged(&session.id, status, context.now().wall)?;
        info!(session_id = session.id, status = %status, "Tried again, and as before.");
        return Ok(());
    }
    record.revision = context.store.next_revision(&session.id)?;
    let parcel = match seal(context, &record) {
        Ok(parcel) => parcel,
        Err(why) => {
            error!(session_id = session.id, error = %why, "The record cannot be sealed; it stays on this box.");
            None
        }
    };
    let json = serde_json::to_vec(&record)?;
    context.store.finish(
        &Finish {
            session: &session.id,
            status,
            diarization_status,
            error: error.as_ref(),
            record: &json,
            revision: record.revision,
            parcel: parcel.as_ref().map(|(bytes, sum)| (bytes.as_slice(), sum.as_str())),
        },
        context.now().wall,
    )?;
    let mut flagged = context.flagged.lock().unwrap_or_else(PoisonError::into_inner);
    record.segments.iter().flat_map(|s| &s.flags).for_each(|flag| *flagged.entry(*flag).or_default() += 1);
    drop(flagged);
    let error_message = record.error_message.as_deref().unwrap_or("");
    if diarization_status == DiarizationStatus::Failed && is_done {
        let details = error.as_ref().map(|e| &e.error_details);
        let is_retryable = details.and_then(|d| d["is_retryable"].as_bool()).unwrap_or(false);
        let retry_count = details.and_then(|d| d["retry_count"].as_u64()).unwrap_or(0);
        let state = context.breakers.view(Service::Diarization).state;
        let error_type = error.as_ref().map_or("", |e| e.error_type.as_str());
        warn!(
            session_id = session.id, error_type, is_retryable, retry_count, circuit_breaker_state = %state,
            error = error_message, severity = "warning", "Using undiarized transcript."
        );
    }
    info!(
        session_id = session.id, status = %status, diarization_status = diarization_status.name(),
        speakers = record.speakers.len(), segments = record.segments.len(),
        seconds_after_end = record.processing.seconds_after_end, "Session concluded."
    );
    Ok(())
}

/// Seals a record to this box's clinic, if it has one: the parcel's bytes and their sha256.
///
/// # Errors
/// [`SealError::TooLarge`].
pub fn seal(context: &Context, record: &Record) -> Result<Option<(Vec<u8>, String)>, SealError> {
    let (Some(clinic), Some(link)) = (&context.clinic, &context.settings.link) else { return Ok(None) };
    let address = Address {
        clinic: &link.clinic,
        box_id: &record.box_id,
        session: &record.session_id,
        revision: record.revision,
    };
    let parcel = clinic.seal(record, &address)?;
    let sum = sha256(&parcel);
    Ok(Some((parcel, sum)))
}

/// The record, without its outcome.
fn compose(
    context: &Context,
    session: &SessionRow,
    transcription: &[TranscriptionRow],
    who: Option<&Who>,
) -> Result<Record, ConcludeError> {
    let spoken: Vec<Spoken> = transcription
        .iter()
        .flat_map(|row| {
            row.result.iter().flat_map(|heard| {
                heard.phrases.iter().map(|phrase| Spoken {
                    phrase: phrase.clone(),
                    blind_cut: row.window.blind_cut,
                    model: heard.model.clone(),
                })
            })
        })
        .collect();
    let mut transcribers: Vec<&str> =
        transcription.iter().filter_map(|r| Some(r.result.as_ref()?.model.as_str())).collect();
    transcribers.sort_unstable();
    transcribers.dedup();
    let mut levels = Track::new(crate::audio::seconds(LEVEL_SAMPLES as u64));
    for row in transcription {
        let heard = row.result.as_ref().map_or(&[][..], |heard| &heard.levels);
        levels.push(crate::audio::seconds(row.window.start_sample), heard.to_vec());
    }
    let names = who.map_or(Vec::new(), |who| names(context, who));
    let speakers = speakers(who.map_or(&[], |who| who.turns.as_slice()), &names);
    let now = context.now().wall;
    let ended_at = session.ended_at.unwrap_or(now);
    Ok(Record {
        version: VERSION,
        session_id: session.id.clone(),
        box_id: context.settings.box_id().to_owned(),
        revision: session.revision,
        status: Status::Done,
        diarization_status: DiarizationStatus::Ok,
        error_message: None,
        error: None,
        started_at: session.started_at.to_string(),
        ended_at: ended_at.to_string(),
        duration_s: seconds(crate::audio::seconds(session.samples)),
        time_quality: session.time_quality,
        consent: session.consent.clone(),
        speaker_count: speaker_count(&speakers, who),
        speakers,
        segments: label(&spoken, Sound { who, levels: &levels, names: &names }),
        gaps: gaps(context, session, transcription)?,
        models: models(context, &transcribers, who.map_or(&[], |who| &who.models)),
        attempts: Attempts {
            transcription: context.store.most_attempts(&session.id, Task::Transcription)?,
            diarization: context.store.most_attempts(&session.id, Task::Diarization)?,
        },
        processing: Processing {
            seconds: seconds(session.engine_seconds),
            seconds_after_end: seconds(now.since(ended_at).as_secs_f64()),
        },
    })
}

/// How diarization ended in each window, and what it left.
fn heard(store: &Store, session: &str) -> Result<(Vec<DiarizationRow>, Heard), StoreError> {
    let (mut rows, mut heard) = (Vec::new(), Heard::default());
    for row in store.rows::<Voiced, _>(session, Task::Diarization) {
        let (row, voiced) = row?.split();
        voiced.iter().for_each(|window| heard.add(window));
        rows.push(row);
    }
    Ok((rows, heard))
}

/// The PLDA that a session's voices fit. One that is damaged, which `doctor` finds too, costs no session its speakers.
fn plda(models: &Models, heard: &Heard) -> Option<InstalledPlda> {
    let read = models.read_plda(heard.clustered_voice()?);
    read.unwrap_or_else(|why| {
        error!(error = %report(&why), "The PLDA cannot be used; speakers are told apart without it.");
        None
    })
}

/// Who spoke when, from what the store still holds of a session's voices; empty where that does not give the speakers of
/// the record. There are as many
/// speakers as in the record, told apart by the same models, whatever the site has set and installed since.
///
/// # Errors
/// [`StoreError`].
pub fn turns(store: &Store, models: &Models, record: &Record) -> Result<Vec<Turn>, StoreError> {
    let with_plda = record.models.iter().any(|model| model.role == Role::Plda.name());
    let count = record.speakers.len();
    // As nobody had said how many there are, unless that gives others than the record has.
    for bounds in [Bounds::default(), Bounds::exactly(count)] {
        let (_, heard) = heard(store, &record.session_id)?;
        let plda = if with_plda { plda(models, &heard) } else { None };
        let turns = heard.who(bounds, plda.as_ref()).map(|who| who.turns).unwrap_or_default();
        if diarize::speakers(&turns) == count {
            return Ok(turns);
        }
    }
    Ok(Vec::new())
}

fn speaker_count(speakers: &[Speaker], who: Option<&Who>) -> SpeakerCount {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    SpeakerCount { best: number(speakers.len()), maybe: who.and_then(|who| who.maybe).map(number) }
}

/// Who of a session is enrolled. Prints that cannot be read name nobody; the session is none the worse.
fn names(context: &Context, who: &Who) -> Vec<Name> {
    let enrolled = prints::all(&context.store, &context.keys).unwrap_or_else(|why| {
        error!(error = %report(&why), "Enrolled voices cannot be read; speakers are numbered.");
        Vec::new()
    });
    prints::names(&who.voices, who.models.first().map_or("", String::as_str), &enrolled)
}

fn speakers(turns: &[Turn], names: &[Name]) -> Vec<Speaker> {
    let lasting = |speaker| turns.iter().filter(|t| t.speaker == speaker).map(|t| t.end - t.start).sum();
    let named = |(speaker, name): (usize, &Name)| Speaker {
        label: name.label.clone(),
        role: name.role.clone(),
        seconds: seconds(lasting(speaker)),
    };
    names.iter().enumerate().map(named).collect()
}

/// The gaps of the recording, which ends with one if its last part is lost; once its audio is destroyed, those of the
/// record before.
fn gaps(
    context: &Context,
    session: &SessionRow,
    transcription: &[TranscriptionRow],
) -> Result<Vec<Gap>, ConcludeError> {
    let spool = match SpoolReader::open(&context.spool_file(&session.id), &context.keys, &session.id) {
        Ok(spool) => spool,
        Err(why) if why.is_passing() => return Err(why.into()),
        Err(_) => match last_record(context, &session.id)? {
            Some(record) => return Ok(record.gaps),
            None => return Ok(unheard(&context.store.windows(&session.id)?, transcription)),
        },
    };
    let lost = spool.samples()..session.samples;
    let lost = (!lost.is_empty()).then_some((lost, GapCause::AudioInvalid));
    Ok(spool.gaps().into_iter().chain(lost).map(|(stretch, cause)| gap(&stretch, cause)).collect())
}

fn gap(stretch: &Range<u64>, cause: GapCause) -> Gap {
    let at = |samples| seconds(crate::audio::seconds(samples));
    Gap { start: at(stretch.start), end: at(stretch.end), cause }
}

/// What nobody was to listen to, of a recording that is lost: nobody knows what was there.
fn unheard(windows: &[WindowRow], transcription: &[TranscriptionRow]) -> Vec<Gap> {
    let is_heard = |window: &&WindowRow| transcription.iter().any(|row| row.window.number == window.number);
    let unheard = windows.iter().filter(|window| !is_heard(window));
    unheard.map(|window| gap(&(window.start_sample..window.end_sample), GapCause::AudioInvalid)).collect()
}

fn models(context: &Context, transcribers: &[&str], voices: &[String]) -> Vec<Model> {
    let vad = voices.first().and_then(|_| crate::models::ranked(Role::Vad).next()).map(|m| m.id.as_str());
    let ids = transcribers.iter().copied().chain(vad).chain(voices.iter().map(String::as_str));
    let known = ids.filter_map(|id| LOCK.iter().find(|m| m.id == id));
    known
        .map(|entry| Model {
            id: entry.id.clone(),
            role: entry.role.name().into(),
            file: entry.file.clone(),
            sha256: context.engines.sha256(entry),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::store::RowState;

    #[test]
    fn what_nobody_could_listen_to_of_a_lost_recording_is_a_gap() {
        let window = |number: u32| {
            let start_sample = u64::from(number) * 160_000;
            WindowRow { number, start_sample, end_sample: start_sample + 160_000, blind_cut: false }
        };
        let heard = Row { window: window(0), state: RowState::Done, attempts: 1, result: None, cause: None };
        let gaps = unheard(&[window(0), window(1)], &[heard]);
        assert_eq!(gaps, [Gap { start: 10.0, end: 20.0, cause: GapCause::AudioInvalid }]);
    }
}
