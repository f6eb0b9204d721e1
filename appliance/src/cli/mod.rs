//! The field commands. With a daemon they speak to its socket; some also work on a root without one.

mod audit;
mod client;
mod consent;
mod doctor;
mod keys;
mod ledger;
mod levels;
mod models;
mod process;
mod queue;
mod relabel;
mod show;
mod voice;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;
use shared::error::report;
use shared::keys::BoxKeyError;
use shared::log::{self, Style};
use shared::paths::Root;
use shared::record::{Record, Status};
use shared::store::{KeyStore, SpeakerHint, Store};

use crate::context::{Context, StartError, open_keys};
use crate::daemon::{DaemonError, credentials, open};
use crate::engine::serve::{EngineCommand, serve};
use crate::export::{Format, export};
use crate::models::Models;

/// What a command ends with; see the README's *Exit codes*.
pub mod code {
    /// Done, also if undiarized.
    pub const DONE: u8 = 0;
    /// The command line was wrong.
    pub const USAGE: u8 = 2;
    /// Transcription failed.
    pub const TRANSCRIPTION_FAILED: u8 = 3;
    /// Transcription and diarization failed.
    pub const BOTH_FAILED: u8 = 4;
    /// Failed otherwise.
    pub const FAILED: u8 = 5;
    /// The daemon cannot be reached.
    pub const UNREACHABLE: u8 = 69;
    /// Refused by an open breaker.
    pub const REFUSED: u8 = 75;
}

