//! What the clinic server says over HTTP: health and metrics to whoever asks on the plain listener, all else to people who
//! are logged in and programs that have a token.

pub mod guard;
pub mod live;
mod login;
mod transcript;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
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
use guard::{Door, FORM_BYTES, Site};

/// Rows an answer holds at most.
const LIMIT: u32 = 200;
/// How long answers under way may take after being told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

type Shared = State<Arc<Clinic>>;

/// Serves until told to stop.
///
/// # Errors
/// Of the listener.
pub async fn serve(clinic: Arc<Clinic>, listener: TcpListener, mut stop: Stop) -> std::io::Result<()> {
    let mut until = stop.clone();
    let all = router(clinic, Door::plain(listener.local_addr()?)).into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, all).with_graceful_shutdown(async move { until.asked().await });
    tokio::select! {
        served = served.into_future() => served,
        () = async {
            stop.asked().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        } => Ok(()),
    }
}

/// All paths of the plain listener.
pub fn router(clinic: Arc<Clinic>, door: Door) -> Router {
    let monitoring = Router::new()
        .route("/health", get(health))
        .route("/health/audio-processing", get(audio_processing))
        .route("/metrics", get(measure))
        .with_state(clinic.clone());
    guarded(monitoring, door).merge(site(clinic, door))
}

/// The paths of people and programs.
pub fn site(clinic: Arc<Clinic>, door: Door) -> Router {
    let site = Site { clinic, door };
    let for_people = Router::new()
        .route("/", get(live::front))
        .route("/sessions/{id}", get(transcript::read))
        .route("/logout", post(login::leave))
        .layer(from_fn_with_state(site.clone(), guard::people));
    let for_programs = Router::new()
        .route("/events", get(live::events))
        .route("/api/v1/alerts", get(alerts))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/boxes", get(boxes))
        .route("/api/v1/events", get(events))
        .layer(from_fn_with_state(site.clone(), guard::programs));
    let for_all = Router::new()
        .route("/login", get(login::ask_who).post(login::enter))
        .route("/dashboard.css", get(async || ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], page::STYLE)))
        .route(
            "/dashboard.js",
            get(async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], page::SCRIPT)),
        );
    let all = for_people
        .merge(for_programs)
        .merge(for_all)
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(from_fn_with_state(site.clone(), guard::door));
    guarded(all.with_state(site), door)
}

fn guarded(router: Router, door: Door) -> Router {
    router.layer(from_fn(guard::headers)).layer(Extension(door))
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
mod tests;
