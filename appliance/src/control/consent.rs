//! `POST /sessions/{id}/pause|resume|withdraw`. The session being recorded is also called `current`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::record::Status;
use shared::store::{AtClinic, SessionRow, Store};

use super::{Control, Refusal, blocking, body, session_json};
use crate::sessions::{SessionError, Sessions};

/// What they take. An empty body is an empty object.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Asking {
    /// The role of who asks.
    pub by: Option<String>,
}

/// What became of a withdrawn session, here and at the clinic; null for every other.
pub fn withdrawal_json(store: &Store, row: &SessionRow) -> Option<Value> {
    let clinic = match store.withdrawal(&row.id).ok()?? {
        AtClinic::None => "none",
        AtClinic::Owed => "owed",
        AtClinic::Confirmed => "confirmed",
        AtClinic::Refused => "refused",
    };
    let is_erased = store.to_erase().is_ok_and(|all| !all.contains(&row.id));
    Some(json!({ "erased": is_erased, "clinic": clinic }))
}

type Ask = fn(&Sessions, Option<&str>, Option<&str>) -> Result<String, SessionError>;

async fn ask(control: &Control, id: String, bytes: &Bytes, ask: Ask) -> Result<Json<Value>, Refusal> {
    let asking: Asking = body(bytes)?;
    let sessions = control.sessions.clone();
    let asked = move || {
        let session = (id != "current").then_some(id.as_str());
        ask(&sessions, session, asking.by.as_deref())
    };
    let id = blocking(asked).await??;
    let mut row = control.context.store.session(&id)?;
    if let Some((_, progress)) = control.sessions.recording().filter(|(recording, _)| *recording == id) {
        row.samples = progress.samples();
        row.status = if progress.is_off_record() { Status::Paused } else { Status::Recording };
    }
    Ok(Json(session_json(&control.context.store, &row)))
}

pub async fn pause(
    State(control): State<Control>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Refusal> {
    ask(&control, id, &bytes, Sessions::pause).await
}

pub async fn resume(
    State(control): State<Control>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Refusal> {
    ask(&control, id, &bytes, Sessions::resume).await
}

pub async fn withdraw(
    State(control): State<Control>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Refusal> {
    ask(&control, id, &bytes, Sessions::withdraw).await
}
