//! Hears every message that a test's broker is given, and holds it against the contract of the link
//! (`shared/schema/asyncapi-v1.json`): topic, kind, every field. Told by its place, never by its content.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use shared::contract::Contract;

use crate::broker::mosquitto;
use crate::{Running, try_for};

/// Where the listener speaks to itself: what it hears there, all that was sent before has been heard, too.
const MARKS: &str = "tests/listener";
/// The broker is beside it; this is how long it may take to say a word back.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was heard so far.
#[derive(Debug, Default)]
pub struct Heard {
    /// How many messages.
    pub messages: u64,
    /// Which were none of the contract's, as it tells them.
    pub breaches: BTreeSet<String>,
    /// Topics on which a test says what it likes.
    tolerated: BTreeSet<String>,
    marks: u64,
}

/// What all listeners of one broker have heard.
pub type Ledger = Arc<Mutex<Heard>>;

/// Locks it.
pub fn look(ledger: &Ledger) -> MutexGuard<'_, Heard> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    /// From here on nothing on this topic is held against the contract.
    pub fn tolerate(&mut self, topic: &str) {
        self.tolerated.insert(topic.into());
    }

    /// A line of `mosquitto_sub`: retained, payload in hexadecimal, topic.
    fn hear(&mut self, contract: &Contract, line: &str) {
        let mut parts = line.splitn(3, ' ');
        let (Some(retained), Some(payload), Some(topic)) = (parts.next(), parts.next(), parts.next()) else {
            self.breaches.insert("a line of the listener cannot be read".into());
            return;
        };
        if topic == MARKS {
            self.marks += 1;
            return;
        }
        self.messages += 1;
        if self.tolerated.contains(topic) {
            return;
        }
        let payload = hex::decode(payload).expect("mosquitto_sub writes hexadecimal");
        if let Err(why) = contract.check(topic, &payload, Some(retained == "1")) {
            self.breaches.insert(why.to_string());
        }
    }
}

/// A subscriber to everything.
pub struct Listener {
    port: u16,
    subscriber: Running,
    reader: Option<JoinHandle<()>>,
    ledger: Ledger,
}

impl Listener {
    /// One that hears all from here on, and all that is retained.
    ///
    /// # Panics
    /// If there is no broker on this port, or no `mosquitto_sub`.
    #[must_use]
    pub fn start(port: u16, ledger: Ledger) -> Self {
        let mut command = mosquitto("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "mqttv5", "-q", "1", "-t", "#"]);
        command.args(["--retain-as-published", "-F", "%r %x %t"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("mosquitto_sub is installed: run ./dev setup");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let contract = Contract::published().expect("the contract can be used");
        let heard = ledger.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                look(&heard).hear(&contract, &line);
            }
        });
        let listener = Self { port, subscriber: Running(child), reader: Some(reader), ledger };
        assert!(listener.catch_up(), "the listener hears nothing of the broker on port {port}");
        listener
    }

    /// Waits until all that was sent before has been heard; whether it was.
    #[must_use]
    pub fn catch_up(&self) -> bool {
        let before = look(&self.ledger).marks;
        try_for(PATIENCE, || {
            let mut command = mosquitto("mosquitto_pub");
            command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1", "-t", MARKS, "-m", "mark"]);
            let is_said = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
            is_said && try_for(Duration::from_millis(400), || look(&self.ledger).marks > before)
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.subscriber.kill();
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}
