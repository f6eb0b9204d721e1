//! What diarization does with one window while the session runs, and what it leaves for the end.
//!
//! Without a segmentation network: where speech is, and the vectors of overlapping pieces of it. With one: who of three
//! speaks in each frame of every chunk of ten seconds that ends in the window, and a vector for each of them. Chunks lie
//! on one grid from the session's start, wherever it is cut into windows.

use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use shared::error::EngineFault;

use crate::audio::{SAMPLE_RATE_HZ, seconds};
use crate::diarize::activity::{Chunk, LOCAL};
use crate::diarize::global::Embeddings;
use crate::diarize::powerset::Set;
use crate::diarize::{Piece, Tuning, pieces};
use crate::engine::protocol::{CHUNK, float_bytes, floats};
use crate::engine::{VoiceModels, Voices};
use crate::speech;

/// Who is alone for fewer samples than this in a chunk, half a second, is also heard where others speak.
const ALONE: usize = SAMPLE_RATE_HZ as usize / 2;
/// Who speaks for fewer samples than this has no voice to speak of: two frames of a filter bank.
const SHORTEST: usize = 560;

/// A window's samples, and those before it that chunks reach back to.
#[derive(Debug, Clone, Copy)]
pub struct WindowAudio<'a> {
    /// All of them.
    pub pcm: &'a [i16],
    /// Where the window begins in `pcm`.
    pub lead: usize,
    /// Where the window begins in the session.
    pub start_sample: u64,
}

impl<'a> WindowAudio<'a> {
    /// The window's own.
    #[must_use]
    pub fn window(&self) -> &'a [i16] {
        &self.pcm[self.lead.min(self.pcm.len())..]
    }

    /// Where `pcm` begins in the session.
    fn first(&self) -> u64 {
        self.start_sample.saturating_sub(self.lead as u64)
    }
}

/// What diarization leaves of a window; seconds from the session's start.
#[derive(Clone, Serialize, Deserialize)]
pub struct Voiced {
    /// Id of the voice model.
    pub model: String,
    /// Where speech is.
    pub regions: Vec<(f64, f64)>,
    /// Stretches of it; regions counted within this window. None where there are chunks.
    pub pieces: Vec<Piece>,
    /// One after the other, 32-bit floats in base64.
    vectors: String,
    /// Where the window begins; seconds.
    #[serde(default)]
    pub start: f64,
    /// The probability of speech in each frame of the voice activity detector, in 255ths, in base64.
    #[serde(default)]
    probabilities: String,
    /// What the segmentation network says, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunked: Option<Chunked>,
}

/// What a segmentation network says of the chunks that end in a window.
#[derive(Clone, Serialize, Deserialize)]
pub struct Chunked {
    /// Id of the network.
    pub model: String,
    /// Samples from chunk to chunk.
    pub step: u64,
    /// Where the window begins and ends, in samples.
    pub window: Range<u64>,
    /// In order.
    pub chunks: Vec<HeardChunk>,
    /// The next one, filled up with silence: it counts where nothing follows the window.
    pub tail: Option<HeardChunk>,
}

/// One chunk and its voices.
#[derive(Clone, Serialize, Deserialize)]
pub struct HeardChunk {
    start_sample: u64,
    /// A [`Set`] a frame, in base64.
    frames: String,
    /// Which speakers have a vector.
    heard: Set,
    /// Theirs, one after the other, 32-bit floats in base64.
    vectors: String,
}

fn vectors(text: &str, count: usize) -> Vec<Vec<f32>> {
    let all = floats(&BASE64_STANDARD.decode(text).unwrap_or_default());
    match all.len() / count.max(1) {
        0 => Vec::new(),
        dimension => all.chunks_exact(dimension).map(<[f32]>::to_vec).collect(),
    }
}

fn as_text(vectors: &[Vec<f32>]) -> String {
    BASE64_STANDARD.encode(float_bytes(&vectors.concat()))
}

