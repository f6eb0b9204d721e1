//! `GET /`: how every room is, on one page without scripts or anything from elsewhere.
//!
//! Metadata only. Every value goes through [`escape`].

mod alerts;
mod rooms;

use shared::breaker::Service;
use shared::clock::WallTime;
use shared::wire::BoardAlert;

use super::store::{BoxRow, SessionRow};

const PAGE: &str = include_str!("page.html");

/// What the page shows.
pub struct View<'a> {
    /// Clinic id.
    pub clinic: &'a str,
    /// Whether there is a line to the broker.
    pub connected: bool,
    /// The alerts that hold.
    pub alerts: &'a [BoardAlert],
    /// Every box.
    pub boxes: &'a [BoxRow],
    /// The newest sessions.
    pub sessions: &'a [SessionRow],
    /// Now.
    pub now: WallTime,
}

/// Makes text safe between tags and in quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// The page. Its places are filled in one pass, so that no value can stand for a place.
#[must_use]
pub fn render(view: &View<'_>) -> String {
    let broker = if view.connected { mark("good", "connected") } else { mark("bad", "not connected") };
    let mut page = String::new();
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (place, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(before);
        page.push_str(&match place {
            "clinic" => escape(view.clinic),
            "broker" => broker.clone(),
            "now" => date(&view.now.to_string()),
            "alerts" => alerts::section(view.alerts),
            "rooms" => rooms::cards(view),
            "sessions" => sessions(view.sessions),
            other => escape(other),
        });
        rest = after;
    }
    page + rest
}

fn mark(class: &str, text: &str) -> String {
    format!("<span class=\"{class}\">{}</span>", escape(text))
}

/// What people call a service.
fn name(service: Service) -> &'static str {
    match service {
        Service::Transcription => "Transcription",
        Service::Diarization => "Diarization",
        Service::Sync => "Link",
    }
}

/// `2026-01-01T00:00:00.000Z` as people read it; what has another shape is shown as it is.
fn date(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..16)) {
        (Some(day), Some(time)) => escape(&format!("{day} {time} UTC")),
        _ => escape(rfc3339),
    }
}

fn ago(seen: Option<WallTime>, now: WallTime) -> String {
    match seen.map(|seen| now.since(seen).as_secs()) {
        None => "never".into(),
        Some(s @ 0..120) => format!("{s} s ago"),
        Some(s @ 120..7200) => format!("{} min ago", s / 60),
        Some(s) => format!("{} h ago", s / 3600),
    }
}

fn sessions(rows: &[SessionRow]) -> String {
    if rows.is_empty() {
        return "<p class=\"dim\">No session has arrived yet.</p>".into();
    }
    let rows: String = rows.iter().map(session).collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>Started</th><th>Room</th><th>Status</th><th>Speakers told apart</th>\
         <th>Duration</th><th>Speakers</th><th>Error</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn session(row: &SessionRow) -> String {
    let class = if row.status == "failed" { "bad" } else { "good" };
    let diarization = if row.diarization_status == "ok" { "good" } else { "warn" };
    // Whole seconds of a length that is never negative.
    let seconds = row.duration_s.round() as u64;
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}:{:02}</td><td>{}</td><td class=\"wide\">{}</td></tr>",
        date(&row.started_at),
        escape(&row.box_id),
        mark(class, &row.status),
        mark(diarization, &row.diarization_status),
        seconds / 60,
        seconds % 60,
        row.speakers,
        escape(row.error_message.as_deref().unwrap_or("")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::{self, SESSION};
    use shared::breaker::StateName;
    use shared::wire::WHOLE_CLINIC;

    const NOW: WallTime = WallTime(1_767_225_600_000);
    const EVIL: &str = "<script>alert('x')</script>\"&{{rooms}}";

    fn row() -> SessionRow {
        SessionRow {
            session_id: SESSION.into(),
            box_id: EVIL.into(),
            revision: 1,
            created_at: fixture::DATE.into(),
            updated_at: fixture::DATE.into(),
            status: EVIL.into(),
            error_message: Some(EVIL.into()),
            error_type: None,
            diarization_status: EVIL.into(),
            started_at: EVIL.into(),
            ended_at: fixture::DATE.into(),
            duration_s: 65.0,
            speakers: 2,
            segments: 3,
            gaps: 0,
            time_quality: EVIL.into(),
        }
    }

    #[test]
    fn nothing_a_box_says_becomes_markup() {
        let mut health = fixture::health("room-1", (StateName::Open, 5), (StateName::Closed, 0));
        health.capture.state = EVIL.into();
        health.transcriber = Some(EVIL.into());
        health.breakers.get_mut(&Service::Transcription).unwrap().reason = Some(EVIL.into());
        let row_of = BoxRow { box_id: EVIL.into(), said_online: true, health: Some(health), seen_at: Some(NOW) };
        let alerts = [WHOLE_CLINIC, EVIL].map(|box_id| fixture::held(box_id, EVIL));
        let view =
            View { clinic: EVIL, connected: true, alerts: &alerts, boxes: &[row_of], sessions: &[row()], now: NOW };
        let page = render(&view);
        assert!(!page.contains("<script") && !page.contains("alert('"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;{{rooms}}"));
        assert_eq!(page.matches("<section").count(), 1, "a value is no place");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_has_no_script() {
        let page =
            render(&View { clinic: "north", connected: false, alerts: &[], boxes: &[], sessions: &[], now: NOW });
        assert!(page.contains("<title>north · Roomscribe</title>") && page.contains("not connected"));
        assert!(page.contains("No alerts.") && !page.contains("Alerts"));
        for bad in ["http://", "https://", "<script", "src=", "url("] {
            assert!(!page.contains(bad), "{bad}");
        }
    }
}
