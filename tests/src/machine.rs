//! The emulated machine: Debian's kernel, a sound card of the kernel's own and, on arm64, a GPIO chip with a button. What is
//! done in it is `tests/machine/init`; `tests/dev/machine.sh` makes it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::{repository, try_for};

/// How long nothing may be told: under emulation a program takes ten times as long to start.
const SILENCE: Duration = Duration::from_secs(180);
/// The box's root as a tar, with room to spare.
const DISK_BYTES: u64 = 64 << 20;

/// What it emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// A PC: no GPIO.
    Amd64,
    /// QEMU's `virt` with the processor of a Pi 4. Its chip is a PL061; line 3 goes up for 100 ms when somebody presses the
    /// machine's power button.
    Arm64,
}

impl Architecture {
    /// What these tests were built for.
    pub const HERE: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// Debian's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn emulator(self) -> Command {
        let (program, arguments) = match self {
            Self::Amd64 => ("qemu-system-x86_64", &["-cpu", "max"][..]),
            Self::Arm64 => ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "cortex-a72"][..]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }

    /// The words for its kernel.
    const fn words(self) -> &'static str {
        match self {
            Self::Amd64 => "console=ttyS0 quiet panic=-1",
            Self::Arm64 => "console=ttyAMA0 quiet panic=-1 panel",
        }
    }
}

/// Something that happened in the machine, and when, by its own clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// What.
    pub name: String,
    /// Seconds since it was switched on.
    pub at: f64,
}

/// Runs the machine to its end: what happened. The box's root lies in `folder` then.
///
/// # Panics
/// If it was not made, hangs, or ends otherwise than by itself.
#[must_use]
pub fn run(architecture: Architecture, folder: &Path) -> Vec<Mark> {
    let made = repository().join("target/machine");
    let made = std::env::var_os("ROOMSCRIBE_TEST_MACHINES").map_or(made, PathBuf::from).join(architecture.name());
    assert!(made.join("initramfs").is_file(), "{} is missing: ./dev test makes it", made.display());
    let (disk, monitor) = (folder.join("disk"), folder.join("monitor"));
    std::fs::File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).expect("a disk");
    let mut emulator = architecture
        .emulator()
        .args(["-accel", "tcg", "-smp", "2", "-m", "1536", "-display", "none", "-no-reboot", "-nodefaults"])
        .args(["-serial", "stdio", "-append", architecture.words(), "-kernel"])
        .arg(made.join("kernel"))
        .arg("-initrd")
        .arg(made.join("initramfs"))
        .arg("-monitor")
        .arg(format!("unix:{},server=on,wait=off", monitor.display()))
        .arg("-drive")
        .arg(format!("file={},format=raw,if=virtio", disk.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the emulator is missing: ./dev test installs it");
    let lines = lines_of(&mut emulator);
    let mut machine = Machine { emulator, monitor, said: Vec::new(), marks: Vec::new() };
    machine.watch(&lines);
    let ended = machine.emulator.wait().expect("it ended");
    assert!(ended.success(), "the emulator ended with {ended}: {:#?}", machine.said);
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--warning=no-timestamp", "--file"]).arg(&disk).arg("-C").arg(folder);
    let unpacked = tar.status();
    assert!(unpacked.is_ok_and(|done| done.success()), "no root was left: {:#?}", machine.said);
    std::mem::take(&mut machine.marks)
}

struct Machine {
    emulator: Child,
    monitor: PathBuf,
    said: Vec<String>,
    marks: Vec<Mark>,
}

impl Machine {
    fn watch(&mut self, lines: &Receiver<String>) {
        loop {
            match lines.recv_timeout(SILENCE) {
                Ok(line) if line == "@press" => self.press(),
                Ok(line) => {
                    self.marks.extend(mark(&line));
                    self.said.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("nothing is told any more: {:#?}", self.said),
            }
        }
    }

    fn press(&self) {
        let mut monitor = None;
        let is_open = try_for(Duration::from_secs(10), || {
            monitor = UnixStream::connect(&self.monitor).ok();
            monitor.is_some()
        });
        assert!(is_open, "the emulator's monitor does not answer");
        let mut monitor = monitor.expect("it is open");
        monitor.write_all(b"system_powerdown\n").expect("a press");
        // It reads a line at a time, and drops what it has not read when nobody is there.
        let answered = BufReader::new(monitor).lines().map_while(Result::ok).find(|l| l.contains("system_powerdown"));
        assert!(answered.is_some(), "the emulator's monitor does not answer");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.emulator.kill().ok();
        self.emulator.wait().ok();
    }
}

/// What it says on its serial line, as it does.
fn lines_of(emulator: &mut Child) -> Receiver<String> {
    let out = BufReader::new(emulator.stdout.take().expect("a pipe"));
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if sender.send(line.trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

fn mark(line: &str) -> Option<Mark> {
    let (name, at) = line.strip_prefix('@')?.split_once(' ')?;
    Some(Mark { name: name.to_owned(), at: at.parse().ok()? })
}
