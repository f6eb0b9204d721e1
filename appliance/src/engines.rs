//! How the engines are started: which program, which models, which limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared::error::EngineFault;
use shared::paths::Root;
use shared::settings::Engine;

use crate::audio::seconds;
use crate::engine::child::Spec;
use crate::models::{Entry, Installed, Models, Role};

/// What an engine may take on top of its audio: a cold cache, a busy card.
const BASE_DEADLINE: Duration = Duration::from_secs(10);

/// Everything needed to start an engine.
#[derive(Debug)]
pub struct Engines {
    program: PathBuf,
    models: Arc<Models>,
    limits: Engine,
    library: Option<PathBuf>,
}

impl Engines {
    /// Engines that run this program (if it can be found) on the models of `root`.
    #[must_use]
    pub fn new(root: &Root, limits: Engine) -> Self {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("roomscribe"));
        Self::of(program, root, limits)
    }

    /// Engines that run `program`, which may be another than this one.
    #[must_use]
    pub fn of(program: PathBuf, root: &Root, limits: Engine) -> Self {
        let library = onnx_runtime(std::env::var_os("ROOMSCRIBE_ONNXRUNTIME").map(PathBuf::from), &program);
        Self { program, models: Arc::new(Models::new(root)), limits, library }
    }

    /// Whether the voice engine's library was found.
    #[must_use]
    pub fn has_onnx_runtime(&self) -> bool {
        self.library.is_some()
    }

    /// The models of this box.
    #[must_use]
    pub fn models(&self) -> Arc<Models> {
        self.models.clone()
    }

    /// How many models of a role there are to choose from; at least one, which may be missing.
    #[must_use]
    pub fn rungs(&self, role: Role) -> u32 {
        u32::try_from(self.models.ladder(role).len()).unwrap_or(u32::MAX).max(1)
    }

    /// A model of a role, counted from the best, 0; checked on a thread of its own.
    ///
    /// # Errors
    /// [`EngineFault::ModelUnusable`].
    pub async fn model(&self, role: Role, rung: u32) -> Result<Installed, EngineFault> {
        self.checked(move |models| models.at(role, rung)).await
    }

    /// Reads models on a thread of its own.
    async fn checked<T: Send + 'static>(
        &self,
        check: impl FnOnce(&Models) -> Result<T, EngineFault> + Send + 'static,
    ) -> Result<T, EngineFault> {
        let models = self.models.clone();
        let checked = tokio::task::spawn_blocking(move || check(&models)).await;
        checked.unwrap_or_else(|_| Err(EngineFault::Reported { code: "the model check was cancelled".into() }))
    }

    /// The segmentation network to use beside a voice model, if there is one; checked on a thread of its own.
    ///
    /// # Errors
    /// [`EngineFault::ModelUnusable`].
    pub async fn segmentation(&self, voice: &'static Entry) -> Result<Option<Installed>, EngineFault> {
        self.checked(move |models| models.segmentation(voice)).await
    }

    /// The checksum of a model that had a part in a record.
    #[must_use]
    pub fn sha256(&self, entry: &'static Entry) -> String {
        match self.models.check(entry) {
            Ok(installed) => installed.sha256,
            Err(_) => entry.sha256.clone(),
        }
    }

    /// What a request about so many samples may take.
    #[must_use]
    pub fn deadline(&self, samples: usize) -> Duration {
        BASE_DEADLINE + Duration::from_secs_f64(self.limits.deadline_per_second * seconds(samples as u64))
    }

    /// One less than the cores, at least one, so that capture has a core; or as many as were set.
    fn threads(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.limits.threads {
            0 => (cores - 1).max(1).to_string(),
            threads => threads.to_string(),
        }
    }

    fn spec(&self, kind: &str, arguments: Vec<String>, memory_mib: u64) -> Spec {
        let mut all = vec!["engine".to_owned(), kind.to_owned()];
        all.extend(arguments);
        Spec {
            program: self.program.clone(),
            arguments: all,
            memory_bytes: memory_mib << 20,
            start_deadline: Duration::from_secs_f64(self.limits.start_deadline),
        }
    }

    /// How to start the transcriber.
    #[must_use]
    pub fn transcriber_spec(&self, model: &Installed) -> Spec {
        let mut arguments =
            vec!["--model".into(), model.path.display().to_string(), "--threads".into(), self.threads()];
        arguments.extend(["--alignment".into(), model.entry.alignment.name().into()]);
        self.spec("transcriber", arguments, self.limits.transcriber_memory_mib)
    }

    /// How to start the voice engine.
    ///
    /// # Errors
    /// [`EngineFault::Unavailable`] without ONNX Runtime, with where it was looked for.
    pub fn voices_spec(
        &self,
        vad: &Installed,
        voice: Option<&Installed>,
        segmentation: Option<&Installed>,
    ) -> Result<Spec, EngineFault> {
        let library = self.library.as_ref().ok_or_else(|| EngineFault::Unavailable {
            problem: "libonnxruntime.so was found neither in ROOMSCRIBE_ONNXRUNTIME, nor in lib beside the program's \
                      folder, nor in /usr/lib/roomscribe; ./dev setup or the package roomscribe installs it"
                .into(),
        })?;
        let mut arguments = vec![
            "--vad".into(),
            vad.path.display().to_string(),
            "--threads".into(),
            self.threads(),
            "--library".into(),
            library.display().to_string(),
        ];
        if let Some(voice) = voice {
            arguments.extend(["--voice".into(), voice.path.display().to_string()]);
            arguments.extend(["--minimum".into(), voice.entry.minimum_samples.to_string()]);
            arguments.extend(["--input".into(), voice.entry.input.name().into()]);
        }
        if let Some(segmentation) = segmentation {
            arguments.extend(["--segmentation".into(), segmentation.path.display().to_string()]);
        }
        Ok(self.spec("voices", arguments, self.limits.voice_memory_mib))
    }
}

/// Finds ONNX Runtime: as named, in `lib` beside the program's folder, or where the package puts it.
fn onnx_runtime(named: Option<PathBuf>, program: &std::path::Path) -> Option<PathBuf> {
    const FILE: &str = "libonnxruntime.so";
    let folder = program.parent();
    let candidates = [
        named,
        folder.map(|f| f.join(FILE)),
        folder.and_then(|f| f.parent()).map(|f| f.join("lib").join(FILE)),
        folder.and_then(|f| f.parent()).map(|f| f.join("lib/roomscribe").join(FILE)),
        Some(PathBuf::from("/usr/lib/roomscribe").join(FILE)),
    ];
    candidates.into_iter().flatten().find(|path| path.is_file())
}
