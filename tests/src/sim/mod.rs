//! The simulation: a box, a broker and a clinic in virtual time, driven by one seed. Store, guard, queue, link and
//! clinic are the real code on real SQLite; engines, board, broker, clocks and disks are scripted. Programs are killed,
//! power is cut between commits, disks fill up, clocks jump, messages are lost, doubled and reordered.
//!
//! After every step [`checks`] looks at both databases. After the last fault everything must arrive, once, unchanged.

pub mod checks;
pub mod clock;
pub mod dice;
pub mod engines;
pub mod hub;
pub mod machines;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use appliance::spool::SpoolWriter;
use shared::breaker::{Service, StateName};
use shared::contract::Contract;
use shared::guard::View;
use shared::record::{Consent, Status, TimeQuality};
use shared::seal::ClinicKeys;
use shared::store::{BreakerCommand, NewSession, QueueError, SpeakerHint, WindowRow};
use shared::task::Task;
use sync::uplink::Publication;
use tokio::task::LocalSet;

use checks::{Checker, Known, Sessions, acknowledged_truly, eyes};
use dice::SimDice;
use engines::{Script, WINDOW, samples};
use hub::Hub;
use machines::{CLINIC, RoomBox, Server, SimBoard};

/// Steps of the unkind part; each lasts a few seconds of virtual time.
const STEPS: u32 = 45;
/// Virtual time after the last fault within which everything must be well.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// How often a person tries everything again after the last fault, which the last time changes nothing.
const ROUNDS: u32 = 3;

/// How a simulation went.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Sessions that were recorded.
    pub sessions: usize,
    /// Kills, power cuts, reboots.
    pub deaths: u32,
    /// Virtual time that passed.
    pub virtual_time: Duration,
}

/// Runs the simulation of one seed, with its files in memory where there is room for them.
///
/// # Errors
/// What went wrong.
pub fn run(seed: u64) -> Result<Report, String> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.map_err(|why| why.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|why| why.to_string())?;
    LocalSet::new().block_on(&runtime, async {
        let mut world = World::new(seed, folder.path())?;
        world.live().await
    })
}

struct World {
    dice: SimDice,
    hub: Hub,
    room: RoomBox,
    server: Server,
    script: Rc<Script>,
    keys: ClinicKeys,
    checker: Checker,
    sessions: Sessions,
    broken: Rc<RefCell<Option<String>>>,
    /// Whether the disk took everything since the recorder was started, so that what breakers were is stored.
    is_disk_faithful: bool,
    report: Report,
}

type Done = Result<(), String>;

impl World {
    fn new(seed: u64, folder: &Path) -> Result<Self, String> {
        let mut dice = SimDice::new(seed);
        let keys = ClinicKeys::generate();
        let broken = Rc::new(RefCell::new(None));
        let script = Rc::new(Script::new(dice.split()));
        let hub = Hub::new(dice.split(), watch(folder.join("clinic/clinic.db"), broken.clone()));
        let mut server = Server::new(folder, &keys, hub.clone())?;
        let mut room = RoomBox::new(folder, &keys, hub.clone(), script.clone(), seed)?;
        server.start()?;
        room.start_recorder()?;
        room.start_link()?;
        let checker = Checker::new(room.root(), &server.database())?;
        let (sessions, report) = (Sessions::new(), Report::default());
        Ok(Self { dice, hub, room, server, script, keys, checker, sessions, broken, is_disk_faithful: true, report })
    }

    async fn live(&mut self) -> Result<Report, String> {
        let begun = tokio::time::Instant::now();
        for _ in 0..STEPS {
            let (pause, kill) = (self.dice.millis(100..6_000), self.script.kill.clone());
            // A window that takes the box down does so at once.
            if tokio::time::timeout(pause, kill.notified()).await.is_ok() && self.script.is_kill_pending() {
                self.kill_recorder().await?;
            }
            self.look()?;
            self.step().await?;
            self.look()?;
        }
        self.recover().await?;
        (self.report.sessions, self.report.virtual_time) = (self.sessions.len(), begun.elapsed());
        Ok(self.report.clone())
    }

