//! What goes wrong with a microphone: what the system says, what is done about it, and what the record calls it.
//!
//! | the system says | which means | what is done | the gap |
//! |---|---|---|---|
//! | `EAGAIN`, `EINTR`, no frames | nothing yet | wait on; after [`SILENT`] it has stalled | `unplugged` |
//! | `EPIPE` | it gathered more than was fetched | prepare, start | `overrun` |
//! | `ESTRPIPE` | the board or the bus slept | resume, else prepare and start | `unplugged` |
//! | no answer to a read at all | the driver hangs | leave it, open again each second | `unplugged` |
//! | `EBUSY` | another program holds it | close, open again each second | `unplugged` |
//! | `ENODEV`, `EBADFD`, `EIO`, all else | it is gone, or no use as it is | close, open again each second | `unplugged` |
//!
//! The record's causes are fixed. `overrun` is for samples that there were and that nobody kept; where a device gave
//! none, whatever kept it from that, the record says `unplugged`.

use std::time::Duration;

use rustix::io::Errno;
use shared::record::GapCause;

/// A device that gives nothing for this long is no use as it is. Cheap cards stall for a second now and then.
pub const SILENT: Duration = Duration::from_secs(2);

/// Why the microphone gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MicrophoneError {
    /// It had more than was fetched in time; it goes on by itself.
    #[error("The microphone ran over")]
    Overrun,
    /// It slept; it goes on by itself.
    #[error("The microphone was suspended")]
    Suspended,
    /// Somebody else records with it.
    #[error("The microphone {device} is in use by another program")]
    Busy {
        /// Its name.
        device: String,
    },
    /// It is open and gives no samples.
    #[error("The microphone {device} gives no samples")]
    Stalled {
        /// Its name.
        device: String,
    },
    /// Whoever asked it for samples has got no answer.
    #[error("The microphone's driver does not answer")]
    Hung,
    /// It is not there, or went away.
    #[error("The microphone {device} cannot be used: {problem}")]
    Unavailable {
        /// Its name.
        device: String,
        /// What the system says.
        problem: String,
    },
}

impl MicrophoneError {
    /// What the record calls the time without sound.
    #[must_use]
    pub fn cause(&self) -> GapCause {
        match self {
            Self::Overrun => GapCause::Overrun,
            Self::Suspended | Self::Busy { .. } | Self::Stalled { .. } | Self::Hung | Self::Unavailable { .. } => {
                GapCause::Unplugged
            }
        }
    }

    /// Whether the microphone that said so can be read on.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        match self {
            Self::Overrun | Self::Suspended => true,
            Self::Busy { .. } | Self::Stalled { .. } | Self::Hung | Self::Unavailable { .. } => false,
        }
    }

    /// What an errno of `device` is for whoever has to open it again.
    pub(super) fn lost(device: &str, errno: Errno) -> Self {
        let device = device.to_owned();
        match errno {
            Errno::BUSY => Self::Busy { device },
            other => Self::Unavailable { device, problem: problem(other) },
        }
    }
}

fn problem(errno: Errno) -> String {
    match errno {
        Errno::NODEV | Errno::NOENT | Errno::NXIO => "it is not there".into(),
        other => std::io::Error::from(other).to_string(),
    }
}

/// What is done about an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing is wrong: wait for samples.
    Wait,
    /// Prepare and start the same handle.
    Restart,
    /// Resume the same handle, or prepare and start it where it cannot.
    Resume,
    /// Close it, and open it again.
    Reopen,
}

/// See the table at the top of the file.
pub(super) fn remedy(errno: Errno) -> Remedy {
    match errno {
        Errno::AGAIN | Errno::INTR => Remedy::Wait,
        Errno::PIPE => Remedy::Restart,
        Errno::STRPIPE => Remedy::Resume,
        // Whatever else it may be, a fresh handle is the one cure that needs no person.
        _ => Remedy::Reopen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux numbers its errors from 1 to 133.
    #[test]
    fn every_errno_has_its_remedy_and_only_four_keep_the_handle() {
        for number in 1..=133 {
            let errno = Errno::from_raw_os_error(number);
            let expected = match number {
                4 | 11 => Remedy::Wait,
                32 => Remedy::Restart,
                86 => Remedy::Resume,
                _ => Remedy::Reopen,
            };
            assert_eq!(remedy(errno), expected, "errno {number}");
        }
    }

    #[test]
    fn a_busy_device_is_told_from_one_that_is_gone() {
        let busy = MicrophoneError::lost("mic", Errno::BUSY);
        assert_eq!(busy.to_string(), "The microphone mic is in use by another program");
        for errno in [Errno::NODEV, Errno::BADFD, Errno::IO, Errno::ACCESS] {
            let lost = MicrophoneError::lost("mic", errno);
            assert!(matches!(lost, MicrophoneError::Unavailable { .. }) && !lost.goes_on(), "{lost}");
        }
    }
}
