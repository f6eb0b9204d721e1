//! How it was over time, as drawings that need no script: failure rates, processing time, queues.

use maud::{Markup, PreEscaped, html};
use shared::alert::AlertName;
use shared::clock::WallTime;

use super::date;
use crate::clinic::http::live::Span;
use crate::clinic::store::Slot;

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 150.0;
/// Room for numbers at the left, and for times below.
const LEFT: f64 = 38.0;
const BELOW: f64 = 22.0;
const ABOVE: f64 = 8.0;

/// A line of a chart.
struct Series {
    name: &'static str,
    class: &'static str,
    /// Value by slot; where there is none, the line is broken.
    values: Vec<(i64, f64)>,
    /// Where an alert begins.
    limit: Option<f64>,
}

/// What is drawn together.
struct Chart {
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    series: Vec<Series>,
    /// The scale ends here at least.
    at_least: f64,
}

/// The section of all charts.
pub(super) fn section(slots: &[Slot], span: Span, now: WallTime) -> Markup {
    let last = now.0.div_euclid(span.slot_ms());
    let first = last - span.slots() + 1;
    html! {
        h2 #charts { "Over time" }
        p.spans {
            @for other in [Span::Day, Span::Week] {
                a id={ "span-" (other.name()) } href={ "/?span=" (other.name()) "#charts" }
                    aria-current=[(other == span).then_some("true")] { (other.title()) }
                " "
            }
        }
        div.charts { @for chart in charts(slots) { (draw(&chart, first, last, span)) } }
    }
}

fn share((failed, all): (u64, u64)) -> Option<f64> {
    // Counts of calls are far below where a float is no longer exact.
    (all > 0).then(|| 100.0 * failed as f64 / all as f64)
}

fn of(slots: &[Slot], value: impl Fn(&Slot) -> Option<f64>) -> Vec<(i64, f64)> {
    slots.iter().filter_map(|slot| Some((slot.slot, value(slot)?))).collect()
}

fn charts(slots: &[Slot]) -> [Chart; 3] {
    let rate = |name, class, alert: AlertName, values| {
        let limit = Some(100.0 * alert.threshold());
        Series { name, class, values, limit }
    };
    let queue = |name, class, values| Series { name, class, values, limit: None };
    let transcription = of(slots, |slot| share(slot.transcription));
    let diarization = of(slots, |slot| share(slot.diarization));
    let processing = of(slots, |slot| {
        let (audio, after) = slot.processing;
        (audio > 0.0).then(|| 3600.0 * after / audio)
    });
    [
        Chart {
            id: "chart-failures",
            title: "Calls that failed",
            unit: " %",
            at_least: 20.0,
            series: vec![
                rate("Transcription", "one", AlertName::TranscriptionFailureRate, transcription),
                rate("Diarization", "two", AlertName::DiarizationFailureRate, diarization),
            ],
        },
        Chart {
            id: "chart-processing",
            title: "Seconds to a record, per hour of audio",
            unit: " s",
            at_least: 120.0,
            series: vec![rate_of_time(processing)],
        },
        Chart {
            id: "chart-queues",
            title: "Waiting",
            unit: "",
            at_least: 4.0,
            series: vec![
                queue("To process", "one", of(slots, |slot| Some(slot.to_process as f64))),
                queue("To acknowledge", "two", of(slots, |slot| Some(slot.to_acknowledge as f64))),
            ],
        },
    ]
}

fn rate_of_time(values: Vec<(i64, f64)>) -> Series {
    Series { name: "Processing", class: "one", values, limit: Some(AlertName::ProcessingTime.threshold()) }
}

/// At most one decimal.
fn number(value: f64) -> String {
    format!("{}", (value * 10.0).round() / 10.0)
}

/// The next of 1, 2, 5, 10, 20, … that holds it.
fn top(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|top| *top >= value).unwrap_or(value)
}

fn words(series: &Series, unit: &str) -> String {
    let values = || series.values.iter().map(|(_, value)| *value);
    match values().next_back() {
        None => format!("{}: nothing known", series.name),
        Some(now) => {
            format!("{}: {}{unit}, at most {}{unit}", series.name, number(now), number(values().fold(0.0, f64::max)))
        }
    }
}

