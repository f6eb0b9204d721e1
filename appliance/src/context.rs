//! What every part of the running box shares.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::clock::{Clock, Now, WallTime};
use shared::error::{EngineFault, report};
use shared::guard::{Breakers, Guard};
use shared::keys::{BoxKeyError, BoxKeys, Origin};
use shared::paths::Root;
use shared::record::{Flag, TimeQuality};
use shared::seal::{ClinicPublic, SealError};
use shared::settings::Settings;
use shared::store::{Action, AuditEntry, KeyError, KeyStore, Store, StoreError};
use shared::task::Task;
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::engines::Engines;
use crate::ladder::Ladder;
use crate::spool::spool_file;
use crate::vitals::{self, Vitals, ailment, must_stop};

/// How often the board is looked at while an engine works: its temperature rises a degree in seconds.
const BOARD_CHECK: Duration = Duration::from_secs(2);

/// Why a box cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder cannot be made.
    #[error("{folder} cannot be made")]
    Folder {
        /// Which.
        folder: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process works on this root.
    #[error("another roomscribe process works on this root; speak to it, or stop it first")]
    Busy,
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no box key.
    #[error("{}. {}", report(.0), .0.remedy())]
    BoxKey(BoxKeyError),
    /// The key store cannot be opened.
    #[error("{}. {}", report(.0), .0.remedy())]
    Keys(KeyError),
    /// The clinic's keys in the settings are malformed.
    #[error("link.sealing_key or link.signing_key is not a key; enrol this box again")]
    ClinicKeys(#[source] SealError),
}

/// Where work goes that would hold others up: clustering, sealing, reading models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// To a thread of its own.
    Threads,
    /// Nowhere: it is done at once, so that the same seed gives the same order.
    Here,
}

/// What a box meets the world through; the real ones, or a test's.
pub struct Doors {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The database.
    pub store: Arc<Store>,
    /// The keys that what was heard and said is sealed with.
    pub keys: Arc<KeyStore>,
    /// The board's state; `None` is the real one.
    pub vitals: Option<Arc<dyn Vitals>>,
    /// Where long work goes.
    pub aside: Aside,
}

/// See the top of the file.
pub struct Context {
    /// Where everything lies.
    pub root: Root,
    /// As read at the start.
    pub settings: Settings,
    /// The database.
    pub store: Arc<Store>,
    /// The keys that what was heard and said is sealed with.
    pub keys: Arc<KeyStore>,
    /// The breakers, restored.
    pub breakers: Arc<Breakers>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// How engines are started.
    pub engines: Arc<Engines>,
    /// The clinic that records are sealed to, once enrolled.
    pub clinic: Option<ClinicPublic>,
    /// Rung when there is a new session.
    pub begun: Notify,
    /// Rung when there may be work for a lane.
    pub work: Notify,
    /// Rung when a session may be ready to be decided.
    pub settled: Notify,
    /// Rung when a session was dropped: what is under way for it is to be stopped.
    pub dropped: Notify,
    /// The board's state.
    pub vitals: Arc<dyn Vitals>,
    /// Which transcription model is used.
    pub ladder: Mutex<Ladder>,
    /// The transcription model of the last window.
    pub transcriber: Mutex<Option<String>>,
    /// Segments concluded since the start that bear each flag.
    pub flagged: Mutex<BTreeMap<Flag, u64>>,
    aside: Aside,
    _lock: File,
}

