//! Models: which there are (the lock file), which are installed, and whether they are what they should be.
//!
//! The engines use only what stands in the root's model folder. Per role the highest rank present wins; if that
//! file is damaged it is an error that names it, not a silent step down.

pub mod fetch;
mod plda;

pub use plda::InstalledPlda;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shared::error::EngineFault;
use shared::paths::Root;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Speech to text: Whisper, ggml.
    Transcriber,
    /// Where speech is: Silero, ONNX.
    Vad,
    /// Whose it may be: a speaker encoder, ONNX.
    Voice,
    /// Who of a few speakers speaks when, overlaps included: pyannote's segmentation 3.0, ONNX. A box can do without.
    Segmentation,
    /// What of a voice counts, for VBx: a PLDA in two files, trained on what one voice model gives. A box can do without.
    Plda,
}

/// Which of the two files of a PLDA: both are needed, and belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// From embeddings to what the PLDA takes: `xvec_transform.npz`.
    Transform,
    /// The PLDA itself: `plda.npz`.
    Distribution,
}

/// What a speaker encoder takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum VoiceInput {
    /// Samples.
    #[default]
    Waveform,
    /// Kaldi's filter bank, as `WeSpeaker` makes it.
    FbankHamming,
    /// Kaldi's filter bank, as 3D-Speaker makes it.
    FbankPovey,
}

/// Which of a Whisper model's attention heads follow the sound, so that words can be given times by dynamic time warping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// None that are known: the words of a phrase share its time by their length.
    #[default]
    Unknown,
    /// Those of OpenAI's `tiny.en`.
    TinyEn,
    /// Those of OpenAI's `base.en`.
    BaseEn,
    /// All of the last layer.
    LastLayer,
}

impl Alignment {
    /// As on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::TinyEn => "tiny-en",
            Self::BaseEn => "base-en",
            Self::LastLayer => "last-layer",
        }
    }
}

impl VoiceInput {
    /// As the lock file has it, with hyphens.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waveform => "waveform",
            Self::FbankHamming => "fbank-hamming",
            Self::FbankPovey => "fbank-povey",
        }
    }
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Transcriber, Self::Vad, Self::Voice, Self::Segmentation, Self::Plda];

    /// Whether a box needs it filled.
    #[must_use]
    pub fn is_required(self) -> bool {
        match self {
            Self::Transcriber | Self::Vad | Self::Voice => true,
            Self::Segmentation | Self::Plda => false,
        }
    }

    /// As the lock file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transcriber => "transcriber",
            Self::Vad => "vad",
            Self::Voice => "voice",
            Self::Segmentation => "segmentation",
            Self::Plda => "plda",
        }
    }
}

/// One model of the lock file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Named in every record it had a part in.
    pub id: String,
    /// What it is for.
    pub role: Role,
    /// The higher, the better.
    pub rank: u32,
    /// Its file name.
    pub file: String,
    /// Hexadecimal, or `unknown`.
    pub sha256: String,
    /// In bytes, where it was read somewhere.
    #[serde(default)]
    pub size: Option<u64>,
    /// SPDX.
    pub licence: String,
    /// Where it can be downloaded; none for models that come from a folder alone.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Where `sha256` was read.
    pub cited: String,
    /// For demonstrations and tests, never for real sessions.
    #[serde(default)]
    pub demo: bool,
    /// The shortest piece a voice model takes, in samples; shorter ones are repeated up to it.
    #[serde(default)]
    pub minimum_samples: usize,
    /// What a voice model takes.
    #[serde(default)]
    pub input: VoiceInput,
    /// What is known of a transcriber's attention.
    #[serde(default)]
    pub alignment: Alignment,
    /// The id of the voice model that a PLDA was trained on: beside another it is of no use.
    #[serde(default)]
    pub voice: Option<String>,
    /// Which file of a PLDA it is.
    #[serde(default)]
    pub part: Option<Part>,
}

#[derive(Deserialize)]
struct LockFile {
    model: Vec<Entry>,
}

/// The lock file, best first.
#[expect(clippy::expect_used, reason = "the file is part of the program, and a test reads it")]
pub static LOCK: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let parsed: LockFile = toml::from_str(include_str!("../../models.lock.toml")).expect("the lock file is tested");
    let mut models = parsed.model;
    models.sort_by_key(|m| std::cmp::Reverse(m.rank));
    models
});

/// The entries of one role, best first.
pub fn ranked(role: Role) -> impl Iterator<Item = &'static Entry> {
    LOCK.iter().filter(move |m| m.role == role)
}

