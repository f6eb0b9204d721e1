//! Who spoke when in a whole session, from what every window left.

use crate::audio::{SAMPLE_RATE_HZ, seconds};
use crate::diarize::activity::{Activity, Chunk, Frames};
use crate::diarize::global::{self, Bounds, Diarization, Embeddings, Threshold};
use crate::diarize::plda::Plda;
use crate::diarize::{self, Piece, Tuning, Turn};
use crate::engine::protocol::{CHUNK, VAD_FRAME};
use crate::models::InstalledPlda;
use crate::track::Track;
use crate::voicing::{HeardChunk, Voiced};

/// How far off the threshold of centroids may be, as a share of it.
const DOUBT: f64 = 0.1;

/// See the top of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Who {
    /// Ids of the models that told speakers apart: the encoder, and the segmentation network and PLDA where they were used.
    pub models: Vec<String>,
    /// Where speech is.
    pub regions: Vec<(f64, f64)>,
    /// How probable speech is, in 255ths.
    pub speech: Track<u8>,
    /// Turns; they overlap where several spoke at once and a segmentation network heard it.
    pub turns: Vec<Turn>,
    /// Turns of one speaker at an instant, which words go to.
    pub exclusive: Vec<Turn>,
    /// How each speaker of the turns sounds to the first of `models`: of unit length, or empty where it never heard one.
    pub voices: Vec<Vec<f32>>,
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
        let Some((end, tail)) = &mut self.last else { return };
        let (end, tail) = (*end, tail.take());
        if let Some(tail) = tail.filter(|_| counts(end)) {
            self.take(&tail);
        }
    }

    /// The voice model, where a segmentation network was used beside it: what a PLDA has to fit.
    #[must_use]
    pub fn clustered_voice(&self) -> Option<&str> {
        self.way.as_ref().filter(|way| way.chunked.is_some()).map(|way| way.voice.as_str())
    }

    /// Clusters every voice of the session at once; `plda` is that of [`Heard::clustered_voice`], if it has one. `None` if
    /// there are no diarized windows.
    #[must_use]
    pub fn who(mut self, bounds: Bounds, plda: Option<&InstalledPlda>) -> Option<Who> {
        let way = self.way.clone()?;
        let mut models = vec![way.voice.clone()];
        let Found { diarized, voices, maybe } = match way.chunked {
            None => self.by_pieces(&way.voice, bounds),
            Some((model, step)) => {
                models.push(model);
                self.take_tail(|_| true);
                let threshold = Threshold::of(&way.voice, seconds(step));
                let (found, is_refined) = self.by_chunks(threshold, bounds, plda.map(|installed| &installed.plda));
                models.extend(plda.filter(|_| is_refined).iter().flat_map(|plda| plda.ids.iter().cloned()));
                found
            }
        };
        let Diarization { turns, exclusive, .. } = diarized;
        let mut speech = Track::new(VAD_FRAME as f64 / f64::from(SAMPLE_RATE_HZ));
        self.speech.into_iter().for_each(|(start, probabilities)| speech.push(start, probabilities));
        Some(Who { models, regions: self.regions, speech, turns, exclusive, voices, maybe })
    }

    fn by_pieces(&self, model: &str, bounds: Bounds) -> Found {
        let Self { regions, pieces, vectors, .. } = self;
        let tuning = Tuning::of(model);
        let turns = diarize::diarize_within(regions, pieces, vectors, &tuning, bounds);
        let nearby = [tuning.split - tuning.doubt, tuning.split + tuning.doubt];
        let counts = nearby
            .map(|split| diarize::speakers(&diarize::diarize(regions, pieces, vectors, &Tuning { split, ..tuning })));
        let maybe = other(diarize::speakers(&turns), counts, bounds);
        let voices = self.voices_of(&turns);
        Found { diarized: Diarization { exclusive: turns.clone(), turns, names: Vec::new() }, voices, maybe }
    }

    /// The mean of the pieces whose middles lie in each speaker's turns.
    fn voices_of(&self, turns: &[Turn]) -> Vec<Vec<f32>> {
        let whose = |piece: &Piece| {
            let middle = f64::midpoint(piece.start, piece.end);
            turns.get(turns.partition_point(|turn| turn.end <= middle)).filter(|turn| turn.start <= middle)
        };
        let mut heard: Vec<Vec<&[f32]>> = vec![Vec::new(); diarize::speakers(turns)];
        for (piece, vector) in self.pieces.iter().zip(&self.vectors) {
            if let Some(turn) = whose(piece) {
                heard[turn.speaker].push(vector);
            }
        }
        heard.iter().map(|vectors| diarize::mean(vectors)).collect()
    }

    /// And whether VBx had a part in it.
    fn by_chunks(&self, threshold: Threshold, bounds: Bounds, plda: Option<&Plda>) -> (Found, bool) {
        let (chunks, embeddings) = (&self.chunks, &self.embeddings);
        let activity = Activity { chunks, duration: seconds(CHUNK as u64), grid: Frames::SEGMENTATION };
        let speakers = |scale| global::speakers(plda, &activity, embeddings, (threshold, scale), bounds);
        let known = speakers(1.0);
        let nearby = [1.0 - DOUBT, 1.0 + DOUBT].map(|scale| speakers(scale).centroids.len());
        let maybe = other(known.centroids.len(), nearby, bounds);
        let mut found = global::diarize(&activity, embeddings, &known);
        // The last chunk is filled up with silence, in which nobody may be heard.
        let end = self.last.as_ref().map_or(0.0, |(end, _)| seconds(*end));
        for turns in [&mut found.turns, &mut found.exclusive] {
            turns.retain(|turn| turn.start < end);
            turns.iter_mut().for_each(|turn| turn.end = turn.end.min(end));
        }
        let mut voices = vec![Vec::new(); diarize::speakers(&found.turns)];
        for (centroid, name) in known.centroids.iter().zip(&found.names) {
            if let Some(voice) = name.and_then(|speaker| voices.get_mut(speaker)) {
                voice.clone_from(centroid);
            }
        }
        (Found { diarized: found, voices, maybe }, known.distinct)
    }
}

