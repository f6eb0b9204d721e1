//! The two lanes: transcription and diarization, side by side, one guarded call per row.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::error::{
    DiarizationError, EngineFault, FailedAttempt, Fault, GuardError, RetryExhaustedError, TaskFailure,
    TranscriptionError, report,
};
use shared::guard::{Guarded, Rungs};
use shared::record::Status;
use shared::store::{Claim, StoreError};
use shared::task::Task;
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::audio::{levels, samples_in, seconds};
use crate::context::Context;
use crate::engine::protocol::CHUNK;
use crate::engine::{Phrase, Transcriber, Voices};
use crate::ladder::Signs;
use crate::spool::{SpoolError, SpoolReader};
use crate::voicing::{WindowAudio, hear};

/// How long a lane with nothing to do waits before it looks again by itself.
const IDLE: Duration = Duration::from_millis(500);
/// How long a lane waits when the database fails.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);

/// What transcription leaves of a window; seconds from the session's start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transcribed {
    /// Id of the model.
    pub model: String,
    /// What was heard.
    pub phrases: Vec<Phrase>,
    /// How loud each tenth of a second is; see [`levels`].
    #[serde(default)]
    pub levels: Vec<i8>,
}

/// Transcribes window after window, for ever.
pub async fn transcription_lane(context: Arc<Context>, engine: impl Transcriber) {
    let engine = tokio::sync::Mutex::new(engine);
    let kind = Kind {
        task: Task::Transcription,
        lead: 0,
        exhausted: TranscriptionError::ClaimsExhausted,
        damaged: TranscriptionError::Damaged,
        invalid: |problem| TranscriptionError::AudioInvalid { problem },
        fault: |fault| TranscriptionError::Engine { fault },
    };
    let models = || {
        let rungs = engine.try_lock().map_or(1, |engine| engine.rungs());
        Rungs { rung: choose_model(&context, rungs), rungs }
    };
    lane(&context, &kind, models, async |audio, rung| {
        let offset = seconds(audio.start_sample);
        let heard = engine.lock().await.transcribe(audio.window(), rung).await?;
        let mut ladder = context.ladder.lock().unwrap_or_else(PoisonError::into_inner);
        ladder.ended_with(rung, context.now().uptime);
        *context.transcriber.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard.model.clone());
        let phrases = heard.phrases.into_iter().map(|p| p.shifted(offset)).collect();
        Ok(Transcribed { model: heard.model, phrases, levels: levels(audio.window()) })
    })
    .await;
}

fn choose_model(context: &Context, rungs: u32) -> u32 {
    let signs = Signs {
        rungs,
        // A database that cannot be asked is no reason to use another model.
        backlog: context.store.backlog(Task::Transcription).unwrap_or(0),
        celsius: context.vitals.board().celsius,
        warm_celsius: context.settings.health.warm_celsius,
    };
    let mut ladder = context.ladder.lock().unwrap_or_else(PoisonError::into_inner);
    ladder.choose(signs, context.now().uptime)
}

/// Hears the voices of window after window, for ever.
pub async fn diarization_lane(context: Arc<Context>, mut engine: impl Voices) {
    let kind = Kind {
        task: Task::Diarization,
        lead: CHUNK as u64,
        exhausted: DiarizationError::ClaimsExhausted,
        damaged: DiarizationError::Damaged,
        invalid: |_| DiarizationError::AudioInvalid,
        fault: |fault| DiarizationError::Engine { fault },
    };
    let step = samples_in(Duration::from_secs_f64(context.settings.engine.segmentation_step));
    lane(&context, &kind, || Rungs::ONE, async |audio, _| hear(&mut engine, audio, step).await).await;
}

/// What differs between the lanes.
struct Kind<E> {
    task: Task,
    /// Samples before a window that are read with it.
    lead: u64,
    exhausted: E,
    /// For what cannot be kept, because the key of its session is gone.
    damaged: E,
    invalid: fn(String) -> E,
    fault: fn(EngineFault) -> E,
}

/// Why a row may still say that it is running.
enum Interrupted {
    /// Whoever was at it died; that it was begun counts against it.
    ByDeath,
    /// The store failed, which is not the window's doing.
    ByStore,
}

