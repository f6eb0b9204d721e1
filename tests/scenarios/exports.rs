//! What `roomscribe export` writes, as other people's programs read it: NIST's validators of RTTM and STM, the W3C's
//! parser of WebVTT, the FHIR models. Of a real record, and of records that nobody should make.

use std::path::{Path, PathBuf};

use appliance::diarize::Turn;
use appliance::export::{Format, export};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use shared::record::{Record, Said};
use tests::recordings::{float_wav, samples};
use tests::validators::{Cue, fhir_models_accept, rttm_validator_accepts, stm_validator_accepts, webvtt_cues};
use tests::{TestBox, conversation};

#[test]
fn a_real_record_with_a_gap_is_read_by_others_in_every_format() {
    let room = TestBox::new();
    let mut heard = samples(&conversation(room.root()));
    heard[17 * 16_000..17 * 16_000 + 24_000].fill(f32::NAN);
    let done = room.process(&float_wav(&room.root().join("gap.wav"), 1, &heard));
    let session = done.record["session_id"].as_str().unwrap();
    let write = |format: &str| {
        let path = room.root().join(session).with_extension(format);
        let output = room.run(&["export", session, "--format", format]);
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(&path, &output.stdout).unwrap();
        (path, String::from_utf8(output.stdout).unwrap())
    };

    let record: Record = serde_json::from_str(&write("json").1).unwrap();
    assert!(serde_json::to_value(&record).unwrap() == done.record, "the JSON is the record");
    let [gap] = &record.gaps[..] else { panic!("one gap") };
    assert!(record.segments.len() > 5 && (gap.start - 17.0).abs() < 0.1 && (gap.end - 18.5).abs() < 0.1);
    let told = "(nothing heard for 1.5 s: audio invalid)";
    let times = format!("{:.3} {:.3}", gap.start, gap.end);

    let [cues] = &webvtt_cues(&[write("vtt").0])[..] else { panic!("one file") };
    assert_eq!(cues.len(), record.segments.len() + 1);
    holds_every_segment(cues, &record);
    let is_gap = |cue: &Cue| cue.classes == ["gap"] && (cue.start, cue.end) == (gap.start, gap.end);
    assert!(cues.iter().any(|cue| is_gap(cue) && cue.text.0 == told));

    let (rttm, text) = write("rttm");
    rttm_validator_accepts(&rttm);
    let speakers = text.lines().filter(|line| line.starts_with("SPKR-INFO")).count();
    assert_eq!(speakers, record.speakers.len());
    assert!(text.contains(&format!(";; gap {times} audio_invalid\nNOSCORE {session} 1 ")));

    let (stm, text) = write("stm");
    assert!(stm_validator_accepts(&stm, "english"));
    assert!(text.contains(&format!(" inter_segment_gap {times} ")));

    let (_, txt) = write("txt");
    assert_eq!(txt.lines().count(), record.segments.len() + 1);
    assert!(txt.lines().any(|line| line.ends_with(told)));
    blocks_in_order(&write("srt").1, record.segments.len() + 1);

    let (fhir, text) = write("fhir");
    fhir_models_accept(&[fhir]);
    let resource: Value = serde_json::from_str(&text).unwrap();
    let attached = resource["content"][0]["attachment"]["size"].as_u64();
    assert_eq!(attached, u64::try_from(txt.len()).ok());
}

