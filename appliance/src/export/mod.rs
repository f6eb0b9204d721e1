//! A record in the formats others read. No I/O.
//!
//! What was said stays in its place: whatever it holds, it cannot end a line, nor pass for a time, a comment or markup.
//! What ends before it begins lasts no time. A gap is told as each format can: as a caption that nobody speaks, as a
//! stretch that is not scored with its cause in a comment, or as a line.

mod captions;
mod fhir;
mod nist;
mod wording;

use shared::record::{Flag, GapCause, Record, Status, UNKNOWN_SPEAKER};

use crate::diarize::Turn;

/// Longer than any session, in seconds: times past it are no times.
const LONGEST: f64 = 30.0 * 86_400.0;

/// A format of `roomscribe export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The record itself.
    Json,
    /// `WebVTT`, the speaker in a `<v>` tag.
    Vtt,
    /// `SubRip`.
    Srt,
    /// NIST RTTM: who spoke when.
    Rttm,
    /// NIST STM: who said what when, as words to score.
    Stm,
    /// For reading.
    Txt,
    /// FHIR R4 `DocumentReference` with text and `WebVTT` in it, for a clinic's records.
    Fhir,
}

/// Writes a record as `format`. `turns` is who spoke when, where it is known apart from the words; RTTM prefers it.
#[must_use]
pub fn export(record: &Record, turns: &[Turn], format: Format) -> String {
    match format {
        Format::Json => pretty(record),
        Format::Vtt => captions::vtt(record),
        Format::Srt => captions::srt(record),
        Format::Rttm => nist::rttm(record, turns),
        Format::Stm => nist::stm(record),
        Format::Txt => txt(record),
        Format::Fhir => pretty(&fhir::document_reference(record)),
    }
}

fn pretty(value: &impl serde::Serialize) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}

/// A stretch of time, in milliseconds from the session's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: u64,
    end: u64,
}

impl Span {
    fn of(start: f64, end: f64) -> Self {
        let ms = |seconds: f64| (seconds.clamp(0.0, LONGEST) * 1000.0).round() as u64;
        Self { start: ms(start), end: ms(end).max(ms(start)) }
    }

    fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Formats that show or score a stretch want it to last.
    fn lasting(self) -> Self {
        Self { end: self.end.max(self.start + 1), ..self }
    }
}

/// What a reader of the record is told about a stretch.
enum Told {
    /// On one line, and never empty. Where no speech was heard, the transcriber wrote what nobody said.
    Said { speaker: String, text: String, is_speech: bool },
    /// Nobody knows what was said.
    Gap(GapCause),
}

/// What was said and the gaps, in order of time. A segment without a text says nothing.
fn told(record: &Record) -> Vec<(Span, Told)> {
    let said = record.segments.iter().filter_map(|s| {
        let text = one_line(&s.text.0);
        let is_speech = !s.flags.contains(&Flag::NonSpeech);
        let span = Span::of(s.start, s.end);
        (!text.is_empty()).then(|| (span, Told::Said { speaker: speaker(&s.speaker), text, is_speech }))
    });
    let gaps = record.gaps.iter().map(|g| (Span::of(g.start, g.end), Told::Gap(g.cause)));
    let mut told: Vec<_> = said.chain(gaps).collect();
    told.sort_by_key(|(span, _)| *span);
    told
}

/// What was said, behind who said it.
fn line(speaker: &str, text: &str, is_speech: bool) -> String {
    format!("{speaker}{}: {text}", if is_speech { "" } else { " (no speech heard)" })
}

/// A gap in words.
fn gap(span: Span, cause: GapCause) -> String {
    let seconds = (span.end - span.start) as f64 / 1000.0;
    format!("(nothing heard for {seconds:.1} s: {})", cause.name().replace('_', " "))
}

fn speaker(label: &str) -> String {
    let label = one_line(label);
    if label.is_empty() { UNKNOWN_SPEAKER.to_owned() } else { label }
}

/// The text with a space for every run of line ends, other white space and control characters.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// `HH:MM:SS` with milliseconds behind `point`.
fn clock(ms: u64, point: char) -> String {
    format!("{:02}:{:02}:{:02}{point}{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

fn txt(record: &Record) -> String {
    let told = told(record);
    let nothing = match (&record.error_message, record.status) {
        (Some(why), Status::Failed) => Some(format!("(no transcript: {})\n", one_line(why))),
        (None, Status::Failed) => Some("(no transcript)\n".to_owned()),
        _ if told.iter().all(|(_, told)| matches!(told, Told::Gap(_))) => Some("(nobody spoke)\n".to_owned()),
        _ => None,
    };
    let lines = told.into_iter().map(|(span, told)| {
        let line = match told {
            Told::Said { speaker, text, is_speech } => line(&speaker, &text, is_speech),
            Told::Gap(cause) => gap(span, cause),
        };
        let at = clock(span.start, '.');
        format!("[{}] {line}\n", &at[..at.len() - 2])
    });
    lines.chain(nothing).collect()
}

#[cfg(test)]
mod tests;
