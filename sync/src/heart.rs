//! Signs of life for systemd. Only the loops beat, where they turn: no timer, no thread.

use sd_notify::NotifyState;

/// Tells systemd how we are; without systemd, nobody.
#[derive(Debug)]
pub struct Heart {
    watched: bool,
}

impl Heart {
    /// Beats for systemd's watchdog, if it has one for us.
    #[must_use]
    pub fn from_system() -> Self {
        Self { watched: sd_notify::watchdog_enabled().is_some() }
    }

    /// Beats for nobody.
    #[must_use]
    pub fn unwatched() -> Self {
        Self { watched: false }
    }

    /// The start is over.
    pub fn ready(&self) {
        notify(NotifyState::Ready);
    }

    /// The loop has turned.
    pub fn beat(&self) {
        if self.watched {
            notify(NotifyState::Watchdog);
        }
    }
}

fn notify(state: NotifyState<'_>) {
    // Without a notify socket this does nothing; a broken one is for systemd to act on.
    drop(sd_notify::notify(&[state]));
}
