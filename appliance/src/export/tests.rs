//! Each format, also of records that nobody should make. That others can read them is looked at by the scenarios.

use serde_json::{Value, json};

use shared::record::DiarizationStatus;

use super::*;

fn segment(start: f64, end: f64, speaker: &str, text: &str) -> Value {
    json!({"start": start, "end": end, "speaker": speaker, "text": text, "model": "m", "words": [], "flags": []})
}

fn record(segments: &[Value], gaps: Value) -> Record {
    serde_json::from_value(json!({
        "version": 1, "session_id": "s", "box": "b", "revision": 1, "status": "done", "diarization_status": "ok",
        "error_message": null, "error": null, "started_at": "2026-11-23T09:00:00.000Z",
        "ended_at": "2026-11-23T10:01:40.000Z", "duration_s": 3700.0, "time_quality": "synchronized",
        "consent": {"basis": "verbal", "by": null, "at": ""}, "speakers": [],
        "speaker_count": {"best": 2, "maybe": null}, "segments": segments, "gaps": gaps, "models": [],
        "attempts": {"transcription": 1, "diarization": 1}, "processing": {"seconds": 1.0, "seconds_after_end": 1.5}
    }))
    .unwrap()
}

fn conversation() -> Record {
    record(
        &[segment(0.25, 1.75, "Speaker 1", "a < b & c"), segment(3661.0, 3662.5, "Speaker 2", "yes")],
        json!([{"start": 5.0, "end": 8.2, "cause": "power_loss"}]),
    )
}

fn of(record: &Record, format: Format) -> String {
    export(record, &[], format)
}

#[test]
fn each_format_says_who_said_what_when() {
    let record = conversation();
    let vtt = of(&record, Format::Vtt);
    assert!(vtt.contains("00:00:00.250 --> 00:00:01.750\n<v Speaker 1>a &lt; b &amp; c</v>\n"));
    assert!(of(&record, Format::Srt).contains("3\n01:01:01,000 --> 01:01:02,500\nSpeaker 2: yes\n"));
    let rttm = of(&record, Format::Rttm);
    assert!(rttm.contains("SPKR-INFO s 1 <NA> <NA> <NA> unknown Speaker_1 <NA> <NA>\n"));
    assert!(rttm.contains("SPEAKER s 1 3661.000 1.500 <NA> <NA> Speaker_2 <NA> <NA>\n"));
    assert!(of(&record, Format::Stm).contains("s 1 Speaker_2 3661.000 3662.500 <o,f0,unknown> yes\n"));
    assert!(of(&record, Format::Txt).contains("[01:01:01.0] Speaker 2: yes\n"));
}

#[test]
fn a_gap_is_told_with_its_cause_in_every_format() {
    let record = conversation();
    let told = "(nothing heard for 3.2 s: power loss)";
    let caption = of(&record, Format::Vtt);
    assert!(caption.contains(&format!("00:00:05.000 --> 00:00:08.200\n<c.gap>{told}</c>\n")));
    assert!(of(&record, Format::Srt).contains(&format!("2\n00:00:05,000 --> 00:00:08,200\n{told}\n")));
    assert_eq!(of(&record, Format::Txt).lines().nth(1), Some(format!("[00:00:05.0] {told}").as_str()));
    let comment = ";; gap 5.000 8.200 power_loss\n";
    let rttm = of(&record, Format::Rttm);
    assert!(rttm.contains(&format!("{comment}NOSCORE s 1 5.000 3.200 <NA> <NA> <NA> <NA> <NA>\n")));
    let ignored = "s 1 inter_segment_gap 5.000 8.200 <o,,unknown> ignore_time_segment_in_scoring\n";
    assert!(of(&record, Format::Stm).contains(&format!("{comment}{ignored}")));
}

#[test]
fn text_where_no_speech_was_heard_is_marked_and_spoken_by_nobody() {
    let mut record = record(&[segment(1.0, 2.0, "Unknown Speaker", "old old")], json!([]));
    record.segments[0].flags.push(Flag::NonSpeech);
    assert_eq!(of(&record, Format::Txt), "[00:00:01.0] Unknown Speaker (no speech heard): old old\n");
    assert!(of(&record, Format::Srt).contains("Unknown Speaker (no speech heard): old old\n"));
    assert!(of(&record, Format::Vtt).contains("<v.non_speech Unknown Speaker>old old</v>\n"));
    assert_eq!(of(&record, Format::Rttm), "");
}

#[test]
fn a_gap_is_named_as_in_the_record() {
    let causes = "overrun unplugged muted off_record clock_step restart power_loss disk_full audio_invalid";
    for name in causes.split(' ') {
        let cause: GapCause = serde_json::from_value(json!(name)).unwrap();
        assert_eq!(cause.name(), name);
    }
}

#[test]
fn rttm_prefers_turns_to_words_if_they_are_the_records_own() {
    let mut record = conversation();
    let turns = [Turn { start: 1.0, end: 2.0, speaker: 1 }];
    let text = export(&record, &turns, Format::Rttm);
    assert!(text.contains("SPEAKER s 1 1.000 1.000 <NA> <NA> Speaker_2") && !text.contains("Speaker_1"));

    let speaker = |label: &str| serde_json::from_value(json!({"label": label, "seconds": 1.0})).unwrap();
    record.speakers = vec![speaker("Speaker 1"), speaker("Therapist")];
    assert!(export(&record, &turns, Format::Rttm).contains("SPEAKER s 1 1.000 1.000 <NA> <NA> Therapist"));

    record.diarization_status = DiarizationStatus::Failed;
    assert!(!export(&record, &turns, Format::Rttm).contains("1.000 1.000"));
}

