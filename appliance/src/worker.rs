//! The two lanes: transcription and diarization, side by side, one guarded call per row.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use shared::breaker::Service;
use shared::error::{DiarizationError, Fault, GuardError, TaskFailure, TranscriptionError, report};
use shared::record::Status;
use shared::store::{Claim, StoreError, Task};
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::audio::seconds;
use crate::context::Context;
use crate::diarize::{Piece, Tuning, pieces};
use crate::engine::protocol::{float_bytes, floats};
use crate::engine::{Phrase, Transcriber, Voices};
use crate::models::Role;
use crate::speech;
use crate::spool::SpoolReader;

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
}

/// What diarization leaves of a window; seconds from the session's start.
#[derive(Clone, Serialize, Deserialize)]
pub struct Voiced {
    /// Id of the voice model.
    pub model: String,
    /// Where speech is.
    pub regions: Vec<(f64, f64)>,
    /// Stretches of it; regions counted within this window.
    pub pieces: Vec<Piece>,
    /// One after the other, 32-bit floats in base64.
    vectors: String,
}

impl Voiced {
    /// The vector of each piece.
    #[must_use]
    pub fn vectors(&self) -> Vec<Vec<f32>> {
        let all = floats(&BASE64_STANDARD.decode(&self.vectors).unwrap_or_default());
        match all.len() / self.pieces.len().max(1) {
            0 => Vec::new(),
            dimension => all.chunks_exact(dimension).map(<[f32]>::to_vec).collect(),
        }
    }
}

/// Transcribes window after window, for ever.
pub async fn transcription_lane(context: Arc<Context>, mut engine: impl Transcriber) {
    let invalid = |problem| TranscriptionError::AudioInvalid { problem };
    lane(&context, Service::Transcription, TranscriptionError::ClaimsExhausted, invalid, async |claim, pcm| {
        let offset = seconds(claim.window.start_sample);
        let fault = |fault| TranscriptionError::Engine { fault };
        let model = context.engines.model(Role::Transcriber).await.map_err(fault)?.entry.id.clone();
        let phrases = engine.transcribe(pcm).await.map_err(fault)?.into_iter().map(|p| p.shifted(offset)).collect();
        Ok(Transcribed { model, phrases })
    })
    .await;
}

/// Hears the voices of window after window, for ever.
pub async fn diarization_lane(context: Arc<Context>, mut engine: impl Voices) {
    let invalid = |_| DiarizationError::AudioInvalid;
    lane(&context, Service::Diarization, DiarizationError::ClaimsExhausted, invalid, async |claim, pcm| {
        let offset = seconds(claim.window.start_sample);
        let fault = |fault| DiarizationError::Engine { fault };
        let model = context.engines.model(Role::Voice).await.map_err(fault)?.entry.id.clone();
        let length = seconds(pcm.len() as u64);
        let mut regions = speech::regions(&engine.speech(pcm).await.map_err(fault)?, length);
        let mut pieces = pieces(&regions, &Tuning::of(&model));
        let sample = |at: f64| ((at * f64::from(crate::audio::SAMPLE_RATE_HZ)).round() as usize).min(pcm.len());
        let stretches: Vec<_> = pieces.iter().map(|p| sample(p.start)..sample(p.end)).collect();
        let vectors = engine.embed(pcm, &stretches).await.map_err(fault)?;
        regions.iter_mut().for_each(|r| *r = (r.0 + offset, r.1 + offset));
        for piece in &mut pieces {
            piece.start += offset;
            piece.end += offset;
        }
        let vectors = BASE64_STANDARD.encode(float_bytes(&vectors.concat()));
        Ok(Voiced { model, regions, pieces, vectors })
    })
    .await;
}

