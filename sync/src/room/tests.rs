use super::*;
use crate::uplink::scripted::{Far, ScriptedBroker};
use shared::chance::SeededDice;
use shared::clock::{ScriptedClock, WallTime};
use shared::keys::{BoxKey, BoxKeys};
use shared::record::{Consent, DiarizationStatus, Status, TimeQuality};
use shared::seal::{Ack, AckResult, ClinicKeys, sha256};
use shared::store::{BreakerCommand, Finish, KeyStore, NewSession, OutboxState, SpeakerHint};

const NOW: WallTime = WallTime(1_767_225_600_000);
const A: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";
const B: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a22";

struct World {
    _folder: tempfile::TempDir,
    store: Arc<Store>,
    /// As the recorder has it: with keys.
    recorder: Store,
    clock: Arc<ScriptedClock>,
    keys: ClinicKeys,
}

fn recorder(folder: &std::path::Path) -> Store {
    let boxes = BoxKeys::only(BoxKey::generate().unwrap());
    let keys = KeyStore::open(&folder.join("keys.db"), boxes).unwrap();
    Store::open(&folder.join("box.db")).unwrap().sealing_with(Arc::new(keys))
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, store) = (recorder(folder.path()), Store::open(&folder.path().join("box.db")).unwrap());
        let store = Arc::new(store);
        Self { _folder: folder, store, recorder, clock: Arc::default(), keys: ClinicKeys::generate() }
    }

    fn owe(&self, session: &str, parcel: &[u8]) {
        let consent = Consent { basis: "verbal".into(), by: None, at: NOW.to_string() };
        let (time_quality, status) = (TimeQuality::Synchronized, Status::Recording);
        let new = NewSession {
            id: session.into(),
            started_at: NOW,
            time_quality,
            consent,
            status,
            speakers: SpeakerHint::default(),
        };
        self.recorder.begin_session(&new, NOW).unwrap();
        let finish = Finish {
            session,
            status: Status::Done,
            diarization_status: DiarizationStatus::Ok,
            error: None,
            record: b"{}",
            revision: 1,
            parcel: Some((parcel, &sha256(parcel))),
        };
        self.recorder.finish(&finish, NOW).unwrap();
    }

    fn room(&self) -> Room {
        let (sealing_key, signing_key) = self.keys.public_hex();
        let keys = ClinicPublic::from_hex(&sealing_key, &signing_key).unwrap();
        let link = Link {
            clinic: "north".into(),
            box_id: "room-1".into(),
            broker_host: "localhost".into(),
            broker_port: 1883,
            sealing_key,
            signing_key,
            ack_timeout: 30.0,
        };
        let (root, allow) = (Root::new(self._folder.path()), Vec::new());
        Room { store: self.store.clone(), link, keys, clock: self.clock.clone(), root, allow }
    }

    fn ack(&self, session: &str, parcel: &[u8]) -> Ack {
        let ack = Ack {
            version: 1,
            session: session.into(),
            revision: 1,
            sha256: sha256(parcel),
            result: AckResult::Stored,
            reason: None,
            stored_at: NOW.to_string(),
            key_id: String::new(),
            signature: String::new(),
        };
        self.keys.sign(&ack, "north", "room-1").remove(0)
    }

    fn state(&self, session: &str) -> OutboxState {
        self.store.outbox_state(session, 1).unwrap().unwrap()
    }
}

fn keeper(stop: Stop) -> Keeper {
    Keeper { dice: Box::new(SeededDice::from_seed(1)), stop, heart: Heart::unwatched(), gate: None }
}

/// Runs a room against a script; the room is stopped when the script ends.
async fn play(world: &World, broker: ScriptedBroker, script: impl Future<Output = ()>) {
    let (stopper, stop) = Stop::new();
    let room = run(broker, world.room(), keeper(stop));
    tokio::join!(room, async {
        script.await;
        stopper.stop();
    });
}

fn acked(far: &Far, ack: &Ack, receipt: u16) {
    far.send("roomscribe/v1/north/room-1/ack", &serde_json::to_vec(ack).unwrap(), receipt);
}

