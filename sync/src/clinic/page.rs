//! `GET /`: how every room is, on one page without scripts or anything from elsewhere.
//!
//! Metadata only. Every value goes through [`escape`].

use shared::breaker::StateName;
use shared::clock::WallTime;
use shared::wire::BreakerHealth;

use super::board::is_online;
use super::store::{BoxRow, SessionRow};

const PAGE: &str = include_str!("page.html");

/// What the page shows.
pub struct View<'a> {
    /// Clinic id.
    pub clinic: &'a str,
    /// Whether there is a line to the broker.
    pub connected: bool,
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
            "rooms" => rooms(view),
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

fn rooms(view: &View<'_>) -> String {
    if view.boxes.is_empty() {
        return "<p class=\"dim\">No room has been heard yet.</p>".into();
    }
    let cards: String = view.boxes.iter().map(|row| room(row, view.now)).collect();
    format!("<div class=\"rooms\">{cards}</div>")
}

fn room(row: &BoxRow, now: WallTime) -> String {
    let online = if is_online(row, now) { mark("good", "online") } else { mark("bad", "offline") };
    let mut lines = vec![("Status", online), ("Last seen", escape(&ago(row.seen_at, now)))];
    if let Some(health) = &row.health {
        let class = if matches!(health.capture.state.as_str(), "failing" | "silent") { "bad" } else { "good" };
        let queue = &health.queue;
        let dead = if queue.dead_lettered > 0 { "bad" } else { "dim" };
        lines.push(("Microphone", mark(class, &health.capture.state)));
        lines.push(("Recording", queue.recording.to_string()));
        lines.push(("To process", queue.queued.to_string()));
        lines.push(("To acknowledge", queue.unacknowledged.to_string()));
        lines.push(("Dead letters", mark(dead, &queue.dead_lettered.to_string())));
        for (service, breaker) in &health.breakers {
            let name = match service {
                shared::breaker::Service::Transcription => "Transcription",
                shared::breaker::Service::Diarization => "Diarization",
                shared::breaker::Service::Sync => "Link",
            };
            lines.push((name, self::breaker(breaker, row.seen_at, now)));
        }
    }
    let list: String = lines.iter().map(|(term, value)| format!("<dt>{term}</dt><dd>{value}</dd>")).collect();
    format!("<section class=\"card\"><h3>{}</h3><dl>{list}</dl></section>", escape(&row.box_id))
}

/// State, failures in a row, and how long until the next try, counted on from when the box said it.
fn breaker(breaker: &BreakerHealth, seen: Option<WallTime>, now: WallTime) -> String {
    let class = match breaker.state {
        StateName::Closed => "good",
        StateName::HalfOpen | StateName::Disabled => "warn",
        StateName::Open | StateName::ForcedOpen => "bad",
    };
    let mut text = breaker.state.to_string();
    if breaker.failure_count > 0 {
        text.push_str(&format!(", {} failed", breaker.failure_count));
    }
    if let (StateName::Open, Some(wait)) = (breaker.state, breaker.retry_after_s) {
        let passed = seen.map_or(0, |seen| now.since(seen).as_secs());
        text.push_str(&format!(", tries again in {} s", wait.saturating_sub(passed)));
    }
    mark(class, &text)
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
    use shared::breaker::Service;

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
        let row_of = BoxRow { box_id: EVIL.into(), said_online: true, health: Some(health), seen_at: Some(NOW) };
        let view = View { clinic: EVIL, connected: true, boxes: &[row_of], sessions: &[row()], now: NOW };
        let page = render(&view);
        assert!(!page.contains("<script") && !page.contains("alert('"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;{{rooms}}"));
        assert_eq!(page.matches("<section").count(), 1, "a value is no place");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_has_no_script() {
        let page = render(&View { clinic: "north", connected: false, boxes: &[], sessions: &[], now: NOW });
        assert!(page.contains("<title>north · Roomscribe</title>") && page.contains("not connected"));
        for bad in ["http://", "https://", "<script", "src=", "url("] {
            assert!(!page.contains(bad), "{bad}");
        }
    }

    #[test]
    fn an_open_breaker_counts_down_from_when_it_was_heard() {
        let mut health = fixture::health("room-1", (StateName::Open, 5), (StateName::Closed, 0));
        health.breakers.get_mut(&Service::Transcription).unwrap().retry_after_s = Some(100);
        let seen_at = Some(WallTime(NOW.0 - 40_000));
        let row = BoxRow { box_id: "room-1".into(), said_online: true, health: Some(health), seen_at };
        let page = render(&View { clinic: "north", connected: true, boxes: &[row], sessions: &[], now: NOW });
        assert!(page.contains("OPEN, 5 failed, tries again in 60 s") && page.contains("40 s ago"));
    }
}