/// The speaker as it stands in a tag.
fn escaped(label: &str) -> String {
    label.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Who said what comes out of the captions as it went in, but for white space.
fn holds_every_segment(cues: &[Cue], record: &Record) {
    let spoken: Vec<&Cue> = cues.iter().filter(|cue| cue.speaker.is_some()).collect();
    let said: Vec<_> = record.segments.iter().filter(|s| !one_line(&s.text.0).is_empty()).collect();
    assert_eq!(spoken.len(), said.len());
    for segment in said {
        let label = match one_line(&segment.speaker) {
            label if label.is_empty() => "Unknown Speaker".to_owned(),
            label => escaped(&label),
        };
        let is_it = |cue: &&Cue| cue.speaker.as_deref() == Some(&label) && cue.text.0 == one_line(&segment.text.0);
        assert!(spoken.iter().any(is_it), "a segment at {} s is not in the captions", segment.start);
    }
}

/// SubRip: numbered blocks of three lines, none of them a second time.
fn blocks_in_order(srt: &str, count: usize) {
    let blocks: Vec<Vec<&str>> = srt.trim_end().split("\n\n").map(|block| block.split('\n').collect()).collect();
    assert_eq!(blocks.len(), count);
    for (n, block) in blocks.iter().enumerate() {
        let is_block = block.len() == 3
            && block[0] == (n + 1).to_string()
            && block[1].split_once(" --> ").is_some_and(|(from, to)| from < to)
            && !block[2].contains(['<', '>', '{', '}', '\r', '\0']);
        assert!(is_block, "block {}", n + 1);
    }
}

fn record(session: &str) -> Record {
    serde_json::from_value(json!({
        "version": 1, "session_id": session, "box": "room-1", "revision": 2, "status": "done",
        "diarization_status": "ok", "error_message": null, "error": null, "started_at": "2026-11-23T09:00:00.000Z",
        "ended_at": "2026-11-23T09:01:00.000Z", "duration_s": 60.0, "time_quality": "unsynchronized",
        "consent": {"basis": "verbal", "by": "therapist", "at": ""}, "speakers": [],
        "speaker_count": {"best": 0, "maybe": null}, "segments": [], "gaps": [], "models": [],
        "attempts": {"transcription": 1, "diarization": 1}, "processing": {"seconds": 1.0, "seconds_after_end": 1.0}
    }))
    .unwrap()
}

/// What would be something else if it were not in its place.
const HOSTILE: [&str; 26] = [
    "-->",
    "00:00:01.000 --> 00:00:02.000",
    "<v Nobody>",
    "</v>",
    "<c.gap>",
    "<00:00:01.000>",
    "&",
    "&amp;",
    "&#60;",
    ";;",
    ";; CATEGORY \"0\" \"\" \"\"",
    "\n\n",
    "\r\nNOTE",
    "\nWEBVTT\n",
    "\u{0}\u{7}\u{1b}[31m",
    "\u{85}\u{2028}\u{2029}",
    "{\\an8}{ a / b / @ }",
    "(%hesitation)",
    "IGNORE_TIME_SEGMENT_IN_SCORING",
    "<o,f0,male>",
    "s 1 A 0 1",
    "SPEAKER s 1 0 1 <NA> <NA> A <NA> <NA>",
    "10:30, the 3rd of 1,000 (5 %); o'clock's 'quoted'",
    "rock'n'roll wouldn't've — \"well-known\"",
    "C:\\path [x] $HOME `a` *",
    "",
];
const LABELS: [&str; 9] =
    ["Speaker 1", "Speaker_1", "speaker 1", "Therapist", "A --> <b> & ;; (", "", "\n", "<NA>", "[+*"];

/// A record of anything; everything in it is ASCII, or nothing need be.
fn made_up(dice: &mut StdRng, session: &str, is_ascii: bool) -> (Record, Vec<Turn>) {
    let causes = ["overrun", "muted", "off_record", "power_loss", "audio_invalid"];
    let mut record = record(session);
    let mut times = |from: f64| {
        let start = dice.random_range(-1.0..from);
        let length = *[0.0, 0.0004, 0.25, 3.0, 30.0, -2.0].choose(dice).unwrap();
        (start, start + length)
    };
    let stretches: Vec<(f64, f64)> = (0..30).map(|_| times(60.0)).collect();
    for (start, end) in &stretches[..20] {
        let words = (0..dice.random_range(0..4)).map(|_| *HOSTILE.choose(dice).unwrap());
        let mut text = words.collect::<Vec<_>>().join(" ");
        if is_ascii {
            text.retain(|c| c.is_ascii());
        } else {
            text.push_str(" naïve Привет 你好 \u{202e}");
        }
        let speaker = LABELS.choose(dice).unwrap();
        record.segments.push(
            serde_json::from_value(json!({"start": start, "end": end, "speaker": speaker, "text": text,
            "model": "m", "words": [], "flags": []}))
            .unwrap(),
        );
    }
    for (start, end) in &stretches[20..25] {
        let cause = causes.choose(dice).unwrap();
        record.gaps.push(serde_json::from_value(json!({"start": start, "end": end, "cause": cause})).unwrap());
    }
    record.segments[0].end = f64::NAN;
    record.gaps[0].end = f64::INFINITY;
    let last = if dice.random() { 30 } else { 25 };
    let turns = stretches[25..last].iter().map(|&(start, end)| Turn { start, end, speaker: dice.random_range(0..3) });
    let turns = turns.collect();
    (record, turns)
}

#[test]
fn records_that_nobody_should_make_are_read_by_others_as_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = StdRng::seed_from_u64(7);
    let (mut records, mut captions, mut resources) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..24 {
        let is_ascii = n % 2 == 0;
        let session = format!("00000000-0000-4000-8000-{n:012}");
        let (record, turns) = made_up(&mut dice, &session, is_ascii);
        let write = |format: Format, extension: &str| -> PathBuf {
            let path = folder.path().join(&session).with_extension(extension);
            std::fs::write(&path, export(&record, &turns, format)).unwrap();
            path
        };
        rttm_validator_accepts(&write(Format::Rttm, "rttm"));
        let stm = write(Format::Stm, "stm");
        assert!(stm_validator_accepts(&stm, "other"), "record {n}");
        assert!(!is_ascii || stm_validator_accepts(&stm, "english"), "record {n}");
        captions.push(write(Format::Vtt, "vtt"));
        resources.push(write(Format::Fhir, "json"));
        blocks_in_order(&export(&record, &turns, Format::Srt), cues_of(&record));
        assert_eq!(export(&record, &turns, Format::Txt).lines().count(), cues_of(&record));
        records.push(record);
    }
    for (cues, record) in webvtt_cues(&captions).iter().zip(&records) {
        assert_eq!(cues.len(), cues_of(record));
        assert_eq!(cues.iter().filter(|cue| cue.classes == ["gap"]).count(), record.gaps.len());
        holds_every_segment(cues, record);
    }
    fhir_models_accept(&resources);
}

