//! Which words are whose: each word goes to the turn it lies in, then segments are built and split where the speaker
//! changes, never within a word. No I/O.

use std::io::Read as _;

use flate2::Compression;
use flate2::bufread::ZlibEncoder;
use shared::record::{Evidence, Flag, Segment, UNKNOWN_SPEAKER, Word, seconds};

use crate::diarize::Turn;
use crate::engine::{HeardWord, Phrase};
use crate::prints::Name;
use crate::track::Track;
use crate::who::Who;

/// A word farther than this from every turn, in seconds, is nobody's.
const REACH: f64 = 1.5;
/// A run of words this short within a phrase, in seconds, is the doing of inexact word times and not a turn …
const FLICKER: f64 = 0.7;
/// … if it has no more words than this.
const FLICKER_WORDS: usize = 2;
/// A phrase with less than this share of speech was said by nobody.
const SPEECH_SHARE: f64 = 0.2;
/// What is nowhere louder than this, dB relative to full scale, was said by nobody: it is what a muted microphone gives, or
/// a file's silence; speech that a person could follow is 20 dB louder.
const QUIET_DBFS: i8 = -70;
/// Text that compresses better than this is a loop: the limit of OpenAI's Whisper.
const COMPRESSION: f64 = 2.4;
/// A segment in more than this share of which somebody else speaks too is marked.
const OVERLAP_SHARE: f64 = 0.2;
/// How often the same comes in a row before it is a loop …
const LOOP: usize = 4;
/// … and how many words that is at least: "no, no, no, no" is none.
const LOOP_WORDS: usize = 8;
/// Mean word probability below which a segment is marked.
const LOW_CONFIDENCE: f64 = 0.4;

/// A phrase with what is known of its window; seconds from the session's start.
#[derive(Debug, Clone)]
pub struct Spoken {
    /// The phrase.
    pub phrase: Phrase,
    /// Whether its window was cut without a pause.
    pub blind_cut: bool,
    /// Id of the model that heard it.
    pub model: String,
}

/// The label of a speaker, as records have it.
#[must_use]
pub fn speaker_label(speaker: usize) -> String {
    format!("Speaker {}", speaker + 1)
}

fn overlap(a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.1.min(b.1) - a.0.max(b.0)).max(0.0)
}

/// What is known of the sound, whatever was understood of it.
#[derive(Debug, Clone, Copy)]
pub struct Sound<'a> {
    /// Who spoke when; `None` where speakers could not be told apart.
    pub who: Option<&'a Who>,
    /// How loud it was, dB relative to full scale.
    pub levels: &'a Track<i8>,
    /// What each speaker is called; a number where nothing is given.
    pub names: &'a [Name],
}

impl Sound<'_> {
    fn name(&self, speaker: usize) -> String {
        self.names.get(speaker).map_or_else(|| speaker_label(speaker), |name| name.label.clone())
    }
}

/// Segments of one speaker each.
#[must_use]
pub fn label(spoken: &[Spoken], sound: Sound<'_>) -> Vec<Segment> {
    let mut segments = Vec::new();
    for said in spoken {
        let words = &said.phrase.words;
        let whose: Vec<Option<usize>> = match sound.who {
            Some(who) => steady(words, words.iter().map(|w| speaker_of(w, &who.exclusive)).collect()),
            None => vec![None; words.len()],
        };
        let mut from = 0;
        for to in 1..=words.len() {
            if to == words.len() || whose[to] != whose[from] {
                segments.push(segment(&words[from..to], whose[from], said, sound));
                from = to;
            }
        }
    }
    segments.sort_by(|a, b| a.start.total_cmp(&b.start));
    mark_loops(&mut segments);
    for segment in &mut segments {
        let is_doubted = segment.flags.iter().any(|flag| matches!(flag, Flag::NonSpeech | Flag::Repetition));
        segment.evidence = is_doubted.then(|| evidence(segment, sound));
    }
    segments
}

fn evidence(segment: &Segment, sound: Sound<'_>) -> Evidence {
    let stretch = (segment.start, segment.end);
    let speech = sound.who.and_then(|who| {
        let (sum, count) = who.speech.within(stretch).fold((0.0, 0u32), |(sum, n), p| (sum + f64::from(*p), n + 1));
        (count > 0).then(|| seconds(sum / 255.0 / f64::from(count)))
    });
    Evidence {
        speech,
        level_dbfs: sound.levels.within(stretch).max().map(|level| f64::from(*level)),
        compression_ratio: seconds(compression_ratio(&segment.text.0)),
    }
}

