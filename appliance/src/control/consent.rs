//! `POST /sessions/{id}/pause|resume|withdraw`. The session being recorded is also called `current`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::store::{SessionRow, Store};

use super::{Control, Refusal, as_it_stands, blocking, body};
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
    let clinic = store.withdrawal(&row.id).ok()??;
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
    as_it_stands(control, &id)
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
