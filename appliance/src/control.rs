//! The control socket: HTTP/1.1 and JSON for whoever stands at the box. It tells what is done and never what was said,
//! but to `POST /process`, which answers with the record it was asked to make.

mod consent;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::breaker::Service;
use shared::error::{CircuitBreakerOpenError, report};
use shared::record::{Consent, Status};
use shared::store::{
    AuditHead, BreakerCommand, By, OutboxState, QueueError, SessionRow, SpeakerHint, Store, StoreError,
};

use crate::admission::NoRoom;
use crate::audit;
use crate::context::Context;
use crate::engine::voices::ChildVoices;
use crate::import::{ImportError, admit, concluded, take_in};
use crate::keeper::{audio_processing, breakers, health};
use crate::ledger;
use crate::prints::{self, Candidate, Enrolled, PrintError};
use crate::queue;
use crate::sessions::{SessionError, Sessions};

/// The most sessions a list gives.
const LISTED: u32 = 200;
/// The most bytes of what axum says of a request that it refuses.
const LONGEST_REFUSAL: usize = 4096;

/// What the routes work on.
#[derive(Clone)]
pub struct Control {
    /// The box.
    pub context: Arc<Context>,
    /// Its room.
    pub sessions: Arc<Sessions>,
    /// Its voice engine.
    pub voices: ChildVoices,
}

/// What `POST /sessions` takes. An empty body is an empty object.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Why the room may be recorded.
    pub consent: Option<StartConsent>,
    /// How many people are in the room: at most so many speak.
    pub participants: Option<u32>,
    /// How many speak, where more is known; it stands above `participants`.
    pub speakers: Option<SpeakerHint>,
}

impl Start {
    fn hint(&self) -> SpeakerHint {
        self.speakers.unwrap_or(SpeakerHint { at_least: None, at_most: self.participants })
    }
}

/// Consent as the caller states it.
#[derive(Debug, Serialize, Deserialize)]
pub struct StartConsent {
    /// What it rests on.
    pub basis: String,
    /// Who noted it: a role, never a name.
    pub by: Option<String>,
}

/// What `POST /process` takes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Absolute.
    pub file: PathBuf,
    /// How many speak, as far as it is known.
    pub speakers: SpeakerHint,
}

/// What `POST /sessions/{id}/relabel` takes. An empty body is an empty object.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Relabel {
    /// How many speak, where that is known now.
    pub speakers: Option<SpeakerHint>,
}

/// What `POST /voices` takes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Enrol {
    /// Absolute.
    pub file: PathBuf,
    /// What records call the person.
    pub label: String,
    /// What the person is, one word.
    pub role: String,
    /// Why the voice may be known again.
    pub consent: StartConsent,
}

/// An enrolled voice as lists show it: nothing of how it sounds.
#[must_use]
pub fn voice_json(voice: &Enrolled) -> Value {
    json!({
        "voice_id": voice.id,
        "made_at": voice.made_at.to_string(),
        "label": voice.print.label,
        "role": voice.print.role,
        "consent": voice.print.consent,
        "model": voice.print.model,
        "speech_s": shared::record::seconds(voice.print.speech_s),
    })
}

/// What no session can have is refused before it begins.
fn possible(hint: SpeakerHint) -> Result<SpeakerHint, Refusal> {
    if hint.is_possible() {
        return Ok(hint);
    }
    let message = format!(
        "speakers are at_least and at_most, from 1 to {}, the first not above the second; participants are as many",
        SpeakerHint::MOST
    );
    Err(Refusal(StatusCode::BAD_REQUEST, json!({ "message": message }), None))
}

/// An answer other than success.
pub struct Refusal(StatusCode, Value, Option<u64>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(json!({ "error": self.1 }))).into_response();
        if let Some(seconds) = self.2 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn refusal(status: StatusCode, error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal(status, json!({ "message": report(error) }), None)
}

impl From<StoreError> for Refusal {
    fn from(why: StoreError) -> Self {
        Self::of_store(&why)
    }
}

