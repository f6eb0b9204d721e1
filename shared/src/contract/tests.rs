use std::collections::BTreeSet;

use super::*;
use crate::alert::{Alert, AlertName, AlertState};
use crate::breaker::{Service, StateName};
use crate::command::{Answer, CommandName, Order, Outcome};
use crate::metrics::STATES;
use crate::record::{Status, TimeQuality};
use crate::seal::{Ack, AckResult, ClinicKeys};
use crate::store::{Rate, Rates};
use crate::wire::*;

const SESSION: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";
const DATE: &str = "2026-01-01T00:00:00.000Z";

/// Every status; a new one does not compile until it has its place here.
fn statuses() -> Vec<Status> {
    let next = |status| match status {
        Status::Recording => Some(Status::Paused),
        Status::Paused => Some(Status::Queued),
        Status::Queued => Some(Status::Processing),
        Status::Processing => Some(Status::Done),
        Status::Done => Some(Status::Failed),
        Status::Failed => Some(Status::Postponed),
        Status::Postponed => Some(Status::Withdrawn),
        Status::Withdrawn => None,
    };
    std::iter::successors(Some(Status::Recording), |status| next(*status)).collect()
}

/// Every result; a new one does not compile until it has its place here.
fn results() -> Vec<AckResult> {
    let next = |result| match result {
        AckResult::Stored => Some(AckResult::Duplicate),
        AckResult::Duplicate => Some(AckResult::Refused),
        AckResult::Refused => Some(AckResult::Withdrawn),
        AckResult::Withdrawn => None,
    };
    std::iter::successors(Some(AckResult::Stored), |result| next(*result)).collect()
}

fn states() -> impl Iterator<Item = StateName> {
    STATES.into_iter().map(|(state, _)| state)
}

fn breaker(state: StateName, is_full: bool) -> BreakerHealth {
    BreakerHealth {
        state,
        failure_count: 5,
        retry_after_s: is_full.then_some(30),
        open_s: is_full.then_some(90),
        reason: is_full.then(|| "There is no model".into()),
    }
}

fn alert(alert: AlertName, state: AlertState, is_full: bool) -> Alert {
    let services = if is_full { Service::ALL.to_vec() } else { Vec::new() };
    Alert { alert, state, value: is_full.then_some(0.5), threshold: alert.threshold(), samples: 20, services }
}

fn health(is_full: bool) -> BoxHealth {
    let some = |value: u64| is_full.then_some(value);
    let states = [AlertState::Ok, AlertState::InsufficientData, AlertState::Firing];
    let alerts = AlertName::ALL.into_iter().flat_map(|name| states.map(|state| alert(name, state, is_full)));
    let rate = Rate { failed: 1, total: 40 };
    BoxHealth {
        version: 1,
        box_id: "room-1".into(),
        at: DATE.into(),
        time_quality: if is_full { TimeQuality::Synchronized } else { TimeQuality::Unsynchronized },
        breakers: Service::ALL.into_iter().map(|service| (service, breaker(StateName::Open, is_full))).collect(),
        queue: QueueHealth { recording: 1, ..QueueHealth::default() },
        capture: CaptureHealth { state: "recording".into(), recorded_s: 1.5, peak_dbfs: is_full.then_some(-12.5) },
        board: BoardHealth {
            celsius: is_full.then_some(61.5),
            under_voltage: is_full.then_some(false),
            free_memory_mib: some(512),
            free_disk_mib: some(9000),
        },
        transcriber: is_full.then(|| "demo-whisper".into()),
        alerts: if is_full { alerts.collect() } else { Vec::new() },
        rates: Rates { transcription: rate, diarization: rate, exhausted: rate, processing: vec![(60.0, 1.5)] },
        software: "0.1.0".into(),
    }
}

fn board_breaker(state: StateName, is_full: bool) -> BoardBreaker {
    let (breaker, service) = (breaker(state, is_full), Service::Sync);
    BoardBreaker { box_id: "room-1".into(), service, online: is_full, breaker, at: DATE.into() }
}

fn board_alert(name: AlertName, is_full: bool) -> BoardAlert {
    let alert = alert(name, AlertState::Firing, is_full);
    BoardAlert { version: 1, box_id: WHOLE_CLINIC.into(), alert, since: DATE.into(), online: is_full }
}

fn board(state: StateName) -> Board {
    let worst = AudioProcessingHealth {
        transcription_circuit: state,
        diarization_circuit: state,
        transcription_failures: 5,
        diarization_failures: 0,
    };
    let breakers = vec![board_breaker(state, true), board_breaker(state, false)];
    Board { version: 1, clinic: "north".into(), at: DATE.into(), worst, breakers }
}