    fn look(&mut self) -> Done {
        if let Some(why) = self.broken.borrow_mut().take() {
            return Err(why);
        }
        if let Some(context) = &self.room.context {
            let balance = context.store.balance().map_err(|why| why.to_string())?;
            if !balance.ledger.balances() || !balance.findings.is_empty() {
                return Err(format!("the ledger does not balance: {balance:?}"));
            }
            let verdict = context.store.verify_audit(None).map_err(|why| why.to_string())?;
            if let Some(flaw) = verdict.flaw {
                return Err(format!("the audit log is not whole: {flaw}"));
            }
        }
        for (service, view) in self.breakers() {
            if is_probing(&view) && !self.checker.is_at_work(service)? {
                return Err(format!("the breaker of {service} waits for a probe that nobody makes"));
            }
        }
        let room = &self.room;
        self.checker.look(&self.sessions, &self.script, |session| room.spool_file(session).exists())
    }

    async fn step(&mut self) -> Done {
        self.start_what_is_down()?;
        match self.dice.number(0..100) {
            0..30 => self.record()?,
            30..38 => self.kill_recorder().await?,
            38..44 => self.cut_power().await?,
            44..48 => {
                self.report.deaths += 1;
                self.room.kill_link().await;
            }
            48..54 => self.kill_clinic().await,
            54..58 => {
                self.hub.set_up(false);
                tokio::time::sleep(self.dice.millis(100..15_000)).await;
                self.hub.set_up(true);
            }
            58..63 => {
                let client =
                    if self.dice.happens(0.5) { "roomscribe-north-room-1" } else { "roomscribe-clinic-north-server-1" };
                self.hub.cut(client);
            }
            63..68 => self.fill_disk().await,
            68..71 => {
                let days = i64::try_from(self.dice.number(0..800)).unwrap_or(0) - 400;
                self.room.clock.jump(days * 86_400_000);
            }
            71..79 => {
                self.script.outage.set(self.dice.one_of(&Task::ALL).copied());
                tokio::time::sleep(self.dice.millis(2_000..25_000)).await;
                self.script.outage.set(None);
            }
            79..82 => {
                let celsius = if self.dice.happens(0.5) { SimBoard::HOT } else { SimBoard::BURNING };
                self.room.board.set_celsius(celsius);
                tokio::time::sleep(self.dice.millis(1_000..15_000)).await;
                self.room.board.set_celsius(SimBoard::COOL);
            }
            82..86 => self.move_a_breaker()?,
            86..91 => self.drop_one().await?,
            91..94 => self.drop_a_probe().await?,
            94..97 => self.withdraw_one().await?,
            _ => self.retry_one()?,
        }
        Ok(())
    }

    fn start_what_is_down(&mut self) -> Done {
        if !self.server.is_up() {
            self.server.start()?;
        }
        if !self.room.is_recording() && self.room.start_recorder().is_ok() {
            self.is_disk_faithful = true;
        }
        if !self.room.is_linked() {
            self.room.start_link()?;
        }
        Ok(())
    }

    /// Begins a session, or goes on with one, or ends it. What the disk refuses is tried again another time.
    fn record(&mut self) -> Done {
        let Some(context) = self.room.context.clone() else { return Ok(()) };
        let (store, now) = (&context.store, context.now());
        let open: Vec<String> = self.sessions.iter().filter(|(_, s)| !s.ended).map(|(id, _)| id.clone()).collect();
        let id = match self.dice.one_of(&open).cloned() {
            Some(id) if open.len() >= 2 || self.dice.happens(0.6) => id,
            Some(_) | None => match self.begin(&context)? {
                Some(id) => id,
                None => return Ok(()),
            },
        };
        let known = self.sessions.get_mut(&id).ok_or("an unknown session")?;
        for _ in 0..self.dice.number(1..3) {
            let number = u32::from(known.windows);
            let start_sample = u64::from(number) * WINDOW;
            let window = WindowRow { number, start_sample, end_sample: start_sample + WINDOW, blind_cut: false };
            if store.add_window(&id, &window, &Task::ALL, start_sample + WINDOW).is_err() {
                break;
            }
            known.windows += 1;
        }
        if self.dice.happens(0.2) {
            drop(store.set_off_record(&id, self.dice.happens(0.7), now.wall));
        }
        if known.windows > 0 && (known.windows >= 4 || self.dice.happens(0.5)) {
            let samples = u64::from(known.windows) * WINDOW;
            known.ended = store.end_session(&id, samples, now.wall, now.wall).is_ok();
        }
        context.work.notify_waiters();
        context.settled.notify_waiters();
        Ok(())
    }

