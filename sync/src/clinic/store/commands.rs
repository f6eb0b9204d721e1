//! What the clinic asked of its boxes, and how they answered: the clinic's log of it, so no row goes.

use rusqlite::{OptionalExtension as _, Row, params};
use serde::Serialize;
use shared::clock::WallTime;
use shared::command::{Answer, Order};

use super::{ClinicStore, ClinicStoreError};

/// The outcome of an order that no box answered in its time.
pub const UNANSWERED: &str = "unanswered";

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandRow {
    /// UUID.
    pub id: String,
    /// Of which box.
    #[serde(rename = "box")]
    pub box_id: String,
    /// What.
    pub name: String,
    /// The session or the breaker.
    pub subject: Option<String>,
    /// The role of who asked.
    pub by: String,
    /// When, RFC 3339 UTC.
    pub issued_at: String,
    /// When it was handed to the broker.
    pub published_at: Option<String>,
    /// As [`shared::command::Outcome`] has it, or [`UNANSWERED`]; none while it is under way.
    pub outcome: Option<String>,
    /// Why, in the box's words.
    pub message: Option<String>,
    /// When the box answered, by the clinic's clock.
    pub answered_at: Option<String>,
}

const COLUMNS: &str = "id, box, name, subject, by, issued_at, published_at, outcome, message, answered_at";

fn row(row: &Row<'_>) -> rusqlite::Result<CommandRow> {
    Ok(CommandRow {
        id: row.get(0)?,
        box_id: row.get(1)?,
        name: row.get(2)?,
        subject: row.get(3)?,
        by: row.get(4)?,
        issued_at: row.get(5)?,
        published_at: row.get(6)?,
        outcome: row.get(7)?,
        message: row.get(8)?,
        answered_at: row.get(9)?,
    })
}

impl ClinicStore {
    /// Keeps an order for a running server to publish.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn order(&self, order: &Order, expires: WallTime) -> Result<(), ClinicStoreError> {
        let subject = order.session.clone().or_else(|| order.service.map(|service| service.name().to_owned()));
        let text = serde_json::to_string(order)?;
        self.lock().execute(
            "insert into commands (id, box, name, subject, by, issued_at, expires_at, order_json)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                order.id,
                order.box_id,
                order.name.name(),
                subject,
                order.by,
                order.issued_at,
                expires.to_string(),
                text
            ],
        )?;
        Ok(())
    }

    /// Orders that nobody has published, the oldest first. Those whose time is over are closed.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn unpublished_orders(&self, now: WallTime) -> Result<Vec<Order>, ClinicStoreError> {
        let connection = self.lock();
        // Looked for first: nearly always there is nothing, and nothing needs no write.
        let open = "select exists (select 1 from commands where outcome is null)";
        if !connection.query_row(open, [], |row| row.get::<_, bool>(0))? {
            return Ok(Vec::new());
        }
        let close = "update commands set outcome = ?2 where outcome is null and expires_at < ?1";
        connection.execute(close, params![now.to_string(), UNANSWERED])?;
        let sql = "select order_json from commands where outcome is null and published_at is null order by issued_at";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.map(|text| Ok(serde_json::from_str(&text?)?)).collect()
    }

    /// An order was handed to the broker.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn order_published(&self, id: &str, now: WallTime) -> Result<(), ClinicStoreError> {
        let sql = "update commands set published_at = ?2 where id = ?1 and published_at is null";
        self.lock().execute(sql, params![id, now.to_string()])?;
        Ok(())
    }

    /// Keeps a box's answer, also one that comes after the order's time. False for an order that is not known, is another
    /// box's, or was answered.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn answered(&self, box_id: &str, answer: &Answer, now: WallTime) -> Result<bool, ClinicStoreError> {
        let sql = "update commands set outcome = ?3, message = ?4, answered_at = ?5
                   where id = ?1 and box = ?2 and answered_at is null";
        let outcome = answer.outcome.name();
        let count = self.lock().execute(sql, params![answer.id, box_id, outcome, answer.message, now.to_string()])?;
        Ok(count > 0)
    }

    /// One order.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn command(&self, id: &str) -> Result<Option<CommandRow>, ClinicStoreError> {
        let sql = format!("select {COLUMNS} from commands where id = ?1");
        Ok(self.lock().query_row(&sql, [id], row).optional()?)
    }

    /// The newest orders.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn commands(&self, limit: u32) -> Result<Vec<CommandRow>, ClinicStoreError> {
        let connection = self.lock();
        let sql = format!("select {COLUMNS} from commands order by issued_at desc, id limit ?1");
        let mut statement = connection.prepare_cached(&sql)?;
        Ok(statement.query_map([limit], row)?.collect::<Result<_, _>>()?)
    }
}