fn ack(result: AckResult, reason: Option<&str>) -> Ack {
    Ack {
        version: 1,
        session: SESSION.into(),
        revision: 0,
        sha256: "0".repeat(64),
        result,
        reason: reason.map(str::to_owned),
        stored_at: DATE.into(),
        key_id: "0a".repeat(16),
        signature: "0".repeat(128),
    }
}

const OUTCOMES: [Outcome; 6] =
    [Outcome::Done, Outcome::Refused, Outcome::Failed, Outcome::Late, Outcome::NotAllowed, Outcome::Interrupted];

fn order(name: CommandName, is_full: bool) -> Order {
    Order {
        version: 1,
        id: SESSION.into(),
        clinic: "north".into(),
        box_id: "room-1".into(),
        name,
        session: is_full.then(|| SESSION.into()),
        service: is_full.then_some(Service::Transcription),
        consent: is_full.then(|| "verbal".into()),
        by: "administrator".into(),
        issued_at: DATE.into(),
        valid_for_s: 60,
    }
}

fn answer(outcome: Outcome, is_full: bool) -> Answer {
    let message = is_full.then(|| "Nothing is recorded".into());
    Answer { version: 1, id: SESSION.into(), name: CommandName::Stop, outcome, message, at: DATE.into() }
}

fn certificate_request() -> CertificateRequest {
    CertificateRequest { version: 1, request: "PEM".into() }
}

fn certificate_issued() -> CertificateIssued {
    CertificateIssued { version: 1, certificate: "PEM".into() }
}

fn event(what: EventKind) -> Event {
    Event { version: 1, id: 7, at: DATE.into(), what }
}

