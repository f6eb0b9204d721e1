use super::*;
use shared::breaker::Service;
use shared::seal::ClinicKeys;
use std::sync::Mutex;

const NOW: WallTime = WallTime(1_790_000_000_000);
const ID: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";

/// A recorder whose answer is scripted, and that keeps what it was asked.
struct Scripted {
    answer: Option<(u16, Option<String>)>,
    asked: Mutex<Vec<String>>,
}

impl Recorder for Scripted {
    async fn ask(&self, method: Method, path: &str, _body: Value) -> Option<(u16, Option<String>)> {
        self.asked.lock().unwrap().push(format!("{method} {path}"));
        self.answer.clone()
    }
}

struct World {
    _folder: tempfile::TempDir,
    store: Store,
    keys: ClinicKeys,
    recorder: Scripted,
    allow: Vec<CommandName>,
    later: Duration,
    is_synchronized: bool,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("box.db")).unwrap();
        let recorder = Scripted { answer: Some((200, None)), asked: Mutex::default() };
        let allow = CommandName::ALL.to_vec();
        let (keys, later) = (ClinicKeys::generate(), Duration::ZERO);
        Self { _folder: folder, store, keys, recorder, allow, later, is_synchronized: true }
    }

    async fn heed(&self, payload: &[u8]) -> Option<Answer> {
        let (sealing, signing) = self.keys.public_hex();
        let keys = ClinicPublic::from_hex(&sealing, &signing).unwrap();
        let (allow, now, is_synchronized) = (&self.allow, NOW.plus(self.later), self.is_synchronized);
        let judge = Judge { keys: &keys, clinic: "north", box_id: "room-1", allow, now, is_synchronized };
        heed(payload, &judge, &self.store, &self.recorder).await.unwrap()
    }

    async fn order(&self, order: &Order) -> Option<Answer> {
        self.heed(&serde_json::to_vec(&self.keys.command(order)[0]).unwrap()).await
    }

    fn asked(&self) -> Vec<String> {
        self.recorder.asked.lock().unwrap().clone()
    }
}

fn order(name: CommandName) -> Order {
    Order {
        version: 1,
        id: ID.into(),
        clinic: "north".into(),
        box_id: "room-1".into(),
        name,
        session: Some(ID.into()),
        service: Some(Service::Transcription),
        consent: Some("verbal".into()),
        by: "administrator".into(),
        issued_at: NOW.to_string(),
        valid_for_s: 60,
    }
}

#[tokio::test]
async fn each_order_is_one_request_to_the_recorder_and_is_in_the_audit_log() {
    let expected = [
        "POST /sessions".to_owned(),
        "POST /sessions/current/stop".into(),
        "POST /sessions/current/pause".into(),
        "POST /sessions/current/resume".into(),
        format!("POST /sessions/{ID}/withdraw"),
        "POST /breakers/transcription/reset".into(),
        format!("POST /queue/{ID}/retry"),
        "GET /health/audio-processing".into(),
    ];
    let world = World::new();
    for (n, name) in CommandName::ALL.into_iter().enumerate() {
        let id = format!("7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0b{n:02}");
        let answer = world.order(&Order { id: id.clone(), ..order(name) }).await.unwrap();
        assert_eq!((answer.id, answer.name, answer.outcome), (id, name, Outcome::Done));
    }
    assert_eq!(world.asked(), expected);
    let log = world.store.audit_log(None, 100).unwrap();
    let rows: Vec<_> =
        log.rows.iter().map(|row| (row.actor.as_str(), row.action.as_str(), row.subject.as_deref())).collect();
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[2], ("clinic", "command_taken", Some("pause")));
}

#[tokio::test]
async fn an_order_that_comes_again_is_answered_again_and_not_done_again() {
    let world = World::new();
    let first = world.order(&order(CommandName::Stop)).await;
    assert_eq!(world.order(&order(CommandName::Stop)).await, first);
    assert_eq!(world.asked().len(), 1);
    // Taken, and killed before the answer was kept.
    let cut = Order { id: "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a12".into(), ..order(CommandName::Stop) };
    world.store.take_command(&cut.id, cut.name, NOW).unwrap();
    assert_eq!(world.order(&cut).await.unwrap().outcome, Outcome::Interrupted);
    assert_eq!(world.asked().len(), 1);
}

#[tokio::test]
async fn what_is_not_signed_for_this_box_is_ignored_and_counted() {
    let world = World::new();
    let other = Order { box_id: "room-2".into(), ..order(CommandName::Stop) };
    assert_eq!(world.order(&other).await, None);
    let foreign = ClinicKeys::generate().command(&order(CommandName::Stop)).remove(0);
    assert_eq!(world.heed(&serde_json::to_vec(&foreign).unwrap()).await, None);
    let mut forged = world.keys.command(&order(CommandName::Stop)).remove(0);
    forged.order = forged.order.replace("stop", "start");
    assert_eq!(world.heed(&serde_json::to_vec(&forged).unwrap()).await, None);
    assert_eq!(world.heed(b"garbage").await, None);
    assert_eq!(world.asked(), Vec::<String>::new());
    assert_eq!(world.store.disbelieved().unwrap(), [("command".to_owned(), 4)]);
}

#[tokio::test]
async fn an_order_after_its_time_is_late_unless_nobody_knows_the_time() {
    let mut world = World::new();
    world.later = Duration::from_secs(66);
    assert_eq!(world.order(&order(CommandName::Stop)).await.unwrap().outcome, Outcome::Late);
    world.is_synchronized = false;
    assert_eq!(world.order(&order(CommandName::Stop)).await.unwrap().outcome, Outcome::Done);
}

#[tokio::test]
async fn what_the_site_does_not_allow_or_the_recorder_refuses_is_said() {
    let mut world = World::new();
    world.allow.retain(|name| *name != CommandName::Start);
    assert_eq!(world.order(&order(CommandName::Start)).await.unwrap().outcome, Outcome::NotAllowed);
    world.recorder.answer = Some((409, Some("Nothing is recorded".into())));
    let refused = world.order(&order(CommandName::Stop)).await.unwrap();
    assert_eq!((refused.outcome, refused.message.as_deref()), (Outcome::Refused, Some("Nothing is recorded")));
    world.recorder.answer = None;
    let other = |n: u32| format!("7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0c{n:02}");
    assert_eq!(
        world.order(&Order { id: other(1), ..order(CommandName::Pause) }).await.unwrap().outcome,
        Outcome::Failed
    );
    let nameless = Order { id: other(2), session: None, ..order(CommandName::Withdraw) };
    assert_eq!(world.order(&nameless).await.unwrap().outcome, Outcome::Refused);
    let hostile = Order { id: other(3), session: Some("../voices".into()), ..order(CommandName::Retry) };
    assert_eq!(world.order(&hostile).await.unwrap().outcome, Outcome::Refused);
    assert_eq!(world.asked().len(), 2, "neither reached the recorder");
}
