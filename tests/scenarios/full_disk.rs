//! A disk that has no room left at any write: as a session begins, while it lasts, as it ends. What cannot be written is a
//! gap, the box goes on, and once there is room everything is as it should be.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use shared::record::GapCause;
use tests::microphone::{Microphone, STALE};
use tests::positions::{SECOND, SLACK, assert_timeline, lost_before, stretches};
use tests::{TestBox, now, wait_for};

/// Room enough for the databases and some ten seconds of sound.
const SIZE: &str = "4m";
const PAGE: u64 = 4096;

/// A small file system in memory.
struct Tmpfs(PathBuf);

/// A command for an administrator, who runs these tests or may become one.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

impl Tmpfs {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let size = format!("size={SIZE},mode=700,uid={user},gid={group}");
        let mounted = as_root("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "a tmpfs is mounted: be root, or let sudo make you");
        Self(at.to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves so many pages free, and no more.
    fn fill(&self, pages_left: u64) {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        let free = disk.f_bavail * disk.f_frsize;
        let has = std::fs::metadata(self.ballast()).map_or(0, |file| file.len());
        let size = (has + free).saturating_sub(pages_left * PAGE);
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.ballast()).unwrap();
        // On tmpfs this takes the pages at once.
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size.max(1)).ok();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).ok();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        as_root("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_disk_that_is_full_at_any_write_costs_a_gap_and_nothing_else() {
    let bare = TestBox::bare();
    let data = bare.root().join("var/lib/roomscribe");
    let disk = Tmpfs::mount(&data);
    bare.set("[health]\nmin_disk_mib = 0\n[admission]\nmin_disk_mib = 0\n");
    let mut microphone = Microphone::counting(bare.root());
    let room = microphone.tell(bare);
    let mut daemon = room.start_daemon();
    for pages_left in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
        disk.fill(pages_left);
        let started = room.command("roomscribe").args(["start", "--consent", "verbal", "--json"]).output().unwrap();
        let session = match started.status.success() {
            true => text(&serde_json::from_slice(&started.stdout).unwrap(), "session_id").to_owned(),
            false => {
                let why = String::from_utf8_lossy(&started.stderr).into_owned();
                assert_eq!(started.status.code(), Some(5), "{why}");
                assert!(!why.contains("panicked") && !why.is_empty(), "{why}");
                disk.make_room();
                wait_for("what was begun of it to go", || room.spooled().is_empty().then_some(()));
                text(&room.ask("roomscribe", &["start", "--consent", "verbal"]), "session_id").to_owned()
            }
        };
        disk.make_room();
        std::thread::sleep(Duration::from_millis(1_300));
        let full = microphone.position(now()).unwrap();
        disk.fill(pages_left);
        std::thread::sleep(Duration::from_millis(2_300));
        disk.make_room();
        std::thread::sleep(Duration::from_millis(1_300));
        disk.fill(0);
        // Its end cannot be stored; it is, once there is room.
        drop(room.run(&["stop"]));
        disk.make_room();
        assert!(daemon.0.try_wait().unwrap().is_none(), "the daemon goes on");
        // Without models it fails, or waits for its breaker.
        wait_for("the session to end", || {
            let known = room.ask("roomscribe", &["sessions", &session]);
            ["failed", "postponed"].contains(&text(&known, "status")).then_some(())
        });
        let spool = room.heard(&session);
        let gaps = spool.gaps();
        assert!(gaps.iter().all(|(_, cause)| *cause == GapCause::DiskFull), "{gaps:?}");
        let pcm = spool.read(0..u64::MAX).unwrap();
        let heard = stretches(&pcm, &gaps, appliance::audio::samples_in(STALE), full);
        assert_timeline(&heard);
        let lost = lost_before(&heard, full);
        assert!(lost.is_some_and(|lost| lost <= SECOND + SLACK), "{lost:?} samples are lost: {heard:?}");
        // What is kept of a failed session would fill this disk.
        room.ask("roomscribe", &["queue", "drop", &session, "--yes"]);
        wait_for("room for the next", || room.spooled().is_empty().then_some(()));
    }
    let ledger = room.ask("roomscribe", &["ledger"]);
    assert_eq!((&ledger["balances"], &ledger["recorded"]["sessions"]), (&true.into(), &9.into()), "{ledger}");
    assert_eq!(room.ask("roomscribe", &["audit", "--verify"])["flaw"], Value::Null);
    assert_eq!(room.ask("roomscribe", &["queue", "check"])["damage"], serde_json::json!([]));
    assert!(microphone.is_alive());
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
