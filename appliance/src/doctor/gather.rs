//! Looks at everything that is judged. Changes nothing, and what cannot be looked at is evidence too.
//!
//! The database holds all that a daemon knows but what it is recording now: that alone is asked of it, so that a daemon
//! that hangs, or none, is no reason not to look.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use shared::alert;
use shared::breaker::Service;
use shared::card_name::Cards;
use shared::clock::{Clock, Now, SystemClock, WallTime};
use shared::error::{EngineFault, report};
use shared::guard::Breakers;
use shared::paths::Root;
use shared::record::Status;
use shared::seal::ClinicPublic;
use shared::settings::{Settings, SettingsError};
use shared::store::{AtClinic, SessionRow, Store, StoreError};

use super::cause::falls;
use super::{Concluded, Daemon, Evidence, Microphone, Queued, SettingsProblem, Stored, UnusableModel, Withdrawal};
use crate::admission::{self, NoRoom};
use crate::audio::SAMPLE_RATE_HZ;
use crate::capture::level::Meter;
use crate::capture::{self, BLOCK_SAMPLES, Board, MicrophoneDoor as _, MicrophoneError};
use crate::engines::Engines;
use crate::models::{Models, Role};
use crate::vitals::{System, Vitals as _};

/// Concluded sessions that are looked at: weeks of a busy room.
const SESSIONS: u32 = 200;
/// How long the microphone is listened to, and what is not judged before: some click when they are opened.
const LISTENED: u64 = 2 * SAMPLE_RATE_HZ as u64;
const SETTLED: u64 = 3 * SAMPLE_RATE_HZ as u64 / 10;
/// Longer than opening and listening takes; a device that merely gives nothing says so earlier.
const HUNG: Duration = Duration::from_secs(8);
const HOUR_MS: i64 = 3600 * 1000;

/// Looks at a box. `daemon` is what was found on its control socket. Reads whole models and the whole database, and so
/// blocks for a while.
#[must_use]
pub fn gather(root: &Root, daemon: Daemon, env: impl Fn(&str) -> Option<String>) -> Evidence {
    let (settings, settings_problem) = settings(root, env);
    let engines = Engines::new(root, settings.engine.clone());
    let models = engines.models();
    let clock = SystemClock::new();
    let (stored, database_problem) = match stored(root, &settings, &clock) {
        Ok(stored) => (stored, None),
        Err(why) => (Stored::default(), Some(report(&why))),
    };
    let unusable = |role| match models.used(role) {
        Err(EngineFault::ModelUnusable { model, problem, remedy }) => {
            Some(UnusableModel { role, model, problem, remedy })
        }
        Ok(_) | Err(_) => None,
    };
    Evidence {
        at: clock.now().wall,
        microphone: microphone(&daemon, &settings.capture.device),
        panel_problem: panel_problem(root, &settings),
        cards: Cards::present().ids(),
        daemon,
        unusable_models: Role::ALL.into_iter().filter_map(unusable).collect(),
        has_onnx_runtime: engines.has_onnx_runtime(),
        board: System::new(root, models).board(),
        settings,
        settings_problem,
        stored,
        database_problem,
    }
}

/// Whether somebody works on the root whose socket nobody answers.
#[must_use]
pub fn without_socket(root: &Root) -> Daemon {
    let Ok(lock) = std::fs::File::open(root.run().join("lock")) else { return Daemon::Absent };
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Daemon::Absent,
        Err(_) => Daemon::Busy,
    }
}

fn settings(root: &Root, env: impl Fn(&str) -> Option<String>) -> (Settings, Option<SettingsProblem>) {
    let settings = match Settings::load(root, env) {
        Ok(settings) => settings,
        Err(why) => {
            let problem = SettingsProblem { file: file_at_fault(root, &why), problem: one_line(&report(&why)) };
            return (Settings::default(), Some(problem));
        }
    };
    let keys = settings.link.as_ref().map(|link| ClinicPublic::from_hex(&link.sealing_key, &link.signing_key));
    let problem = keys.and_then(Result::err).map(|why| SettingsProblem {
        file: files_with(root, "link.sealing_key").pop(),
        problem: format!("link.sealing_key or link.signing_key is not a key; enrol this box again: {}", report(&why)),
    });
    (settings, problem)
}

/// What a parser of TOML says, without its drawing of the place.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.contains('|') && !line.is_empty());
    lines.collect::<Vec<_>>().join(": ")
}

