//! Settings: environment over site files over shipped files over the defaults here, read once into typed values.
//!
//! A setting that is wrong names itself and stops the start.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use crate::breaker::{self, Service};
use crate::card_name::{Cards, Naming, naming};
use crate::command::CommandName;
use crate::paths::Root;
use crate::retry;
use crate::wire::is_id;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file could not be read.
    #[error("{file} cannot be read")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not TOML.
    #[error("{file} is not valid TOML")]
    Syntax {
        /// Which.
        file: String,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// A name is unknown or a value has the wrong kind.
    #[error("a setting is unknown or has the wrong kind")]
    Kind(#[source] toml::de::Error),
    /// A value is out of range.
    #[error("{name} is {value}, and must be {expected}")]
    Range {
        /// The setting.
        name: String,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A card is named by its number.
    #[error("capture.device is {device}: card numbers change, so name the card by its id{}", instead(stable.as_deref()))]
    CardNumber {
        /// The device.
        device: String,
        /// What to call it, if there is such a card now.
        stable: Option<String>,
    },
}

fn instead(stable: Option<&str>) -> String {
    stable.map_or(", such as plughw:CARD=Speakerphone (arecord -L lists them)".into(), |name| format!(": {name}"))
}

/// Everything a box can be told.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Retry around engine calls.
    pub retry: Retry,
    /// The transcription breaker.
    pub transcription_circuit: Circuit,
    /// The diarization breaker.
    pub diarization_circuit: Circuit,
    /// The breaker of the line to the broker.
    pub sync_circuit: Circuit,
    /// When work is not begun.
    pub health: Health,
    /// When failed sessions are tried again by themselves.
    pub replay: Replay,
    /// The microphone.
    pub capture: Capture,
    /// What a site demands of a session.
    pub session: Session,
    /// The button and the lights.
    pub panel: Panel,
    /// When no session is begun.
    pub admission: Admission,
    /// How long a box keeps what the clinic has.
    pub retention: Retention,
    /// Limits of the engines.
    pub engine: Engine,
    /// What the clinic may ask of the box.
    pub commands: Commands,
    /// The clinic; absent until the box is enrolled.
    pub link: Option<Link>,
}

/// Retry around engine calls.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Attempts, the first included.
    pub max_retries: u32,
    /// Seconds before the second attempt.
    pub initial_backoff: f64,
    /// Seconds; no wait is longer.
    pub max_backoff: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_retries: 3, initial_backoff: 2.0, max_backoff: 60.0 }
    }
}

/// One breaker; what is not set has the guide's default, which differs from service to service.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Circuit {
    /// Consecutive failed calls that open it.
    pub failure_threshold: Option<u32>,
    /// Seconds it stays open.
    pub timeout: Option<f64>,
    /// Successful probes that close it.
    pub success_threshold: Option<u32>,
}

impl Circuit {
    fn policy(&self, guide: breaker::Policy) -> breaker::Policy {
        breaker::Policy {
            failure_threshold: self.failure_threshold.unwrap_or(guide.failure_threshold),
            timeout: self.timeout.map_or(guide.timeout, Duration::from_secs_f64),
            success_threshold: self.success_threshold.unwrap_or(guide.success_threshold),
        }
    }
}

/// When work is not begun: the health checks before each call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Degrees Celsius from which no work is begun, and work under way is stopped 5 degrees above. A Raspberry Pi slows
    /// down at 80 and more at 85.
    pub max_celsius: f64,
    /// Degrees Celsius from which a smaller model is used.
    pub warm_celsius: f64,
    /// MiB of memory that must be available.
    pub min_memory_mib: u64,
    /// MiB of room that must be on the data disk: an hour of audio is 110.
    pub min_disk_mib: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self { max_celsius: 80.0, warm_celsius: 75.0, min_memory_mib: 96, min_disk_mib: 128 }
    }
}

/// What the clinic may ask of the box; everything but to begin a session, as nobody at the clinic sees who is in the room.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// So much is done.
    pub allow: Vec<CommandName>,
}

impl Default for Commands {
    fn default() -> Self {
        Self { allow: CommandName::ALL.into_iter().filter(|name| *name != CommandName::Start).collect() }
    }
}

/// When failed sessions are tried again by themselves, in hours of the box's local time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// Whether they are.
    pub enabled: bool,
    /// From this hour, 0 to 23.
    pub from_hour: u8,
    /// Until this hour, 0 to 23; it may be past midnight.
    pub until_hour: u8,
    /// How often a session is tried again by itself.
    pub times: u32,
}

