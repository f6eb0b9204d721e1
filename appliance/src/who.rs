//! Who spoke when in a whole session, from what every window left.

use shared::store::Row;

use crate::audio::seconds;
use crate::diarize::activity::{Activity, Frames};
use crate::diarize::global::{self, Bounds, Diarization, Threshold};
use crate::diarize::{self, Piece, Tuning, Turn};
use crate::engine::protocol::CHUNK;
use crate::voicing::{Chunked, Voiced};

/// How far off the threshold of centroids may be, as a share of it.
const DOUBT: f64 = 0.1;

/// See the top of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Who {
    /// Ids of the models that told speakers apart: the encoder, and the segmentation network where one was used.
    pub models: Vec<String>,
    /// Where speech is.
    pub regions: Vec<(f64, f64)>,
    /// Turns; they overlap where several spoke at once and a segmentation network heard it.
    pub turns: Vec<Turn>,
    /// Turns of one speaker at an instant, which words go to.
    pub exclusive: Vec<Turn>,
    /// Another number of speakers, if a little more or less likeness would have given it.
    pub maybe: Option<usize>,
}

impl Who {
    /// Clusters every voice of the session at once. `None` if there are no diarized windows.
    #[must_use]
    pub fn of<E>(rows: &[Row<Voiced, E>], bounds: Bounds) -> Option<Self> {
        let voiced: Vec<&Voiced> = rows.iter().filter_map(|r| r.result.as_ref()).collect();
        let first = voiced.first()?;
        let way = |v: &Voiced| v.chunked.as_ref().map(|c| (c.model.clone(), c.step));
        // Vectors of two models cannot be compared: windows heard another way than the first keep no speaker.
        let alike: Vec<&Voiced> =
            voiced.iter().copied().filter(|v| v.model == first.model && way(v) == way(first)).collect();
        let regions = alike.iter().flat_map(|v| v.regions.iter().copied()).collect();
        let mut models = vec![first.model.clone()];
        let (diarized, maybe) = match &first.chunked {
            None => by_pieces(&alike, bounds),
            Some(chunked) => {
                models.push(chunked.model.clone());
                let step = seconds(chunked.step);
                let windows: Vec<&Chunked> = alike.iter().filter_map(|v| v.chunked.as_ref()).collect();
                by_chunks(&windows, Threshold::of(&first.model, step), bounds)
            }
        };
        Some(Self { models, regions, turns: diarized.turns, exclusive: diarized.exclusive, maybe })
    }
}

/// The first number of speakers that is another than `found` and may be.
fn other(found: usize, counts: [usize; 2], bounds: Bounds) -> Option<usize> {
    counts.into_iter().find(|count| *count != found && bounds.allow(*count))
}

fn by_pieces(windows: &[&Voiced], bounds: Bounds) -> (Diarization, Option<usize>) {
    let (mut regions, mut pieces, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    for window in windows {
        let first = regions.len();
        regions.extend_from_slice(&window.regions);
        pieces.extend(window.pieces.iter().map(|p| Piece { region: p.region + first, ..*p }));
        vectors.extend(window.vectors());
    }
    let model = windows.first().map_or("", |v| v.model.as_str());
    let tuning = Tuning::of(model);
    let turns = diarize::diarize_within(&regions, &pieces, &vectors, &tuning, bounds);
    let nearby = [tuning.split - tuning.doubt, tuning.split + tuning.doubt];
    let counts = nearby
        .map(|split| diarize::speakers(&diarize::diarize(&regions, &pieces, &vectors, &Tuning { split, ..tuning })));
    let maybe = other(diarize::speakers(&turns), counts, bounds);
    (Diarization { exclusive: turns.clone(), turns }, maybe)
}

fn by_chunks(windows: &[&Chunked], threshold: Threshold, bounds: Bounds) -> (Diarization, Option<usize>) {
    let (mut chunks, mut embeddings) = (Vec::new(), Vec::new());
    for (n, window) in windows.iter().enumerate() {
        let is_followed = windows.get(n + 1).is_some_and(|next| next.window.start == window.window.end);
        let tail = window.tail.iter().filter(|_| !is_followed);
        for (chunk, voices) in window.chunks.iter().chain(tail).map(|chunk| chunk.read()) {
            chunks.push(chunk);
            embeddings.push(voices);
        }
    }
    let activity = Activity { chunks: &chunks, duration: seconds(CHUNK as u64), grid: Frames::SEGMENTATION };
    let speakers = |distance| global::speakers(&activity, &embeddings, Threshold { distance, ..threshold }, bounds);
    let known = speakers(threshold.distance);
    let nearby = [threshold.distance * (1.0 - DOUBT), threshold.distance * (1.0 + DOUBT)];
    let maybe = other(known.centroids.len(), nearby.map(|distance| speakers(distance).centroids.len()), bounds);
    let mut found = global::diarize(&activity, &embeddings, &known);
    // The last chunk is filled up with silence, in which nobody may be heard.
    let end = windows.last().map_or(0.0, |last| seconds(last.window.end));
    for turns in [&mut found.turns, &mut found.exclusive] {
        turns.retain(|turn| turn.start < end);
        turns.iter_mut().for_each(|turn| turn.end = turn.end.min(end));
    }
    (found, maybe)
}
