//! A PostgreSQL that is killed, hangs, is locked or cannot be reached: the clinic's store says so in time, loses nothing
//! that it said it has, and goes on by itself.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use shared::clock::WallTime;
use shared::error::report;
use sync::clinic::store::postgres::Address;
use sync::clinic::store::{ClinicStore, Kept, Place};
use tests::clinic::{keep, record, session, store_on};
use tests::postgres::Postgres;
use tests::{now, wait_for};

const NOW: WallTime = WallTime(1_767_225_600_000);
/// All that a question may take, with room for a busy machine.
const IN_TIME: Duration = Duration::from_secs(20);

#[test]
fn a_killed_server_costs_nothing_that_was_acknowledged_and_needs_no_restart_of_ours() {
    let postgres = Postgres::start();
    let stores = [store_on(&postgres), store_on(&postgres)];
    let (is_over, next, failures) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let acknowledged: Vec<(u32, bool)> = std::thread::scope(|scope| {
        // Each is a box: it sends a parcel until it is told that the clinic has it.
        let send = |store| {
            let (is_over, next, failures) = (&is_over, &next, &failures);
            move || {
                let mut told = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let record = record(&session(number), 1, None);
                    let kept =
                        wait_for("a parcel to be kept", || match keep(store, &record, &number.to_be_bytes(), NOW) {
                            Ok(kept) => Some(kept),
                            Err(_) => {
                                failures.fetch_add(1, Ordering::Relaxed);
                                None
                            }
                        });
                    told.push((number, kept == Kept::New));
                }
                told
            }
        };
        let boxes: Vec<_> = stores.iter().chain(&stores).map(|store| scope.spawn(send(store))).collect();
        for _ in 0..5 {
            let before = next.load(Ordering::Relaxed);
            wait_for("parcels to flow", || (next.load(Ordering::Relaxed) > before + 40).then_some(()));
            postgres.kill();
            std::thread::sleep(Duration::from_millis(500));
            postgres.restart();
            let back = now();
            wait_for("the store to be back", || stores.iter().all(|store| store.check().is_ok()).then_some(()));
            eprintln!("back {:?} after the server", now().saturating_sub(back));
        }
        is_over.store(true, Ordering::Relaxed);
        boxes.into_iter().flat_map(|told| told.join().unwrap()).collect()
    });
    eprintln!(
        "{} acknowledged, {} of them had been committed by a try that was cut short, {} tries failed",
        acknowledged.len(),
        acknowledged.iter().filter(|(_, is_new)| !is_new).count(),
        failures.load(Ordering::Relaxed)
    );
    assert!(failures.load(Ordering::Relaxed) > 0, "the kills were felt");
    for (number, _) in &acknowledged {
        let held = stores[0].newest_parcel(&session(*number)).unwrap().expect("what was acknowledged is there");
        assert_eq!(held.bytes, number.to_be_bytes());
    }
    let counted = acknowledged.len().to_string();
    assert_eq!(postgres.ask("select count(*) from parcels"), [[counted.as_str()]]);
    assert_eq!(postgres.ask("select count(*) from therapy_sessions"), [[counted.as_str()]]);
}

#[test]
fn a_server_that_hangs_is_given_up_in_time_and_served_again_when_it_goes_on() {
    let postgres = Postgres::start();
    let store = store_on(&postgres);
    postgres.signal(Signal::STOP);
    let begun = now();
    let why = store.check().unwrap_err();
    let waited = now().saturating_sub(begun);
    postgres.signal(Signal::CONT);
    assert!(waited < IN_TIME && why.is_passing(), "{waited:?}: {}", report(&why));
    eprintln!("given up after {waited:?}");
    wait_for("the store to be back", || store.check().ok());
}

#[test]
fn a_lock_that_somebody_holds_ends_the_wait_and_not_the_store() {
    let postgres = Postgres::start();
    let store = store_on(&postgres);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| postgres.ask("begin; lock table parcels; select 1 from pg_sleep(12); commit"));
        wait_for("the lock", || {
            let locks = "select 1 from pg_locks where mode = 'AccessExclusiveLock' and relation = 'parcels'::regclass";
            (postgres.ask(locks).len() == 1).then_some(())
        });
        let begun = now();
        let why = keep(&store, &record(&session(1), 1, None), b"x", NOW).unwrap_err();
        let waited = now().saturating_sub(begun);
        assert!(waited < Duration::from_secs(11) && why.is_passing(), "{waited:?}: {}", report(&why));
        store.check().unwrap();
        held.join().unwrap();
    });
    assert_eq!(keep(&store, &record(&session(1), 1, None), b"x", NOW).unwrap(), Kept::New);
}

#[test]
fn more_questions_than_connections_wait_for_each_other() {
    let postgres = Postgres::start();
    let store = store_on(&postgres);
    std::thread::scope(|scope| {
        for number in 0..40 {
            let store = &store;
            scope.spawn(move || {
                assert_eq!(keep(store, &record(&session(number), 1, None), b"x", NOW).unwrap(), Kept::New)
            });
        }
    });
    let connections = "select count(*) from pg_stat_activity where application_name = 'roomscribe-clinic'";
    let open: u32 = postgres.ask(connections)[0][0].parse().unwrap();
    assert!((1..=8).contains(&open), "{open}");
}

#[test]
fn what_cannot_be_reached_or_let_in_is_told_without_the_password() {
    let postgres = Postgres::start();
    let nobody = postgres.url().replace("user=postgres", "user=nobody&password=s3cret");
    for (url, is_passing) in [("postgres://clinic:s3cret@127.0.0.1:1/records", true), (nobody.as_str(), false)] {
        let place = Place::Server(Box::new(Address::parse(url, None).unwrap()));
        let Err(why) = ClinicStore::at(&place) else { panic!("there is nothing to open") };
        assert_eq!(why.is_passing(), is_passing, "{}", report(&why));
        assert!(!format!("{why:?} {} {place} {place:?}", report(&why)).contains("s3cret"));
    }
}