    fn begin(&mut self, context: &appliance::context::Context) -> Result<Option<String>, String> {
        let (id, now) = (self.dice.uuid(), context.now());
        let number = u16::try_from(self.sessions.len()).map_err(|why| why.to_string())?;
        // All the sound it may have; what is told of it grows window by window.
        let file = self.room.spool_file(&id);
        let begun = SpoolWriter::begin(&file, &context.keys, &id, &now);
        let mut spool = match begun {
            Ok(spool) => spool,
            Err(_) if self.room.disk.borrow().takes_nothing() => return Ok(None),
            Err(why) => return Err(format!("a recording could not be begun: {why}")),
        };
        for window in 0..8 {
            spool.audio(&samples(number, window), &now).map_err(|why| why.to_string())?;
        }
        let new = NewSession {
            id: id.clone(),
            started_at: now.wall,
            time_quality: TimeQuality::Synchronized,
            consent: Consent { basis: "verbal".into(), by: None, at: now.wall.to_string() },
            status: Status::Recording,
            speakers: SpeakerHint::default(),
        };
        if context.store.begin_session(&new, now.wall).is_err() {
            // What the disk does not let go now is an orphan of the next start.
            drop(appliance::forget::audio(&context.keys, &file, &id));
            return Ok(None);
        }
        self.sessions.insert(id.clone(), Known { number, ..Known::default() });
        Ok(Some(id))
    }

    async fn kill_recorder(&mut self) -> Done {
        self.report.deaths += 1;
        let before = self.breakers();
        self.script.note_kill();
        self.room.kill_recorder().await;
        self.checker.note_death(&self.sessions, &self.script)?;
        tokio::time::sleep(engines::downtime(&mut self.dice)).await;
        self.look()?;
        self.restart(&before)
    }

    /// What a breaker was, it still is after its process died.
    fn restart(&mut self, before: &[(Service, View)]) -> Done {
        if self.room.start_recorder().is_err() {
            return Ok(());
        }
        let was_faithful = std::mem::replace(&mut self.is_disk_faithful, true);
        for ((service, before), (_, after)) in before.iter().zip(self.breakers()) {
            // Waits go on while the process is dead, so only the wait may have become shorter.
            let is_same = before.state == after.state && before.failure_count == after.failure_count;
            if was_faithful && !is_same {
                return Err(format!("the breaker of {service} was {before:?} and is {after:?} after a restart"));
            }
        }
        Ok(())
    }

    fn breakers(&self) -> Vec<(Service, View)> {
        let of = |task: Task| Some((task.service(), self.room.context.as_ref()?.breakers.view(task.service())));
        Task::ALL.into_iter().filter_map(of).collect()
    }

    /// The power goes at one of the next commits; the programs do not know, and nothing they do counts any more.
    async fn cut_power(&mut self) -> Done {
        self.report.deaths += 1;
        self.room.disk.borrow().cut_power_after(u32::try_from(self.dice.number(0..12)).unwrap_or(0));
        let dead = self.room.disk.borrow().clone();
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while !dead.is_dead() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.room.reboot().await;
        self.checker.note_death(&self.sessions, &self.script)?;
        tokio::time::sleep(engines::downtime(&mut self.dice)).await;
        self.look()
    }

    async fn kill_clinic(&mut self) {
        self.report.deaths += 1;
        if self.dice.happens(0.7) {
            self.server.disk.borrow().cut_power_after(u32::try_from(self.dice.number(0..4)).unwrap_or(0));
            tokio::time::sleep(self.dice.millis(500..8_000)).await;
        }
        self.server.kill().await;
        tokio::time::sleep(self.dice.millis(100..8_000)).await;
    }

    async fn fill_disk(&mut self) {
        let is_room = self.dice.happens(0.7);
        let disk = if is_room { self.room.disk.borrow().clone() } else { self.server.disk.borrow().clone() };
        self.is_disk_faithful &= !is_room;
        // Most disks that are full have a little room again, and are full again.
        for _ in 0..self.dice.number(1..7) {
            disk.set_full(true);
            tokio::time::sleep(self.dice.millis(500..4_000)).await;
            disk.set_full(false);
            tokio::time::sleep(self.dice.millis(0..3_000)).await;
        }
    }

    fn move_a_breaker(&mut self) -> Done {
        let Some(context) = self.room.context.clone() else { return Ok(()) };
        let command = *self.dice.one_of(&BreakerCommand::ALL).ok_or("no command")?;
        match self.dice.one_of(&Service::ALL).ok_or("no service")? {
            Service::Sync => drop(context.store.command_breaker(Service::Sync, command, &context.now())),
            service => match command {
                BreakerCommand::Reset => context.breakers.reset(*service),
                BreakerCommand::ForceOpen => context.breakers.force_open(*service),
                BreakerCommand::Disable => context.breakers.disable(*service),
            },
        }
        Ok(())
    }

