//! Every stage of the diarization by overlapping chunks against what pyannote.audio's own run gave, on two recordings.
//! The numbers lie in `shared/reference/pyannote` beside the checkout, which users do not have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use appliance::diarize::Turn;
use appliance::diarize::activity::{Activity, Chunk, Frames, LOCAL};
use appliance::diarize::global::{
    Bounds, Clusters, Embeddings, REFINED, Speakers, Threshold, agglomerate, assign, heard_well, reconstruct, refine,
};
use appliance::diarize::hierarchy::{Hierarchy, renumbered};
use appliance::diarize::powerset::{Powerset, Set};
use appliance::diarize::vbx::{Scaling, vbx};

/// As in `pipeline_params.json`.
const THRESHOLD: f64 = REFINED.0;
const SCALING: Scaling = REFINED.1;
/// Of pyannote 3.1, whose clustering is agglomerative alone.
const ALONE: Threshold = Threshold { distance: 0.704_565_4, minimum: 12 };

fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/reference/pyannote");
    if folder.is_dir() {
        return Some(folder);
    }
    // Not by a macro: what those print, a test that passes keeps to itself.
    let why = "not run: the reference is not here: looked for ../shared/reference/pyannote beside the checkout";
    std::io::stderr().write_all(format!("{why}\n").as_bytes()).unwrap();
    None
}

/// An array in C order, whatever its type, and its shape. NumPy's format 1.0: magic, version, length of the header, a
/// Python dictionary, values.
fn load(folder: &Path, name: &str) -> (Vec<f64>, Vec<usize>) {
    let bytes = std::fs::read(folder.join(name)).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let from = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..from]).unwrap();
    let between = |a: &str, b: &str| header.split_once(a).unwrap().1.split_once(b).unwrap().0.trim();
    assert!(header.contains("'fortran_order': False"));
    let shape = between("'shape': (", ")").split(',').filter(|n| !n.trim().is_empty());
    let shape = shape.map(|n| n.trim().parse().unwrap()).collect();
    let values = |size, read: fn(&[u8]) -> f64| bytes[from..].chunks_exact(size).map(read).collect();
    let values = match between("'descr': '", "'") {
        "<f4" => values(4, |b| f32::from_le_bytes(b.try_into().unwrap()).into()),
        "<f8" => values(8, |b| f64::from_le_bytes(b.try_into().unwrap())),
        "<i8" => values(8, |b| i64::from_le_bytes(b.try_into().unwrap()) as f64),
        "|u1" => values(1, |b| b[0].into()),
        "|i1" => values(1, |b| b[0].cast_signed().into()),
        other => panic!("{name} holds {other}"),
    };
    (values, shape)
}

fn rows(folder: &Path, name: &str) -> Vec<Vec<f64>> {
    let (values, shape) = load(folder, name);
    values.chunks_exact(shape[1]).map(<[f64]>::to_vec).collect()
}

fn floats(row: &[f64]) -> Vec<f32> {
    row.iter().map(|v| *v as f32).collect()
}

fn indices(folder: &Path, name: &str) -> Vec<usize> {
    load(folder, name).0.into_iter().map(|n| n as usize).collect()
}

/// Chunks of ten seconds, each a second after the one before.
fn chunks(folder: &Path, name: &str) -> Vec<Chunk> {
    let (values, shape) = load(folder, name);
    assert_eq!(shape[2], LOCAL);
    let set =
        |frame: &[f64]| frame.iter().enumerate().filter(|(_, v)| **v > 0.5).fold(0, |set: Set, (s, _)| set | 1 << s);
    let of = |chunk: &[f64]| chunk.chunks_exact(LOCAL).map(set).collect();
    let all = values.chunks_exact(shape[1] * LOCAL).enumerate();
    all.map(|(n, chunk)| Chunk { start: n as f64, frames: of(chunk) }).collect()
}