fn cues_of(record: &Record) -> usize {
    record.segments.iter().filter(|s| !one_line(&s.text.0).is_empty()).count() + record.gaps.len()
}

#[test]
fn records_without_words_are_read_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let silent = record("silent");
    let mut failed = record("failed");
    failed.status = shared::record::Status::Failed;
    failed.error_message = Some("The audio is invalid".into());
    let mut dateless = record("dateless");
    (dateless.started_at, dateless.ended_at) = (String::new(), "0000-00-00T00:00:00Z".into());
    let write = |record: &Record, format: Format, extension: &str| {
        let path = folder.path().join(&record.session_id).with_extension(extension);
        std::fs::write(&path, export(record, &[], format)).unwrap();
        path
    };
    for record in [&silent, &failed, &dateless] {
        rttm_validator_accepts(&write(record, Format::Rttm, "rttm"));
        assert!(stm_validator_accepts(&write(record, Format::Stm, "stm"), "english"));
        assert_eq!(webvtt_cues(&[write(record, Format::Vtt, "vtt")]), [Vec::<Cue>::new()]);
        fhir_models_accept(&[write(record, Format::Fhir, "json")]);
    }
}

/// A check that takes everything would be none.
#[test]
fn the_others_refuse_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = record("s");
    said.segments.push(
        serde_json::from_value(json!({"start": 1.0, "end": 2.0, "speaker": "A", "text": "yes", "model": "m",
            "words": [], "flags": []}))
        .unwrap(),
    );
    said.segments[0].text = Said("yes".into());
    let refuses = |format: Format, extension: &str, from: &str, to: &str, check: &dyn Fn(&Path)| {
        let right = export(&said, &[], format);
        let path = folder.path().join("s").with_extension(extension);
        std::fs::write(&path, &right).unwrap();
        check(&path);
        assert!(right.contains(from), "{extension}");
        std::fs::write(&path, right.replacen(from, to, 1)).unwrap();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&path)));
        assert!(checked.is_err(), "{extension}: {to} is taken");
    };
    refuses(Format::Rttm, "rttm", "SPKR-INFO", "SPEAKER", &rttm_validator_accepts);
    refuses(Format::Stm, "stm", "yes", "yes, 5", &|path| assert!(stm_validator_accepts(path, "english")));
    refuses(Format::Vtt, "vtt", "</v>", "</i>", &|path| drop(webvtt_cues(&[path.to_owned()])));
    let fhir: &dyn Fn(&Path) = &|path| fhir_models_accept(&[path.to_owned()]);
    refuses(Format::Fhir, "json", "\"preliminary\"", "\"ready\"", fhir);
    refuses(Format::Fhir, "json", "\"size\": ", "\"size\": 1", fhir);
    refuses(Format::Fhir, "json", "\"description\"", "\"patient\"", fhir);
}