/// The models of one role, best first, each as the files it consists of: one, but two of a PLDA.
#[must_use]
pub fn whole(role: Role) -> Vec<Vec<&'static Entry>> {
    let mut models: Vec<Vec<&'static Entry>> = Vec::new();
    for entry in ranked(role) {
        let is_of = |files: &&mut Vec<&'static Entry>| entry.part.is_some() && files[0].voice == entry.voice;
        match models.iter_mut().find(is_of) {
            Some(files) => files.push(entry),
            None => models.push(vec![entry]),
        }
    }
    models
}

/// A model that is in the folder and is what it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Installed {
    /// Its entry in the lock file.
    pub entry: &'static Entry,
    /// Its file.
    pub path: PathBuf,
    /// Its checksum, also where the lock file does not know it.
    pub sha256: String,
}

type Stamp = (u64, Option<SystemTime>);

/// A root's model folder. Remembers what it has checked until a file changes.
#[derive(Debug)]
pub struct Models {
    folder: PathBuf,
    root: PathBuf,
    checked: Mutex<HashMap<PathBuf, (Stamp, String)>>,
}

impl Models {
    /// The folder of `root`; it need not exist.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        Self { folder: root.models(), root: root.path().to_owned(), checked: Mutex::default() }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What to say of a model that cannot be used: which, what is wrong with it, and the command that mends it.
    #[must_use]
    pub fn unusable(&self, role: Role, model: &str, problem: &str) -> EngineFault {
        // One that a box can do without may be a demonstration, which only its role fetches.
        let role = if role.is_required() { String::new() } else { format!(" --role {}", role.name()) };
        let remedy = format!("roomscribe models fetch --root {}{role}", self.root.display());
        EngineFault::ModelUnusable { model: model.into(), problem: problem.into(), remedy }
    }

    /// The models present for `role`, from the best down, each smaller than the one before. A box with real models never
    /// falls back on one that is for demonstrations.
    #[must_use]
    pub fn ladder(&self, role: Role) -> Vec<&'static Entry> {
        let mut rungs: Vec<(&'static Entry, u64)> = Vec::new();
        for entry in ranked(role) {
            let Ok(metadata) = self.folder.join(&entry.file).metadata() else { continue };
            if rungs.last().is_none_or(|(above, size)| metadata.len() < *size && above.demo == entry.demo) {
                rungs.push((entry, metadata.len()));
            }
        }
        rungs.into_iter().map(|(entry, _)| entry).collect()
    }

    /// The model present for `role` that stands `rung` below the best; the lowest if there are fewer.
    ///
    /// # Errors
    /// As [`Models::best`].
    pub fn at(&self, role: Role, rung: u32) -> Result<Installed, EngineFault> {
        let ladder = self.ladder(role);
        match ladder.get(rung as usize).or(ladder.last()) {
            Some(entry) if rung > 0 => self.check(entry),
            Some(_) | None => self.best(role),
        }
    }

    /// The best model present for `role`. Reads the whole file the first time: not for the capture thread.
    ///
    /// # Errors
    /// [`EngineFault::ModelUnusable`], naming the file and how to get it.
    pub fn best(&self, role: Role) -> Result<Installed, EngineFault> {
        let present = ranked(role).find(|entry| self.folder.join(&entry.file).exists());
        let entry = present.ok_or_else(|| {
            let files: Vec<&str> = ranked(role).map(|m| m.file.as_str()).collect();
            let which = format!("the {} model ({})", role.name(), files.join(" or "));
            self.unusable(role, &which, "is missing")
        })?;
        self.check(entry)
    }

    /// The segmentation network to use beside a voice model, if one is present. One that is for demonstrations knows
    /// nothing of real voices, and is used only beside a voice model of its kind.
    ///
    /// # Errors
    /// As [`Models::best`].
    pub fn segmentation(&self, voice: &Entry) -> Result<Option<Installed>, EngineFault> {
        let present = |entry: &&Entry| self.folder.join(&entry.file).exists();
        let usable = ranked(Role::Segmentation).filter(|entry| voice.demo || !entry.demo).find(present);
        usable.map(|entry| self.check(entry)).transpose()
    }