/// Records a room, writes down who said what, and hands it to the clinic.
#[derive(Debug, Parser)]
#[command(name = "roomscribe", version, after_help = "Example: roomscribe status --root /tmp/box --json")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, Args)]
struct Common {
    /// Where the box lives; a folder other than / holds a whole box.
    #[arg(long, global = true, env = "ROOMSCRIBE_ROOT", default_value = "/")]
    root: PathBuf,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the box: record, process, keep.
    #[command(after_help = "Example: roomscribe run --root /tmp/box")]
    Run,
    /// Transcribe recordings (WAV, FLAC, MP3, Ogg) and print one record a line.
    #[command(after_help = "Example: roomscribe process --root /tmp/box interview.flac > records.jsonl")]
    Process {
        /// The recordings.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// How many speak in each: 2, 2-3, 2- (at least) or -3 (at most).
        #[arg(long, allow_hyphen_values = true)]
        speakers: Option<SpeakerHint>,
    },
    /// Show what the box is doing.
    #[command(after_help = "Example: roomscribe status")]
    Status,
    /// Say what is wrong with the box, why, and what to type about it.
    #[command(after_help = "Example: roomscribe doctor --json\n\nEnds with 0 if nothing is wrong, else with 5.")]
    Doctor,
    /// Show how loud the microphone is, now; keeps nothing.
    #[command(
        after_help = "Example: roomscribe levels --seconds 10\n\nOn a terminal it is one line; elsewhere a line a second, \
                            with --json ten. Without --seconds it goes on until Ctrl-C, or until a session wants the \
                            microphone."
    )]
    Levels {
        /// For how long.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: Option<u64>,
    },
    /// Start a session.
    #[command(after_help = "Example: roomscribe start --consent verbal --by therapist")]
    Start {
        /// What the right to record rests on: verbal, written, …
        #[arg(long)]
        consent: Option<String>,
        /// Who noted it: a role, never a name.
        #[arg(long)]
        by: Option<String>,
        /// How many will speak: 2, 2-3, 2- (at least) or -3 (at most).
        #[arg(long, allow_hyphen_values = true)]
        speakers: Option<SpeakerHint>,
    },
    /// End the session.
    #[command(after_help = "Example: roomscribe stop")]
    Stop {
        /// Only if this is the session being recorded.
        session: Option<String>,
    },
    /// Go off the record: the microphone is closed until the session is resumed.
    #[command(after_help = "Example: roomscribe pause --by client")]
    Pause {
        /// Only if this is the session being recorded.
        session: Option<String>,
        /// Who asks for it: a role, never a name.
        #[arg(long)]
        by: Option<String>,
    },
    /// Go back onto the record.
    #[command(after_help = "Example: roomscribe resume --by client")]
    Resume {
        /// Only if this is the session being recorded.
        session: Option<String>,
        /// Who asks for it: a role, never a name.
        #[arg(long)]
        by: Option<String>,
    },
    /// Withdraw consent to a session: everything that was said in it is destroyed, here and at the clinic.
    #[command(after_help = "Example: roomscribe withdraw 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11 --by client --yes\n\n\
                            Ends with 0 once nothing is left on this box; the clinic's part is told with `roomscribe sessions`.")]
    Withdraw {
        /// Its id; `current` is the one being recorded.
        session: String,
        /// Who withdraws: a role, never a name.
        #[arg(long)]
        by: Option<String>,
        /// Do it: it cannot be undone.
        #[arg(long)]
        yes: bool,
    },
    /// List sessions, or show one.
    #[command(after_help = "Example: roomscribe sessions --json")]
    Sessions {
        /// Its id.
        session: Option<String>,
    },
    /// Tell the speakers of a session apart once more, from what is kept of its voices; it needs no audio.
    #[command(after_help = "Example: roomscribe relabel 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11 --speakers 2\n\n\
                            If that changes anything, it is the next revision of the record, which the clinic gets too.")]
    Relabel {
        /// Its id.
        session: String,
        /// How many speak: 2, 2-3, 2- (at least) or -3 (at most). Without it, as was said before.
        #[arg(long, allow_hyphen_values = true)]
        speakers: Option<SpeakerHint>,
    },
    /// Print a session's record in a format others read.
    #[command(
        after_help = "Example: roomscribe export 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11 --format vtt > session.vtt"
    )]
    Export {
        /// Its id.
        session: String,
        /// The format.
        #[arg(long, value_enum, default_value_t = Format::Txt)]
        format: Format,
    },
    /// Show the circuit breakers, or move one.
    #[command(after_help = "Example: roomscribe breaker reset transcription")]
    Breaker {
        #[command(subcommand)]
        action: Option<BreakerAction>,
    },
    /// Show, retry, drop, check, repair or export what is not yet, or not well, at the clinic.
    #[command(after_help = "Example: roomscribe queue list")]
    Queue {
        #[command(subcommand)]
        action: queue::QueueAction,
    },
    /// Count the sessions that failed, by their message.
    #[command(after_help = "Example: roomscribe failures --since 1h --json")]
    Failures {
        /// How far back: 90s, 15m, 1h, 7d.
        #[arg(long, default_value = "1h", value_parser = queue::span)]
        since: Duration,
        /// Only those that ran out of attempts, failed or undiarized, by when they were begun.
        #[arg(long)]
        exhausted: bool,
    },
    /// Prove that everything ever recorded is accounted for.
    #[command(after_help = "Example: roomscribe ledger --json\n\nEnds with 0 if it adds up, else with 5.")]
    Ledger,
    /// Show who did what and when, or verify that the log of it is whole.
    #[command(after_help = "Example: roomscribe audit --since 7d\n         roomscribe audit --verify\n\n\
                            --verify ends with 0 if the log is whole, else with 5.")]
    Audit(audit::AuditArguments),
    /// Show, fetch and verify models.
    #[command(after_help = "Example: roomscribe models fetch --root /tmp/box --from ../shared/models")]
    Models {
        #[command(subcommand)]
        action: models::ModelsAction,
    },
    /// Enrol people who agreed to be known again by their voice, list them, destroy their prints.
    #[command(after_help = "Example: roomscribe voice list")]
    Voice {
        #[command(subcommand)]
        action: voice::VoiceAction,
    },
    /// Make a box key, or list the keys that one wraps.
    #[command(after_help = "Example: roomscribe keys list")]
    Keys {
        #[command(subcommand)]
        action: keys::KeysAction,
    },
    /// An engine child; started by the box itself.
    #[command(hide = true)]
    Engine {
        #[command(subcommand)]
        engine: EngineCommand,
    },
}

#[derive(Debug, Subcommand)]
enum BreakerAction {
    /// Show them.
    List,
    /// Close it: the service is healthy again.
    Reset {
        /// transcription, diarization or sync.
        service: shared::breaker::Service,
    },
    /// Hold it open until it is reset.
    ForceOpen {
        /// transcription, diarization or sync.
        service: shared::breaker::Service,
    },
    /// Let everything through until it is reset.
    Disable {
        /// transcription, diarization or sync.
        service: shared::breaker::Service,
    },
}

