//! Every room as a card of facts.

use shared::breaker::StateName;
use shared::clock::WallTime;
use shared::wire::{BoxHealth, BreakerHealth};

use super::{View, ago, escape, mark, name};
use crate::clinic::board::is_online;
use crate::clinic::store::BoxRow;

/// All cards.
pub(super) fn cards(view: &View<'_>) -> String {
    if view.boxes.is_empty() {
        return "<p class=\"dim\">No room has been heard yet.</p>".into();
    }
    let cards: String = view.boxes.iter().map(|row| card(row, view.now)).collect();
    format!("<div class=\"rooms\">{cards}</div>")
}

type Line = (&'static str, String);

fn card(row: &BoxRow, now: WallTime) -> String {
    let online = if is_online(row, now) { mark("good", "online") } else { mark("bad", "offline") };
    let mut lines = vec![("Status", online), ("Last seen", escape(&ago(row.seen_at, now)))];
    if let Some(health) = &row.health {
        lines.extend(work(health));
        lines.extend(board(health));
        let breakers = health.breakers.iter();
        lines.extend(breakers.map(|(service, b)| (name(*service), breaker(b, row.seen_at, now))));
    }
    let list: String = lines.iter().map(|(term, value)| format!("<dt>{term}</dt><dd>{value}</dd>")).collect();
    format!("<section class=\"card\"><h3>{}</h3><dl>{list}</dl></section>", escape(&row.box_id))
}

fn work(health: &BoxHealth) -> [Line; 5] {
    let is_deaf = matches!(health.capture.state.as_str(), "failing" | "silent");
    let queue = &health.queue;
    let dead = if queue.dead_lettered > 0 { "bad" } else { "dim" };
    [
        ("Microphone", mark(if is_deaf { "bad" } else { "good" }, &health.capture.state)),
        ("Recording", queue.recording.to_string()),
        ("To process", queue.queued.to_string()),
        ("To acknowledge", queue.unacknowledged.to_string()),
        ("Dead letters", mark(dead, &queue.dead_lettered.to_string())),
    ]
}

/// What is known of the board and its model; of an unknown there is nothing to say.
fn board(health: &BoxHealth) -> impl Iterator<Item = Line> {
    let celsius = health.board.celsius.map(|celsius| ("Temperature", format!("{celsius:.0} °C")));
    let weak = health.board.under_voltage == Some(true);
    let supply = weak.then(|| ("Supply", mark("bad", "too weak")));
    let model = health.transcriber.as_ref().map(|model| ("Model", escape(model)));
    [celsius, supply, model].into_iter().flatten()
}

/// State, failures in a row, and how long until the next try, counted on from when the box said it; or what a health
/// check has found, for then the wait says nothing.
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
    if let Some(reason) = &breaker.reason {
        text.push_str(&format!(": {reason}"));
    } else if let (StateName::Open, Some(wait)) = (breaker.state, breaker.retry_after_s) {
        let passed = seen.map_or(0, |seen| now.since(seen).as_secs());
        text.push_str(&format!(", tries again in {} s", wait.saturating_sub(passed)));
    }
    mark(class, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture;
    use shared::breaker::Service;
    use shared::wire::BoardHealth;

    const NOW: WallTime = WallTime(1_767_225_600_000);

    fn row(health: BoxHealth, seen_at: WallTime) -> BoxRow {
        BoxRow { box_id: "room-1".into(), said_online: true, health: Some(health), seen_at: Some(seen_at) }
    }

    #[test]
    fn an_open_breaker_counts_down_from_when_it_was_heard() {
        let mut health = fixture::health("room-1", (StateName::Open, 5), (StateName::Closed, 0));
        health.breakers.get_mut(&Service::Transcription).unwrap().retry_after_s = Some(100);
        let card = card(&row(health, WallTime(NOW.0 - 40_000)), NOW);
        assert!(card.contains("OPEN, 5 failed, tries again in 60 s") && card.contains("40 s ago"));
    }

    #[test]
    fn a_breaker_that_a_health_check_holds_open_says_what_was_found() {
        let mut health = fixture::health("room-1", (StateName::Open, 0), (StateName::Closed, 0));
        let breaker = health.breakers.get_mut(&Service::Transcription).unwrap();
        (breaker.retry_after_s, breaker.reason) = (Some(10), Some("84 °C, over 80 °C".into()));
        let card = card(&row(health, NOW), NOW);
        assert!(card.contains("OPEN: 84 °C, over 80 °C</span>"), "{card}");
    }

    #[test]
    fn the_link_the_board_and_the_model_are_shown_where_they_are_known() {
        let bare = fixture::health("room-1", (StateName::Closed, 0), (StateName::Closed, 0));
        let mut full = bare.clone();
        full.breakers.insert(Service::Sync, bare.breakers[&Service::Diarization].clone());
        full.transcriber = Some("base.en".into());
        full.board = BoardHealth { celsius: Some(61.4), under_voltage: Some(true), ..BoardHealth::default() };
        let (full, bare) = (card(&row(full, NOW), NOW), card(&row(bare, NOW), NOW));
        for term in ["<dt>Link</dt>", "<dt>Temperature</dt><dd>61 °C", "<dt>Supply</dt>", "<dt>Model</dt><dd>base.en"]
        {
            assert!(full.contains(term), "{term}");
        }
        assert_eq!(bare.matches("<dt>").count(), full.matches("<dt>").count() - 4);
    }
}