impl Default for Replay {
    fn default() -> Self {
        Self { enabled: true, from_hour: 1, until_hour: 5, times: 3 }
    }
}

/// The microphone.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// ALSA's name of it: by a stable id such as `plughw:CARD=Speakerphone`; a card number is refused.
    pub device: String,
    /// Seconds within which a restarted box goes on with its session; later it ends where it stopped.
    pub resume_within: f64,
}

impl Default for Capture {
    fn default() -> Self {
        Self { device: "default".into(), resume_within: 60.0 }
    }
}

/// The level of a button's line while it is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pressed {
    /// A switch to ground, pulled up by the chip.
    Low,
    /// A switch to the supply, pulled down by the chip.
    High,
}

/// The button and the lights, as lines of a GPIO chip; what is not named is not there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Panel {
    /// The chip's file in `/dev`.
    pub chip: String,
    /// The button's line.
    pub button: Option<u32>,
    /// How the button is wired.
    pub button_pressed: Pressed,
    /// Lit while a session is recorded.
    pub recording_light: Option<u32>,
    /// Lit while it is off the record.
    pub paused_light: Option<u32>,
    /// Lit while somebody should look; blinks when the button could not do what it was pressed for.
    pub trouble_light: Option<u32>,
    /// What the consent of a session rests on that the button starts, e.g. `verbal`. Without it, and where a site demands
    /// consent, the button starts none.
    pub consent: Option<String>,
}

impl Default for Panel {
    fn default() -> Self {
        Self {
            chip: "gpiochip0".into(),
            button: None,
            button_pressed: Pressed::Low,
            recording_light: None,
            paused_light: None,
            trouble_light: None,
            consent: None,
        }
    }
}

impl Panel {
    /// The lines that are named, the button's first.
    pub fn lines(&self) -> impl Iterator<Item = u32> {
        [self.button, self.recording_light, self.paused_light, self.trouble_light].into_iter().flatten()
    }
}

/// When no session is begun: it would find no room, or wait for its words longer than anybody can.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admission {
    /// MiB that must be free on the data disk: three hours of audio are 330, and `health.min_disk_mib` are needed to work.
    pub min_disk_mib: u64,
    /// Hours that the engines would need for what waits already.
    pub max_hours_behind: f64,
}

impl Default for Admission {
    fn default() -> Self {
        Self { min_disk_mib: 512, max_hours_behind: 24.0 }
    }
}

/// How long a box keeps what the clinic has acknowledged, counted from its word, and only while the clock follows a time
/// server. What the clinic has not acknowledged is never destroyed for its age.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Days for the audio of sessions without words or speakers, which it could still give; of others it goes at once.
    pub audio_days: f64,
    /// Days for what was said: words, voices, records.
    pub content_days: f64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { audio_days: 7.0, content_days: 30.0 }
    }
}

/// What a site demands of a session.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Whether a session may start without consent being noted.
    pub require_consent: bool,
    /// Whether a session without speakers is a failed one.
    pub require_diarization: bool,
    /// Whether speakers are told apart at all.
    pub diarization: bool,
    /// Speakers there are at least.
    pub speakers_at_least: u32,
    /// Speakers there are at most; not less than at least.
    pub speakers_at_most: u32,
    /// Minutes that a session stays off the record before it ends: one that nobody goes on with keeps the room from the
    /// next.
    pub pause_at_most: f64,
    /// Hours after which a session ends by itself: one that was forgotten would record who never consented.
    pub at_most: f64,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            require_consent: true,
            require_diarization: false,
            diarization: true,
            speakers_at_least: 1,
            speakers_at_most: 20,
            pause_at_most: 120.0,
            at_most: 12.0,
        }
    }
}

/// Limits of the engines.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Threads each engine uses; 0 is one less than the cores, at least one, so that capture has a core.
    pub threads: u32,
    /// Seconds an engine may take to load its model. A card is slow and a model large.
    pub start_deadline: f64,
    /// Seconds an engine may take for one second of audio, on top of ten for itself. Beyond this the box would
    /// not keep up for long anyway.
    pub deadline_per_second: f64,
    /// MiB the transcriber may hold: whisper.cpp's `small` needs 852.
    pub transcriber_memory_mib: u64,
    /// MiB the voice engine may hold.
    pub voice_memory_mib: u64,
    /// Seconds from one chunk of the segmentation network to the next: the smaller, the better and the slower.
    pub segmentation_step: f64,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            threads: 0,
            start_deadline: 60.0,
            deadline_per_second: 6.0,
            transcriber_memory_mib: 1536,
            voice_memory_mib: 768,
            segmentation_step: 2.5,
        }
    }
}