/// Why a command did not do what it was asked, and the code it ends with.
#[derive(Debug)]
pub struct Failed {
    code: u8,
    message: String,
}

impl Failed {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn because(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code::FAILED, report(error))
    }
}

/// Why a root could not be worked on.
fn not_opened(why: DaemonError) -> Failed {
    let code = match &why {
        DaemonError::Start(StartError::Busy) => code::UNREACHABLE,
        DaemonError::Start(_) | DaemonError::Settings(_) | DaemonError::Store(_) | DaemonError::Socket { .. } => {
            code::FAILED
        }
    };
    Failed::new(code, report(&why))
}

/// What is said where the transcription breaker lets nothing through; it tries again in `wait` seconds, or never by
/// itself.
fn refused(wait: Option<u64>, reason: Option<&str>) -> Failed {
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let until = wait.map_or("until it is reset".to_owned(), |seconds| format!("and tries again in {seconds} s"));
    let remedy = "roomscribe breaker reset transcription";
    Failed::new(
        code::REFUSED,
        format!("the transcription circuit breaker is open{reason} {until}; if it is mended: {remedy}"),
    )
}

type Answer = Result<u8, Failed>;

/// Does what the arguments say.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    let Arguments { command, common } = arguments;
    if let Command::Engine { engine } = command {
        return if serve(engine).is_ok() { ExitCode::SUCCESS } else { ExitCode::from(code::FAILED) };
    }
    shared::paths::keep_from_others();
    let style = match command {
        Command::Run if common.json => Style::Json,
        Command::Run => Style::Lines,
        _ => Style::Quiet,
    };
    log::start(style, std::env::var_os("JOURNAL_STREAM").is_some());
    let json = common.json;
    match dispatch(command, &common) {
        Ok(code) => ExitCode::from(code),
        Err(Failed { code, message }) => {
            if json {
                say(json!({ "error": { "message": message } }));
            }
            complain(&message);
            ExitCode::from(code)
        }
    }
}

fn dispatch(command: Command, common: &Common) -> Answer {
    let root = Root::new(&common.root);
    match command {
        Command::Engine { .. } => Ok(code::USAGE),
        Command::Run => local(async {
            crate::daemon::run(root).await.map_err(not_opened)?;
            Ok(code::DONE)
        }),
        Command::Process { files, speakers } => local(process::process(root, files, speakers)),
        Command::Status => local(show::status(root, common.json)),
        Command::Doctor => local(doctor::doctor(root, common.json)),
        Command::Levels { seconds } => local(levels::levels(root, seconds, common.json)),
        Command::Start { consent, by, speakers } => local(show::start(root, consent, by, speakers, common.json)),
        Command::Stop { session } => local(show::stop(root, session, common.json)),
        Command::Pause { session, by } => local(consent::off_record(root, session, by, true, common.json)),
        Command::Resume { session, by } => local(consent::off_record(root, session, by, false, common.json)),
        Command::Withdraw { session, by, yes } => local(consent::withdraw(root, session, by, yes, common.json)),
        Command::Sessions { session } => local(show::sessions(root, session, common.json)),
        Command::Relabel { session, speakers } => local(relabel::relabel(root, session, speakers, common.json)),
        Command::Export { session, format } => print_export(&root, &session, format),
        Command::Breaker { action } => {
            let call = match action {
                None | Some(BreakerAction::List) => None,
                Some(BreakerAction::Reset { service }) => Some((service, "reset")),
                Some(BreakerAction::ForceOpen { service }) => Some((service, "force-open")),
                Some(BreakerAction::Disable { service }) => Some((service, "disable")),
            };
            local(show::breaker(root, call, common.json))
        }
        Command::Queue { action } => local(queue::queue(root, action, common.json)),
        Command::Failures { since, exhausted } => queue::failures(&root, since, exhausted, common.json),
        Command::Voice { action } => local(voice::voice(root, action, common.json)),
        Command::Keys { action } => keys::keys(&root, &action, common.json),
        Command::Ledger => local(ledger::ledger(root, common.json)),
        Command::Audit(arguments) => local(audit::audit(root, arguments, common.json)),
        Command::Models { action } => models::models(&root, action, common.json),
    }
}