async fn lane<R: Serialize, E: Fault + Serialize + Clone>(
    context: &Context,
    kind: &Kind<E>,
    models: impl Fn() -> Rungs,
    mut attempt: impl AsyncFnMut(WindowAudio<'_>, u32) -> Result<R, EngineFault>,
) {
    let exhausted = TaskFailure::at_once(kind.exhausted.clone());
    // What is running belongs to nobody: this lane is the only one of its task, and has just begun or was interrupted.
    let mut left_running = Some(Interrupted::ByDeath);
    let mut spool = None;
    loop {
        let rung = context.work.notified();
        let outcome = async {
            match left_running {
                Some(Interrupted::ByDeath) => context.store.take_back(kind.task, &exhausted)?,
                Some(Interrupted::ByStore) => context.store.give_back(kind.task)?,
                None => {}
            }
            left_running = None;
            if !context.store.has_rows_to_do(kind.task)? {
                return Ok(true);
            }
            context.check(kind.task).await;
            let Some(claim) = context.store.claim(kind.task)? else {
                return Ok(admit_refused(context, kind.task)? == 0);
            };
            let span = info_span!("window", window = claim.window.number);
            work(context, kind, &claim, &mut spool, models(), &mut attempt).instrument(span).await?;
            Ok::<_, StoreError>(false)
        };
        match outcome.await {
            Ok(false) => {}
            Ok(true) => {
                // Nor is the key of a session that is over kept by a lane that has nothing to do.
                let is_over = |id: &str| context.store.session(id).is_ok_and(|row| row.ended_at.is_some());
                spool = spool.filter(|(session, _)| !is_over(session));
                drop(tokio::time::timeout(IDLE, rung).await);
            }
            Err(why) => {
                error!(error = %report(&why), service_name = %kind.task, "The work queue could not be used; trying again.");
                left_running.get_or_insert(Interrupted::ByStore);
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
        }
    }
}

/// Once the breaker would let a call through, what it refused may be tried again.
fn admit_refused(context: &Context, task: Task) -> Result<usize, StoreError> {
    let may_try = context.breakers.view(task.service()).retry_after.is_some_and(|wait| wait.is_zero());
    if may_try { context.store.admit_refused(task) } else { Ok(0) }
}

async fn work<R: Serialize, E: Fault + Serialize + Clone>(
    context: &Context,
    kind: &Kind<E>,
    claim: &Claim,
    spool: &mut Option<(String, SpoolReader)>,
    models: Rungs,
    attempt: &mut impl AsyncFnMut(WindowAudio<'_>, u32) -> Result<R, EngineFault>,
) -> Result<(), StoreError> {
    let (store, task) = (&context.store, kind.task);
    if store.session(&claim.session)?.status == Status::Queued {
        store.set_status(&claim.session, Status::Processing, context.now().wall)?;
    }
    if let Some(why) = store.content_trouble(&claim.session)? {
        error!(session_id = claim.session, error = %report(&why), service_name = %task, "What this window holds could not be kept.");
        store.fail(claim.id, 0, &TaskFailure::at_once(kind.damaged.clone()), &[])?;
        context.settled.notify_waiters();
        return Ok(());
    }
    let lead = kind.lead.min(claim.window.start_sample);
    let pcm = match read(context, claim, lead, spool) {
        Ok(pcm) => pcm,
        Err(why) if why.is_passing() => {
            error!(session_id = claim.session, error = %report(&why), "A window cannot be read yet; trying again.");
            store.give_back(task)?;
            tokio::time::sleep(AFTER_TROUBLE).await;
            return Ok(());
        }
        Err(why) => {
            let failure = TaskFailure::at_once((kind.invalid)(why.problem()));
            store.fail(claim.id, failure.retry_count, &failure, &[])?;
            context.settled.notify_waiters();
            return Ok(());
        }
    };
    let begun = tokio::time::Instant::now();
    let guard = context.guard(task, &claim.session);
    let start_sample = claim.window.start_sample;
    let audio = WindowAudio { pcm: &pcm, lead: usize::try_from(lead).unwrap_or(0), start_sample };
    let call = guard.call(models, async |rung| {
        tokio::select! {
            biased;
            answer = attempt(audio, rung) => answer.map_err(kind.fault),
            stop = context.must_stop() => Err((kind.fault)(stop)),
        }
    });
    let called = tokio::select! {
        biased;
        called = call => called,
        () = dropped(context, claim) => {
            info!(session_id = claim.session, service_name = %task, "Window stopped: its session was dropped.");
            context.settled.notify_waiters();
            return Ok(());
        }
    };
    settle(context, kind, claim, called, begun.elapsed())?;
    store.add_engine_seconds(&claim.session, begun.elapsed().as_secs_f64())?;
    context.settled.notify_waiters();
    Ok(())
}

/// Waits until the claim is no longer this worker's, because its session was dropped.
async fn dropped(context: &Context, claim: &Claim) {
    loop {
        context.dropped.notified().await;
        if context.store.is_running(claim.id).is_ok_and(|running| !running) {
            return;
        }
    }
}

/// Stores how a call ended.
fn settle<R: Serialize, E: Fault + Serialize>(
    context: &Context,
    kind: &Kind<E>,
    claim: &Claim,
    called: Result<Guarded<R>, GuardError<E>>,
    took: Duration,
) -> Result<(), StoreError> {
    match called {
        Ok(done) => {
            context.store.complete(claim.id, done.attempts, &done.value, &done.history)?;
            info!(
                session_id = claim.session, service_name = %kind.task, retry_count = done.attempts,
                seconds = took.as_secs_f64(), "Window done."
            );
            Ok(())
        }
        Err(GuardError::Open(refusal)) => {
            context.store.refuse(claim.id)?;
            info!(
                session_id = claim.session, service_name = %kind.task, failure_count = refusal.failure_count,
                "Window refused by the circuit breaker."
            );
            Ok(())
        }
        Err(
            GuardError::Failed { last_exception, .. }
            | GuardError::Exhausted(RetryExhaustedError { last_exception, .. }),
        ) if last_exception.ailment().is_some_and(|ailment| ailment.is_of_the_board()) => {
            context.store.refuse(claim.id)?;
            warn!(
                session_id = claim.session, error_type = last_exception.error_type(), is_retryable = true,
                retry_count = 0, circuit_breaker_state = %context.breakers.view(kind.task.service()).state,
                service_name = %kind.task, error = %report(&last_exception), details = %last_exception.details(),
                "Window postponed until the board is well."
            );
            Ok(())
        }
        Err(GuardError::Failed { last_exception, history }) => {
            let retry_count = u32::try_from(history.len()).unwrap_or(u32::MAX);
            let errors = history.iter().map(|attempt| attempt.error.clone()).collect();
            let failure = TaskFailure { retry_count, exhausted: false, last_exception, history: errors };
            give_up(context, kind.task, claim, &failure, &history)
        }
        Err(GuardError::Exhausted(why)) => {
            let history = why.history.clone();
            give_up(context, kind.task, claim, &TaskFailure::from(why), &history)
        }
    }
}

/// The samples of a window and `lead` before it. The reader of the session in work is kept: opening one reads the whole
/// recording.
fn read(
    context: &Context,
    claim: &Claim,
    lead: u64,
    spool: &mut Option<(String, SpoolReader)>,
) -> Result<Vec<i16>, SpoolError> {
    let stretch = claim.window.start_sample.saturating_sub(lead)..claim.window.end_sample;
    let mut reader = match spool.take() {
        Some((session, reader)) if session == claim.session => reader,
        Some(_) | None => SpoolReader::open(&context.spool_file(&claim.session), &context.keys, &claim.session)?,
    };
    reader.refresh()?;
    let pcm = reader.read(stretch)?;
    *spool = Some((claim.session.clone(), reader));
    Ok(pcm)
}

fn give_up<E: Fault + Serialize>(
    context: &Context,
    task: Task,
    claim: &Claim,
    failure: &TaskFailure<E>,
    history: &[FailedAttempt],
) -> Result<(), StoreError> {
    let why = &failure.last_exception;
    let error_type = if failure.exhausted { "RetryExhaustedError" } else { why.error_type() };
    let state = context.breakers.view(task.service()).state;
    let (is_retryable, retry_count) = (why.is_retryable(), failure.retry_count);
    let (session_id, details) = (&claim.session, why.details());
    // The guide's levels: without words there is no record, without speakers there still is.
    match task {
        Task::Transcription => error!(
            session_id, error_type, is_retryable, retry_count, circuit_breaker_state = %state, service_name = %task,
            error = %report(why), %details, "Transcription failed for a window."
        ),
        Task::Diarization => warn!(
            session_id, error_type, is_retryable, retry_count, circuit_breaker_state = %state, service_name = %task,
            error = %report(why), %details, "Diarization failed for a window."
        ),
    }
    context.store.fail(claim.id, failure.retry_count, failure, history)
}
