//! What people see while a command waits.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

/// A spinner on a terminal, and nothing elsewhere.
#[must_use]
pub fn waiting(message: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
