//! The box's end of the link: brings records to the clinic and tells it how the box is.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shared::clock::{Clock as _, SystemClock};
use shared::error::report;
use shared::paths::Root;
use sync::code::{Code, NoCode};
use sync::exit::{self, Failure};
use sync::pki;
use sync::progress;
use sync::room::enrol;
use sync::room::redeem::{RedeemError, redeem};
use sync::tls::RoomCredentials;

/// Brings a box's sealed records to its clinic.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  roomscribe-sync run")]
struct Cli {
    /// Where the box lies; a folder other than / holds a box for development.
    #[arg(long, env = "ROOMSCRIBE_ROOT", default_value = "/", global = true)]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until told to stop.
    #[command(after_help = "Example:\n  roomscribe-sync --root /tmp/box run")]
    Run,
    /// Learn the clinic: by the one-time code that `roomscribe-clinic invite` printed, or from its file.
    #[command(after_help = "Example:\n  roomscribe-sync enrol --code ABCD-EFGH-IJKL-MNOP-QRST-UVWX-YZ23-4567 \
                            --clinic clinic.north.example")]
    Enrol {
        /// The code; `-` reads it from standard input.
        #[arg(long, value_name = "CODE", requires = "clinic", required_unless_present = "from")]
        code: Option<String>,
        /// The clinic's server, as this box reaches it over HTTPS; its port is 8443 unless given.
        #[arg(long, value_name = "HOST[:PORT]", requires = "code")]
        clinic: Option<String>,
        /// An enrolment file instead; `-` is standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "code")]
        from: Option<PathBuf>,
    },
    /// Show until when this box's certificate for the broker is valid.
    #[command(after_help = "Example:\n  roomscribe-sync certificate")]
    Certificate,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let root = Root::new(cli.root);
    shared::paths::keep_from_others();
    shared::log::start(shared::log::Style::Lines, std::env::var_os("JOURNAL_STREAM").is_some());
    let result = match cli.command {
        Command::Run => run(&root).await,
        Command::Enrol { code: Some(code), clinic: Some(clinic), .. } => by_code(&root, code, &clinic),
        Command::Enrol { from: Some(from), .. } => from_file(&root, &from),
        Command::Enrol { .. } => Err(Failure::Usage("--code and --clinic, or --from, are needed".into())),
        Command::Certificate => certificate(&root),
    };
    exit::end("roomscribe-sync", result)
}

fn read(from: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if from == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(from).map(|read| text = read)
    };
    read.map(|()| text).map_err(|why| Failure::Usage(format!("{} cannot be read: {why}", from.display())))
}

fn from_file(root: &Root, from: &Path) -> Result<(), Failure> {
    enrolled(root, &read(from)?, &from.display().to_string())
}

fn by_code(root: &Root, code: String, clinic: &str) -> Result<(), Failure> {
    let code = if code == "-" { read(Path::new("-"))? } else { code };
    let code: Code = code.trim().parse().map_err(|why: NoCode| Failure::Usage(why.to_string()))?;
    let request = enrol::request(root).map_err(|why| Failure::other("not enrolled", &why))?;
    let waiting = progress::waiting("asking the clinic's server");
    let redeemed = redeem(&code, clinic, &request);
    waiting.finish_and_clear();
    let enrolment = redeemed.map_err(|why| match why {
        RedeemError::Unreachable { .. } => Failure::Unavailable(format!("not enrolled: {}", report(&why))),
        why => Failure::other("not enrolled", &why),
    })?;
    let text = toml::to_string(&enrolment).map_err(|why| Failure::other("not enrolled", &why))?;
    enrolled(root, &text, clinic)
}

fn enrolled(root: &Root, text: &str, from: &str) -> Result<(), Failure> {
    let (link, path) = enrol::enrol(root, text).map_err(|why| match why {
        enrol::EnrolError::Write { .. } | enrol::EnrolError::Request(_) => Failure::other("not enrolled", &why),
        enrol::EnrolError::Syntax(_) | enrol::EnrolError::Value { .. } | enrol::EnrolError::Certificates(_) => {
            Failure::configuration(&format!("not enrolled from {from}"), &why)
        }
    })?;
    println!("Box {} is enrolled at clinic {} ({}).", link.box_id, link.clinic, path.display());
    if RoomCredentials::find(root).is_none() {
        println!("The line to its broker has no TLS: keep it on a network of its own.");
    }
    println!("Restart roomscribe and roomscribe-sync where they are running.");
    Ok(())
}

fn certificate(root: &Root) -> Result<(), Failure> {
    let file = root.link_certificate();
    let text = std::fs::read_to_string(&file)
        .map_err(|why| Failure::Configuration(format!("{} cannot be read: {why}", file.display())))?;
    let expires = pki::expires(&text).map_err(|why| Failure::other(&file.display().to_string(), &why))?;
    let now = SystemClock::new().now().wall;
    if expires <= now {
        return Err(Failure::Other(format!("the certificate ended at {expires}; enrol this box again")));
    }
    println!("Valid until {expires}, for {} days.", expires.since(now).as_secs() / 86_400);
    Ok(())
}

#[cfg(feature = "mqtt")]
async fn run(root: &Root) -> Result<(), Failure> {
    use std::sync::Arc;

    use shared::settings::Settings;
    use sync::backoff::Keeper;
    use sync::gate::Gate;
    use sync::heart::Heart;
    use sync::mqtt::MqttBroker;
    use sync::room::{self, Room};
    use sync::stop::Stop;
    use sync::tls::Credentials;

    let settings = Settings::load(root, |name| std::env::var(name).ok())
        .map_err(|why| Failure::configuration("the settings cannot be used", &why))?;
    let link = settings.link.clone().ok_or_else(|| {
        Failure::Configuration(
            "this box is not enrolled: on the clinic's server run `roomscribe-clinic invite BOX`, then here what it prints"
                .into(),
        )
    })?;
    let keys = shared::seal::ClinicPublic::from_hex(&link.sealing_key, &link.signing_key)
        .map_err(|why| Failure::configuration("the enrolment cannot be used", &why))?;
    let store = shared::store::Store::open(&root.database())
        .map_err(|why| Failure::other(&root.database().display().to_string(), &why))?;
    let (store, clock) = (Arc::new(store), Arc::new(SystemClock::new()));
    let stop = Stop::at_signals().map_err(|why| Failure::other("signals cannot be caught", &why))?;
    let gate = Gate::open(store.clone(), clock.clone(), |service| settings.breaker_policy(service));
    let (dice, heart) = (Box::new(shared::chance::SeededDice::from_system()), Heart::from_system());
    let keeper = Keeper { dice, stop, heart, gate: Some(Arc::new(gate)) };
    tracing::info!(clinic = link.clinic, "box" = link.box_id, "The link starts.");
    keeper.heart.ready();
    let credentials = RoomCredentials::find(root).map(|found| Arc::new(found) as Arc<dyn Credentials>);
    if credentials.is_none() {
        tracing::warn!("The line to the broker has no TLS: this box was enrolled without.");
    }
    let broker = MqttBroker::new(room::identity(&link, credentials));
    let room = Room { store, link, keys, clock, root: root.clone(), allow: settings.commands.allow.clone() };
    room::run(broker, room, keeper).await;
    tracing::info!("The link has stopped.");
    Ok(())
}

#[cfg(not(feature = "mqtt"))]
async fn run(_root: &Root) -> Result<(), Failure> {
    Err(Failure::Unavailable("this program was built without the feature `mqtt` and cannot reach a broker".into()))
}
