//! Being told to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Hears when to stop; every clone hears it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Tells every [`Stop`] that came with it; dropping it does, too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Tells.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// A pair.
    #[must_use]
    pub fn new() -> (Stopper, Self) {
        let (tell, hear) = watch::channel(false);
        (Stopper(tell), Self(hear))
    }

    /// Stops at SIGTERM or SIGINT.
    ///
    /// # Errors
    /// If the signals cannot be caught.
    pub fn at_signals() -> std::io::Result<Self> {
        let (stopper, stop) = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopper.stop();
        });
        Ok(stop)
    }

    /// Waits until told; at once if told before.
    pub async fn asked(&mut self) {
        // An error says that nobody is left to tell, which is as good as being told.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}
