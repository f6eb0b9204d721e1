//! How rooms were over time: at most one row a box and minute, for as long as charts look back.

use std::time::Duration;

use rusqlite::{Row, params};
use shared::clock::WallTime;
use shared::wire::BoxHealth;

use super::{ClinicStore, ClinicStoreError};

/// Rows are kept so long: ten thousand a box.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

const MINUTE_MS: i64 = 60_000;

/// All boxes together, over a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Slot {
    /// Which stretch, counted from 1970.
    pub slot: i64,
    /// Sessions that wait for work, at most.
    pub to_process: u64,
    /// Parcels that wait for the clinic's word, at most.
    pub to_acknowledge: u64,
    /// Calls that failed, and all, of the quarters of an hour that ended in it.
    pub transcription: (u64, u64),
    /// The same.
    pub diarization: (u64, u64),
    /// Seconds of audio of the newest sessions, and seconds from their ends to their records.
    pub processing: (f64, f64),
}

fn minutes(time: Duration) -> i64 {
    i64::try_from(time.as_secs() / 60).unwrap_or(i64::MAX)
}

fn kept(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(at)?.unsigned_abs())
}

impl ClinicStore {
    /// Keeps what a box says of itself now, the first of each minute. What is too old goes, and what a clock that was
    /// wrong has dated in the future.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_history(&self, health: &BoxHealth, now: WallTime) -> Result<(), ClinicStoreError> {
        let minute = now.0.div_euclid(MINUTE_MS);
        let (queue, rates) = (&health.queue, &health.rates);
        let (audio, after): (Vec<f64>, Vec<f64>) = rates.processing.iter().copied().unzip();
        let connection = self.lock();
        let is_new = connection.execute(
            "insert into history (box, minute, to_process, to_acknowledge, transcription_failed, transcription_calls,
               diarization_failed, diarization_calls, audio_s, after_end_s)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) on conflict (box, minute) do nothing",
            params![
                health.box_id,
                minute,
                kept(queue.queued),
                kept(queue.unacknowledged),
                kept(rates.transcription.failed),
                kept(rates.transcription.total),
                kept(rates.diarization.failed),
                kept(rates.diarization.total),
                audio.iter().sum::<f64>(),
                after.iter().sum::<f64>(),
            ],
        )?;
        if is_new > 0 {
            let sql = "delete from history where box = ?1 and (minute <= ?2 or minute > ?3)";
            connection.execute(sql, params![health.box_id, minute - minutes(KEPT), minute])?;
        }
        Ok(())
    }

    /// What was kept of the last `back`, in stretches of `slot`, the oldest first; a stretch without a row is not there.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn history(&self, back: Duration, slot: Duration, now: WallTime) -> Result<Vec<Slot>, ClinicStoreError> {
        let minute = now.0.div_euclid(MINUTE_MS);
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select slot, sum(p), sum(a), sum(tf), sum(tc), sum(df), sum(dc), sum(audio), sum(after_end) from (
               select minute / ?1 as slot, max(to_process) as p, max(to_acknowledge) as a,
                 sum(transcription_failed) as tf, sum(transcription_calls) as tc, sum(diarization_failed) as df,
                 sum(diarization_calls) as dc, sum(audio_s) as audio, sum(after_end_s) as after_end
               from history where minute > ?2 and minute <= ?3 group by minute / ?1, box) as of_boxes
             group by slot order by slot",
        )?;
        let read = |row: &Row<'_>| {
            Ok(Slot {
                slot: row.get(0)?,
                to_process: count(row, 1)?,
                to_acknowledge: count(row, 2)?,
                transcription: (count(row, 3)?, count(row, 4)?),
                diarization: (count(row, 5)?, count(row, 6)?),
                processing: (row.get(7)?, row.get(8)?),
            })
        };
        let rows = statement.query_map([minutes(slot).max(1), minute - minutes(back), minute], read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::{self, World};
    use shared::breaker::StateName::Closed;
    use shared::clock::Clock as _;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_minute_of_a_box_is_kept_once_and_boxes_are_added_up() {
        let world = World::new();
        let store = &world.clinic.store;
        for (id, queued) in [("room-1", 3), ("room-2", 4), ("room-1", 9)] {
            let mut health = fixture::health(id, (Closed, 0), (Closed, 0));
            health.queue.queued = queued;
            (health.rates.transcription.failed, health.rates.transcription.total) = (1, 10);
            health.rates.processing = vec![(3600.0, 40.0), (1800.0, 20.0)];
            store.keep_history(&health, world.clock.now().wall).unwrap();
            world.clock.pass(Duration::from_secs(10));
        }
        let slots = store.history(HOUR, HOUR, world.clock.now().wall).unwrap();
        assert_eq!(slots.len(), 1);
        let Slot { to_process, transcription, processing, .. } = slots[0];
        assert_eq!((to_process, transcription, processing), (7, (2, 20), (10_800.0, 120.0)));
    }

    #[test]
    fn a_week_is_kept_and_nothing_of_the_future() {
        let world = World::new();
        let (store, health) = (&world.clinic.store, fixture::health("room-1", (Closed, 0), (Closed, 0)));
        let rows = || store.history(100 * KEPT, Duration::from_secs(60), WallTime(i64::MAX / 2)).unwrap().len();
        for _ in 0..3 {
            store.keep_history(&health, world.clock.now().wall).unwrap();
            world.clock.pass(KEPT / 2);
        }
        assert_eq!(rows(), 0, "the future's past is too long ago");
        let all = || store.history(10 * KEPT, Duration::from_secs(60), world.clock.now().wall).unwrap().len();
        assert_eq!(all(), 2);
        world.clock.set_wall(WallTime(1_767_225_600_000));
        store.keep_history(&health, world.clock.now().wall).unwrap();
        world.clock.pass(KEPT);
        assert_eq!(all(), 1, "what was dated later is gone");
    }
}
