//! A record in the formats others read. No I/O.

use shared::record::{Record, Segment};

use crate::diarize::Turn;
use crate::label::speaker_label;

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
    /// NIST STM: who said what when.
    Stm,
    /// For reading.
    Txt,
}

/// Writes a record as `format`. `turns` is who spoke when, where it is known apart from the words; RTTM prefers it.
#[must_use]
pub fn export(record: &Record, turns: &[Turn], format: Format) -> String {
    match format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(record).unwrap_or_default()),
        Format::Vtt => vtt(record),
        Format::Srt => srt(record),
        Format::Rttm => rttm(record, turns),
        Format::Stm => stm(record),
        Format::Txt => txt(record),
    }
}

/// `HH:MM:SS` with milliseconds behind `point`.
fn clock(seconds: f64, point: char) -> String {
    let ms = (seconds.max(0.0) * 1000.0).round() as u64;
    format!("{:02}:{:02}:{:02}{point}{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn vtt(record: &Record) -> String {
    let mut out = String::from("WEBVTT\n");
    for segment in &record.segments {
        let (from, to) = (clock(segment.start, '.'), clock(segment.end.max(segment.start + 0.001), '.'));
        let (speaker, text) = (escaped(&segment.speaker), escaped(&segment.text.0));
        out.push_str(&format!("\n{from} --> {to}\n<v {speaker}>{text}</v>\n"));
    }
    out
}

fn srt(record: &Record) -> String {
    let cue = |(n, s): (usize, &Segment)| {
        let (from, to) = (clock(s.start, ','), clock(s.end, ','));
        format!("{}\n{from} --> {to}\n{}: {}\n\n", n + 1, s.speaker, s.text.0)
    };
    record.segments.iter().enumerate().map(cue).collect()
}

fn name(label: &str) -> String {
    label.replace(' ', "_")
}

fn rttm(record: &Record, turns: &[Turn]) -> String {
    let stretches: Vec<(f64, f64, String)> = if turns.is_empty() {
        record.segments.iter().map(|s| (s.start, s.end, name(&s.speaker))).collect()
    } else {
        turns.iter().map(|t| (t.start, t.end, name(&speaker_label(t.speaker)))).collect()
    };
    let mut names: Vec<&String> = stretches.iter().map(|(.., name)| name).collect();
    names.sort();
    names.dedup();
    let file = &record.session_id;
    let mut out: String =
        names.iter().map(|n| format!("SPKR-INFO {file} 1 <NA> <NA> <NA> unknown {n} <NA> <NA>\n")).collect();
    for (start, end, name) in &stretches {
        out.push_str(&format!("SPEAKER {file} 1 {start:.3} {:.3} <NA> <NA> {name} <NA> <NA>\n", end - start));
    }
    out
}

fn stm(record: &Record) -> String {
    let line = |s: &Segment| {
        format!(
            "{} 1 {} {:.3} {:.3} <o,f0,unknown> {}\n",
            record.session_id,
            name(&s.speaker),
            s.start,
            s.end,
            s.text.0
        )
    };
    record.segments.iter().map(line).collect()
}

fn txt(record: &Record) -> String {
    let mut lines: Vec<(f64, String)> =
        record.segments.iter().map(|s| (s.start, format!("{}: {}", s.speaker, s.text.0))).collect();
    lines.extend(record.gaps.iter().map(|g| {
        let cause = serde_json::to_value(g.cause).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        (g.start, format!("(nothing heard for {:.1} s: {})", g.end - g.start, cause.replace('_', " ")))
    }));
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    lines.into_iter().map(|(at, line)| format!("[{}] {line}\n", &clock(at, '.')[..10])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let segment = |start: f64, speaker: &str, text: &str| serde_json::json!({"start": start, "end": start + 1.5, "speaker": speaker, "text": text, "model": "m", "words": [], "flags": []});
        serde_json::from_value(serde_json::json!({
            "version": 1, "session_id": "s", "box": "b", "revision": 1, "status": "done", "diarization_status": "ok",
            "error_message": null, "error": null, "started_at": "", "ended_at": "", "duration_s": 3700.0,
            "time_quality": "synchronized", "consent": {"basis": "verbal", "by": null, "at": ""}, "speakers": [],
            "speaker_count": {"best": 2, "maybe": null},
            "segments": [segment(0.25, "Speaker 1", "a < b & c"), segment(3661.0, "Speaker 2", "yes")],
            "gaps": [{"start": 5.0, "end": 8.2, "cause": "power_loss"}], "models": [],
            "attempts": {"transcription": 1, "diarization": 1}, "processing": {"seconds": 1.0, "seconds_after_end": 1.0}
        }))
        .unwrap()
    }

    #[test]
    fn each_format_says_who_said_what_when() {
        let of = |format| export(&record(), &[], format);
        assert!(of(Format::Vtt).contains("00:00:00.250 --> 00:00:01.750\n<v Speaker 1>a &lt; b &amp; c</v>\n"));
        assert!(of(Format::Srt).contains("2\n01:01:01,000 --> 01:01:02,500\nSpeaker 2: yes\n"));
        assert!(of(Format::Rttm).contains("SPKR-INFO s 1 <NA> <NA> <NA> unknown Speaker_1 <NA> <NA>\n"));
        assert!(of(Format::Rttm).contains("SPEAKER s 1 3661.000 1.500 <NA> <NA> Speaker_2 <NA> <NA>\n"));
        assert!(of(Format::Stm).contains("s 1 Speaker_2 3661.000 3662.500 <o,f0,unknown> yes\n"));
        let txt = of(Format::Txt);
        assert!(txt.lines().nth(1) == Some("[00:00:05.0] (nothing heard for 3.2 s: power loss)"), "{txt}");
    }

    #[test]
    fn rttm_prefers_turns_to_words() {
        let turns = [Turn { start: 1.0, end: 2.0, speaker: 1 }];
        let text = export(&record(), &turns, Format::Rttm);
        assert!(text.contains("SPEAKER s 1 1.000 1.000 <NA> <NA> Speaker_2") && !text.contains("Speaker_1"));
    }
}
