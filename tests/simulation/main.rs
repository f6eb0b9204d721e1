//! A few hundred worlds of the simulation; `./dev sim --seeds 10000` runs many more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a simulation that cannot go on has failed")]

mod logs;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tests::sim;

/// Held by what runs worlds: `tracing` remembers of a call site whether anybody listens, and a world on another thread,
/// where nobody does, would decide it for the test that reads the log.
static ALONE: Mutex<()> = Mutex::new(());

/// Seeds of every run of the tests, in two threads.
const SEEDS: u64 = 300;

#[test]
fn whatever_happens_every_session_arrives_once_unchanged_and_every_breaker_closes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let next = AtomicU64::new(1);
    let run = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > SEEDS {
                return failed;
            }
            failed.extend(sim::run(seed).err().map(|why| format!("seed {seed}: {why}")));
        }
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let both = [scope.spawn(run), scope.spawn(run)];
        both.into_iter().flat_map(|thread| thread.join().expect("no seed panics")).collect()
    });
    assert!(failed.is_empty(), "run one alone with ./dev test --seed N:\n{}", failed.join("\n"));
}
