//! Failed sessions are tried again at night, when nobody is recorded: the guide's dead letter queue.
//!
//! Each at most so many times, and not twice in one night. Nights are local time; a box whose clock is wrong has its
//! nights at another hour and loses nothing by it.

use std::time::Duration;

use jiff::tz::TimeZone;
use shared::clock::WallTime;
use shared::error::report;
use shared::settings::Replay;
use shared::store::{QueueError, StoreError};
use tracing::{info, warn};

use crate::context::Context;

/// How often it is looked whether there is something to try again.
const LOOK: Duration = Duration::from_secs(60);
/// A session is not tried again by itself within this: once a night.
const PAUSE_MS: i64 = 20 * 3600 * 1000;

/// Remembers when it last looked.
#[derive(Debug, Default)]
pub struct Night {
    looked_at: Option<Duration>,
}

/// The hour of the day, 0 to 23, in a time zone.
fn hour_in(zone: &TimeZone, now: WallTime) -> u8 {
    let Ok(at) = jiff::Timestamp::from_millisecond(now.0) else { return 0 };
    u8::try_from(zone.to_datetime(at).hour()).unwrap_or(0)
}

/// Whether an hour lies within the hours set; equal hours are the whole day.
#[must_use]
pub fn is_off_peak(hour: u8, settings: &Replay) -> bool {
    let (from, until) = (settings.from_hour, settings.until_hour);
    match from.cmp(&until) {
        std::cmp::Ordering::Less => (from..until).contains(&hour),
        std::cmp::Ordering::Equal => true,
        std::cmp::Ordering::Greater => hour >= from || hour < until,
    }
}

impl Night {
    /// Puts what failed to work again, if it is the hour and nothing else is to do.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn replay(&mut self, context: &Context) -> Result<(), StoreError> {
        let (settings, now) = (&context.settings.replay, context.now());
        let is_early = self.looked_at.is_some_and(|at| now.uptime.saturating_sub(at) < LOOK);
        if !settings.enabled || is_early || !is_off_peak(hour_in(&TimeZone::system(), now.wall), settings) {
            return Ok(());
        }
        self.looked_at = Some(now.uptime);
        let queue = context.store.queue()?;
        if queue.recording + queue.queued > 0 {
            return Ok(());
        }
        for session in context.store.to_replay(settings.times, PAUSE_MS, now.wall)? {
            match context.store.retry(&session, context.settings.session.diarization, now.wall) {
                Ok(()) => info!(session_id = session, "A failed session is tried again."),
                Err(QueueError::Store(why)) if why.is_content_lost() => {
                    warn!(session_id = session, error = %report(&why), "A failed session cannot be tried again.");
                    context.store.content_lost(&session, &why, now.wall)?;
                }
                Err(QueueError::Store(why)) => return Err(why),
                Err(why) => warn!(session_id = session, error = %why, "A failed session cannot be tried again."),
            }
        }
        context.work.notify_waiters();
        context.settled.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_may_go_past_midnight_and_equal_hours_are_the_whole_day() {
        let hours = |from_hour, until_hour| {
            let settings = Replay { from_hour, until_hour, ..Replay::default() };
            (0..24).filter(|hour| is_off_peak(*hour, &settings)).collect::<Vec<u8>>()
        };
        assert_eq!(hours(1, 5), [1, 2, 3, 4]);
        assert_eq!(hours(22, 2), [0, 1, 22, 23]);
        assert_eq!(hours(7, 7).len(), 24);
    }

    /// In one night the hour from two to three is left out, in another it comes twice.
    #[test]
    fn a_night_with_daylight_saving_is_an_hour_shorter_or_longer_and_never_missed() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let off_peak = |date: &str, settings: &Replay| {
            let evening: jiff::Timestamp = format!("{date}T18:00:00Z").parse().unwrap();
            let hours = (0..16).map(|hour| WallTime(evening.as_millisecond() + hour * 3_600_000));
            hours.filter(|at| is_off_peak(hour_in(&berlin, *at), settings)).count()
        };
        let night = Replay::default();
        assert_eq!(["2026-03-27", "2026-03-28", "2026-10-24"].map(|date| off_peak(date, &night)), [4, 3, 5]);
    }
}
