use super::*;
use crate::clinic::alerts::{Key, Moves, Since};
use crate::clinic::fixture::{self, SESSION};
use shared::alert::AlertName;
use shared::breaker::StateName;
use shared::clock::{Clock as _, WallTime};
use shared::record::Status;
use shared::wire::{Event, EventKind};

fn keep(world: &fixture::World, record: &fixture::Record) {
    let parcel = world.parcel(record);
    let sha256 = shared::seal::sha256(&parcel);
    let arrival = Arrival { record, parcel: &parcel, sha256: &sha256 };
    assert_eq!(world.clinic.store.keep(&arrival, world.clock.now().wall).unwrap(), Kept::New);
}

/// The guide's two monitoring queries, in SQLite's words for `NOW() - INTERVAL '1 hour'`.
#[test]
fn the_guides_two_queries_find_failures_by_their_message() {
    let world = fixture::World::new();
    for n in 0..3 {
        keep(&world, &fixture::failed(&format!("7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a{n:02}"), 1));
    }
    keep(&world, &fixture::record(SESSION, 1));
    let hour_ago = WallTime(world.clock.now().wall.0 - 3_600_000).to_string();
    let ask = |sql: &str| -> Vec<(i64, String)> {
        let connection = world.clinic.store.lock();
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([&hour_ago], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let failed = ask("select count(*) as failed_count, error_message from therapy_sessions
         where status = 'failed' and updated_at > ?1 group by error_message order by failed_count desc");
    let exhausted = ask("select count(*), error_message from therapy_sessions
         where error_message like '%Retry exhausted%' and created_at > ?1 group by error_message");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, 3);
    assert_eq!(failed, exhausted);
}

#[test]
fn nothing_that_was_said_lies_in_the_database_unsealed() {
    let world = fixture::World::new();
    keep(&world, &fixture::record(SESSION, 1));
    let connection = world.clinic.store.lock();
    connection.pragma_update(None, "wal_checkpoint", "truncate").unwrap();
    let file = std::fs::read(connection.path().unwrap()).unwrap();
    assert!(!file.windows(9).any(|bytes| bytes == b"xylophone"));
    assert!(file.windows(4).any(|bytes| bytes == b"RSP1"));
}

#[test]
fn only_live_words_of_a_box_are_signs_of_life() {
    let world = fixture::World::new();
    let (store, now) = (&world.clinic.store, world.clock.now().wall);
    let health = fixture::health("room-1", (StateName::Closed, 0), (StateName::Closed, 0));
    store.keep_box_health(&health, None).unwrap();
    store.keep_status("room-1", "offline", now).unwrap();
    assert_eq!(store.boxes().unwrap()[0].seen_at, None);
    store.keep_status("room-1", "online", now).unwrap();
    let row = &store.boxes().unwrap()[0];
    assert_eq!((row.said_online, row.seen_at, row.health.clone()), (true, Some(now), Some(health)));
}

#[test]
fn events_are_kept_once_and_only_the_newest() {
    let world = fixture::World::new();
    let store = &world.clinic.store;
    let event = |id: i64| Event {
        version: 1,
        id,
        at: WallTime(id * 1000).to_string(),
        what: EventKind::Session { session: SESSION.into(), status: Status::Done },
    };
    for id in 1..=1010 {
        store.keep_event("room-1", &event(id)).unwrap();
    }
    store.keep_event("room-1", &event(1010)).unwrap();
    let kept = store.events(5000).unwrap();
    assert_eq!((kept.len(), kept[0].event.id), (1000, 1010));
}

/// A migration only adds: what the first one made is still there, and the release that knew only it skips the rest.
#[test]
fn a_database_of_the_first_release_gains_tables_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clinic.db");
    let first = Connection::open(&path).unwrap();
    first.execute_batch(MIGRATIONS[0]).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    first.execute("insert into boxes (box, status) values ('room-1', 'online')", []).unwrap();
    let tables = |connection: &Connection| -> Vec<(String, String)> {
        let sql = "select name, sql from sqlite_schema where name not like 'sqlite_%' order by name";
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let before = tables(&first);
    let store = ClinicStore::open(&path).unwrap();
    assert_eq!(store.boxes().unwrap()[0].box_id, "room-1");
    assert!(store.alerts().unwrap().is_empty() && !store.is_withdrawn(SESSION).unwrap());
    let after = tables(&first);
    assert!(before.iter().all(|table| after.contains(table)) && after.len() > before.len());
}

#[test]
fn an_alert_keeps_the_date_of_its_begin_until_it_ends() {
    let world = fixture::World::new();
    let (store, now) = (&world.clinic.store, world.clock.now().wall);
    let key = |box_id: &str| Key { alert: AlertName::BreakerOpen, box_id: box_id.into() };
    let begun = Moves { begun: vec![key("room-1"), key("room-2")], ended: vec![] };
    store.keep_alerts(&begun, now).unwrap();
    store.keep_alerts(&begun, now.plus(std::time::Duration::from_secs(9))).unwrap();
    store.keep_alerts(&Moves { begun: vec![], ended: vec![key("room-2")] }, now).unwrap();
    store.lock().execute("insert into alerts values ('rain', 'room-1', 'today')", []).unwrap();
    assert_eq!(store.alerts().unwrap(), Since::from([(key("room-1"), now.to_string())]));
}
