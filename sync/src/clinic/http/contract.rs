//! Documented paths and routes are the same ones, and answer as documented.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use shared::alert::AlertName;
use shared::breaker::{Service, StateName};
use shared::clock::Clock as _;
use shared::contract::{misfits, schema_at};
use shared::record::Status;
use shared::wire::{ASYNCAPI, BreakerHealth, Event, EventKind};

use super::tests::{fetch, world};
use super::*;
use crate::clinic::fixture::{self, DATE, SESSION, World};

fn document() -> serde_json::Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Method and path of every `.route(…)` in the source of the clinic: one that is added anywhere is found here.
fn routes() -> BTreeSet<(String, String)> {
    fn files(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension() {
                None => files(&entry, found),
                Some(extension) if extension == "rs" => found.push(std::fs::read_to_string(&entry).unwrap()),
                Some(_) => {}
            }
        }
    }
    let mut sources = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/clinic"), &mut sources);
    let methods = ["get", "post", "put", "patch", "delete"];
    let mut routes = BTreeSet::new();
    for route in sources.iter().flat_map(|source| source.split(".route(").skip(1)) {
        let Some((path, rest)) = route.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')) else {
            continue;
        };
        let ends = [rest.find(".layer"), rest.find(".with_state"), rest.find(".merge"), rest.find(';')];
        let handlers = &rest[..ends.into_iter().flatten().min().unwrap_or(rest.len())];
        for method in methods {
            let is_called = |c: char| !(c.is_alphanumeric() || c == '_');
            let called = format!("{method}(");
            if handlers.match_indices(&called).any(|(at, _)| handlers[..at].chars().next_back().is_some_and(is_called))
            {
                routes.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    routes
}

#[test]
fn every_route_is_documented_and_nothing_else_is() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let documented = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys().filter(|key| *key != "servers");
        methods.map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
    });
    assert_eq!(routes(), documented.collect());
}

/// A world in which every field has something to say.
fn full_world() -> World {
    let world = world();
    let store = &world.clinic.store;
    let now = world.clock.now().wall;
    let mut health = fixture::health("room-1", (StateName::Open, 5), (StateName::HalfOpen, 1));
    let open = BreakerHealth {
        state: StateName::ForcedOpen,
        failure_count: 0,
        retry_after_s: Some(30),
        open_s: Some(301),
        reason: Some("There is no model".into()),
    };
    health.breakers.insert(Service::Sync, open);
    health.alerts = AlertName::ALL.map(fixture::firing).to_vec();
    health.alerts[2].services = vec![Service::Transcription];
    health.board.celsius = Some(61.5);
    health.transcriber = Some("demo-whisper".into());
    store.keep_box_health(&health, Some(now)).unwrap();
    let breaker =
        EventKind::Breaker { service: Service::Sync, from: StateName::Closed, to: StateName::Open, failure_count: 5 };
    let session = EventKind::Session { session: SESSION.into(), status: Status::Done };
    for (id, what) in [(1, breaker), (2, session)] {
        store.keep_event("room-1", &Event { version: 1, id, at: DATE.into(), what }).unwrap();
    }
    world
}

/// Asks every documented path (and `?box=` where a box may be asked for), and holds the answer against what is
/// documented for its status: content type and schema. Gives the statuses.
async fn all_answer_as_documented(world: &World) -> BTreeMap<String, String> {
    let document = document();
    let mut statuses = BTreeMap::new();
    // What has servers of its own is served elsewhere, and held against the document there.
    let here = document["paths"].as_object().unwrap().iter().filter(|(_, methods)| methods["servers"].is_null());
    for (path, methods) in here {
        let asks_for_a_box = methods["get"]["parameters"][0]["name"] == "box";
        let queries: &[&str] = if asks_for_a_box { &["", "?box=room-1", "?box=room-9", "?box=1&box=2"] } else { &[""] };
        for query in queries {
            let asked = format!("{path}{query}");
            let [(head, body)] = fetch(world, [&asked]).await;
            let status = head.split(' ').nth(1).unwrap().to_owned();
            let place = format!("/paths/{}/get/responses/{status}", path.replace('~', "~0").replace('/', "~1"));
            let described = document.pointer(&place).unwrap_or_else(|| panic!("{asked}: {status} is not documented"));
            let pointer = match described["$ref"].as_str() {
                Some(reference) => reference.trim_start_matches('#').to_owned(),
                None => place,
            };
            let content = document.pointer(&pointer).unwrap()["content"].as_object().unwrap();
            let (kind, _) = content.iter().next().unwrap();
            let sent = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
            assert_eq!(sent.split(';').next().unwrap(), kind, "{asked}");
            if kind == "application/json" {
                let schema = format!("{pointer}/content/application~1json/schema");
                let schema = schema_at(&document, &schema).unwrap();
                let value = serde_json::from_str(&body).unwrap();
                assert_eq!(misfits(&schema, &value), Vec::<String>::new(), "{asked}");
            }
            statuses.insert(asked, status);
        }
    }
    statuses
}

#[tokio::test]
async fn every_documented_path_answers_as_documented() {
    for world in [World::new(), full_world()] {
        let statuses = all_answer_as_documented(&world).await;
        assert!(statuses.len() > 9);
        for (asked, status) in statuses {
            assert_eq!(status, if asked.contains('&') { "400" } else { "200" }, "{asked}");
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_is_told_as_documented() {
    let world = full_world();
    let store = rusqlite::Connection::open(world.folder().join("clinic.db")).unwrap();
    store
        .execute_batch("drop table boxes; drop table events; drop table parcels; drop table therapy_sessions")
        .unwrap();
    let statuses = all_answer_as_documented(&world).await;
    for path in ["/", "/metrics", "/health/audio-processing", "/api/v1/sessions", "/api/v1/boxes", "/api/v1/events"] {
        assert_eq!(statuses[path], "503", "{path}");
    }
    assert_eq!(statuses["/health"], "200");
}

/// A check that takes everything would be none.
#[tokio::test]
async fn an_answer_that_is_not_as_documented_is_found() {
    let document = document();
    let [(_, sessions)] = fetch(&full_world(), ["/api/v1/sessions"]).await;
    let place = "/paths/~1api~1v1~1sessions/get/responses/200/content/application~1json/schema";
    let schema = schema_at(&document, place).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&sessions).unwrap();
    assert!(misfits(&schema, &value).is_empty());
    value[0]["transcript"] = json!("xylophone");
    let told = misfits(&schema, &value);
    assert!(told.len() == 1 && told[0].starts_with("/0 against") && !told[0].contains("xylophone"), "{told:?}");
}

#[tokio::test]
async fn the_document_is_served_and_says_the_same_as_the_contract_of_the_link() {
    let [(_, body)] = fetch(&World::new(), ["/api/v1/openapi.json"]).await;
    assert_eq!(body, OPENAPI);
    let link: serde_json::Value = serde_json::from_str(ASYNCAPI).unwrap();
    let (link, document) = (&link["components"]["schemas"], document());
    let both =
        document["components"]["schemas"].as_object().unwrap().iter().filter(|(name, _)| link.get(name).is_some());
    let both: Vec<_> = both.collect();
    assert!(both.len() >= 15);
    for (name, schema) in both {
        assert_eq!(schema, &link[name], "{name}");
    }
}
