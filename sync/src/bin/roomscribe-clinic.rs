//! The clinic's end of the link: takes sealed records, acknowledges them, and shows how every room is.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use shared::clock::{Clock as _, SystemClock, WallTime};
use shared::log::{self, Style};
use shared::paths::Root;
use sync::clinic::Clinic;
use sync::clinic::access::{Deed, Entry};
use sync::clinic::broker_files::{self, BrokerFiles};
use sync::clinic::invitation::{self, InviteError};
use sync::clinic::people::{self, TokenAction, UserAction};
use sync::clinic::settings::{self, ClinicSettings};
use sync::clinic::setup::{self, SetupError};
use sync::clinic::show::{self, ShowError};
use sync::clinic::store::ClinicStore;
use sync::exit::{self, Failure};
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
        /// This server's id among those of the clinic.
        #[arg(long, value_name = "ID", default_value = "server-1")]
        server: String,
        /// The MQTT broker, as boxes and servers reach it; its port is 8883 unless given.
        #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.0.1")]
        broker: String,
        /// Where to serve HTTP: to this machine alone everything, to a network health and metrics.
        #[arg(long, value_name = "ADDR:PORT", default_value_t = settings::default_listen())]
        listen: SocketAddr,
        /// Where to serve HTTPS, to boxes that are enrolled by a code and to people.
        #[arg(long, value_name = "ADDR:PORT", requires = "name", conflicts_with = "plain")]
        https: Option<SocketAddr>,
        /// A name or address by which boxes and people reach this server over HTTPS.
        #[arg(long, value_name = "HOST", requires = "https")]
        name: Vec<String>,
        /// Without TLS and certificates, on a network of its own; the broker's port is 1883 unless given.
        #[arg(long)]
        plain: bool,
    },
    /// Write what Mosquitto needs: its certificate, its rules, its configuration.
    #[command(after_help = "Example:\n  roomscribe-clinic broker-files --name broker.north.example --to mosquitto\n  \
                            sudo cp -r mosquitto /etc/mosquitto/roomscribe")]
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
    /// Who may log in to the clinic's page.
    User {
        #[command(subcommand)]
        action: UserAction,
    },
    /// Which programs may read /api/v1.
    Token {
        #[command(subcommand)]
        action: TokenAction,
    },
    /// What was done, by whom and when: log-ins, and each reading of what was said.
    #[command(after_help = "Example:\n  roomscribe-clinic audit --limit 50")]
    Audit {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// The newest so many.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: u32,
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
    /// Open a session with the clinic's key and print what was said; `audit` tells of it.
    #[command(after_help = "Example:\n  roomscribe-clinic show 7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11")]
    Show {
        /// The session's id.
        session: String,
        /// The record as JSON.
        #[arg(long)]
        json: bool,
    },
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
        Command::Init { clinic, server, broker, listen, https, name, plain } => {
            let made = broker_at(&broker, !plain).and_then(|at| {
                let made = ClinicSettings::new(&clinic, &server, at, listen);
                made.map_err(|why| Failure::Usage(why.to_string()))
            });
            made.and_then(|made| init(&root, &ClinicSettings { tls: !plain, https, names: name, ..made }))
        }
        Command::BrokerFiles { to, name, server, installed } => broker_files(&root, &to, name, server, &installed),
        Command::Invite { box_id, file, broker } => invite(&root, &box_id, file, broker.as_deref()),
        Command::Run => run(&root).await,
        Command::Withdraw { session, yes } => withdraw(&root, &session, yes),
        Command::Keys { action } => keys(&root, &action),
        Command::User { action } => open(&root).and_then(|clinic| print(&people::user(&clinic.store, &action, now())?)),
        Command::Token { action } => {
            open(&root).and_then(|clinic| print(&people::token(&clinic.store, &action, now())?))
        }
        Command::Audit { json, limit } => {
            open(&root).and_then(|clinic| print(&people::audit(&clinic.store, json, limit)?))
        }
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

fn init(root: &Root, settings: &ClinicSettings) -> Result<(), Failure> {
    let path = setup::init(root, settings, now()).map_err(|why| match why {
        SetupError::Settings(why) => Failure::Usage(why.to_string()),
        why => failed(why),
    })?;
    let mut text = format!("Clinic {} is made; its settings are in {}.\n", settings.clinic, path.display());
    text.push_str("Keep a copy of its keys folder in a safe place: nothing else opens its records.\n");
    text.push_str(if settings.tls {
        "Next: roomscribe-clinic broker-files --to mosquitto, for the broker; then roomscribe-clinic run\n"
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
        "Written to {}. Put the folder where the broker finds it, as {}, readable by the broker alone,\n\
         and let it read roomscribe.conf, e.g. by a line `include_dir {}`.\n",
        to.display(),
        installed.display(),
        installed.display(),
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

fn withdraw(root: &Root, session: &str, is_meant: bool) -> Result<(), Failure> {
    if !is_meant {
        return Err(Failure::Usage(format!(
            "this destroys all that is held of {session} for good; add --yes to do it"
        )));
    }
    let clinic = open(root)?;
    match clinic.store.withdraw_here(session, now()).map_err(|why| Failure::other("not destroyed", &why))? {
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

fn open(root: &Root) -> Result<Clinic, Failure> {
    let settings = load(root)?;
    let keys = setup::keys(root).map_err(failed)?;
    let path = settings.database(root);
    let store = ClinicStore::open(&path).map_err(|why| Failure::other(&path.display().to_string(), &why))?;
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
    let clinic = open(root)?;
    let record = show::open(&clinic, session).map_err(|why| match why {
        ShowError::NoSession => Failure::Usage(why.to_string()),
        ShowError::Withdrawn | ShowError::Store(_) | ShowError::Sealed(_) => Failure::other("not shown", &why),
    })?;
    let entry = Entry { who: &people::typist(), what: Deed::Read, session: Some(session), address: None };
    clinic
        .store
        .write_down(&entry, now())
        .map_err(|why| Failure::other("not shown, as it could not be written down", &why))?;
    print(&if as_json { json(&record)? } else { show::transcript(&record) })
}

#[cfg(feature = "mqtt")]
async fn run(root: &Root) -> Result<(), Failure> {
    use sync::backoff::Keeper;
    use sync::clinic::http::guard::Door;
    use sync::clinic::{enrolment, http, https, serve};
    use sync::heart::Heart;
    use sync::mqtt::MqttBroker;
    use sync::stop::Stop;
    use sync::tls::{Credentials, ServerCredentials};

    let clinic = Arc::new(open(root)?);
    let listen = clinic.settings.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|why| Failure::Unavailable(format!("{listen} cannot be listened on: {why}")))?;
    let stop = Stop::at_signals().map_err(|why| Failure::other("signals cannot be caught", &why))?;
    let (dice, heart) = (Box::new(shared::chance::SeededDice::from_system()), Heart::from_system());
    let keeper = Keeper { dice, stop: stop.clone(), heart, gate: None };
    tracing::info!(clinic = clinic.settings.clinic, server = clinic.settings.server, %listen, "The clinic server starts.");
    keeper.heart.ready();
    let authority = if clinic.settings.tls {
        Some(Arc::new(setup::authority(root, &clinic.settings).map_err(failed)?))
    } else {
        tracing::warn!("The line to the broker has no TLS: keep it on a network of its own.");
        None
    };
    let credentials = authority.clone().map(|authority| {
        let (server, clock) = (clinic.settings.server.clone(), clinic.clock.clone());
        Arc::new(ServerCredentials { authority, server, clock }) as Arc<dyn Credentials>
    });
    let secured = match (clinic.settings.https, authority) {
        (Some(at), Some(authority)) => Some((authority, listen_on(at)?)),
        (Some(_) | None, _) => None,
    };
    let own = match (clinic.settings.dashboard, setup::own_certificate(root, &clinic.settings).map_err(failed)?) {
        (Some(at), Some(pair)) => Some((pair, listen_on(at)?)),
        (Some(_) | None, _) => None,
    };
    let browsers = async {
        match own {
            Some((pair, listener)) => {
                let site = http::site(clinic.clone(), Door::Secure);
                let served = https::serve(site, &pair, listener, stop.clone()).await;
                served.map_err(|why| Failure::other("HTTPS for browsers has failed", &why))
            }
            None => Ok(()),
        }
    };
    let broker = MqttBroker::new(serve::identity(&clinic.settings, credentials));
    let link = serve::run(broker, clinic.clone(), keeper);
    let boxes = async {
        match secured {
            Some((authority, listener)) => {
                let served = enrolment::serve(clinic.clone(), authority, listener, stop.clone()).await;
                served.map_err(|why| Failure::other("HTTPS has failed", &why))
            }
            None => Ok(()),
        }
    };
    let plain = http::serve(clinic.clone(), listener, stop.clone());
    let (served, enrolled, shown, ()) = tokio::join!(plain, boxes, browsers, link);
    tracing::info!("The clinic server has stopped.");
    served.map_err(|why| Failure::other("HTTP has failed", &why)).and(enrolled).and(shown)
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
