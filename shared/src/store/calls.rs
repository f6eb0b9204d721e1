//! Guarded calls, counted for the failure rates that alerts watch.
//!
//! Within a boot the window is counted in uptime, so that a set clock neither loses calls nor counts old ones; calls of
//! an earlier boot are counted by the wall clock, which is all there is.

use std::time::Duration;

use rusqlite::params;

use super::{Store, StoreError};
use crate::breaker::Service;
use crate::clock::{Now, WallTime};
use crate::guard::Outcome;

/// Calls kept: a box with two lanes and windows of thirty seconds makes some six thousand a day.
const KEPT: i64 = 10_000;

/// So many of so many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rate {
    /// How many failed.
    pub failed: u64,
    /// Of how many.
    pub total: u64,
}

/// What alerts are evaluated from.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rates {
    /// Guarded transcription calls of the last 15 minutes.
    pub transcription: Rate,
    /// Guarded diarization calls of the last 15 minutes.
    pub diarization: Rate,
    /// Sessions concluded in the last 24 hours, and how many of them ran out of attempts.
    pub exhausted: Rate,
    /// The newest sessions, at most five, of at least a minute: seconds of audio, seconds from the end to the record.
    pub processing: Vec<(f64, f64)>,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Store {
    pub(super) fn keep_call(
        &self,
        service: Service,
        outcome: Outcome,
        took: Duration,
        now: &Now,
    ) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute(
            "insert into calls (service, outcome, at, boot, uptime_ms, took_ms) values (?1, ?2, ?3, ?4, ?5, ?6)",
            params![service.name(), outcome.name(), now.wall.0, now.boot.0, millis(now.uptime), millis(took)],
        )?;
        transaction.execute("delete from calls where id <= ?1 - ?2", [transaction.last_insert_rowid(), KEPT])?;
        transaction.commit()?;
        Ok(())
    }

    /// Guarded calls of the last `window` that succeeded or failed. A refused call was never made, and one that failed
    /// for its recording says nothing about the engine: neither counts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn call_rate(&self, service: Service, window: Duration, now: &Now) -> Result<Rate, StoreError> {
        let sql = "select count(*) filter (where outcome = 'failed'), count(*) from calls
             where service = ?1 and outcome in ('successful', 'failed')
               and case when boot = ?2 then uptime_ms > ?3 else at > ?4 and at <= ?5 end";
        let from_uptime = millis(now.uptime).saturating_sub(millis(window));
        let from_wall = now.wall.0.saturating_sub(millis(window));
        let parameters = params![service.name(), now.boot.0, from_uptime, from_wall, now.wall.0];
        let count = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(i64::unsigned_abs);
        Ok(self.lock().query_row(sql, parameters, |row| Ok(Rate { failed: count(row, 0)?, total: count(row, 1)? }))?)
    }

    /// Sessions concluded since `since`, and how many of them ran out of attempts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn exhaustion(&self, since: WallTime) -> Result<Rate, StoreError> {
        let sql = "select count(*) filter (where error_message like '%Retry exhausted%'), count(*) from sessions
             where status in ('done', 'failed') and updated_at > ?1";
        let count = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(i64::unsigned_abs);
        Ok(self.lock().query_row(sql, [since.0], |row| Ok(Rate { failed: count(row, 0)?, total: count(row, 1)? }))?)
    }

    /// The newest sessions of at least a minute: seconds of audio, and seconds from their end to their first record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn processing_times(&self, limit: u32) -> Result<Vec<(f64, f64)>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select samples / 16000.0, (concluded_at - ended_at) / 1000.0 from sessions
             where concluded_at is not null and status = 'done' and ended_at is not null and samples >= 960000
             order by concluded_at desc limit ?1",
        )?;
        let rows = statement.query_map([limit], |row| Ok((row.get(0)?, row.get::<_, f64>(1)?.max(0.0))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many samples of recorded sessions wait for their words, and how long the engines took for a second of the last
    /// five sessions that last a minute or more, if there were any: both engines' time added up, which work side by side.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn work_ahead(&self) -> Result<(u64, Option<f64>), StoreError> {
        let connection = self.lock();
        let waiting: i64 = connection.query_row(
            "select coalesce(sum(n.end_sample - n.start_sample), 0) from work w
               join windows n on n.session = w.session and n.number = w.number
               join sessions s on s.id = w.session
             where w.task = 'transcription' and w.state in ('pending', 'running', 'refused')
               and s.status in ('recording', 'paused', 'queued', 'processing', 'postponed')",
            [],
            |row| row.get(0),
        )?;
        let factor = connection.query_row(
            "select sum(engine_seconds) / (sum(samples) / 16000.0) from (
               select engine_seconds, samples from sessions where concluded_at is not null and samples >= 960000
               order by concluded_at desc limit 5)",
            [],
            |row| row.get(0),
        )?;
        Ok((waiting.unsigned_abs(), factor))
    }

    /// Everything alerts are evaluated from.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rates(&self, now: &Now) -> Result<Rates, StoreError> {
        const QUARTER: Duration = Duration::from_secs(15 * 60);
        const DAY_MS: i64 = 24 * 3600 * 1000;
        Ok(Rates {
            transcription: self.call_rate(Service::Transcription, QUARTER, now)?,
            diarization: self.call_rate(Service::Diarization, QUARTER, now)?,
            exhausted: self.exhaustion(WallTime(now.wall.0.saturating_sub(DAY_MS)))?,
            processing: self.processing_times(5)?,
        })
    }
}
