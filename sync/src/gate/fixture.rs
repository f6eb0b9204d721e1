//! A box's database with a gate, and a clock that goes with tokio's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::breaker::{Policy, Service};
use shared::clock::{BootId, Clock, Now, WallTime};
use shared::store::{BreakerCommand, Store};
use tokio::time::Instant;

use super::Gate;

/// As shipped.
pub const POLICY: Policy = Policy { failure_threshold: 5, timeout: Duration::from_secs(60), success_threshold: 1 };

pub struct World {
    pub folder: tempfile::TempDir,
    pub store: Arc<Store>,
    pub clock: Arc<TokioClock>,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&folder.path().join("box.db")).unwrap());
        Self { folder, store, clock: Arc::new(TokioClock(Instant::now(), Mutex::default())) }
    }

    pub fn gate(&self) -> Arc<Gate> {
        Arc::new(Gate::open(self.store.clone(), self.clock.clone(), |_| POLICY))
    }

    /// The same folder under a new process.
    pub fn killed(self) -> Self {
        let store = Arc::new(Store::open(&self.folder.path().join("box.db")).unwrap());
        Self { store, ..self }
    }

    pub fn person(&self, command: BreakerCommand) {
        self.store.command_breaker(Service::Sync, command, &self.clock.now()).unwrap();
    }
}

/// Since when uptime counts, and the reboots so far.
pub struct TokioClock(Instant, Mutex<u32>);

impl TokioClock {
    pub fn reboot(&self) {
        *self.1.lock().unwrap() += 1;
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Now {
        let (passed, boots) = (self.0.elapsed(), *self.1.lock().unwrap());
        let wall = WallTime(1_767_225_600_000).plus(passed);
        Now { wall, uptime: Duration::from_secs(60) + passed, boot: BootId(boots.to_string()) }
    }
}
