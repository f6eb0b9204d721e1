//! A room with a microphone in it, for a machine without a sound card.
//!
//!   room play WAV FIFO      ──▶  FIFO  ──▶  ALSA `type file`, `infile FIFO`  ──▶  whoever records
//!   room counter FIFO
//!   room tone FIFO
//!
//! The FIFO carries `S16_LE`, mono. It behaves as a microphone does: time passes whether anybody listens or not.
//! Blocks leave on a fixed grid of the monotonic clock; what finds the pipe full is gone, and counted.
//!
//! - The FIFO is held open for reading and writing, so a reader may die and come back and neither side blocks.
//! - At most `--pipe` bytes wait unread, which plays the part of the driver's buffer: with the default, one block.
//!   After a pause the reader first gets what waited, and then the present.
//! - ALSA's file plugin takes a short read for a full one and leaves in the rest whatever the caller's buffer held, so
//!   each read must find all it asks for: blocks leave whole or not at all, and `--block` must be a multiple of the
//!   frames that the recorder takes per read: `roomscribe` takes 10 ms.

use std::fmt;
use std::io::{IsTerminal, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

/// Writes up to this many bytes are all or nothing (`PIPE_BUF` of Linux).
const ATOMIC_BYTES: usize = 4096;
/// Off a terminal, progress is a line now and then.
const SECONDS_PER_PLAIN_LINE: f64 = 10.0;

/// Plays a recording, or a test signal, into a FIFO as a microphone would.
///
/// Example: mkfifo mic && room play conversation.wav mic --hold --progress
#[derive(Parser)]
#[command(name = "room", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Plays a WAV file (mono, 16 bits, the FIFO's rate), then stops or goes on in silence.
    Play {
        /// The recording.
        wav: PathBuf,
        #[command(flatten)]
        microphone: Microphone,
        /// Silence until this file exists; the recording begins with the next block.
        #[arg(long, value_name = "FILE")]
        cue: Option<PathBuf>,
        /// Made when the recording has been played.
        #[arg(long, value_name = "FILE")]
        done: Option<PathBuf>,
        /// Seconds of silence after the recording.
        #[arg(long, value_name = "S", default_value_t = 0.0)]
        tail_silence: f64,
        /// Goes on in silence until told to stop (SIGTERM).
        #[arg(long)]
        hold: bool,
        /// Says on standard error how far the recording has come.
        #[arg(long)]
        progress: bool,
    },
    /// Plays a signal that tells its own position, without end: sample n is (n / 16) mod 32768. It repeats after
    /// 32.768 s at 16 kHz. Prints one JSON line first: sample n leaves, in its block, `n / rate` seconds after
    /// `epoch_monotonic_ns`.
    Counter {
        #[command(flatten)]
        microphone: Microphone,
    },
    /// Plays a tone of 200 Hz, without end: what a microphone gives whose level is known.
    Tone {
        #[command(flatten)]
        microphone: Microphone,
        /// Its peak, as a share of full scale; 0 is a flat line, more than 1 is clipped.
        #[arg(long, default_value_t = 0.1)]
        peak: f64,
        /// What it is about, as a share of full scale.
        #[arg(long, default_value_t = 0.0)]
        offset: f64,
    },
}

/// The FIFO and its pace.
#[derive(Args)]
struct Microphone {
    /// The FIFO; it must exist.
    fifo: PathBuf,
    /// Samples per second.
    #[arg(long, default_value_t = 16_000, value_parser = clap::value_parser!(u32).range(1..=384_000))]
    rate: u32,
    /// Samples written at a time (1600 are 100 ms at 16 kHz); a multiple of what the recorder takes per read.
    #[arg(long, default_value_t = 1600, value_parser = clap::value_parser!(u32).range(1..=2048))]
    block: u32,
    /// Bytes that may wait unread; the kernel rounds up to pages.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(4096..=1_048_576))]
    pipe: u32,
}

