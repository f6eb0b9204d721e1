//! The work queue: one row per (session, window, task).
//!
//! A row is counted as claimed before it is tried, so a window that kills the box runs out of claims. There is
//! one worker; at start it takes back what was `running`, and needs no lease and no clock.

use rusqlite::{OptionalExtension as _, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::content::result_place;
use super::{Store, StoreError, named};
use crate::error::FailedAttempt;
use crate::task::Task;

/// Tries that may end with the box going down before a row is given up.
const MAX_CLAIMS: u32 = 3;

/// A stretch of a session, in samples at 16 kHz from its start, gaps included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRow {
    /// From 0.
    pub number: u32,
    /// First sample.
    pub start_sample: u64,
    /// One past the last.
    pub end_sample: u64,
    /// Whether it ends where no pause was found.
    pub blind_cut: bool,
}

/// A row that is this worker's to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Of the row.
    pub id: i64,
    /// UUID.
    pub session: String,
    /// What to do it to.
    pub window: WindowRow,
    /// How often it was claimed, this time included.
    pub claims: u32,
}

/// The state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// To do.
    Pending,
    /// Being done.
    Running,
    /// Done; the result is stored.
    Done,
    /// Given up; the cause is stored.
    Failed,
    /// The breaker let nothing through.
    Refused,
}

/// A row with what became of it.
#[derive(Debug, Clone)]
pub struct Row<R, E> {
    /// What was done to.
    pub window: WindowRow,
    /// Where it stands.
    pub state: RowState,
    /// Attempts of the last call.
    pub attempts: u32,
    /// If done.
    pub result: Option<R>,
    /// If failed or refused.
    pub cause: Option<E>,
}

impl<R, E> Row<R, E> {
    /// The row, and apart from it what was made.
    #[must_use]
    pub fn split(self) -> (Row<(), E>, Option<R>) {
        let Self { window, state, attempts, result, cause } = self;
        (Row { window, state, attempts, result: result.as_ref().map(|_| ()), cause }, result)
    }
}