    /// A person drops a session, best one that is at work.
    async fn drop_one(&mut self) -> Done {
        let Some(context) = self.room.context.clone() else { return Ok(()) };
        let ids: Vec<String> = self.sessions.keys().cloned().collect();
        let at_work = |id: &&String| {
            context.store.session(id).is_ok_and(|s| matches!(s.status, Status::Processing | Status::Postponed))
        };
        let busy: Vec<String> = ids.iter().filter(at_work).cloned().collect();
        let Some(id) = self.dice.one_of(if busy.is_empty() { &ids } else { &busy }).cloned() else { return Ok(()) };
        if appliance::queue::drop_session(&context.store, &id, context.now().wall).is_ok() {
            self.sessions.entry(id).or_default().dropped = true;
            context.dropped.notify_waiters();
            context.settled.notify_waiters();
            // Whoever works on it hears of it.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Consent to a session is withdrawn, whatever it is at; or its clinic goes away right then.
    async fn withdraw_one(&mut self) -> Done {
        let Some(context) = self.room.context.clone() else { return Ok(()) };
        let ids: Vec<String> = self.sessions.keys().cloned().collect();
        let Some(id) = self.dice.one_of(&ids).cloned() else { return Ok(()) };
        if context.store.withdraw(&id, true, context.now().wall).is_ok() {
            let known = self.sessions.entry(id).or_default();
            (known.withdrawn, known.ended) = (true, true);
            for waiting in [&context.dropped, &context.work, &context.settled] {
                waiting.notify_waiters();
            }
            tokio::time::sleep(self.dice.millis(0..2_500)).await;
        }
        Ok(())
    }

    /// A breaker opens, and the session whose window is its probe is dropped meanwhile.
    async fn drop_a_probe(&mut self) -> Done {
        let task = *self.dice.one_of(&Task::ALL).ok_or("no task")?;
        self.script.outage.set(Some(task));
        for _ in 0..3 {
            self.record()?;
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        self.script.outage.set(None);
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let is_out = |(service, view): &(Service, View)| *service == task.service() && is_probing(view);
            if self.breakers().iter().any(is_out) {
                return self.drop_one().await;
            }
        }
        Ok(())
    }

    fn retry_one(&mut self) -> Done {
        let ids: Vec<String> = self.sessions.keys().cloned().collect();
        match self.dice.one_of(&ids).cloned() {
            Some(id) if self.dice.happens(0.3) => self.relabel(&id),
            Some(id) => self.retry(&id).map(drop),
            None => Ok(()),
        }
    }

    /// Somebody says how many speakers there were, which is refused where none were told apart.
    fn relabel(&mut self, id: &str) -> Done {
        let Some(context) = self.room.context.clone() else { return Ok(()) };
        let hint = self.dice.one_of(&["1", "2", "1-2"]).and_then(|hint| hint.parse().ok());
        if context.store.relabel(id, hint, context.now().wall).is_ok() {
            context.settled.notify_waiters();
        }
        Ok(())
    }

    /// Whether the session is put to work again.
    fn retry(&mut self, id: &str) -> Result<bool, String> {
        let Some(context) = self.room.context.clone() else { return Ok(false) };
        match context.store.retry(id, true, context.now().wall) {
            Ok(()) => {
                self.sessions.entry(id.to_owned()).or_default().retries += 1;
                context.work.notify_waiters();
                context.settled.notify_waiters();
                Ok(true)
            }
            Err(
                QueueError::Store(_)
                | QueueError::Recording
                | QueueError::Underway
                | QueueError::Nothing
                | QueueError::NoAudio
                | QueueError::Done
                | QueueError::Dropped
                | QueueError::Withdrawn
                | QueueError::Expired
                | QueueError::NoVoices,
            ) => Ok(false),
        }
    }

    /// Faults have stopped: everything that is not dropped becomes well, arrives, and every breaker closes by itself.
    async fn recover(&mut self) -> Done {
        self.script.kind.set(true);
        self.script.outage.set(None);
        // A window may be about to take the box down.
        if self.script.is_kill_pending() {
            self.kill_recorder().await?;
        }
        self.room.board.set_celsius(SimBoard::COOL);
        self.hub.be_kind();
        if self.room.disk.borrow().is_dead() {
            self.room.reboot().await;
            self.checker.note_death(&self.sessions, &self.script)?;
        }
        if self.server.disk.borrow().is_dead() {
            self.server.kill().await;
        }
        self.start_what_is_down()?;
        self.end_all_sessions()?;
        self.undo_what_people_decided()?;
        self.wait_until_done("after the last fault").await?;
        // A few more, so that a half-open breaker has something to try.
        for _ in 0..3 {
            self.begin_and_end()?;
        }
        // A session that ended while its speakers' breaker was still open is tried again in the next round.
        for _ in 0..ROUNDS {
            self.wait_until_done("after everything was tried again").await?;
            let ids: Vec<String> = self.sessions.keys().cloned().collect();
            for id in ids {
                self.retry(&id)?;
            }
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.look()?;
        self.checker.everything_arrived(&self.sessions, &self.keys)?;
        self.all_breakers_are_closed()
    }

    fn begin_and_end(&mut self) -> Done {
        let context = self.room.context.clone().ok_or("the recorder is down")?;
        let id = self.begin(&context)?.ok_or("a session cannot be begun")?;
        self.end(&id)
    }

    /// Ends a session with at least one window.
    fn end(&mut self, id: &str) -> Done {
        let context = self.room.context.clone().ok_or("the recorder is down")?;
        let (now, known) = (context.now(), self.sessions.get_mut(id).ok_or("an unknown session")?);
        let text = |why: shared::store::StoreError| why.to_string();
        if known.windows == 0 {
            let window = WindowRow { number: 0, start_sample: 0, end_sample: WINDOW, blind_cut: false };
            context.store.add_window(id, &window, &Task::ALL, WINDOW).map_err(text)?;
            known.windows = 1;
        }
        let samples = u64::from(known.windows) * WINDOW;
        context.store.end_session(id, samples, now.wall, now.wall).map_err(text)?;
        known.ended = true;
        context.work.notify_waiters();
        Ok(())
    }

    fn end_all_sessions(&mut self) -> Done {
        let open: Vec<String> = self.sessions.iter().filter(|(_, s)| !s.ended).map(|(id, _)| id.clone()).collect();
        open.iter().try_for_each(|id| self.end(id))
    }

    fn undo_what_people_decided(&mut self) -> Done {
        let context = self.room.context.clone().ok_or("the recorder is down")?;
        for task in Task::ALL {
            let service = task.service();
            if matches!(context.breakers.view(service).state, StateName::ForcedOpen | StateName::Disabled) {
                context.breakers.reset(service);
            }
        }
        let reset = context.store.command_breaker(Service::Sync, BreakerCommand::Reset, &context.now());
        reset.map_err(|why| why.to_string())
    }

    async fn wait_until_done(&mut self, when: &str) -> Done {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.look()?;
            let left = self.checker.unfinished()?;
            if left.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= until {
                return Err(format!("{when} it is not done: {left}; breakers {:?}", self.breakers()));
            }
        }
    }

    fn all_breakers_are_closed(&self) -> Done {
        let context = self.room.context.as_ref().ok_or("the recorder is down")?;
        for service in Service::ALL {
            let view = context.breakers.view(service);
            if view.state != StateName::Closed {
                return Err(format!("the breaker of {service} is still {view:?}"));
            }
        }
        let topic = format!("roomscribe/v1/{CLINIC}/board/breakers");
        let board = self.hub.retained(&topic).ok_or("the board was never published")?;
        let board: serde_json::Value = serde_json::from_slice(&board).map_err(|why| why.to_string())?;
        if board["transcription_circuit"] != "CLOSED" || board["diarization_circuit"] != "CLOSED" {
            return Err(format!("the board says {board}"));
        }
        Ok(())
    }
}

/// Whether a half-open breaker has let its one call in: only then it says to ask again in a second.
fn is_probing(view: &View) -> bool {
    view.state == StateName::HalfOpen && view.retry_after.is_some_and(|wait| !wait.is_zero())
}

/// Looks at every message before anybody hears it: it is one of the contract's, and an acknowledgement is true.
fn watch(clinic: PathBuf, broken: Rc<RefCell<Option<String>>>) -> hub::Watch {
    let contract = Contract::published().expect("the contract can be used");
    Rc::new(move |_, publication| {
        let Publication { topic, payload, retain, .. } = publication;
        if let Err(why) = contract.check(topic, payload, Some(*retain)) {
            broken.borrow_mut().get_or_insert(why.to_string());
        }
        if publication.topic.ends_with("/ack") {
            let told = eyes(&clinic).and_then(|eyes| acknowledged_truly(&eyes, &publication.payload));
            if let Err(why) = told {
                broken.borrow_mut().get_or_insert(why);
            }
        }
    })
}
