//! Whether there is room for another session, asked before it begins. One that has begun is recorded whatever comes.

use shared::settings::{Admission, Settings};
use shared::store::{Store, StoreError};
use shared::wire::BoardHealth;

use crate::audio::seconds;
use crate::context::Context;
use crate::vitals::must_stop;

/// Where no session was measured yet, an engine is taken to need as long as what it hears.
const FACTOR_UNMEASURED: f64 = 1.0;

/// Why no session is begun.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoRoom {
    /// There is too little room on the disk.
    #[error(
        "There is no room for another session: {free_mib} MiB are free, and {limit_mib} must be. What the clinic has not \
         acknowledged is not destroyed for it; see: roomscribe queue list"
    )]
    Disk {
        /// MiB that are free.
        free_mib: u64,
        /// MiB that must be.
        limit_mib: u64,
    },
    /// The board is so hot that work is stopped.
    #[error(
        "The board is too hot for another session ({celsius:.0} °C): let it cool down, and see that air gets to it"
    )]
    Heat {
        /// Degrees Celsius.
        celsius: f64,
    },
    /// What waits already is more than the board can do in time.
    #[error(
        "There is no room for another session: {hours:.1} hours of work wait already, and at most {limit:.1} may. See: \
         roomscribe queue list"
    )]
    Behind {
        /// Hours.
        hours: f64,
        /// Hours.
        limit: f64,
    },
}

/// Whether a session may begin.
///
/// # Errors
/// [`StoreError`] where that cannot be said; inside, why it may not.
pub fn look(context: &Context) -> Result<Result<(), NoRoom>, StoreError> {
    Ok(judge(&context.vitals.board(), hours_ahead(&context.store)?, &context.settings))
}

/// Hours that the engines need for what waits already, as fast as they were lately.
///
/// # Errors
/// [`StoreError`].
pub fn hours_ahead(store: &Store) -> Result<f64, StoreError> {
    let (waiting, factor) = store.work_ahead()?;
    Ok(seconds(waiting) * factor.unwrap_or(FACTOR_UNMEASURED) / 3600.0)
}

/// Decides. A sensor that is not there says nothing, and nothing is no reason to refuse.
///
/// # Errors
/// Why no session may begin.
pub fn judge(board: &BoardHealth, hours: f64, settings: &Settings) -> Result<(), NoRoom> {
    let Admission { min_disk_mib, max_hours_behind } = settings.admission;
    if let Some(free_mib) = board.free_disk_mib.filter(|free| *free < min_disk_mib) {
        return Err(NoRoom::Disk { free_mib, limit_mib: min_disk_mib });
    }
    if let Some(celsius) = board.celsius.filter(|_| must_stop(board, &settings.health).is_some()) {
        return Err(NoRoom::Heat { celsius });
    }
    if hours > max_hours_behind {
        return Err(NoRoom::Behind { hours, limit: max_hours_behind });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_refused_for_each_lack_of_its_own_and_for_nothing_else() {
        let settings = Settings::default();
        let sound = BoardHealth { free_disk_mib: Some(512), celsius: Some(84.9), ..BoardHealth::default() };
        let judged = |board: &BoardHealth, hours| judge(board, hours, &settings);
        assert_eq!(judged(&sound, 24.0), Ok(()));
        assert_eq!(judged(&BoardHealth::default(), 0.0), Ok(()));
        let full = BoardHealth { free_disk_mib: Some(511), ..sound.clone() };
        assert_eq!(judged(&full, 0.0), Err(NoRoom::Disk { free_mib: 511, limit_mib: 512 }));
        let hot = BoardHealth { celsius: Some(85.0), ..sound.clone() };
        assert_eq!(judged(&hot, 0.0), Err(NoRoom::Heat { celsius: 85.0 }));
        assert_eq!(judged(&sound, 24.1), Err(NoRoom::Behind { hours: 24.1, limit: 24.0 }));
    }
}
