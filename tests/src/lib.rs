//! The kit: a box in a temporary folder, its programs, and what scenarios ask of both.
//!
//! Everything is the real thing: the programs beside this test's own, the demo models, a real broker. What is missing
//! is said with the command that gets it; nothing is skipped.

#![allow(clippy::expect_used, clippy::panic, reason = "the kit is for tests: what it cannot do fails them")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use appliance::spool::{SpoolReader, spool_file};
use serde_json::Value;
use shared::keys::BoxKeys;
use shared::paths::Root;
use shared::store::KeyStore;

pub mod broker;
pub mod disk;
pub mod engine;
pub mod faults;
pub mod machine;
pub mod microphone;
pub mod positions;
pub mod postgres;
pub mod power;
pub mod recordings;
pub mod sim;
pub mod stack;
pub mod validators;

/// How long anything may take before a test gives up: a slow machine that is also building takes its time.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// A fixture of `tests/fixtures`.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

/// One of this workspace's programs, as built beside this test.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.parent().and_then(Path::parent).expect("tests are built in target/PROFILE/deps");
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is missing: run cargo build --release --workspace (./dev test does)",
        program.display()
    );
    program
}

/// Waits until `ready` gives something.
///
/// # Panics
/// After [`PATIENCE`].
pub fn wait_for<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    watch_for(what, Duration::from_millis(50), ready)
}

/// Waits until `ready` gives something, asking every `interval`.
///
/// # Panics
/// After [`PATIENCE`].
pub fn watch_for<T>(what: &str, interval: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(now().saturating_sub(begun) < PATIENCE, "waited too long for {what}");
        std::thread::sleep(interval);
    }
}

/// Whether something becomes true within `patience`.
pub fn try_for(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = now();
    while now().saturating_sub(begun) < patience {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    false
}

/// Monotonic time.
#[must_use]
pub fn now() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}

/// A box in a folder of its own, with the demo models.
pub struct TestBox {
    folder: tempfile::TempDir,
    /// The folder itself, or a disk of its own.
    root: PathBuf,
    environment: Vec<(String, String)>,
}

impl TestBox {
    /// An empty box without models. Breakers and retries are as shipped but for the waits, which are short.
    ///
    /// # Panics
    /// If there is no room for it.
    #[must_use]
    pub fn bare() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let environment = vec![("AUDIO_PROCESSING_INITIAL_BACKOFF".into(), "0.05".into())];
        Self { root: folder.path().to_owned(), folder, environment }
    }

    /// As [`TestBox::bare`], with its root on a disk of its own. Logs stay in its folder.
    #[must_use]
    pub fn on(root: &Path) -> Self {
        Self { root: root.to_owned(), ..Self::bare() }
    }

    /// A box with the demo models and nothing else.
    ///
    /// # Panics
    /// If a model cannot be had.
    #[must_use]
    pub fn new() -> Self {
        let made = Self::bare();
        made.fetch_models();
        made
    }

    /// Fetches the demo models, where they are not there or not sound.
    ///
    /// # Panics
    /// If a model cannot be had.
    pub fn fetch_models(&self) {
        let fetched = std::env::var_os("ROOMSCRIBE_TEST_MODELS");
        let fetched = fetched.map_or_else(|| repository().join("target/models"), PathBuf::from);
        let (fixtures, fetched) = (fixture("models").display().to_string(), fetched.display().to_string());
        let got = self.run(&["models", "fetch", "--from", &fixtures, "--from", &fetched]);
        assert!(got.status.success(), "run ./dev setup first: {}", String::from_utf8_lossy(&got.stderr));
    }

    /// Sets a variable for every program of this box.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The box's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where its programs log; what lies here is not the box's.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A model file of the box.
    #[must_use]
    pub fn model(&self, file: &str) -> PathBuf {
        self.root().join("var/lib/roomscribe/models").join(file)
    }

    /// What is in the spool folder.
    #[must_use]
    pub fn spooled(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.root().join("var/lib/roomscribe/spool"));
        entries.map(|all| all.flatten().map(|e| e.path()).collect()).unwrap_or_default()
    }

    /// The box's key store, by its development key.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[must_use]
    pub fn keys(&self) -> KeyStore {
        let root = Root::new(self.root());
        let boxes = BoxKeys::find(&root, None).expect("a development key").keys;
        KeyStore::open(&root.key_store(), boxes).expect("a key store")
    }

    /// What was heard in a session.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn heard(&self, session: &str) -> SpoolReader {
        let file = spool_file(&Root::new(self.root()), session);
        SpoolReader::open(&file, &self.keys(), session).expect("a recording")
    }

    /// One of the programs, told of this box.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.env("ROOMSCRIBE_ROOT", self.root()).env_remove("ROOMSCRIBE_MODELS_FROM").env_remove("RUST_LOG");
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Runs `roomscribe` to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command("roomscribe").args(arguments).output().expect("roomscribe starts")
    }

    /// Runs a command that answers in JSON, and takes the answer.
    ///
    /// # Panics
    /// If it fails or answers otherwise.
    pub fn ask(&self, name: &str, arguments: &[&str]) -> Value {
        let output = self.command(name).args(arguments).arg("--json").output().expect("the program starts");
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("an answer in JSON")
    }

    /// Processes one file: the exit code and the one line that was printed.
    ///
    /// # Panics
    /// If it printed something else.
    #[must_use]
    pub fn process(&self, file: &Path) -> Processed {
        Processed::of(self.run(&["process", &file.display().to_string()]))
    }

    /// Starts a program that goes on, its log in the box's folder.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(&self, name: &str, arguments: &[&str]) -> Running {
        let mut command = self.command(name);
        command.args(arguments);
        self.spawn(name, command)
    }

    /// Starts a program of this box that was made ready elsewhere; as [`TestBox::start`].
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(&self, name: &str, mut command: Command) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder().join(format!("{name}.log")));
        command.stdout(Stdio::null()).stderr(log.expect("a log file"));
        Running(command.spawn().expect("the program starts"))
    }

    /// Starts the daemon and waits until it answers.
    #[must_use]
    pub fn start_daemon(&self) -> Running {
        let running = self.start("roomscribe", &["run"]);
        wait_for("the box to answer", || self.run(&["status"]).status.success().then_some(()));
        running
    }
}

