//! `GET /metrics` of the box: Prometheus' text format, breakers by the names that resilience4j dashboards know.

use std::sync::PoisonError;

use shared::metrics::{Family, alerts, breakers, tallies};
use shared::record::Flag;
use shared::task::Task;
use shared::wire::BoxHealth;

use crate::context::Context;

/// Everything, as one page.
#[must_use]
pub fn render(context: &Context, health: &BoxHealth) -> String {
    let mut page = breakers(&[(None, &health.breakers)]);
    page += &tallies(&Task::ALL.map(|task| (task.service(), context.breakers.tally(task.service()))));
    page += &alerts(&[(None, &health.alerts)]);
    page + &queue(context, health) + &board(health) + &disbelieved(context)
}

fn queue(context: &Context, health: &BoxHealth) -> String {
    let mut sessions = Family::new("roomscribe_sessions", "gauge", "Sessions by what is still to be done for them");
    for (place, count) in [
        ("recording", health.queue.recording),
        ("queued", health.queue.queued),
        ("unacknowledged", health.queue.unacknowledged),
        ("dead_lettered", health.queue.dead_lettered),
    ] {
        sessions.add(&[("place", place)], count);
    }
    let mut model = Family::new("roomscribe_transcriber", "gauge", "The transcription model of the last window");
    if let Some(id) = &health.transcriber {
        model.add(&[("model", id)], 1);
    }
    sessions.finish() + &model.finish() + &flagged(context)
}

/// Messages of the link that were not believed; a store that fails has alerts of its own.
fn disbelieved(context: &Context) -> String {
    let help = "Messages to this box that the clinic had not signed for it, and that were ignored";
    let mut messages = Family::new("roomscribe_link_disbelieved_total", "counter", help);
    let known = context.store.disbelieved().unwrap_or_default();
    for what in ["acknowledgement", "command"] {
        let count = known.iter().find(|(name, _)| name == what).map_or(0, |(_, count)| *count);
        messages.add(&[("what", what)], count);
    }
    messages.finish()
}

/// What a reader should know of segments, counted; never their text.
fn flagged(context: &Context) -> String {
    let help = "Segments concluded since the start that bear a flag";
    let mut segments = Family::new("roomscribe_flagged_segments_total", "counter", help);
    let counts = context.flagged.lock().unwrap_or_else(PoisonError::into_inner);
    for flag in Flag::ALL {
        segments.add(&[("flag", flag.name())], counts.get(&flag).unwrap_or(&0));
    }
    segments.finish()
}

fn board(health: &BoxHealth) -> String {
    let mebibytes = |mib: u64| (mib << 20).to_string();
    let board = &health.board;
    let figures = [
        ("roomscribe_board_temperature_celsius", "The hottest zone", board.celsius.map(|c| c.to_string())),
        (
            "roomscribe_board_under_voltage",
            "Whether the supply is too weak",
            board.under_voltage.map(|u| u8::from(u).to_string()),
        ),
        ("roomscribe_memory_available_bytes", "Memory that is available", board.free_memory_mib.map(mebibytes)),
        ("roomscribe_disk_available_bytes", "Room on the data disk", board.free_disk_mib.map(mebibytes)),
    ];
    let families = figures.into_iter().filter_map(|(name, help, value)| {
        let mut family = Family::new(name, "gauge", help);
        family.add(&[], value?);
        Some(family.finish())
    });
    families.collect()
}