fn toml_files(root: &Root) -> Vec<PathBuf> {
    let folders = [root.shipped(), root.site()];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

/// The file that is wrong; of those that set the same, the one that is heeded.
fn file_at_fault(root: &Root, why: &SettingsError) -> Option<PathBuf> {
    match why {
        SettingsError::Unreadable { file, .. } | SettingsError::Syntax { file, .. } => Some(PathBuf::from(file)),
        SettingsError::Kind(_) => toml_files(root).into_iter().rfind(|file| !is_well_typed(file)),
        SettingsError::Range { name, .. } => files_with(root, name).pop(),
        SettingsError::CardNumber { .. } => files_with(root, "capture.device").pop(),
    }
}

fn table(file: &Path) -> Option<toml::Table> {
    std::fs::read_to_string(file).ok()?.parse().ok()
}

fn is_well_typed(file: &Path) -> bool {
    table(file).is_some_and(|table| toml::Value::Table(table).try_into::<Settings>().is_ok())
}

/// The files that set `section.key`.
fn files_with(root: &Root, name: &str) -> Vec<PathBuf> {
    let Some((section, key)) = name.split_once('.') else { return Vec::new() };
    let sets = |file: &PathBuf| table(file).is_some_and(|t| t.get(section).is_some_and(|s| s.get(key).is_some()));
    let (site, shipped): (Vec<_>, Vec<_>) =
        toml_files(root).into_iter().filter(sets).partition(|file| file.starts_with(root.site()));
    shipped.into_iter().chain(site).collect()
}

/// Listens to the microphone for two seconds, unless a session may be using it.
fn microphone(daemon: &Daemon, device: &str) -> Microphone {
    match daemon {
        Daemon::Absent | Daemon::Answers { session: None, .. } => {}
        Daemon::Answers { session: Some(_), .. } | Daemon::Busy | Daemon::Deaf => return Microphone::NotTried,
    }
    let (says, heard) = mpsc::channel();
    let door = Board::to_look(device);
    std::thread::spawn(move || says.send(door.open().and_then(|mut open| listened(open.as_mut()))));
    match heard.recv_timeout(HUNG) {
        Ok(Ok(meter)) => Microphone::Heard(meter),
        Ok(Err(why)) => unusable(why, device, &Cards::present()),
        Err(_) => Microphone::Unusable { problem: MicrophoneError::Hung.to_string() },
    }
}

/// What it gives once it has settled. What goes on by itself is no news here.
fn listened(microphone: &mut dyn capture::Microphone) -> Result<Meter, MicrophoneError> {
    let (mut meter, mut block, mut settled) = (Meter::default(), [0; BLOCK_SAMPLES], 0);
    while meter.samples() < LISTENED {
        match microphone.read(&mut block) {
            Ok(count) if settled < SETTLED => settled += count as u64,
            Ok(count) => meter.add(&block[..count]),
            Err(why) if why.goes_on() => {}
            Err(why) => return Err(why),
        }
    }
    Ok(meter)
}

fn unusable(why: MicrophoneError, device: &str, cards: &Cards) -> Microphone {
    match why {
        MicrophoneError::Busy { .. } => Microphone::Busy,
        MicrophoneError::Unavailable { problem, .. } => match cards.missing(device) {
            Some(card) => Microphone::NoCard { card: card.to_owned(), present: cards.ids() },
            None => Microphone::Unusable { problem },
        },
        MicrophoneError::Overrun
        | MicrophoneError::Suspended
        | MicrophoneError::Stalled { .. }
        | MicrophoneError::Hung => Microphone::Unusable { problem: why.to_string() },
    }
}

/// What the database holds; nothing where there is none.
fn stored(root: &Root, settings: &Settings, clock: &SystemClock) -> Result<Stored, StoreError> {
    if !root.database().exists() {
        return Ok(Stored::default());
    }
    let store = Arc::new(Store::open(&root.database())?);
    let now = clock.now();
    let hour_ago = WallTime(now.wall.0.saturating_sub(HOUR_MS));
    // None is owned: they are shown as they were last kept, and not touched.
    let breakers =
        Breakers::open(store.clone(), Arc::new(clock.clone()), &[], |service| settings.breaker_policy(service));
    let is_there = |service: &Service| *service != Service::Sync || settings.link.is_some();
    let views: std::collections::BTreeMap<_, _> =
        Service::ALL.into_iter().filter(is_there).map(|service| (service, breakers.view(service))).collect();
    let rates = store.rates(&now)?;
    let health = views.iter().map(|(service, view)| (*service, view.clone().into())).collect();
    Ok(Stored {
        alerts: alert::evaluate(&rates, &health),
        breakers: views,
        concluded: store.sessions(SESSIONS)?.iter().filter_map(concluded).collect(),
        exhausted: store.failures(hour_ago, Some("%Retry exhausted%"))?,
        exhausted_in_hour: store.exhaustion(hour_ago)?,
        exhausted_in_day: rates.exhausted,
        queue: queued(&store, &now)?,
        no_room: no_room(root, settings, &store)?,
        withdrawals: withdrawals(&store, &now)?,
        not_erased: store.to_erase()?.len(),
        damage: store.check()?,
        // A row that cannot be read is damage, which is looked for above.
        health_age: store.health().ok().flatten().and_then(|health| age(&health.at, &now)),
    })
}

fn no_room(root: &Root, settings: &Settings, store: &Store) -> Result<Option<NoRoom>, StoreError> {
    let board = System::new(root, Arc::new(Models::new(root))).board();
    Ok(admission::judge(&board, admission::hours_ahead(store)?, settings).err())
}

fn withdrawals(store: &Store, now: &Now) -> Result<Vec<Withdrawal>, StoreError> {
    let open = store.withdrawals_open()?.into_iter();
    let told = open.map(|(session, at_clinic, at)| Withdrawal {
        session,
        is_refused: at_clinic == AtClinic::Refused,
        age: now.wall.since(at),
    });
    Ok(told.collect())
}

/// A chip that is there and that this user may not open is told by the daemon's log.
fn panel_problem(root: &Root, settings: &Settings) -> Option<String> {
    settings.panel.lines().next()?;
    let chip = root.path().join("dev").join(&settings.panel.chip);
    std::fs::metadata(&chip).err().map(|why| format!("{}: {why}", chip.display()))
}

fn concluded(row: &SessionRow) -> Option<Concluded> {
    let is_done = match row.status {
        Status::Done => true,
        Status::Failed => false,
        Status::Recording | Status::Paused | Status::Queued | Status::Processing | Status::Postponed => return None,
        Status::Withdrawn => return None,
    };
    if row.dropped {
        return None;
    }
    let (no_words, no_speakers) = row.error.as_ref().map(falls).unwrap_or_default();
    Some(Concluded {
        session: row.id.clone(),
        is_done,
        diarization: row.diarization_status,
        samples: row.samples,
        audio_kept: row.audio_kept,
        is_exhausted: row.error_message.as_ref().is_some_and(|message| message.contains("Retry exhausted")),
        no_words,
        no_speakers,
    })
}

fn queued(store: &Store, now: &Now) -> Result<Vec<Queued>, StoreError> {
    let items = store.queue_items(u32::MAX)?;
    Ok(items.into_iter().map(|item| Queued { age: age(&item.since, now).unwrap_or_default(), item }).collect())
}

/// How long ago a date was, by the wall clock.
fn age(at: &str, now: &Now) -> Option<Duration> {
    let at: jiff::Timestamp = at.parse().ok()?;
    Some(now.wall.since(WallTime(at.as_millisecond())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)], env: &[(&str, &str)]) -> SettingsProblem {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (name, text) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        settings(&root, env).1.unwrap()
    }

    const SHIPPED: &str = "etc/roomscribe/a.toml";
    const SITE: &str = "var/lib/roomscribe/site/b.toml";

    #[test]
    fn a_card_that_is_not_there_is_told_from_one_that_is_held_and_from_other_trouble() {
        let cards = Cards::parse(" 0 [Table          ]: USB-Audio - Table\n");
        let gone = || MicrophoneError::Unavailable { device: "x".into(), problem: "p".into() };
        let missing = Microphone::NoCard { card: "Wall".into(), present: vec!["Table".into()] };
        assert_eq!(unusable(gone(), "plughw:CARD=Wall", &cards), missing);
        let other = Microphone::Unusable { problem: "p".into() };
        assert_eq!(unusable(gone(), "plughw:CARD=Table", &cards), other);
        assert_eq!(
            unusable(MicrophoneError::Busy { device: "x".into() }, "plughw:CARD=Wall", &cards),
            Microphone::Busy
        );
    }

    struct Quiet(u64);

    impl capture::Microphone for Quiet {
        fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError> {
            self.0 += into.len() as u64;
            into.fill(if self.0 <= SETTLED { i16::MAX } else { (self.0 / 160 % 2) as i16 * 3000 });
            if self.0.is_multiple_of(4800) { Err(MicrophoneError::Overrun) } else { Ok(into.len()) }
        }
    }

    #[test]
    fn a_click_at_the_beginning_is_not_judged() {
        let meter = listened(&mut Quiet(0)).unwrap();
        assert_eq!((meter.samples(), meter.level().clipped), (LISTENED, 0));
    }

    #[test]
    fn whatever_is_wrong_with_a_setting_the_file_is_named() {
        let good = "[retry]\nmax_retries = 4";
        for (text, says) in [
            ("[retry", "not valid TOML"),
            ("[retry]\nretries = 1", "retries"),
            ("[retry]\nmax_retries = \"many\"", "invalid type"),
            ("[retry]\nmax_retries = 0", "retry.max_retries is 0"),
        ] {
            let found = with(&[(SHIPPED, good), (SITE, text)], &[]);
            assert!(found.file.unwrap().ends_with(SITE), "{text}");
            assert!(found.problem.contains(says) && !found.problem.contains('\n'), "{}", found.problem);
        }
        let shipped = with(&[(SHIPPED, "[retry]\nmax_retries = 0"), (SITE, "[health]\n")], &[]);
        assert!(shipped.file.unwrap().ends_with(SHIPPED));
    }

    #[test]
    fn a_wrong_variable_is_no_files_fault() {
        let found = with(&[(SITE, "[health]\n")], &[("AUDIO_PROCESSING_MAX_RETRIES", "0")]);
        assert_eq!(found.file, None);
    }

    #[test]
    fn a_root_on_which_nothing_ever_ran_is_looked_at_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let found = gather(&root, without_socket(&root), |_| None);
        assert_eq!((found.daemon, found.unusable_models.len()), (Daemon::Absent, 3));
        assert!(found.stored.breakers.is_empty() && found.database_problem.is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
