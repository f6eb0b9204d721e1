//! A clinic with something to show, in a folder of the test.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use shared::alert::evaluate;
use shared::breaker::{Service, StateName};
use shared::clock::{Clock as _, SystemClock, WallTime};
use shared::paths::Root;
use shared::record::{
    Attempts, Consent, DiarizationStatus, Flag, Gap, GapCause, Processing, Record, RecordError, Said, Segment, Speaker,
    SpeakerCount, Status, TimeQuality, UNKNOWN_SPEAKER, VERSION,
};
use shared::seal::{Address, ClinicPublic};
use shared::store::Rates;
use shared::wire::{BoardHealth, BoxHealth, BreakerHealth, CaptureHealth, QueueHealth, Topics};
use sync::clinic::Clinic;
use sync::clinic::ingest::{Label, take};
use sync::clinic::settings::ClinicSettings;
use sync::clinic::setup;
use sync::clinic::store::ClinicStore;
use sync::mqtt::{MqttBroker, MqttLine};
use sync::pki::{Authority, Holder};
use sync::uplink::{Broker as _, Identity, Line as _, ONLINE, Publication};

pub const PASSWORD: &str = "correct horse battery";
pub const SESSION: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";
pub const SAID: &str = "I slept a little better this week";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// axe-core, as `./dev setup` fetches it.
pub fn axe() -> String {
    let fetched = std::env::var_os("ROOMSCRIBE_TEST_CHECKS").map(PathBuf::from);
    let folder = fetched.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/checks"));
    let file = folder.join("axe-core/axe.min.js");
    std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{} is missing: run ./dev setup", file.display()))
}

/// A process that does not outlive its test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct World {
    root: Root,
    port: u16,
    https: u16,
    _processes: [Process; 2],
    _folder: tempfile::TempDir,
}