fn embeddings(folder: &Path, name: &str) -> Vec<Embeddings> {
    let (values, shape) = load(folder, name);
    let voice = |v: &[f64]| v.iter().all(|x| x.is_finite()).then(|| floats(v));
    let of = |chunk: &[f64]| {
        let mut voices = chunk.chunks_exact(shape[2]).map(voice);
        std::array::from_fn(|_| voices.next().unwrap())
    };
    values.chunks_exact(LOCAL * shape[2]).map(of).collect()
}

fn activity(chunks: &[Chunk]) -> Activity<'_> {
    Activity { chunks, duration: 10.0, grid: Frames::SEGMENTATION }
}

fn bits(row: &[f64]) -> u64 {
    row.iter().enumerate().filter(|(_, v)| **v > 0.5).fold(0, |set, (n, _)| set | 1 << n)
}

fn share<T: PartialEq>(ours: &[T], theirs: &[T]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).filter(|(a, b)| a == b).count() as f64 / ours.len() as f64
}

/// Turns of an RTTM file, speakers numbered as they appear.
fn rttm(folder: &Path, name: &str) -> Vec<Turn> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    let fields: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let mut names: Vec<&str> = Vec::new();
    fields
        .iter()
        .map(|line| {
            let (start, lasting): (f64, f64) = (line[3].parse().unwrap(), line[4].parse().unwrap());
            let speaker = names.iter().position(|name| *name == line[7]).unwrap_or_else(|| {
                names.push(line[7]);
                names.len() - 1
            });
            Turn { start, end: start + lasting, speaker }
        })
        .collect()
}

/// Who speaks in each millisecond, as bits.
fn milliseconds(turns: &[Turn]) -> Vec<u32> {
    let ms = |seconds: f64| (seconds * 1000.0).round() as usize;
    let mut sets = vec![0u32; turns.iter().map(|t| ms(t.end)).max().unwrap_or(0)];
    for turn in turns {
        sets[ms(turn.start)..ms(turn.end)].iter_mut().for_each(|set| *set |= 1 << turn.speaker);
    }
    sets
}

/// The diarization error rate without a collar, overlap counted, with the best mapping of at most four speakers.
fn error_rate(ours: &[Turn], theirs: &[Turn]) -> f64 {
    let (mut ours, theirs) = (milliseconds(ours), milliseconds(theirs));
    ours.resize(ours.len().max(theirs.len()), 0);
    let speech: u32 = theirs.iter().map(|set| set.count_ones()).sum();
    let mut best = f64::INFINITY;
    for order in 0..256usize {
        let to: [usize; 4] = std::array::from_fn(|n| order >> (2 * n) & 3);
        if (0..4).any(|n| to[..n].contains(&to[n])) {
            continue;
        }
        let errors: u32 = (0..ours.len())
            .map(|ms| {
                let reference = theirs.get(ms).copied().unwrap_or(0);
                let mapped = (0..4).filter(|n| ours[ms] >> n & 1 == 1).fold(0u32, |set, n| set | 1 << to[n]);
                reference.count_ones().max(mapped.count_ones()) - (reference & mapped).count_ones()
            })
            .sum();
        best = best.min(f64::from(errors) / f64::from(speech));
    }
    best
}

#[test]
fn powerset_classes_and_their_decoding_are_exactly_theirs() {
    let Some(folder) = folder() else { return };
    for (speakers, at_once) in [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (4, 3), (4, 4)] {
        let theirs = rows(&folder, &format!("powerset_mapping_{speakers}_{at_once}.npy"));
        let theirs: Vec<u64> = theirs.iter().map(|row| bits(row)).collect();
        let ours = Powerset::new(speakers, at_once);
        assert_eq!(ours.classes().iter().map(|set| u64::from(*set)).collect::<Vec<_>>(), theirs);
    }
    let (scores, _) = load(&folder, "powerset_input_logits.npy");
    let (expected, shape) = load(&folder, "powerset_hard_output.npy");
    let expected: Vec<u64> = expected.chunks_exact(shape[2]).map(bits).collect();
    let ours = Powerset::new(3, 2).decode(&floats(&scores));
    assert_eq!(ours.iter().map(|set| u64::from(*set)).collect::<Vec<_>>(), expected);
}