#[test]
fn in_rttm_a_speaker_neither_overlaps_itself_nor_speaks_in_a_gap() {
    let overlapping = [
        segment(4.0, 9.0, "Speaker 1", "a"),
        segment(8.5, 10.0, "Speaker 1", "b"),
        segment(9.5, 11.0, "speaker_1", "c"),
        segment(6.0, 7.0, "Speaker 2", "d"),
    ];
    let gaps = json!([{"start": 5.0, "end": 7.0, "cause": "muted"}, {"start": 6.5, "end": 8.2, "cause": "overrun"}]);
    let rttm = of(&record(&overlapping, gaps), Format::Rttm);
    let stretches = |kind: &str| -> Vec<String> {
        let fields = rttm.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|f| f[0] == kind);
        fields.map(|f| format!("{} {} {}", f[3], f[4], f[7])).collect()
    };
    assert_eq!(stretches("SPEAKER"), ["4.000 1.000 Speaker_1", "8.200 1.800 Speaker_1", "9.500 1.500 speaker_1_2"]);
    assert_eq!(stretches("NOSCORE"), ["5.000 3.200 <NA>"]);
    assert_eq!(rttm.matches("SPKR-INFO").count(), 2);
}

#[test]
fn what_is_said_cannot_leave_its_place() {
    let hostile = "one\n\n00:00:01.000 --> 00:00:02.000\r\n<v Therapist>{b}\u{2028};;\u{7}two</v>\0";
    let record = record(&[segment(1.0, 2.0, "A\n<i>", hostile)], json!([]));
    assert_eq!(
        of(&record, Format::Vtt),
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n<v A &lt;i&gt;>one 00:00:01.000 --&gt; 00:00:02.000 \
         &lt;v Therapist&gt;{b} ;; two&lt;/v&gt;</v>\n"
    );
    let srt = of(&record, Format::Srt);
    assert_eq!((srt.matches("-->").count(), srt.lines().count()), (1, 4));
    assert!(srt.contains("‹v Therapist›(b) ;; two") && !srt.contains("<i>"));
    let stm = of(&record, Format::Stm);
    assert_eq!((stm.lines().count(), stm.contains(";;")), (1, false));
    assert_eq!(of(&record, Format::Rttm).lines().count(), 2);
    assert_eq!(of(&record, Format::Txt).lines().count(), 1);
}

#[test]
fn odd_times_are_put_right() {
    let mut record = record(
        &[
            segment(9.0, 9.0, "B", "later"),
            segment(3.0, 2.0, "A", "backwards"),
            segment(-1.0, 1e300, "A", "long"),
            segment(4.0, 5.0, "A", " \n "),
        ],
        json!([]),
    );
    record.segments[0].end = f64::NAN;
    let vtt = of(&record, Format::Vtt);
    let cues: Vec<&str> = vtt.lines().filter(|line| line.contains("-->")).collect();
    assert_eq!(
        cues,
        ["00:00:00.000 --> 720:00:00.000", "00:00:03.000 --> 00:00:03.001", "00:00:09.000 --> 00:00:09.001"]
    );
    assert_eq!(of(&record, Format::Rttm).lines().count(), 2, "what lasts no time was not spoken");
}

#[test]
fn a_record_without_words_says_why() {
    let mut record = record(&[], json!([]));
    assert_eq!(of(&record, Format::Txt), "(nobody spoke)\n");
    assert_eq!(of(&record, Format::Vtt), "WEBVTT\n");
    assert!([Format::Srt, Format::Rttm, Format::Stm].iter().all(|format| of(&record, *format).is_empty()));
    record.status = Status::Failed;
    record.error_message = Some("The audio is invalid".into());
    assert_eq!(of(&record, Format::Txt), "(no transcript: The audio is invalid)\n");
}

#[test]
fn fhir_holds_the_text_its_size_and_sum_and_names_nobody() {
    let mut record = conversation();
    record.revision = 3;
    record.consent.by = Some("therapist".into());
    let text = of(&record, Format::Fhir);
    assert!(!text.contains("therapist") && !text.contains("null"));
    let resource: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(resource["masterIdentifier"], json!({"system": "urn:uuid:s", "value": "3"}));
    assert_eq!(resource["relatesTo"][0]["target"]["identifier"]["value"], "2");
    assert_eq!(resource["context"]["period"], json!({"start": "2026-11-23T09:00:00Z", "end": "2026-11-23T10:01:40Z"}));
    assert_eq!(resource["date"], "2026-11-23T10:01:41.5Z");
    let attachment = &resource["content"][0]["attachment"];
    let data = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, attachment["data"].as_str().unwrap()).unwrap();
    assert_eq!(data, of(&record, Format::Txt).as_bytes());
    assert_eq!(attachment["size"], data.len());
    assert_eq!(resource["content"][1]["attachment"]["contentType"], "text/vtt");
}

#[test]
fn fhir_leaves_out_dates_that_are_none_and_ends_no_session_before_its_start() {
    let mut record = conversation();
    record.ended_at = "2026-11-23T08:00:00.000Z".into();
    let period = |record: &Record| -> Value {
        serde_json::from_str::<Value>(&of(record, Format::Fhir)).unwrap()["context"]["period"].clone()
    };
    assert_eq!(period(&record)["end"], "2026-11-23T10:01:40Z");
    record.ended_at = "0000-00-00T00:00:00Z".into();
    record.started_at = String::new();
    assert_eq!(period(&record), Value::Null);
}
