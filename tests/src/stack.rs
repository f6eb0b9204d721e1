//! Microphone to clinic: every program of the product under one root, a real broker between them.

use std::net::TcpStream;

use serde_json::Value;

use crate::broker::{Broker, free_port};
use crate::microphone::Microphone;
use crate::{Running, TestBox, wait_for};

/// The clinic's id.
pub const CLINIC: &str = "north";
/// The box's id.
pub const ROOM: &str = "room-1";

/// Everything, running.
pub struct Stack {
    /// The box, its root shared with the clinic.
    pub room: TestBox,
    /// Between them.
    pub broker: Broker,
    /// What the box hears.
    pub microphone: Microphone,
    /// The recorder.
    pub daemon: Running,
    /// The box's end of the link.
    pub sync: Running,
    /// The clinic's end.
    pub clinic: Running,
    http: u16,
    token: String,
}

/// Makes a clinic in the box's folder and enrols the box at it: the port where the clinic will serve HTTP.
///
/// # Panics
/// If a command fails.
#[must_use]
pub fn enrol(room: &TestBox, broker: &Broker) -> u16 {
    enrol_at(room, room, broker)
}

/// As [`enrol`], with the clinic elsewhere.
///
/// # Panics
/// If a command fails.
#[must_use]
pub fn enrol_at(clinic: &TestBox, room: &TestBox, broker: &Broker) -> u16 {
    let listen = free_port();
    let (at, serve) = (format!("127.0.0.1:{}", broker.port), format!("127.0.0.1:{listen}"));
    let done = clinic
        .command("roomscribe-clinic")
        .args(["init", "--plain", "--clinic", CLINIC, "--broker", &at, "--listen", &serve])
        .output();
    assert!(done.is_ok_and(|o| o.status.success()), "the clinic is made");
    let invitation = clinic.command("roomscribe-clinic").args(["invite", ROOM]).output().expect("an invitation");
    let link = room.folder().join("link.toml");
    let mut text = String::from_utf8(invitation.stdout).expect("text");
    text.push_str("ack_timeout = 3.0\n");
    std::fs::write(&link, text).expect("a file");
    let enrolled = room.command("roomscribe-sync").args(["enrol", "--from"]).arg(&link).output();
    assert!(enrolled.is_ok_and(|o| o.status.success()), "the box is enrolled");
    listen
}

/// A token for programs, as `roomscribe-clinic token add` prints it.
fn token(room: &TestBox) -> String {
    let made = room.command("roomscribe-clinic").args(["token", "add", "tests", "--role", "admin"]).output();
    let made = made.ok().filter(|made| made.status.success()).expect("a token is made");
    String::from_utf8(made.stdout).expect("text").trim().to_owned()
}

impl Stack {
    /// Starts everything; `microphone` makes the microphone in the box's folder.
    ///
    /// # Panics
    /// If anything does not come up.
    #[must_use]
    pub fn start(microphone: impl FnOnce(&std::path::Path) -> Microphone) -> Self {
        Self::start_on(TestBox::new(), Broker::start, microphone)
    }

    /// The same with a box and a broker of the test's own.
    ///
    /// # Panics
    /// If anything does not come up.
    #[must_use]
    pub fn start_on(
        room: TestBox,
        broker: impl FnOnce(&std::path::Path) -> Broker,
        microphone: impl FnOnce(&std::path::Path) -> Microphone,
    ) -> Self {
        let broker = broker(room.root());
        let (http, token) = (enrol(&room, &broker), token(&room));
        let microphone = microphone(room.root());
        let room = microphone.tell(room);
        let clinic = room.start("roomscribe-clinic", &["run"]);
        let sync = room.start("roomscribe-sync", &["run"]);
        let daemon = room.start_daemon();
        let stack = Self { room, broker, microphone, daemon, sync, clinic, http, token };
        wait_for("the clinic", || stack.clinic_says("/health"));
        stack
    }

    /// What the clinic answers on HTTP to a program with a token.
    #[must_use]
    pub fn clinic_says(&self, path: &str) -> Option<Value> {
        self.clinic_page(path).map(|body| serde_json::from_str(&body).unwrap_or_default())
    }

    /// A page of the clinic, as text.
    #[must_use]
    pub fn clinic_page(&self, path: &str) -> Option<String> {
        crate::get_text_with(TcpStream::connect(("127.0.0.1", self.http)).ok()?, path, &self.token)
    }

    /// What the box answers on its control socket.
    #[must_use]
    pub fn box_says(&self, path: &str) -> Option<Value> {
        crate::call(self.room.root(), "GET", path, "", crate::PATIENCE)
            .filter(|(status, _)| *status == 200)
            .map(|(_, body)| body)
    }

    /// Waits until the box believes that the clinic has the session, and gives the clinic's record of it.
    #[must_use]
    pub fn delivered(&self, session: &str) -> Value {
        wait_for("the clinic's acknowledgement", || {
            let known = self.room.ask("roomscribe", &["sessions", session]);
            (known["delivery"] == "acknowledged").then_some(())
        });
        self.room.ask("roomscribe-clinic", &["show", session])
    }

    /// Starts the box's end of the link, or the clinic's, again.
    pub fn restart_sync(&mut self) {
        self.sync.kill();
        self.sync = self.room.start("roomscribe-sync", &["run"]);
    }

    /// How many sessions the clinic holds.
    #[must_use]
    pub fn held(&self) -> usize {
        let listed = self.clinic_says("/api/v1/sessions").unwrap_or_default();
        listed["sessions"].as_array().or(listed.as_array()).map_or(0, Vec::len)
    }
}