/// Why nothing can be played.
#[derive(Debug)]
enum Trouble {
    Io(&'static str, PathBuf, std::io::Error),
    NotAFifo(PathBuf),
    Wav(PathBuf, hound::Error),
    Format(PathBuf, hound::WavSpec, u32),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, path, why) => write!(f, "{} {what}: {why}", path.display()),
            Self::NotAFifo(path) => write!(f, "{} is not a FIFO; make one with mkfifo", path.display()),
            Self::Wav(path, why) => write!(f, "{} cannot be read as WAV: {why}", path.display()),
            Self::Format(path, is, rate) => write!(
                f,
                "{} has {} channel(s), {} bits, {} Hz; only 1 channel, 16 bits, {rate} Hz can be played here. \
                 Convert it: sox IN -r {rate} -c 1 -b 16 OUT.wav, or ffmpeg -i IN -ar {rate} -ac 1 -sample_fmt s16 OUT.wav",
                path.display(),
                is.channels,
                is.bits_per_sample,
                is.sample_rate
            ),
        }
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Play { wav, microphone, cue, done, tail_silence, hold, progress } => {
            let tail = Duration::try_from_secs_f64(tail_silence).unwrap_or_default();
            play(&wav, &microphone, cue.as_deref(), progress).and_then(|line| {
                mark(done.as_deref())?;
                line.be_silent(if hold { Duration::MAX } else { tail });
                Ok(())
            })
        }
        What::Counter { microphone } => count(&microphone),
        What::Tone { microphone, peak, offset } => sound(&microphone, peak, offset),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("room: {why}");
            ExitCode::FAILURE
        }
    }
}

fn play(wav: &Path, microphone: &Microphone, cue: Option<&Path>, progress: bool) -> Result<Line, Trouble> {
    let samples = read_wav(wav, microphone.rate)?;
    let mut line = Line::open(microphone)?;
    let silence = vec![0; line.block];
    while cue.is_some_and(|cue| !cue.exists()) {
        line.send(&silence);
    }
    line.dropped = 0;
    let mut progress = Progress::new(progress, samples.len(), microphone.rate);
    for (n, chunk) in samples.chunks(line.block).enumerate() {
        let mut block = chunk.to_vec();
        block.resize(line.block, 0);
        line.send(&block);
        progress.show(n * line.block + chunk.len());
    }
    progress.end(line.dropped);
    Ok(line)
}

fn mark(done: Option<&Path>) -> Result<(), Trouble> {
    let Some(path) = done else { return Ok(()) };
    std::fs::write(path, "").map_err(|why| Trouble::Io("cannot be written", path.to_owned(), why))
}

