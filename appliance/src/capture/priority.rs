//! Real time for the thread that listens, where the system allows it.
//!
//! The lowest of the real-time priorities is enough: engines and disk have none, and the kernel's own threads for sound
//! are above it. The thread never touches the disk and sleeps whenever nothing was heard.

use std::io;
use std::sync::Once;

use tracing::{debug, info};

static TOLD: Once = Once::new();

/// Asks for it for this thread. Without it everything works, and a busy board may run over sooner.
pub fn raise() {
    match set() {
        Ok(()) => debug!("The microphone is listened to in real time."),
        Err(why) => TOLD.call_once(|| {
            let remedy = "the unit sets LimitRTPRIO; elsewhere: ulimit -r 10";
            info!(error = %why, remedy, "The microphone is listened to without real-time priority.");
        }),
    }
}

/// Round robin at the lowest priority. Programs that this thread might start do not inherit it.
#[allow(unsafe_code, reason = "no kept crate here knows this call; it is given a number and a structure on the stack")]
fn set() -> io::Result<()> {
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: any value is one of this structure of integers.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = 1;
    // SAFETY: the structure outlives the call, and the thread is this one.
    let failed = unsafe { libc::pthread_setschedparam(libc::pthread_self(), policy, &raw const parameters) };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is allowed here or not, nothing happens to the thread.
    #[test]
    fn being_refused_is_no_error() {
        std::thread::spawn(|| {
            raise();
            raise();
        })
        .join()
        .unwrap();
    }
}
