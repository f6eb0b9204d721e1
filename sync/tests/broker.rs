//! Both daemons as they are, against a real Mosquitto on the loopback interface.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of a test may fail it")]

#[path = "broker/heard.rs"]
mod heard;
mod kit;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kit::{Process, free_port, mosquitto};
use shared::alert::{AlertName, evaluate};
use shared::breaker::{Service, StateName};
use shared::clock::{Clock as _, SystemClock, WallTime};
use shared::keys::BoxKeys;
use shared::paths::Root;
use shared::record::{
    Attempts, Consent, DiarizationStatus, Processing, Record, Said, Segment, SpeakerCount, Status, TimeQuality, VERSION,
};
use shared::seal::{Address, ClinicPublic, sha256};
use shared::store::{Finish, KeyStore, NewSession, OutboxState, Rates, SpeakerHint, Store};
use shared::wire::{Board, BoardAlert, BoxHealth, BreakerHealth, CaptureHealth, MAX_PARCEL_BYTES, QueueHealth, Topics};
use sync::clinic::store::ClinicStore;
use sync::mqtt::{MqttBroker, MqttLine};
use sync::uplink::{Broker as _, Identity, Line as _, Message, News, OFFLINE, Publication};
use tokio::time::{sleep, timeout};

const FIRST: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";
const LARGE: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a22";
const SECOND: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a33";
const PATIENCE: Duration = Duration::from_secs(20);

fn start(command: &mut Command) -> Process {
    Process::start(command.stdout(Stdio::null()))
}

fn terminate(process: &mut Process) -> Option<i32> {
    Command::new("kill").args(["-TERM", &process.0.id().to_string()]).status().unwrap();
    process.0.wait().unwrap().code()
}

