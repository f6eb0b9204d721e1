//! Orders of the clinic: believed, in time, allowed, new? Then the recorder carries them out, over its control socket.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shared::clock::WallTime;
use shared::command::{Answer, Command, CommandName, Order, Outcome};
use shared::paths::Root;
use shared::seal::ClinicPublic;
use shared::store::{Store, StoreError, Taken};
use tokio::net::UnixStream;
use tracing::{info, warn};

/// How long the recorder may take: opening a microphone takes seconds, and destroying a long session.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer of the recorder's that is read.
const ANSWER_BYTES: usize = 64 * 1024;
/// What two clocks that follow time servers may differ by.
const SLACK: Duration = Duration::from_secs(5);

/// What it takes to judge an order.
pub struct Judge<'a> {
    /// The clinic's public keys.
    pub keys: &'a ClinicPublic,
    /// The clinic's id.
    pub clinic: &'a str,
    /// This box's id.
    pub box_id: &'a str,
    /// What the site allows to the clinic.
    pub allow: &'a [CommandName],
    /// The box's clock.
    pub now: WallTime,
    /// Whether that follows a time server.
    pub is_synchronized: bool,
}

/// What the recorder is asked, and how it answers.
pub trait Recorder {
    /// Asks it: the status, and its message if it refused.
    fn ask(&self, method: Method, path: &str, body: Value) -> impl Future<Output = Option<(u16, Option<String>)>>;
}

/// The recorder of the box in a root.
pub struct Socket(pub Root);

impl Recorder for Socket {
    async fn ask(&self, method: Method, path: &str, body: Value) -> Option<(u16, Option<String>)> {
        tokio::time::timeout(PATIENCE, self.asked(method, path, body)).await.ok().flatten()
    }
}

impl Socket {
    async fn asked(&self, method: Method, path: &str, body: Value) -> Option<(u16, Option<String>)> {
        let stream = UnixStream::connect(self.0.find_control_socket()).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let driver = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "box");
        let request = request.body(Full::new(Bytes::from(body.to_string()))).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let read = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        driver.abort();
        // A success may be long, and is not read.
        let body: Value = read.ok().and_then(|b| serde_json::from_slice(&b.to_bytes()).ok()).unwrap_or_default();
        Some((status, body["error"]["message"].as_str().map(str::to_owned)))
    }
}

/// Deals with a message that should be a command. None, where it is not for us, or is not believed; that is counted.
///
/// # Errors
/// [`StoreError`]; nothing was done then.
pub async fn heed(
    payload: &[u8],
    judge: &Judge<'_>,
    store: &Store,
    recorder: &impl Recorder,
) -> Result<Option<Answer>, StoreError> {
    let command: Option<Command> = serde_json::from_slice(payload).ok();
    let order = command.as_ref().and_then(|command| judge.keys.order(command, judge.clinic, judge.box_id));
    let Some(order) = order else {
        if command.is_some_and(|command| judge.keys.is_by_others(&command)) {
            info!("A command by other keys than this box was told was passed over.");
        } else {
            warn!("A command was ignored: it is not signed by our clinic for this box.");
        }
        store.disbelieve("command")?;
        return Ok(None);
    };
    let said = |outcome, message: Option<String>| Answer {
        version: 1,
        id: order.id.clone(),
        name: order.name,
        outcome,
        message,
        at: judge.now.to_string(),
    };
    if is_late(&order, judge) {
        let message = "it came after its time, by the box's clock: compare that with the clinic's";
        return Ok(Some(said(Outcome::Late, Some(message.into()))));
    }
    if !judge.allow.contains(&order.name) {
        return Ok(Some(said(Outcome::NotAllowed, Some("the box's site does not allow it (commands.allow)".into()))));
    }
    match store.take_command(&order.id, order.name, judge.now)? {
        Taken::Before(Some(answer)) => return Ok(Some(answer)),
        Taken::Before(None) => return Ok(Some(said(Outcome::Interrupted, None))),
        Taken::New => {}
    }
    info!(name = order.name.name(), "The clinic asks for something.");
    let answer = match request(&order) {
        Err(missing) => said(Outcome::Refused, Some(format!("the order names no {missing}"))),
        Ok((method, path, body)) => match recorder.ask(method, &path, body).await {
            None => said(Outcome::Failed, Some("the recorder does not answer".into())),
            Some((200..=299, _)) => said(Outcome::Done, None),
            Some((_, why)) => said(Outcome::Refused, why),
        },
    };
    store.answer_command(&answer)?;
    Ok(Some(answer))
}

/// By the box's clock, where that follows a time server; else the broker alone keeps the time.
fn is_late(order: &Order, judge: &Judge<'_>) -> bool {
    let Ok(issued) = order.issued_at.parse::<jiff::Timestamp>() else { return true };
    let valid = Duration::from_secs(order.valid_for_s.into()) + SLACK;
    judge.is_synchronized && judge.now.since(WallTime(issued.as_millisecond())) > valid
}

fn request(order: &Order) -> Result<(Method, String, Value), &'static str> {
    let session = || order.session.as_deref().filter(|id| uuid::Uuid::parse_str(id).is_ok()).ok_or("session");
    // That the clinic asked is a row of its own in the box's log; beside a pause or a withdrawal stands who noted it.
    let by = json!({ "by": "administrator" });
    let (method, path, body) = match order.name {
        CommandName::Start => {
            let basis = order.consent.as_deref().ok_or("consent")?;
            (Method::POST, "/sessions".into(), json!({ "consent": { "basis": basis, "by": "administrator" } }))
        }
        CommandName::Stop => (Method::POST, "/sessions/current/stop".into(), Value::Null),
        CommandName::Pause => (Method::POST, "/sessions/current/pause".into(), by),
        CommandName::Resume => (Method::POST, "/sessions/current/resume".into(), by),
        CommandName::Withdraw => (Method::POST, format!("/sessions/{}/withdraw", session()?), by),
        CommandName::BreakerReset => {
            let service = order.service.ok_or("service")?;
            (Method::POST, format!("/breakers/{service}/reset"), Value::Null)
        }
        CommandName::Retry => (Method::POST, format!("/queue/{}/retry", session()?), Value::Null),
        CommandName::HealthCheck => (Method::GET, "/health/audio-processing".into(), Value::Null),
    };
    Ok((method, path, if body.is_null() { json!({}) } else { body }))
}

#[cfg(test)]
mod tests;