fn bytes(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn parcel() -> Vec<u8> {
    [b"RSP1".as_slice(), &[7; 64]].concat()
}

/// Method of [`Topics`], what it gives, and what may be published there.
type Sample = (&'static str, String, Vec<Vec<u8>>);

/// Of every topic every kind of message, with all that it may say and with the least.
fn samples() -> Vec<Sample> {
    let topics = Topics::new("north");
    let status = || vec![b"online".to_vec(), b"offline".to_vec()];
    let reasons = ["conflict", "malformed", "unreadable", "invalid", "withdrawn"];
    let refused = reasons.iter().map(|reason| bytes(&ack(AckResult::Refused, Some(reason))));
    let told = results().into_iter().map(|result| bytes(&ack(result, None)));
    let moved = states().flat_map(|from| states().map(move |to| (from, to))).map(|(from, to)| {
        bytes(&event(EventKind::Breaker { service: Service::Diarization, from, to, failure_count: 5 }))
    });
    let reached = statuses();
    let reached =
        reached.iter().map(|status| bytes(&event(EventKind::Session { session: SESSION.into(), status: *status })));
    let breakers = states().flat_map(|state| [bytes(&board_breaker(state, true)), bytes(&board_breaker(state, false))]);
    let held = AlertName::ALL.into_iter().flat_map(|a| [bytes(&board_alert(a, true)), bytes(&board_alert(a, false))]);
    let withdrawal = Withdrawal { version: 1, session: SESSION.into(), at: DATE.into() };
    let keys = ClinicKeys::generate();
    let orders = CommandName::ALL.into_iter().map(|name| bytes(&keys.command(&order(name, true))[0])).collect();
    let answers = OUTCOMES.into_iter().flat_map(|o| [bytes(&answer(o, true)), bytes(&answer(o, false))]).collect();
    vec![
        ("status", topics.status("room-1"), status()),
        ("health", topics.health("room-1"), vec![bytes(&health(true)), bytes(&health(false))]),
        ("parcel", topics.parcel("room-1", SESSION, 1), vec![parcel()]),
        ("withdrawal", topics.withdrawal("room-1", SESSION), vec![bytes(&withdrawal)]),
        ("ack", topics.ack("room-1"), refused.chain(told).collect()),
        ("event", topics.event("room-1"), moved.chain(reached).collect()),
        ("command", topics.command("room-1", CommandName::Pause), orders),
        ("answer", topics.answer("room-1", SESSION), answers),
        ("certificate_request", topics.certificate_request("room-1"), vec![bytes(&certificate_request())]),
        ("certificate_issued", topics.certificate_issued("room-1"), vec![bytes(&certificate_issued())]),
        ("board_status", topics.board_status("server-1"), status()),
        ("board_breakers", topics.board_breakers(), states().map(|state| bytes(&board(state))).collect()),
        ("board_breaker", topics.board_breaker("room-1", Service::Sync), breakers.collect()),
        ("board_alert", topics.board_alert(AlertName::BreakerOpen, WHOLE_CLINIC), held.chain([Vec::new()]).collect()),
        ("discovery", topics.discovery("room-1"), vec![Vec::new()]),
    ]
}

fn document() -> Value {
    serde_json::from_str(ASYNCAPI).unwrap()
}

#[test]
fn every_topic_has_a_channel_of_its_own_and_every_message_fits_it() {
    let contract = Contract::published().unwrap();
    let mut used = BTreeSet::new();
    for (method, topic, messages) in samples() {
        for message in messages {
            let channel = contract.check(&topic, &message, None).unwrap_or_else(|why| panic!("{method}: {why}"));
            used.insert((method, channel));
        }
    }
    let channels: BTreeSet<&str> = used.iter().map(|(_, channel)| *channel).collect();
    assert_eq!(used.len(), channels.len(), "a channel a topic: {used:?}");
    assert_eq!(channels, contract.channels().into_iter().collect(), "and no channel without one");
}

/// The methods are read from the source: one that is added and not documented fails this.
#[test]
fn every_method_that_makes_a_topic_is_held_against_the_contract() {
    let source = include_str!("../wire.rs");
    let made = source.split("    pub fn ").skip(1).filter_map(|rest| {
        let (head, _) = rest.split_once('{')?;
        let name = head.split('(').next().unwrap();
        (head.trim_end().ends_with("-> String") && !name.ends_with("_filter")).then_some(name)
    });
    let made: BTreeSet<&str> = made.collect();
    assert!(made.contains("board_alert") && made.len() >= 11, "{made:?}");
    assert_eq!(made, samples().iter().map(|(method, ..)| *method).collect());
}

/// What each type may say is all that its schema knows, and what it must say is required there.
#[test]
fn every_documented_field_is_one_that_is_sent() {
    let document = document();
    let type_of = |name: &str, full: Value, least: Value| {
        let schema = &document["components"]["schemas"][name];
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(&schema["properties"]), keys(&full), "{name}");
        let required = schema["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned());
        assert_eq!(required.collect::<BTreeSet<_>>(), keys(&least), "{name}");
    };
    let json = |value: &dyn Fn(bool) -> Value| (value(true), value(false));
    let check = |name: &str, value: &dyn Fn(bool) -> Value| {
        let (full, least) = json(value);
        type_of(name, full, least);
    };
    check("BoxHealth", &|full| json!(health(full)));
    check("BreakerHealth", &|full| json!(breaker(StateName::Open, full)));
    check("QueueHealth", &|_| json!(QueueHealth::default()));
    check("CaptureHealth", &|full| json!(health(full).capture));
    check("BoardHealth", &|full| json!(health(full).board));
    check("Rates", &|_| json!(Rates::default()));
    check("Rate", &|_| json!(Rate::default()));
    check("Alert", &|full| json!(alert(AlertName::BreakerOpen, AlertState::Firing, full)));
    check("BoardAlert", &|full| json!(board_alert(AlertName::BreakerOpen, full)));
    check("BoardBreaker", &|full| json!(board_breaker(StateName::Open, full)));
    check("Board", &|_| json!(board(StateName::Open)));
    check("Ack", &|_| json!(ack(AckResult::Stored, None)));
    check("Order", &|full| json!(order(CommandName::Start, full)));
    check("Command", &|_| json!(ClinicKeys::generate().command(&order(CommandName::Start, true))[0]));
    check("Answer", &|full| json!(answer(Outcome::Done, full)));
    check("CertificateRequest", &|_| json!(certificate_request()));
    check("CertificateIssued", &|_| json!(certificate_issued()));
    check("Withdrawal", &|_| json!(Withdrawal { version: 1, session: SESSION.into(), at: DATE.into() }));
}

#[test]
fn every_documented_value_is_one_that_is_said() {
    let document = document();
    let said = |name: &str, values: Vec<Value>| {
        let documented = document["components"]["schemas"][name]["enum"].as_array().unwrap();
        let set = |values: &[Value]| values.iter().map(|v| v.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(set(documented), set(&values), "{name}");
    };
    said("BreakerState", states().map(|state| json!(state)).collect());
    said("Service", Service::ALL.iter().map(|service| json!(service)).collect());
    said("AlertName", AlertName::ALL.iter().map(|name| json!(name)).collect());
    said("SessionStatus", statuses().iter().map(|status| json!(status)).collect());
    said("TimeQuality", vec![json!(TimeQuality::Synchronized), json!(TimeQuality::Unsynchronized)]);
    said("CommandName", CommandName::ALL.iter().map(|name| json!(name)).collect());
    said("Outcome", OUTCOMES.iter().map(|outcome| json!(outcome)).collect());
    let parameters = &document["components"]["parameters"];
    assert_eq!(parameters["command"]["enum"], json!(CommandName::ALL));
    assert_eq!(parameters["service"]["enum"], json!(Service::ALL));
    assert_eq!(parameters["alert"]["enum"], json!(AlertName::ALL));
}

#[test]
fn a_message_that_is_not_in_the_contract_is_told_by_its_place_and_never_by_its_content() {
    let contract = Contract::published().unwrap();
    let topics = Topics::new("north");
    let places = |topic: &str, payload: &[u8]| match contract.check(topic, payload, None).unwrap_err() {
        Breach::Payload { places, .. } => places.join(" "),
        why => panic!("{why}"),
    };
    let mut value = json!(health(true));
    value["capture"]["transcript"] = "xylophone".into();
    let told = places(&topics.health("room-1"), &bytes(&value));
    assert!(told.contains("/capture against") && !told.contains("xylophone"), "{told}");
    value = json!(health(true));
    value["breakers"]["xylophone"] = json!(breaker(StateName::Open, true));
    assert!(!places(&topics.health("room-1"), &bytes(&value)).contains("xylophone against"));
    for (topic, payload) in [
        (topics.health("room-1"), b"{".to_vec()),
        (topics.status("room-1"), b"away".to_vec()),
        (topics.status("room-1"), vec![0xff]),
        (topics.parcel("room-1", SESSION, 1), vec![7; 100]),
        (topics.parcel("room-1", SESSION, 1), b"RSP1".to_vec()),
        (topics.parcel("room-1", SESSION, 1), [parcel(), vec![7; MAX_PARCEL_BYTES]].concat()),
        (topics.event("room-1"), bytes(&json!({"version": 1, "id": 1, "at": DATE, "kind": "breaker"}))),
    ] {
        places(&topic, &payload);
    }
}

#[test]
fn topics_and_kinds_that_are_not_in_the_contract_are_refused() {
    let contract = Contract::published().unwrap();
    let topics = Topics::new("north");
    for topic in [
        "roomscribe/v1/north/room-1/transcript".to_owned(),
        "roomscribe/v1/North/room-1/status".to_owned(),
        "roomscribe/v2/north/room-1/status".to_owned(),
        topics.status(WHOLE_CLINIC),
        topics.parcel("room-1", "no-uuid", 1),
        topics.parcel("room-1", SESSION, 0),
        topics.board_breakers() + "/room-1/microphone",
    ] {
        assert_eq!(contract.check(&topic, b"online", None), Err(Breach::Topic { topic }));
    }
    assert!(contract.check(&topics.status("room-1"), b"online", Some(true)).is_ok());
    assert!(contract.check(&topics.parcel("room-1", SESSION, 1), &parcel(), Some(false)).is_ok());
    let refused = contract.check(&topics.status("room-1"), b"online", Some(false)).unwrap_err();
    assert_eq!(refused, Breach::Retained { channel: "boxStatus".into(), expected: true });
    assert!(contract.check(&topics.parcel("room-1", SESSION, 1), &parcel(), Some(true)).is_err());
}

#[test]
fn a_document_with_a_hole_is_refused_and_says_where() {
    let lacks = |mend: &dyn Fn(&mut Value)| {
        let mut document = document();
        mend(&mut document);
        match Contract::of(&document) {
            Err(why) => why.to_string(),
            Ok(_) => panic!("it is taken"),
        }
    };
    let schemas = |document: &mut Value, name: &str| {
        document["components"]["schemas"].as_object_mut().unwrap().remove(name);
    };
    assert!(lacks(&|document| schemas(document, "Board")).contains("/components/schemas/Board"));
    assert!(lacks(&|document| schemas(document, "Rates")).contains("cannot be used"));
    assert!(lacks(&|document| document["operations"]["boxSendsParcel"] = json!({})).contains("a sender on parcel"));
    assert!(lacks(&|document| document["channels"] = json!(1)).contains("/channels"));
}

#[test]
fn last_wills_are_those_of_the_status_topics() {
    let servers = &document()["servers"];
    let will = |server: &str, places: &[(&str, &str)]| {
        let will = &servers[server]["bindings"]["mqtt"]["lastWill"];
        assert_eq!((&will["message"], &will["retain"], &will["qos"]), (&json!("offline"), &json!(true), &json!(1)));
        let topic = will["topic"].as_str().unwrap().to_owned();
        places.iter().fold(topic, |topic, (parameter, value)| topic.replace(&format!("{{{parameter}}}"), value))
    };
    let topics = Topics::new("north");
    assert_eq!(will("box", &[("clinic", "north"), ("box", "room-1")]), topics.status("room-1"));
    assert_eq!(will("clinic", &[("clinic", "north"), ("server", "server-1")]), topics.board_status("server-1"));
}
