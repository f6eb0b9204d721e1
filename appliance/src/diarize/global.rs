//! One clustering of all voices of a session, from the speakers of overlapping chunks: pyannote.audio's
//! `SpeakerDiarization` (Bredin, *pyannote.audio 2.1 speaker diarization pipeline*, 2023; version 4 for VBx), given what
//! its networks said.
//!
//!   chunk: up to three speakers ─▶ an embedding each, from where each speaks alone
//!   those heard well ─▶ groups (agglomerative; refined by VBx where there is a PLDA) ─▶ centroids
//!   every chunk's speakers ─▶ the centroids that suit them best, no two the same ─▶ who speaks when

use shared::settings::Session;
use shared::store::SpeakerHint;

use super::Turn;
use super::activity::{Activity, Frames, LOCAL, exclusive};
use super::hierarchy::{Hierarchy, renumbered, sizes};
use super::plda::Plda;
use super::similarity::{centroids, dot, largest, unit};
use super::vbx::{Posterior, Scaling, vbx};

/// A chunk's speaker is heard well who is alone in this share of its frames.
const ALONE: f64 = 0.2;
/// A speaker whose weight is below this has vanished.
const VANISHED: f64 = 1e-7;
/// Distance at which agglomeration leaves the rest to VBx, and the scaling of that: pyannote community-1's, tuned for the
/// embeddings of its PLDA and chunks a second apart.
pub const REFINED: (f64, Scaling) = (0.6, Scaling { acoustic: 0.07, speaker: 0.8 });
/// No session has more speakers.
const MOST: usize = 20;
/// Voices that are clustered; of more, one in so many is taken, and the rest are assigned. Every pair of them takes four
/// bytes: 8 MB, whatever the length of the session.
pub(super) const TRAINED: usize = 2000;

/// The embedding of each speaker of a chunk, where there is one.
pub type Embeddings = [Option<Vec<f32>>; LOCAL];
/// The speaker of the session behind each speaker of a chunk.
pub type Clusters = [Option<usize>; LOCAL];

/// How many speakers there are, as far as people know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At least 1.
    pub at_least: usize,
    /// Not less than `at_least`.
    pub at_most: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { at_least: 1, at_most: MOST }
    }
}

impl Bounds {
    /// So many and no others; one, if there are none.
    #[must_use]
    pub fn exactly(number: usize) -> Self {
        let number = number.clamp(1, MOST);
        Self { at_least: number, at_most: number }
    }

    /// Whether there may be so many.
    #[must_use]
    pub fn allow(&self, number: usize) -> bool {
        self.instead_of(number).is_none()
    }

    /// As somebody said of the session, and otherwise as the site has set them.
    #[must_use]
    pub fn of(site: &Session, session: SpeakerHint) -> Self {
        let within = |n: u32| (n as usize).clamp(1, MOST);
        let most = session.at_most.unwrap_or(site.speakers_at_most.max(session.at_least.unwrap_or(1)));
        let least = session.at_least.unwrap_or(site.speakers_at_least.min(most));
        Self { at_least: within(least), at_most: within(most.max(least)) }
    }

    /// The number to look for, if `found` will not do.
    pub(super) fn instead_of(&self, found: usize) -> Option<usize> {
        (found < self.at_least).then_some(self.at_least).or((found > self.at_most).then_some(self.at_most))
    }
}

/// When voices are one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Distance of the centroids of unit vectors above which groups are not joined.
    pub distance: f64,
    /// Embeddings that make a group a speaker; smaller ones join the nearest that is.
    pub minimum: usize,
}

impl Threshold {
    /// For a voice model of the lock file, chunks being `step` seconds apart. That of pyannote 3.1, which was tuned for
    /// `WeSpeaker` and chunks a second apart, stands for all that were not measured.
    #[must_use]
    pub fn of(model: &str, step: f64) -> Self {
        let distance = match model {
            "demo-voice" => 0.65,
            _ => 0.704_565_496_394_579_9,
        };
        Self { distance, minimum: (12.0 / step.max(0.1)).round().max(1.0) as usize }
    }

    /// The same for distances so many times as large.
    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        Self { distance: self.distance * by, ..self }
    }
}

/// Who is behind the embeddings that were clustered.
#[derive(Debug, Clone, PartialEq)]
pub struct Speakers {
    /// One a speaker, unit length.
    pub centroids: Vec<Vec<f32>>,
    /// Whether two speakers of a chunk must be two of the session.
    pub distinct: bool,
}

