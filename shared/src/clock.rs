//! The three things a decision may want to know about time, read in one place.
//!
//! Wall time is for people: a board may boot with the wrong date, so nothing waits by it. Waiting is counted
//! in `uptime`, which goes on while the process is dead and cannot be set; it means something only within
//! one boot, so the boot's name travels with it.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970, UTC, as the board believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub i64);

impl WallTime {
    /// The moment `elapsed` later.
    #[must_use]
    pub fn plus(self, elapsed: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if the clock says it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339, UTC, milliseconds.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => f.write_str("0000-00-00T00:00:00Z"),
        }
    }
}

/// Names one boot of the machine (Linux's `boot_id`), so that uptimes of two boots are never compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

/// One reading of all clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// For people.
    pub wall: WallTime,
    /// Since the boot, sleep included (`CLOCK_BOOTTIME`).
    pub uptime: Duration,
    /// Which boot `uptime` counts from.
    pub boot: BootId,
}

impl Now {
    /// The time since `earlier` and whether it was counted (same boot) or only read off the wall clock.
    #[must_use]
    pub fn since(&self, earlier: &Now) -> Elapsed {
        if self.boot == earlier.boot {
            Elapsed::Counted(self.uptime.saturating_sub(earlier.uptime))
        } else {
            Elapsed::Rebooted(self.wall.since(earlier.wall))
        }
    }
}

/// The time between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elapsed {
    /// Within one boot: exact.
    Counted(Duration),
    /// Across boots: what the wall clock says, zero if it went backwards.
    Rebooted(Duration),
}

impl Elapsed {
    /// The length, however it was found.
    #[must_use]
    pub fn duration(self) -> Duration {
        match self {
            Self::Counted(d) | Self::Rebooted(d) => d,
        }
    }
}

/// Where `Now` comes from.
pub trait Clock: Send + Sync {
    /// Reads every clock once.
    fn now(&self) -> Now;
}

/// The machine's own clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    boot: BootId,
}

impl SystemClock {
    /// Learns the boot's name once. Where the kernel does not tell, every start counts as a boot of its own.
    #[must_use]
    pub fn new() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| uuid::Uuid::new_v4().to_string(), |s| s.trim().to_owned());
        Self { boot: BootId(boot) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Now {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let uptime = Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0));
        Now { wall: WallTime(wall), uptime, boot: self.boot.clone() }
    }
}

/// A clock moved by hand: the scripted twin of [`SystemClock`].
#[derive(Debug)]
pub struct ScriptedClock(Mutex<Now>);

impl ScriptedClock {
    /// Starts at 2026-01-01T00:00:00Z, one minute after boot `a`.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Now {
            wall: WallTime(1_767_225_600_000),
            uptime: Duration::from_secs(60),
            boot: BootId("a".into()),
        }))
    }

    /// Lets `elapsed` pass on every clock.
    pub fn pass(&self, elapsed: Duration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        now.wall = now.wall.plus(elapsed);
        now.uptime += elapsed;
    }

    /// Sets the wall clock alone, as NTP or a person would.
    pub fn set_wall(&self, wall: WallTime) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).wall = wall;
    }

    /// Reboots: uptime starts again under another name.
    pub fn reboot(&self, boot: &str) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        now.boot = BootId(boot.into());
        now.uptime = Duration::from_secs(5);
    }
}

impl Default for ScriptedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ScriptedClock {
    fn now(&self) -> Now {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
