use super::*;
use crate::clinic::access::Role;
use crate::clinic::access::token::Token;
use crate::clinic::alerts::{Key, Moves};
use crate::clinic::fixture::{self, SESSION, World};
use crate::clinic::ingest::{Label, take};
use serde_json::Value;
use shared::alert::AlertName;
use shared::breaker::StateName::{Closed, Open};
use shared::clock::Clock as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Two boxes and one session.
fn world() -> World {
    let world = World::new();
    let now = world.clock.now().wall;
    for (id, health) in [("room-1", (Open, 5)), ("room-2", (Closed, 1))] {
        world.clinic.store.keep_status(id, "online", now).unwrap();
        world.clinic.store.keep_box_health(&fixture::health(id, health, (Closed, 0)), Some(now)).unwrap();
    }
    world.clinic.store.keep_status("room-2", "offline", now).unwrap();
    let label = Label { box_id: "room-1".into(), session: SESSION.into(), revision: 1 };
    take(&world.clinic, &label, &world.parcel(&fixture::record(SESSION, 1))).unwrap();
    world
}

/// A server for as long as a test.
pub(super) struct Server {
    pub(super) address: std::net::SocketAddr,
    stopper: crate::stop::Stopper,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(super) async fn start(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stopper, stop) = Stop::new();
        Self { address, stopper, task: tokio::spawn(serve(world.clinic.clone(), listener, stop)) }
    }

    /// Head, in small letters but for its values, and body.
    pub(super) async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let form = "Content-Type: application/x-www-form-urlencoded";
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{form}\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    pub(super) async fn stop(self) {
        self.stopper.stop();
        self.task.await.unwrap().unwrap();
    }
}

/// A header that a program with a token sends.
fn bearer(world: &World) -> String {
    let token = Token::generate().unwrap();
    world.clinic.store.add_token("test", Role::Admin, &token.hash(), world.clock.now().wall).unwrap();
    format!("Authorization: Bearer {}\r\n", token.text())
}

/// Head and body of each path, as a program with a token is answered.
async fn fetch<const N: usize>(world: &World, paths: [&str; N]) -> [(String, String); N] {
    let (server, bearer) = (Server::start(world).await, bearer(world));
    let mut answers = Vec::new();
    for path in paths {
        let (head, body) = server.ask("GET", path, &bearer, "").await;
        answers.push((head.to_lowercase(), body));
    }
    server.stop().await;
    answers.try_into().unwrap()
}

fn parse(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn health_is_the_worst_of_all_boxes_and_of_each() {
    let world = world();
    let paths = ["", "?box=room-2", "?box=room-9"].map(|query| format!("/health/audio-processing{query}"));
    let answers = fetch(&world, [&paths[0], &paths[1], &paths[2]]).await;
    for (head, _) in &answers {
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    let all = parse(&answers[0].1);
    assert_eq!((&all["transcription_circuit"], &all["transcription_failures"]), (&json!("OPEN"), &json!(5)));
    assert_eq!(all["boxes"]["room-1"]["online"], true);
    assert_eq!(all["boxes"]["room-2"]["online"], false);
    let keys = json!({
        "transcription_circuit": "CLOSED", "diarization_circuit": "CLOSED",
        "transcription_failures": 1, "diarization_failures": 0,
    });
    assert_eq!(parse(&answers[1].1), keys);
    assert_eq!(parse(&answers[2].1)["known"], false);
}

#[tokio::test]
async fn every_answer_is_guarded_and_none_holds_what_was_said() {
    let world = world();
    let paths =
        ["/login", "/health", "/metrics", "/api/v1/sessions", "/api/v1/boxes", "/api/v1/events", "/api/v1/alerts"];
    for (head, body) in fetch(&world, paths).await {
        assert!(head.starts_with("http/1.1 200"), "{head}");
        for header in [
            "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self';",
            "x-frame-options: deny",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{header}");
        }
        assert!(!body.contains("xylophone") && !body.contains("zeppelin"));
    }
}

#[tokio::test]
async fn metadata_of_sessions_and_boxes_is_listed() {
    let world = world();
    let [sessions, boxes, health] = fetch(&world, ["/api/v1/sessions", "/api/v1/boxes", "/health"]).await;
    let session = &parse(&sessions.1)[0];
    assert_eq!((&session["session_id"], &session["speakers"]), (&json!(SESSION), &json!(2)));
    assert_eq!((&session["duration_s"], &session["segments"]), (&json!(65.0), &json!(2)));
    assert_eq!(parse(&boxes.1)[1]["box"], "room-2");
    assert_eq!(parse(&health.1), json!({"status": "degraded", "broker": "disconnected", "store": "ok"}));
}

#[tokio::test]
async fn alerts_that_hold_are_listed_with_whose_they_are_since_when_and_whether_the_box_is_there() {
    let world = world();
    let now = world.clock.now().wall;
    let mut health = fixture::health("room-2", (Closed, 1), (Closed, 0));
    health.alerts = vec![fixture::firing(AlertName::RetryExhaustion)];
    world.clinic.store.keep_box_health(&health, Some(now)).unwrap();
    let key = Key { alert: AlertName::RetryExhaustion, box_id: "room-2".into() };
    world.clinic.store.keep_alerts(&Moves { begun: vec![key], ended: vec![] }, now).unwrap();
    world.clock.pass(Duration::from_secs(60));
    let [alerts, metrics] = fetch(&world, ["/api/v1/alerts", "/metrics"]).await;
    let expected = json!([{
        "version": 1, "box": "room-2", "alert": "retry_exhaustion", "state": "firing", "value": 0.75,
        "threshold": 0.02, "samples": 40, "since": fixture::DATE, "online": false,
    }]);
    assert_eq!(parse(&alerts.1), expected);
    assert!(metrics.1.contains(r#"roomscribe_alert_firing{alert="retry_exhaustion",box="room-2"} 1"#));
    assert!(metrics.1.contains(r#"roomscribe_alert_firing{alert="retry_exhaustion",box="board"} 0"#));
}

mod login;