/// Speakers of chunks (chunk, speaker) that are heard well enough to be clustered, in order of time.
#[must_use]
pub fn heard_well(activity: &Activity<'_>, embeddings: &[Embeddings]) -> Vec<(usize, usize)> {
    let mut heard = Vec::new();
    for (chunk, (frames, voices)) in activity.chunks.iter().zip(embeddings).enumerate() {
        for (speaker, voice) in voices.iter().enumerate() {
            let (_, alone) = frames.active(speaker);
            if voice.is_some() && alone as f64 >= ALONE * frames.frames.len() as f64 {
                heard.push((chunk, speaker));
            }
        }
    }
    heard
}

fn units(vectors: &[&[f32]]) -> Vec<Vec<f32>> {
    vectors.iter().map(|v| unit(&v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>())).collect()
}

fn means_of(vectors: &[&[f32]], groups: &[usize]) -> Vec<Vec<f32>> {
    centroids(vectors, groups, sizes(groups).len())
}

/// Groups of voices, by agglomeration alone: pyannote.audio's `AgglomerativeClustering` with its centroid linkage.
#[must_use]
pub fn agglomerate(vectors: &[&[f32]], threshold: Threshold, bounds: Bounds) -> Speakers {
    let tree = Hierarchy::new(&units(vectors));
    let minimum = threshold.minimum.min((0.1 * vectors.len() as f64).round().max(1.0) as usize);
    let mut groups = tree.cut(threshold.distance);
    let large = sizes(&groups).into_iter().filter(|size| *size >= minimum).count();
    if let Some(wanted) = bounds.instead_of(large) {
        groups = tree.cut_into(wanted, minimum, threshold.distance);
    }
    groups = join_small(vectors, &groups, minimum);
    Speakers { centroids: means_of(vectors, &groups), distinct: false }
}

/// Gives every group of fewer than `minimum` to the larger one that is most like it.
fn join_small(vectors: &[&[f32]], groups: &[usize], minimum: usize) -> Vec<usize> {
    let sizes = sizes(groups);
    let large: Vec<usize> = (0..sizes.len()).filter(|group| sizes[*group] >= minimum).collect();
    if large.is_empty() {
        return vec![0; groups.len()];
    }
    let centroids = means_of(vectors, groups);
    let heir = |group: usize| {
        let likeness = |other: &usize| dot(&centroids[group], &centroids[*other]);
        let nearest = large.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        if sizes[group] >= minimum { group } else { nearest.unwrap_or(group) }
    };
    renumbered(groups.iter().map(|group| heir(*group)))
}

/// Groups of voices by VBx, beginning with agglomeration. `features` are the same voices as the PLDA sees them. `None` if
/// there cannot be as many as VBx finds.
#[must_use]
pub fn refine(
    vectors: &[&[f32]],
    features: &[Vec<f64>],
    phi: &[f64],
    distance: f64,
    scaling: Scaling,
    bounds: Bounds,
) -> Option<Speakers> {
    let tree = Hierarchy::new(&units(vectors));
    let Posterior { gamma, weights } = vbx(features, phi, &tree.cut(distance), scaling);
    let kept: Vec<usize> = (0..weights.len()).filter(|s| weights[*s] > VANISHED).collect();
    if !bounds.allow(kept.len()) {
        return None;
    }
    let weighed = |speaker: usize| {
        let mut mean = vec![0.0; vectors.first().map_or(0, |v| v.len())];
        for (vector, row) in vectors.iter().zip(&gamma) {
            mean.iter_mut().zip(*vector).for_each(|(m, v)| *m += row[speaker] * f64::from(*v));
        }
        unit(&mean)
    };
    Some(Speakers { centroids: kept.into_iter().map(weighed).collect(), distinct: true })
}

/// The speaker behind each chunk's own. One who does not speak in a chunk is nobody there; so is one for whom no speaker
/// is left where they must be distinct.
#[must_use]
pub fn assign(activity: &Activity<'_>, embeddings: &[Embeddings], speakers: &Speakers) -> Vec<Clusters> {
    activity
        .chunks
        .iter()
        .zip(embeddings)
        .map(|(chunk, voices)| {
            let likeness: Vec<(usize, Vec<f64>)> = (0..LOCAL)
                .filter(|local| chunk.active(*local).0 > 0)
                .filter_map(|local| Some((local, voices[local].as_ref()?)))
                .map(|(local, voice)| {
                    let voice = &units(&[voice.as_slice()])[0];
                    (local, speakers.centroids.iter().map(|centroid| dot(voice, centroid)).collect())
                })
                .collect();
            let mut clusters = [None; LOCAL];
            for ((local, _), cluster) in likeness.iter().zip(best(&likeness, speakers.distinct)) {
                clusters[*local] = cluster;
            }
            clusters
        })
        .collect()
}