/// Runs a command on a runtime of one thread: engine children are tied to the thread that starts them.
fn local(work: impl Future<Output = Answer>) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| Failed::because(&why))?;
    let answer = tokio::task::LocalSet::new().block_on(&runtime, work);
    runtime.shutdown_background();
    answer
}

/// What a suggested command needs to speak of this box; nothing for the real one.
fn of_root(root: &Root) -> String {
    if root.is_system() { String::new() } else { format!(" --root {}", root.path().display()) }
}

/// Opens a root for work without a daemon; says so if that made it a key of its own.
fn open_here(root: &Root) -> Result<Arc<Context>, Failed> {
    let key = root.development_box_keys();
    let had_key = key.exists();
    let context = open(root.clone()).map_err(|why| match why {
        DaemonError::Start(why @ StartError::BoxKey { .. }) => no_keys(&why),
        why => not_opened(why),
    })?;
    if !had_key && key.exists() {
        complain(&format!(
            "made a development key, which protects nothing from who has this folder: {}",
            key.display()
        ));
    }
    Ok(context)
}

/// Where what was said is to be read without a daemon, and the box key is not here.
const NO_CREDENTIAL: &str = "what was said is sealed by the box key, which only the service is given: put \
    `systemd-run --pipe --wait --property=LoadCredentialEncrypted=box-keys` before this command";

fn no_keys(why: &StartError) -> Failed {
    match why {
        StartError::BoxKey(BoxKeyError::CredentialMissing) => Failed::new(code::FAILED, NO_CREDENTIAL),
        StartError::BoxKey { .. }
        | StartError::Folder { .. }
        | StartError::Busy
        | StartError::Store(_)
        | StartError::Keys { .. }
        | StartError::ClinicKeys(_) => Failed::because(why),
    }
}

/// The keys of a root, for work without a daemon.
fn keys_of(root: &Root) -> Result<KeyStore, Failed> {
    open_keys(root, credentials().as_deref()).map_err(|why| no_keys(&why))
}

/// As [`store`], for reading what was said.
fn store_with_keys(root: &Root) -> Result<Store, Failed> {
    let store = store(root)?;
    Ok(store.sealing_with(Arc::new(keys_of(root)?)))
}

/// The store of a root on which there has been a box, without what was said.
fn store(root: &Root) -> Result<Store, Failed> {
    if !root.database().exists() {
        return Err(Failed::new(code::FAILED, format!("there is no box in {}", root.path().display())));
    }
    Store::open(&root.database()).map_err(|why| Failed::because(&why))
}

fn print_export(root: &Root, session: &str, format: Format) -> Answer {
    let store = store_with_keys(root)?;
    let json = store.record(session).map_err(|why| Failed::because(&why))?;
    let json = match json {
        Some(json) => json,
        None => return Err(Failed::new(code::FAILED, why_no_record(&store, session))),
    };
    let unreadable = |_| Failed::new(code::FAILED, "the stored record of this session cannot be read");
    let record: Record = serde_json::from_slice(&json).map_err(unreadable)?;
    let turns = crate::conclude::turns(&store, &Models::new(root), &record).map_err(|why| Failed::because(&why))?;
    audit::exported(&store, session)?;
    say(export(&record, &turns, format).trim_end_matches('\n'));
    Ok(code::DONE)
}

fn why_no_record(store: &Store, session: &str) -> &'static str {
    match store.session(session) {
        Ok(row) if row.status == Status::Withdrawn => "consent to this session was withdrawn: nothing of it is left",
        Ok(row) if row.expired => "this box kept the session as long as its site wants; the clinic has the record",
        Ok(_) | Err(_) => "there is no record of this session on this box",
    }
}

/// A spinner on a terminal, and nothing elsewhere.
fn waiting(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Tells people why something was not done.
fn complain(message: &str) {
    writeln!(std::io::stderr(), "roomscribe: {message}").ok();
}

/// Prints a line. A reader that has gone away, such as `head`, is no reason to fail.
fn say(line: impl std::fmt::Display) {
    writeln!(std::io::stdout(), "{line}").ok();
}