/// What clustering found.
struct Found {
    diarized: Diarization,
    voices: Vec<Vec<f32>>,
    maybe: Option<usize>,
}

/// The first number of speakers that is another than `found` and may be.
fn other(found: usize, counts: [usize; 2], bounds: Bounds) -> Option<usize> {
    counts.into_iter().find(|count| *count != found && bounds.allow(*count))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use shared::error::EngineFault;

    use super::*;
    use crate::diarize::powerset::Set;
    use crate::engine::{VoiceModels, Voices};
    use crate::voicing::{WindowAudio, hear};

    /// One speaker in every chunk, whose voice is the next of these.
    struct InTurn {
        voices: Vec<Vec<f32>>,
        segmentation: Option<String>,
        next: usize,
    }

    impl Voices for InTurn {
        async fn models(&mut self) -> Result<VoiceModels, EngineFault> {
            Ok(VoiceModels { voice: "v".into(), segmentation: self.segmentation.clone() })
        }

        async fn speech(&mut self, pcm: &[i16]) -> Result<Vec<f32>, EngineFault> {
            Ok(vec![1.0; pcm.len() / VAD_FRAME])
        }

        async fn segment(&mut self, _: &[i16], starts: &[usize]) -> Result<Vec<Vec<Set>>, EngineFault> {
            Ok(vec![vec![1; 589]; starts.len()])
        }

        async fn embed(&mut self, _: &[i16], pieces: &[Vec<Range<usize>>]) -> Result<Vec<Vec<f32>>, EngineFault> {
            let from = self.next;
            self.next += pieces.len();
            Ok((from..self.next).map(|n| self.voices[n % self.voices.len()].clone()).collect())
        }
    }

    async fn heard(voices: &[Vec<f32>], segmentation: Option<&str>) -> Heard {
        let mut engine = InTurn { voices: voices.to_vec(), segmentation: segmentation.map(str::to_owned), next: 0 };
        let pcm = vec![0; 60 * SAMPLE_RATE_HZ as usize];
        let mut heard = Heard::default();
        let audio = WindowAudio { pcm: &pcm, lead: 0, start_sample: 0 };
        heard.add(&hear(&mut engine, audio, u64::from(SAMPLE_RATE_HZ)).await.unwrap());
        heard
    }

    #[tokio::test]
    async fn a_plda_tells_the_speakers_of_chunks_apart_and_is_named() {
        let (plda, voices, _) = crate::diarize::plda::tests::fixture();
        let installed = InstalledPlda { plda, ids: vec!["transform".into(), "plda".into()] };
        let chunked = heard(&voices, Some("s")).await;
        assert_eq!(chunked.clustered_voice(), Some("v"));
        let who = chunked.who(Bounds::default(), Some(&installed)).unwrap();
        assert_eq!(
            (who.models.as_slice(), who.voices.len()),
            (&["v", "s", "transform", "plda"].map(String::from)[..], 2)
        );
        let one = heard(&voices, Some("s")).await.who(Bounds::exactly(1), Some(&installed)).unwrap();
        assert_eq!((one.models.len(), one.voices.len()), (2, 1), "VBx finds two: it had no part in this");
        let alone = heard(&voices, Some("s")).await.who(Bounds::default(), None).unwrap();
        assert_eq!(alone.models, ["v", "s"]);
        let pieces = heard(&voices, None).await;
        assert_eq!(pieces.clustered_voice(), None, "pieces are clustered without one");
    }

    #[tokio::test]
    async fn a_voice_that_is_no_number_is_nobodys_and_spoils_no_other() {
        let voices = [vec![1.0, 0.0], vec![f32::NAN, 1.0], vec![0.9, 0.1]];
        for way in [Some("s"), None] {
            let who = heard(&voices, way).await.who(Bounds::default(), None).unwrap();
            assert_eq!(diarize::speakers(&who.turns), 1);
            assert!(who.voices[0].iter().all(|x| x.is_finite()), "{way:?}");
        }
    }
}
