//! `roomscribe levels`: how loud it is, now. Shows and keeps nothing else.
//!
//! While a session is recorded the daemon has the microphone, and says how loud it is. Else this opens it, and lets go
//! of it at once when a session begins.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, UNIX_EPOCH};

use hyper::Method;
use serde_json::{Value, json};
use shared::clock::{Clock as _, SystemClock, WallTime};
use shared::paths::Root;
use shared::settings::Settings;

use super::{Answer, Failed, client, code};
use crate::audio::LEVEL_SAMPLES;
use crate::capture::level::{Level, Meter};
use crate::capture::{Board, Microphone, MicrophoneDoor as _, MicrophoneError, SILENT};

/// A line is ten times a second on a terminal, and in JSON.
const TENTH: Duration = Duration::from_millis(100);
/// A device that says nothing for so long hangs in its driver; one that merely gives nothing says so earlier.
const HUNG: Duration = Duration::from_secs(SILENT.as_secs() + 1);
/// A file that asks to let go of the microphone and is older than this was left by a daemon that was killed.
const ASKED: Duration = Duration::from_secs(5);
/// Columns of the bar; one is three decibels.
const BAR: usize = 24;

/// `roomscribe levels`
pub async fn levels(root: Root, seconds: Option<u64>, json: bool) -> Answer {
    let tenths = seconds.map_or(u64::MAX, |seconds| seconds.saturating_mul(10));
    let mut shown = Shown::new(json);
    let mut done = 0;
    if client::is_reachable(&root).await {
        done = of_daemon(&root, tenths, &mut shown).await?;
    }
    // The daemon records nothing (any more).
    if done == 0 {
        of_device(&root, tenths, &mut shown)?;
    }
    shown.end();
    Ok(code::DONE)
}

/// What the daemon hears, as long as it records. Gives how many tenths were shown.
async fn of_daemon(root: &Root, tenths: u64, shown: &mut Shown) -> Result<u64, Failed> {
    for tenth in 0..tenths {
        let capture = client::demand(root, Method::GET, "/levels", None).await?;
        if capture["state"] == "idle" {
            return Ok(tenth);
        }
        let level = serde_json::from_value(capture["level"].clone()).unwrap_or_default();
        if !shown.show(level, capture["state"].as_str().unwrap_or("recording")) {
            return Ok(tenth + 1);
        }
        tokio::time::sleep(TENTH).await;
    }
    Ok(tenths)
}

