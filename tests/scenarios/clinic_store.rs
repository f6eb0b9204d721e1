//! The clinic's store in a file and on a real PostgreSQL: both give the same answers, and on PostgreSQL several servers
//! may ask at once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Barrier;
use std::time::Duration;

use serde_json::json;
use shared::alert::AlertName;
use shared::clock::WallTime;
use shared::command::{Answer, CommandName, Order, Outcome};
use shared::wire::{BoxHealth, Event, MAX_PARCEL_BYTES, QueueHealth};
use sync::clinic::alerts::{Key, Moves};
use sync::clinic::lease::{LEASE, RENEW, Tenure};
use sync::clinic::store::{ClinicStore, Kept, LeaseRow};
use tests::clinic::{BOX, keep, place_of, record, session, store_on};
use tests::postgres::{EXHAUSTED, FAILED, Postgres};
use tokio::time::Instant;

const NOW: WallTime = WallTime(1_767_225_600_000);
const KILLED: &str = "Retry exhausted: Transcription failed: The engine process was killed by a signal";

fn later(seconds: u64) -> WallTime {
    NOW.plus(Duration::from_secs(seconds))
}

fn event(id: i64) -> Event {
    let what = json!({ "version": 1, "id": id, "at": WallTime(id * 1000).to_string(),
        "kind": "session", "session": session(1), "status": "done" });
    serde_json::from_value(what).unwrap()
}

fn health(box_id: &str) -> BoxHealth {
    let queue = serde_json::to_value(QueueHealth::default()).unwrap();
    let what = json!({ "version": 1, "box": box_id, "at": NOW.to_string(), "time_quality": "synchronized",
        "breakers": {}, "queue": queue, "capture": { "state": "idle", "recorded_s": 0.0 }, "software": "0" });
    serde_json::from_value(what).unwrap()
}

fn order(id: &str) -> Order {
    let (session, service, consent) = (Some(session(1)), None, None);
    let (id, clinic, box_id, by) = (id.into(), "north".into(), BOX.into(), "administrator".into());
    let (name, issued_at) = (CommandName::Retry, NOW.to_string());
    Order { version: 1, id, clinic, box_id, name, session, service, consent, by, issued_at, valid_for_s: 60 }
}

fn answer(id: &str) -> Answer {
    let (name, outcome, at) = (CommandName::Retry, Outcome::Refused, NOW.to_string());
    Answer { version: 1, id: id.into(), name, outcome, message: None, at }
}