impl Refusal {
    fn of_store(why: &StoreError) -> Self {
        let status = match why {
            StoreError::NoSession => StatusCode::NOT_FOUND,
            StoreError::ContentGone => StatusCode::GONE,
            StoreError::Sqlite(_)
            | StoreError::Damaged(_)
            | StoreError::Folder(_)
            | StoreError::NoKeys
            | StoreError::Keys(_)
            | StoreError::NotSealed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refusal(status, why)
    }
}

impl From<SessionError> for Refusal {
    fn from(why: SessionError) -> Self {
        let status = match &why {
            SessionError::Busy | SessionError::NotRecording => StatusCode::CONFLICT,
            SessionError::NoConsent => StatusCode::BAD_REQUEST,
            SessionError::Microphone(_) => StatusCode::SERVICE_UNAVAILABLE,
            SessionError::Spool(_) | SessionError::NoRoom(NoRoom::Disk { .. }) => StatusCode::INSUFFICIENT_STORAGE,
            SessionError::NoRoom(NoRoom::Heat { .. } | NoRoom::Behind { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            SessionError::Store(why) => return Self::of_store(why),
        };
        refusal(status, &why)
    }
}

impl From<ImportError> for Refusal {
    fn from(why: ImportError) -> Self {
        match why {
            ImportError::Refused(open) => breaker_open(&open),
            ImportError::Spool(_) => refusal(StatusCode::INSUFFICIENT_STORAGE, &why),
            ImportError::Store(why) => why.into(),
        }
    }
}

fn breaker_open(open: &CircuitBreakerOpenError) -> Refusal {
    let seconds = open.retry_after.map(|d| d.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
    let error = json!({
        "type": "CircuitBreakerOpenError",
        "message": open.to_string(),
        "service_name": open.service_name,
        "failure_count": open.failure_count,
        "retry_after": seconds,
        "reason": open.ailment.as_ref().map(shared::ailment::Ailment::explain),
    });
    // Without an end in sight, a minute is when it is worth asking whether a person has reset it.
    Refusal(StatusCode::SERVICE_UNAVAILABLE, error, Some(seconds.unwrap_or(60)))
}

/// A session as lists show it: nothing that was said.
#[must_use]
pub fn session_json(store: &Store, row: &SessionRow) -> Value {
    let delivery = store.outbox_state(&row.id, row.revision).ok().flatten().map(|state| match state {
        OutboxState::Pending => "pending",
        OutboxState::Acknowledged => "acknowledged",
        OutboxState::Refused => "refused",
    });
    json!({
        "session_id": row.id,
        "status": row.status,
        "diarization_status": row.diarization_status,
        "revision": row.revision,
        "started_at": row.started_at.to_string(),
        "ended_at": row.ended_at.map(|t| t.to_string()),
        "duration_s": shared::record::seconds(crate::audio::seconds(row.samples)),
        "consent": row.consent,
        "error_message": row.error_message,
        "error": row.error.as_ref().map(|e| json!({"type": e.error_type, "chain": e.chain, "details": e.error_details})),
        "delivery": delivery,
        "audio_kept": row.audio_kept,
        "dropped": row.dropped,
        "expired": row.expired,
        "withdrawal": consent::withdrawal_json(store, row),
        "replays": row.replays,
    })
}

/// All routes.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/health/audio-processing", get(get_audio_processing))
        .route("/status", get(get_status))
        .route("/levels", get(get_levels))
        .route("/sessions", get(get_sessions).post(post_session))
        .route("/sessions/{id}", get(get_session))
        .route("/sessions/{id}/stop", post(post_stop))
        .route("/sessions/{id}/pause", post(consent::pause))
        .route("/sessions/{id}/resume", post(consent::resume))
        .route("/sessions/{id}/withdraw", post(consent::withdraw))
        .route("/sessions/{id}/relabel", post(post_relabel))
        .route("/metrics", get(get_metrics))
        .route("/breakers", get(get_breakers))
        .route("/breakers/{service}/{action}", post(post_breaker))
        .route("/ledger", get(get_ledger))
        .route("/audit", get(get_audit))
        .route("/audit/verify", get(get_audit_verify))
        .route("/queue", get(get_queue))
        .route("/queue/check", get(get_check))
        .route("/queue/repair", post(post_repair))
        .route("/queue/{id}", get(get_queued))
        .route("/queue/{id}/retry", post(post_retry))
        .route("/queue/{id}/drop", post(post_drop))
        .route("/voices", get(get_voices).post(post_voice))
        .route("/voices/{id}", delete(delete_voice))
        .route("/process", post(post_process))
        .fallback(async || not_found("there is nothing here".into()))
        .method_not_allowed_fallback(async || {
            Refusal(StatusCode::METHOD_NOT_ALLOWED, json!({ "message": "this cannot be done here" }), None)
        })
        .layer(map_response(as_json))
        .with_state(control)
}

/// What axum refuses by itself, it says in plain text: an answer is JSON for every caller.
async fn as_json(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let said = to_bytes(response.into_body(), LONGEST_REFUSAL).await.unwrap_or_default();
    let said = if said.is_empty() { status.to_string() } else { String::from_utf8_lossy(&said).into_owned() };
    Refusal(status, json!({ "message": said }), None).into_response()
}

async fn get_audio_processing(State(control): State<Control>) -> Response {
    Json(audio_processing(&control.context)).into_response()
}

async fn get_status(State(control): State<Control>) -> Result<Json<Value>, Refusal> {
    let mut status =
        serde_json::to_value(health(&control.context, Some(&control.sessions))?).map_err(StoreError::from)?;
    if let Some((_, progress)) = control.sessions.recording() {
        let level = progress.level();
        status["capture"]["rms_dbfs"] = json!(level.rms_dbfs);
        status["capture"]["clipped"] = json!(level.clipped);
    }
    status["session"] = json!(control.sessions.recording().map(|(id, _)| id));
    status["enrolled"] = json!(control.context.clinic.is_some());
    status["clinic"] = json!(control.context.settings.link.as_ref().map(|l| &l.clinic));
    Ok(Json(status))
}

/// What `roomscribe levels` shows ten times a second: no more than it needs, and nothing that asks the store.
async fn get_levels(State(control): State<Control>) -> Json<Value> {
    Json(match control.sessions.recording() {
        None => json!({ "state": "idle" }),
        Some((_, progress)) => json!({ "state": progress.state(), "level": progress.level() }),
    })
}

async fn get_sessions(State(control): State<Control>) -> Result<Json<Value>, Refusal> {
    let rows = control.context.store.sessions(LISTED)?;
    let sessions: Vec<Value> = rows.iter().map(|row| session_json(&control.context.store, row)).collect();
    Ok(Json(json!({ "sessions": sessions })))
}

async fn get_session(State(control): State<Control>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    as_it_stands(&control, &id)
}

/// A session, while it is recorded with what the recorder knows and the store does not yet.
fn as_it_stands(control: &Control, id: &str) -> Result<Json<Value>, Refusal> {
    let mut row = control.context.store.session(id)?;
    if let Some((_, progress)) = control.sessions.recording().filter(|(recording, _)| recording == id) {
        row.samples = progress.samples();
        row.status = if progress.is_off_record() { Status::Paused } else { Status::Recording };
    }
    Ok(Json(session_json(&control.context.store, &row)))
}

fn not_found(message: String) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, json!({ "message": message }), None)
}

/// Reads a body as JSON, whatever its content type says.
fn body<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|why| {
        let (line, column) = (why.line(), why.column());
        let message = format!("the body is not the JSON that is expected here (line {line}, column {column})");
        Refusal(StatusCode::BAD_REQUEST, json!({ "message": message }), None)
    })
}

