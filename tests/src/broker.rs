//! A real Mosquitto on loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Running, wait_for};

/// A broker that is ended with its test.
pub struct Broker {
    /// Its port.
    pub port: u16,
    config: PathBuf,
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

fn mosquitto(name: &str) -> Command {
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
        Self { port, config, running }
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
        self.running.kill();
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        self.running = Self::launch(&self.config, self.port);
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