fn of_device(root: &Root, tenths: u64, shown: &mut Shown) -> Result<(), Failed> {
    let settings = Settings::load(root, |name| std::env::var(name).ok()).map_err(|why| Failed::because(&why))?;
    let heard = listen(Board::to_look(&settings.capture.device));
    let (wanted, clock) = (root.microphone_wanted(), SystemClock::new());
    for _ in 0..tenths {
        if is_asked_for(&wanted, clock.now().wall) {
            return Err(Failed::new(code::FAILED, "a session wants the microphone: let go of it"));
        }
        let level = match heard.recv_timeout(HUNG) {
            Ok(level) => level.map_err(|why| Failed::because(&why))?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(Failed::because(&MicrophoneError::Hung));
            }
        };
        if !shown.show(level, "listening") {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a session that begins waits for the microphone.
fn is_asked_for(wanted: &Path, now: WallTime) -> bool {
    let since = || wanted.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok();
    let since = since().and_then(|since| i64::try_from(since.as_millis()).ok());
    since.is_some_and(|since| now.since(WallTime(since)) < ASKED)
}

/// Opens the microphone on a thread, since a driver may hang. Ends with whoever listens.
fn listen(door: Board) -> Receiver<Result<Level, MicrophoneError>> {
    let (says, heard) = mpsc::sync_channel(0);
    std::thread::spawn(move || {
        let mut microphone = match door.open() {
            Ok(microphone) => microphone,
            Err(why) => return drop(says.send(Err(why))),
        };
        while says.send(tenth(microphone.as_mut())).is_ok() {}
    });
    heard
}

/// The level of the next tenth of a second. What goes on by itself is no news here.
fn tenth(microphone: &mut dyn Microphone) -> Result<Level, MicrophoneError> {
    let (mut meter, mut block) = (Meter::default(), vec![0; LEVEL_SAMPLES]);
    while meter.samples() < LEVEL_SAMPLES as u64 {
        let left = LEVEL_SAMPLES - usize::try_from(meter.samples()).unwrap_or(0);
        match microphone.read(&mut block[..left]) {
            Ok(count) => meter.add(&block[..count]),
            Err(why) if why.goes_on() => {}
            Err(why) => return Err(why),
        }
    }
    Ok(meter.level())
}

/// Where levels go.
struct Shown {
    kind: Kind,
    tenths: u64,
    loudest: Level,
}

enum Kind {
    /// A line that is drawn again and again.
    Terminal,
    /// A line a second.
    Lines,
    /// A line a tenth of a second.
    Json,
}

impl Shown {
    fn new(json: bool) -> Self {
        let kind = match json {
            true => Kind::Json,
            false if std::io::stdout().is_terminal() => Kind::Terminal,
            false => Kind::Lines,
        };
        Self { kind, tenths: 0, loudest: Level::default() }
    }

    /// Shows a level; whether somebody still looks.
    fn show(&mut self, level: Level, state: &str) -> bool {
        self.tenths += 1;
        let at_s = self.tenths as f64 / 10.0;
        let mut out = std::io::stdout();
        let written = match self.kind {
            Kind::Json => writeln!(out, "{}", as_json(level, state, at_s)),
            Kind::Terminal => write!(out, "\r{}\x1b[K", line(level, state)),
            Kind::Lines => {
                self.loudest = louder(self.loudest, level);
                if !self.tenths.is_multiple_of(10) {
                    return true;
                }
                let loudest = std::mem::take(&mut self.loudest);
                writeln!(out, "{at_s:>6.0} s  {}", line(loudest, state))
            }
        };
        written.and_then(|()| out.flush()).is_ok()
    }

    fn end(&self) {
        if matches!(self.kind, Kind::Terminal) && self.tenths > 0 {
            writeln!(std::io::stdout()).ok();
        }
    }
}

/// The louder of both in each respect.
fn louder(a: Level, b: Level) -> Level {
    let most = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
    Level {
        peak_dbfs: most(a.peak_dbfs, b.peak_dbfs),
        rms_dbfs: most(a.rms_dbfs, b.rms_dbfs),
        clipped: a.clipped + b.clipped,
    }
}

fn as_json(level: Level, state: &str, at_s: f64) -> Value {
    let Level { peak_dbfs, rms_dbfs, clipped } = level;
    json!({ "at_s": at_s, "state": state, "peak_dbfs": peak_dbfs, "rms_dbfs": rms_dbfs, "clipped": clipped })
}

fn line(level: Level, state: &str) -> String {
    let filled = level.peak_dbfs.map_or(0.0, |peak| (peak / 3.0 + BAR as f64).clamp(0.0, BAR as f64));
    let number = |dbfs: Option<f64>| dbfs.map_or_else(|| "silence".to_owned(), |dbfs| format!("{dbfs:>7.1}"));
    let (peak, rms) = (number(level.peak_dbfs), number(level.rms_dbfs));
    let clip = if level.clipped > 0 { "  CLIPPED" } else { "" };
    let bar = "#".repeat(filled as usize);
    format!("[{bar:<BAR$}] peak {peak}  rms {rms} dBFS  {state}{clip}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_a_terminal_and_marks_what_is_clipped() {
        let loud = Level { peak_dbfs: Some(0.0), rms_dbfs: Some(-3.0), clipped: 9 };
        assert_eq!(line(loud, "recording").len(), 77);
        assert!(line(loud, "recording").ends_with("CLIPPED") && line(loud, "x").contains(&"#".repeat(BAR)));
        let silence = line(Level::default(), "failing");
        assert!(silence.contains("peak silence  rms silence") && !silence.contains('#') && !silence.contains("CLIP"));
    }

    #[test]
    fn a_second_is_as_loud_as_its_loudest_tenth() {
        let a = Level { peak_dbfs: Some(-20.0), rms_dbfs: None, clipped: 0 };
        let b = Level { peak_dbfs: Some(-30.0), rms_dbfs: Some(-40.0), clipped: 2 };
        assert_eq!(louder(a, b), Level { peak_dbfs: Some(-20.0), rms_dbfs: Some(-40.0), clipped: 2 });
    }

    #[test]
    fn only_a_fresh_request_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let (wanted, clock) = (folder.path().join("wanted"), SystemClock::new());
        assert!(!is_asked_for(&wanted, clock.now().wall));
        std::fs::write(&wanted, "").unwrap();
        assert!(is_asked_for(&wanted, clock.now().wall));
        assert!(!is_asked_for(&wanted, clock.now().wall.plus(ASKED)));
    }
}
