//! A recording from a file, as a session of its own through the same pipeline.

use std::path::Path;
use std::time::Duration;

use shared::breaker::Service;
use shared::error::{CircuitBreakerOpenError, TaskFailure, TranscriptionError};
use shared::record::{Consent, Status};
use shared::store::{NewSession, StoreError, WindowRow};
use tracing::info;
use uuid::Uuid;

use crate::audio::SAMPLE_RATE_HZ;
use crate::context::{Context, time_quality};
use crate::decode::decode;
use crate::spool::SpoolWriter;

/// How often a waiting import looks whether its session is concluded.
const LOOK: Duration = Duration::from_millis(100);

/// Why a file did not even become a session.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The transcription breaker is open: ask again later.
    #[error(transparent)]
    Refused(CircuitBreakerOpenError),
    /// There is no room or no right to write.
    #[error("The recording cannot be written: {0}")]
    Disk(#[from] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Refuses while the transcription breaker would refuse.
///
/// # Errors
/// [`ImportError::Refused`].
pub fn admit(context: &Context) -> Result<(), ImportError> {
    let view = context.breakers.view(Service::Transcription);
    match view.retry_after {
        Some(wait) if wait.is_zero() => Ok(()),
        retry_after => Err(ImportError::Refused(CircuitBreakerOpenError {
            service_name: Service::Transcription,
            failure_count: view.failure_count,
            retry_after,
        })),
    }
}

/// Takes a file in and returns its session. A file that is no recording becomes a failed session that keeps nothing
/// but its cause. Blocks while it decodes.
///
/// # Errors
/// [`ImportError::Disk`] or [`ImportError::Store`]; nothing is left behind then.
pub fn take_in(context: &Context, file: &Path) -> Result<String, ImportError> {
    let decoded = decode(file);
    let now = context.now();
    let id = Uuid::new_v4().to_string();
    let path = context.spool_file(&id);
    let samples = match &decoded {
        Ok(pcm) => write(&path, pcm, context).inspect_err(|_| drop(std::fs::remove_file(&path)))?,
        Err(_) => 0,
    };
    let new = NewSession {
        id: id.clone(),
        started_at: now.wall,
        time_quality: time_quality(),
        consent: Consent { basis: "import".into(), by: None, at: now.wall.to_string() },
        status: Status::Queued,
    };
    context.store.begin_session(&new, now.wall)?;
    info!(session_id = id, seconds = crate::audio::seconds(samples), "Imported.");
    if let Err(why) = decoded {
        give_up(context, &id, why.to_string())?;
    }
    let ended = context.now().wall;
    context.store.end_session(&id, samples, ended, ended)?;
    context.settled.notify_waiters();
    Ok(id)
}

fn write(path: &Path, pcm: &[i16], context: &Context) -> std::io::Result<u64> {
    let mut spool = SpoolWriter::create(path, &context.now())?;
    for second in pcm.chunks(SAMPLE_RATE_HZ as usize) {
        spool.audio(second, &context.now())?;
    }
    Ok(spool.samples())
}

/// Marks the one window of a session without sound as failed, so that the matrix decides it like any other.
fn give_up(context: &Context, session: &str, problem: String) -> Result<(), StoreError> {
    let nothing = WindowRow { number: 0, start_sample: 0, end_sample: 0, blind_cut: false };
    context.store.add_window(session, &nothing, &[], 0)?;
    let failure = TaskFailure::at_once(TranscriptionError::AudioInvalid { problem });
    context.store.add_failed(session, 0, Service::Transcription, &failure)?;
    context.store.audio_destroyed(session, context.now().wall)
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
                let (done, all) = context.store.progress(session, Service::Transcription)?;
                progress(done, all);
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
