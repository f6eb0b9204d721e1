//! RTTM and STM, as NIST's validators and scorers read them: fields between spaces, comments behind `;;`.

use std::collections::HashMap;

use shared::record::{DiarizationStatus, Flag, Record};

use super::{Span, Told, speaker, told, wording};
use crate::diarize::Turn;
use crate::label::speaker_label;

/// Who spoke when. A gap is not scored.
pub(super) fn rttm(record: &Record, turns: &[Turn]) -> String {
    let file = field(&record.session_id);
    let gaps = apart(record.gaps.iter().map(|g| Span::of(g.start, g.end)).collect());
    let speakers = speakers(record, turns, &gaps);
    let mut spoken: Vec<(Span, &String)> =
        speakers.iter().flat_map(|(name, spans)| spans.iter().map(move |span| (*span, name))).collect();
    spoken.sort();
    let info = |name: &String| format!("SPKR-INFO {file} 1 <NA> <NA> <NA> unknown {name} <NA> <NA>\n");
    let no_score = |gap: &Span| format!("NOSCORE {file} 1 {} <NA> <NA> <NA> <NA> <NA>\n", start_and_length(*gap));
    let speaker = |(span, name): (Span, &String)| {
        format!("SPEAKER {file} 1 {} <NA> <NA> {name} <NA> <NA>\n", start_and_length(span))
    };
    let mut out: String = speakers.iter().map(|(name, _)| info(name)).collect();
    out.extend(record.gaps.iter().map(|g| gap_comment(Span::of(g.start, g.end), g.cause.name())));
    out.extend(gaps.iter().map(no_score));
    out.extend(spoken.into_iter().map(speaker));
    out
}

/// Every speaker by name, with stretches that neither overlap one another nor reach into a gap.
fn speakers(record: &Record, turns: &[Turn], gaps: &[Span]) -> Vec<(String, Vec<Span>)> {
    let mut names = Names::default();
    let mut speakers: Vec<(String, Vec<Span>)> = Vec::new();
    for (label, span) in stretches(record, turns) {
        let name = names.of(&label);
        match speakers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, spans)) => spans.push(span),
            None => speakers.push((name, vec![span])),
        }
    }
    for (_, spans) in &mut speakers {
        *spans = without(&apart(std::mem::take(spans)), gaps);
    }
    speakers.retain(|(_, spans)| !spans.is_empty());
    speakers
}

/// From the turns, where they are those of the record's speakers, else from the words.
fn stretches(record: &Record, turns: &[Turn]) -> Vec<(String, Span)> {
    if turns.is_empty() || record.diarization_status != DiarizationStatus::Ok {
        let spoken = record.segments.iter().filter(|s| !s.flags.contains(&Flag::NonSpeech));
        return spoken.map(|s| (speaker(&s.speaker), Span::of(s.start, s.end))).collect();
    }
    let label = |turn: &Turn| {
        record.speakers.get(turn.speaker).map_or_else(|| speaker_label(turn.speaker), |known| speaker(&known.label))
    };
    turns.iter().map(|turn| (label(turn), Span::of(turn.start, turn.end))).collect()
}

/// Who said what when.
pub(super) fn stm(record: &Record) -> String {
    let file = field(&record.session_id);
    let mut names = Names::default();
    let lines = told(record).into_iter().map(|(span, told)| {
        let times = format!("{} {}", seconds(span.lasting().start), seconds(span.lasting().end));
        match told {
            Told::Said { speaker, text, .. } => match wording::words(&text) {
                words if words.is_empty() => String::new(),
                words => format!("{file} 1 {} {times} <o,f0,unknown> {words}\n", names.of(&speaker)),
            },
            Told::Gap(cause) => format!(
                "{}{file} 1 inter_segment_gap {times} <o,,unknown> ignore_time_segment_in_scoring\n",
                gap_comment(span, cause.name())
            ),
        }
    });
    lines.collect()
}

fn gap_comment(span: Span, cause: &str) -> String {
    format!(";; gap {} {} {cause}\n", seconds(span.start), seconds(span.end))
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn start_and_length(span: Span) -> String {
    format!("{} {}", seconds(span.start), seconds(span.end - span.start))
}

/// Overlapping stretches joined, in order; those that last no time are dropped.
fn apart(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| !span.is_empty());
    spans.sort();
    let mut apart: Vec<Span> = Vec::new();
    for span in spans {
        match apart.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => apart.push(span),
        }
    }
    apart
}

/// What is left of `spans` outside `holes`; both are in order and apart.
fn without(spans: &[Span], holes: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    for span in spans {
        let mut start = span.start;
        for hole in holes.iter().filter(|hole| hole.start < span.end && hole.end > span.start) {
            left.push(Span { start, end: hole.start });
            start = hole.end;
        }
        left.push(Span { start, end: span.end });
    }
    left.retain(|span| !span.is_empty());
    left
}

/// Names for labels: one field each, and never one for two.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn of(&mut self, label: &str) -> String {
        if let Some(name) = self.0.get(label) {
            return name.clone();
        }
        let plain = field(label);
        let is_free = |name: &String| !self.0.values().any(|taken| taken.eq_ignore_ascii_case(name));
        let numbered = (2..).map(|n| format!("{plain}_{n}"));
        let name = std::iter::once(plain.clone()).chain(numbered).find(is_free).unwrap_or(plain);
        self.0.insert(label.to_owned(), name.clone());
        name
    }
}

/// A field without spaces, nor what the validator, which takes speakers for patterns, would read as one.
fn field(text: &str) -> String {
    let text = if text.is_empty() { "_" } else { text };
    text.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
}
