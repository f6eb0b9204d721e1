//! What the clinic server says over HTTP: health, metrics and metadata. Nothing that was said: there is no
//! log-in yet. `schema/openapi-v1.json` is the contract: a path or a field that is new here belongs there, and tests hold
//! both together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::clock::WallTime;
use shared::error::report;
use shared::metrics::CONTENT_TYPE;
use shared::wire::{AudioProcessingHealth, BoardAlert, BoxHealth};
use tokio::net::TcpListener;
use tracing::error;

use super::alerts::holding;
use super::board::{health_of, is_online, worst};
use super::store::{BoxRow, ClinicStore, ClinicStoreError, KeptEvent, SessionRow};
use super::{Clinic, metrics, page};
use crate::stop::Stop;

/// The contract, as `OpenAPI` 3.1.
pub const OPENAPI: &str = include_str!("../../schema/openapi-v1.json");

/// Rows an answer holds at most.
const LIMIT: u32 = 200;
/// Sessions on the page.
const ON_PAGE: u32 = 20;
/// How long answers under way may take after being told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

type Shared = State<Arc<Clinic>>;

/// Serves until told to stop.
///
/// # Errors
/// Of the listener.
pub async fn serve(clinic: Arc<Clinic>, listener: TcpListener, mut stop: Stop) -> std::io::Result<()> {
    let mut until = stop.clone();
    let served = axum::serve(listener, router(clinic)).with_graceful_shutdown(async move { until.asked().await });
    tokio::select! {
        served = served.into_future() => served,
        () = async {
            stop.asked().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        } => Ok(()),
    }
}

/// All paths.
pub fn router(clinic: Arc<Clinic>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/health", get(health))
        .route("/health/audio-processing", get(audio_processing))
        .route("/metrics", get(measure))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/boxes", get(boxes))
        .route("/api/v1/events", get(events))
        .route("/api/v1/openapi.json", get(openapi))
        .layer(map_response(secure))
        .with_state(clinic)
}

async fn secure(mut response: Response) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The store could not answer; the cause is in the log.
struct NoAnswer;

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": "The clinic's database could not be used"})))
            .into_response()
    }
}

/// Asks the store without holding up other answers.
async fn ask<T: Send + 'static>(
    clinic: &Arc<Clinic>,
    question: impl FnOnce(&ClinicStore) -> Result<T, ClinicStoreError> + Send + 'static,
) -> Result<T, NoAnswer> {
    let clinic = clinic.clone();
    match tokio::task::spawn_blocking(move || question(&clinic.store)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => {
            error!(error = %report(&why), "The clinic's database failed.");
            Err(NoAnswer)
        }
        Err(why) => {
            error!(error = %why, "A question to the clinic's database was cut short.");
            Err(NoAnswer)
        }
    }
}

async fn front(State(clinic): Shared) -> Result<Html<String>, NoAnswer> {
    let questions = |store: &ClinicStore| Ok((store.boxes()?, store.alerts()?, store.sessions(ON_PAGE)?));
    let (boxes, since, sessions) = ask(&clinic, questions).await?;
    let now = clinic.clock.now().wall;
    Ok(Html(page::render(&page::View {
        clinic: &clinic.settings.clinic,
        connected: clinic.connected.load(Ordering::Relaxed),
        alerts: &holding(&boxes, &since, now),
        boxes: &boxes,
        sessions: &sessions,
        now,
    })))
}

async fn health(State(clinic): Shared) -> Json<serde_json::Value> {
    let store = ask(&clinic, ClinicStore::check).await.is_ok();
    let broker = clinic.connected.load(Ordering::Relaxed);
    let status = if store && broker { "ok" } else { "degraded" };
    Json(json!({
        "status": status,
        "broker": if broker { "connected" } else { "disconnected" },
        "store": if store { "ok" } else { "failing" },
    }))
}

#[derive(Deserialize)]
struct Which {
    #[serde(rename = "box")]
    box_id: Option<String>,
}

#[derive(Serialize)]
struct OneBox {
    #[serde(flatten)]
    health: AudioProcessingHealth,
    online: bool,
}

async fn audio_processing(State(clinic): Shared, Query(which): Query<Which>) -> Result<Response, NoAnswer> {
    let rows = ask(&clinic, ClinicStore::boxes).await?;
    if let Some(id) = which.box_id {
        return Ok(match rows.iter().find(|row| row.box_id == id) {
            Some(row) => Json(health_of(row)).into_response(),
            None => Json(AllBoxes { health: worst(&[]), boxes: None, known: Some(false) }).into_response(),
        });
    }
    let now = clinic.clock.now().wall;
    let one = |row: &BoxRow| (row.box_id.clone(), OneBox { health: health_of(row), online: is_online(row, now) });
    let boxes = Some(rows.iter().map(one).collect());
    Ok(Json(AllBoxes { health: worst(&rows), boxes, known: None }).into_response())
}

#[derive(Serialize)]
struct AllBoxes {
    #[serde(flatten)]
    health: AudioProcessingHealth,
    #[serde(skip_serializing_if = "Option::is_none")]
    boxes: Option<BTreeMap<String, OneBox>>,
    /// Present, and false, only where a box was asked for that was never heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<bool>,
}

async fn measure(State(clinic): Shared) -> Result<Response, NoAnswer> {
    let (rows, counts) = ask(&clinic, |store| Ok((store.boxes()?, store.session_counts()?))).await?;
    let (connected, now) = (clinic.connected.load(Ordering::Relaxed), clinic.clock.now().wall);
    let page = metrics::render(&rows, &counts, &clinic.counters, connected, now);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response())
}

async fn alerts(State(clinic): Shared) -> Result<Json<Vec<BoardAlert>>, NoAnswer> {
    let (boxes, since) = ask(&clinic, |store| Ok((store.boxes()?, store.alerts()?))).await?;
    Ok(Json(holding(&boxes, &since, clinic.clock.now().wall)))
}

async fn sessions(State(clinic): Shared) -> Result<Json<Vec<SessionRow>>, NoAnswer> {
    ask(&clinic, |store| store.sessions(LIMIT)).await.map(Json)
}

async fn events(State(clinic): Shared) -> Result<Json<Vec<KeptEvent>>, NoAnswer> {
    ask(&clinic, |store| store.events(LIMIT)).await.map(Json)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

#[derive(Serialize)]
struct BoxAnswer {
    #[serde(rename = "box")]
    box_id: String,
    online: bool,
    last_seen: Option<String>,
    health: Option<BoxHealth>,
}

async fn boxes(State(clinic): Shared) -> Result<Json<Vec<BoxAnswer>>, NoAnswer> {
    let rows = ask(&clinic, ClinicStore::boxes).await?;
    let now = clinic.clock.now().wall;
    let answer = |row: BoxRow| BoxAnswer {
        online: is_online(&row, now),
        last_seen: row.seen_at.as_ref().map(WallTime::to_string),
        box_id: row.box_id,
        health: row.health,
    };
    Ok(Json(rows.into_iter().map(answer).collect()))
}

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;