async fn parcel(far: &mut Far) -> Publication {
    loop {
        let publication = far.take().await;
        if publication.topic.contains("/parcel/") {
            return publication;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_box_says_that_it_is_there_then_what_it_owes_and_at_the_end_that_it_is_gone() {
    let world = World::new();
    world.owe(A, b"parcel");
    let (broker, [mut far]) = ScriptedBroker::new(None);
    let log = far.log.clone();
    play(&world, broker, async {
        assert_eq!(far.take().await, Publication::retained("roomscribe/v1/north/room-1/status".into(), ONLINE));
        for _ in 0..2 {
            assert_eq!(far.take().await.topic, "roomscribe/v1/north/room-1/event");
        }
        assert_eq!(far.take().await, Publication::once(format!("roomscribe/v1/north/room-1/parcel/{A}/1"), "parcel"));
        tokio::time::sleep(POLL).await;
        assert!(world.store.unsent_events(9).unwrap().is_empty(), "the broker has them");
    })
    .await;
    let log = log.lock().unwrap();
    assert_eq!(log[0], "subscribe roomscribe/v1/north/room-1/ack");
    assert_eq!(log[log.len() - 2..], ["publish roomscribe/v1/north/room-1/status", "close"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_clinics_word_on_exactly_these_bytes_ends_the_debt() {
    let world = World::new();
    world.owe(A, b"parcel");
    let (broker, [mut far]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        parcel(&mut far).await;
        let forged = Ack { signature: "00".repeat(64), ..world.ack(A, b"parcel") };
        acked(&far, &forged, 1);
        acked(&far, &world.ack(A, b"other"), 2);
        far.send("roomscribe/v1/north/room-1/ack", b"stored", 3);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.state(A), OutboxState::Pending);
        acked(&far, &world.ack(A, b"parcel"), 4);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(world.state(A), OutboxState::Acknowledged);
        let log = far.log.lock().unwrap();
        let settled: Vec<_> = log.iter().filter(|l| l.starts_with("settle")).collect();
        assert_eq!(settled, ["settle 1", "settle 2", "settle 3", "settle 4"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_parcel_lost_with_its_line_is_sent_on_the_next() {
    let world = World::new();
    world.owe(A, b"parcel");
    let (broker, [mut first, mut second]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        parcel(&mut first).await;
        first.cut();
        assert_eq!(parcel(&mut second).await.payload, b"parcel");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_parcel_over_the_brokers_limit_blocks_no_other() {
    let world = World::new();
    world.owe(A, &[7; 5000]);
    world.owe(B, b"small");
    let (broker, [mut far]) = ScriptedBroker::new(Some(2000));
    play(&world, broker, async {
        assert_eq!(parcel(&mut far).await.payload, b"small");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(far.published.try_recv().is_err());
    })
    .await;
}

/// A recorder that died used to look idle and well for ever.
#[tokio::test(start_paused = true)]
async fn a_recorder_that_says_nothing_any_more_does_not_look_idle() {
    let world = World::new();
    let capture = shared::wire::CaptureHealth { state: "idle".into(), recorded_s: 0.0, peak_dbfs: None };
    let health = BoxHealth {
        version: 1,
        box_id: "room-1".into(),
        at: NOW.to_string(),
        time_quality: TimeQuality::Synchronized,
        breakers: std::collections::BTreeMap::new(),
        queue: shared::wire::QueueHealth::default(),
        capture,
        board: shared::wire::BoardHealth::default(),
        transcriber: None,
        alerts: Vec::new(),
        rates: shared::store::Rates::default(),
        software: "0".into(),
    };
    world.store.keep_health(&health).unwrap();
    let (broker, [mut far]) = ScriptedBroker::new(None);
    play(&world, broker, async {
        let state = async |far: &mut Far| loop {
            let publication = far.take().await;
            if publication.topic.ends_with("/health") {
                let said: BoxHealth = serde_json::from_slice(&publication.payload).unwrap();
                return said.capture.state;
            }
        };
        assert_eq!(state(&mut far).await, "idle");
        world.clock.pass(Duration::from_secs(31));
        assert_eq!(state(&mut far).await, "silent");
        world.store.keep_health(&BoxHealth { at: NOW.plus(Duration::from_secs(40)).to_string(), ..health }).unwrap();
        world.clock.pass(Duration::from_secs(2));
        assert_eq!(state(&mut far).await, "idle");
    })
    .await;
}

/// A person who looks for a fault must be able to keep a box off the line.
#[tokio::test(start_paused = true)]
async fn a_breaker_that_a_person_opens_ends_the_line_and_a_reset_brings_it_back_with_what_is_owed() {
    let gated = crate::gate::fixture::World::new();
    let recorder = recorder(gated.folder.path());
    let world = World { store: gated.store.clone(), recorder, ..World::new() };
    let (broker, [mut first, mut second]) = ScriptedBroker::new(None);
    let tries = broker.tries();
    let (stopper, stop) = Stop::new();
    let keeper = Keeper { gate: Some(gated.gate()), ..keeper(stop) };
    tokio::join!(run(broker, world.room(), keeper), async {
        assert_eq!(first.take().await.payload, ONLINE.as_bytes());
        gated.person(BreakerCommand::ForceOpen);
        let ended = async { while first.published.recv().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(2), ended).await.expect("the line is given up");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(tries.lock().unwrap().len(), 1, "no other is tried");
        world.owe(A, b"parcel");
        gated.person(BreakerCommand::Reset);
        let begun = tokio::time::Instant::now();
        assert_eq!(parcel(&mut second).await.payload, b"parcel");
        assert!(begun.elapsed() <= Duration::from_secs(2));
        stopper.stop();
    });
}