    /// The PLDA that was trained on a voice model, if one is present: `xvec_transform.npz` and `plda.npz`, as
    /// [`Plda::read`](crate::diarize::plda::Plda::read) takes them.
    ///
    /// # Errors
    /// As [`Models::best`]; also where one of the two files is present and the other is not.
    pub fn plda(&self, voice: &Entry) -> Result<Option<(Installed, Installed)>, EngineFault> {
        let part = |part| ranked(Role::Plda).find(|e| e.voice.as_ref() == Some(&voice.id) && e.part == Some(part));
        let (Some(transform), Some(plda)) = (part(Part::Transform), part(Part::Distribution)) else { return Ok(None) };
        let (absent, present): (Vec<&Entry>, Vec<&Entry>) =
            [transform, plda].into_iter().partition(|entry| !self.folder.join(&entry.file).exists());
        match absent.first() {
            Some(_) if present.is_empty() => Ok(None),
            Some(entry) => Err(self.unusable(Role::Plda, &entry.file, "is missing")),
            None => Ok(Some((self.check(transform)?, self.check(plda)?))),
        }
    }

    /// The files of the model that is used for `role`: none only where a box can do without and does.
    ///
    /// # Errors
    /// As [`Models::best`].
    pub fn used(&self, role: Role) -> Result<Vec<Installed>, EngineFault> {
        // Without a voice model, which is told of for itself, there is nothing to use these with.
        let beside = || self.best(Role::Voice).ok().map(|voice| voice.entry);
        let one = |model: Option<Installed>| model.into_iter().collect();
        match role {
            Role::Transcriber | Role::Vad | Role::Voice => self.best(role).map(|model| vec![model]),
            Role::Segmentation => beside().map_or(Ok(None), |voice| self.segmentation(voice)).map(one),
            // Nor without a segmentation network: VBx takes the speakers of its chunks.
            Role::Plda => match beside().filter(|voice| matches!(self.segmentation(voice), Ok(Some(_)))) {
                Some(voice) => Ok(self.plda(voice)?.map_or(Vec::new(), |(transform, plda)| vec![transform, plda])),
                None => Ok(Vec::new()),
            },
        }
    }

    /// Whether one model of the lock file is present and what it should be.
    ///
    /// # Errors
    /// [`EngineFault::ModelUnusable`], naming the file and what is wrong with it.
    pub fn check(&self, entry: &'static Entry) -> Result<Installed, EngineFault> {
        let path = self.folder.join(&entry.file);
        let metadata = path.metadata().map_err(|_| self.unusable(entry.role, &entry.file, "is missing"))?;
        if let Some(size) = entry.size.filter(|size| *size != metadata.len()) {
            let how = if metadata.len() < size { "is truncated" } else { "is too long" };
            return Err(self.unusable(entry.role, &entry.file, how));
        }
        let sha256 = self.sum(entry, &path, (metadata.len(), metadata.modified().ok()))?;
        let expected = if entry.sha256 == "unknown" { self.pinned(&entry.file) } else { Some(entry.sha256.clone()) };
        match expected {
            Some(expected) if expected == sha256 => Ok(Installed { entry, path, sha256 }),
            Some(_) => Err(self.unusable(entry.role, &entry.file, "does not have its checksum")),
            None => Err(self.unusable(entry.role, &entry.file, "has no known checksum and was not pinned")),
        }
    }

    fn sum(&self, entry: &Entry, path: &Path, stamp: Stamp) -> Result<String, EngineFault> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some((_, sum)) = checked.filter(|(at, _)| *at == stamp) {
            return Ok(sum);
        }
        let sum = sha256_of(path).map_err(|_| self.unusable(entry.role, &entry.file, "cannot be read"))?;
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), (stamp, sum.clone()));
        Ok(sum)
    }

    /// The checksum that `fetch --pin` stored for a file.
    fn pinned(&self, file: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.folder.join("pins.toml")).ok()?;
        text.parse::<toml::Table>().ok()?.get(file)?.as_str().map(str::to_owned)
    }
}