/// How many times smaller zlib makes a text, as OpenAI's Whisper measures it; 0 for none.
fn compression_ratio(text: &str) -> f64 {
    let mut packed = Vec::new();
    // Reading from memory does not fail.
    let read = ZlibEncoder::new(text.as_bytes(), Compression::default()).read_to_end(&mut packed);
    read.map_or(0.0, |length| text.len() as f64 / length.max(1) as f64)
}

/// Marks what a transcriber says again and again when it hears nothing new: a few words within a segment, or the same
/// segment. People do so, too; so nothing is taken away.
fn mark_loops(segments: &mut [Segment]) {
    let plain =
        |text: &str| text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let texts: Vec<String> = segments.iter().map(|s| plain(&s.text.0)).collect();
    let mut from = 0;
    for to in 1..=segments.len() {
        if to == segments.len() || texts[to] != texts[from] {
            let is_again = to - from >= LOOP;
            for segment in &mut segments[from..to] {
                let words: Vec<String> = segment.words.iter().map(|w| plain(&w.text.0)).collect();
                if is_again || is_loop(&words) || compression_ratio(&segment.text.0) > COMPRESSION {
                    segment.flags.push(Flag::Repetition);
                    segment.flags.sort_unstable();
                }
            }
            from = to;
        }
    }
}

/// Whether a phrase of a few words comes [`LOOP`] times in a row, and fills [`LOOP_WORDS`].
fn is_loop(words: &[String]) -> bool {
    (1..=words.len() / LOOP).any(|length| {
        let needed = LOOP_WORDS.max(LOOP * length);
        // As many words in a row that are those `length` before them.
        let mut run = length;
        (length..words.len()).any(|n| {
            run = if words[n] == words[n - length] { run + 1 } else { length };
            run >= needed
        })
    })
}

/// The turn that a word shares most time with, else the nearest within reach.
fn speaker_of(word: &HeardWord, turns: &[Turn]) -> Option<usize> {
    let shared = |turn: &Turn| overlap((word.start, word.end), (turn.start, turn.end));
    let distance = |turn: &Turn| (turn.start - word.end).max(word.start - turn.end).max(0.0);
    let first = turns.partition_point(|t| t.end < word.start - REACH);
    let near = turns[first..].iter().take_while(|t| t.start <= word.end + REACH);
    near.min_by(|a, b| shared(b).total_cmp(&shared(a)).then(distance(a).total_cmp(&distance(b)))).map(|t| t.speaker)
}

/// Gives runs too short to be a turn to the longer of their neighbours.
fn steady(words: &[HeardWord], mut whose: Vec<Option<usize>>) -> Vec<Option<usize>> {
    let runs = |whose: &[Option<usize>]| {
        let mut runs = Vec::new();
        let mut from = 0;
        for to in 1..=whose.len() {
            if to == whose.len() || whose[to] != whose[from] {
                runs.push(from..to);
                from = to;
            }
        }
        runs
    };
    let lasting = |run: &std::ops::Range<usize>| words[run.end - 1].end - words[run.start].start;
    // Each round removes a run, so it ends.
    loop {
        let all = runs(&whose);
        let flicker = (all.len() > 1)
            .then(|| all.iter().position(|r| r.len() <= FLICKER_WORDS && lasting(r) < FLICKER))
            .flatten();
        let Some(at) = flicker else { return whose };
        let neighbours = [at.checked_sub(1), (at + 1 < all.len()).then_some(at + 1)];
        let longest = neighbours.into_iter().flatten().max_by(|a, b| lasting(&all[*a]).total_cmp(&lasting(&all[*b])));
        let Some(longest) = longest else { return whose };
        let heir = whose[all[longest].start];
        whose[all[at].clone()].fill(heir);
    }
}

/// Seconds of a stretch in which at least two speak.
fn overlapped(turns: &[Turn], stretch: (f64, f64)) -> f64 {
    let within = |turn: &&Turn| turn.start < stretch.1 && turn.end > stretch.0;
    let near: Vec<&Turn> = turns.iter().take_while(|turn| turn.start < stretch.1).filter(within).collect();
    let mut edges: Vec<(f64, i32)> =
        near.iter().flat_map(|turn| [(turn.start.max(stretch.0), 1), (turn.end.min(stretch.1), -1)]).collect();
    edges.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut speaking, mut since, mut total) = (0, stretch.0, 0.0);
    for (at, change) in edges {
        if speaking >= 2 {
            total += at - since;
        }
        (speaking, since) = (speaking + change, at);
    }
    total
}

