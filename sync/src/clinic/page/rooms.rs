//! Every room as a card of facts.
//!
//! What an administrator may do with a breaker or a dead letter belongs beside the line that shows it, as a form like that
//! of the log-out: `http::guard::people` takes no form without its token.

use maud::{Markup, html};
use shared::breaker::StateName;
use shared::clock::WallTime;
use shared::wire::{BoxHealth, BreakerHealth};

use super::{length, mark, name};
use crate::clinic::board::is_online;
use crate::clinic::http::live::Snapshot;
use crate::clinic::store::BoxRow;

/// All cards.
pub(super) fn cards(seen: &Snapshot, now: WallTime) -> Markup {
    html! {
        h2 { "Rooms" }
        @if seen.boxes.is_empty() {
            p.dim { "No room has been heard yet." }
        } @else {
            div.rooms { @for row in &seen.boxes { (card(row, now)) } }
        }
    }
}

type Line = (&'static str, Markup);

/// What a box that is away last said is shown as such: it may be otherwise by now, and nothing of it counts down.
fn card(row: &BoxRow, now: WallTime) -> Markup {
    let is_there = is_online(row, now);
    let online = if is_there { mark("good", "online") } else { mark("bad", "offline") };
    let first = [("Status", online), ("Last seen", ago(row.seen_at, now))];
    let mut lines = Vec::new();
    if let Some(health) = &row.health {
        lines.extend(work(health));
        lines.extend(board(health));
        let breakers = health.breakers.iter();
        lines.extend(breakers.map(|(service, b)| (name(*service), breaker(b, row.seen_at.filter(|_| is_there), now))));
    }
    html! {
        div.card {
            h3 { (row.box_id) }
            dl { @for (term, value) in first { dt { (term) } dd { (value) } } }
            @if !is_there && !lines.is_empty() { p.warn { "Offline. When it was last heard:" } }
            dl.stale[!is_there] { @for (term, value) in lines { dt { (term) } dd { (value) } } }
        }
    }
}

/// The page's script counts on from `data-ago`.
fn ago(seen: Option<WallTime>, now: WallTime) -> Markup {
    let Some(seconds) = seen.map(|seen| now.since(seen).as_secs()) else { return html! { "never" } };
    let text = match seconds {
        s @ 0..120 => format!("{s} s ago"),
        s @ 120..7200 => format!("{} min ago", s / 60),
        s => format!("{} h ago", s / 3600),
    };
    html! { span data-ago=(seconds) { (text) } }
}

fn work(health: &BoxHealth) -> [Line; 5] {
    let capture = &health.capture;
    let class = match capture.state.as_str() {
        "failing" | "silent" => "bad",
        "paused" => "warn",
        _ => "good",
    };
    let queue = &health.queue;
    let recorded = match queue.recording {
        0 => "no".to_owned(),
        1 => length(capture.recorded_s),
        n => format!("{n}, {}", length(capture.recorded_s)),
    };
    let dead = if queue.dead_lettered > 0 { "bad" } else { "dim" };
    [
        ("Microphone", mark(class, &capture.state)),
        ("Recording", html! { (recorded) }),
        ("To process", html! { (queue.queued) }),
        ("To acknowledge", html! { (queue.unacknowledged) }),
        ("Dead letters", mark(dead, &queue.dead_lettered.to_string())),
    ]
}

/// What is known of the board and its model; of an unknown there is nothing to say.
fn board(health: &BoxHealth) -> impl Iterator<Item = Line> {
    let celsius = health.board.celsius.map(|celsius| ("Temperature", html! { (format!("{celsius:.0} °C")) }));
    let weak = health.board.under_voltage == Some(true);
    let supply = weak.then(|| ("Supply", mark("bad", "too weak")));
    let model = health.transcriber.as_ref().map(|model| ("Model", html! { (model) }));
    [celsius, supply, model].into_iter().flatten()
}

/// State, failures in a row, and how long until the next try, counted on from when the box said it; or what a health
/// check has found, for then the wait says nothing. Of a box that is not there nothing is `seen`. The page's script counts
/// down from `data-wait`.
fn breaker(breaker: &BreakerHealth, seen: Option<WallTime>, now: WallTime) -> Markup {
    let class = match breaker.state {
        StateName::Closed => "good",
        StateName::HalfOpen | StateName::Disabled => "warn",
        StateName::Open | StateName::ForcedOpen => "bad",
    };
    let wait = breaker.retry_after_s.filter(|_| breaker.state == StateName::Open && breaker.reason.is_none());
    let left = wait.zip(seen).map(|(wait, seen)| wait.saturating_sub(now.since(seen).as_secs()));
    html! {
        span class=(class) {
            (breaker.state)
            @if breaker.failure_count > 0 { ", " (breaker.failure_count) " failed" }
            @if let Some(reason) = &breaker.reason { ": " (reason) }
            @if let Some(left) = left { ", " span data-wait=(left) { "tries again in " (left) " s" } }
        }
    }
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
        let card = card(&row(health, WallTime(NOW.0 - 40_000)), NOW).into_string();
        assert!(
            card.contains("OPEN, 5 failed, <span data-wait=\"60\">tries again in 60 s") && card.contains("40 s ago")
        );
    }

    #[test]
    fn what_a_box_that_is_away_last_said_is_shown_as_such() {
        let mut health = fixture::health("room-1", (StateName::Open, 5), (StateName::Closed, 0));
        health.breakers.get_mut(&Service::Transcription).unwrap().retry_after_s = Some(1000);
        let card = card(&row(health, WallTime(NOW.0 - 100_000)), NOW).into_string();
        assert!(card.contains("When it was last heard") && card.contains("<dl class=\"stale\">"));
        assert!(card.contains("OPEN, 5 failed</span>") && !card.contains("data-wait"));
    }

    #[test]
    fn a_breaker_that_a_health_check_holds_open_says_what_was_found() {
        let mut health = fixture::health("room-1", (StateName::Open, 0), (StateName::Closed, 0));
        let breaker = health.breakers.get_mut(&Service::Transcription).unwrap();
        (breaker.retry_after_s, breaker.reason) = (Some(10), Some("84 °C, over 80 °C".into()));
        let card = card(&row(health, NOW), NOW).into_string();
        assert!(card.contains("OPEN: 84 °C, over 80 °C</span>"), "{card}");
    }

    #[test]
    fn the_link_the_board_and_the_model_are_shown_where_they_are_known() {
        let bare = fixture::health("room-1", (StateName::Closed, 0), (StateName::Closed, 0));
        let mut full = bare.clone();
        full.breakers.insert(Service::Sync, bare.breakers[&Service::Diarization].clone());
        full.transcriber = Some("base.en".into());
        full.board = BoardHealth { celsius: Some(61.4), under_voltage: Some(true), ..BoardHealth::default() };
        let [full, bare] = [full, bare].map(|health| card(&row(health, NOW), NOW).into_string());
        for term in ["<dt>Link</dt>", "<dt>Temperature</dt><dd>61 °C", "<dt>Supply</dt>", "<dt>Model</dt><dd>base.en"]
        {
            assert!(full.contains(term), "{term}");
        }
        assert_eq!(bare.matches("<dt>").count(), full.matches("<dt>").count() - 4);
    }
}
