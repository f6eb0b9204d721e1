//! How the board is: temperature, supply, memory, disk, models. Looked at before work, so that a breaker opens before
//! something fails.
//!
//! A sensor that is not there says nothing, and nothing is not a reason to refuse work.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use shared::ailment::Ailment;
use shared::error::EngineFault;
use shared::paths::Root;
use shared::settings::Health;
use shared::task::Task;
use shared::wire::BoardHealth;

use crate::models::{Models, Role};

/// Above the limit by this much, work under way is stopped.
const STOP_ABOVE_CELSIUS: f64 = 5.0;

/// The door to the board's state.
pub trait Vitals: Send + Sync {
    /// What its sensors say now.
    fn board(&self) -> BoardHealth;
    /// What is wrong with the models of a task. May read whole files: not for the capture thread.
    fn models(&self, task: Task) -> Option<Ailment>;
}

/// The real board.
pub struct System {
    sys: PathBuf,
    data: PathBuf,
    models: Arc<Models>,
}

impl System {
    /// The board under `root`, whose `/sys` may be scripted.
    #[must_use]
    pub fn new(root: &Root, models: Arc<Models>) -> Self {
        Self { sys: root.path().join("sys"), data: root.data(), models }
    }
}

impl Vitals for System {
    fn board(&self) -> BoardHealth {
        BoardHealth {
            celsius: celsius(&self.sys),
            under_voltage: under_voltage(&self.sys),
            free_memory_mib: free_memory_mib(),
            free_disk_mib: free_disk_mib(&self.data),
        }
    }

    fn models(&self, task: Task) -> Option<Ailment> {
        let roles: &[Role] = match task {
            Task::Transcription => &[Role::Transcriber],
            // Without a PLDA that can be read, speakers are told apart all the same.
            Task::Diarization => &[Role::Vad, Role::Voice, Role::Segmentation],
        };
        roles.iter().find_map(|role| match self.models.used(*role) {
            Err(EngineFault::ModelUnusable { model, problem, remedy }) => {
                Some(Ailment::ModelUnusable { model, problem, remedy })
            }
            Ok(_) | Err(_) => None,
        })
    }
}

/// What of the board speaks against beginning work.
#[must_use]
pub fn ailment(board: &BoardHealth, limits: &Health) -> Option<Ailment> {
    let low = |free: Option<u64>, limit: u64| free.filter(|free| *free < limit);
    if let Some(free_mib) = low(board.free_disk_mib, limits.min_disk_mib) {
        return Some(Ailment::LowDisk { free_mib, limit_mib: limits.min_disk_mib });
    }
    if let Some(free_mib) = low(board.free_memory_mib, limits.min_memory_mib) {
        return Some(Ailment::LowMemory { free_mib, limit_mib: limits.min_memory_mib });
    }
    if let Some(celsius) = board.celsius.filter(|c| *c >= limits.max_celsius) {
        let (milli_celsius, limit_milli_celsius) = (milli(celsius), milli(limits.max_celsius));
        return Some(Ailment::TooHot { milli_celsius, limit_milli_celsius });
    }
    (board.under_voltage == Some(true)).then_some(Ailment::UnderVoltage)
}

/// Why work under way must be stopped: for heat, or because there is no room left for what it would give.
#[must_use]
pub fn must_stop(board: &BoardHealth, limits: &Health) -> Option<EngineFault> {
    if board.free_disk_mib == Some(0) && limits.min_disk_mib > 0 {
        return Some(EngineFault::DiskFull { limit_mib: limits.min_disk_mib });
    }
    let celsius = board.celsius.filter(|c| *c >= limits.max_celsius + STOP_ABOVE_CELSIUS)?;
    let (milli_celsius, limit_milli_celsius) = (milli(celsius), milli(limits.max_celsius));
    Some(EngineFault::ThermalStop { milli_celsius, limit_milli_celsius })
}

fn milli(celsius: f64) -> i64 {
    (celsius * 1000.0) as i64
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    all.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path()).collect()
}

