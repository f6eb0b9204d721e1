//! The box's end of the link: brings records to the clinic and tells it how the box is.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shared::paths::Root;
use sync::exit::{self, Failure};
use sync::room::enrol;

/// Brings a box's sealed records to its clinic.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  roomscribe-sync enrol --from link.toml && roomscribe-sync run")]
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
    /// Learn the clinic from what `roomscribe-clinic invite` printed.
    #[command(after_help = "Example:\n  roomscribe-clinic invite room-1 | roomscribe-sync enrol --from -")]
    Enrol {
        /// The enrolment file; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let root = Root::new(cli.root);
    shared::paths::keep_from_others();
    shared::log::start(shared::log::Style::Lines, std::env::var_os("JOURNAL_STREAM").is_some());
    let result = match cli.command {
        Command::Run => run(&root).await,
        Command::Enrol { from } => enrolled(&root, &from),
    };
    exit::end("roomscribe-sync", result)
}

fn enrolled(root: &Root, from: &Path) -> Result<(), Failure> {
    let mut text = String::new();
    let read = if from == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(from).map(|read| text = read)
    };
    read.map_err(|why| Failure::Usage(format!("{} cannot be read: {why}", from.display())))?;
    let (link, path) = enrol::enrol(root, &text).map_err(|why| match why {
        enrol::EnrolError::Write { .. } => Failure::other("not enrolled", &why),
        enrol::EnrolError::Syntax(_) | enrol::EnrolError::Value { .. } => {
            Failure::configuration(&format!("not enrolled from {}", from.display()), &why)
        }
    })?;
    println!("Box {} is enrolled at clinic {} ({}).", link.box_id, link.clinic, path.display());
    println!("Restart roomscribe and roomscribe-sync where they are running.");
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

    let settings = Settings::load(root, |name| std::env::var(name).ok())
        .map_err(|why| Failure::configuration("the settings cannot be used", &why))?;
    let link = settings.link.clone().ok_or_else(|| {
        Failure::Configuration(
            "this box is not enrolled: on the clinic's server run `roomscribe-clinic invite BOX > link.toml`, \
             then here `roomscribe-sync enrol --from link.toml`"
                .into(),
        )
    })?;
    let keys = shared::seal::ClinicPublic::from_hex(&link.sealing_key, &link.signing_key)
        .map_err(|why| Failure::configuration("the enrolment cannot be used", &why))?;
    let store = shared::store::Store::open(&root.database())
        .map_err(|why| Failure::other(&root.database().display().to_string(), &why))?;
    let (store, clock) = (Arc::new(store), Arc::new(shared::clock::SystemClock::new()));
    let stop = Stop::at_signals().map_err(|why| Failure::other("signals cannot be caught", &why))?;
    let gate = Gate::open(store.clone(), clock.clone(), |service| settings.breaker_policy(service));
    let (dice, heart) = (Box::new(shared::chance::SeededDice::from_system()), Heart::from_system());
    let keeper = Keeper { dice, stop, heart, gate: Some(Arc::new(gate)) };
    tracing::info!(clinic = link.clinic, "box" = link.box_id, "The link starts.");
    keeper.heart.ready();
    let broker = MqttBroker::new(room::identity(&link));
    let room = Room { store, link, keys, clock };
    room::run(broker, room, keeper).await;
    tracing::info!("The link has stopped.");
    Ok(())
}

#[cfg(not(feature = "mqtt"))]
async fn run(_root: &Root) -> Result<(), Failure> {
    Err(Failure::Unavailable("this program was built without the feature `mqtt` and cannot reach a broker".into()))
}
