//! The commands that ask a box and show its answer.

use hyper::Method;
use serde_json::{Value, json};
use shared::breaker::Service;
use shared::paths::Root;
use shared::store::SpeakerHint;

use super::{Answer, Failed, client, code, say};
use crate::control::session_json;

fn print(json: bool, answer: &Value, text: impl FnOnce(&Value) -> String) -> Answer {
    if json {
        say(answer)
    } else {
        say(text(answer))
    }
    Ok(code::DONE)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// `roomscribe status`
pub async fn status(root: Root, json: bool) -> Answer {
    let answer = client::demand(&root, Method::GET, "/status", None).await?;
    print(json, &answer, |status| {
        let (capture, queue) = (&status["capture"], &status["queue"]);
        let mut lines = vec![
            format!("box       {} (roomscribe {})", text(status, "box"), text(status, "software")),
            format!("clinic    {}", status["clinic"].as_str().unwrap_or("not enrolled")),
            format!("session   {}", status["session"].as_str().unwrap_or("none")),
            format!("capture   {}", capture_text(capture)),
            format!(
                "sessions  {} recording, {} to process, {} not acknowledged, {} dead letters",
                queue["recording"], queue["queued"], queue["unacknowledged"], queue["dead_lettered"]
            ),
        ];
        lines.extend(breaker_lines(&status["breakers"]));
        lines.extend(alert_lines(&status["alerts"]));
        lines.join("\n")
    })
}

fn capture_text(capture: &Value) -> String {
    let peak = capture["peak_dbfs"].as_f64().map_or("silence".to_owned(), |db| format!("peak {db:.1} dBFS"));
    match capture["state"].as_str() {
        Some("idle") => "idle".into(),
        Some(state) => format!("{state}, {:.0} s, {peak}", capture["recorded_s"].as_f64().unwrap_or(0.0)),
        None => "-".into(),
    }
}

fn breaker_text(service: Service, breaker: &Value) -> String {
    let wait = match (breaker["state"].as_str(), breaker["retry_after_s"].as_u64()) {
        (Some("OPEN"), Some(seconds)) => format!(", tries again in {seconds} s"),
        (Some("FORCED_OPEN"), _) => ", until it is reset".into(),
        _ => String::new(),
    };
    let reason = breaker["reason"].as_str().map(|reason| format!("\n          {reason}")).unwrap_or_default();
    format!(
        "breaker   {service}: {}, {} failures in a row{wait}{reason}",
        text(breaker, "state"),
        breaker["failure_count"]
    )
}

/// One line a breaker; that of the link is there only on an enrolled box.
fn breaker_lines(breakers: &Value) -> Vec<String> {
    let shown = Service::ALL.into_iter().filter(|s| breakers[s.name()].is_object());
    shown.map(|s| breaker_text(s, &breakers[s.name()])).collect()
}

/// The alerts that hold; of the others there is nothing to say.
fn alert_lines(alerts: &Value) -> Vec<String> {
    let all = alerts.as_array().map(Vec::as_slice).unwrap_or_default();
    let firing = all.iter().filter(|alert| alert["state"] == "firing");
    firing
        .map(|a| {
            format!("alert     {}: {} over {} ({} samples)", text(a, "alert"), a["value"], a["threshold"], a["samples"])
        })
        .collect()
}

/// `roomscribe start`
pub async fn start(
    root: Root,
    basis: Option<String>,
    by: Option<String>,
    speakers: Option<SpeakerHint>,
    json: bool,
) -> Answer {
    let consent = basis.map(|basis| json!({ "basis": basis, "by": by }));
    let answer =
        client::demand(&root, Method::POST, "/sessions", Some(&json!({ "consent": consent, "speakers": speakers })))
            .await?;
    print(json, &answer, |a| format!("Recording session {}. End it with: roomscribe stop", text(a, "session_id")))
}

/// `roomscribe stop`
pub async fn stop(root: Root, session: Option<String>, json: bool) -> Answer {
    let path = format!("/sessions/{}/stop", session.as_deref().unwrap_or("current"));
    let answer = client::demand(&root, Method::POST, &path, None).await?;
    print(json, &answer, |a| {
        let seconds = a["duration_s"].as_f64().unwrap_or(0.0);
        format!("Session {} ended after {seconds:.1} s and is being processed.", text(a, "session_id"))
    })
}

/// Where its record, or its withdrawal, stands on its way to the clinic.
fn delivery(session: &Value) -> String {
    match (session["withdrawal"]["clinic"].as_str(), session["withdrawal"]["erased"].as_bool()) {
        (Some(_), Some(false)) => "being destroyed".into(),
        (Some("none"), _) => "destroyed".into(),
        (Some("owed"), _) => "destroyed here, clinic has not confirmed".into(),
        (Some("confirmed"), _) => "destroyed here and at the clinic".into(),
        (Some(_), _) => "destroyed here, clinic refused".into(),
        (None, _) if session["expired"] == true => "acknowledged, kept no longer here".into(),
        (None, _) => text(session, "delivery").into(),
    }
}

/// `roomscribe sessions`
pub async fn sessions(root: Root, session: Option<String>, json: bool) -> Answer {
    let is_reachable = client::is_reachable(&root).await;
    if let Some(id) = session {
        let answer = match is_reachable {
            true => client::demand(&root, Method::GET, &format!("/sessions/{id}"), None).await?,
            false => stored_session(&root, &id)?,
        };
        return print(json, &answer, |a| serde_json::to_string_pretty(a).unwrap_or_default());
    }
    let answer = match is_reachable {
        true => client::demand(&root, Method::GET, "/sessions", None).await?,
        false => stored_sessions(&root)?,
    };
    print(json, &answer, |a| {
        let all = a["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
        if all.is_empty() {
            return "No sessions yet. Start one with: roomscribe start --consent verbal".into();
        }
        let head = format!(
            "{:<36}  {:<24}  {:>8}  {:<10}  {:<8}  delivery",
            "session", "started", "seconds", "status", "speakers"
        );
        let lines = all.iter().map(|s| {
            format!(
                "{:<36}  {:<24}  {:>8.1}  {:<10}  {:<8}  {}{}",
                text(s, "session_id"),
                text(s, "started_at"),
                s["duration_s"].as_f64().unwrap_or(0.0),
                text(s, "status"),
                text(s, "diarization_status"),
                delivery(s),
                s["error_message"].as_str().map(|m| format!("\n    {m}")).unwrap_or_default()
            )
        });
        std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
    })
}

/// The sessions of a root on which no daemon runs.
fn stored_sessions(root: &Root) -> Result<Value, Failed> {
    let store = super::store(root)?;
    let rows = store.sessions(200).map_err(|why| Failed::because(&why))?;
    let sessions: Vec<Value> = rows.iter().map(|r| session_json(&store, r)).collect();
    Ok(json!({ "sessions": sessions }))
}

fn stored_session(root: &Root, id: &str) -> Result<Value, Failed> {
    let store = super::store(root)?;
    let row = store.session(id).map_err(|why| Failed::because(&why))?;
    Ok(session_json(&store, &row))
}

/// `roomscribe breaker`
pub async fn breaker(root: Root, call: Option<(Service, &str)>, json: bool) -> Answer {
    if let Some((service, action)) = call {
        client::demand(&root, Method::POST, &format!("/breakers/{service}/{action}"), None).await?;
    }
    let answer = client::demand(&root, Method::GET, "/breakers", None).await?;
    print(json, &answer, |breakers| breaker_lines(breakers).join("\n"))
}
