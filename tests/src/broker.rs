//! A real Mosquitto on loopback, and who hears whether all that passes through it is of the contract.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::listener::{Ledger, Listener, look};
use crate::{Running, wait_for};

/// A broker that is ended with its test, which fails if a message was none of the contract's.
pub struct Broker {
    /// Its port.
    pub port: u16,
    config: PathBuf,
    heard: Ledger,
    /// Before what it listens to, so that it is dropped first.
    listener: Option<Listener>,
    running: Running,
}

/// A port that was free a moment ago.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound port").port()
}

/// One of Mosquitto's programs.
pub(crate) fn mosquitto(name: &str) -> Command {
    let in_sbin = Path::new("/usr/sbin").join(name);
    Command::new(if in_sbin.exists() { in_sbin } else { PathBuf::from(name) })
}

impl Broker {
    /// Starts one whose files lie in `folder`.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        Self::configured(folder, "persistence false")
    }

    /// As [`Broker::start`], but it writes what it keeps for others into `mosquitto.db`, at every change.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn persistent(folder: &Path) -> Self {
        let location = folder.display();
        let keeps = "autosave_on_changes true\nautosave_interval 1\nuser root";
        Self::configured(folder, &format!("persistence true\npersistence_location {location}/\n{keeps}"))
    }

    fn configured(folder: &Path, persistence: &str) -> Self {
        let (port, config) = (free_port(), folder.join("mosquitto.conf"));
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_packet_size 4300000\n{persistence}\n");
        std::fs::write(&config, text).expect("a config file");
        let running = Self::launch(&config, port);
        let heard = Ledger::default();
        let listener = Some(Listener::start(port, heard.clone()));
        Self { port, config, heard, listener, running }
    }

    fn launch(config: &Path, port: u16) -> Running {
        let mut command = mosquitto("mosquitto");
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running(command.spawn().expect("mosquitto is installed: run ./dev setup"));
        wait_for("the broker", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        running
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.listened();
        self.listener = None;
        self.running.kill();
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        self.running = Self::launch(&self.config, self.port);
        self.listener = Some(Listener::start(self.port, self.heard.clone()));
    }

    fn listened(&self) -> bool {
        self.listener.as_ref().is_none_or(Listener::catch_up)
    }

    /// For a test that says what is not in the contract, on purpose: this topic is not held against it.
    pub fn tolerate(&self, topic: &str) {
        look(&self.heard).tolerate(topic);
    }

    /// What was heard so far that is not in the contract, and how many messages were heard.
    ///
    /// # Panics
    /// If the broker does not answer.
    #[must_use]
    pub fn breaches(&self) -> (Vec<String>, u64) {
        assert!(self.listened(), "the broker does not answer");
        let heard = look(&self.heard);
        (heard.breaches.iter().cloned().collect(), heard.messages)
    }

    /// What is retained on a topic, as a fresh subscriber sees it; `None` if nothing comes within two seconds.
    #[must_use]
    pub fn retained(&self, topic: &str) -> Option<Value> {
        serde_json::from_str(&self.retained_text(topic)).ok()
    }

    /// The same as it stands; empty if nothing comes.
    ///
    /// # Panics
    /// If `mosquitto_sub` is missing.
    #[must_use]
    pub fn retained_text(&self, topic: &str) -> String {
        let output = mosquitto("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-C", "1", "-W", "2", "-t", topic])
            .output()
            .expect("mosquitto_sub is installed: run ./dev setup");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Publishes as a box would, retained.
    ///
    /// # Panics
    /// If `mosquitto_pub` is missing or not served.
    pub fn publish(&self, topic: &str, payload: &str) {
        let done = mosquitto("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-r", "-t", topic, "-m", payload])
            .status();
        assert!(done.is_ok_and(|status| status.success()), "mosquitto_pub is installed: run ./dev setup");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let is_complete = self.listened();
        let heard = look(&self.heard);
        let breaches: Vec<&String> = heard.breaches.iter().collect();
        assert!(breaches.is_empty(), "not in the contract of the link (shared/schema/asyncapi-v1.json): {breaches:#?}");
        assert!(is_complete, "the listener did not hear everything");
    }
}
