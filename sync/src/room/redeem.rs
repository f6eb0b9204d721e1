//! Redeeming a one-time code at the clinic's server, over HTTPS.
//!
//! Who answers is not believed until it has shown the certificate of the authority that the code names; only then does the
//! secret leave the box, to a server whose certificate that authority has signed.

use std::time::Duration;

use serde::Deserialize;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::clinic::enrolment::EnrolRequest;
use crate::clinic::setup::{EnrolledTls, Enrolment};
use crate::code::Code;
use crate::pki::{self, Pair, PkiError};

/// Where a clinic server serves HTTPS unless it is said otherwise.
pub const PORT: u16 = 8443;
/// How long the whole of an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// An answer holds two certificates.
const ANSWER_BYTES: u64 = 64 * 1024;

/// Why a code is not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// No answer, or no HTTPS.
    #[error("the clinic's server {server} does not answer over HTTPS")]
    Unreachable {
        /// Which.
        server: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// Somebody else answers, or the code was mistyped.
    #[error(
        "{server} is not the server that this code is for: its authority is another; compare the code, then the address"
    )]
    Stranger {
        /// Which.
        server: String,
    },
    /// The server says no.
    #[error("the clinic's server refused: {reason}")]
    Refused {
        /// In its words.
        reason: String,
    },
    /// What it said cannot be used.
    #[error("the clinic's server answered what cannot be used")]
    Answer,
    /// See [`PkiError`].
    #[error(transparent)]
    Pki(#[from] PkiError),
}

#[derive(Deserialize)]
struct Said {
    error: String,
}

fn agent(tls: TlsConfig) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false);
    config.max_redirects(0).proxy(None).tls_config(tls).build().into()
}

/// Redeems a code: the enrolment, with the box's new private key in it. `server` is `HOST` or `HOST:PORT`.
///
/// # Errors
/// [`RedeemError`]; nothing was changed here, and the same code may be tried again.
pub fn redeem(code: &Code, server: &str, request: &Pair) -> Result<Enrolment, RedeemError> {
    let at = if server.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        server.to_owned()
    } else {
        format!("{server}:{PORT}")
    };
    let unreachable = |source| RedeemError::Unreachable { server: at.clone(), source: Box::new(source) };
    // Whoever it is: what is read here is judged by the code alone, and nothing is told.
    let anybody = agent(TlsConfig::builder().disable_verification(true).build());
    let mut shown = anybody.get(format!("https://{at}/authority.pem")).call().map_err(unreachable)?;
    let authority = shown.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().map_err(unreachable)?;
    if !pki::fingerprint(&authority).is_ok_and(|fingerprint| code.knows(&fingerprint)) {
        return Err(RedeemError::Stranger { server: at });
    }
    let root = Certificate::from_pem(authority.as_bytes()).map_err(|_| RedeemError::Answer)?;
    let known = agent(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root])).build());
    let asked = EnrolRequest { version: 1, secret: code.secret(), request: request.certificate.clone() };
    let body = serde_json::to_vec(&asked).map_err(|_| RedeemError::Answer)?;
    let sent = known.post(format!("https://{at}/api/v1/enrol")).content_type("application/json").send(&body);
    let mut answer = sent.map_err(unreachable)?;
    let status = answer.status();
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().map_err(unreachable)?;
    if !status.is_success() {
        let reason = serde_json::from_str(&text).map_or_else(|_| format!("HTTP {status}"), |Said { error }| error);
        return Err(RedeemError::Refused { reason });
    }
    let enrolment: Enrolment = serde_json::from_str(&text).map_err(|_| RedeemError::Answer)?;
    let tls = enrolment.tls.filter(|tls| tls.authority == authority).ok_or(RedeemError::Answer)?;
    Ok(Enrolment { tls: Some(EnrolledTls { key: Some(request.key.clone()), ..tls }), ..enrolment })
}