impl Voiced {
    /// The probability of speech in each frame of the voice activity detector, in 255ths.
    #[must_use]
    pub fn probabilities(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(&self.probabilities).unwrap_or_default()
    }

    /// The vector of each piece.
    #[must_use]
    pub fn vectors(&self) -> Vec<Vec<f32>> {
        vectors(&self.vectors, self.pieces.len())
    }
}

impl HeardChunk {
    /// The chunk and the vectors of its speakers.
    #[must_use]
    pub fn read(&self) -> (Chunk, Embeddings) {
        let frames = BASE64_STANDARD.decode(&self.frames).unwrap_or_default();
        let mut found = vectors(&self.vectors, self.heard.count_ones() as usize).into_iter();
        let mut embeddings: Embeddings = Default::default();
        for (speaker, embedding) in embeddings.iter_mut().enumerate() {
            if self.heard >> speaker & 1 == 1 {
                // What is no number is like nothing, and would be unlike everything.
                *embedding = found.next().filter(|vector: &Vec<f32>| vector.iter().all(|x| x.is_finite()));
            }
        }
        (Chunk { start: seconds(self.start_sample), frames }, embeddings)
    }
}

/// Hears one window.
///
/// # Errors
/// Those of the engine.
pub async fn hear(engine: &mut impl Voices, audio: WindowAudio<'_>, step: u64) -> Result<Voiced, EngineFault> {
    let offset = seconds(audio.start_sample);
    let window = audio.window();
    let VoiceModels { voice, segmentation } = engine.models().await?;
    let probabilities = engine.speech(window).await?;
    let mut regions = speech::regions(&probabilities, seconds(window.len() as u64));
    let bytes: Vec<u8> = probabilities.iter().map(|p| (p * 255.0).round() as u8).collect();
    let (mut pieces, vectors, chunked) = match segmentation {
        None => {
            let (pieces, vectors) = hear_pieces(engine, window, &regions, &Tuning::of(&voice)).await?;
            (pieces, as_text(&vectors), None)
        }
        Some(model) => (Vec::new(), String::new(), Some(hear_chunks(engine, audio, step, model).await?)),
    };
    regions.iter_mut().for_each(|r| *r = (r.0 + offset, r.1 + offset));
    for piece in &mut pieces {
        piece.start += offset;
        piece.end += offset;
    }
    let probabilities = BASE64_STANDARD.encode(bytes);
    Ok(Voiced { model: voice, regions, pieces, vectors, start: offset, probabilities, chunked })
}

/// The pieces of regions of speech in `pcm`, both in seconds from its start, and the vector of each.
///
/// # Errors
/// Those of the engine.
pub async fn hear_pieces(
    engine: &mut impl Voices,
    pcm: &[i16],
    regions: &[(f64, f64)],
    tuning: &Tuning,
) -> Result<(Vec<Piece>, Vec<Vec<f32>>), EngineFault> {
    let pieces = pieces(regions, tuning);
    let sample = |at: f64| ((at * f64::from(SAMPLE_RATE_HZ)).round() as usize).min(pcm.len());
    let stretches: Vec<Vec<_>> =
        pieces.iter().map(|p| std::iter::once(sample(p.start)..sample(p.end)).collect()).collect();
    let vectors = engine.embed(pcm, &stretches).await?;
    // What is no number is like nothing, and would be unlike everything.
    let heard = pieces.into_iter().zip(vectors).filter(|(_, vector)| vector.iter().all(|x| x.is_finite()));
    Ok(heard.unzip())
}

/// First samples of the chunks that end in a window, and of the one after them if the audio goes on behind their end.
fn grid(window: &Range<u64>, step: u64) -> (Vec<u64>, Option<u64>) {
    let length = CHUNK as u64;
    let first = (window.start + 1).saturating_sub(length).div_ceil(step);
    let starts: Vec<u64> = (first..).map(|n| n * step).take_while(|start| start + length <= window.end).collect();
    let next = starts.last().map_or(first * step, |last| last + step);
    let is_whole = next + length == window.end + step;
    (starts, (!is_whole || window.end < length).then_some(next))
}