async fn post_session(State(control): State<Control>, bytes: Bytes) -> Result<Response, Refusal> {
    let start: Start = body(&bytes)?;
    let hint = possible(start.hint())?;
    let (basis, by) = start.consent.map_or((None, None), |c| (Some(c.basis), c.by));
    let sessions = control.sessions.clone();
    let id = blocking(move || sessions.start(basis, by, hint)).await??;
    Ok((StatusCode::CREATED, Json(json!({ "session_id": id, "status": Status::Recording }))).into_response())
}

async fn post_stop(State(control): State<Control>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let sessions = control.sessions.clone();
    let id = blocking(move || sessions.stop((id != "current").then_some(id.as_str()))).await??;
    let row = control.context.store.session(&id)?;
    Ok(Json(session_json(&control.context.store, &row)))
}

async fn post_relabel(
    State(control): State<Control>,
    Path(id): Path<String>,
    bytes: Bytes,
) -> Result<Json<Value>, Refusal> {
    let relabel: Relabel = body(&bytes)?;
    let hint = relabel.speakers.map(possible).transpose()?;
    let context = &control.context;
    context.store.relabel(&id, hint, By::local(context.now().wall))?;
    context.settled.notify_waiters();
    Ok(Json(session_json(&context.store, &context.store.session(&id)?)))
}

