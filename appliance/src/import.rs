//! A recording from a file, as a session of its own through the same pipeline.

use std::io;
use std::path::Path;
use std::time::Duration;

use shared::breaker::Service;
use shared::error::{CircuitBreakerOpenError, TaskFailure, TranscriptionError, report};
use shared::record::{Consent, GapCause, Status};
use shared::store::{NewSession, SpeakerHint, StoreError};
use shared::task::Task;
use tracing::{info, warn};
use uuid::Uuid;

use crate::audio::SAMPLE_RATE_HZ;
use crate::context::Context;
use crate::decode::{DecodeError, Stretch, decode};
use crate::forget;
use crate::spool::{SpoolError, SpoolWriter};

/// How often a waiting import looks whether its session is concluded.
const LOOK: Duration = Duration::from_millis(100);

/// Why a file did not even become a session.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The transcription breaker is open: ask again later.
    #[error(transparent)]
    Refused(CircuitBreakerOpenError),
    /// There is no room or no right to write, or no key to seal it with.
    #[error("The recording cannot be written: {0}")]
    Spool(#[from] SpoolError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Refuses while the transcription breaker would refuse, after another look at what a health check has found.
///
/// # Errors
/// [`ImportError::Refused`].
pub async fn admit(context: &Context) -> Result<(), ImportError> {
    context.check(Task::Transcription).await;
    let view = context.breakers.view(Service::Transcription);
    match view.retry_after {
        Some(wait) if wait.is_zero() => Ok(()),
        retry_after => Err(ImportError::Refused(CircuitBreakerOpenError {
            service_name: Service::Transcription,
            failure_count: view.failure_count,
            retry_after,
            ailment: view.ailment,
        })),
    }
}

/// Takes away what was begun of a session that is none, or keeps nothing.
fn forget(context: &Context, session: &str) {
    if let Err(why) = forget::begun(context, session) {
        let error = report(&why);
        warn!(session_id = session, %error, "What was begun of an import could not be removed; the next start does it.");
    }
}

/// Takes a file in and returns its session. A file that is no recording becomes a failed session that keeps nothing
/// but its cause. Blocks while it decodes.
///
/// # Errors
/// [`ImportError::Spool`] or [`ImportError::Store`]; nothing is left behind then.
pub fn take_in(context: &Context, file: &Path, speakers: SpeakerHint) -> Result<String, ImportError> {
    let id = Uuid::new_v4().to_string();
    let path = context.spool_file(&id);
    let taken = spool(context, file, &path, &id).and_then(|decoded| {
        let failed = decoded
            .as_ref()
            .err()
            .map(|why| TaskFailure::at_once(TranscriptionError::AudioInvalid { problem: why.to_string() }));
        let now = context.now();
        let new = NewSession {
            id: id.clone(),
            started_at: now.wall,
            time_quality: context.time_quality(),
            consent: Consent { basis: "import".into(), by: None, at: now.wall.to_string() },
            status: Status::Queued,
            speakers,
        };
        let samples = decoded.unwrap_or(0);
        if failed.is_some() {
            forget(context, &id);
        }
        context.store.import_session(&new, samples, failed.as_ref(), now.wall)?;
        Ok(samples)
    });
    let samples = taken.inspect_err(|_| forget(context, &id))?;
    info!(session_id = id, seconds = crate::audio::seconds(samples), "Imported.");
    context.begun.notify_waiters();
    context.settled.notify_waiters();
    Ok(id)
}

/// Decodes a file into a spool. The outer error is the disk's, the inner one the recording's.
fn spool(context: &Context, file: &Path, path: &Path, session: &str) -> Result<Result<u64, DecodeError>, ImportError> {
    let mut spool = SpoolWriter::begin(path, &context.keys, session, &context.now())?;
    let mut second: Vec<i16> = Vec::with_capacity(2 * SAMPLE_RATE_HZ as usize);
    let write = |spool: &mut SpoolWriter, second: &mut Vec<i16>, all: bool| -> io::Result<()> {
        let whole = if all { second.len() } else { second.len() / SAMPLE_RATE_HZ as usize * SAMPLE_RATE_HZ as usize };
        spool.audio(&second[..whole], &context.now())?;
        second.drain(..whole);
        Ok(())
    };
    let decoded = decode(file, |stretch| match stretch {
        Stretch::Sound(pcm) => {
            second.extend_from_slice(pcm);
            write(&mut spool, &mut second, false)
        }
        Stretch::Damaged(samples) => {
            write(&mut spool, &mut second, true)?;
            Ok(spool.gap(samples, GapCause::AudioInvalid, &context.now())?)
        }
    });
    match decoded {
        Err(DecodeError::Sink(why)) => Err(SpoolError::from(why).into()),
        Err(why) => Ok(Err(why)),
        Ok(()) => {
            write(&mut spool, &mut second, true).map_err(SpoolError::from)?;
            Ok(Ok(spool.samples()))
        }
    }
}

/// Waits until a session is concluded or postponed, and says which. `progress` hears how many of its windows are
/// transcribed, of how many known so far.
///
/// # Errors
/// [`StoreError`].
pub async fn concluded(
    context: &Context,
    session: &str,
    mut progress: impl FnMut(usize, usize),
) -> Result<Status, StoreError> {
    loop {
        let status = context.store.session(session)?.status;
        match status {
            Status::Done | Status::Failed | Status::Postponed | Status::Withdrawn => return Ok(status),
            Status::Recording | Status::Paused | Status::Queued | Status::Processing => {
                let (done, all) = context.store.progress(session, Task::Transcription)?;
                progress(done, all);
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