/// The clinic, as enrolment wrote it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Clinic id.
    pub clinic: String,
    /// This box's id.
    #[serde(rename = "box")]
    pub box_id: String,
    /// Broker host name or address.
    pub broker_host: String,
    /// Broker port.
    pub broker_port: u16,
    /// X25519 public key that records are sealed to, hexadecimal.
    pub sealing_key: String,
    /// Ed25519 public key that acknowledgements are signed with, hexadecimal.
    pub signing_key: String,
    /// Seconds to wait for the clinic's acknowledgement before sending a parcel again.
    #[serde(default = "default_ack_timeout")]
    pub ack_timeout: f64,
}

fn default_ack_timeout() -> f64 {
    30.0
}

/// The guide's variables and the settings they stand for.
const VARIABLES: [(&str, &str, &str); 14] = [
    ("AUDIO_PROCESSING_MAX_RETRIES", "retry", "max_retries"),
    ("AUDIO_PROCESSING_INITIAL_BACKOFF", "retry", "initial_backoff"),
    ("AUDIO_PROCESSING_MAX_BACKOFF", "retry", "max_backoff"),
    ("TRANSCRIPTION_CIRCUIT_FAILURE_THRESHOLD", "transcription_circuit", "failure_threshold"),
    ("TRANSCRIPTION_CIRCUIT_TIMEOUT", "transcription_circuit", "timeout"),
    ("TRANSCRIPTION_CIRCUIT_SUCCESS_THRESHOLD", "transcription_circuit", "success_threshold"),
    ("DIARIZATION_CIRCUIT_FAILURE_THRESHOLD", "diarization_circuit", "failure_threshold"),
    ("DIARIZATION_CIRCUIT_TIMEOUT", "diarization_circuit", "timeout"),
    ("DIARIZATION_CIRCUIT_SUCCESS_THRESHOLD", "diarization_circuit", "success_threshold"),
    ("SYNC_CIRCUIT_FAILURE_THRESHOLD", "sync_circuit", "failure_threshold"),
    ("SYNC_CIRCUIT_TIMEOUT", "sync_circuit", "timeout"),
    ("SYNC_CIRCUIT_SUCCESS_THRESHOLD", "sync_circuit", "success_threshold"),
    ("ROOMSCRIBE_CAPTURE_DEVICE", "capture", "device"),
    ("ROOMSCRIBE_REQUIRE_DIARIZATION", "session", "require_diarization"),
];

/// Variables of the guide's cloud services, which have no meaning on a box.
const IGNORED: [&str; 2] = ["OPENAI_API_KEY", "HUGGINGFACE_TOKEN"];