async fn post_breaker(
    State(control): State<Control>,
    Path((service, action)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let service: Service = service.parse().map_err(not_found)?;
    let command = BreakerCommand::ALL.into_iter().find(|command| command.name() == action);
    let command = command
        .ok_or_else(|| not_found(format!("no action is called {action:?}: use reset, force-open or disable")))?;
    let (breakers, store) = (&control.context.breakers, &control.context.store);
    if service == Service::Sync && control.context.clinic.is_none() {
        let message = "this box is not enrolled: it has no link to a clinic, and no breaker of one";
        return Err(Refusal(StatusCode::CONFLICT, json!({ "message": message }), None));
    }
    match command {
        // The sync daemon owns its breaker and asks the store twice a second.
        _ if !breakers.owns(service) => store.command_breaker(service, command, &control.context.now())?,
        BreakerCommand::Reset => breakers.reset(service),
        BreakerCommand::ForceOpen => breakers.force_open(service),
        BreakerCommand::Disable => breakers.disable(service),
    }
    control.context.work.notify_waiters();
    Ok(get_audio_processing(State(control)).await)
}

async fn get_breakers(State(control): State<Control>) -> Response {
    Json(breakers(&control.context)).into_response()
}

async fn get_metrics(State(control): State<Control>) -> Result<Response, Refusal> {
    let page = crate::measure::render(&control.context, &health(&control.context, Some(&control.sessions))?);
    Ok(([(header::CONTENT_TYPE, shared::metrics::CONTENT_TYPE)], page).into_response())
}

impl From<QueueError> for Refusal {
    fn from(why: QueueError) -> Self {
        match why {
            QueueError::Store(why) => why.into(),
            QueueError::Recording
            | QueueError::Underway
            | QueueError::Nothing
            | QueueError::NoAudio
            | QueueError::Done
            | QueueError::Dropped
            | QueueError::Withdrawn
            | QueueError::Expired
            | QueueError::NoVoices => refusal(StatusCode::CONFLICT, &why),
        }
    }
}

async fn get_ledger(State(control): State<Control>) -> Result<Json<Value>, Refusal> {
    let context = control.context.clone();
    let balance = blocking(move || ledger::balance(&context.store, &context.root, context.now().wall)).await??;
    Ok(Json(ledger::ledger_json(&balance)))
}

/// What `GET /audit` and `GET /audit/verify` take.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuditQuery {
    /// Only rows of so many last seconds, by the clock.
    since_s: Option<u64>,
    /// A head that was noted before.
    noted: Option<String>,
}

type AuditAsked = Result<Query<AuditQuery>, QueryRejection>;

fn asked(query: AuditAsked) -> Result<AuditQuery, Refusal> {
    query.map(|Query(query)| query).map_err(|why| refusal(StatusCode::BAD_REQUEST, &why))
}

async fn get_audit(State(control): State<Control>, query: AuditAsked) -> Result<Json<Value>, Refusal> {
    let (context, since) = (control.context.clone(), asked(query)?.since_s.map(Duration::from_secs));
    Ok(Json(blocking(move || audit::log(&context.store, since, context.now().wall)).await??))
}

async fn get_audit_verify(State(control): State<Control>, query: AuditAsked) -> Result<Json<Value>, Refusal> {
    let wrong = |message: String| Refusal(StatusCode::BAD_REQUEST, json!({ "message": message }), None);
    let noted = asked(query)?.noted.map(|noted| noted.parse::<AuditHead>().map_err(wrong)).transpose()?;
    let context = control.context.clone();
    Ok(Json(blocking(move || audit::verify(&context.store, noted.as_ref())).await??))
}

async fn get_queue(State(control): State<Control>) -> Result<Json<Value>, Refusal> {
    Ok(Json(queue::list(&control.context.store)?))
}

async fn get_queued(State(control): State<Control>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    Ok(Json(queue::show(&control.context.store, &id)?))
}

async fn get_check(State(control): State<Control>) -> Result<Json<Value>, Refusal> {
    let context = control.context.clone();
    Ok(Json(json!({ "damage": blocking(move || context.store.check()).await?? })))
}

async fn post_repair(State(control): State<Control>) -> Result<Json<Value>, Refusal> {
    let context = control.context.clone();
    let mended = blocking(move || context.store.repair(context.now().wall)).await??;
    control.context.work.notify_waiters();
    Ok(Json(json!({ "mended": mended })))
}

async fn post_retry(State(control): State<Control>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let context = &control.context;
    context.store.retry(&id, context.settings.session.diarization, By::local(context.now().wall))?;
    context.work.notify_waiters();
    context.settled.notify_waiters();
    Ok(Json(queue::show(&context.store, &id)?))
}

async fn post_drop(State(control): State<Control>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let context = &control.context;
    queue::drop_session(&context.store, &id, By::local(context.now().wall))?;
    context.dropped.notify_waiters();
    context.settled.notify_waiters();
    Ok(Json(queue::show(&context.store, &id)?))
}

