//! The clinic's end of the link: takes sealed records, acknowledges them, and shows how every room is.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use shared::clock::{Clock as _, SystemClock};
use shared::log::{self, Style};
use shared::paths::Root;
use shared::seal::ClinicKeys;
use sync::clinic::Clinic;
use sync::clinic::settings::{self, ClinicSettings};
use sync::clinic::setup::{self, SetupError};
use sync::clinic::show::{self, ShowError};
use sync::clinic::store::postgres::Address;
use sync::clinic::store::{ClinicStore, ClinicStoreError, Place};
use sync::exit::{self, Failure};

/// Takes sealed records from boxes, and shows how every room is.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  roomscribe-clinic init --clinic north && roomscribe-clinic run")]
struct Cli {
    /// Where the server lies; a folder other than / holds one for development.
    #[arg(long, env = "ROOMSCRIBE_ROOT", default_value = "/", global = true)]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a clinic: its keys and settings.
    #[command(after_help = "Example:\n  roomscribe-clinic init --clinic north --broker broker.north.example:1883")]
    Init {
        /// The clinic's id: 1 to 32 of a-z, 0-9 and -.
        #[arg(long, value_name = "ID")]
        clinic: String,
        /// This server's id among those of the clinic [default: this machine's name].
        #[arg(long, value_name = "ID")]
        server: Option<String>,
        /// The MQTT broker.
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
        broker: String,
        /// Where to serve HTTP; there is no log-in, so think before opening it to a network.
        #[arg(long, value_name = "ADDR:PORT", default_value_t = settings::default_listen())]
        listen: SocketAddr,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Print the enrolment of a box.
    #[command(after_help = "Example:\n  roomscribe-clinic invite room-1 > link.toml")]
    Invite {
        /// The box's id: 1 to 32 of a-z, 0-9 and -.
        #[arg(value_name = "BOX")]
        box_id: String,
        /// The broker as the box reaches it, if that is not as this server does.
        #[arg(long, value_name = "HOST:PORT")]
        broker: Option<String>,
    },
    /// Run until told to stop.
    #[command(after_help = "Example:\n  roomscribe-clinic --root /tmp/clinic run")]
    Run,
    /// Destroy all that is held of a session to which consent was withdrawn at the clinic.
    #[command(after_help = "Example:\n  roomscribe-clinic withdraw 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11 --yes\n\n\
                            The box is not told: withdraw it there, too.")]
    Withdraw {
        /// The session's id.
        session: String,
        /// Do it: it cannot be undone.
        #[arg(long)]
        yes: bool,
    },
    /// List the clinic's keys, or make new ones for boxes that are enrolled from now on.
    #[command(after_help = "Example:\n  roomscribe-clinic keys rotate")]
    Keys {
        #[command(subcommand)]
        action: KeysAction,
    },
    /// List what the clinic holds; metadata only.
    #[command(after_help = "Example:\n  roomscribe-clinic sessions --json")]
    Sessions {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// The newest so many.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: u32,
    },
    /// Open a session with the clinic's key and print what was said.
    #[command(after_help = "Example:\n  roomscribe-clinic show 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11")]
    Show {
        /// The session's id.
        session: String,
        /// The record as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct DatabaseOptions {
    /// The database: a file in the clinic's folder, or postgres://USER@HOST/DATABASE [default: clinic.db].
    #[arg(long, value_name = "FILE|URL")]
    database: Option<String>,
    /// A file that holds the URL of the database, with its password; in the clinic's folder unless absolute.
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    database_file: Option<PathBuf>,
    /// Certificates (PEM, in the clinic's folder unless absolute) by which the database server is known, if not by those
    /// that this machine trusts.
    #[arg(long, value_name = "FILE")]
    database_ca: Option<PathBuf>,
}

#[derive(Subcommand)]
enum KeysAction {
    /// The names of the keys, as parcels bear them: that of now first.
    List,
    /// Make new keys. Those of before are kept: nothing else opens what was sealed to them.
    Rotate,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let root = Root::new(cli.root);
    let style = if matches!(cli.command, Command::Run) { Style::Lines } else { Style::Quiet };
    shared::paths::keep_from_others();
    log::start(style, std::env::var_os("JOURNAL_STREAM").is_some());
    let result = match cli.command {
        Command::Init { clinic, server, broker, listen, database } => {
            let server = server.unwrap_or_else(settings::server_of_this_machine);
            new_settings(&clinic, &server, &broker, listen, database).and_then(|settings| init(&root, &settings))
        }
        Command::Invite { box_id, broker } => invite(&root, &box_id, broker.as_deref()),
        Command::Run => run(&root).await,
        Command::Withdraw { session, yes } => withdraw(&root, &session, yes),
        Command::Keys { action } => keys(&root, &action),
        Command::Sessions { json, limit } => sessions(&root, json, limit),
        Command::Show { session, json } => show(&root, &session, json),
    };
    exit::end("roomscribe-clinic", result)
}

fn failed(why: SetupError) -> Failure {
    match why {
        SetupError::Write { .. } => Failure::other("not done", &why),
        _ => Failure::configuration("not done", &why),
    }
}

fn broker(text: &str) -> Result<(String, u16), Failure> {
    settings::broker(text).map_err(|why| Failure::Usage(format!("{text:?}: {why}")))
}

fn new_settings(
    clinic: &str,
    server: &str,
    at: &str,
    listen: SocketAddr,
    options: DatabaseOptions,
) -> Result<ClinicSettings, Failure> {
    let made = ClinicSettings::new(clinic, server, broker(at)?, listen);
    let mut settings = made.map_err(|why| Failure::Usage(why.to_string()))?;
    let DatabaseOptions { database, database_file, database_ca } = options;
    if let Some(text) = database {
        if Address::parse(&text, None).is_some_and(|address| address.has_password()) {
            let instead = "put the URL into a file and name it with --database-file";
            return Err(Failure::Usage(format!("everybody can read a command line, so no password in it: {instead}")));
        }
        settings.database = text.as_str().into();
    }
    (settings.database_file, settings.database_ca) = (database_file, database_ca);
    Ok(settings)
}

fn init(root: &Root, settings: &ClinicSettings) -> Result<(), Failure> {
    let path = setup::init(root, settings).map_err(|why| match why {
        SetupError::Settings(why) => Failure::Usage(why.to_string()),
        why => failed(why),
    })?;
    println!("Clinic {} is made; its settings are in {}.", settings.clinic, path.display());
    println!("Keep a copy of its keys folder in a safe place: nothing else opens its records.");
    println!("Next: roomscribe-clinic invite room-1 > link.toml");
    Ok(())
}

fn invite(root: &Root, box_id: &str, at: Option<&str>) -> Result<(), Failure> {
    let at = at.map(broker).transpose()?;
    let settings = load(root)?;
    let keys = setup::keys(root).map_err(failed)?;
    let text = setup::invite(&settings, &keys, box_id, at).map_err(|why| Failure::Usage(why.to_string()))?;
    print(&text)
}

fn withdraw(root: &Root, session: &str, is_meant: bool) -> Result<(), Failure> {
    if !is_meant {
        return Err(Failure::Usage(format!(
            "this destroys all that is held of {session} for good; add --yes to do it"
        )));
    }
    let clinic = open(root)?;
    let now = SystemClock::new().now().wall;
    match clinic.store.withdraw_here(session, now).map_err(|why| Failure::other("not destroyed", &why))? {
        true => {
            print("Nothing of it is held any more. Withdraw it on its box, too: roomscribe withdraw SESSION --yes\n")
        }
        false => Err(Failure::Usage("the clinic holds no such session".into())),
    }
}

fn keys(root: &Root, action: &KeysAction) -> Result<(), Failure> {
    let (ids, is_new) = match action {
        KeysAction::List => (setup::keys(root).map_err(failed)?.ids(), false),
        KeysAction::Rotate => (setup::rotate(root).map_err(failed)?.ids(), true),
    };
    let mut text = String::new();
    for (at, id) in ids.iter().enumerate() {
        text.push_str(&format!("{id}  {}\n", if at == 0 { "now" } else { "earlier" }));
    }
    if is_new {
        text.push_str(
            "Keep a copy of the keys folder in a safe place, and restart roomscribe-clinic, every server of it.\n\
             Boxes go on with the keys they were told. To each, one after the other, give the new ones:\n  \
             roomscribe-clinic invite room-1 > link.toml, and on the box: roomscribe-sync enrol --from link.toml\n",
        );
    }
    print(&text)
}

fn load(root: &Root) -> Result<ClinicSettings, Failure> {
    ClinicSettings::load(root).map_err(|why| Failure::configuration("the settings cannot be used", &why))
}

/// Where the database is, and everything else that a clinic is made of.
fn parts(root: &Root) -> Result<(ClinicSettings, ClinicKeys, Place), Failure> {
    let settings = load(root)?;
    let keys = setup::keys(root).map_err(failed)?;
    let variable = std::env::var(settings::DATABASE_VARIABLE).ok();
    let place = settings.place(root, variable.as_deref());
    let place = place.map_err(|why| Failure::configuration("the settings cannot be used", &why))?;
    Ok((settings, keys, place))
}

fn not_opened(place: &Place, why: &ClinicStoreError) -> Failure {
    Failure::other(&place.to_string(), why)
}

fn open(root: &Root) -> Result<Clinic, Failure> {
    let (settings, keys, place) = parts(root)?;
    let store = ClinicStore::at(&place).map_err(|why| not_opened(&place, &why))?;
    Ok(Clinic::new(settings, keys, store, Arc::new(SystemClock::new())))
}

/// A reader that has seen enough, as in `… | head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::other("not printed", &why)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|why| Failure::other("not printed", &why))?;
    Ok(text + "\n")
}

fn sessions(root: &Root, as_json: bool, limit: u32) -> Result<(), Failure> {
    let rows = open(root)?.store.sessions(limit).map_err(|why| Failure::other("not listed", &why))?;
    print(&if as_json { json(&rows)? } else { show::table(&rows) })
}

fn show(root: &Root, session: &str, as_json: bool) -> Result<(), Failure> {
    let record = show::open(&open(root)?, session).map_err(|why| match why {
        ShowError::NoSession => Failure::Usage(why.to_string()),
        ShowError::Withdrawn | ShowError::Store(_) | ShowError::Sealed(_) => Failure::other("not shown", &why),
    })?;
    print(&if as_json { json(&record)? } else { show::transcript(&record) })
}

/// As [`open`], but a database server that is not there yet is waited for: it may have been started together with us. Not
/// for ever, because systemd takes that for a start that hangs.
#[cfg(feature = "mqtt")]
async fn open_patiently(root: &Root) -> Result<Clinic, Failure> {
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    const PATIENCE: Duration = Duration::from_secs(45);
    const AGAIN: Duration = Duration::from_secs(2);
    let (settings, keys, place) = parts(root)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match ClinicStore::at(&place) {
            Ok(store) => return Ok(Clinic::new(settings, keys, store, Arc::new(SystemClock::new()))),
            Err(why) if why.is_passing() && Instant::now() < until => {
                tracing::warn!(error = %shared::error::report(&why), "The database is waited for.");
                sleep(AGAIN).await;
            }
            Err(why) => return Err(not_opened(&place, &why)),
        }
    }
}