impl Settings {
    /// Reads every file and variable once.
    ///
    /// # Errors
    /// [`SettingsError`], naming the file or setting.
    pub fn load(root: &Root, env: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut table = Table::new();
        for folder in [root.shipped(), root.site()] {
            for file in toml_files(&folder)? {
                merge(&mut table, read(&file)?);
            }
        }
        for (variable, section, key) in VARIABLES {
            if let Some(text) = env(variable) {
                let value = parse(variable, &text)?;
                let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(section) = entry {
                    section.insert(key.into(), value);
                }
            }
        }
        for variable in IGNORED.into_iter().filter(|v| env(v).is_some()) {
            tracing::info!(variable, "Ignored: this box asks no cloud service.");
        }
        let settings: Self = Value::Table(table).try_into().map_err(SettingsError::Kind)?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let seconds = [
            ("retry.initial_backoff", self.retry.initial_backoff),
            ("retry.max_backoff", self.retry.max_backoff),
            ("transcription_circuit.timeout", self.transcription_circuit.timeout.unwrap_or(0.0)),
            ("diarization_circuit.timeout", self.diarization_circuit.timeout.unwrap_or(0.0)),
            ("sync_circuit.timeout", self.sync_circuit.timeout.unwrap_or(0.0)),
            ("capture.resume_within", self.capture.resume_within),
            ("engine.start_deadline", self.engine.start_deadline),
            ("engine.deadline_per_second", self.engine.deadline_per_second),
            ("link.ack_timeout", self.link.as_ref().map_or(1.0, |l| l.ack_timeout)),
        ];
        let spans = [
            ("session.pause_at_most", self.session.pause_at_most, 1.0, 1440.0, "between 1 and 1440 minutes"),
            ("session.at_most", self.session.at_most, 0.1, 24.0, "between 0.1 and 24 hours"),
            ("admission.max_hours_behind", self.admission.max_hours_behind, 0.1, 720.0, "between 0.1 and 720 hours"),
            ("retention.audio_days", self.retention.audio_days, 0.0, 3650.0, "between 0 and 3650 days"),
            ("retention.content_days", self.retention.content_days, 0.0, 3650.0, "between 0 and 3650 days"),
        ];
        for (name, value, least, most, expected) in spans {
            in_range(name, value, (least..=most).contains(&value), expected)?;
        }
        for (name, value) in seconds {
            in_range(name, value, (0.0..=86_400.0).contains(&value), "between 0 and 86400 seconds")?;
        }
        let counts = [
            ("retry.max_retries", self.retry.max_retries),
            ("transcription_circuit.failure_threshold", self.transcription_circuit.failure_threshold.unwrap_or(1)),
            ("transcription_circuit.success_threshold", self.transcription_circuit.success_threshold.unwrap_or(1)),
            ("diarization_circuit.failure_threshold", self.diarization_circuit.failure_threshold.unwrap_or(1)),
            ("diarization_circuit.success_threshold", self.diarization_circuit.success_threshold.unwrap_or(1)),
            ("sync_circuit.failure_threshold", self.sync_circuit.failure_threshold.unwrap_or(1)),
            ("sync_circuit.success_threshold", self.sync_circuit.success_threshold.unwrap_or(1)),
        ];
        for (name, value) in counts {
            in_range(name, value, (1..=1000).contains(&value), "between 1 and 1000")?;
        }
        for (name, hour) in [("replay.from_hour", self.replay.from_hour), ("replay.until_hour", self.replay.until_hour)]
        {
            in_range(name, hour, hour < 24, "an hour from 0 to 23")?;
        }
        let (least, most) = (self.session.speakers_at_least, self.session.speakers_at_most);
        in_range("session.speakers_at_least", least, (1..=20).contains(&least), "between 1 and 20")?;
        let fits = (least..=20).contains(&most);
        in_range("session.speakers_at_most", most, fits, "between session.speakers_at_least and 20")?;
        let step = self.engine.segmentation_step;
        in_range("engine.segmentation_step", step, (0.1..=10.0).contains(&step), "between 0.1 and 10 seconds")?;
        let degrees =
            [("health.max_celsius", self.health.max_celsius), ("health.warm_celsius", self.health.warm_celsius)];
        for (name, value) in degrees {
            in_range(name, value, (0.0..=150.0).contains(&value), "between 0 and 150 degrees Celsius")?;
        }
        let lines: Vec<u32> = self.panel.lines().collect();
        let is_once = lines.iter().enumerate().all(|(at, line)| !lines[..at].contains(line));
        in_range("panel", format!("{lines:?}"), is_once, "a line of its own for the button and for each light")?;
        let chip = &self.panel.chip;
        in_range("panel.chip", chip, !chip.contains('/') && !chip.is_empty(), "the name of a file in /dev")?;
        if let Naming::Number(_) = naming(&self.capture.device) {
            let device = self.capture.device.clone();
            return Err(SettingsError::CardNumber { stable: Cards::present().stable_name(&device), device });
        }
        if let Some(link) = &self.link {
            in_range("link.clinic", &link.clinic, is_id(&link.clinic), "1 to 32 of a-z, 0-9 and -")?;
            in_range(
                "link.box",
                &link.box_id,
                is_id(&link.box_id) && link.box_id != "board",
                "1 to 32 of a-z, 0-9 and -, and not \"board\"",
            )?;
        }
        Ok(())
    }

    /// Retry around engine calls, as the guard wants it.
    #[must_use]
    pub fn retry_policy(&self) -> retry::Policy {
        retry::Policy {
            attempts: self.retry.max_retries,
            initial_backoff: Duration::from_secs_f64(self.retry.initial_backoff),
            max_backoff: Duration::from_secs_f64(self.retry.max_backoff),
        }
    }

