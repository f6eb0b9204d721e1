//! What was said in a session: the only page that shows it.

use maud::{Markup, html};
use shared::record::{Flag, GapCause, Record, Segment, UNKNOWN_SPEAKER};

use super::{bar, date, document, length, mark};
use crate::clinic::access::Person;

/// Colours for voices; a speaker is always named besides.
const COLOURS: usize = 6;

/// The whole page.
#[must_use]
pub fn render(clinic: &str, person: &Person, record: &Record) -> Markup {
    document(
        &format!("Session of {}", date(&record.started_at)),
        &html! {
            (bar(clinic, person))
            main #main {
                p { a href="/" { "To the rooms" } }
                h1 { "Session of " (date(&record.started_at)) }
                (facts(record))
                h2 { "What was said" }
                @if record.segments.is_empty() && record.gaps.is_empty() {
                    p.dim { "There is no transcript." }
                }
                ol.transcript { @for (_, line) in lines(record) { (line) } }
            }
        },
    )
}

fn facts(record: &Record) -> Markup {
    let speakers: Vec<String> = record
        .speakers
        .iter()
        .map(|speaker| match &speaker.role {
            Some(role) => format!("{} ({role}), {}", speaker.label, length(speaker.seconds)),
            None => format!("{}, {}", speaker.label, length(speaker.seconds)),
        })
        .collect();
    let diarization = record.diarization_status.name();
    html! {
        div.card { dl.wide {
            dt { "Room" } dd { (record.box_id) }
            dt { "Duration" } dd { (length(record.duration_s)) }
            dt { "Status" } dd { (record.status) @if let Some(message) = &record.error_message { ": " (message) } }
            dt { "Speakers told apart" } dd { (mark(if diarization == "ok" { "good" } else { "warn" }, diarization)) }
            dt { "Speakers" } dd { @if speakers.is_empty() { "none" } @else { (speakers.join("; ")) } }
            dt { "Consent" } dd { (record.consent.basis) ", " (date(&record.consent.at)) }
            dt { "Revision" } dd { (record.revision) }
            dt { "Session" } dd { (record.session_id) }
        } }
    }
}

/// Segments and gaps in order of time.
fn lines(record: &Record) -> Vec<(f64, Markup)> {
    let said = record.segments.iter().map(|segment| (segment.start, said(record, segment)));
    let gaps = record.gaps.iter().map(|gap| {
        let seconds = format!("{:.1}", gap.end - gap.start);
        let line =
            html! { li.gap { (time(gap.start)) " Nothing was recorded for " (seconds) " s: " (cause(gap.cause)) "." } };
        (gap.start, line)
    });
    let mut lines: Vec<(f64, Markup)> = said.chain(gaps).collect();
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    lines
}

fn said(record: &Record, segment: &Segment) -> Markup {
    let at = record.speakers.iter().position(|speaker| speaker.label == segment.speaker);
    let class = at.map_or_else(|| "v0".to_owned(), |at| format!("v{}", at % COLOURS + 1));
    html! {
        li class=(class) {
            div.who {
                (time(segment.start)) " "
                @if segment.speaker == UNKNOWN_SPEAKER { i { (segment.speaker) } } @else { b { (segment.speaker) } }
                @for flag in &segment.flags { " " span.flag { (remark(*flag)) } }
            }
            p { (segment.text.0) }
        }
    }
}

fn time(seconds: f64) -> Markup {
    html! { span.time { (length(seconds.floor())) } }
}

/// What a reader should know of a segment.
fn remark(flag: Flag) -> &'static str {
    match flag {
        Flag::NonSpeech => "no speech was heard here",
        Flag::Repetition => "may be a loop of the transcriber",
        Flag::LowConfidence => "uncertain",
        Flag::Overlap => "two voices at once",
        Flag::BlindCut => "cut without a pause",
    }
}

fn cause(cause: GapCause) -> &'static str {
    match cause {
        GapCause::Overrun => "the sound card had more than was fetched in time",
        GapCause::Unplugged => "the microphone was away",
        GapCause::Muted => "the microphone was muted",
        GapCause::OffRecord => "off the record",
        GapCause::ClockStep => "the clock was set",
        GapCause::Restart => "the recorder was not running",
        GapCause::PowerLoss => "the box had no power",
        GapCause::DiskFull => "the disk was full",
        GapCause::AudioInvalid => "what was stored cannot be read",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::access::Role;
    use crate::clinic::fixture::{self, SESSION};
    use shared::record::Said;

    fn page(record: &Record) -> String {
        render("north", &Person { name: "anna".into(), role: Role::Clinician, login: None }, record).into_string()
    }

    #[test]
    fn what_was_said_stands_in_order_of_time_with_speakers_gaps_and_remarks() {
        let mut record = fixture::record(SESSION, 1);
        record.segments[1].flags = vec![Flag::Overlap];
        record.segments[1].speaker = UNKNOWN_SPEAKER.into();
        let page = page(&record);
        let expected = [
            "0:00</span> <b>Speaker 1</b>",
            "xylophone",
            "0:10</span> Nothing was recorded for 3.2 s: the box had no power",
            "1:01</span> <i>Unknown Speaker</i> <span class=\"flag\">two voices at once",
            "zeppelin",
        ];
        let places: Vec<usize> = expected.iter().map(|text| page.find(text).expect(text)).collect();
        assert!(places.is_sorted(), "{places:?}");
    }

    #[test]
    fn nothing_that_was_said_becomes_markup() {
        let mut record = fixture::record(SESSION, 1);
        let evil = "</p><script>x()</script>";
        record.segments[0].text = Said(evil.into());
        record.segments[0].speaker = evil.into();
        record.speakers[0].label = evil.into();
        record.consent.basis = evil.into();
        let page = page(&record);
        assert!(!page.contains("<script") && page.matches("&lt;/p&gt;&lt;script&gt;").count() == 4);
    }
}
