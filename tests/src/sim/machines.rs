//! The machines of a simulation, and their programs: the box with recorder and link, the clinic with its server.
//! A program dies by being dropped; a machine loses its power at a chosen commit.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use appliance::conclude::conclude_all;
use appliance::context::{Aside, Context, Doors, StartError};
use appliance::keeper::{keep, owe_earlier_records, remove_orphans};
use appliance::spool::spool_file;
use appliance::vitals::Vitals;
use appliance::worker::{diarization_lane, transcription_lane};
use shared::ailment::Ailment;
use shared::chance::SeededDice;
use shared::keys::BoxKeys;
use shared::paths::Root;
use shared::seal::{ClinicKeys, ClinicPublic};
use shared::settings::{Link, Settings};
use shared::store::{Disk, KeyStore, Store};
use shared::task::Task;
use shared::wire::BoardHealth;
use sync::backoff::Keeper;
use sync::clinic::settings::{ClinicSettings, default_listen};
use sync::clinic::store::ClinicStore;
use sync::clinic::{Clinic, serve};
use sync::gate::Gate;
use sync::heart::Heart;
use sync::room::{self, Room};
use sync::stop::{Stop, Stopper};
use tokio::task::JoinHandle;

use super::clock::SimClock;
use super::engines::{Script, SimTranscriber, SimVoices};
use super::hub::Hub;

/// The clinic's id.
pub const CLINIC: &str = "north";
/// The box's id.
pub const BOX: &str = "room-1";

/// Tasks of one program, which die with it.
#[derive(Default)]
struct Program(Vec<JoinHandle<()>>);

impl Program {
    fn run(&mut self, work: impl Future<Output = ()> + 'static) {
        self.0.push(tokio::task::spawn_local(work));
    }

    async fn kill(&mut self) {
        for task in &self.0 {
            task.abort();
        }
        for task in self.0.drain(..) {
            drop(task.await);
        }
    }
}

/// A board whose sensors the simulation sets.
pub struct SimBoard(AtomicI32);

impl SimBoard {
    /// Cool enough for anything.
    pub const COOL: i32 = 50;
    /// Too hot to begin with anything.
    pub const HOT: i32 = 82;
    /// So hot that what is under way is stopped.
    pub const BURNING: i32 = 90;

    /// Sets its temperature, in degrees Celsius.
    pub fn set_celsius(&self, celsius: i32) {
        self.0.store(celsius, Ordering::Relaxed);
    }
}

impl Default for SimBoard {
    fn default() -> Self {
        Self(AtomicI32::new(Self::COOL))
    }
}

impl Vitals for SimBoard {
    fn board(&self) -> BoardHealth {
        BoardHealth { celsius: Some(self.0.load(Ordering::Relaxed).into()), ..BoardHealth::default() }
    }

    fn models(&self, _: Task) -> Option<Ailment> {
        None
    }
}

/// The box.
pub struct RoomBox {
    root: Root,
    settings: Settings,
    keys: ClinicPublic,
    hub: Hub,
    /// Its engines.
    pub script: Rc<Script>,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// Its sensors.
    pub board: Arc<SimBoard>,
    /// Its disk, until the power is cut.
    pub disk: Rc<RefCell<Disk>>,
    /// The recorder's inside, while it runs.
    pub context: Option<Arc<Context>>,
    recorder: Program,
    link: Program,
    stopper: Option<Stopper>,
    seed: u64,
    starts: Cell<u64>,
}

fn settings(keys: &ClinicKeys) -> Settings {
    let (sealing_key, signing_key) = keys.public_hex();
    let mut settings = Settings::default();
    settings.retry.initial_backoff = 0.5;
    settings.retry.max_backoff = 2.0;
    settings.transcription_circuit.failure_threshold = Some(2);
    settings.transcription_circuit.timeout = Some(8.0);
    settings.diarization_circuit.failure_threshold = Some(2);
    settings.diarization_circuit.timeout = Some(5.0);
    settings.sync_circuit.timeout = Some(6.0);
    settings.replay.enabled = false;
    settings.link = Some(Link {
        clinic: CLINIC.into(),
        box_id: BOX.into(),
        broker_host: "sim".into(),
        broker_port: 1,
        sealing_key,
        signing_key,
        ack_timeout: 3.0,
    });
    settings
}

impl RoomBox {
    /// A box that was never started.
    ///
    /// # Errors
    /// If the clinic's keys are none.
    pub fn new(folder: &Path, clinic: &ClinicKeys, hub: Hub, script: Rc<Script>, seed: u64) -> Result<Self, String> {
        let settings = settings(clinic);
        let (sealing, signing) = clinic.public_hex();
        let keys = ClinicPublic::from_hex(&sealing, &signing).map_err(|why| why.to_string())?;
        Ok(Self {
            root: Root::new(folder.join("box")),
            settings,
            keys,
            hub,
            script,
            clock: Arc::default(),
            board: Arc::default(),
            disk: Rc::default(),
            context: None,
            recorder: Program::default(),
            link: Program::default(),
            stopper: None,
            seed,
            starts: Cell::new(0),
        })
    }

    /// Where it lives.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The file of wrapped keys.
    #[must_use]
    pub fn key_store(&self) -> PathBuf {
        self.root.key_store()
    }

