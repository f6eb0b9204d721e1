//! Orders of the clinic as the box took them, and messages that it did not believe.

use rusqlite::{OptionalExtension as _, params};

use super::audit::{Action, Actor, By, tell};
use super::{Store, StoreError};
use crate::clock::WallTime;
use crate::command::{Answer, CommandName};

/// How long an answer can be said again: nobody asks for one after its deadline, which is hours at most.
const KEPT_MS: i64 = 30 * 24 * 3_600_000;

/// Whether an order is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is new.
    New,
    /// It was taken before. Without an answer it was cut short: it may be done or not.
    Before(Option<Answer>),
}

impl Store {
    /// Takes an order, which can be done once, and says so in the audit log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn take_command(&self, id: &str, name: CommandName, now: WallTime) -> Result<Taken, StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let sql = "select answer from commands where id = ?1";
        let before: Option<Option<String>> = transaction.query_row(sql, [id], |row| row.get(0)).optional()?;
        if let Some(answer) = before {
            return Ok(Taken::Before(answer.map(|text| serde_json::from_str(&text)).transpose()?));
        }
        transaction.execute("delete from commands where taken_at < ?1", [now.0 - KEPT_MS])?;
        transaction.execute(
            "insert into commands (id, name, taken_at) values (?1, ?2, ?3)",
            params![id, name.name(), now.0],
        )?;
        tell(&transaction, By { actor: Actor::Clinic, at: now }, Action::CommandTaken, name.name())?;
        transaction.commit()?;
        Ok(Taken::New)
    }

    /// Keeps what became of an order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn answer_command(&self, answer: &Answer) -> Result<(), StoreError> {
        let text = serde_json::to_string(answer)?;
        self.lock().execute("update commands set answer = ?2 where id = ?1", params![answer.id, text])?;
        Ok(())
    }

    /// Counts a message that was not believed: `acknowledgement`, `command`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn disbelieve(&self, what: &str) -> Result<(), StoreError> {
        let sql =
            "insert into disbelieved (what, count) values (?1, 1) on conflict (what) do update set count = count + 1";
        self.lock().execute(sql, [what])?;
        Ok(())
    }

    /// What was not believed so far, and how often.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn disbelieved(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("select what, count from disbelieved order by what")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
