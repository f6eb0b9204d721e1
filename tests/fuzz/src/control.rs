//! The control socket's routes, on a box with sessions of every kind, without engines and with a silent microphone.
//!
//!   input     up to four requests, divided by zero bytes
//!   request   method · space · path and query · newline · body
//!
//! The box goes on from input to input, as a real one does; it is put back to its beginning when so much was changed
//! that its size would matter. Its time stands still, and what waits is woken at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use appliance::capture::{Microphone, MicrophoneDoor, MicrophoneError};
use appliance::conclude::conclude_all;
use appliance::context::{Aside, Context, Doors, open_keys};
use appliance::control::{Control, router};
use appliance::engine::voices::ChildVoices;
use appliance::sessions::Sessions;
use appliance::spool::{SpoolWriter, spool_file};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, Uri, header};
use serde_json::{Value, json};
use shared::ailment::Ailment;
use shared::clock::{Clock as _, Now, ScriptedClock};
use shared::error::{ProcessingError, TaskFailure, TranscriptionError};
use shared::paths::Root;
use shared::record::{Consent, DiarizationStatus, Status, TimeQuality};
use shared::seal::{Ack, AckResult, ClinicKeyFile, ClinicKeyPair, ClinicKeys, sha256};
use shared::settings::{Link, Settings};
use shared::store::{Finish, NewSession, SpeakerHint, Store, WindowRow};
use shared::task::Task;
use shared::wire::BoardHealth;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;
use tower::ServiceExt as _;

use super::Target;

const REQUESTS: usize = 4;
/// After so many requests that changed something the box is put back: lists stay short, and a run fast.
const CHANGES: u32 = 32;
/// Of every session that is there from the beginning.
const SAMPLES: u64 = 16_000;

/// See the top of the file.
pub struct Controls {
    /// A box as it is at the beginning.
    template: tempfile::TempDir,
    room: Option<Room>,
}

struct Room {
    router: Router,
    sessions: Arc<Sessions>,
    local: LocalSet,
    runtime: Runtime,
    changes: u32,
    /// Last, so that it goes when nobody uses it any more.
    _folder: tempfile::TempDir,
}

impl Target for Controls {
    fn new() -> Self {
        let template = tempfile::tempdir().expect("a temporary folder");
        furnish(&Root::new(template.path()));
        Self { template, room: None }
    }

    fn run(&mut self, input: &[u8]) {
        if self.room.as_ref().is_some_and(|room| room.changes >= CHANGES) {
            self.room.take().into_iter().for_each(Room::close);
        }
        let mut room = self.room.take().unwrap_or_else(|| Room::open(self.template.path()));
        let before = room.changes;
        for request in input.split(|byte| *byte == 0).take(REQUESTS) {
            room.ask(request);
        }
        if room.changes > before {
            room.is_well();
        }
        self.room = Some(room);
    }
}

impl Drop for Controls {
    fn drop(&mut self) {
        self.room.take().into_iter().for_each(Room::close);
    }
}

impl Room {
    /// Whatever was asked of it, a box tells how it is.
    fn is_well(&mut self) {
        let (status, _, health) = self.answer(Method::GET, Uri::from_static("/health/audio-processing"), &[]);
        let keys = ["transcription_circuit", "diarization_circuit", "transcription_failures", "diarization_failures"];
        let health: Value = serde_json::from_slice(&health).expect("health is JSON");
        assert!(status == StatusCode::OK && keys.iter().all(|key| !health[key].is_null()), "health is always told");
    }

