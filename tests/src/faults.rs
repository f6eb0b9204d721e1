//! Faults as the world makes them: models cut short, engines killed, settings wrong, rows written over.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use crate::{TestBox, engine_of, program, wait_for};

/// The demo transcription model.
pub const WHISPER: &str = "demo-whisper-q8_0.bin";
/// The demo voice model.
pub const VOICE: &str = "demo-voice.onnx";
/// The model that finds speech.
pub const VAD: &str = "silero_vad.onnx";

impl TestBox {
    /// Cuts a model in half.
    ///
    /// # Panics
    /// If it is not there.
    pub fn truncate(&self, file: &str) {
        let model = std::fs::OpenOptions::new().write(true).open(self.model(file)).expect("the model is there");
        let length = model.metadata().expect("a length").len();
        model.set_len(length / 2).expect("a shorter model");
    }

    /// Takes a model away.
    ///
    /// # Panics
    /// If it is not there.
    pub fn remove_model(&self, file: &str) {
        std::fs::remove_file(self.model(file)).expect("the model is there");
    }

    /// Writes a file under the root: a setting, a sensor.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put(&self, file: &str, text: &str) {
        let path = self.root().join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        // Whoever reads it meanwhile finds all or nothing.
        let part = path.with_extension("part");
        std::fs::write(&part, text).expect("a file");
        std::fs::rename(part, path).expect("a file");
    }

    /// Sets settings of the box in a shipped file of their own.
    pub fn set(&self, text: &str) {
        self.put("etc/roomscribe/scenario.toml", text);
    }

    /// Sets the board's temperature.
    pub fn heat(&self, milli_celsius: u32) {
        self.put("sys/class/thermal/thermal_zone0/temp", &milli_celsius.to_string());
    }

    /// The box's database, past everything that guards it.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn database(&self) -> Connection {
        let connection = Connection::open(self.root().join("var/lib/roomscribe/roomscribe.db")).expect("a database");
        connection.busy_timeout(Duration::from_secs(10)).expect("a timeout");
        connection
    }

    /// Changes rows of the database by force.
    ///
    /// # Panics
    /// If it changes none.
    pub fn write_over(&self, sql: &str, session: &str) {
        let changed = self.database().execute(sql, [session]).expect("SQL");
        assert!(changed > 0, "{sql} changes something");
    }

    /// A session as the box shows it.
    #[must_use]
    pub fn session(&self, id: &str) -> Value {
        self.ask("roomscribe", &["sessions", id])
    }

    /// Waits until a session is done or failed.
    ///
    /// # Panics
    /// If that takes too long.
    #[must_use]
    pub fn finished(&self, id: &str) -> Value {
        wait_for("the session to be concluded", || {
            let known = self.session(id);
            matches!(known["status"].as_str(), Some("done" | "failed")).then_some(known)
        })
    }

    /// The newest record of a session.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn record(&self, id: &str) -> Value {
        let output = self.run(&["export", id, "--format", "json"]);
        serde_json::from_slice(&output.stdout).expect("a record")
    }

    /// Enrols the box at a clinic, whose broker nobody has started.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn enrol(&self) {
        let broker = format!("127.0.0.1:{}", crate::broker::free_port());
        let init =
            ["init", "--plain", "--clinic", crate::stack::CLINIC, "--broker", &broker, "--listen", "127.0.0.1:1"];
        let made = self.command("roomscribe-clinic").args(init).output();
        assert!(made.is_ok_and(|o| o.status.success()), "the clinic is made");
        let invited = self.command("roomscribe-clinic").args(["invite", crate::stack::ROOM]).output();
        let link = self.root().join("link.toml");
        std::fs::write(&link, invited.expect("an invitation").stdout).expect("a file");
        let enrolled = self.command("roomscribe-sync").args(["enrol", "--from"]).arg(&link).output();
        assert!(enrolled.is_ok_and(|o| o.status.success()), "the box is enrolled");
    }

    /// Types a line in a shell that finds this workspace's programs, and demands that it works.
    ///
    /// # Panics
    /// If it does not.
    pub fn type_in(&self, line: &str) {
        let programs = program("roomscribe").parent().expect("a folder").display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").expect("a path"));
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env("PATH", path).envs(self.environment.iter().cloned());
        let done = shell.output().expect("a shell");
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Processes a file while every engine of this kind is killed as soon as it works.
    #[must_use]
    pub fn process_killing(&self, kind: &'static str, file: &Path) -> crate::Processed {
        let mut command = self.command("roomscribe");
        command.arg("process").arg(file).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("roomscribe starts");
        let (parent, is_over) = (child.id(), Arc::new(AtomicBool::new(false)));
        let stop = is_over.clone();
        let killer = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Some((engine, _)) = engine_of(parent, kind) {
                    rustix::process::kill_process(engine, rustix::process::Signal::KILL).ok();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let output = child.wait_with_output().expect("it ends");
        is_over.store(true, Ordering::Relaxed);
        killer.join().expect("the killer ends");
        crate::Processed::of(output)
    }
}

/// Four seconds of one voice: quicker than the conversation.
#[must_use]
pub fn clip() -> PathBuf {
    crate::fixture("audio/mono-22050.mp3")
}