impl Default for TestBox {
    fn default() -> Self {
        Self::new()
    }
}

/// What `roomscribe process` gave for one file.
pub struct Processed {
    /// Exit code.
    pub code: Option<i32>,
    /// The line it printed.
    pub record: Value,
    /// What it said to people.
    pub said: String,
}

impl Processed {
    /// From a finished command.
    ///
    /// # Panics
    /// If it did not print exactly one line of JSON.
    #[must_use]
    pub fn of(output: Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let record = serde_json::from_slice(&output.stdout);
        Self { code: output.status.code(), record: record.unwrap_or_else(|_| panic!("no single record: {said}")), said }
    }
}

/// A program that is ended with its test.
pub struct Running(pub Child);

impl Running {
    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }

    /// Asks it to stop, and waits.
    ///
    /// # Panics
    /// If it does not.
    pub fn stop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it still runs");
        wait_for("the program to stop", || self.0.try_wait().ok().flatten());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The process that is `parent`'s engine of this kind, and how much processor time it has used.
#[must_use]
pub fn engine_of(parent: u32, kind: &str) -> Option<(rustix::process::Pid, Duration)> {
    children_of(parent).into_iter().find_map(|(pid, stat)| {
        let arguments = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
        arguments.split(|b| *b == 0).any(|a| a == kind.as_bytes()).then_some((pid, stat.used))
    })
}

/// What `/proc` says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `T` (stopped), `Z` (dead and not waited for), …
    pub state: char,
    /// Its parent.
    pub parent: u32,
    /// Its process group.
    pub group: i32,
    /// Processor time it has used itself.
    pub used: Duration,
}

/// What `/proc` says of a process, if there is one.
#[must_use]
pub fn stat(pid: rustix::process::Pid) -> Option<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields[0].chars().next()?,
        parent: fields[1].parse().ok()?,
        group: fields[2].parse().ok()?,
        used: Duration::from_millis(fields[11].parse::<u64>().ok()? * 10),
    })
}