    fn open(template: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(template, folder.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let (runtime, local) = (runtime.expect("a runtime"), LocalSet::new());
        let context = Arc::new(context(&Root::new(folder.path())));
        let sessions = Arc::new(Sessions::new(context.clone(), Arc::new(Silent)));
        let voices = ChildVoices::new(context.engines.clone());
        local.spawn_local(conclude_all(context.clone()));
        let router = router(Control { context, sessions: sessions.clone(), voices });
        Self { router, sessions, local, runtime, changes: 0, _folder: folder }
    }

    /// Ends a recording under way, whose thread would outlast the box.
    fn close(self) {
        self.sessions.suspend();
    }

    fn ask(&mut self, request: &[u8]) {
        let line_ends = request.iter().position(|byte| *byte == b'\n').unwrap_or(request.len());
        let (line, body) = request.split_at(line_ends);
        let Some(space) = line.iter().position(|byte| *byte == b' ') else { return };
        let (method, path) = (Method::from_bytes(&line[..space]), Uri::try_from(&line[space + 1..]));
        let (Ok(method), Ok(path)) = (method, path) else { return };
        let is_metrics = path.path() == "/metrics";
        let (status, kind, answer) = self.answer(method.clone(), path, body.get(1..).unwrap_or_default());
        if status.is_success() && method != Method::GET && method != Method::HEAD {
            self.changes += 1;
        }
        assert!(is_expected(status), "{status} is no answer to what somebody typed");
        if method == Method::HEAD {
            return;
        }
        if is_metrics && status.is_success() {
            assert!(is_page_of_metrics(&answer), "metrics are lines with a number");
            return;
        }
        assert_eq!(kind.as_deref(), Some("application/json"), "every answer says that it is JSON");
        let answer: Value = serde_json::from_slice(&answer).expect("every answer is JSON");
        assert!(answer.is_object(), "every answer is an object");
        let message = answer["error"]["message"].as_str();
        assert_eq!(!status.is_success(), message.is_some_and(|said| !said.is_empty()), "a refusal says why");
    }

    fn answer(&mut self, method: Method, path: Uri, body: &[u8]) -> (StatusCode, Option<String>, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_vec()));
        let router = self.router.clone();
        let answered = self.local.run_until(async {
            let response: Response<Body> =
                router.oneshot(request.expect("a request")).await.unwrap_or_else(|never| match never {});
            let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let (status, kind) = (response.status(), kind.map(str::to_owned));
            (status, kind, to_bytes(response.into_body(), usize::MAX).await.expect("a whole answer").to_vec())
        });
        self.runtime.block_on(answered)
    }
}

/// What a box that is well answers. Nothing that is typed is its own fault (500), and its disk has room (507).
fn is_expected(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 201 | 400 | 404 | 405 | 409 | 410 | 503)
}

fn is_page_of_metrics(page: &[u8]) -> bool {
    let lines = std::str::from_utf8(page).unwrap_or("not text").lines();
    let is_number = |line: &str| line.rsplit(' ').next().is_some_and(|number| number.parse::<f64>().is_ok());
    lines.filter(|line| !line.starts_with('#')).all(is_number)
}

/// Nothing is ever heard, and nothing is wrong.
struct Silent;

impl MicrophoneDoor for Silent {
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        Ok(Box::new(Silent))
    }
}

impl Microphone for Silent {
    fn read(&mut self, _: &mut [i16]) -> Result<usize, MicrophoneError> {
        std::thread::sleep(Duration::from_micros(200));
        Ok(0)
    }
}

struct Well;

impl appliance::vitals::Vitals for Well {
    fn board(&self) -> BoardHealth {
        BoardHealth::default()
    }

    fn models(&self, _: Task) -> Option<Ailment> {
        None
    }
}

fn clinic() -> ClinicKeys {
    let file = ClinicKeyFile {
        version: 1,
        now: ClinicKeyPair { sealing_private: "4b".repeat(32), signing_private: "5c".repeat(32) },
        earlier: Vec::new(),
    };
    ClinicKeys::from_file(&file).expect("two keys")
}