fn done(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn clinic(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomscribe-clinic"));
    command.arg("--root").arg(folder);
    command
}

fn add_user(folder: &Path, name: &str, role: &str) {
    let mut command = clinic(folder);
    let mut child = command
        .args(["user", "add", name, "--role", role])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn write(path: &Path, text: &str, mode: u32) {
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A certificate as another authority would make it, and where HTTPS is served with it.
fn serve_https(root: &Root, port: u16, now: WallTime) {
    let authority = Authority::open(&Authority::generate("elsewhere", now).unwrap()).unwrap();
    let pair = authority.issue(Holder::Site(&["localhost".to_owned()]), now).unwrap();
    write(&root.clinic().join("site.pem"), &pair.certificate, 0o644);
    write(&root.clinic().join("site.key"), &pair.key, 0o600);
    let mut settings = std::fs::OpenOptions::new().append(true).open(root.clinic().join("clinic.toml")).unwrap();
    let lines =
        format!("dashboard = \"127.0.0.1:{port}\"\ncertificate = \"site.pem\"\ncertificate_key = \"site.key\"\n");
    settings.write_all(lines.as_bytes()).unwrap();
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, https, listen) = (super::free_port(), super::free_port(), super::free_port());
        let (broker, listen) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{listen}"));
        done(
            clinic(folder.path())
                .args(["init", "--plain", "--clinic", "north", "--broker", &broker, "--listen", &listen]),
        );
        let (root, now) = (Root::new(folder.path()), SystemClock::new().now().wall);
        serve_https(&root, https, now);
        add_user(folder.path(), "anna", "clinician");
        add_user(folder.path(), "otto", "admin");
        fill(&root, now);
        let programs = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"].map(PathBuf::from);
        let mosquitto = programs.iter().find(|p| p.exists()).expect("install mosquitto");
        let settings = folder.path().join("mosquitto.conf");
        write(&settings, &format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_type none\n"), 0o644);
        let broker = Process::start(Command::new(mosquitto).arg("-c").arg(settings));
        let server = Process::start(clinic(folder.path()).arg("run"));
        super::wait_for("the clinic", || std::net::TcpStream::connect(("127.0.0.1", https)).ok());
        Self { root, port, https, _processes: [server, broker], _folder: folder }
    }

    pub fn at(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https)
    }

    /// Who has read what was said, by the audit.
    pub fn read_by(&self) -> Vec<String> {
        let store = ClinicStore::open(&self.root.clinic().join("clinic.db")).unwrap();
        let rows = store.access_log(1000).unwrap();
        rows.into_iter().filter(|row| row.what == "read").map(|row| row.who).collect()
    }

    /// A box's line to the broker.
    pub async fn room(&self, id: &str) -> MqttLine {
        let topics = Topics::new("north");
        let will = Publication::retained(topics.status(id), "offline");
        let (client_id, host) = (id.to_owned(), "127.0.0.1".to_owned());
        let identity = Identity { client_id, host, port: self.port, will, session_expiry_s: 0, credentials: None };
        let mut broker = MqttBroker::new(identity);
        for _ in 0..100 {
            if let Ok(mut line) = broker.connect().await {
                line.publish(Publication::retained(topics.status(id), ONLINE)).await.unwrap();
                return line;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("there is no broker");
    }

    /// Says how the box is, as its sync daemon does.
    pub async fn says(&self, line: &mut MqttLine, transcription: StateName, failed: u32) {
        let health = health("room-1", transcription, failed, SystemClock::new().now().wall);
        let json = serde_json::to_vec(&health).unwrap();
        line.publish(Publication::retained(Topics::new("north").health("room-1"), json)).await.unwrap();
        // The line moves while it is asked for news; there are none.
        let _ = tokio::time::timeout(Duration::from_millis(500), async {
            loop {
                line.next().await.unwrap();
            }
        })
        .await;
    }
}

fn health(id: &str, transcription: StateName, failure_count: u32, now: WallTime) -> BoxHealth {
    let wait = (transcription == StateName::Open).then_some(60);
    let breaker = |state, failure_count, retry_after_s| BreakerHealth {
        state,
        failure_count,
        retry_after_s,
        open_s: None,
        reason: None,
    };
    let breakers = std::collections::BTreeMap::from([
        (Service::Transcription, breaker(transcription, failure_count, wait)),
        (Service::Diarization, breaker(StateName::Closed, 0, None)),
        (Service::Sync, breaker(StateName::Closed, 0, None)),
    ]);
    BoxHealth {
        version: 1,
        box_id: id.into(),
        at: now.to_string(),
        time_quality: TimeQuality::Synchronized,
        queue: QueueHealth { recording: 1, queued: 2, unacknowledged: 1, dead_lettered: 1 },
        capture: CaptureHealth { state: "recording".into(), recorded_s: 1265.0, peak_dbfs: None },
        board: BoardHealth { celsius: Some(61.4), ..BoardHealth::default() },
        transcriber: Some("base.en".into()),
        alerts: evaluate(&Rates::default(), &breakers),
        breakers,
        rates: Rates::default(),
        software: "0.1.0".into(),
    }
}

/// Sessions, failures, another room, and a day of history.
fn fill(root: &Root, now: WallTime) {
    let settings = ClinicSettings::load(root).unwrap();
    let (keys, store) = (setup::keys(root).unwrap(), ClinicStore::open(&settings.database(root)).unwrap());
    let (sealing, signing) = keys.public_hex();
    let public = ClinicPublic::from_hex(&sealing, &signing).unwrap();
    let clinic = Clinic::new(settings, keys, store, Arc::new(SystemClock::new()));
    let ago = |minutes: u64| WallTime(now.0 - i64::try_from(minutes * 60_000).unwrap());
    let mut all = vec![conversation(ago(130))];
    for n in 0..5 {
        all.push(failed(&format!("7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0b{n:02}"), ago(300 + 70 * n), n));
    }
    for record in &all {
        let label = Label { box_id: record.box_id.clone(), session: record.session_id.clone(), revision: 1 };
        let address = Address { clinic: "north", box_id: &record.box_id, session: &record.session_id, revision: 1 };
        take(&clinic, &label, &public.seal(record, &address).unwrap()).unwrap();
    }
    clinic.store.keep_box_health(&health("room-2", StateName::HalfOpen, 3, ago(200)), Some(ago(200))).unwrap();
    let mut at = now.0 - i64::try_from(DAY.as_millis()).unwrap();
    for step in 0..288u32 {
        at += 300_000;
        // Nothing was heard for two hours.
        if (120..144).contains(&step) {
            continue;
        }
        let wave = f64::from(step) / 20.0;
        let mut said = health("room-1", StateName::Closed, 0, now);
        said.queue.queued = (3.0 + 3.0 * wave.sin()).round() as u64;
        said.queue.unacknowledged = u64::from(step % 50 < 6);
        said.rates.transcription.total = 40;
        said.rates.transcription.failed = if step > 260 { 4 } else { u64::from(step % 40 == 0) };
        said.rates.diarization.total = 40;
        said.rates.diarization.failed = (1.5 + 1.5 * (wave / 2.0).cos()).round() as u64;
        said.rates.processing = vec![(3000.0, 40.0 + 20.0 * (wave / 3.0).sin())];
        clinic.store.keep_history(&said, WallTime(at)).unwrap();
    }
}

fn conversation(at: WallTime) -> Record {
    let lines = [
        (2.0, "Speaker 1", "Good morning. How have you been since we last met?", vec![]),
        (
            7.5,
            "Speaker 2",
            "Better, I think. I slept a little better this week, and I went for a walk on Sunday.",
            vec![],
        ),
        (15.0, "Speaker 1", "What was it like to go out again?", vec![]),
        (19.0, "Speaker 2", "Strange at first. Then it was good to see people.", vec![Flag::LowConfidence]),
        (128.0, "Speaker 1", "We are back. Shall we go on where we stopped?", vec![]),
        (133.0, UNKNOWN_SPEAKER, "Yes, let us.", vec![Flag::Overlap]),
        (140.0, "Speaker 2", "<b>I wrote it down</b> as you suggested & read it again.", vec![]),
    ];
    let segments = lines.map(|(start, speaker, text, flags)| Segment {
        start,
        end: start + 4.0,
        speaker: speaker.into(),
        text: Said(text.into()),
        model: "m".into(),
        words: vec![],
        flags,
        evidence: None,
    });
    let speaker =
        |label: &str, role: Option<&str>, seconds| Speaker { label: label.into(), role: role.map(Into::into), seconds };
    Record {
        version: VERSION,
        session_id: SESSION.into(),
        box_id: "room-1".into(),
        revision: 1,
        status: Status::Done,
        diarization_status: DiarizationStatus::Ok,
        error_message: None,
        error: None,
        started_at: at.to_string(),
        ended_at: at.plus(Duration::from_secs(3000)).to_string(),
        duration_s: 3000.0,
        time_quality: TimeQuality::Synchronized,
        consent: Consent { basis: "written".into(), by: None, at: at.to_string() },
        speakers: vec![speaker("Speaker 1", Some("therapist"), 1200.0), speaker("Speaker 2", None, 1650.0)],
        speaker_count: SpeakerCount { best: 2, maybe: None },
        segments: segments.into(),
        gaps: vec![
            Gap { start: 30.0, end: 125.0, cause: GapCause::OffRecord },
            Gap { start: 150.0, end: 154.2, cause: GapCause::PowerLoss },
        ],
        models: vec![],
        attempts: Attempts::default(),
        processing: Processing::default(),
    }
}

fn failed(session: &str, at: WallTime, n: u64) -> Record {
    let message = if n.is_multiple_of(3) {
        "Retry exhausted: Transcription failed: The engine's deadline passed"
    } else {
        "Retry exhausted: Transcription failed: The engine process was killed by a signal"
    };
    Record {
        session_id: session.into(),
        status: Status::Failed,
        diarization_status: DiarizationStatus::Skipped,
        error_message: Some(message.into()),
        error: Some(RecordError { error_type: "TranscriptionError".into(), chain: vec![message.into()] }),
        speakers: vec![],
        segments: vec![],
        gaps: vec![],
        ..conversation(at)
    }
}