async fn hear_chunks(
    engine: &mut impl Voices,
    audio: WindowAudio<'_>,
    step: u64,
    model: String,
) -> Result<Chunked, EngineFault> {
    let window = audio.start_sample..audio.start_sample + audio.window().len() as u64;
    let (mut starts, tail) = grid(&window, step.max(1));
    starts.extend(tail);
    let within = |start: &u64| usize::try_from(start.saturating_sub(audio.first())).unwrap_or(usize::MAX);
    let places: Vec<usize> = starts.iter().map(within).collect();
    let sets = engine.segment(audio.pcm, &places).await?;
    let mut pieces = Vec::new();
    let mut heard = Vec::new();
    for (place, frames) in places.iter().zip(&sets) {
        let mut speakers: Set = 0;
        for speaker in 0..LOCAL {
            let piece = voice_of(frames, speaker, *place, audio.pcm.len());
            if piece.iter().map(ExactSizeIterator::len).sum::<usize>() >= SHORTEST {
                speakers |= 1 << speaker;
                pieces.push(piece);
            }
        }
        heard.push(speakers);
    }
    let mut vectors = engine.embed(audio.pcm, &pieces).await?.into_iter();
    let mut chunks: Vec<HeardChunk> = starts
        .iter()
        .zip(sets.iter().zip(heard))
        .map(|(start, (frames, heard))| HeardChunk {
            start_sample: *start,
            frames: BASE64_STANDARD.encode(frames),
            heard,
            vectors: as_text(&vectors.by_ref().take(heard.count_ones() as usize).collect::<Vec<_>>()),
        })
        .collect();
    let tail = tail.and_then(|_| chunks.pop());
    Ok(Chunked { model, step, window, chunks, tail })
}

/// The samples in which a speaker of a chunk is heard: where alone, or wherever if that is not enough. `place` is the
/// chunk's first sample.
fn voice_of(frames: &[Set], speaker: usize, place: usize, end: usize) -> Vec<Range<usize>> {
    let alone = stretches(frames, place, end, |set| set == 1 << speaker);
    if alone.iter().map(ExactSizeIterator::len).sum::<usize>() >= ALONE {
        return alone;
    }
    stretches(frames, place, end, |set| set >> speaker & 1 == 1)
}

