use std::collections::BTreeMap;

use proptest::prelude::*;
use shared::record::TimeQuality;
use shared::wire::{CaptureHealth, QueueHealth};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const NOTHING: Debts<'_> = Debts { health: None, events: false, owed: &[] };

fn parcel(number: usize) -> Parcel {
    Parcel { session: format!("s{number}"), revision: 1, sha256: String::new() }
}

fn health(at: &str, queued: u64) -> BoxHealth {
    BoxHealth {
        version: 1,
        box_id: "room-1".into(),
        at: at.into(),
        time_quality: TimeQuality::Synchronized,
        breakers: BTreeMap::new(),
        queue: QueueHealth { queued, ..QueueHealth::default() },
        capture: CaptureHealth { state: "idle".into(), recorded_s: 0.0, peak_dbfs: None },
        board: shared::wire::BoardHealth::default(),
        transcriber: None,
        alerts: Vec::new(),
        rates: shared::store::Rates::default(),
        software: "0".into(),
    }
}

/// A drain that has said that it is online.
fn drain() -> Drain {
    let mut drain = Drain::new(30 * SECOND);
    assert_eq!(drain.next(NOTHING, SECOND), Step::Status);
    drain.status_sent();
    drain
}

fn owing(owed: &[Parcel]) -> Debts<'_> {
    Debts { owed, ..NOTHING }
}

#[test]
fn status_goes_before_health_before_events_before_parcels() {
    let (health, owed, now) = (health("a", 0), [parcel(1)], SECOND);
    let mut debts = Debts { health: Some(&health), events: true, owed: &owed };
    let mut drain = Drain::new(30 * SECOND);
    assert_eq!(drain.next(debts, now), Step::Status);
    drain.status_sent();
    assert_eq!(drain.next(debts, now), Step::Health);
    drain.health_sent(&health, now);
    assert_eq!(drain.next(debts, now), Step::Events);
    debts.events = false;
    assert_eq!(drain.next(debts, now), Step::Parcel(parcel(1)));
    drain.parcel_sent(&parcel(1), now);
    assert_eq!(drain.next(debts, now), Step::Rest);
}

#[test]
fn health_is_published_when_it_changes_and_every_thirty_seconds_and_its_date_is_no_change() {
    let mut drain = drain();
    drain.health_sent(&health("a", 0), SECOND);
    let mut due = |health: &BoxHealth, at| drain.next(Debts { health: Some(health), ..NOTHING }, at) == Step::Health;
    assert!(!due(&health("b", 0), 2 * SECOND));
    assert!(due(&health("b", 1), 2 * SECOND));
    assert!(!due(&health("b", 1), SECOND + SECOND / 2), "at most once a second");
    assert!(due(&health("b", 0), 31 * SECOND));
}

#[test]
fn a_parcel_is_sent_again_after_a_timeout_that_doubles_up_to_fifteen_minutes() {
    let (mut drain, owed, mut now) = (drain(), [parcel(1)], SECOND);
    let mut waits = Vec::new();
    for tries in 1..=8 {
        assert_eq!(drain.next(owing(&owed), now), Step::Parcel(parcel(1)));
        assert_eq!(drain.parcel_sent(&parcel(1), now), tries);
        let sent = now;
        while drain.next(owing(&owed), now) == Step::Rest {
            now += SECOND;
        }
        waits.push((now - sent).as_secs());
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900, 900]);
}

#[test]
fn a_parcel_that_is_too_large_is_set_aside_until_the_next_line_and_blocks_nothing() {
    let (mut drain, owed) = (drain(), [parcel(1), parcel(2)]);
    drain.connected(Some(1000), SECOND);
    drain.status_sent();
    assert!(!drain.fits(990, 50) && drain.fits(800, 50));
    assert_eq!(drain.next(owing(&owed), SECOND), Step::Parcel(parcel(1)));
    drain.set_aside(&parcel(1));
    assert_eq!(drain.next(owing(&owed), SECOND), Step::Parcel(parcel(2)));
    drain.parcel_sent(&parcel(2), SECOND);
    assert_eq!(drain.next(owing(&owed), SECOND), Step::Rest);
    drain.connected(None, SECOND);
    drain.status_sent();
    assert!(drain.fits(MAX_PARCEL_BYTES, 100) && !drain.fits(MAX_PARCEL_BYTES + 1, 100));
    assert_eq!(drain.next(owing(&owed), SECOND), Step::Parcel(parcel(1)));
}

#[test]
fn a_new_line_repeats_at_once_what_was_sent_once_but_not_what_was_sent_often() {
    let (mut drain, owed) = (drain(), [parcel(1)]);
    for (at, sent_now) in [(2, true), (3, true), (4, false)] {
        drain.connected(None, at * SECOND);
        drain.status_sent();
        let step = drain.next(owing(&owed), at * SECOND);
        assert_eq!(step == Step::Parcel(parcel(1)), sent_now, "at {at}");
        if sent_now {
            drain.parcel_sent(&parcel(1), at * SECOND);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Some parcels are never acknowledged, the others by the next tick; lines break now and then.
    #[test]
    fn nothing_owed_starves_and_the_window_holds(
        dead in proptest::collection::vec(any::<bool>(), 1..60),
        arrivals in proptest::collection::vec(0_u32..120, 60),
        breaks in proptest::collection::btree_set(0_u32..240, 0..6),
    ) {
        let all: Vec<Parcel> = (0..dead.len()).map(parcel).collect();
        let number = |parcel: &Parcel| all.iter().position(|p| p == parcel).unwrap();
        let mut drain = Drain::new(30 * SECOND);
        let mut sent: Vec<Vec<u32>> = vec![vec![]; dead.len()];
        for tick in 0..1800 {
            let now = tick * 5 * SECOND;
            if breaks.contains(&tick) {
                drain.connected(None, now);
            }
            let is_owed = |n: usize| arrivals[n] <= tick && (dead[n] || sent[n].is_empty());
            let owed: Vec<Parcel> = (0..dead.len()).filter(|n| is_owed(*n)).map(|n| all[n].clone()).collect();
            loop {
                match drain.next(owing(&owed), now) {
                    Step::Status => drain.status_sent(),
                    Step::Parcel(next) => {
                        drain.parcel_sent(&next, now);
                        sent[number(&next)].push(tick);
                    }
                    _ => break,
                }
                prop_assert!(drain.in_flight(now) <= WINDOW);
            }
        }
        for (times, dead) in sent.iter().zip(dead) {
            prop_assert!(!times.is_empty(), "starved");
            prop_assert!(dead || times.len() == 1);
            // Sixty dead parcels share eight places for at most 15 minutes (180 ticks) each.
            prop_assert!(!dead || times[times.len() - 1] > 1800 - 60_u32.div_ceil(8) * 180 - 180, "{times:?}");
        }
    }
}
