//! HTTPS, as it is served to boxes and to browsers.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum_server::tls_rustls::RustlsConfig;

use crate::pki::{Pair, PkiError};
use crate::stop::Stop;
use crate::tls::{self, TlsError};

/// How long a handshake and the first request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long answers under way may take after being told to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

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

/// Serves until told to stop, with a certificate and its key.
///
/// # Errors
/// [`HttpsError`].
pub async fn serve(router: Router, pair: &Pair, listener: TcpListener, mut stop: Stop) -> Result<(), HttpsError> {
    let config = RustlsConfig::from_config(tls::server(pair)?);
    let handle = axum_server::Handle::new();
    let ender = handle.clone();
    tokio::spawn(async move {
        stop.asked().await;
        ender.graceful_shutdown(Some(LAST_ANSWERS));
    });
    let server = axum_server::from_tcp_rustls(listener, config)?.handle(handle).first_request_timeout(PATIENCE);
    Ok(server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await?)
}
