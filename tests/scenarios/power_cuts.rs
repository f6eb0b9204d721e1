//! The power cut below the file system: what was not flushed is gone.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::Connection;
use tests::disk::Disk;
use tests::disk::cache::{Cache, Cut, Honesty, SECTOR};
use tests::power::{Moment, World};
use tests::{TestBox, try_for};

/// Says something past the test runner, which keeps what a passing test prints.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

fn seed() -> u64 {
    std::env::var("ROOMSCRIBE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

#[test]
fn of_what_was_not_flushed_any_part_may_survive_and_of_what_was_all_does() {
    let mut cache = Cache::new(Honesty::Honest);
    let sectors = 1000;
    let survivors = |cache: &Cache, byte: u8| {
        (0..sectors).filter(|n| cache.read(n * SECTOR as u64, SECTOR) == [byte; SECTOR]).count() as u64
    };
    cache.write(0, &vec![1; sectors as usize * SECTOR], Duration::ZERO);
    cache.flush(Duration::ZERO);
    cache.write(0, &vec![2; sectors as usize * SECTOR], Duration::ZERO);
    assert_eq!(survivors(&cache, 2), sectors);
    cache.cut(Cut::Keeps { unit: SECTOR, share: 0.5, dice: Box::new(StdRng::seed_from_u64(1)) });
    let (new, old) = (survivors(&cache, 2), survivors(&cache, 1));
    assert!((400..600).contains(&new) && new + old == sectors, "{new} sectors are new, {old} as they were");
    cache.write(0, &vec![3; sectors as usize * SECTOR], Duration::ZERO);
    cache.cut(Cut::Forgets);
    assert_eq!((survivors(&cache, 2), survivors(&cache, 3)), (new, 0));
}

#[test]
fn a_box_whose_power_is_cut_in_its_very_first_start_starts_the_next_time() {
    let mut dice = StdRng::seed_from_u64(seed());
    for _ in 0..5 {
        let mut disk = Disk::new(Honesty::Honest);
        let room = TestBox::on(&disk.root());
        let torn = Cut::Keeps { unit: SECTOR, share: 0.5, dice: Box::new(StdRng::seed_from_u64(dice.random())) };
        disk.cut_after(dice.random_range(1..60), torn);
        let mut daemon = room.start("roomscribe", &["run"]);
        try_for(Duration::from_secs(2), || disk.off().is_some());
        daemon.kill();
        cut(&mut disk, Cut::Forgets);
        daemon = room.start_daemon();
        daemon.stop();
        for name in ["roomscribe.db", "keys.db"] {
            let database = Connection::open(disk.root().join("var/lib/roomscribe").join(name)).unwrap();
            let found: String = database.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
            assert_eq!(found, "ok", "{name}");
        }
    }
}

/// So many cuts: each moment in turn, and in another order each time.
fn survive(cuts: usize) {
    let seed = seed();
    say(&format!("power cuts: seed {seed} (ROOMSCRIBE_TEST_SEED sets another)"));
    let (mut world, mut dice) = (World::new(seed, Honesty::Honest), StdRng::seed_from_u64(seed));
    let mut moments = Moment::ALL.to_vec();
    while world.cuts() < cuts {
        for moment in &moments {
            if world.cuts() < cuts {
                world.cut_at(*moment);
            }
        }
        moments.shuffle(&mut dice);
    }
    world.end();
    say(&format!("power cuts: {}", world.summary()));
}

#[test]
fn five_power_cuts_cost_a_second_each_and_nothing_else() {
    survive(5);
}

#[test]
#[ignore = "long: ./dev test --full"]
fn a_hundred_power_cuts_cost_a_second_each_and_nothing_else() {
    survive(100);
}

/// The test of the test: what a disk loses that lies about its flushes is found missing.
#[test]
fn a_disk_that_lies_about_its_flushes_does_not_pass() {
    let mut world = World::new(seed(), Honesty::Lies(Duration::from_millis(2_500)));
    let survived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.cut_at(Moment::Destruction)));
    let why = survived.expect_err("it does not pass");
    let why = why.downcast_ref::<String>().expect("a sentence");
    // Sometimes the file system itself is gone.
    let is_found = ["is forgotten", "does not know it", "mount"].iter().any(|told| why.contains(told));
    assert!(is_found, "{why}");
}

/// Cuts, and lets the power come back.
fn cut(disk: &mut Disk, cut: Cut) {
    disk.cut(cut);
    disk.unmount();
    disk.restore();
}

fn written(disk: &Disk, name: &str, bytes: &[u8]) -> File {
    let mut file = File::create(disk.root().join(name)).unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn the_disk_forgets_what_was_not_flushed_and_keeps_what_was() {
    let mut disk = Disk::new(Honesty::Honest);
    for round in 0..3 {
        let (kept, lost) = (format!("kept-{round}"), format!("lost-{round}"));
        let flushes = disk.counts().flushes;
        written(&disk, &kept, kept.as_bytes()).sync_all().unwrap();
        File::open(disk.root()).unwrap().sync_all().unwrap();
        assert!(disk.counts().flushes > flushes, "a flush arrives at the device");
        drop(written(&disk, &lost, lost.as_bytes()));
        let how = match round {
            0 => Cut::Forgets,
            _ => Cut::Keeps { unit: SECTOR, share: 0.5, dice: Box::new(StdRng::seed_from_u64(round)) },
        };
        cut(&mut disk, how);
        assert_eq!(fs::read(disk.root().join(&kept)).unwrap(), kept.as_bytes());
        assert!(!disk.root().join(&lost).exists());
    }
}