#[cfg(feature = "mqtt")]
async fn run(root: &Root) -> Result<(), Failure> {
    use sync::backoff::Keeper;
    use sync::clinic::{http, serve};
    use sync::heart::Heart;
    use sync::mqtt::MqttBroker;
    use sync::stop::Stop;

    let clinic = Arc::new(open_patiently(root).await?);
    let listen = clinic.settings.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|why| Failure::Unavailable(format!("{listen} cannot be listened on: {why}")))?;
    let stop = Stop::at_signals().map_err(|why| Failure::other("signals cannot be caught", &why))?;
    let (dice, heart) = (Box::new(shared::chance::SeededDice::from_system()), Heart::from_system());
    let keeper = Keeper { dice, stop: stop.clone(), heart, gate: None };
    tracing::info!(clinic = clinic.settings.clinic, server = clinic.settings.server, %listen, "The clinic server starts.");
    keeper.heart.ready();
    let broker = MqttBroker::new(serve::identity(&clinic));
    let link = serve::run(broker, clinic.clone(), keeper);
    let (served, ()) = tokio::join!(http::serve(clinic.clone(), listener, stop), link);
    tracing::info!("The clinic server has stopped.");
    served.map_err(|why| Failure::other("HTTP has failed", &why))
}

#[cfg(not(feature = "mqtt"))]
async fn run(_root: &Root) -> Result<(), Failure> {
    Err(Failure::Unavailable("this program was built without the feature `mqtt` and cannot reach a broker".into()))
}
