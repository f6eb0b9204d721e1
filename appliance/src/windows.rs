//! Cutting a session into windows while it is still being recorded.
//!
//! The spool is followed as it grows. Whenever thirty seconds are there, they are cut in a pause; if the voice engine
//! is absent or late, at the quietest moment. Capture never waits for this.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use shared::error::report;
use shared::record::Status;
use shared::store::{SessionRow, StoreError, WindowRow};
use shared::task::Task;
use tracing::{error, warn};

use crate::audio::{SAMPLE_RATE_HZ, samples_in};
use crate::context::Context;
use crate::engine::Voices;
use crate::speech::{self, Cut, MAX_WINDOW};
use crate::spool::{SpoolError, SpoolReader};

/// How often the spool is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A recording that ends this soon after a full window is not cut again; so long a session is waited for.
const TAIL: Duration = Duration::from_millis(500);
/// How long cutting waits for the voice engine: the next window begins in seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a session could not be cut further.
#[derive(Debug, thiserror::Error)]
enum WindowError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("The spool could not be read")]
    Spool(#[from] SpoolError),
}

/// Cuts every session that is not concluded, for ever.
pub async fn follow_all(context: Arc<Context>, voices: impl Voices + Clone + 'static) {
    let mut followed = HashSet::new();
    loop {
        let rung = context.begun.notified();
        match unfinished(&context) {
            Ok(sessions) => {
                for session in sessions.difference(&followed) {
                    tokio::task::spawn_local(follow(context.clone(), session.clone(), voices.clone()));
                }
                followed = sessions;
            }
            Err(why) => error!(error = %report(&why), "Sessions could not be looked for; trying again."),
        }
        drop(tokio::time::timeout(LOOK, rung).await);
    }
}

fn unfinished(context: &Context) -> Result<HashSet<String>, StoreError> {
    let mut sessions = HashSet::new();
    for status in [Status::Recording, Status::Paused, Status::Queued, Status::Processing, Status::Postponed] {
        sessions.extend(context.store.sessions_in(status)?.into_iter().map(|s| s.id));
    }
    Ok(sessions)
}

/// Cuts a session until its end. Says so and tries again if the disk does not let it.
async fn follow(context: Arc<Context>, session: String, mut voices: impl Voices) {
    loop {
        let cut = match cut_all(&context, &session, &mut voices).await {
            Err(WindowError::Spool(why)) if why.is_lost() => close(&context, &session, why),
            cut => cut,
        };
        match cut {
            Ok(()) => return,
            Err(why) => {
                error!(error = %report(&why), session_id = session, "Windows could not be cut; trying again.");
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    }
}

/// The tasks of a session's windows.
fn tasks(context: &Context, samples: u64, ended: bool) -> &'static [Task] {
    let is_too_short = ended && samples < u64::from(SAMPLE_RATE_HZ);
    if is_too_short || !context.settings.session.diarization {
        &[Task::Transcription]
    } else {
        &[Task::Transcription, Task::Diarization]
    }
}

async fn cut_all(context: &Context, session: &str, voices: &mut impl Voices) -> Result<(), WindowError> {
    let last = context.store.windows(session)?.last().copied();
    let (mut number, mut from) = last.map_or((0, 0), |w| (w.number + 1, w.end_sample));
    let known = context.store.session(session)?;
    let is_over = |row: &SessionRow| row.status == Status::Withdrawn;
    if is_over(&known) || (known.ended_at.is_some() && from >= known.samples) {
        return Ok(());
    }
    let mut reader = SpoolReader::open(&context.spool_file(session), &context.keys, session)?;
    let full = samples_in(MAX_WINDOW);
    loop {
        // Whether it has ended is asked before the spool is read: then what is read is all there is.
        let known = context.store.session(session)?;
        if is_over(&known) {
            return Ok(());
        }
        let ended = known.ended_at.is_some();
        let total = reader.refresh()?;
        let left = total.saturating_sub(from);
        // The same question for a session that goes on and one that has ended, so that both are cut alike.
        let is_more = left > full + samples_in(TAIL);
        let (stretch, blind_cut) = if ended && !is_more {
            (from..total, false)
        } else if is_more {
            let cut = place(session, &mut reader, from..from + full, voices).await?;
            (from..from + cut.at, cut.blind)
        } else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        if !stretch.is_empty() {
            let window = WindowRow { number, start_sample: stretch.start, end_sample: stretch.end, blind_cut };
            let tasks = if reader.has_audio(&stretch) { tasks(context, total, ended) } else { &[] };
            context.store.add_window(session, &window, tasks, total)?;
            context.work.notify_waiters();
            (number, from) = (number + 1, stretch.end);
        }
        if ended && from >= total {
            // What was lost of the recording since it ended is a window without work.
            return leave_out(context, session, number, from);
        }
    }
}

/// Gives up what was not cut of a session that has ended and can never be read, so that it is concluded.
fn close(context: &Context, session: &str, why: SpoolError) -> Result<(), WindowError> {
    if context.store.session(session)?.ended_at.is_none() {
        return Err(why.into());
    }
    error!(error = %report(&why), session_id = session, "What is left of the recording is lost.");
    let last = context.store.windows(session)?.last().copied();
    let (number, from) = last.map_or((0, 0), |w| (w.number + 1, w.end_sample));
    leave_out(context, session, number, from)
}

/// Makes the rest of a session, if there is one, a window in which there is nothing to hear.
fn leave_out(context: &Context, session: &str, number: u32, from: u64) -> Result<(), WindowError> {
    let until = context.store.session(session)?.samples;
    if from < until {
        let window = WindowRow { number, start_sample: from, end_sample: until, blind_cut: false };
        context.store.add_window(session, &window, &[], until)?;
    }
    context.settled.notify_waiters();
    Ok(())
}

async fn place(
    session: &str,
    reader: &mut SpoolReader,
    stretch: Range<u64>,
    voices: &mut impl Voices,
) -> Result<Cut, WindowError> {
    let pcm = reader.read(stretch)?;
    let heard = match tokio::time::timeout(PATIENCE, voices.speech(&pcm)).await {
        Ok(Ok(probabilities)) => Some(probabilities),
        Ok(Err(why)) => {
            warn!(error = %why, details = why.explain(), session_id = session, "No voice activity detection; a window is cut blindly.");
            None
        }
        Err(_) => {
            warn!(session_id = session, "Voice activity detection is late; a window is cut blindly.");
            None
        }
    };
    Ok(speech::cut(&pcm, heard.as_deref()))
}