    /// One service's breaker, as the guard wants it.
    #[must_use]
    pub fn breaker_policy(&self, service: Service) -> breaker::Policy {
        let guide = |seconds| breaker::Policy {
            failure_threshold: 5,
            timeout: Duration::from_secs(seconds),
            success_threshold: 2,
        };
        // The guide has no link. A connection is cheap to try, and one that holds is proof enough.
        let link = breaker::Policy { success_threshold: 1, ..guide(60) };
        match service {
            Service::Transcription => self.transcription_circuit.policy(guide(120)),
            Service::Diarization => self.diarization_circuit.policy(guide(60)),
            Service::Sync => self.sync_circuit.policy(link),
        }
    }

    /// This box's id; a box that is not enrolled is called `box`.
    #[must_use]
    pub fn box_id(&self) -> &str {
        self.link.as_ref().map_or("box", |l| &l.box_id)
    }
}

fn in_range(name: &str, value: impl ToString, fits: bool, expected: &'static str) -> Result<(), SettingsError> {
    if fits { Ok(()) } else { Err(SettingsError::Range { name: name.into(), value: value.to_string(), expected }) }
}

fn parse(variable: &str, text: &str) -> Result<Value, SettingsError> {
    if variable == "ROOMSCRIBE_CAPTURE_DEVICE" {
        return Ok(Value::String(text.into()));
    }
    let integer = text.parse::<i64>().map(Value::Integer);
    let number = text.parse::<f64>().map(Value::Float);
    let switch = text.parse::<bool>().map(Value::Boolean);
    integer.or(number).map_err(drop).or(switch.map_err(drop)).map_err(|()| SettingsError::Range {
        name: variable.into(),
        value: format!("{text:?}"),
        expected: "a number, or true or false",
    })
}

fn toml_files(folder: &Path) -> Result<Vec<std::path::PathBuf>, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable { file: folder.display().to_string(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Table, SettingsError> {
    let name = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|source| SettingsError::Unreadable { file: name.clone(), source })?;
    text.parse().map_err(|source| SettingsError::Syntax { file: name, source })
}

fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for (path, text) in files {
            let file = folder.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Settings::load(&root, |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn the_guides_defaults_hold_where_nothing_is_said() {
        let settings = load(&[], &[("OPENAI_API_KEY", "sk-x")]).unwrap();
        assert_eq!(settings.retry, Retry { max_retries: 3, initial_backoff: 2.0, max_backoff: 60.0 });
        let transcription = settings.breaker_policy(Service::Transcription);
        let diarization = settings.breaker_policy(Service::Diarization);
        assert_eq!((transcription.timeout.as_secs(), diarization.timeout.as_secs()), (120, 60));
        assert_eq!((transcription.failure_threshold, transcription.success_threshold), (5, 2));
    }

    #[test]
    fn environment_stands_over_site_over_shipped() {
        let files = [
            ("etc/roomscribe/a.toml", "[retry]\nmax_retries = 4\ninitial_backoff = 1.0\nmax_backoff = 9.0"),
            ("var/lib/roomscribe/site/b.toml", "[retry]\nmax_retries = 5\ninitial_backoff = 3.0"),
        ];
        let settings = load(&files, &[("AUDIO_PROCESSING_MAX_RETRIES", "6")]).unwrap();
        assert_eq!(settings.retry, Retry { max_retries: 6, initial_backoff: 3.0, max_backoff: 9.0 });
    }

    #[test]
    fn a_wrong_setting_names_itself() {
        let message = |r: Result<Settings, SettingsError>| crate::error::report(&r.unwrap_err());
        assert!(message(load(&[], &[("AUDIO_PROCESSING_MAX_RETRIES", "0")])).contains("retry.max_retries is 0"));
        assert!(
            message(load(&[], &[("TRANSCRIPTION_CIRCUIT_TIMEOUT", "soon")])).contains("TRANSCRIPTION_CIRCUIT_TIMEOUT")
        );
        assert!(message(load(&[("etc/roomscribe/a.toml", "[retry]\nretries = 1")], &[])).contains("retries"));
        let numbered = message(load(&[], &[("ROOMSCRIBE_CAPTURE_DEVICE", "plughw:77,0")]));
        assert!(numbered.contains("plughw:77,0") && numbered.contains("arecord -L"), "{numbered}");
        assert!(load(&[], &[("ROOMSCRIBE_CAPTURE_DEVICE", "plughw:CARD=Mic,DEV=0")]).is_ok());
        assert!(message(load(&[("etc/roomscribe/a.toml", "[retry")], &[])).contains("a.toml"));
    }
}
