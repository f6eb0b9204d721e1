//! A disk whose power can be cut: a block device below ext4 that forgets what was not flushed.
//!
//!   cache ──▶ FUSE, one file ──▶ loop device ──▶ ext4, mounted as a box mounts its card ──▶ whatever is under test
//!
//! The kernel's loop driver makes a flush of the block device into an `fsync` of the file; nothing between the file
//! system and [`cache`] keeps writes back. It needs root, `/dev/fuse` and loop devices. All of it is taken away when it
//! is dropped, and what a killed test left behind by the next test that makes one.

pub mod cache;
mod fuse;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, Session};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use crate::try_for;
use cache::{Cache, Counts, Cut, Honesty};
use fuse::Shared;

/// More than anything here writes; only what is written takes memory.
const SIZE: u64 = 1 << 30;
/// The programs that make a disk of a file.
const PROGRAMS: [&str; 4] = ["losetup", "mkfs.ext4", "mount", "unshare"];
/// In the names of what is made here, before the process that made it.
const MARK: &str = "roomscribe-powercut-";

/// What is missing here for cutting the power; nothing, if it can be done.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    if !command("unshare").args(["--mount", "true"]).output().is_ok_and(|done| done.status.success()) {
        missing.push("the right to mount".to_owned());
    }
    let devices = ["/dev/fuse", "/dev/loop-control"].into_iter().filter(|device| !Path::new(device).exists());
    missing.extend(devices.map(str::to_owned));
    let is_known = |kind: &str| {
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        known.lines().any(|line| line.split_whitespace().last() == Some(kind))
    };
    missing.extend(["ext4"].into_iter().filter(|kind| !is_known(kind)).map(|kind| format!("{kind} in the kernel")));
    let programs = PROGRAMS.into_iter().filter(|program| command(program).arg("--version").output().is_err());
    missing.extend(programs.map(str::to_owned));
    missing
}

/// Debian keeps some where a plain user's PATH does not look.
fn command(program: &str) -> Command {
    let in_sbin = Path::new("/usr/sbin").join(program);
    Command::new(if in_sbin.exists() { in_sbin } else { PathBuf::from(program) })
}

/// Runs a program and takes what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = command(program).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// See the top of the file.
pub struct Disk {
    /// Mounted on itself and shared, so that what is unmounted here goes from the mount namespaces of programs too.
    folder: tempfile::TempDir,
    shared: Shared,
    session: Option<BackgroundSession>,
    device: Option<String>,
}

impl Disk {
    /// An empty ext4, mounted.
    ///
    /// # Panics
    /// If it cannot be made: [`missing`] says why.
    #[must_use]
    pub fn new(honesty: Honesty) -> Self {
        let missing = missing();
        assert!(missing.is_empty(), "the power cannot be cut here: missing {}", missing.join(", "));
        sweep();
        let prefix = format!("{MARK}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary folder");
        let shared = Shared::new(Cache::new(honesty), SIZE);
        let mut disk = Self { folder, shared, session: None, device: None };
        disk.assemble();
        disk
    }

    fn assemble(&mut self) {
        let folder = self.folder.path();
        mount_bind(folder, folder).expect("a mount");
        mount_change(folder, MountPropagationFlags::SHARED).expect("a shared mount");
        for part in ["disk", "root"] {
            std::fs::create_dir(folder.join(part)).expect("a folder");
        }
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(MARK.trim_end_matches('-').to_owned())];
        let session = Session::new(self.shared.clone(), folder.join("disk"), &config).and_then(Session::spawn);
        self.session = Some(session.expect("a FUSE file system"));
        let device = self.attach();
        run("mkfs.ext4", &["-q", &device]);
        self.mount(&device);
        self.device = Some(device);
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// What was done to it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.lock().cache.counts()
    }

    fn attach(&self) -> String {
        let file = self.folder.path().join("disk").join(self.shared.restore());
        let device = run("losetup", &["--find", "--show", "--direct-io=on", &file.display().to_string()]);
        let flag = |name: &str| {
            let sys = Path::new("/sys/block").join(device.trim_start_matches("/dev/")).join(name);
            std::fs::read_to_string(sys).unwrap_or_default().trim().to_owned()
        };
        assert_eq!(flag("loop/dio"), "1", "the page cache keeps writes back");
        assert_eq!(flag("queue/write_cache"), "write back", "the kernel does not know that this disk must be flushed");
        device
    }

    fn mount(&self, device: &str) {
        run("mount", &["-t", "ext4", device, &self.root().display().to_string()]);
    }

    /// The power goes: from this instant on the disk answers nothing.
    pub fn cut(&self, cut: Cut) {
        self.shared.cut(cut);
    }

    /// As [`Disk::cut`], when so many more writes have come.
    pub fn cut_after(&self, writes: u32, cut: Cut) {
        self.shared.cut_after(writes, cut);
    }

    /// Since when there is no power, if there is none.
    #[must_use]
    pub fn off(&self) -> Option<Duration> {
        self.shared.off()
    }

    /// Takes the dead file system away. Everybody who used it must be dead, too.
    ///
    /// # Panics
    /// If somebody is not.
    pub fn unmount(&mut self) {
        let root = self.root();
        let unmounted = try_for(crate::PATIENCE, || unmount(&root, UnmountFlags::empty()).is_ok());
        assert!(unmounted, "somebody still uses {}", root.display());
        self.detach();
    }

    fn detach(&mut self) {
        let Some(device) = self.device.take() else { return };
        command("losetup").args(["--detach", &device]).output().ok();
    }

    /// The power is back: what survived is mounted, and the file system mends itself.
    ///
    /// # Panics
    /// If it cannot.
    pub fn restore(&mut self) {
        let device = self.attach();
        self.mount(&device);
        self.device = Some(device);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever somebody still wants of it ends with an error.
        self.shared.cut(Cut::Forgets);
        unmount(self.root(), UnmountFlags::DETACH).ok();
        self.detach();
        let disk = self.folder.path().join("disk");
        unmount(&disk, UnmountFlags::DETACH).ok();
        unmount(self.folder.path(), UnmountFlags::DETACH).ok();
        // Its thread ends when the kernel has let go of it; nobody waits for that.
        drop(self.session.take());
    }
}

/// Takes away what tests left behind that were killed.
fn sweep() {
    // While its file system is mounted a device only notes that it is to go; once the file is gone it does not say whose it
    // was.
    for device in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if is_left_behind(&file) {
            let device = Path::new("/dev").join(device.file_name());
            command("losetup").arg("--detach").arg(device).output().ok();
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| is_left_behind(point));
    // What was mounted last lies on what was mounted first.
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        unmount(point, UnmountFlags::DETACH).ok();
    }
    for folder in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if is_left_behind(&folder.path().display().to_string()) {
            std::fs::remove_dir_all(folder.path()).ok();
        }
    }
}

/// Whether a path was made here, by a process that is no more.
fn is_left_behind(path: &str) -> bool {
    let Some((_, made)) = path.split_once(MARK) else { return false };
    let maker: String = made.chars().take_while(char::is_ascii_digit).collect();
    !maker.is_empty() && !Path::new("/proc").join(maker).exists()
}