fn count(microphone: &Microphone) -> Result<(), Trouble> {
    let mut line = Line::open(microphone)?;
    let (epoch, rate, block) = (line.epoch.as_nanos(), line.rate, line.block);
    println!(r#"{{"epoch_monotonic_ns":{epoch},"rate":{rate},"block":{block}}}"#);
    // Whoever waits for that line may be behind a pipe; if nobody is, that is fine too.
    drop(std::io::stdout().flush());
    let mut at: u64 = 0;
    loop {
        let block: Vec<i16> = (at..).take(line.block).map(|n| (n / 16 % 32_768) as i16).collect();
        line.send(&block);
        at += line.block as u64;
    }
}

fn sound(microphone: &Microphone, peak: f64, offset: f64) -> Result<(), Trouble> {
    const HZ: f64 = 200.0;
    let mut line = Line::open(microphone)?;
    let step = HZ * std::f64::consts::TAU / f64::from(line.rate);
    let mut at: u64 = 0;
    loop {
        let level = |n: u64| (peak * (n as f64 * step).sin() + offset) * 32_768.0;
        let block: Vec<i16> = (at..).take(line.block).map(|n| level(n).round() as i16).collect();
        line.send(&block);
        at += line.block as u64;
    }
}

fn read_wav(path: &Path, rate: u32) -> Result<Vec<i16>, Trouble> {
    let trouble = |why| Trouble::Wav(path.to_owned(), why);
    let mut wav = hound::WavReader::open(path).map_err(trouble)?;
    let is = wav.spec();
    let fits = is.channels == 1 && is.bits_per_sample == 16 && is.sample_rate == rate;
    if !fits || is.sample_format != hound::SampleFormat::Int {
        return Err(Trouble::Format(path.to_owned(), is, rate));
    }
    wav.samples().collect::<Result<_, _>>().map_err(trouble)
}

/// The wire from the microphone: a FIFO that blocks leave for on a fixed grid in time.
struct Line {
    fifo: OwnedFd,
    rate: u32,
    block: usize,
    epoch: Duration,
    sent: u64,
    dropped: u64,
}

impl Line {
    fn open(microphone: &Microphone) -> Result<Self, Trouble> {
        let path = &microphone.fifo;
        let trouble = |what| {
            move |why: rustix::io::Errno| {
                Trouble::Io(what, path.clone(), std::io::Error::from_raw_os_error(why.raw_os_error()))
            }
        };
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fifo = rustix::fs::open(path, flags, Mode::empty()).map_err(trouble("cannot be opened"))?;
        let kind = rustix::fs::fstat(&fifo).map_err(trouble("cannot be examined"))?.st_mode;
        if FileType::from_raw_mode(kind) != FileType::Fifo {
            return Err(Trouble::NotAFifo(path.clone()));
        }
        rustix::pipe::fcntl_setpipe_size(&fifo, microphone.pipe as usize).map_err(trouble("cannot be made small"))?;
        let block = microphone.block as usize;
        Ok(Self { fifo, rate: microphone.rate, block, epoch: monotonic(), sent: 0, dropped: 0 })
    }

    /// When block `n` has wholly been heard, counted from the first sample.
    fn offset(&self, n: u64) -> Duration {
        let nanoseconds = u128::from(n) * self.block as u128 * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(nanoseconds as u64)
    }

    fn be_silent(mut self, length: Duration) {
        let (silence, begun) = (vec![0; self.block], self.sent);
        while self.offset(self.sent - begun) < length {
            self.send(&silence);
        }
    }

    /// Waits until the block has been heard, then lets it go; a full pipe loses it.
    fn send(&mut self, block: &[i16]) {
        self.sent += 1;
        let due = self.epoch + self.offset(self.sent);
        std::thread::sleep(due.saturating_sub(monotonic()));
        let bytes: Vec<u8> = block.iter().flat_map(|s| s.to_le_bytes()).collect();
        debug_assert!(bytes.len() <= ATOMIC_BYTES, "a longer write could be torn");
        // Both ends are held here, so the one thing a write can meet is a full pipe.
        if rustix::io::write(&self.fifo, &bytes).is_err() {
            self.dropped += block.len() as u64;
        }
    }
}

fn monotonic() -> Duration {
    let t = clock_gettime(ClockId::Monotonic);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32)
}

/// How far the recording has come: one line rewritten on a terminal, else a line now and then.
struct Progress {
    wanted: bool,
    terminal: bool,
    total: usize,
    rate: f64,
    shown: f64,
}

impl Progress {
    fn new(wanted: bool, total: usize, rate: u32) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { wanted, terminal, total, rate: f64::from(rate), shown: 0.0 }
    }

    fn show(&mut self, samples: usize) {
        let (at, total) = (samples as f64 / self.rate, self.total as f64 / self.rate);
        let step = if self.terminal { 0.2 } else { SECONDS_PER_PLAIN_LINE };
        if !self.wanted || (at < self.shown + step && samples < self.total) {
            return;
        }
        self.shown = at;
        if self.terminal {
            let filled = (at / total * 30.0) as usize;
            eprint!("\rplaying [{:<30}] {at:6.1} of {total:.1} s", "#".repeat(filled));
        } else {
            eprintln!("playing {at:.1} of {total:.1} s");
        }
    }

    fn end(&self, dropped: u64) {
        if self.wanted && self.terminal {
            eprintln!();
        }
        if dropped > 0 {
            let seconds = dropped as f64 / self.rate;
            eprintln!("room: {dropped} samples ({seconds:.2} s) were lost: nobody was reading.");
        }
    }
}
