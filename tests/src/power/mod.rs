//! A box whose power is cut: its root on a disk that forgets, a microphone, a broker and a clinic that do not.
//!
//!   up ── cut: disk, recorder and sync daemon at one instant ──▶ down ── examined, nothing runs ──▶ boot ──▶ up
//!
//! The recorder and the sync daemon find another boot id after each boot, in a mount namespace of their own. The
//! microphone goes on by itself and tells what time it was.

mod end;
mod examine;
mod heard;
mod plug;
mod tally;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::disk::Disk;
use crate::disk::cache::Honesty;
use crate::microphone::{Microphone, STALE};
use crate::stack::enrol_at;
use crate::{PATIENCE, Running, TestBox, call, now, wait_for, watch_for};

use examine::Remains;
pub use tally::Moment;
use tally::{Known, Tally};

/// Binds a file over the kernel's name of the boot and becomes the program.
const BOOT: &str = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id && shift && exec \"$@\"";
/// How often something is looked for that a cut is to meet.
const OFTEN: Duration = Duration::from_millis(10);

/// See the top of the file.
pub struct World {
    dice: StdRng,
    daemon: Option<Running>,
    sync: Option<Running>,
    /// The clinic and the broker have power.
    _elsewhere: (Running, Broker),
    microphone: Microphone,
    room: TestBox,
    clinics: TestBox,
    disk: Disk,
    boots: u32,
    /// Where the microphone was at the last boot.
    booted: u64,
    /// Every session that anybody was told of, or that was found.
    sessions: Vec<Known>,
    current: Option<usize>,
    /// What came of all cuts so far.
    tally: Tally,
}

/// Something asked of a box that may not live to answer.
struct Asked(JoinHandle<Option<(u16, Value)>>);

impl World {
    /// Everything up and enrolled, on a disk that holds all of that.
    ///
    /// # Panics
    /// If anything does not come up.
    #[must_use]
    pub fn new(seed: u64, honesty: Honesty) -> Self {
        let disk = Disk::new(honesty);
        let (room, clinics) = (TestBox::on(&disk.root()), TestBox::bare());
        // Models are part of the card and never written.
        let (models, folder) = (room.folder().join("models"), disk.root().join("var/lib/roomscribe"));
        std::fs::create_dir_all(&models).and_then(|()| std::fs::create_dir_all(&folder)).expect("folders");
        std::os::unix::fs::symlink(&models, folder.join("models")).expect("a link");
        room.fetch_models();
        // What was given up is not to be tried again, whatever hour it is.
        room.set("[replay]\nenabled = false");
        let broker = Broker::start(clinics.folder());
        let http = enrol_at(&clinics, &room, &broker);
        let microphone = Microphone::counting(room.folder());
        let room = microphone.tell(room);
        let clinic = clinics.start("roomscribe-clinic", &["run"]);
        let dice = StdRng::seed_from_u64(seed);
        let mut world = Self {
            dice,
            daemon: None,
            sync: None,
            _elsewhere: (clinic, broker),
            microphone,
            room,
            clinics,
            disk,
            boots: 0,
            booted: 0,
            sessions: Vec::new(),
            current: None,
            tally: Tally::default(),
        };
        wait_for("the clinic", || TcpStream::connect(("127.0.0.1", http)).ok());
        world.boot();
        world.wait_until_up();
        world.leave_the_workshop(honesty);
        world
    }

    /// What was written so far was written long ago.
    fn leave_the_workshop(&self, honesty: Honesty) {
        let root = std::fs::File::open(self.room.root()).expect("a folder");
        let sync = || rustix::fs::syncfs(&root).expect("a disk");
        sync();
        if let Honesty::Lies(younger) = honesty {
            std::thread::sleep(younger);
            std::fs::write(self.room.root().join("flushed"), b"").expect("a file");
            sync();
        }
    }

    fn up_to(&mut self, milliseconds: u64) -> Duration {
        Duration::from_millis(self.dice.random_range(0..=milliseconds))
    }

    fn root(&self) -> PathBuf {
        self.room.root().to_owned()
    }