#[test]
fn stage_by_stage_the_first_recording_is_diarized_as_theirs() {
    let Some(folder) = folder() else { return };
    let chunks = chunks(&folder, "pipeline_segmentation_data.npy");
    let (activity, voices) = (activity(&chunks), embeddings(&folder, "pipeline_embeddings_data.npy"));

    let counted: Vec<usize> = activity.count().into_iter().map(usize::from).collect();
    assert_eq!(counted, indices(&folder, "pipeline_speaker_counting_data.npy"));

    let heard = heard_well(&activity, &voices);
    let (chunk, speaker) =
        (indices(&folder, "pipeline_train_chunk_idx.npy"), indices(&folder, "pipeline_train_speaker_idx.npy"));
    assert_eq!(heard, chunk.into_iter().zip(speaker).collect::<Vec<_>>());
    let vectors: Vec<&[f32]> = heard.iter().map(|(c, s)| voices[*c][*s].as_deref().unwrap()).collect();
    let trained: Vec<Vec<f32>> = rows(&folder, "pipeline_train_embeddings.npy").iter().map(|r| floats(r)).collect();
    assert_eq!(vectors, trained.iter().map(Vec::as_slice).collect::<Vec<_>>());

    let unit = |v: &&[f32]| {
        let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.iter().map(|x| x / length).collect::<Vec<f32>>()
    };
    let start = Hierarchy::new(&vectors.iter().map(unit).collect::<Vec<_>>()).cut(THRESHOLD);
    assert_eq!(start, indices(&folder, "pipeline_ahc_clusters.npy"));

    let (features, (phi, _)) = (rows(&folder, "pipeline_plda_features.npy"), load(&folder, "pipeline_plda_phi.npy"));
    let found = vbx(&features, &phi, &start, SCALING);
    for (ours, theirs) in found.gamma.iter().zip(rows(&folder, "pipeline_vbx_gamma.npy")) {
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-4), "{ours:?} and {theirs:?}");
    }
    let weights = load(&folder, "pipeline_vbx_pi.npy").0;
    assert!(found.weights.iter().zip(&weights).all(|(a, b)| (a - b).abs() < 1e-4));

    let parameters = std::fs::read_to_string(folder.join("pipeline_params.json")).unwrap();
    let theirs = format!("'threshold': {THRESHOLD}, 'Fa': {}, 'Fb': {}", SCALING.acoustic, SCALING.speaker);
    assert!(parameters.contains(&theirs), "{parameters}");
    let speakers = refine(&vectors, &features, &phi, THRESHOLD, SCALING, Bounds::default()).unwrap();
    let clusters = assign(&activity, &voices, &speakers);
    let (theirs, _) = load(&folder, "pipeline_hard_clusters.npy");
    let named = |k: &f64| (*k >= 0.0).then_some(*k as usize);
    let theirs: Vec<Clusters> = theirs.chunks_exact(LOCAL).map(|row| std::array::from_fn(|n| named(&row[n]))).collect();
    assert_eq!(clusters, theirs);

    let sets = activity.reconstruct(&clusters, speakers.centroids.len(), &activity.count());
    let theirs: Vec<u64> =
        rows(&folder, "pipeline_discrete_diarization_data.npy").iter().map(|row| bits(row)).collect();
    let same = share(&sets, &theirs);
    assert!(same >= 0.999, "{same} of the frames are the same");

    let made = reconstruct(&activity, &clusters, speakers.centroids.len());
    let error = error_rate(&made.turns, &rttm(&folder, "pipeline_expected.rttm"));
    println!("test.wav: {:.4} of the frames are theirs, error rate {:.3} %", same, 100.0 * error);
    assert!(error <= 0.001, "the error rate is {error}");
    assert!(made.exclusive.windows(2).all(|pair| pair[0].end <= pair[1].start + 1e-9), "one at an instant");
}