/// Asks for everything that the store can do, and notes every answer.
fn play(store: &ClinicStore) -> Vec<String> {
    let mut answers = Vec::new();
    let mut note = |answer: &dyn Debug| answers.push(format!("{answer:?}"));
    let (one, two) = (session(1), session(2));
    note(&(store.check().is_ok(), store.sessions(9).unwrap(), store.session_counts().unwrap()));
    // The largest parcel; the same again; other bytes; an older revision that comes late; a failed session.
    let large = vec![7; MAX_PARCEL_BYTES];
    note(&keep(store, &record(&one, 2, None), &large, NOW).unwrap());
    note(&keep(store, &record(&one, 2, None), &large, later(9)).unwrap());
    note(&keep(store, &record(&one, 2, None), b"others", later(9)).unwrap());
    note(&keep(store, &record(&one, 1, Some(KILLED)), b"older", later(10)).unwrap());
    note(&keep(store, &record(&two, 1, Some("no\0thing")), b"failed", later(11)).unwrap());
    note(&keep(store, &record(&two, 2, None), b"replayed", later(12)).unwrap());
    assert_eq!(store.newest_parcel(&one).unwrap().unwrap().bytes, large);
    note(&(store.held(&one, 1).unwrap(), store.held(&one, 3).unwrap(), store.newest_parcel(&two).unwrap()));
    note(&(store.sessions(9).unwrap(), store.sessions(1).unwrap().len(), store.session_counts().unwrap()));
    // Consent is withdrawn: by another box, by its own, again, at the clinic; for a session that never came.
    for box_id in ["room-2", BOX, BOX] {
        note(&(store.withdraw(&one, box_id, later(20)).unwrap(), store.is_withdrawn(&one).unwrap()));
    }
    note(&(store.withdraw_here(&two, later(21)).unwrap(), store.withdraw_here(&session(9), later(21)).unwrap()));
    note(&store.withdraw(&session(3), BOX, later(22)).unwrap());
    note(&keep(store, &record(&session(3), 1, None), b"late", later(23)).unwrap());
    note(&(store.newest_parcel(&one).unwrap(), store.sessions(9).unwrap(), store.clean_up().is_ok()));
    // Boxes, events, alerts.
    store.keep_box_health(&health("room-1"), None).unwrap();
    store.keep_status("room-1", "offline", NOW).unwrap();
    store.keep_status("room-2", "online", NOW).unwrap();
    note(&store.boxes().unwrap());
    store.keep_box_health(&health("room-2"), Some(later(5))).unwrap();
    store.keep_status("room-2", "offline", later(6)).unwrap();
    note(&store.boxes().unwrap());
    for id in (1..=1010).chain([1010]) {
        store.keep_event("room-1", &event(id)).unwrap();
    }
    store.keep_event("room-2", &event(3)).unwrap();
    let events = store.events(5000).unwrap();
    note(&(events.len(), events.first().cloned(), events.last().cloned(), store.events(2).unwrap().len()));
    let key = |box_id: &str| Key { alert: AlertName::BreakerOpen, box_id: box_id.into() };
    let begun = Moves { begun: vec![key("room-1"), key("room-2")], ended: vec![] };
    store.keep_alerts(&begun, NOW).unwrap();
    store.keep_alerts(&Moves { ended: vec![key("room-2")], ..begun }, later(9)).unwrap();
    note(&store.alerts().unwrap());
    // The lease: taken, renewed, not by who read it before that, taken over, given back.
    note(&(store.lease().unwrap(), store.take_lease("a", None).unwrap(), store.take_lease("b", None).unwrap()));
    let first = store.lease().unwrap().unwrap();
    note(&(store.take_lease("a", Some(&first)).unwrap(), store.take_lease("b", Some(&first)).unwrap()));
    let second = store.lease().unwrap().unwrap();
    note(&(store.take_lease("b", Some(&second)).unwrap(), store.lease().unwrap()));
    let third = store.lease().unwrap().unwrap();
    note(&(store.take_lease("", Some(&third)).unwrap(), store.lease().unwrap()));
    // Invitations: replaced, redeemed for one key and again for it, not for another, nor once its time is over.
    for code in [[1; 32], [2; 32]] {
        store.invite(&code, BOX, later(60), NOW).unwrap();
    }
    let redeem = |code, key, at| store.redeem(&[code; 32], &[key; 32], at).unwrap();
    note(&(redeem(1, 7, NOW), redeem(2, 7, NOW), redeem(2, 7, NOW), redeem(2, 8, NOW), redeem(2, 7, later(60))));
    // Orders: kept once, published, answered once and by their box alone; one whose time is over.
    let (given, late) = (order(&session(7)), order(&session(8)));
    for (order, expires) in [(&given, later(60)), (&given, later(60)), (&late, later(5))] {
        store.order(order, expires).unwrap();
    }
    note(&(store.unpublished_orders(NOW).unwrap(), store.commands(9).unwrap()));
    store.order_published(&given.id, later(1)).unwrap();
    note(&(store.unpublished_orders(later(2)).unwrap(), store.unpublished_orders(later(6)).unwrap()));
    let said = Answer { message: Some("Nothing is recorded".into()), ..answer(&given.id) };
    note(&(store.answered("room-2", &said, NOW).unwrap(), store.answered(BOX, &said, later(7)).unwrap()));
    note(&(
        store.answered(BOX, &answer(&given.id), NOW).unwrap(),
        store.answered(BOX, &answer(&late.id), NOW).unwrap(),
    ));
    note(&(store.command(&given.id).unwrap(), store.command(&session(9)).unwrap(), store.commands(1).unwrap()));
    // Home Assistant's boxes: kept once, forgotten.
    store.keep_discovered(BOX).unwrap();
    store.keep_discovered(BOX).unwrap();
    note(&store.discovered().unwrap());
    store.forget_discovered(BOX).unwrap();
    note(&store.discovered().unwrap());
    answers
}