fn segment(words: &[HeardWord], speaker: Option<usize>, said: &Spoken, sound: Sound<'_>) -> Segment {
    let who = sound.who;
    let (start, end) = (words[0].start, words[words.len() - 1].end);
    let mut flags = Vec::new();
    let heard = who.map(|who| who.regions.iter().map(|r| overlap((start, end), *r)).sum::<f64>());
    let is_quiet = sound.levels.within((start, end)).max().is_some_and(|loudest| *loudest < QUIET_DBFS);
    if is_quiet || heard.is_some_and(|heard| heard < SPEECH_SHARE * (end - start).max(0.01)) {
        flags.push(Flag::NonSpeech);
    }
    if words.iter().map(|w| w.probability).sum::<f64>() / (words.len() as f64) < LOW_CONFIDENCE {
        flags.push(Flag::LowConfidence);
    }
    if who.is_some_and(|who| overlapped(&who.turns, (start, end)) > OVERLAP_SHARE * (end - start)) {
        flags.push(Flag::Overlap);
    }
    if said.blind_cut {
        flags.push(Flag::BlindCut);
    }
    let text: Vec<&str> = words.iter().map(|w| w.text.0.as_str()).collect();
    Segment {
        start: seconds(start),
        end: seconds(end),
        speaker: speaker.map_or_else(|| UNKNOWN_SPEAKER.to_owned(), |speaker| sound.name(speaker)),
        text: shared::record::Said(text.join(" ")),
        model: said.model.clone(),
        words: words
            .iter()
            .map(|w| Word {
                start: seconds(w.start),
                end: seconds(w.end),
                text: w.text.clone(),
                probability: seconds(w.probability),
            })
            .collect(),
        flags,
        evidence: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::record::Said;

    fn spoken(words: &[(f64, f64)]) -> Spoken {
        let words: Vec<HeardWord> = words
            .iter()
            .map(|&(start, end)| HeardWord { start, end, text: Said("word".into()), probability: 0.9 })
            .collect();
        let (start, end) = (words[0].start, words[words.len() - 1].end);
        Spoken { phrase: Phrase { start, end, words }, blind_cut: false, model: "m".into() }
    }

    fn who(turns: &[Turn], regions: &[(f64, f64)]) -> Who {
        let (regions, turns, exclusive) = (regions.to_vec(), turns.to_vec(), turns.to_vec());
        Who { models: vec![], regions, speech: Track::new(0.032), turns, exclusive, voices: vec![], maybe: None }
    }

    fn label(spoken: &[Spoken], who: Option<&Who>) -> Vec<Segment> {
        super::label(spoken, Sound { who, levels: &Track::new(0.1), names: &[] })
    }

    const ALWAYS: &[(f64, f64)] = &[(0.0, 1e9)];

    fn turn(start: f64, end: f64, speaker: usize) -> Turn {
        Turn { start, end, speaker }
    }

    fn whose(segments: &[Segment]) -> Vec<(&str, usize)> {
        segments.iter().map(|s| (s.speaker.as_str(), s.words.len())).collect()
    }

    #[test]
    fn a_phrase_is_split_where_the_speaker_changes_and_never_within_a_word() {
        let said = spoken(&[(0.0, 0.5), (0.5, 1.0), (1.0, 1.6), (1.6, 2.2), (2.2, 3.0)]);
        let segments = label(&[said], Some(&who(&[turn(0.0, 1.2, 0), turn(1.2, 3.0, 1)], ALWAYS)));
        assert_eq!(whose(&segments), [("Speaker 1", 2), ("Speaker 2", 3)]);
    }

    #[test]
    fn a_word_that_leans_over_a_turn_by_inexact_times_stays_with_its_phrase() {
        let said = spoken(&[(0.0, 0.5), (0.5, 1.0), (1.0, 1.4), (1.4, 1.7)]);
        let segments = label(&[said], Some(&who(&[turn(0.0, 1.45, 0), turn(1.45, 9.0, 1)], ALWAYS)));
        assert_eq!(whose(&segments), [("Speaker 1", 4)]);
    }

    #[test]
    fn without_turns_everybody_is_the_unknown_speaker() {
        let segments = label(&[spoken(&[(0.0, 1.0), (1.0, 2.0)])], None);
        assert_eq!(whose(&segments), [("Unknown Speaker", 2)]);
    }

    #[test]
    fn each_segment_says_which_model_wrote_it() {
        let smaller = Spoken { model: "smaller".into(), ..spoken(&[(5.0, 6.0)]) };
        let segments = label(&[spoken(&[(0.0, 1.0)]), smaller], None);
        assert_eq!(segments.iter().map(|s| s.model.as_str()).collect::<Vec<_>>(), ["m", "smaller"]);
    }

    #[test]
    fn text_where_nobody_spoke_is_kept_and_marked() {
        let segments = label(&[spoken(&[(10.0, 11.0)])], Some(&who(&[turn(0.0, 2.0, 0)], &[(0.0, 2.0)])));
        assert_eq!(whose(&segments), [("Unknown Speaker", 1)]);
        assert_eq!(segments[0].flags, [Flag::NonSpeech]);
    }

    #[test]
    fn words_over_which_somebody_else_speaks_are_marked() {
        let turns = [turn(0.0, 4.0, 0), turn(2.0, 3.0, 1)];
        let who = Who { exclusive: vec![turn(0.0, 4.0, 0)], ..who(&turns, ALWAYS) };
        let flags = |from, to| label(&[spoken(&[(from, to)])], Some(&who))[0].flags.clone();
        assert_eq!((flags(0.0, 2.0), flags(1.0, 4.0)), (vec![], vec![Flag::Overlap]));
    }

    #[test]
    fn loops_are_marked_and_emphasis_is_not() {
        let said = |text: &str| {
            let words: Vec<(f64, f64)> = (0..text.split(' ').count()).map(|n| (n as f64, n as f64 + 0.9)).collect();
            let mut spoken = spoken(&words);
            let texts = text.split(' ').map(|word| Said(word.into()));
            spoken.phrase.words.iter_mut().zip(texts).for_each(|(word, text)| word.text = text);
            spoken
        };
        let is_marked = |all: &[&str]| -> Vec<bool> {
            let all: Vec<Spoken> = all.iter().map(|text| said(text)).collect();
            label(&all, None).iter().map(|segment| segment.flags.contains(&Flag::Repetition)).collect()
        };
        assert_eq!(is_marked(&["no no no no"]), [false]);
        assert_eq!(is_marked(&["and then I went and then I went and then I left"]), [false]);
        assert_eq!(is_marked(&["well thank you thank you thank you thank you"]), [true]);
        assert_eq!(is_marked(&["no no no no no no no no"]), [true]);
        assert_eq!(is_marked(&["Thank you.", "thank you", "Thank you!", "Thank you."]), [true; 4]);
        assert_eq!(is_marked(&["yes", "yes", "yes"]), [false; 3]);
    }

    #[test]
    fn what_is_as_quiet_as_a_room_at_rest_is_marked_whoever_spoke_with_its_evidence() {
        let mut levels = Track::new(0.1);
        levels.push(0.0, [vec![-80; 10], vec![-30; 10]].concat());
        let both = [spoken(&[(0.0, 0.9)]), spoken(&[(1.1, 1.9)])];
        let segments = super::label(&both, Sound { who: None, levels: &levels, names: &[] });
        assert_eq!(segments[0].flags, [Flag::NonSpeech]);
        let evidence = segments[0].evidence.unwrap();
        assert_eq!((evidence.speech, evidence.level_dbfs), (None, Some(-80.0)));
        assert!(segments[1].flags.is_empty() && segments[1].evidence.is_none());
    }

    #[test]
    fn the_evidence_against_words_is_how_probable_speech_was_there() {
        let mut who = who(&[turn(0.0, 2.0, 0)], &[(5.0, 6.0)]);
        who.speech.push(0.0, [vec![51; 40], vec![255; 40]].concat());
        let segments =
            super::label(&[spoken(&[(0.0, 1.2)])], Sound { who: Some(&who), levels: &Track::new(0.1), names: &[] });
        assert_eq!(segments[0].evidence.unwrap().speech, Some(0.2));
    }

    /// Python's `len(text) / len(zlib.compress(text))`, which Whisper goes by.
    #[test]
    fn text_compresses_as_it_does_for_whisper() {
        let of = |text: &str| compression_ratio(text);
        let again = of(&"so I went home, ".repeat(12));
        assert!((again - 7.111).abs() < 0.6, "{again}");
        assert!((of("Peter and my sister cried four weeks ago.") - 0.891).abs() < 0.05);
        assert!(of("").abs() < 1e-9);
    }
}
