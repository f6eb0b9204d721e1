//! Who spoke when in a whole session, from what every window left.

use crate::audio::{SAMPLE_RATE_HZ, seconds};
use crate::diarize::activity::{Activity, Chunk, Frames};
use crate::diarize::global::{self, Bounds, Diarization, Embeddings, Threshold};
use crate::diarize::{self, Piece, Tuning, Turn};
use crate::engine::protocol::{CHUNK, VAD_FRAME};
use crate::track::Track;
use crate::voicing::{HeardChunk, Voiced};

/// How far off the threshold of centroids may be, as a share of it.
const DOUBT: f64 = 0.1;

/// See the top of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Who {
    /// Ids of the models that told speakers apart: the encoder, and the segmentation network where one was used.
    pub models: Vec<String>,
    /// Where speech is.
    pub regions: Vec<(f64, f64)>,
    /// How probable speech is, in 255ths.
    pub speech: Track<u8>,
    /// Turns; they overlap where several spoke at once and a segmentation network heard it.
    pub turns: Vec<Turn>,
    /// Turns of one speaker at an instant, which words go to.
    pub exclusive: Vec<Turn>,
    /// Another number of speakers, if a little more or less likeness would have given it.
    pub maybe: Option<usize>,
}

/// What the windows of a session have left, one after the other: of everything that grows with a session, only what
/// clustering needs is held, and once.
#[derive(Default)]
pub struct Heard {
    way: Option<Way>,
    regions: Vec<(f64, f64)>,
    speech: Vec<(f64, Vec<u8>)>,
    pieces: Vec<Piece>,
    vectors: Vec<Vec<f32>>,
    chunks: Vec<Chunk>,
    embeddings: Vec<Embeddings>,
    /// Where the last window ends, in samples, and the chunk that counts only if nothing follows it.
    last: Option<(u64, Option<HeardChunk>)>,
}

/// How a window was heard. Vectors of two models cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    voice: String,
    /// The segmentation network, and samples from chunk to chunk.
    chunked: Option<(String, u64)>,
}

impl Heard {
    /// Takes the next window. One that was heard another way than the first keeps no speaker.
    pub fn add(&mut self, window: &Voiced) {
        let chunked = window.chunked.as_ref().map(|c| (c.model.clone(), c.step));
        let way = Way { voice: window.model.clone(), chunked };
        if *self.way.get_or_insert_with(|| way.clone()) != way {
            return;
        }
        let first = self.regions.len();
        self.regions.extend_from_slice(&window.regions);
        self.speech.push((window.start, window.probabilities()));
        self.pieces.extend(window.pieces.iter().map(|p| Piece { region: p.region + first, ..*p }));
        self.vectors.extend(window.vectors());
        if let Some(chunked) = &window.chunked {
            self.take_tail(|end| end != chunked.window.start);
            chunked.chunks.iter().for_each(|chunk| self.take(chunk));
            self.last = Some((chunked.window.end, chunked.tail.clone()));
        }
    }

    fn take(&mut self, chunk: &HeardChunk) {
        let (chunk, voices) = chunk.read();
        self.chunks.push(chunk);
        self.embeddings.push(voices);
    }

    /// Takes the chunk behind the last window if that, which ends at the sample given to `counts`, is the last of its run.
    fn take_tail(&mut self, counts: impl Fn(u64) -> bool) {
        if let Some((end, Some(tail))) = self.last.take() {
            if counts(end) {
                self.take(&tail);
            }
            self.last = Some((end, None));
        }
    }

    /// Clusters every voice of the session at once. `None` if there are no diarized windows.
    #[must_use]
    pub fn who(mut self, bounds: Bounds) -> Option<Who> {
        let way = self.way.clone()?;
        let mut models = vec![way.voice.clone()];
        let (diarized, maybe) = match way.chunked {
            None => self.by_pieces(&way.voice, bounds),
            Some((model, step)) => {
                models.push(model);
                self.take_tail(|_| true);
                self.by_chunks(Threshold::of(&way.voice, seconds(step)), bounds)
            }
        };
        let Diarization { turns, exclusive } = diarized;
        let mut speech = Track::new(VAD_FRAME as f64 / f64::from(SAMPLE_RATE_HZ));
        self.speech.into_iter().for_each(|(start, probabilities)| speech.push(start, probabilities));
        Some(Who { models, regions: self.regions, speech, turns, exclusive, maybe })
    }

    fn by_pieces(&self, model: &str, bounds: Bounds) -> (Diarization, Option<usize>) {
        let Self { regions, pieces, vectors, .. } = self;
        let tuning = Tuning::of(model);
        let turns = diarize::diarize_within(regions, pieces, vectors, &tuning, bounds);
        let nearby = [tuning.split - tuning.doubt, tuning.split + tuning.doubt];
        let counts = nearby
            .map(|split| diarize::speakers(&diarize::diarize(regions, pieces, vectors, &Tuning { split, ..tuning })));
        let maybe = other(diarize::speakers(&turns), counts, bounds);
        (Diarization { exclusive: turns.clone(), turns }, maybe)
    }

    fn by_chunks(&self, threshold: Threshold, bounds: Bounds) -> (Diarization, Option<usize>) {
        let (chunks, embeddings) = (&self.chunks, &self.embeddings);
        let activity = Activity { chunks, duration: seconds(CHUNK as u64), grid: Frames::SEGMENTATION };
        let speakers = |distance| global::speakers(&activity, embeddings, Threshold { distance, ..threshold }, bounds);
        let known = speakers(threshold.distance);
        let nearby = [threshold.distance * (1.0 - DOUBT), threshold.distance * (1.0 + DOUBT)];
        let maybe = other(known.centroids.len(), nearby.map(|distance| speakers(distance).centroids.len()), bounds);
        let mut found = global::diarize(&activity, embeddings, &known);
        // The last chunk is filled up with silence, in which nobody may be heard.
        let end = self.last.as_ref().map_or(0.0, |(end, _)| seconds(*end));
        for turns in [&mut found.turns, &mut found.exclusive] {
            turns.retain(|turn| turn.start < end);
            turns.iter_mut().for_each(|turn| turn.end = turn.end.min(end));
        }
        (found, maybe)
    }
}

/// The first number of speakers that is another than `found` and may be.
fn other(found: usize, counts: [usize; 2], bounds: Bounds) -> Option<usize> {
    counts.into_iter().find(|count| *count != found && bounds.allow(*count))
}