/// Every process.
#[must_use]
pub fn processes() -> Vec<(rustix::process::Pid, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| rustix::process::Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Every child of a process, also those that are dead and not waited for.
#[must_use]
pub fn children_of(parent: u32) -> Vec<(rustix::process::Pid, Stat)> {
    processes().into_iter().filter(|(_, stat)| stat.parent == parent).collect()
}

/// Asks a server on a stream: the status and the answer, if both come.
fn request(stream: impl Read + Write, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    request_with(stream, method, path, "", body)
}

/// The same with further headers, each with the end of its line.
fn request_with(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Option<(u16, String)> {
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// What a server answers to a `GET` that it grants, as it stands.
#[must_use]
pub fn get_text(stream: impl Read + Write, path: &str) -> Option<String> {
    request(stream, "GET", path, "").filter(|(status, _)| *status == 200).map(|(_, body)| body)
}

/// The same for a program that has a token.
#[must_use]
pub fn get_text_with(stream: impl Read + Write, path: &str, token: &str) -> Option<String> {
    let headers = format!("Authorization: Bearer {token}\r\n");
    request_with(stream, "GET", path, &headers, "").filter(|(status, _)| *status == 200).map(|(_, body)| body)
}

/// A page of the box in `root`, as it stands.
#[must_use]
pub fn box_page(root: &Path, path: &str) -> Option<String> {
    let stream = UnixStream::connect(Root::new(root).find_control_socket()).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    get_text(stream, path)
}

/// What a server answers to a `GET` that it grants.
#[must_use]
pub fn get(stream: impl Read + Write, path: &str) -> Option<Value> {
    get_text(stream, path).map(|body| serde_json::from_str(&body).unwrap_or_default())
}

/// Asks the box in `root` over its control socket, and goes away after `patience`.
#[must_use]
pub fn call(root: &Path, method: &str, path: &str, body: &str, patience: Duration) -> Option<(u16, Value)> {
    let stream = UnixStream::connect(Root::new(root).find_control_socket()).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let (status, answer) = request(stream, method, path, body)?;
    Some((status, serde_json::from_str(&answer).unwrap_or_default()))
}

/// Prometheus' own tool must take a page of metrics without a word.
///
/// # Panics
/// If it does not, with its words.
pub fn promtool_accepts(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("promtool is installed: run ./dev setup");
    let written = promtool.stdin.take().map(|mut input| input.write_all(page.as_bytes()));
    let said = promtool.wait_with_output().expect("promtool ends");
    let words = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    let is_silent = said.status.success() && words.trim().is_empty() && matches!(written, Some(Ok(())));
    assert!(is_silent, "promtool: {words}\nof\n{page}");
}

/// Every record must fit the contract.
///
/// # Panics
/// If it does not, naming the places and never the content.
pub fn assert_fits_schema(record: &Value) {
    let schema: Value = serde_json::from_str(shared::record::SCHEMA).expect("the schema is JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("the schema is a schema");
    let places: Vec<String> = validator.iter_errors(record).map(|e| e.instance_path().to_string()).collect();
    assert!(places.is_empty(), "the record does not fit the schema at {places:?}");
}

/// The words of a record, for comparing: lower case, letters only.
#[must_use]
pub fn words(record: &Value) -> Vec<String> {
    let segments = record["segments"].as_array().map(Vec::as_slice).unwrap_or_default();
    segments.iter().flat_map(|s| plain(s["text"].as_str().unwrap_or_default())).collect()
}

/// The words of a text, for comparing.
#[must_use]
pub fn plain(text: &str) -> Vec<String> {
    let kept: String = text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || c.is_whitespace()).collect();
    kept.split_whitespace().map(str::to_owned).collect()
}

/// Words that must be inserted, deleted or replaced to get from `reference` to `heard`.
#[must_use]
pub fn word_errors(reference: &[String], heard: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (r, expected) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = r + 1;
        for (h, got) in heard.iter().enumerate() {
            let replaced = diagonal + usize::from(expected != got);
            diagonal = row[h + 1];
            row[h + 1] = replaced.min(row[h] + 1).min(row[h + 1] + 1);
        }
    }
    row[heard.len()]
}

/// Unpacks the conversation into `folder`.
///
/// # Panics
/// If `zstd` is not there to do it.
#[must_use]
pub fn conversation(folder: &Path) -> PathBuf {
    let wav = folder.join("conversation-30s.wav");
    let packed = fixture("audio/conversation-30s.wav.zst");
    let done = Command::new("zstd").args(["-qdf"]).arg(packed).arg("-o").arg(&wav).status();
    assert!(done.is_ok_and(|s| s.success()), "zstd is missing: run ./dev setup");
    wav
}

/// What is said in the conversation.
///
/// # Panics
/// If the fixture is damaged.
#[must_use]
pub fn conversation_reference() -> Value {
    let text = std::fs::read(fixture("audio/conversation-30s.json")).expect("the fixture is there");
    serde_json::from_slice(&text).expect("the fixture is JSON")
}