async fn lane<R: Serialize, E: Fault + Serialize + Clone>(
    context: &Context,
    task: Task,
    exhausted: E,
    invalid: impl Fn(String) -> E,
    mut attempt: impl AsyncFnMut(&Claim, &[i16]) -> Result<R, E>,
) {
    let exhausted = TaskFailure::at_once(exhausted);
    // What is running belongs to nobody: this lane is the only one of its task, and has just begun or was interrupted.
    let mut is_left_running = true;
    let mut spool = None;
    loop {
        let rung = context.work.notified();
        let outcome = async {
            if is_left_running {
                context.store.take_back(task, &exhausted)?;
                is_left_running = false;
            }
            let Some(claim) = context.store.claim(task)? else { return Ok(admit_refused(context, task)? == 0) };
            let span = info_span!("window", session_id = claim.session, window = claim.window.number);
            work(context, task, &claim, &mut spool, &invalid, &mut attempt).instrument(span).await?;
            Ok::<_, StoreError>(false)
        };
        match outcome.await {
            Ok(false) => {}
            Ok(true) => drop(tokio::time::timeout(IDLE, rung).await),
            Err(why) => {
                error!(error = %report(&why), service_name = %task, "The work queue could not be used; trying again.");
                is_left_running = true;
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
        }
    }
}

/// Once the breaker would let a call through, what it refused may be tried again.
fn admit_refused(context: &Context, task: Task) -> Result<usize, StoreError> {
    let may_try = context.breakers.view(task).retry_after.is_some_and(|wait| wait.is_zero());
    if may_try { context.store.admit_refused(task) } else { Ok(0) }
}

async fn work<R: Serialize, E: Fault + Serialize>(
    context: &Context,
    task: Task,
    claim: &Claim,
    spool: &mut Option<(String, SpoolReader)>,
    invalid: &impl Fn(String) -> E,
    attempt: &mut impl AsyncFnMut(&Claim, &[i16]) -> Result<R, E>,
) -> Result<(), StoreError> {
    let store = &context.store;
    if store.session(&claim.session)?.status == Status::Queued {
        store.set_status(&claim.session, Status::Processing, context.now().wall)?;
    }
    let audio = read(context, claim, spool);
    let pcm = match audio {
        Ok(pcm) => pcm,
        Err(why) => {
            let failure = TaskFailure::at_once(invalid(why.kind().to_string()));
            store.fail(claim.id, failure.retry_count, &failure)?;
            context.settled.notify_waiters();
            return Ok(());
        }
    };
    let begun = tokio::time::Instant::now();
    let called = context.guard(task).call(async |_| attempt(claim, &pcm).await).await;
    match called {
        Ok(done) => {
            store.complete(claim.id, done.attempts, &done.value)?;
            info!(
                service_name = %task,
                retry_count = done.attempts, seconds = begun.elapsed().as_secs_f64(), "Window done."
            );
        }
        Err(GuardError::Open(refusal)) => {
            store.refuse(claim.id)?;
            info!(
                service_name = %task,
                failure_count = refusal.failure_count, "Window refused by the circuit breaker."
            );
        }
        Err(GuardError::Failed(why)) => fail(context, task, claim, TaskFailure::at_once(why))?,
        Err(GuardError::Exhausted(why)) => fail(context, task, claim, TaskFailure::from(why))?,
    }
    store.add_engine_seconds(&claim.session, begun.elapsed().as_secs_f64())?;
    context.settled.notify_waiters();
    Ok(())
}

/// A window's samples. The reader of the session in work is kept: opening one reads the whole recording.
fn read(context: &Context, claim: &Claim, spool: &mut Option<(String, SpoolReader)>) -> std::io::Result<Vec<i16>> {
    let stretch = claim.window.start_sample..claim.window.end_sample;
    let reader = match spool {
        Some((session, reader)) if *session == claim.session => reader,
        other => {
            let reader = SpoolReader::open(&context.spool_file(&claim.session))?;
            &mut other.insert((claim.session.clone(), reader)).1
        }
    };
    reader.refresh()?;
    reader.read(stretch)
}

fn fail<E: Fault + Serialize>(
    context: &Context,
    task: Task,
    claim: &Claim,
    failure: TaskFailure<E>,
) -> Result<(), StoreError> {
    let why = &failure.last_exception;
    warn!(
        service_name = %task,
        error_type = if failure.exhausted { "RetryExhaustedError" } else { why.error_type() },
        is_retryable = why.is_retryable(), retry_count = failure.retry_count,
        circuit_breaker_state = %context.breakers.view(task).state, error = %report(why), details = %why.details(),
        "Window given up."
    );
    context.store.fail(claim.id, failure.retry_count, &failure)
}