/// Runs of frames in samples, no farther than `end`.
fn stretches(frames: &[Set], place: usize, end: usize, is: impl Fn(Set) -> bool) -> Vec<Range<usize>> {
    let sample = |frame: usize| (place + frame * CHUNK / frames.len().max(1)).min(end);
    let mut found: Vec<Range<usize>> = Vec::new();
    for (n, _) in frames.iter().enumerate().filter(|(_, set)| is(**set)) {
        let (from, to) = (sample(n), sample(n + 1));
        match found.last_mut() {
            Some(last) if last.end == from => last.end = to,
            _ if to > from => found.push(from..to),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SAMPLE_RATE_HZ as u64;

    #[test]
    fn however_a_session_is_cut_its_chunks_are_the_same() {
        let whole = grid(&(0..65 * S), 2 * S);
        for cuts in [vec![0, 30, 60, 65], vec![0, 3, 4, 29, 31, 64, 65], (0..=65).collect()] {
            let mut all = Vec::new();
            let mut tail = None;
            for pair in cuts.windows(2) {
                let (starts, next) = grid(&(pair[0] * S..pair[1] * S), 2 * S);
                all.extend(starts);
                tail = next;
            }
            assert_eq!((all, tail), whole);
        }
        assert_eq!(whole, ((0..=27).map(|n| n * 2 * S).collect(), Some(56 * S)), "and one for the last second");
    }

    #[test]
    fn what_ends_with_a_chunk_needs_no_other_and_what_is_short_has_one() {
        assert_eq!(grid(&(0..10 * S), S), (vec![0], None));
        assert_eq!(grid(&(0..12 * S), 2 * S), (vec![0, 2 * S], None));
        assert_eq!(grid(&(0..4 * S), S), (vec![], Some(0)));
        assert_eq!(grid(&(20 * S..21 * S), 5 * S), (vec![], Some(15 * S)));
    }

    #[test]
    fn a_voice_is_heard_where_it_is_alone_if_that_is_enough() {
        let mut frames = vec![0; 100];
        frames[10..20].fill(1);
        frames[20..40].fill(3);
        let heard = |speaker, place, end| match voice_of(&frames, speaker, place, end).as_slice() {
            [one] => (one.start, one.end),
            other => panic!("{} stretches", other.len()),
        };
        assert_eq!(heard(0, 0, CHUNK), (16_000, 32_000));
        assert_eq!(heard(1, 0, CHUNK), (32_000, 64_000), "never alone");
        assert_eq!(heard(0, 5, 20_000), (16_005, 20_000), "where the audio ends");
        assert!(voice_of(&frames, 2, 0, CHUNK).is_empty());
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written() {
        let chunk = HeardChunk {
            start_sample: 3 * S,
            frames: BASE64_STANDARD.encode([0u8, 5, 4]),
            heard: 0b101,
            vectors: as_text(&[vec![1.0, 2.0], vec![3.0, 4.0]]),
        };
        let (read, embeddings) = chunk.read();
        assert_eq!(read, Chunk { start: 3.0, frames: vec![0, 5, 4] });
        assert_eq!(embeddings, [Some(vec![1.0, 2.0]), None, Some(vec![3.0, 4.0])]);
    }

    /// Hears of every chunk what its samples are.
    struct Literal;

    impl Voices for Literal {
        async fn models(&mut self) -> Result<VoiceModels, EngineFault> {
            Ok(VoiceModels { voice: "v".into(), segmentation: Some("s".into()) })
        }

        async fn speech(&mut self, _: &[i16]) -> Result<Vec<f32>, EngineFault> {
            Ok(Vec::new())
        }

        async fn segment(&mut self, pcm: &[i16], starts: &[usize]) -> Result<Vec<Vec<Set>>, EngineFault> {
            let set = |sample: Option<&i16>| sample.map_or(0, |s| (*s % 4) as Set);
            let frames = |start: &usize| (0..100).map(|n| set(pcm.get(start + n * CHUNK / 100))).collect();
            Ok(starts.iter().map(frames).collect())
        }

        async fn embed(&mut self, pcm: &[i16], pieces: &[Vec<Range<usize>>]) -> Result<Vec<Vec<f32>>, EngineFault> {
            let sum =
                |piece: &Vec<Range<usize>>| piece.iter().flat_map(|r| &pcm[r.clone()]).map(|s| f32::from(*s)).sum();
            Ok(pieces.iter().map(|piece| vec![sum(piece), 1.0]).collect())
        }
    }

    #[tokio::test]
    async fn windows_leave_what_the_whole_session_would() {
        let pcm: Vec<i16> = (0..47 * S).map(|n| (n / 3_000 % 11) as i16).collect();
        let heard = async |from: u64, to: u64| {
            let lead = (CHUNK as u64).min(from);
            let part = &pcm[(from - lead) as usize..to as usize];
            let audio = WindowAudio { pcm: part, lead: lead as usize, start_sample: from };
            hear(&mut Literal, audio, S).await.unwrap().chunked.unwrap()
        };
        let read = |chunked: &Chunked| chunked.chunks.iter().map(HeardChunk::read).collect::<Vec<_>>();
        let whole = heard(0, 47 * S).await;
        let (first, second) = (heard(0, 29 * S + 77).await, heard(29 * S + 77, 47 * S).await);
        assert_eq!([read(&first), read(&second)].concat(), read(&whole));
        let tail = |chunked: &Chunked| chunked.tail.as_ref().map(HeardChunk::read);
        assert_eq!(tail(&second), tail(&whole));
        assert!(read(&whole).iter().flat_map(|(_, voices)| voices).filter(|voice| voice.is_some()).count() > 50);
    }
}