fn start_mosquitto(folder: &Path, port: u16) -> Process {
    let settings = folder.join("mosquitto.conf");
    std::fs::write(&settings, format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_type none\n")).unwrap();
    start(mosquitto().arg("-c").arg(settings))
}

struct World {
    folder: tempfile::TempDir,
    port: u16,
    store: Store,
    clinic: ClinicPublic,
    topics: Topics,
}

fn answer(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl World {
    /// A clinic and a box enrolled at it, made by the commands that a person would use.
    fn new() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let command = |program: &str| {
            let mut command = Command::new(program);
            command.arg("--root").arg(folder.path());
            command
        };
        let (clinic, link) = (env!("CARGO_BIN_EXE_roomscribe-clinic"), folder.path().join("link.toml"));
        let (broker, listen) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", free_port()));
        answer(
            command(clinic)
                .args(["init", "--plain", "--clinic", "north", "--server", "server-1", "--broker", &broker])
                .args(["--listen", &listen]),
        );
        let invitation = answer(command(clinic).args(["invite", "room-1"])) + "ack_timeout = 2.0\n";
        std::fs::write(&link, invitation).unwrap();
        answer(command(env!("CARGO_BIN_EXE_roomscribe-sync")).args(["enrol", "--from"]).arg(&link));
        let settings = shared::settings::Settings::load(&Root::new(folder.path()), |_| None).unwrap();
        let link = settings.link.unwrap();
        let root = Root::new(folder.path());
        let keys = KeyStore::open(&root.key_store(), BoxKeys::find(&root, None).unwrap().keys).unwrap();
        let store = Store::open(&root.database()).unwrap().sealing_with(Arc::new(keys));
        let clinic = ClinicPublic::from_hex(&link.sealing_key, &link.signing_key).unwrap();
        Self { folder, port, store, clinic, topics: Topics::new("north") }
    }

    fn daemon(&self, program: &str) -> Process {
        start(Command::new(program).arg("--root").arg(self.folder.path()).arg("run"))
    }

    fn show(&self, session: &str) -> String {
        let program = env!("CARGO_BIN_EXE_roomscribe-clinic");
        answer(Command::new(program).arg("--root").arg(self.folder.path()).args(["show", session]))
    }

    fn room(&self) -> Process {
        self.daemon(env!("CARGO_BIN_EXE_roomscribe-sync"))
    }

    fn now(&self) -> WallTime {
        SystemClock::new().now().wall
    }

    /// Puts a finished session into the box's store, as the recorder does.
    fn finish(&self, session: &str, parcel: &[u8]) {
        let now = self.now();
        let consent = Consent { basis: "verbal".into(), by: None, at: now.to_string() };
        let (time_quality, status) = (TimeQuality::Synchronized, Status::Recording);
        let new = NewSession {
            id: session.into(),
            started_at: now,
            time_quality,
            consent,
            status,
            speakers: SpeakerHint::default(),
        };
        self.store.begin_session(&new, now).unwrap();
        let finish = Finish {
            session,
            status: Status::Done,
            diarization_status: DiarizationStatus::Ok,
            error: None,
            record: b"{}",
            revision: 1,
            parcel: Some((parcel, &sha256(parcel))),
        };
        self.store.finish(&finish, now).unwrap();
    }

    fn seal(&self, session: &str) -> Vec<u8> {
        let address = Address { clinic: "north", box_id: "room-1", session, revision: 1 };
        self.clinic.seal(&record(session, self.now()), &address).unwrap()
    }

    fn says(&self, transcription: StateName, failure_count: u32) {
        let breaker = |state, failure_count| BreakerHealth {
            state,
            failure_count,
            retry_after_s: None,
            open_s: None,
            reason: None,
        };
        let breakers = BTreeMap::from([
            (Service::Transcription, breaker(transcription, failure_count)),
            (Service::Diarization, breaker(StateName::Closed, 0)),
        ]);
        let health = BoxHealth {
            version: 1,
            box_id: "room-1".into(),
            at: self.now().to_string(),
            time_quality: TimeQuality::Synchronized,
            queue: QueueHealth::default(),
            capture: CaptureHealth { state: "idle".into(), recorded_s: 0.0, peak_dbfs: None },
            board: shared::wire::BoardHealth::default(),
            transcriber: None,
            alerts: evaluate(&Rates::default(), &breakers),
            breakers,
            rates: Rates::default(),
            software: "0".into(),
        };
        self.store.keep_health(&health).unwrap();
    }

    async fn settled(&self, session: &str) -> OutboxState {
        let asked = async {
            loop {
                match self.store.outbox_state(session, 1).unwrap() {
                    Some(OutboxState::Pending) | None => sleep(Duration::from_millis(50)).await,
                    Some(state) => return state,
                }
            }
        };
        timeout(PATIENCE, asked).await.expect("the clinic has not answered")
    }

    /// A line of its own, as soon as there is a broker.
    async fn stranger(&self) -> MqttLine {
        let will = Publication::retained(self.topics.board_status("stranger"), OFFLINE);
        let (client_id, host) = (format!("test-{}", uuid::Uuid::new_v4()), "127.0.0.1".to_owned());
        let identity = Identity { client_id, host, port: self.port, will, session_expiry_s: 0, credentials: None };
        let mut broker = MqttBroker::new(identity);
        let connected = async {
            loop {
                match broker.connect().await {
                    Ok(line) => return line,
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        timeout(PATIENCE, connected).await.expect("there is no broker")
    }

    /// Waits, as a fresh subscriber, for a message that fits; the first is what the broker had kept.
    async fn hears(&self, topic: &str, fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let heard = async {
            let mut line = self.stranger().await;
            line.subscribe(&[topic.to_owned()]).await.unwrap();
            loop {
                if let News::Message(message) = line.next().await.unwrap() {
                    line.settle(message.receipt).await.unwrap();
                    if fits(&message.payload) {
                        return message.payload;
                    }
                }
            }
        };
        timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("nothing that fits on {topic}"))
    }

    /// Every alert that the broker keeps.
    async fn alerts_kept(&self) -> BTreeMap<String, BoardAlert> {
        let mut line = self.stranger().await;
        line.subscribe(&AlertName::ALL.map(|alert| self.topics.board_alert(alert, "+"))).await.unwrap();
        let mut kept = BTreeMap::new();
        while let Ok(news) = timeout(Duration::from_millis(300), line.next()).await {
            if let News::Message(Message { topic, payload, retained: true, .. }) = news.unwrap() {
                kept.insert(topic, serde_json::from_slice(&payload).unwrap());
            }
        }
        kept
    }

    /// Waits until the broker keeps exactly these alerts.
    async fn keeps_alerts(&self, topics: &[String]) -> BTreeMap<String, BoardAlert> {
        let asked = async {
            loop {
                let kept = self.alerts_kept().await;
                if kept.keys().eq(topics) {
                    return kept;
                }
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("the broker does not keep exactly {topics:?}"))
    }

    /// Hears everything; the large parcel is none, on purpose.
    fn listener(&self) -> heard::Listener {
        heard::Listener::start(self.port, &self.topics, self.topics.parcel("room-1", LARGE, 1))
    }

    async fn board(&self, fits: impl Fn(&Board) -> bool) -> Board {
        let topic = self.topics.board_breakers();
        let heard = self.hears(&topic, |json| fits(&serde_json::from_slice(json).unwrap())).await;
        serde_json::from_slice(&heard).unwrap()
    }
}

fn record(session: &str, now: WallTime) -> Record {
    Record {
        version: VERSION,
        session_id: session.into(),
        box_id: "room-1".into(),
        revision: 1,
        status: Status::Done,
        diarization_status: DiarizationStatus::Ok,
        error_message: None,
        error: None,
        started_at: now.to_string(),
        ended_at: now.to_string(),
        duration_s: 0.0,
        time_quality: TimeQuality::Synchronized,
        consent: Consent { basis: "verbal".into(), by: None, at: now.to_string() },
        speakers: vec![],
        speaker_count: SpeakerCount { best: 0, maybe: None },
        segments: vec![Segment {
            start: 1.0,
            end: 2.0,
            speaker: "Speaker 1".into(),
            text: Said("hello".into()),
            model: "m".into(),
            words: vec![],
            flags: vec![],
            evidence: None,
        }],
        gaps: vec![],
        models: vec![],
        attempts: Attempts::default(),
        processing: Processing::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_once_and_breakers_are_published_through_a_real_broker_that_dies() {
    let world = World::new();
    let mut broker = start_mosquitto(world.folder.path(), world.port);
    let listener = world.listener();
    let mut clinic = world.daemon(env!("CARGO_BIN_EXE_roomscribe-clinic"));
    let mut room = world.room();

    world.says(StateName::Closed, 0);
    world.finish(FIRST, &world.seal(FIRST));
    assert_eq!(world.settled(FIRST).await, OutboxState::Acknowledged);

    // The largest parcel passes both ways; as it holds no record, the clinic says so.
    world.finish(LARGE, &vec![7; MAX_PARCEL_BYTES]);
    assert_eq!(world.settled(LARGE).await, OutboxState::Refused);

    let seen = |board: &Board| !board.breakers.is_empty() && board.breakers.iter().all(|b| b.online);
    let board = world.board(seen).await;
    assert_eq!((board.worst.transcription_circuit, board.worst.transcription_failures), (StateName::Closed, 0));
    world.says(StateName::Open, 5);
    let board = world.board(|board| board.worst.transcription_circuit == StateName::Open).await;
    assert_eq!((board.clinic.as_str(), board.worst.transcription_failures), ("north", 5));
    let topic = world.topics.board_breaker("room-1", Service::Transcription);
    // It is published after the board, and what it said before is retained.
    let read = |payload: &[u8]| serde_json::from_slice::<serde_json::Value>(payload).unwrap();
    let one = read(&world.hears(&topic, |payload| read(payload)["state"] != "CLOSED").await);
    assert_eq!((&one["state"], &one["failure_count"], &one["online"]), (&"OPEN".into(), &5.into(), &true.into()));

    broker.kill();
    world.finish(SECOND, &world.seal(SECOND));
    let _broker = start_mosquitto(world.folder.path(), world.port);
    assert_eq!(world.settled(SECOND).await, OutboxState::Acknowledged);
    world.board(|board| seen(board) && board.worst.transcription_circuit == StateName::Open).await;

    let root = Root::new(world.folder.path());
    let held = ClinicStore::open(&root.clinic().join("clinic.db")).unwrap();
    let mut sessions: Vec<String> = held.sessions(9).unwrap().into_iter().map(|s| s.session_id).collect();
    sessions.sort();
    assert_eq!(sessions, [FIRST, SECOND], "each once");
    assert!(held.held(LARGE, 1).unwrap().is_none());
    assert!(world.show(SECOND).ends_with("\n\n[00:01.0] Speaker 1: hello\n"));

    let status = world.topics.status("room-1");
    world.hears(&status, |payload| payload == b"online").await;
    room.kill();
    world.hears(&status, |payload| payload == b"offline").await;
    let mut room = world.room();
    world.hears(&status, |payload| payload == b"online").await;
    assert_eq!((terminate(&mut room), terminate(&mut clinic)), (Some(0), Some(0)));
    world.hears(&status, |payload| payload == b"offline").await;
    world.hears(&world.topics.board_status("server-1"), |payload| payload == b"offline").await;
    listener.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_broker_keeps_exactly_the_alerts_that_hold_whatever_dies_meanwhile() {
    let world = World::new();
    let mut broker = start_mosquitto(world.folder.path(), world.port);
    let listener = world.listener();
    let start_clinic = || world.daemon(env!("CARGO_BIN_EXE_roomscribe-clinic"));
    let mut clinic = start_clinic();
    let mut room = world.room();
    let (open, long_over) = (world.topics.board_alert(AlertName::BreakerOpen, "room-1"), AlertName::RetryExhaustion);
    let long_over = world.topics.board_alert(long_over, "room-1");

    world.says(StateName::Closed, 0);
    world.board(|board| !board.breakers.is_empty()).await;
    assert!(world.alerts_kept().await.is_empty());
    world.says(StateName::Open, 5);
    let kept = world.keeps_alerts(std::slice::from_ref(&open)).await;
    let since = kept[&open].since.clone();
    assert!(kept[&open].online && kept[&open].alert.services == [Service::Transcription]);

    // The server is away while another alert is left behind: it holds on to the one and clears the other.
    clinic.kill();
    let mut stale = kept[&open].clone();
    stale.alert.alert = AlertName::RetryExhaustion;
    let mut stranger = world.stranger().await;
    let stale = Publication::retained(long_over.clone(), serde_json::to_vec(&stale).unwrap());
    stranger.publish(stale).await.unwrap();
    world.hears(&long_over, |_| true).await;
    let mut clinic = start_clinic();
    assert_eq!(world.keeps_alerts(std::slice::from_ref(&open)).await[&open].since, since);

    // A broker that has forgotten everything is told again.
    broker.kill();
    let _broker = start_mosquitto(world.folder.path(), world.port);
    assert_eq!(world.keeps_alerts(std::slice::from_ref(&open)).await[&open].since, since);

    // An alert of a box that is gone stays, as last known; it ends when the box says so.
    world.hears(&world.topics.status("room-1"), |payload| payload == b"online").await;
    room.kill();
    world.hears(&open, |json| serde_json::from_slice(json).is_ok_and(|held: BoardAlert| !held.online)).await;
    world.says(StateName::Closed, 0);
    let mut room = world.room();
    world.keeps_alerts(&[]).await;
    assert_eq!((terminate(&mut room), terminate(&mut clinic)), (Some(0), Some(0)));
    listener.end();
}