/// The hottest thermal zone, in degrees Celsius.
fn celsius(sys: &Path) -> Option<f64> {
    let zones = entries(&sys.join("class/thermal"), "thermal_zone");
    let milli = zones.iter().filter_map(|zone| read(&zone.join("temp"))?.parse::<i64>().ok()).max()?;
    Some(milli as f64 / 1000.0)
}

/// The Raspberry Pi's firmware, by its voltage sensor or by its own word (bit 0: under-voltage now).
fn under_voltage(sys: &Path) -> Option<bool> {
    let sensors = entries(&sys.join("class/hwmon"), "hwmon");
    let volt = sensors.iter().find(|s| read(&s.join("name")).as_deref() == Some("rpi_volt"));
    if let Some(alarm) = volt.and_then(|s| read(&s.join("in0_lcrit_alarm"))) {
        return Some(alarm == "1");
    }
    let word = read(&sys.join("devices/platform/soc/soc:firmware/get_throttled"))?;
    let bits = u32::from_str_radix(word.trim_start_matches("0x"), 16).ok()?;
    Some(bits & 1 == 1)
}

fn free_memory_mib() -> Option<u64> {
    let text = read(Path::new("/proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

fn free_disk_mib(data: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(data).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(sys: &Path, file: &str, text: &str) {
        let path = sys.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_hottest_zone_and_either_word_of_the_firmware_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        assert_eq!((celsius(sys), under_voltage(sys)), (None, None), "no sensor says nothing");
        put(sys, "class/thermal/thermal_zone0/temp", "61500\n");
        put(sys, "class/thermal/thermal_zone1/temp", "82250\n");
        put(sys, "devices/platform/soc/soc:firmware/get_throttled", "0x50005\n");
        assert_eq!((celsius(sys), under_voltage(sys)), (Some(82.25), Some(true)));
        put(sys, "devices/platform/soc/soc:firmware/get_throttled", "0x50000\n");
        assert_eq!(under_voltage(sys), Some(false), "it was, and is no more");
        put(sys, "class/hwmon/hwmon1/name", "rpi_volt\n");
        put(sys, "class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
        assert_eq!(under_voltage(sys), Some(true));
    }

    #[test]
    fn each_lack_has_its_own_finding_and_a_sound_board_none() {
        let limits = Health::default();
        let sound = BoardHealth {
            celsius: Some(55.0),
            under_voltage: Some(false),
            free_memory_mib: Some(2000),
            free_disk_mib: Some(9000),
        };
        let found = |board| ailment(&board, &limits);
        assert_eq!(found(sound.clone()), None);
        assert_eq!(found(BoardHealth::default()), None);
        assert_eq!(found(BoardHealth { under_voltage: Some(true), ..sound.clone() }), Some(Ailment::UnderVoltage));
        let hot = found(BoardHealth { celsius: Some(80.0), ..sound.clone() });
        assert_eq!(hot, Some(Ailment::TooHot { milli_celsius: 80_000, limit_milli_celsius: 80_000 }));
        let memory = found(BoardHealth { free_memory_mib: Some(95), ..sound.clone() });
        assert_eq!(memory, Some(Ailment::LowMemory { free_mib: 95, limit_mib: 96 }));
        let disk = found(BoardHealth { free_disk_mib: Some(127), ..sound.clone() });
        assert_eq!(disk, Some(Ailment::LowDisk { free_mib: 127, limit_mib: 128 }));
        assert_eq!(must_stop(&BoardHealth { celsius: Some(84.9), ..sound.clone() }, &limits), None);
        let stop = must_stop(&BoardHealth { celsius: Some(85.0), ..sound.clone() }, &limits);
        assert_eq!(stop, Some(EngineFault::ThermalStop { milli_celsius: 85_000, limit_milli_celsius: 80_000 }));
        let stop = must_stop(&BoardHealth { free_disk_mib: Some(0), ..sound }, &limits);
        assert_eq!(stop, Some(EngineFault::DiskFull { limit_mib: 128 }));
    }
}
