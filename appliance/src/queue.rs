//! `roomscribe queue`, with or without a daemon: what is not yet, or not well, at the clinic. Tells where things stand
//! and why, and never what was said.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shared::error::{DiarizationError, TaskFailure, TranscriptionError};
use shared::store::{By, Dropped, QueueError, Store, StoreError, WITHDRAWAL};
use shared::task::Task;

use crate::control::session_json;

/// The most sessions a list gives; what is more is counted in health.
const LISTED: u32 = 1000;

/// Every session that is not, or not well, at the clinic, and what was put aside.
///
/// # Errors
/// [`StoreError`].
pub fn list(store: &Store) -> Result<Value, StoreError> {
    Ok(json!({ "queue": store.queue_items(LISTED)?, "quarantined": store.quarantined()? }))
}

/// One session with the history of its attempts.
///
/// # Errors
/// [`StoreError`].
pub fn show(store: &Store, session: &str) -> Result<Value, StoreError> {
    let row = store.session(session)?;
    let place = store.queue_items(u32::MAX)?.into_iter().find(|item| item.session_id == session);
    let mut shown = session_json(store, &row);
    shown["place"] = json!(place.as_ref().map(|item| item.place));
    shown["reason"] = json!(place.and_then(|item| item.reason));
    let attempts = store.histories(session)?;
    let attempts: Vec<Value> = attempts
        .into_iter()
        .map(|(task, window, attempts)| json!({ "task": task, "window": window, "attempts": attempts }))
        .collect();
    shown["failed_attempts"] = json!(attempts);
    Ok(shown)
}

/// Gives a session up for good.
///
/// # Errors
/// [`QueueError`].
pub fn drop_session(store: &Store, session: &str, by: impl Into<By>) -> Result<Dropped, QueueError> {
    let cause = |task| match task {
        Task::Transcription => serde_json::to_string(&TaskFailure::at_once(TranscriptionError::Dropped)),
        Task::Diarization => serde_json::to_string(&TaskFailure::at_once(DiarizationError::Dropped)),
    };
    store.drop_session(session, cause, by)
}

/// Why the queue could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be written.
    #[error("{file} cannot be written")]
    Disk {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The list is not JSON.
    #[error("The list cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Writes every parcel that is owed, sealed as it is, every withdrawal that is, and the list of the queue into a folder: to be carried to the
/// clinic by hand. Returns the files.
///
/// # Errors
/// [`ExportError`].
pub fn export(store: &Store, folder: &Path) -> Result<Vec<PathBuf>, ExportError> {
    let write = |path: PathBuf, bytes: &[u8]| {
        let disk = |source| ExportError::Disk { file: path.display().to_string(), source };
        std::fs::write(&path, bytes).map_err(disk)?;
        Ok::<_, ExportError>(path)
    };
    let disk = |source| ExportError::Disk { file: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(disk)?;
    let mut files = vec![write(folder.join("queue.json"), &serde_json::to_vec_pretty(&list(store)?)?)?];
    for parcel in store.owed(u32::MAX)? {
        if parcel.revision == WITHDRAWAL {
            let message = store.withdrawal_message(&parcel.session)?;
            files.push(write(folder.join(format!("{}.withdrawal", parcel.session)), &message)?);
        } else if let Some(bytes) = store.parcel(&parcel.session, parcel.revision)? {
            files.push(write(folder.join(format!("{}.{}.parcel", parcel.session, parcel.revision)), &bytes)?);
        }
    }
    Ok(files)
}