/// The assignment of the greatest likeness in all. There are at most three rows, so every one is looked at.
fn best(likeness: &[(usize, Vec<f64>)], distinct: bool) -> Vec<Option<usize>> {
    if !distinct {
        let nearest = |row: &[f64]| (!row.is_empty()).then(|| largest(row));
        return likeness.iter().map(|(_, row)| nearest(row)).collect();
    }
    let mut best = (f64::NEG_INFINITY, vec![None; likeness.len()]);
    search(likeness, &mut Vec::new(), 0.0, &mut best);
    best.1
}

fn search(
    likeness: &[(usize, Vec<f64>)],
    chosen: &mut Vec<Option<usize>>,
    sum: f64,
    best: &mut (f64, Vec<Option<usize>>),
) {
    let Some((_, row)) = likeness.get(chosen.len()) else {
        if sum > best.0 {
            *best = (sum, chosen.clone());
        }
        return;
    };
    // Where there are fewer speakers than rows, somebody goes without: that costs more than any unlikeness.
    let has_enough = row.len() >= likeness.len();
    for choice in (0..row.len()).map(Some).chain((!has_enough).then_some(None)) {
        if choice.is_none_or(|speaker| !chosen.contains(&Some(speaker))) {
            chosen.push(choice);
            search(likeness, chosen, sum + choice.map_or(-9.0, |speaker| row[speaker]), best);
            chosen.pop();
        }
    }
}

/// Who speaks when.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Diarization {
    /// Turns of all that speak, which overlap where several speak at once.
    pub turns: Vec<Turn>,
    /// Turns of one speaker at an instant.
    pub exclusive: Vec<Turn>,
    /// Which speaker of the turns each of those that were found is, if any speaks.
    pub names: Vec<Option<usize>>,
}

/// Turns of what chunks and clusters say.
#[must_use]
pub fn reconstruct(activity: &Activity<'_>, clusters: &[Clusters], speakers: usize) -> Diarization {
    let count: Vec<u8> = activity.count().iter().map(|n| (*n).min(u8::try_from(speakers).unwrap_or(u8::MAX))).collect();
    let all = activity.reconstruct(clusters, speakers, &count);
    let one = activity.reconstruct(clusters, speakers, &exclusive(&count));
    let (mut turns, mut exclusive) = (turns(&all, speakers, activity.grid), turns(&one, speakers, activity.grid));
    let names = renumbered(turns.iter().map(|turn| turn.speaker));
    let mut name = vec![None; speakers];
    for (turn, new) in turns.iter().zip(&names) {
        name[turn.speaker] = Some(*new);
    }
    let rename = |turn: &mut Turn| turn.speaker = name[turn.speaker].unwrap_or(turn.speaker);
    turns.iter_mut().for_each(rename);
    exclusive.iter_mut().for_each(rename);
    Diarization { turns, exclusive, names: name }
}

/// From the middle of a turn's first frame to the middle of the first that is none of it, in order of time.
fn turns(sets: &[u64], speakers: usize, grid: Frames) -> Vec<Turn> {
    let mut turns = Vec::new();
    for speaker in 0..speakers {
        let speaks = |set: &u64| set >> speaker & 1 == 1;
        let mut from = None;
        for (frame, set) in sets.iter().enumerate() {
            match (from, speaks(set)) {
                (None, true) => from = Some(frame),
                (Some(first), false) => {
                    turns.push(Turn { start: grid.middle(first), end: grid.middle(frame), speaker });
                    from = None;
                }
                (None, false) | (Some(_), true) => {}
            }
        }
        if let Some(first) = from.filter(|first| first + 1 < sets.len()) {
            turns.push(Turn { start: grid.middle(first), end: grid.middle(sets.len() - 1), speaker });
        }
    }
    turns.sort_by(|a, b| a.start.total_cmp(&b.start).then(a.speaker.cmp(&b.speaker)));
    turns
}

