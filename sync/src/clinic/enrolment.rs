//! HTTPS for boxes that are enrolled: `GET /authority.pem`, and `POST /api/v1/enrol`, which takes a one-time code and a request
//! for a certificate.
//!
//! Anybody may ask, so what is asked is small, and wrong codes are counted: so many a minute, from all together. Nobody can
//! guess one; it keeps the database free.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::AddExtension;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::error::report;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Layer as _;
use tracing::{error, info, warn};

use super::Clinic;
use super::setup::{EnrolledTls, Enrolment, link_of};
use super::store::ClinicStoreError;
use crate::code::hash_of;
use crate::pki::{self, Authority, Holder, PkiError};
use crate::stop::Stop;
use crate::tls::{self, TlsError};

/// A request for a certificate has half a KiB.
const BODY_BYTES: usize = 16 * 1024;
/// Wrong codes a minute, from all boxes together.
const WRONG_A_MINUTE: u32 = 30;
/// Connections at once: boxes are enrolled one at a time, and each costs a file of the process that has the broker's line.
const CONNECTIONS: usize = 64;
/// How long a handshake and the first request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long answers under way may take after being told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What a box sends.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// Always 1.
    pub version: u32,
    /// The secret half of the code, base 32.
    pub secret: String,
    /// PKCS #10, PEM.
    pub request: String,
}

/// Why HTTPS is not served.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// See [`PkiError`].
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// See [`TlsError`].
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Of the listener.
    #[error("HTTPS cannot be served")]
    Io(#[from] std::io::Error),
}

/// What the answers need.
pub struct Desk {
    clinic: Arc<Clinic>,
    authority: Arc<Authority>,
    wrong: Mutex<Wrong>,
}

/// Wrong codes in the minute that began at an uptime.
#[derive(Default)]
struct Wrong {
    began: Duration,
    codes: u32,
}

impl Wrong {
    fn is_too_much(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.began) >= Duration::from_secs(60) {
            *self = Self { began: now, codes: 0 };
        }
        self.codes >= WRONG_A_MINUTE
    }
}

/// Serves until told to stop, under the names of the settings, with a certificate made for that.
///
/// # Errors
/// [`HttpsError`].
pub async fn serve(
    clinic: Arc<Clinic>,
    authority: Arc<Authority>,
    listener: TcpListener,
    mut stop: Stop,
) -> Result<(), HttpsError> {
    let mut pair = authority.issue(Holder::Site(&clinic.settings.names), clinic.clock.now().wall)?;
    pair.certificate.push_str(authority.certificate());
    let config = RustlsConfig::from_config(tls::server(&pair)?);
    let handle = axum_server::Handle::new();
    let ender = handle.clone();
    tokio::spawn(async move {
        stop.asked().await;
        ender.graceful_shutdown(Some(LAST_ANSWERS));
    });
    let places = Places(Arc::new(Semaphore::new(CONNECTIONS)));
    let acceptor = RustlsAcceptor::new(config).handshake_timeout(PATIENCE).acceptor(places);
    let mut server = axum_server::from_tcp(listener)?.acceptor(acceptor).handle(handle).first_request_timeout(PATIENCE);
    // A box asks twice in its life: nobody keeps a place for longer than a request.
    server.http_builder().http1().keep_alive(false);
    Ok(server.serve(router(clinic, authority).into_make_service()).await?)
}

/// Places for connections: who finds none is turned away before the handshake.
#[derive(Clone)]
struct Places(Arc<Semaphore>);

impl<I, S> Accept<I, S> for Places {
    type Stream = I;
    type Service = AddExtension<S, Arc<OwnedSemaphorePermit>>;
    type Future = std::future::Ready<std::io::Result<(I, Self::Service)>>;

    /// The place is held by the connection's service, and is free when that ends, however it does.
    fn accept(&self, stream: I, service: S) -> Self::Future {
        let place = self.0.clone().try_acquire_owned().map_err(|_| ErrorKind::ResourceBusy.into());
        std::future::ready(place.map(|place| (stream, Extension(Arc::new(place)).layer(service))))
    }
}

/// The paths.
pub fn router(clinic: Arc<Clinic>, authority: Arc<Authority>) -> Router {
    Router::new()
        .route("/authority.pem", get(show_authority))
        .route("/api/v1/enrol", post(enrol))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Arc::new(Desk { clinic, authority, wrong: Mutex::default() }))
}

async fn show_authority(State(desk): State<Arc<Desk>>) -> Response {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], desk.authority.certificate().to_owned()).into_response()
}

/// Why a box is not enrolled, as it is told.
enum Refusal {
    Code,
    Request,
    Busy,
    Failed,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Code => (
                StatusCode::FORBIDDEN,
                "This code is not valid: it was mistyped, used by another box, replaced by a newer one, or has ended",
            ),
            Self::Request => (StatusCode::BAD_REQUEST, "This is no request for a certificate"),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "Too many wrong codes; try again in a minute"),
            Self::Failed => (StatusCode::SERVICE_UNAVAILABLE, "The clinic server could not do it; its log says why"),
        };
        (status, Json(json!({"error": message}))).into_response()
    }
}

impl From<ClinicStoreError> for Refusal {
    fn from(why: ClinicStoreError) -> Self {
        error!(error = %report(&why), "The clinic's database failed.");
        Self::Failed
    }
}

async fn enrol(State(desk): State<Arc<Desk>>, Json(asked): Json<EnrolRequest>) -> Result<Json<Enrolment>, Refusal> {
    let enrolled = tokio::task::spawn_blocking(move || desk.enrol(&asked)).await;
    enrolled
        .unwrap_or_else(|why| {
            error!(error = %why, "An enrolment was cut short.");
            Err(Refusal::Failed)
        })
        .map(Json)
}

impl Desk {
    fn enrol(&self, asked: &EnrolRequest) -> Result<Enrolment, Refusal> {
        let now = self.clinic.clock.now();
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.is_too_much(now.uptime) {
            return Err(Refusal::Busy);
        }
        let key = pki::key_of(&asked.request).map_err(|_| Refusal::Request)?;
        let hash = hash_of(&asked.secret).filter(|_| asked.version == 1);
        let redeemed = hash.map(|hash| self.clinic.store.redeem(&hash, &key, now.wall)).transpose()?.flatten();
        let Some(box_id) = redeemed else {
            wrong.codes += 1;
            warn!("A box came with a code that is not valid.");
            return Err(Refusal::Code);
        };
        drop(wrong);
        let failed = |why: PkiError| {
            error!(error = %report(&why), "A certificate could not be made.");
            Refusal::Failed
        };
        let certificate = self.authority.sign(&asked.request, Holder::Room(&box_id), now.wall).map_err(failed)?;
        info!("box" = box_id, "A box was enrolled.");
        let link = link_of(&self.clinic.settings, &self.clinic.keys, &box_id, None);
        let authority = self.authority.certificate().to_owned();
        Ok(Enrolment { link, tls: Some(EnrolledTls { authority, certificate, key: None }) })
    }
}

#[cfg(test)]
mod tests;