    /// How often the power went.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.tally.cuts.values().sum()
    }

    /// One of the box's programs, on this boot.
    fn on_this_boot(&self, name: &str, arguments: &[&str]) -> Running {
        let boot = self.room.folder().join(format!("boot-{}", self.boots));
        let plain = self.room.command(name);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "--", "sh", "-c", BOOT, "sh"]);
        command.arg(boot).arg(plain.get_program()).args(arguments).stdin(std::process::Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.room.spawn(name, command)
    }

    /// The box's programs start, under a name of the boot that there never was before.
    fn boot(&mut self) {
        self.boots += 1;
        let name = self.room.folder().join(format!("boot-{}", self.boots));
        std::fs::write(name, format!("{}\n", uuid::Uuid::new_v4())).expect("a name of the boot");
        self.booted = self.microphone.position(now()).unwrap_or(0);
        self.daemon = Some(self.on_this_boot("roomscribe", &["run"]));
        self.sync = Some(self.on_this_boot("roomscribe-sync", &["run"]));
    }

    fn wait_until_up(&mut self) {
        let root = self.root();
        watch_for("the box to answer", OFTEN, || call(&root, "GET", "/status", "", PATIENCE));
    }

    fn ask(&self, method: &str, path: &str) -> Option<Value> {
        call(&self.root(), method, path, "", PATIENCE).filter(|(status, _)| *status == 200).map(|(_, answer)| answer)
    }

    fn ask_soon(&self, method: &'static str, path: &'static str, body: String) -> Asked {
        let root = self.root();
        Asked(std::thread::spawn(move || call(&root, method, path, &body, PATIENCE)))
    }

    fn position(&self) -> u64 {
        self.microphone.position(now()).expect("the microphone plays")
    }

    /// Asks for a session: what is asked, and where the microphone was.
    fn ask_for_session(&mut self) -> (Asked, u64) {
        self.microphone.forget();
        let begun = self.position().saturating_sub(appliance::audio::samples_in(STALE));
        let body = json!({ "consent": { "basis": "verbal" } }).to_string();
        (self.ask_soon("POST", "/sessions", body), begun)
    }

    /// What was answered, if anything was.
    fn begun(&mut self, (asked, begun): (Asked, u64)) {
        if let Some((201, answer)) = asked.0.join().expect("a thread") {
            self.take_up(answer["session_id"].as_str().expect("an id"), begun);
        }
    }

    fn take_up(&mut self, id: &str, begun: u64) {
        self.sessions.push(Known::new(id, begun));
        self.current = Some(self.sessions.len() - 1);
    }

    /// A session being recorded, with more than a second of it on the disk: the one there is, or a new one.
    fn recorded(&mut self) -> usize {
        if let Some(current) = self.current {
            return current;
        }
        let asked = self.ask_for_session();
        self.begun(asked);
        let current = self.current.expect("a session begins");
        let known = &mut self.sessions[current];
        known.deaf.push(known.begun..u64::MAX);
        self.hear(current, 0);
        current
    }

    /// A session that was cut off: its gap is written as soon as there is sound.
    fn go_on(&mut self, session: usize) {
        let length = self.spooled(&self.sessions[session].id, self.sessions[session].kept + 1);
        self.hear(session, length);
    }

    /// The recorder listens: from now on the microphone keeps what is not fetched at once. Waits for a second of sound.
    fn hear(&mut self, session: usize, length: u64) {
        self.microphone.remember();
        let until = self.position() + appliance::audio::samples_in(STALE);
        let known = &mut self.sessions[session];
        known.deaf.last_mut().expect("it was deaf").end = until;
        self.spooled(&self.sessions[session].id, length + u64::from(appliance::audio::SAMPLE_RATE_HZ));
    }

    /// Waits until a session's recording has so many samples, and says how many.
    fn spooled(&self, id: &str, samples: u64) -> u64 {
        let root = self.root();
        let mut keys = Remains::of(&root);
        watch_for("sound on the disk", OFTEN, || {
            let spool = keys.spool(&root, id);
            if spool.is_none() {
                keys = Remains::of(&root);
            }
            spool.map(|spool| spool.samples()).filter(|length| *length >= samples)
        })
    }

    /// Stops the session being recorded, and is told so.
    fn stop(&mut self) -> usize {
        let current = self.recorded();
        self.listen(current);
        let answer = self.ask("POST", "/sessions/current/stop").expect("it is stopped");
        assert_eq!(answer["session_id"], json!(self.sessions[current].id));
        self.sessions[current].is_stopped = true;
        self.current = None;
        current
    }

    /// Waits until somebody who asks is told that the clinic has a session.
    fn acknowledged(&mut self, session: usize) {
        let path = format!("/sessions/{}", self.sessions[session].id);
        let delivery = || self.ask("GET", &path).filter(|known| known["delivery"] == "acknowledged");
        watch_for("the clinic's acknowledgement", OFTEN, delivery);
        self.sessions[session].is_acknowledged = true;
    }
}

impl Drop for World {
    /// A failure is not told without what the box said; nothing that was said in a room is in there.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["roomscribe", "roomscribe-sync"] {
                let log = std::fs::read_to_string(self.room.folder().join(format!("{name}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("-- {name}\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
    }
}

/// A folder of the box.
fn data(root: &Path) -> PathBuf {
    root.join("var/lib/roomscribe")
}