#[test]
fn a_file_and_a_server_give_the_same_answers_and_have_the_same_tables() {
    let (folder, postgres) = (tempfile::tempdir().unwrap(), Postgres::start());
    let path = folder.path().join("clinic.db");
    let (file, server) = (ClinicStore::open(&path).unwrap(), store_on(&postgres));
    for (number, (file, server)) in play(&file).iter().zip(play(&server)).enumerate() {
        // What PostgreSQL's text cannot hold is told otherwise, and the parcel is kept all the same.
        assert_eq!(file.replace("\\0", "\u{fffd}"), server, "answer {number}");
    }
    let columns = "select table_name, column_name from information_schema.columns
        where table_schema = 'public' and table_name <> 'roomscribe_schema' order by table_name, ordinal_position";
    let of_server: Vec<(String, String)> =
        postgres.ask(columns).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let columns = "select t.name, c.name from sqlite_schema t, pragma_table_info(t.name) c
        where t.type = 'table' and t.name not like 'sqlite_%' and c.name <> 'cleaned' order by t.name, c.cid";
    let connection = rusqlite::Connection::open(&path).unwrap();
    let mut statement = connection.prepare(columns).unwrap();
    let of_file = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(of_server, of_file.map(Result::unwrap).collect::<Vec<_>>());
}

#[test]
fn the_guides_queries_run_as_written_where_the_store_keeps_its_sessions() {
    let (postgres, system) = (Postgres::start(), shared::clock::SystemClock::new());
    let (store, now) = (store_on(&postgres), shared::clock::Clock::now(&system).wall);
    let long_ago = WallTime(now.0 - 7_200_000);
    let cases = [(1, Some(KILLED), now), (2, Some(KILLED), now), (3, Some("The audio is invalid"), now)];
    for (number, message, at) in cases.into_iter().chain([(4, None, now), (5, Some(KILLED), long_ago)]) {
        assert_eq!(keep(&store, &record(&session(number), 1, message), b"x", at).unwrap(), Kept::New);
    }
    assert_eq!(postgres.ask(FAILED), [["2", KILLED], ["1", "The audio is invalid"]]);
    assert_eq!(postgres.ask(EXHAUSTED), [[KILLED, "2"]]);
}

#[test]
fn servers_that_start_at_once_make_the_tables_once() {
    let postgres = Postgres::start();
    let (place, together) = (place_of(&postgres), Barrier::new(6));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                together.wait();
                ClinicStore::at(&place).unwrap().check().unwrap();
            });
        }
    });
    assert_eq!(postgres.ask("select version from roomscribe_schema order by version"), [["1"], ["2"]]);
}

