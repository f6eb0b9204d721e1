//! The daemon: every part started, and stopped in order. Also the same pipeline without a socket, for `process`.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shared::clock::SystemClock;
use shared::error::report;
use shared::paths::Root;
use shared::settings::{Settings, SettingsError};
use shared::store::StoreError;
use tokio::net::UnixListener;
use tracing::{info, warn};

use crate::capture::Board;
use crate::conclude::conclude_all;
use crate::context::{Context, StartError};
use crate::control::{Control, router};
use crate::engine::transcriber::ChildTranscriber;
use crate::engine::voices::ChildVoices;
use crate::keeper;
use crate::panel;
use crate::sessions::Sessions;
use crate::windows::follow_all;
use crate::worker::{diarization_lane, transcription_lane};

/// How long and how often the daemon waits for a command that works on its root, such as `process`.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_TRIES: u32 = 20;

/// Why the daemon could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The root cannot be worked on.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket cannot be made.
    #[error("The control socket {socket} cannot be made")]
    Socket {
        /// Where.
        socket: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The folder in which systemd gives a service its credentials.
#[must_use]
pub fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Opens a root with the settings it has.
///
/// # Errors
/// [`DaemonError`].
pub fn open(root: Root) -> Result<Arc<Context>, DaemonError> {
    let settings = Settings::load(&root, |name| std::env::var(name).ok())?;
    Ok(Arc::new(Context::open(root, settings, Arc::new(SystemClock::new()), credentials().as_deref())?))
}

/// As [`open`], but waits a while for a command that works on the root.
async fn open_soon(root: Root) -> Result<Arc<Context>, DaemonError> {
    for _ in 0..LOCK_TRIES {
        match open(root.clone()) {
            Err(DaemonError::Start(StartError::Busy)) => tokio::time::sleep(LOCK_WAIT).await,
            other => return other,
        }
    }
    open(root)
}

/// Starts the cutting of sessions, the lanes, and the conclusion of sessions. Gives the voice engine that they use.
pub fn start_work(context: &Arc<Context>) -> ChildVoices {
    let voices = ChildVoices::new(context.engines.clone());
    let transcriber = ChildTranscriber::new(context.engines.clone());
    tokio::task::spawn_local(follow_all(context.clone(), voices.clone()));
    tokio::task::spawn_local(transcription_lane(context.clone(), transcriber));
    tokio::task::spawn_local(diarization_lane(context.clone(), voices.clone()));
    tokio::task::spawn_local(conclude_all(context.clone()));
    voices
}

/// Runs the box until it is told to stop. To be awaited inside a `LocalSet` on a current-thread runtime: engine
/// children are tied to the thread that starts them.
///
/// # Errors
/// [`DaemonError`], only while starting.
pub async fn run(root: Root) -> Result<(), DaemonError> {
    let context = open_soon(root).await?;
    let device = context.settings.capture.device.clone();
    let door = Arc::new(Board { device, wanted: Some(context.root.microphone_wanted()) });
    let sessions = Arc::new(Sessions::new(context.clone(), door));
    // First of all the room: whatever else fails, what is said is recorded.
    sessions.take_up()?;
    keeper::remove_orphans(&context);
    keeper::destroy_orphan_keys(&context);
    keeper::owe_earlier_records(&context)?;
    let voices = start_work(&context);
    let earlier = context.clone();
    tokio::task::spawn_blocking(move || keeper::seal_earlier(&earlier));
    tokio::task::spawn_local(keeper::keep(context.clone(), Some(sessions.clone())));
    let panel = panel::start(&context, &sessions);
    let listener = bind(&context.root)?;
    let app = router(Control { context: context.clone(), sessions: sessions.clone(), voices });
    info!(root = %context.root.path().display(), clinic = context.settings.link.as_ref().map(|l| l.clinic.as_str()), "Ready.");
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    tokio::task::spawn_local(feed_watchdog());
    tokio::select! {
        served = axum::serve(listener, app).into_future() => {
            if let Err(why) = served {
                warn!(error = %why, "The control socket was lost.");
            }
        }
        () = told_to_stop() => info!("Stopping; a session being recorded goes on at the next start."),
    }
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    tokio::task::spawn_blocking(move || drop(panel)).await.ok();
    tokio::task::spawn_blocking(move || sessions.suspend()).await.ok();
    // What an engine was at is not the fault of its window.
    if let Err(why) = context.store.unclaim_running() {
        warn!(error = %report(&why), "Interrupted work could not be given back.");
    }
    Ok(())
}

/// Tells systemd that this runtime still turns, if it asked to be told.
async fn feed_watchdog() {
    if let Some(limit) = sd_notify::watchdog_enabled() {
        loop {
            drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
            tokio::time::sleep(limit / 3).await;
        }
    }
}

/// Waits for SIGTERM or SIGINT.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        }
        (Err(why), _) | (_, Err(why)) => {
            warn!(error = %report(&why), "Signals cannot be heard.");
            std::future::pending().await
        }
    }
}

fn bind(root: &Root) -> Result<UnixListener, DaemonError> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(std::path::PathBuf::from);
    let socket = root.control_socket(runtime.as_deref());
    let failed = |source| DaemonError::Socket { socket: socket.display().to_string(), source };
    // The lock on the root says that whoever made an earlier socket is gone.
    drop(std::fs::remove_file(&socket));
    name_socket(root, &socket).map_err(failed)?;
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Leaves word where the socket is, if it is not where it is looked for.
fn name_socket(root: &Root, socket: &Path) -> io::Result<()> {
    let named = root.run().join("control.path");
    if socket.starts_with(root.run()) {
        match std::fs::remove_file(named) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            Ok(()) | Err(_) => Ok(()),
        }
    } else {
        std::fs::write(named, socket.as_os_str().as_encoded_bytes())
    }
}
