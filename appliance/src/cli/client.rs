//! A client of the control socket.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use shared::paths::Root;
use tokio::net::UnixStream;

use super::{Failed, code};

/// What the daemon answered; it may hold what was said.
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// Its body.
    pub body: Value,
}

/// Whether a daemon answers on this root.
pub async fn is_reachable(root: &Root) -> bool {
    UnixStream::connect(root.find_control_socket()).await.is_ok()
}

/// Asks the daemon.
///
/// # Errors
/// With [`code::UNREACHABLE`] if there is none.
pub async fn ask(root: &Root, method: Method, path: &str, body: Option<&Value>) -> Result<Answered, Failed> {
    let socket = root.find_control_socket();
    let unreachable = |why: &dyn std::fmt::Display| {
        let message = format!(
            "no box answers on {} ({why}); start it with: roomscribe run --root {}",
            socket.display(),
            root.path().display()
        );
        Failed::new(code::UNREACHABLE, message)
    };
    let stream = UnixStream::connect(&socket).await.map_err(|why| unreachable(&why))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|why| unreachable(&why))?;
    tokio::task::spawn_local(connection);
    let bytes = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "box")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .map_err(|why| Failed::because(&why))?;
    let response = sender.send_request(request).await.map_err(|why| unreachable(&why))?;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.map_err(|why| unreachable(&why))?.to_bytes();
    Ok(Answered { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
}

/// Asks the daemon, and takes anything but success as failure.
///
/// # Errors
/// As [`ask`], or with what the daemon says.
pub async fn demand(root: &Root, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
    let answered = ask(root, method, path, body).await?;
    match answered.status {
        200..=299 => Ok(answered.body),
        503 if answered.body["error"]["type"] == "CircuitBreakerOpenError" => {
            let wait = answered.body["error"]["retry_after"].as_u64();
            Err(super::refused(wait, answered.body["error"]["reason"].as_str()))
        }
        _ => Err(Failed::new(code::FAILED, message(&answered.body))),
    }
}

fn message(body: &Value) -> String {
    body["error"]["message"].as_str().unwrap_or("the box refused without a reason").to_owned()
}
