//! A microphone without a sound card: ALSA's `file` plug-in on a FIFO that `room` plays into in real time.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use appliance::audio::{SAMPLE_RATE_HZ, samples_in};
use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use crate::{Running, TestBox, program};

/// ALSA's name of it.
pub const DEVICE: &str = "roomscribe_test";
/// What of the past a recorder that comes back still finds in the pipe: one block of 100 ms.
pub const STALE: Duration = Duration::from_millis(100);

/// The counter tells positions in steps of so many samples.
pub const STEP: u64 = 16;
/// The counter repeats itself after so many samples.
pub const PERIOD: u64 = STEP * 32_768;
/// What lies between a sample's time and its being counted: a block of the microphone, a block of the recorder.
pub const SLACK: u64 = 2 * SAMPLE_RATE_HZ as u64 / 10;
/// What waits unread at most: as `room` has it, one block; and as much as a sound card keeps.
const PIPE_BYTES: (usize, usize) = (4096, 131_072);

/// Where the counter was at a sample, but for whole [`PERIOD`]s.
#[must_use]
pub fn position(sample: i16) -> u64 {
    STEP * u64::from(sample.unsigned_abs())
}

/// A microphone that is ended with its test.
pub struct Microphone {
    folder: PathBuf,
    running: Running,
}

impl Microphone {
    /// Files for a box whose programs are told of them with [`Microphone::tell`]; nothing sounds yet.
    fn prepare(folder: &Path) {
        let fifo = folder.join("microphone.fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a FIFO");
        let config = format!(
            "pcm.{DEVICE} {{ type file slave.pcm {{ type null }} file \"/dev/null\" infile \"{}\" format raw }}\n",
            fifo.display()
        );
        std::fs::write(folder.join("asound.conf"), config).expect("a config file");
    }

    fn room(folder: &Path, arguments: &[&str]) -> Running {
        let mut command = Command::new(program("room"));
        let out = std::fs::File::create(folder.join("room.json")).expect("a file");
        command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(Stdio::null());
        Running(command.spawn().expect("room starts"))
    }

    /// Plays a recording once [`Microphone::cue`] is given, and goes on in silence.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn playing(folder: &Path, wav: &Path) -> Self {
        Self::prepare(folder);
        let path = |name: &str| folder.join(name).display().to_string();
        let wav = wav.display().to_string();
        let arguments =
            ["play", &wav, &path("microphone.fifo"), "--cue", &path("cue"), "--done", &path("played"), "--hold"];
        Self { folder: folder.to_owned(), running: Self::room(folder, &arguments) }
    }

    /// Plays a signal from which every sample's position can be read.
    #[must_use]
    pub fn counting(folder: &Path) -> Self {
        Self::prepare(folder);
        let fifo = folder.join("microphone.fifo").display().to_string();
        Self { folder: folder.to_owned(), running: Self::room(folder, &["counter", &fifo]) }
    }

    /// Plays a tone of this peak about this offset, as shares of full scale.
    #[must_use]
    pub fn sounding(folder: &Path, peak: f64, offset: f64) -> Self {
        Self::prepare(folder);
        let fifo = folder.join("microphone.fifo").display().to_string();
        let (peak, offset) = (format!("--peak={peak}"), format!("--offset={offset}"));
        Self { folder: folder.to_owned(), running: Self::room(folder, &["tone", &fifo, &peak, &offset]) }
    }

    /// Makes it stop giving samples, as a driver that hangs does, or lets it go on.
    ///
    /// # Panics
    /// If it is away.
    pub fn set_frozen(&self, is_frozen: bool) {
        let pid =
            i32::try_from(self.running.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        let signal = if is_frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(pid, signal).expect("it still runs");
    }

    /// The box whose daemon hears this microphone.
    #[must_use]
    pub fn tell(&self, room: TestBox) -> TestBox {
        room.with("ALSA_CONFIG_PATH", &self.folder.join("asound.conf").display().to_string())
            .with("ROOMSCRIBE_CAPTURE_DEVICE", DEVICE)
    }

    /// Lets the recording begin.
    ///
    /// # Panics
    /// If the disk is full.
    pub fn cue(&self) {
        std::fs::write(self.folder.join("cue"), b"").expect("a cue");
    }

    /// Whether the recording was played to its end.
    #[must_use]
    pub fn is_played(&self) -> bool {
        self.folder.join("played").exists()
    }

    /// Where the counter is at a moment of the monotonic clock, in samples, once it has begun.
    #[must_use]
    pub fn position(&self, at: Duration) -> Option<u64> {
        let said: Value = serde_json::from_slice(&std::fs::read(self.folder.join("room.json")).ok()?).ok()?;
        let epoch = Duration::from_nanos(said["epoch_monotonic_ns"].as_u64()?);
        Some(samples_in(at.saturating_sub(epoch)))
    }

    fn pipe(&self) -> OwnedFd {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(self.folder.join("microphone.fifo"), flags, Mode::empty()).expect("a FIFO")
    }

    /// Lets it keep seconds of sound for a recorder that is late, as a sound card does; a machine that is busy with
    /// other things loses none then. To be ended by [`Microphone::forget`] before another recorder comes.
    ///
    /// # Panics
    /// If the kernel grants nobody so large a pipe.
    pub fn remember(&self) {
        rustix::pipe::fcntl_setpipe_size(self.pipe(), PIPE_BYTES.1).expect("a large pipe");
    }

    /// Takes away what nobody has fetched, and keeps one block from now on: the first sample that was not delivered, if
    /// any waited.
    ///
    /// # Panics
    /// If the pipe cannot be read.
    pub fn forget(&self) -> Option<i16> {
        let (pipe, mut waiting) = (self.pipe(), Vec::new());
        let mut block = [0; 4096];
        let mut drain = || {
            while let Ok(count @ 1..) = rustix::io::read(&pipe, &mut block) {
                waiting.extend_from_slice(&block[..count]);
            }
        };
        drain();
        // A block that comes in between does not fit twice.
        while rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES.0).is_err() {
            drain();
        }
        waiting.first_chunk().map(|bytes| i16::from_le_bytes(*bytes))
    }

    /// Takes it away: nobody can open it any more.
    ///
    /// # Panics
    /// If it is away already.
    pub fn unplug(&mut self) {
        self.running.kill();
        std::fs::remove_file(self.folder.join("microphone.fifo")).expect("a FIFO to take away");
    }

    /// Whether it still plays.
    pub fn is_alive(&mut self) -> bool {
        self.running.0.try_wait().is_ok_and(|ended| ended.is_none())
    }
}
