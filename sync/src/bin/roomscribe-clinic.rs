//! The clinic's end of the link: takes sealed records, acknowledges them, and shows how every room is.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use shared::breaker::Service;
use shared::clock::{Clock as _, SystemClock, WallTime};
use shared::command::CommandName;
use shared::log::{self, Style};
use shared::paths::Root;
use shared::seal::ClinicKeys;
use sync::clinic::Clinic;
use sync::clinic::broker_files::{self, BrokerFiles};
use sync::clinic::invitation::{self, InviteError};
use sync::clinic::orders::{self, OrderError, Wanted};
use sync::clinic::settings::{self, ClinicSettings};
use sync::clinic::setup::{self, SetupError};
use sync::clinic::show::{self, ShowError};
use sync::clinic::store::postgres::Address;
use sync::clinic::store::{ClinicStore, ClinicStoreError, CommandRow, Place, UNANSWERED};
use sync::exit::{self, Failure};
use sync::progress;
use sync::room::redeem;

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
    #[command(after_help = "Example:\n  roomscribe-clinic init --clinic north --broker broker.north.example \
                            --https 0.0.0.0:8443 --name clinic.north.example")]
    Init {
        /// The clinic's id: 1 to 32 of a-z, 0-9 and -.
        #[arg(long, value_name = "ID")]
        clinic: String,
        /// This server's id among those of the clinic [default: this machine's name].
        #[arg(long, value_name = "ID")]
        server: Option<String>,
        /// The MQTT broker, as boxes and servers reach it; its port is 8883 unless given.
        #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.0.1")]
        broker: String,
        /// Where to serve HTTP; there is no log-in, so think before opening it to a network.
        #[arg(long, value_name = "ADDR:PORT", default_value_t = settings::default_listen())]
        listen: SocketAddr,
        /// Where to serve HTTPS to boxes that are enrolled by a code.
        #[arg(long, value_name = "ADDR:PORT", requires = "name", conflicts_with = "plain")]
        https: Option<SocketAddr>,
        /// A name or address by which boxes reach this server over HTTPS.
        #[arg(long, value_name = "HOST", requires = "https")]
        name: Vec<String>,
        /// Without TLS and certificates, on a network of its own; the broker's port is 1883 unless given.
        #[arg(long)]
        plain: bool,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Write what Mosquitto needs: its certificate, its rules, its configuration.
    #[command(after_help = "Example:\n  roomscribe-clinic broker-files --name broker.north.example --to mosquitto")]
    BrokerFiles {
        /// The folder to write them into.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// A name or address by which the broker is reached; that of clinic.toml unless given.
        #[arg(long, value_name = "HOST")]
        name: Vec<String>,
        /// The id of a clinic server; give all of them. This one unless given.
        #[arg(long, value_name = "ID")]
        server: Vec<String>,
        /// Where the broker will find the files.
        #[arg(long, value_name = "DIR", default_value = "/etc/mosquitto/roomscribe")]
        installed: PathBuf,
    },
    /// Invite a box: prints a one-time code that it is enrolled with.
    #[command(after_help = "Example:\n  roomscribe-clinic invite room-1\n  \
                            roomscribe-clinic invite room-1 --file > link.toml")]
    Invite {
        /// The box's id: 1 to 32 of a-z, 0-9 and -.
        #[arg(value_name = "BOX")]
        box_id: String,
        /// Print an enrolment file instead, with the box's private key in it where there is TLS.
        #[arg(long)]
        file: bool,
        /// The broker as the box reaches it, if that is not as this server does.
        #[arg(long, value_name = "HOST[:PORT]", requires = "file")]
        broker: Option<String>,
    },
    /// Run until told to stop.
    #[command(after_help = "Example:\n  roomscribe-clinic --root /tmp/clinic run")]
    Run,
    /// Ask something of a box, and wait for its answer; a running server passes it on.
    #[command(
        name = "command",
        after_help = "Example:\n  roomscribe-clinic command room-1 pause\n  \
                            roomscribe-clinic command room-1 breaker-reset --service transcription"
    )]
    Ask {
        /// The box's id.
        #[arg(value_name = "BOX")]
        box_id: String,
        /// start, stop, pause, resume, withdraw, breaker-reset, retry or health-check.
        name: CommandName,
        /// The session: for withdraw and retry.
        #[arg(long)]
        session: Option<String>,
        /// The breaker: for breaker-reset.
        #[arg(long)]
        service: Option<Service>,
        /// What the consent rests on: for start.
        #[arg(long, value_name = "BASIS")]
        consent: Option<String>,
        /// The role of who asks.
        #[arg(long, value_name = "ROLE", default_value = "administrator")]
        by: String,
        /// Seconds in which it may be carried out.
        #[arg(long, value_name = "S", default_value_t = orders::VALID_S)]
        within: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List what was asked of boxes, and how they answered.
    #[command(name = "commands", after_help = "Example:\n  roomscribe-clinic commands --json")]
    Asked {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// The newest so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// Destroy all that is held of a session to which consent was withdrawn at the clinic.
    #[command(after_help = "Example:\n  roomscribe-clinic withdraw 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11 --yes\n\n\
                            The box is not told: see the command `command`.")]
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
        Command::Init { clinic, server, broker, listen, https, name, plain, database } => {
            let server = server.unwrap_or_else(settings::server_of_this_machine);
            let made = new_settings(&clinic, &server, (&broker, !plain), listen, database);
            made.and_then(|made| init(&root, &ClinicSettings { tls: !plain, https, names: name, ..made }))
        }
        Command::BrokerFiles { to, name, server, installed } => broker_files(&root, &to, name, server, &installed),
        Command::Invite { box_id, file, broker } => invite(&root, &box_id, file, broker.as_deref()),
        Command::Run => run(&root).await,
        Command::Ask { box_id, name, session, service, consent, by, within, json } => {
            let wanted = Wanted { box_id, name, session, service, consent, by, valid_for_s: within };
            command(&root, wanted, json).await
        }
        Command::Asked { json, limit } => commands(&root, json, limit),
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

fn broker_at(text: &str, tls: bool) -> Result<(String, u16), Failure> {
    settings::broker(text, settings::broker_port(tls)).map_err(|why| Failure::Usage(format!("{text:?}: {why}")))
}

fn now() -> WallTime {
    SystemClock::new().now().wall
}

fn new_settings(
    clinic: &str,
    server: &str,
    (at, tls): (&str, bool),
    listen: SocketAddr,
    options: DatabaseOptions,
) -> Result<ClinicSettings, Failure> {
    let made = ClinicSettings::new(clinic, server, broker_at(at, tls)?, listen);
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
    let path = setup::init(root, settings, now()).map_err(|why| match why {
        SetupError::Settings(why) => Failure::Usage(why.to_string()),
        why => failed(why),
    })?;
    let mut text = format!("Clinic {} is made; its settings are in {}.\n", settings.clinic, path.display());
    text.push_str("Keep a copy of its keys folder in a safe place: nothing else opens its records.\n");
    text.push_str(if settings.tls {
        "Next: roomscribe-clinic broker-files --to mosquitto, for the broker; then roomscribe-clinic run,\n\
         and for each box roomscribe-clinic invite BOX\n"
    } else {
        "Next: roomscribe-clinic invite room-1 > link.toml\n"
    });
    print(&text)
}

fn broker_files(
    root: &Root,
    to: &Path,
    mut names: Vec<String>,
    mut servers: Vec<String>,
    installed: &Path,
) -> Result<(), Failure> {
    let settings = load(root)?;
    let authority = setup::authority(root, &settings).map_err(failed)?;
    if names.is_empty() {
        names.push(settings.broker_host.clone());
    }
    if servers.is_empty() {
        servers.push(settings.server.clone());
    }
    if let Some(wrong) = servers.iter().find(|id| !shared::wire::is_id(id)) {
        return Err(Failure::Usage(format!("{wrong:?} is no server's id: 1 to 32 of a-z, 0-9 and -")));
    }
    let wanted = BrokerFiles { installed, names: &names, servers: &servers, port: settings.broker_port };
    broker_files::write(to, &settings, &authority, wanted, now()).map_err(|why| match why {
        SetupError::Pki(why) => Failure::Usage(why.to_string()),
        why => failed(why),
    })?;
    print(&format!(
        "Written to {from}. On the broker, as root:\n\n  cp -rT {from} {at} && chown -R mosquitto: {at}\n  \
         ln -sf {at}/roomscribe.conf /etc/mosquitto/conf.d/ && systemctl restart mosquitto\n",
        from = to.display(),
        at = installed.display(),
    ))
}

fn invite(root: &Root, box_id: &str, is_file: bool, at: Option<&str>) -> Result<(), Failure> {
    let settings = load(root)?;
    let at = at.map(|at| broker_at(at, settings.tls)).transpose()?;
    if settings.tls && !is_file {
        return invite_by_code(root, &settings, box_id);
    }
    let keys = setup::keys(root).map_err(failed)?;
    let authority = if settings.tls { Some(setup::authority(root, &settings).map_err(failed)?) } else { None };
    let text = setup::invite(&settings, &keys, authority.as_ref(), box_id, at, now());
    print(&text.map_err(|why| Failure::Usage(why.to_string()))?)
}

fn invite_by_code(root: &Root, settings: &ClinicSettings, box_id: &str) -> Result<(), Failure> {
    let (Some(https), Some(name)) = (settings.https, settings.names.first()) else {
        return Err(Failure::Configuration(
            "this server serves no HTTPS, so no code can be redeemed: set `https` and `names` in clinic.toml, \
             or give the box a file: roomscribe-clinic invite BOX --file"
                .into(),
        ));
    };
    let clinic = open(root)?;
    let authority = setup::authority(root, settings).map_err(failed)?;
    let code = invitation::invite(&clinic.store, &authority, box_id, now()).map_err(|why| match why {
        InviteError::Name(why) => Failure::Usage(why.to_string()),
        why => Failure::other("not invited", &why),
    })?;
    let hours = invitation::LIFETIME.as_secs() / 3600;
    let port = if https.port() == redeem::PORT { String::new() } else { format!(":{}", https.port()) };
    print(&format!(
        "{code}\n\nValid once, for {hours} hours, for {box_id} alone. On the box:\n\n  \
         roomscribe-sync enrol --code {code} --clinic {name}{port}\n"
    ))
}

/// How often the answer is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// How much longer than the order's time its answer is waited for: it is on its way.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);

async fn command(root: &Root, wanted: Wanted, as_json: bool) -> Result<(), Failure> {
    let clinic = open(root)?;
    let clock = SystemClock::new();
    let patience = Duration::from_secs(wanted.valid_for_s.into()) + ANSWER_WITHIN;
    let failed = |why: &ClinicStoreError| Failure::other("not asked", why);
    let id = orders::give(&clinic.store, &clinic.settings.clinic, wanted, now()).map_err(|why| match why {
        OrderError::Store(why) => failed(&why),
        why => Failure::Usage(why.to_string()),
    })?;
    let began = clock.now().uptime;
    let waiting = progress::waiting("waiting for the box's answer");
    let row = loop {
        let row = clinic.store.command(&id).map_err(|why| failed(&why))?;
        let is_over = clock.now().uptime.saturating_sub(began) >= patience;
        match row {
            Some(row) if row.answered_at.is_some() || is_over => break row,
            Some(_) => tokio::time::sleep(LOOK).await,
            None => return Err(Failure::Other("the order is gone from the clinic's database".into())),
        }
    };
    waiting.finish_and_clear();
    if as_json {
        print(&json(&row)?)?;
    }
    let why = row.message.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    match (row.outcome.as_deref(), &row.published_at) {
        (Some("done"), _) if as_json => Ok(()),
        (Some("done"), _) => print("Done.\n"),
        (None | Some(UNANSWERED), None) => Err(Failure::Unavailable(
            "no server of this clinic has passed it on, and its time is over: is `roomscribe-clinic run` connected?"
                .into(),
        )),
        (None | Some(UNANSWERED), Some(_)) => Err(Failure::Unavailable("the box did not answer in time".into())),
        (Some(outcome), _) => Err(Failure::Other(format!("the box answered: {}{why}", outcome.replace('_', " ")))),
    }
}

fn commands(root: &Root, as_json: bool, limit: u32) -> Result<(), Failure> {
    let rows = open(root)?.store.commands(limit).map_err(|why| Failure::other("not listed", &why))?;
    if as_json {
        return print(&json(&rows)?);
    }
    let line = |row: &CommandRow| {
        let outcome = row.outcome.as_deref().unwrap_or("under way");
        let subject = row.subject.as_deref().unwrap_or("");
        let (at, box_id, name, by) = (&row.issued_at, &row.box_id, &row.name, &row.by);
        format!("{at}  {box_id:<16} {name:<14} {outcome:<12} {by} {subject}\n")
    };
    print(&rows.iter().map(line).collect::<String>())
}

fn withdraw(root: &Root, session: &str, is_meant: bool) -> Result<(), Failure> {
    if !is_meant {
        return Err(Failure::Usage(format!(
            "this destroys all that is held of {session} for good; add --yes to do it"
        )));
    }
    let clinic = open(root)?;
    match clinic.store.withdraw_here(session, now()).map_err(|why| Failure::other("not destroyed", &why))? {
        true => print(
            "Nothing of it is held any more. Its box holds it still:\n  \
             roomscribe-clinic command BOX withdraw --session SESSION, or there: roomscribe withdraw SESSION --yes\n",
        ),
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
             roomscribe-clinic invite BOX, and on the box what that prints\n",
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
    use sync::clinic::{enrolment, http, serve};
    use sync::heart::Heart;
    use sync::mqtt::MqttBroker;
    use sync::stop::Stop;
    use sync::tls::{Credentials, ServerCredentials};

    let clinic = open_patiently(root).await?;
    let authority = if clinic.settings.tls {
        Some(Arc::new(setup::authority(root, &clinic.settings).map_err(failed)?))
    } else {
        tracing::warn!("The line to the broker has no TLS: keep it on a network of its own.");
        None
    };
    let clinic = Arc::new(clinic.certifying(authority.clone()));
    let listen = clinic.settings.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|why| Failure::Unavailable(format!("{listen} cannot be listened on: {why}")))?;
    let stop = Stop::at_signals().map_err(|why| Failure::other("signals cannot be caught", &why))?;
    let (dice, heart) = (Box::new(shared::chance::SeededDice::from_system()), Heart::from_system());
    let keeper = Keeper { dice, stop: stop.clone(), heart, gate: None };
    tracing::info!(clinic = clinic.settings.clinic, server = clinic.settings.server, %listen, "The clinic server starts.");
    keeper.heart.ready();
    let credentials = authority.clone().map(|authority| {
        let (server, clock) = (clinic.settings.server.clone(), clinic.clock.clone());
        Arc::new(ServerCredentials { authority, server, clock }) as Arc<dyn Credentials>
    });
    let secured = match (clinic.settings.https, authority) {
        (Some(at), Some(authority)) => Some((authority, listen_on(at)?)),
        (Some(_) | None, _) => None,
    };
    let broker = MqttBroker::new(serve::identity(&clinic, credentials));
    let link = serve::run(broker, clinic.clone(), keeper);
    let enrolments = async {
        match secured {
            Some((authority, listener)) => {
                let served = enrolment::serve(clinic.clone(), authority, listener, stop.clone()).await;
                served.map_err(|why| Failure::other("HTTPS has failed", &why))
            }
            None => Ok(()),
        }
    };
    let pages = async {
        let served = http::serve(clinic.clone(), listener, stop.clone()).await;
        served.map_err(|why| Failure::other("HTTP has failed", &why))
    };
    // One that fails ends all: a server without it would look well, and systemd starts it again.
    let ended = tokio::try_join!(pages, enrolments, async {
        link.await;
        Ok(())
    });
    tracing::info!("The clinic server has stopped.");
    ended.map(drop)
}

#[cfg(feature = "mqtt")]
fn listen_on(at: SocketAddr) -> Result<std::net::TcpListener, Failure> {
    let listener = std::net::TcpListener::bind(at).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|why| Failure::Unavailable(format!("{at} cannot be listened on: {why}")))
}

#[cfg(not(feature = "mqtt"))]
async fn run(_root: &Root) -> Result<(), Failure> {
    Err(Failure::Unavailable("this program was built without the feature `mqtt` and cannot reach a broker".into()))
}