impl Context {
    /// Opens a root for working on it, as the only process that does. `credentials` is the folder systemd gave, if it did.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(
        root: Root,
        settings: Settings,
        clock: Arc<dyn Clock>,
        credentials: Option<&Path>,
    ) -> Result<Self, StartError> {
        Self::open_with(root, settings, |root| {
            let keys = Arc::new(open_keys(root, credentials)?);
            let store = Arc::new(Store::open(&root.database())?.sealing_with(keys.clone()));
            Ok(Doors { clock, store, keys, vitals: None, aside: Aside::Threads })
        })
    }

    /// As [`Context::open`], through doors that are made once this process has the root to itself.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open_with(
        root: Root,
        settings: Settings,
        doors: impl FnOnce(&Root) -> Result<Doors, StartError>,
    ) -> Result<Self, StartError> {
        for folder in [root.data(), root.spool(), root.run(), root.models()] {
            std::fs::create_dir_all(&folder)
                .map_err(|source| StartError::Folder { folder: folder.display().to_string(), source })?;
        }
        let lock = lock(&root.run().join("lock"))?;
        let Doors { clock, store, keys, vitals, aside } = doors(&root)?;
        rotate(&keys, &store, clock.now().wall);
        for damage in store.mend(clock.now().wall)? {
            let (source, key, field) = (damage.source, damage.key, damage.field);
            error!(
                source,
                key,
                field,
                why = damage.why,
                remedy = damage.remedy,
                "Something stored cannot be read and was put aside."
            );
        }
        store.adopt_earlier(clock.now().wall)?;
        match store.welcome_back()? {
            0 => {}
            sessions => info!(sessions, "What was said in sessions whose keys had been gone can be opened again."),
        }
        let owned = Task::ALL.map(Task::service);
        let breakers = Breakers::open(store.clone(), clock.clone(), &owned, |service| settings.breaker_policy(service));
        let clinic = settings.link.as_ref().map(|l| ClinicPublic::from_hex(&l.sealing_key, &l.signing_key));
        let engines = Arc::new(Engines::new(&root, settings.engine.clone()));
        let vitals = vitals.unwrap_or_else(|| Arc::new(vitals::System::new(&root, engines.models())));
        Ok(Self {
            engines,
            root,
            store,
            keys,
            breakers: Arc::new(breakers),
            clock,
            clinic: clinic.transpose().map_err(StartError::ClinicKeys)?,
            settings,
            begun: Notify::new(),
            work: Notify::new(),
            settled: Notify::new(),
            dropped: Notify::new(),
            vitals,
            ladder: Mutex::default(),
            transcriber: Mutex::default(),
            flagged: Mutex::default(),
            aside,
            _lock: lock,
        })
    }

    /// Does what would hold others up; `None` if it was cut short.
    pub async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match self.aside {
            Aside::Threads => tokio::task::spawn_blocking(work).await.ok(),
            Aside::Here => Some(work()),
        }
    }

    /// Checks the board, and the models, before work of `task`: a failing check opens its breaker, a passing one lets
    /// it probe.
    pub async fn check(&self, task: Task) {
        let (vitals, limits) = (self.vitals.clone(), self.settings.health.clone());
        let is_held_open = self.breakers.view(task.service()).ailment.is_some();
        let found = self.aside(move || {
            let board = ailment(&vitals.board(), &limits);
            // A model that cannot be used fails the call that finds it, which says so; after that it is looked at
            // again here, until it can.
            board.or_else(|| if is_held_open { vitals.models(task) } else { None })
        });
        if let Some(found) = found.await {
            self.breakers.checked(task.service(), found);
        }
    }

    /// Waits until the board is so hot, or its disk so full, that work under way must be stopped.
    pub async fn must_stop(&self) -> EngineFault {
        loop {
            tokio::time::sleep(BOARD_CHECK).await;
            if let Some(stop) = must_stop(&self.vitals.board(), &self.settings.health) {
                return stop;
            }
        }
    }

    /// The transcription model of the last window.
    #[must_use]
    pub fn last_transcriber(&self) -> Option<String> {
        self.transcriber.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All clocks, read once.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Whether the clock follows a time server, as systemd's time service says.
    #[must_use]
    pub fn time_quality(&self) -> TimeQuality {
        if self.root.time_synchronized().exists() { TimeQuality::Synchronized } else { TimeQuality::Unsynchronized }
    }

    /// Where a session's audio lies.
    #[must_use]
    pub fn spool_file(&self, session: &str) -> PathBuf {
        spool_file(&self.root, session)
    }

    /// The guard around one task's calls.
    #[must_use]
    pub fn guard(&self, task: Task, session: &str) -> Guard {
        Guard {
            breakers: self.breakers.clone(),
            service: task.service(),
            retry: self.settings.retry_policy(),
            session: session.to_owned(),
        }
    }
}

/// What another box key than the first wraps is wrapped by that, and the audit log says so.
fn rotate(keys: &KeyStore, store: &Store, now: WallTime) {
    let told = match keys.rewrap() {
        Ok(0) => Ok(()),
        Ok(count) => {
            info!(count, "Keys were wrapped anew by the first box key.");
            store.audit(&AuditEntry { by: now.into(), action: Action::KeysRotated, subject: None })
        }
        // They are as they were, and open as they did.
        Err(why) => {
            warn!(error = %report(&why), "Keys could not be wrapped anew by the first box key.");
            Ok(())
        }
    };
    if let Err(why) = told {
        error!(error = %report(&why), "That keys were wrapped anew could not be written into the audit log.");
    }
}

/// The key store of a box, with the keys that open it.
///
/// # Errors
/// [`StartError::BoxKey`] or [`StartError::Keys`].
pub fn open_keys(root: &Root, credentials: Option<&Path>) -> Result<KeyStore, StartError> {
    let found = BoxKeys::find(root, credentials).map_err(StartError::BoxKey)?;
    if found.origin == Origin::DevelopmentMade {
        let file = root.development_box_keys();
        let message = "A development key was made: it protects nothing from who has this folder.";
        warn!(file = %file.display(), "{message}");
    }
    let keys = KeyStore::open(&root.key_store(), found.keys).map_err(StartError::Keys)?;
    if keys.is_rewrite_owed().unwrap_or(true) {
        warn!("Bytes of destroyed keys may still lie in keys.db: there was no room, or no way, to write it anew.");
    }
    Ok(keys)
}

fn lock(path: &std::path::Path) -> Result<File, StartError> {
    let file =
        File::create(path).map_err(|source| StartError::Folder { folder: path.display().to_string(), source })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(StartError::Busy),
    }
}