    /// Starts the recorder, as a daemon would.
    ///
    /// # Errors
    /// What keeps it from starting; a full disk may.
    pub fn start_recorder(&mut self) -> Result<(), String> {
        let (clock, board, disk) = (self.clock.clone(), self.board.clone(), self.disk.borrow().clone());
        let context = Context::open_with(self.root.clone(), self.settings.clone(), |root| {
            let found = BoxKeys::find(root, None).map_err(StartError::BoxKey)?;
            let keys = KeyStore::open_on(&root.key_store(), found.keys, Some(&disk));
            let keys = Arc::new(keys.map_err(StartError::Keys)?);
            let store = Arc::new(Store::open_on(&root.database(), Some(&disk))?.sealing_with(keys.clone()));
            Ok(Doors { clock, store, keys, vitals: Some(board), aside: Aside::Here })
        });
        let context = Arc::new(context.map_err(|why| why.to_string())?);
        remove_orphans(&context);
        owe_earlier_records(&context).map_err(|why| why.to_string())?;
        self.recorder.run(transcription_lane(context.clone(), SimTranscriber(self.script.clone())));
        self.recorder.run(diarization_lane(context.clone(), SimVoices(self.script.clone())));
        self.recorder.run(conclude_all(context.clone()));
        self.recorder.run(keep(context.clone(), None));
        self.context = Some(context);
        Ok(())
    }

    /// Starts the sync daemon.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub fn start_link(&mut self) -> Result<(), String> {
        let store = Store::open_on(&self.root.database(), Some(&self.disk.borrow())).map_err(|why| why.to_string())?;
        let (store, link) = (Arc::new(store), self.settings.link.clone().ok_or("not enrolled")?);
        let settings = self.settings.clone();
        let gate = Gate::open(store.clone(), self.clock.clone(), move |service| settings.breaker_policy(service));
        let (stopper, stop) = Stop::new();
        self.starts.set(self.starts.get() + 1);
        let dice = Box::new(SeededDice::from_seed(self.seed ^ self.starts.get()));
        let keeper = Keeper { dice, stop, heart: Heart::unwatched(), gate: Some(Arc::new(gate)) };
        let disk = self.disk.borrow().clone();
        let door = self.hub.door(room::identity(&link, None), Rc::new(move || !disk.is_dead()));
        let (root, allow) = (self.root.clone(), Vec::new());
        let room = Room { store, link, keys: self.keys.clone(), clock: self.clock.clone(), root, allow };
        self.stopper = Some(stopper);
        self.link.run(room::run(door, room, keeper));
        Ok(())
    }

    /// Whether the recorder runs.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.context.is_some()
    }

    /// Whether the sync daemon runs.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.stopper.is_some()
    }

    /// SIGKILL to the recorder.
    pub async fn kill_recorder(&mut self) {
        self.recorder.kill().await;
        self.context = None;
    }

    /// SIGKILL to the sync daemon.
    pub async fn kill_link(&mut self) {
        self.link.kill().await;
        self.stopper = None;
    }

    /// Both are gone, and the board boots again on a disk that holds what was committed.
    pub async fn reboot(&mut self) {
        self.kill_recorder().await;
        self.kill_link().await;
        self.disk.replace(Disk::default());
        self.clock.reboot();
    }

    /// Where a session's audio lies.
    #[must_use]
    pub fn spool_file(&self, session: &str) -> PathBuf {
        spool_file(&self.root, session)
    }
}

/// The clinic's server.
pub struct Server {
    folder: PathBuf,
    keys: String,
    hub: Hub,
    clock: Arc<SimClock>,
    /// Its disk, until the power is cut.
    pub disk: Rc<RefCell<Disk>>,
    program: Program,
    stopper: Option<Stopper>,
}

impl Server {
    /// A server that was never started.
    ///
    /// # Errors
    /// If its keys cannot be written down.
    pub fn new(folder: &Path, keys: &ClinicKeys, hub: Hub) -> Result<Self, String> {
        let keys = serde_json::to_string(&keys.to_file()).map_err(|why| why.to_string())?;
        let folder = folder.join("clinic");
        let clock = Arc::default();
        Ok(Self { folder, keys, hub, clock, disk: Rc::default(), program: Program::default(), stopper: None })
    }

    /// Its database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.folder.join("clinic.db")
    }

    /// Its keys.
    ///
    /// # Errors
    /// Never, for keys that were written down here.
    pub fn keys(&self) -> Result<ClinicKeys, String> {
        let file = serde_json::from_str(&self.keys).map_err(|why| why.to_string())?;
        ClinicKeys::from_file(&file).map_err(|why| why.to_string())
    }

    /// Starts it.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub fn start(&mut self) -> Result<(), String> {
        let text = |why: &dyn std::fmt::Display| why.to_string();
        let settings =
            ClinicSettings::new(CLINIC, "server-1", ("sim".into(), 1), default_listen()).map_err(|w| text(&w))?;
        let store = ClinicStore::open_on(&self.database(), Some(&self.disk.borrow())).map_err(|w| text(&w))?;
        let clinic = Arc::new(Clinic::new(settings, self.keys()?, store, self.clock.clone()));
        let (stopper, stop) = Stop::new();
        let dice = Box::new(SeededDice::from_seed(7));
        let keeper = Keeper { dice, stop, heart: Heart::unwatched(), gate: None };
        let disk = self.disk.borrow().clone();
        let door = self.hub.door(serve::identity(&clinic, None), Rc::new(move || !disk.is_dead()));
        self.stopper = Some(stopper);
        self.program.run(serve::run(door, clinic, keeper));
        Ok(())
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.stopper.is_some()
    }

    /// SIGKILL, or a power cut if the disk is dead; the next start finds what was committed.
    pub async fn kill(&mut self) {
        self.program.kill().await;
        self.stopper = None;
        self.disk.replace(Disk::default());
    }
}