#[test]
fn the_second_recording_is_counted_and_reconstructed_as_theirs() {
    let Some(folder) = folder() else { return };
    let chunks = chunks(&folder, "3speakers_segmentation_data.npy");
    let (activity, voices) = (activity(&chunks), embeddings(&folder, "3speakers_embeddings_data.npy"));
    let counted: Vec<usize> = activity.count().into_iter().map(usize::from).collect();
    let theirs = indices(&folder, "3speakers_speaker_counting_data.npy");
    assert!(share(&counted, &theirs) >= 0.999);

    // Their clusters are not among the numbers: they are read off their answer, chunk by chunk.
    let answer = rows(&folder, "3speakers_discrete_diarization_data.npy");
    let answer: Vec<u64> = answer.iter().map(|row| bits(row)).collect();
    let clusters: Vec<Clusters> = chunks.iter().map(|chunk| read_off(chunk, &answer)).collect();
    let same = share(&activity.reconstruct(&clusters, 3, &activity.count()), &answer);
    assert!(same >= 0.999, "{same} of the frames are the same");

    let vectors: Vec<&[f32]> =
        heard_well(&activity, &voices).iter().map(|(c, s)| voices[*c][*s].as_deref().unwrap()).collect();
    let speakers = agglomerate(&vectors, ALONE, Bounds::default());
    let made = reconstruct(&activity, &assign(&activity, &voices, &speakers), speakers.centroids.len());
    let error = error_rate(&made.turns, &rttm(&folder, "3speakers_expected.rttm"));
    let found = speakers.centroids.len();
    println!(
        "test_3speakers.wav: {same:.4} of the frames are theirs; agglomerative: {found} speakers, error rate {:.2} %",
        100.0 * error
    );
    assert_eq!(renumbered(made.turns.iter().map(|t| t.speaker)).into_iter().max(), Some(2), "three speakers");
    assert!(error <= 0.05, "agglomerative clustering is {error} off");
}

/// The speaker of the answer with whom each speaker of a chunk shares most frames.
fn read_off(chunk: &Chunk, answer: &[u64]) -> Clusters {
    let first = Frames::SEGMENTATION.closest(chunk.start);
    let shared = |local: usize, speaker: usize| {
        let both = |(n, set): (usize, &Set)| {
            set >> local & 1 == 1 && answer.get(first + n).is_some_and(|all| all >> speaker & 1 == 1)
        };
        chunk.frames.iter().enumerate().filter(|frame| both(*frame)).count()
    };
    std::array::from_fn(|local| {
        let best = (0..3).max_by_key(|speaker| shared(local, *speaker))?;
        (shared(local, best) > 0).then_some(best)
    })
}

#[test]
fn likeness_is_their_cosine() {
    let Some(folder) = folder() else { return };
    let vectors: Vec<Vec<f32>> = rows(&folder, "cosine_sim_input.npy").iter().map(|row| floats(row)).collect();
    let expected = rows(&folder, "cosine_sim_expected.npy");
    for (a, row) in vectors.iter().zip(&expected) {
        for (b, expected) in vectors.iter().zip(row) {
            assert!((appliance::diarize::cosine(a, b) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn a_number_of_speakers_that_people_know_is_found() {
    let Some(folder) = folder() else { return };
    let chunks = chunks(&folder, "3speakers_segmentation_data.npy");
    let (activity, voices) = (activity(&chunks), embeddings(&folder, "3speakers_embeddings_data.npy"));
    let vectors: Vec<&[f32]> =
        heard_well(&activity, &voices).iter().map(|(c, s)| voices[*c][*s].as_deref().unwrap()).collect();
    let found = |at_least, at_most| {
        let Speakers { centroids, .. } = agglomerate(&vectors, ALONE, Bounds { at_least, at_most });
        centroids.len()
    };
    assert_eq!((found(2, 2), found(1, 2), found(3, 3), found(1, 20)), (2, 2, 3, 3));
}
