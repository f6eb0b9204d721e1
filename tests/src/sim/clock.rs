//! Virtual time: the runtime's paused clock, with a wall clock that jumps and boots that end.

use std::sync::Mutex;
use std::time::Duration;

use shared::clock::{BootId, Clock, Now, WallTime};
use tokio::time::Instant;

/// 2026-01-05, 10:00 UTC.
const BEGUN_MS: i64 = 1_767_607_200_000;

#[derive(Debug)]
struct State {
    wall_offset_ms: i64,
    booted_at: Duration,
    boot: u32,
}

/// The clock of one machine.
#[derive(Debug)]
pub struct SimClock {
    origin: Instant,
    state: Mutex<State>,
}

impl SimClock {
    /// A machine that booted a minute ago.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            state: Mutex::new(State { wall_offset_ms: 0, booted_at: Duration::ZERO, boot: 1 }),
        }
    }

    /// Sets the wall clock forwards or backwards.
    pub fn jump(&self, by_ms: i64) {
        self.lock().wall_offset_ms += by_ms;
    }

    /// The machine comes up again: uptime begins anew under another name.
    pub fn reboot(&self) {
        let passed = self.origin.elapsed();
        let mut state = self.lock();
        (state.booted_at, state.boot) = (passed, state.boot + 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let passed = self.origin.elapsed();
        let state = self.lock();
        let ms = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        Now {
            wall: WallTime(BEGUN_MS + ms + state.wall_offset_ms),
            uptime: Duration::from_secs(5) + passed.saturating_sub(state.booted_at),
            boot: BootId(format!("boot-{}", state.boot)),
        }
    }
}