fn draw(chart: &Chart, first: i64, last: i64, span: Span) -> Markup {
    let numbers =
        chart.series.iter().flat_map(|series| series.values.iter().map(|(_, value)| *value).chain(series.limit));
    let top = top(numbers.fold(chart.at_least, f64::max));
    // Slots are few: a float holds each.
    let x = |slot: i64| LEFT + (WIDTH - LEFT - 6.0) * (slot - first) as f64 / (last - first).max(1) as f64;
    let y = |value: f64| HEIGHT - BELOW - (HEIGHT - BELOW - ABOVE) * value / top;
    let said: Vec<String> = chart.series.iter().map(|series| words(series, chart.unit)).collect();
    let when = |slot: i64| date(&WallTime(slot * span.slot_ms()).to_string());
    html! {
        figure.card id=(chart.id) {
            figcaption { b { (chart.title) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (chart.title) ". " (said.join(". ")) } {
                @for value in [0.0, top / 2.0, top] {
                    line.grid x1=(LEFT) x2=(WIDTH - 6.0) y1=(tenth(y(value))) y2=(tenth(y(value))) {}
                    text x=(LEFT - 4.0) y=(tenth(y(value) + 4.0)) text-anchor="end" { (number(value)) (chart.unit) }
                }
                text x=(LEFT) y=(HEIGHT - 6.0) { (when(first).trim_end_matches(" UTC").get(5..).unwrap_or("")) }
                text x=(WIDTH - 6.0) y=(HEIGHT - 6.0) text-anchor="end" { (when(last).get(5..).unwrap_or("")) }
                @for series in &chart.series {
                    @if let Some(limit) = series.limit {
                        line class={ "limit " (series.class) } x1=(LEFT) x2=(WIDTH - 6.0)
                            y1=(tenth(y(limit))) y2=(tenth(y(limit))) {}
                    }
                    path class={ "line " (series.class) } d=(path(&series.values, x, y)) {}
                }
            }
            ul.legend {
                @for (series, words) in chart.series.iter().zip(&said) {
                    li { (key(series.class)) " " (words)
                        @if let Some(limit) = series.limit { span.dim { " (alert above " (number(limit)) (chart.unit) ")" } }
                    }
                }
            }
        }
    }
}

fn tenth(value: f64) -> String {
    number(value)
}

/// What the line looks like, for the legend.
fn key(class: &str) -> Markup {
    html! { svg.key viewBox="0 0 24 8" aria-hidden="true" { path class={ "line " (class) } d="M0 4h24" {} } }
}

/// Lines from slot to slot; a slot alone is a dot.
fn path(values: &[(i64, f64)], x: impl Fn(i64) -> f64, y: impl Fn(f64) -> f64) -> PreEscaped<String> {
    let mut path = String::new();
    let mut before = None;
    for (slot, value) in values {
        let step = if before == Some(slot - 1) { 'L' } else { 'M' };
        path.push_str(&format!("{step}{} {}", tenth(x(*slot)), tenth(y(*value))));
        if step == 'M' {
            path.push_str("h0.1");
        }
        before = Some(*slot);
    }
    PreEscaped(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_767_225_600_000);

    #[test]
    fn a_line_is_broken_where_nothing_is_known() {
        let values = [(1, 1.0), (2, 2.0), (5, 3.0)];
        let drawn = path(&values, |slot| slot as f64, |value| value).into_string();
        assert_eq!(drawn, "M1 1h0.1L2 2M5 3h0.1");
    }

    #[test]
    fn a_scale_ends_at_a_round_number_that_holds_everything() {
        assert_eq!([0.3, 4.0, 20.0, 21.0, 99.9, 1234.0].map(top), [1.0, 5.0, 20.0, 50.0, 100.0, 2000.0]);
    }

    #[test]
    fn every_chart_says_in_words_what_it_shows() {
        let last = NOW.0 / Span::Day.slot_ms();
        let slot = |slot, failed| Slot {
            slot,
            to_process: 3,
            transcription: (failed, 20),
            processing: (3600.0, 42.0),
            ..Slot::default()
        };
        let page = section(&[slot(last - 1, 2), slot(last, 1)], Span::Day, NOW).into_string();
        assert!(page.contains("Transcription: 5 %, at most 10 %") && page.contains("Diarization: nothing known"));
        assert!(page.contains("Processing: 42 s, at most 42 s") && page.contains("(alert above 90 s)"));
        assert!(
            page.contains("To process: 3, at most 3")
                && page.contains("12-31 00:15")
                && page.contains("01-01 00:00 UTC")
        );
        assert!(page.contains("aria-current=\"true\">Last day"));
    }

    #[test]
    fn nothing_known_is_drawn_as_nothing() {
        assert!(!section(&[], Span::Week, NOW).into_string().contains("NaN"));
    }
}