/// The SHA-256 of a file, hexadecimal.
///
/// # Errors
/// Whatever the file system says.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_is_sound() {
        for entry in LOCK.iter() {
            assert!(entry.sha256 == "unknown" || entry.sha256.len() == 64, "{}", entry.id);
            assert!(!entry.file.contains('/') && !entry.cited.is_empty() && !entry.licence.is_empty());
            assert!(!entry.sources.is_empty() || entry.demo || entry.id == "ge2e", "{} has no source", entry.id);
            assert_eq!(entry.role == Role::Voice, entry.minimum_samples > 0, "{}", entry.id);
            assert!(entry.role == Role::Voice || entry.input == VoiceInput::Waveform, "{}", entry.id);
            assert_eq!(entry.role == Role::Plda, entry.voice.is_some() && entry.part.is_some(), "{}", entry.id);
        }
        for files in whole(Role::Plda) {
            let voice = files[0].voice.as_deref().unwrap();
            assert!(ranked(Role::Voice).any(|entry| entry.id == voice), "{voice}");
            assert_eq!(files.iter().filter(|entry| entry.part == Some(Part::Transform)).count(), 1, "{voice}");
            assert_eq!((files.len(), files[0].rank), (2, files[1].rank), "{voice}");
        }
        for role in Role::ALL {
            assert!(ranked(role).next().is_some());
        }
        let files: std::collections::HashSet<_> = LOCK.iter().map(|m| &m.file).collect();
        assert_eq!(files.len(), LOCK.len());
    }

    #[test]
    fn a_ladder_goes_down_in_size_and_never_from_a_real_model_to_a_demo() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let models = Models::new(&root);
        std::fs::create_dir_all(root.models()).unwrap();
        let put = |file: &str, size: usize| std::fs::write(root.models().join(file), vec![0; size]).unwrap();
        let ids = || models.ladder(Role::Transcriber).into_iter().map(|e| e.id.as_str()).collect::<Vec<_>>();
        put("demo-whisper-q8_0.bin", 10);
        put("demo-whisper-f16.bin", 20);
        assert_eq!(ids(), ["demo-whisper-q8_0"], "the next by rank is larger");
        put("ggml-base.en.bin", 100);
        put("ggml-tiny.en.bin", 50);
        assert_eq!(ids(), ["whisper-base.en", "whisper-tiny.en"]);
        let missing = models.at(Role::Voice, 1).unwrap_err();
        assert!(matches!(missing, EngineFault::ModelUnusable { .. }));
    }

    #[test]
    fn a_missing_a_truncated_and_an_altered_model_each_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let models = Models::new(&root);
        let problem = || match models.best(Role::Vad).unwrap_err() {
            EngineFault::ModelUnusable { model, problem, remedy } => {
                assert!(remedy.starts_with("roomscribe models fetch --root"));
                format!("{model} {problem}")
            }
            other => panic!("{other}"),
        };
        assert_eq!(problem(), "the vad model (silero_vad.onnx) is missing");
        std::fs::create_dir_all(root.models()).unwrap();
        let file = root.models().join("silero_vad.onnx");
        std::fs::write(&file, b"short").unwrap();
        assert_eq!(problem(), "silero_vad.onnx is truncated");
        std::fs::write(&file, vec![0; 2_327_524]).unwrap();
        assert_eq!(problem(), "silero_vad.onnx does not have its checksum");
    }

    #[test]
    fn a_demonstration_network_is_used_beside_a_demonstration_voice_model_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let models = Models::new(&root);
        let voice = |id: &str| LOCK.iter().find(|entry| entry.id == id).unwrap();
        assert_eq!(models.segmentation(voice("demo-voice")), Ok(None), "a box can do without");
        std::fs::create_dir_all(root.models()).unwrap();
        std::fs::write(root.models().join("demo-segmentation.onnx"), b"short").unwrap();
        assert_eq!(models.segmentation(voice("ge2e")), Ok(None));
        let Err(EngineFault::ModelUnusable { remedy, .. }) = models.segmentation(voice("demo-voice")) else {
            panic!("a damaged one is no reason to do without");
        };
        assert!(remedy.ends_with(" --role segmentation"), "{remedy}");
    }

    #[test]
    fn a_plda_is_two_files_beside_the_voice_model_it_was_trained_on() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let models = Models::new(&root);
        let voice = |id: &str| LOCK.iter().find(|entry| entry.id == id).unwrap();
        let its_own = voice("wespeaker-resnet34-lm");
        assert_eq!(models.plda(its_own), Ok(None), "a box can do without");
        std::fs::create_dir_all(root.models()).unwrap();
        for (present, missing) in [("plda.npz", "xvec_transform.npz"), ("xvec_transform.npz", "plda.npz")] {
            std::fs::write(root.models().join(present), b"short").unwrap();
            let half = models.plda(its_own).unwrap_err();
            let EngineFault::ModelUnusable { model, problem, remedy } = half else { panic!("{half}") };
            assert_eq!((model.as_str(), problem.as_str()), (missing, "is missing"));
            assert!(remedy.ends_with(" --role plda"), "{remedy}");
            assert_eq!(models.plda(voice("wespeaker-cam++")), Ok(None), "beside another it is of no use");
            std::fs::remove_file(root.models().join(present)).unwrap();
        }
        std::fs::write(root.models().join("plda.npz"), b"short").unwrap();
        std::fs::write(root.models().join("xvec_transform.npz"), b"short").unwrap();
        let Err(EngineFault::ModelUnusable { problem, .. }) = models.plda(its_own) else {
            panic!("a damaged one is no reason to do without");
        };
        assert_eq!(problem, "is truncated");
    }
}
