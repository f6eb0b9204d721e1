//! What every part of the running box shares.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use shared::clock::{Clock, Now};
use shared::guard::{Breakers, Guard};
use shared::paths::Root;
use shared::record::TimeQuality;
use shared::seal::{ClinicPublic, SealError};
use shared::settings::Settings;
use shared::store::{Store, StoreError, Task};
use tokio::sync::Notify;

use crate::engines::Engines;

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
    /// The clinic's keys in the settings are malformed.
    #[error("link.sealing_key or link.signing_key is not a key; enrol this box again")]
    ClinicKeys(#[source] SealError),
}

/// See the top of the file.
pub struct Context {
    /// Where everything lies.
    pub root: Root,
    /// As read at the start.
    pub settings: Settings,
    /// The database.
    pub store: Arc<Store>,
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
    _lock: File,
}

impl Context {
    /// Opens a root for working on it, as the only process that does.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(root: Root, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        for folder in [root.data(), root.spool(), root.run(), root.models()] {
            std::fs::create_dir_all(&folder)
                .map_err(|source| StartError::Folder { folder: folder.display().to_string(), source })?;
        }
        let lock = lock(&root.run().join("lock"))?;
        let store = Arc::new(Store::open(&root.database())?);
        let breakers = Breakers::open(store.clone(), clock.clone(), |service| settings.breaker_policy(service));
        let clinic = settings.link.as_ref().map(|l| ClinicPublic::from_hex(&l.sealing_key, &l.signing_key));
        Ok(Self {
            engines: Arc::new(Engines::new(&root, settings.engine.clone())),
            root,
            store,
            breakers: Arc::new(breakers),
            clock,
            clinic: clinic.transpose().map_err(StartError::ClinicKeys)?,
            settings,
            begun: Notify::new(),
            work: Notify::new(),
            settled: Notify::new(),
            _lock: lock,
        })
    }

    /// All clocks, read once.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Where a session's audio lies.
    #[must_use]
    pub fn spool_file(&self, session: &str) -> PathBuf {
        self.root.spool().join(format!("{session}.rspool"))
    }

    /// The guard around one task's calls.
    #[must_use]
    pub fn guard(&self, task: Task) -> Guard {
        Guard { breakers: self.breakers.clone(), service: task, retry: self.settings.retry_policy() }
    }
}

fn lock(path: &std::path::Path) -> Result<File, StartError> {
    let file =
        File::create(path).map_err(|source| StartError::Folder { folder: path.display().to_string(), source })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(StartError::Busy),
    }
}

/// Whether the kernel says that the clock follows a time server.
#[must_use]
pub fn time_quality() -> TimeQuality {
    if std::path::Path::new("/run/systemd/timesync/synchronized").exists() {
        TimeQuality::Synchronized
    } else {
        TimeQuality::Unsynchronized
    }
}