impl From<PrintError> for Refusal {
    fn from(why: PrintError) -> Self {
        let status = match &why {
            PrintError::BadLabel
            | PrintError::BadRole
            | PrintError::NoConsent
            | PrintError::Recording(_)
            | PrintError::TooLittle { .. }
            | PrintError::Several => StatusCode::BAD_REQUEST,
            PrintError::Taken { .. } | PrintError::TooMany => StatusCode::CONFLICT,
            PrintError::Unknown => StatusCode::NOT_FOUND,
            PrintError::Engine(_) => StatusCode::SERVICE_UNAVAILABLE,
            PrintError::Store(_) | PrintError::Keys(_) | PrintError::Seal(_) | PrintError::Unwritable(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        refusal(status, &why)
    }
}

async fn get_voices(State(control): State<Control>) -> Result<Json<Value>, Refusal> {
    let all = prints::all(&control.context.store, &control.context.keys)?;
    Ok(Json(json!({ "voices": all.iter().map(voice_json).collect::<Vec<_>>() })))
}

async fn post_voice(State(control): State<Control>, bytes: Bytes) -> Result<Response, Refusal> {
    let Enrol { file, label, role, consent } = serde_json::from_slice(&bytes).map_err(|_| {
        let message = "say whom: {\"file\": \"/…\", \"label\": …, \"role\": …, \"consent\": {\"basis\": …}}";
        Refusal(StatusCode::BAD_REQUEST, json!({ "message": message }), None)
    })?;
    let at = control.context.now().wall.to_string();
    let consent = Consent { basis: consent.basis, by: consent.by, at };
    let mut engine = control.voices.clone();
    let enrolled = prints::enrol(&control.context, &mut engine, &file, Candidate { label, role, consent }).await?;
    Ok((StatusCode::CREATED, Json(voice_json(&enrolled))).into_response())
}

async fn delete_voice(State(control): State<Control>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let context = control.context.clone();
    let destroyed = id.clone();
    blocking(move || prints::destroy(&context.store, &context.keys, &id, context.now().wall)).await??;
    Ok(Json(json!({ "destroyed": destroyed })))
}

async fn post_process(State(control): State<Control>, bytes: Bytes) -> Result<Json<Value>, Refusal> {
    let context = control.context.clone();
    admit(&context).await?;
    let process: Process = body(&bytes)?;
    if !process.file.is_absolute() {
        let message = "say which file, by its absolute path: {\"file\": \"/…\"}";
        return Err(Refusal(StatusCode::BAD_REQUEST, json!({ "message": message }), None));
    }
    let hint = possible(process.speakers)?;
    let id = blocking(move || take_in(&context, &process.file, hint)).await??;
    let status = concluded(&control.context, &id, |_, _| ()).await?;
    Ok(Json(outcome(&control.context, &id, status)?))
}

/// What `process` answers for one file: its record, or for a postponed one that it is.
///
/// # Errors
/// [`StoreError`].
pub fn outcome(context: &Context, session: &str, status: Status) -> Result<Value, StoreError> {
    match context.store.record(session)?.filter(|_| status != Status::Postponed) {
        Some(record) => Ok(serde_json::from_slice(&record)?),
        None => {
            let wait = context.breakers.view(Service::Transcription).retry_after;
            Ok(json!({ "session_id": session, "status": status, "retry_after": wait.map(|d| d.as_secs()) }))
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|why| refusal(StatusCode::INTERNAL_SERVER_ERROR, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target's first inputs: a path such as `/sessions/%ff` used to be answered with plain text.
    #[tokio::test]
    async fn what_is_refused_before_a_route_is_reached_is_json_too() {
        for said in ["Invalid UTF-8 in `id`", ""] {
            let answer = as_json((StatusCode::BAD_REQUEST, said).into_response()).await;
            assert_eq!(
                (answer.status(), &answer.headers()[header::CONTENT_TYPE]),
                (StatusCode::BAD_REQUEST, &HeaderValue::from_static("application/json"))
            );
            let told: Value = serde_json::from_slice(&to_bytes(answer.into_body(), 1000).await.unwrap()).unwrap();
            let expected = if said.is_empty() { "400 Bad Request" } else { said };
            assert_eq!(told["error"]["message"], expected);
        }
        let page = as_json("a page".into_response()).await;
        assert_eq!(to_bytes(page.into_body(), 1000).await.unwrap(), "a page");
    }
}