fn window(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<WindowRow> {
    let sample = |at| row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(WindowRow {
        number: row.get(first)?,
        start_sample: sample(first + 1)?,
        end_sample: sample(first + 2)?,
        blind_cut: row.get(first + 3)?,
    })
}

/// Gives a session without sound its one window of no length, whose transcription was given up before it was tried, so
/// that the matrix decides it like any other.
pub(super) fn insert_failed(
    connection: &rusqlite::Connection,
    session: &str,
    cause: &impl Serialize,
) -> Result<(), StoreError> {
    connection.execute(
        "insert into windows (session, number, start_sample, end_sample, blind_cut) values (?1, 0, 0, 0, 0)",
        [session],
    )?;
    connection.execute(
        "insert into work (session, number, task, state, cause) values (?1, 0, ?2, 'failed', ?3)",
        params![session, Task::Transcription.name(), serde_json::to_string(cause)?],
    )?;
    Ok(())
}

impl Store {
    /// Adds a window and its rows, one per task. `samples` is the session's length known so far. Adding the same
    /// window again (after a restart) changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_window(
        &self,
        session: &str,
        window: &WindowRow,
        tasks: &[Task],
        samples: u64,
    ) -> Result<(), StoreError> {
        let mut connection = self.lock();
        // It reads before it writes: another process must not write in between.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sample = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        // Of one that was withdrawn nothing is begun.
        let is_wanted = "select exists (select 1 from sessions where id = ?1 and status <> 'withdrawn')";
        if !transaction.query_row(is_wanted, [session], |row| row.get::<_, bool>(0))? {
            return Ok(());
        }
        transaction.execute(
            "insert or ignore into windows (session, number, start_sample, end_sample, blind_cut)
             values (?1, ?2, ?3, ?4, ?5)",
            params![session, window.number, sample(window.start_sample), sample(window.end_sample), window.blind_cut],
        )?;
        for task in tasks {
            transaction.execute(
                "insert or ignore into work (session, number, task) values (?1, ?2, ?3)",
                params![session, window.number, task.name()],
            )?;
        }
        transaction.execute(
            "update sessions set samples = max(samples, ?2) where id = ?1",
            params![session, sample(samples)],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// The windows of a session, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn windows(&self, session: &str) -> Result<Vec<WindowRow>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select number, start_sample, end_sample, blind_cut from windows where session = ?1 order by number",
        )?;
        Ok(statement.query_map([session], |row| window(row, 0))?.collect::<Result<_, _>>()?)
    }

    /// Claims the next row of `task`: sessions that have ended first, then the oldest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn claim(&self, task: Task) -> Result<Option<Claim>, StoreError> {
        let mut connection = self.lock();
        // A transaction of its own: a statement that is left after its first row commits without saying so if it
        // cannot, and a claim that is not counted is none.
        let transaction = connection.transaction()?;
        let claimed = transaction
            .query_row(
                "update work set state = 'running', claims = claims + 1 where id = (
                   select w.id from work w join sessions s on s.id = w.session
                   where w.task = ?1 and w.state = 'pending' and w.claims < ?2
                     and s.status in ('recording', 'paused', 'queued', 'processing')
                   order by s.status in ('recording', 'paused'), s.created_at, w.number limit 1)
                 returning id, session, number, claims",
                params![task.name(), MAX_CLAIMS],
                |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?, row.get(3)?)),
            )
            .optional()?;
        let Some((id, session, number, claims)) = claimed else {
            return Ok(None);
        };
        let window = transaction.query_row(
            "select number, start_sample, end_sample, blind_cut from windows where session = ?1 and number = ?2",
            params![session, number],
            |row| window(row, 0),
        )?;
        transaction.commit()?;
        Ok(Some(Claim { id, session, window, claims }))
    }

    /// A row is done; its result is sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn complete(
        &self,
        id: i64,
        attempts: u32,
        result: &impl Serialize,
        history: &[FailedAttempt],
    ) -> Result<(), StoreError> {
        let json = serde_json::to_vec(result)?;
        let connection = self.lock();
        let place = connection
            .query_row("select session, task, number from work where id = ?1 and state = 'running'", [id], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((session, task, number)) = place else { return Ok(()) };
        let result = self.seal(&session, &result_place(&task, number), &json)?;
        connection.execute(
            "update work set state = 'done', attempts = ?2, result = ?3, cause = null, history = ?4
             where id = ?1 and state = 'running'",
            params![id, attempts, result, serde_json::to_string(history)?],
        )?;
        Ok(())
    }

    /// A row is given up, with its cause.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn fail(
        &self,
        id: i64,
        attempts: u32,
        cause: &impl Serialize,
        history: &[FailedAttempt],
    ) -> Result<(), StoreError> {
        self.lock().execute(
            "update work set state = 'failed', attempts = ?2, cause = ?3, history = ?4
             where id = ?1 and state = 'running'",
            params![id, attempts, serde_json::to_string(cause)?, serde_json::to_string(history)?],
        )?;
        Ok(())
    }

    /// The breaker let the row not through; that was no try.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn refuse(&self, id: i64) -> Result<(), StoreError> {
        self.lock().execute(
            "update work set state = 'refused', claims = max(claims - 1, 0) where id = ?1 and state = 'running'",
            params![id],
        )?;
        Ok(())
    }

    /// Rows of `task` that were refused may be tried again, in every session that is not finished. A postponed
    /// session is queued again. Returns how many rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn admit_refused(&self, task: Task) -> Result<usize, StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let rows = transaction.execute(
            "update work set state = 'pending' where task = ?1 and state = 'refused' and session in (
               select id from sessions where status in ('recording', 'paused', 'queued', 'processing', 'postponed'))",
            params![task.name()],
        )?;
        transaction.execute(
            "update sessions set status = 'queued' where status = 'postponed'
             and exists (select 1 from work w where w.session = sessions.id and w.state = 'pending')",
            [],
        )?;
        transaction.commit()?;
        Ok(rows)
    }

    /// Before a proper stop: what is running was not at fault, and its claim does not count.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unclaim_running(&self) -> Result<(), StoreError> {
        self.lock()
            .execute("update work set state = 'pending', claims = max(claims - 1, 0) where state = 'running'", [])?;
        Ok(())
    }

    /// After a failure of the database: what was running is to do again. Nothing died of it, so it costs no claim.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn give_back(&self, task: Task) -> Result<(), StoreError> {
        self.lock().execute(
            "update work set state = 'pending', claims = max(claims - 1, 0) where task = ?1 and state = 'running'",
            [task.name()],
        )?;
        Ok(())
    }

    /// After a start: what was running is to do again, and what has used up its claims is failed with `exhausted`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn take_back<E: Serialize>(&self, task: Task, exhausted: &E) -> Result<(), StoreError> {
        let connection = self.lock();
        connection
            .execute("update work set state = 'pending' where task = ?1 and state = 'running'", params![task.name()])?;
        connection.execute(
            "update work set state = 'failed', attempts = claims, cause = ?2
             where task = ?1 and state = 'pending' and claims >= ?3",
            params![task.name(), serde_json::to_string(exhausted)?, MAX_CLAIMS],
        )?;
        Ok(())
    }

    /// Every row of one task of a session, in order of windows, one at a time: those of hours take more memory than a
    /// box has to spare, and more time than others can wait.
    pub fn rows<'a, R: DeserializeOwned, E: DeserializeOwned>(
        &'a self,
        session: &'a str,
        task: Task,
    ) -> impl Iterator<Item = Result<Row<R, E>, StoreError>> + 'a {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let row = self.row_from(session, task, next?).transpose();
            next = row.as_ref().and_then(|row| row.as_ref().ok()).map(|row: &Row<R, E>| row.window.number + 1);
            row
        })
    }

    /// The first row of a task that is of window `number` or a later one.
    fn row_from<R: DeserializeOwned, E: DeserializeOwned>(
        &self,
        session: &str,
        task: Task,
        number: u32,
    ) -> Result<Option<Row<R, E>>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select n.number, n.start_sample, n.end_sample, n.blind_cut, w.state, w.attempts, w.result, w.cause
             from work w join windows n on n.session = w.session and n.number = w.number
             where w.session = ?1 and w.task = ?2 and w.number >= ?3 order by w.number limit 1",
        )?;
        let found = statement
            .query_row(params![session, task.name(), number], |row| {
                Ok((
                    window(row, 0)?,
                    row.get::<_, String>(4)?,
                    row.get(5)?,
                    row.get::<_, Option<Vec<u8>>>(6)?,
                    row.get::<_, Option<String>>(7)?,
                ))
            })
            .optional()?;
        drop(statement);
        drop(connection);
        let Some((window, state, attempts, result, cause)) = found else { return Ok(None) };
        let place = result_place(task.name(), window.number);
        let result = result.map(|stored| self.open_sealed(session, &place, stored)).transpose()?;
        Ok(Some(Row {
            window,
            state: named(state)?,
            attempts,
            result: result.map(|r| serde_json::from_slice(&r)).transpose()?,
            cause: cause.map(|c| serde_json::from_str(&c)).transpose()?,
        }))
    }

    /// The most attempts that any window of a session needed for a task.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn most_attempts(&self, session: &str, task: Task) -> Result<u32, StoreError> {
        let sql = "select coalesce(max(attempts), 0) from work where session = ?1 and task = ?2";
        Ok(self.lock().query_row(sql, params![session, task.name()], |row| row.get(0))?)
    }

    /// Whether a claimed row is still this worker's: a session that was dropped meanwhile takes its rows back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_running(&self, id: i64) -> Result<bool, StoreError> {
        let sql = "select exists (select 1 from work where id = ?1 and state = 'running')";
        Ok(self.lock().query_row(sql, [id], |row| row.get(0))?)
    }

    /// Whether there is anything to do for `task`, what the breaker refused included.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_rows_to_do(&self, task: Task) -> Result<bool, StoreError> {
        let sql = "select exists (select 1 from work w join sessions s on s.id = w.session
             where w.task = ?1 and w.state in ('pending', 'refused')
               and s.status in ('recording', 'paused', 'queued', 'processing', 'postponed'))";
        Ok(self.lock().query_row(sql, [task.name()], |row| row.get(0))?)
    }

    /// Rows of `task` that wait: how far the work is behind. Those of a concluded session wait for nobody.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn backlog(&self, task: Task) -> Result<u64, StoreError> {
        let sql = "select count(*) from work w join sessions s on s.id = w.session
             where w.task = ?1 and w.state = 'pending' and s.status in ('recording', 'paused', 'queued', 'processing')";
        Ok(self.lock().query_row(sql, [task.name()], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)?)
    }

    /// What the attempts of a session's rows died of: task, window, attempts. One that cannot be read hides no other;
    /// `check` finds it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn histories(&self, session: &str) -> Result<Vec<(Task, u32, Vec<FailedAttempt>)>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "select task, number, history from work where session = ?1 and history is not null and history <> '[]'
             order by number, task",
        )?;
        let rows = statement
            .query_map([session], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        let readable = |(task, number, history): (String, u32, String)| {
            Some((named(task).ok()?, number, serde_json::from_str(&history).ok()?))
        };
        Ok(rows.into_iter().filter_map(readable).collect())
    }

    /// Whether any row of a session is still to be done or being done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_work(&self, session: &str) -> Result<bool, StoreError> {
        let sql = "select exists (select 1 from work where session = ?1 and state in ('pending', 'running'))";
        Ok(self.lock().query_row(sql, [session], |row| row.get(0))?)
    }

    /// How many rows of a task are neither pending nor running, and how many there are so far.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn progress(&self, session: &str, task: Task) -> Result<(usize, usize), StoreError> {
        let sql = "select count(*) filter (where state not in ('pending', 'running')), count(*)
                   from work where session = ?1 and task = ?2";
        let count = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(|n| usize::try_from(n).unwrap_or(0));
        Ok(self.lock().query_row(sql, params![session, task.name()], |row| Ok((count(row, 0)?, count(row, 1)?)))?)
    }
}