fn context(root: &Root) -> Context {
    let (sealing_key, signing_key) = clinic().public_hex();
    let link = Link {
        clinic: "north".into(),
        box_id: "room-1".into(),
        broker_host: "nowhere".into(),
        broker_port: 1,
        sealing_key,
        signing_key,
        ack_timeout: 30.0,
    };
    let settings = Settings { link: Some(link), ..Settings::default() };
    let opened = Context::open_with(root.clone(), settings, |root| {
        let keys = Arc::new(open_keys(root, None)?);
        let store = Arc::new(Store::open(&root.database())?.sealing_with(keys.clone()));
        let clock = Arc::new(ScriptedClock::new());
        Ok(Doors { clock, store, keys, vitals: Some(Arc::new(Well)), aside: Aside::Here })
    });
    opened.expect("a box")
}

/// Sessions of every kind, by names that are soon guessed.
fn furnish(root: &Root) {
    let context = context(root);
    let (store, now) = (&context.store, ScriptedClock::new().now());
    for (id, speakers) in [("done", 2), ("owed", 1), ("failed", 2), ("refused", 1), ("queued", 3), ("postponed", 1)] {
        begin(&context, id, speakers, &now);
        match id {
            "done" | "owed" => conclude(store, id, Status::Done, &now),
            "failed" | "refused" => conclude(store, id, Status::Failed, &now),
            "postponed" => store.set_status(id, Status::Postponed, now.wall).expect("room for a status"),
            _ => {}
        }
    }
    for (id, result) in [("done", AckResult::Stored), ("refused", AckResult::Refused)] {
        let ack = Ack {
            version: 1,
            session: id.into(),
            revision: 1,
            sha256: sha256(id.as_bytes()),
            result,
            reason: None,
            stored_at: now.wall.to_string(),
            key_id: String::new(),
            signature: String::new(),
        };
        store.acknowledge(&clinic().sign(&ack, "north", "room-1")[0], now.wall).expect("room for a word");
    }
}

fn begin(context: &Context, id: &str, speakers: u32, now: &Now) {
    let mut spool = SpoolWriter::begin(&spool_file(&context.root, id), &context.keys, id, now).expect("room");
    spool.audio(&vec![1; SAMPLES as usize], now).expect("room for a second");
    spool.finish(now).expect("room for an end");
    let new = NewSession {
        id: id.into(),
        started_at: now.wall,
        time_quality: TimeQuality::Synchronized,
        consent: Consent { basis: "verbal".into(), by: None, at: now.wall.to_string() },
        status: Status::Recording,
        speakers: SpeakerHint { at_least: Some(speakers), at_most: None },
    };
    let window = WindowRow { number: 0, start_sample: 0, end_sample: SAMPLES, blind_cut: false };
    context.store.begin_session(&new, now.wall).expect("room for a session");
    context.store.add_window(id, &window, &Task::ALL, SAMPLES).expect("room for a window");
    context.store.end_session(id, SAMPLES, now.wall, now.wall).expect("room for an end");
}

fn conclude(store: &Store, id: &str, status: Status, now: &Now) {
    let failed = status == Status::Failed;
    while let Some(claim) = store.claim(Task::Transcription).expect("a claim") {
        if claim.session == id && failed {
            let cause = TaskFailure::at_once(TranscriptionError::ClaimsExhausted);
            store.fail(claim.id, 1, &cause, &[]).expect("room for a cause");
        } else {
            store.complete(claim.id, 1, &json!([]), &[]).expect("room for a result");
        }
    }
    let error = ProcessingError {
        error_type: "TranscriptionError".into(),
        message: "Transcription failed".into(),
        session_id: id.into(),
        error_details: Value::Null,
        chain: vec![],
    };
    let finish = Finish {
        session: id,
        status,
        diarization_status: if failed { DiarizationStatus::Skipped } else { DiarizationStatus::Ok },
        error: failed.then_some(&error),
        record: b"{}",
        revision: 1,
        parcel: Some((id.as_bytes(), &sha256(id.as_bytes()))),
    };
    store.finish(&finish, now.wall).expect("room for a record");
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            std::fs::create_dir_all(&to).expect("room for a folder");
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("room for a file");
        }
    }
}
