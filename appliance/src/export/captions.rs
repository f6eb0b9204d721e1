//! Captions: `WebVTT` and `SubRip`. A gap is a caption too, so that nobody takes it for silence.
//!
//! In `WebVTT`, `<c.gap>` and `<v.non_speech …>` let a style sheet or a program tell from speech what is none.

use shared::record::Record;

use super::{Span, Told, clock, gap, line, told};

pub(super) fn vtt(record: &Record) -> String {
    let mut out = String::from("WEBVTT\n");
    for (span, told) in told(record) {
        let payload = match told {
            Told::Said { speaker, text, is_speech } => {
                let class = if is_speech { "" } else { ".non_speech" };
                format!("<v{class} {}>{}</v>", escaped(&speaker), escaped(&text))
            }
            Told::Gap(cause) => format!("<c.gap>{}</c>", escaped(&gap(span, cause))),
        };
        let span = span.lasting();
        out.push_str(&format!("\n{} --> {}\n{payload}\n", clock(span.start, '.'), clock(span.end, '.')));
    }
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(super) fn srt(record: &Record) -> String {
    let cue = |(n, (span, told)): (usize, (Span, Told))| {
        let text = match told {
            Told::Said { speaker, text, is_speech } => line(&speaker, &text, is_speech),
            Told::Gap(cause) => gap(span, cause),
        };
        let span = span.lasting();
        format!("{}\n{} --> {}\n{}\n\n", n + 1, clock(span.start, ','), clock(span.end, ','), unmarked(&text))
    };
    told(record).into_iter().enumerate().map(cue).collect()
}

/// `SubRip` cannot escape: players take `<…>` and `{…}` for markup, and parsers look for `-->`.
fn unmarked(text: &str) -> String {
    let plain = |c| match c {
        '<' => '‹',
        '>' => '›',
        '{' => '(',
        '}' => ')',
        other => other,
    };
    text.chars().map(plain).collect()
}
