//! `roomscribe pause`, `resume` and `withdraw`.

use hyper::Method;
use serde_json::{Value, json};
use shared::clock::{Clock as _, SystemClock};
use shared::error::report;
use shared::paths::Root;
use shared::settings::Settings;
use shared::store::{Actor, By};

use super::{Answer, Failed, client, code, of_root, say};
use crate::control::session_json;
use crate::doctor::Daemon;
use crate::doctor::gather::without_socket;
use crate::forget;

/// `roomscribe pause` and `roomscribe resume`
pub async fn off_record(root: Root, session: Option<String>, by: Option<String>, is_off: bool, json: bool) -> Answer {
    let verb = if is_off { "pause" } else { "resume" };
    let path = format!("/sessions/{}/{verb}", session.as_deref().unwrap_or("current"));
    let answer = client::demand(&root, Method::POST, &path, Some(&json!({ "by": by }))).await?;
    let id = answer["session_id"].as_str().unwrap_or_default();
    say(match (json, is_off) {
        (true, _) => answer.to_string(),
        (false, true) => {
            let of_root = of_root(&root);
            format!("Session {id} is off the record: the microphone is closed. Go on with: roomscribe resume{of_root}")
        }
        (false, false) => format!("Session {id} is on the record again."),
    });
    Ok(code::DONE)
}

/// `roomscribe withdraw`
pub async fn withdraw(root: Root, session: String, by: Option<String>, is_meant: bool, json: bool) -> Answer {
    if !is_meant {
        let message = format!(
            "this destroys everything that was said in session {session}, here and at the clinic, for good; add --yes to do it"
        );
        return Err(Failed::new(code::USAGE, message));
    }
    let answer = if client::is_reachable(&root).await {
        let path = format!("/sessions/{session}/withdraw");
        client::demand(&root, Method::POST, &path, Some(&json!({ "by": by }))).await?
    } else {
        offline(&root, &session, by.as_deref())?
    };
    say(if json { answer.to_string() } else { sentence(&answer) });
    Ok(if answer["withdrawal"]["erased"] == true { code::DONE } else { code::FAILED })
}

fn sentence(answer: &Value) -> String {
    let id = answer["session_id"].as_str().unwrap_or_default();
    let here = match answer["withdrawal"]["erased"].as_bool() {
        Some(true) => "Everything that was said in it is destroyed on this box",
        _ => "Not everything of it could be destroyed yet; the box tries again every second, and at its next start",
    };
    let there = match answer["withdrawal"]["clinic"].as_str() {
        Some("owed") => "; the clinic is told, and has not confirmed yet: `roomscribe sessions` shows when it has.",
        Some("confirmed") => ", and at the clinic.",
        Some("refused") => {
            "; the clinic refused to destroy its part: have this typed there: roomscribe-clinic withdraw SESSION --yes"
        }
        _ => ". It was never sent: this box has no clinic.",
    };
    format!("Consent to session {id} is withdrawn. {here}{there}")
}

/// Without a daemon. A session that was being recorded when it stopped is withdrawn, too.
fn offline(root: &Root, session: &str, by: Option<&str>) -> Result<Value, Failed> {
    let store = super::store(root)?;
    if without_socket(root) == Daemon::Busy {
        let message = "the box is just starting, or another command works on it: try again in a moment";
        return Err(Failed::new(code::UNREACHABLE, message));
    }
    let settings = Settings::load(root, |name| std::env::var(name).ok()).map_err(|why| Failed::because(&why))?;
    let now = SystemClock::new().now().wall;
    let by = By { actor: Actor::of_role(by), at: now };
    store.withdraw(session, settings.link.is_some(), by).map_err(|why| Failed::because(&why))?;
    forget::whole_session_without_daemon(root, &store, session, now).map_err(|why| {
        let why = report(&why);
        Failed::new(
            code::FAILED,
            format!("it is withdrawn, and the box destroys what is left at its next start: {why}"),
        )
    })?;
    let row = store.session(session).map_err(|why| Failed::because(&why))?;
    Ok(session_json(&store, &row))
}