/// Does something on each of two servers' stores from two threads each, at once, and gives what came of it.
fn at_once<T: Send>(stores: &[ClinicStore; 2], act: impl Fn(&ClinicStore, usize) -> T + Sync) -> Vec<T> {
    let together = Barrier::new(4);
    std::thread::scope(|scope| {
        let one = |number: usize| {
            let (act, together) = (&act, &together);
            scope.spawn(move || {
                together.wait();
                act(&stores[number % 2], number)
            })
        };
        let started: Vec<_> = (0..4).map(one).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn of_servers_that_take_the_same_parcel_at_once_one_stores_it() {
    let postgres = Postgres::start();
    let stores = [store_on(&postgres), store_on(&postgres)];
    for number in 0..100 {
        let record = record(&session(number), 1, None);
        let same = at_once(&stores, |store, _| keep(store, &record, b"the same", NOW).unwrap());
        assert_eq!(same.iter().filter(|kept| **kept == Kept::New).count(), 1);
        let held = stores[0].held(&session(number), 1).unwrap().unwrap();
        assert!(same.iter().all(|kept| matches!(kept, Kept::New) || *kept == Kept::Before(held.clone())));
    }
    for number in 100..200 {
        let record = record(&session(number), 1, None);
        let sums = ["a", "b", "c", "d"].map(|bytes| shared::seal::sha256(bytes.as_bytes()));
        let other = at_once(&stores, |store, at| keep(store, &record, &[b"abcd"[at]], NOW).unwrap());
        let won = other.iter().position(|kept| *kept == Kept::New).unwrap();
        let told = other.iter().enumerate().filter(|(at, _)| *at != won);
        for (_, kept) in told {
            assert!(matches!(kept, Kept::Before(held) if held.sha256 == sums[won]), "{kept:?}");
        }
    }
    assert_eq!(postgres.ask("select count(*), count(distinct session_id) from parcels"), [["200", "200"]]);
}

#[test]
fn nothing_of_a_session_is_stored_once_its_withdrawal_is_confirmed() {
    let postgres = Postgres::start();
    let stores = [store_on(&postgres), store_on(&postgres)];
    let mut ways = BTreeMap::<&str, u32>::new();
    for number in 0..200 {
        let id = session(number);
        let kept = at_once(&stores, |store, at| match at {
            0 => store.withdraw(&id, BOX, NOW).map(|is_done| is_done.then_some(Kept::Withdrawn)).unwrap(),
            _ => Some(keep(store, &record(&id, at as u32, None), b"x", NOW).unwrap()),
        });
        for kept in &kept[1..] {
            let way = if *kept == Some(Kept::Withdrawn) { "after" } else { "before" };
            *ways.entry(way).or_default() += 1;
        }
        assert_eq!((kept[0].clone(), stores[1].newest_parcel(&id).unwrap()), (Some(Kept::Withdrawn), None));
        assert_eq!(keep(&stores[1], &record(&id, 9, None), b"x", NOW).unwrap(), Kept::Withdrawn);
    }
    assert!(ways.len() == 2, "both orders were met: {ways:?}");
    assert_eq!(postgres.ask("select count(*) from parcels"), [["0"]]);
    assert_eq!(postgres.ask("select distinct status from therapy_sessions"), [["withdrawn"]]);
}

#[test]
fn of_servers_that_try_for_the_lease_at_once_one_has_it_and_another_takes_over_when_it_dies() {
    let postgres = Postgres::start();
    let stores = [store_on(&postgres), store_on(&postgres)];
    for _ in 0..50 {
        let read = stores[0].lease().unwrap();
        let taken = at_once(&stores, |store, at| store.take_lease(&format!("s{at}"), read.as_ref()).unwrap());
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    }
    let begun = Instant::now();
    let mut tenures = [Tenure::new("a"), Tenure::new("b")];
    stores[0].take_lease("", stores[0].lease().unwrap().as_ref()).unwrap();
    let mut turn = |which: usize, now: Instant| {
        let row: Option<LeaseRow> = stores[which].lease().unwrap();
        let is_wanted = tenures[which].wants(row.as_ref(), now);
        let is_taken = is_wanted && stores[which].take_lease(["a", "b"][which], row.as_ref()).unwrap();
        tenures[which].settle(is_taken, now);
        tenures[which].holds(now)
    };
    let at = |turns: u32| begun + RENEW * turns;
    for turns in 0..4 {
        assert!(turn(0, at(turns)) && !turn(1, at(turns)), "it is renewed");
    }
    let dead_for = LEASE.as_secs() / RENEW.as_secs();
    assert!((4..3 + dead_for as u32).all(|turns| !turn(1, at(turns))), "a dead holder's is waited for");
    assert!(turn(1, at(3 + dead_for as u32)));
    assert!(!turn(0, at(4 + dead_for as u32)), "who comes back finds it taken");
}