/// The speakers of a session: by VBx where there is a PLDA that takes these embeddings, at least two voices are heard well
/// and there may be as many as it finds (then they are distinct); by agglomeration alone otherwise. `threshold` is that of
/// agglomeration alone; all distances are taken `scale` times as large.
#[must_use]
pub fn speakers(
    plda: Option<&Plda>,
    activity: &Activity<'_>,
    embeddings: &[Embeddings],
    (threshold, scale): (Threshold, f64),
    bounds: Bounds,
) -> Speakers {
    let heard = heard_well(activity, embeddings);
    let stride = heard.len().div_ceil(TRAINED).max(1);
    let voice = |(chunk, speaker): &(usize, usize)| embeddings[*chunk][*speaker].as_deref();
    let mut vectors: Vec<&[f32]> = heard.iter().step_by(stride).filter_map(voice).collect();
    let fits = |plda: &&Plda| vectors.len() > 1 && vectors.iter().all(|vector| vector.len() == plda.dimension());
    if let Some(plda) = plda.filter(fits) {
        let (distance, scaling) = REFINED;
        let features = plda.features(&vectors);
        if let Some(found) = refine(&vectors, &features, plda.phi(), distance * scale, scaling, bounds) {
            return found;
        }
    }
    if vectors.is_empty() {
        // Nobody is heard well: whoever is heard at all must do.
        vectors = embeddings.iter().flatten().filter_map(Option::as_deref).step_by(stride).take(TRAINED).collect();
    }
    agglomerate(&vectors, threshold.scaled(scale), bounds)
}

/// Who spoke when, of speakers that were found.
#[must_use]
pub fn diarize(activity: &Activity<'_>, embeddings: &[Embeddings], speakers: &Speakers) -> Diarization {
    reconstruct(activity, &assign(activity, embeddings, speakers), speakers.centroids.len())
}

#[cfg(test)]
mod tests {
    use super::super::activity::Chunk;
    use super::*;

    fn rows(likeness: &[&[f64]]) -> Vec<(usize, Vec<f64>)> {
        likeness.iter().enumerate().map(|(n, row)| (n, row.to_vec())).collect()
    }

    #[test]
    fn two_speakers_of_a_chunk_are_two_of_the_session_where_they_must_be() {
        let both_like_the_first = rows(&[&[0.9, 0.2], &[0.8, 0.5]]);
        assert_eq!(best(&both_like_the_first, true), [Some(0), Some(1)]);
        assert_eq!(best(&both_like_the_first, false), [Some(0), Some(0)]);
        assert_eq!(best(&rows(&[&[-0.9], &[0.8]]), true), [None, Some(0)], "one goes without");
        assert_eq!(best(&rows(&[]), true), []);
    }

    #[test]
    fn what_is_said_of_a_session_stands_above_the_site() {
        let site = Session { speakers_at_least: 2, speakers_at_most: 3, ..Session::default() };
        let of = |text: &str| {
            let bounds = Bounds::of(&site, text.parse().unwrap_or_default());
            (bounds.at_least, bounds.at_most)
        };
        assert_eq!(
            [of(""), of("1"), of("2"), of("5"), of("4-"), of("-1"), of("2-4")].to_vec(),
            [(2, 3), (1, 1), (2, 2), (5, 5), (4, 4), (1, 1), (2, 4)]
        );
        for bad in ["0", "3-2", "-", "21", "two", "2-x", "--2"] {
            assert!(bad.parse::<SpeakerHint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plda_decides_where_it_takes_the_embeddings() {
        let (plda, voices, _) = crate::diarize::plda::tests::fixture();
        let chunks: Vec<Chunk> = (0..60).map(|n| Chunk { start: f64::from(n), frames: vec![1; 589] }).collect();
        let activity = Activity { chunks: &chunks, duration: 10.0, grid: Frames::SEGMENTATION };
        let told = |plda: Option<&Plda>, heard: &[Vec<f32>], bounds: Bounds| {
            let of = |n: usize| [Some(heard[n % heard.len()].clone()), None, None];
            let embeddings: Vec<Embeddings> = (0..60).map(of).collect();
            let found = speakers(plda, &activity, &embeddings, (Threshold::of("", 1.0), 1.0), bounds);
            (found.distinct, found.centroids.len())
        };
        let any = Bounds::default();
        assert_eq!(told(Some(&plda), &voices, any), (true, 2));
        assert_eq!(told(None, &voices, any), (false, 2));
        assert_eq!(told(Some(&plda), &voices, Bounds::exactly(1)), (false, 1), "there are not two");
        let shorter: Vec<Vec<f32>> = voices.iter().map(|voice| voice[..15].to_vec()).collect();
        assert_eq!(told(Some(&plda), &shorter, any), (false, 2));
    }

    #[test]
    fn a_small_group_joins_the_one_it_is_most_like() {
        let (a, b, c) = (vec![1.0f32, 0.0], vec![0.0f32, 1.0], vec![0.8f32, 0.6]);
        let vectors = [&a, &a, &a, &b, &b, &b, &c].map(|v| v.as_slice());
        assert_eq!(join_small(&vectors, &[0, 0, 0, 1, 1, 1, 2], 2), [0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(join_small(&vectors, &[0, 1, 2, 3, 4, 5, 6], 2), [0; 7], "where none is large, all are one");
    }
}
