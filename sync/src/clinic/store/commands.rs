//! What the clinic asked of its boxes, and how they answered: the clinic's log of it, so no row goes.

use serde::Serialize;
use shared::clock::WallTime;
use shared::command::{Answer, Order};

use super::sql::Row;
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

const COLUMNS: &str = "id, box, name, subject, asked_by, issued_at, published_at, outcome, message, answered_at";

fn read(mut row: Row) -> Result<CommandRow, ClinicStoreError> {
    Ok(CommandRow {
        id: row.text()?,
        box_id: row.text()?,
        name: row.text()?,
        subject: row.maybe_text()?,
        by: row.text()?,
        issued_at: row.text()?,
        published_at: row.maybe_text()?,
        outcome: row.maybe_text()?,
        message: row.maybe_text()?,
        answered_at: row.maybe_text()?,
    })
}

impl ClinicStore {
    /// Keeps an order for a running server to publish; the same once more changes nothing.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn order(&self, order: &Order, expires: WallTime) -> Result<(), ClinicStoreError> {
        let subject = order.session.as_deref().or(order.service.map(|service| service.name()));
        let (text, expires) = (serde_json::to_string(order)?, expires.to_string());
        let values = [
            order.id.as_str().into(),
            order.box_id.as_str().into(),
            order.name.name().into(),
            subject.into(),
            order.by.as_str().into(),
            order.issued_at.as_str().into(),
            expires.as_str().into(),
            text.as_str().into(),
        ];
        let sql = "insert into commands (id, box, name, subject, asked_by, issued_at, expires_at, order_json)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) on conflict (id) do nothing";
        self.run(sql, &values).map(drop)
    }

    /// Orders that nobody has published, the oldest first. Those whose time is over are closed.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn unpublished_orders(&self, now: WallTime) -> Result<Vec<Order>, ClinicStoreError> {
        // Looked for first: nearly always there is nothing, and nothing needs no write.
        if self.ask("select id from commands where outcome is null limit 1", &[])?.is_empty() {
            return Ok(Vec::new());
        }
        let (now, close) =
            (now.to_string(), "update commands set outcome = ?2 where outcome is null and expires_at < ?1");
        self.run(close, &[now.as_str().into(), UNANSWERED.into()])?;
        let sql = "select order_json from commands where outcome is null and published_at is null order by issued_at";
        self.ask(sql, &[])?.into_iter().map(|mut row| Ok(serde_json::from_str(&row.text()?)?)).collect()
    }

    /// An order was handed to the broker.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn order_published(&self, id: &str, now: WallTime) -> Result<(), ClinicStoreError> {
        let sql = "update commands set published_at = ?2 where id = ?1 and published_at is null";
        self.run(sql, &[id.into(), now.to_string().as_str().into()]).map(drop)
    }

    /// Keeps a box's answer, also one that comes after the order's time. False for an order that is not known, is another
    /// box's, or was answered.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn answered(&self, box_id: &str, answer: &Answer, now: WallTime) -> Result<bool, ClinicStoreError> {
        let sql = "update commands set outcome = ?3, message = ?4, answered_at = ?5
                   where id = ?1 and box = ?2 and answered_at is null";
        let now = now.to_string();
        let values = [
            answer.id.as_str().into(),
            box_id.into(),
            answer.outcome.name().into(),
            answer.message.as_deref().into(),
            now.as_str().into(),
        ];
        Ok(self.run(sql, &values)? > 0)
    }

    /// One order.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn command(&self, id: &str) -> Result<Option<CommandRow>, ClinicStoreError> {
        let sql = format!("select {COLUMNS} from commands where id = ?1");
        self.ask(&sql, &[id.into()])?.into_iter().next().map(read).transpose()
    }

    /// The newest orders.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn commands(&self, limit: u32) -> Result<Vec<CommandRow>, ClinicStoreError> {
        let sql = format!("select {COLUMNS} from commands order by issued_at desc, id limit ?1");
        self.ask(&sql, &[limit.into()])?.into_iter().map(read).collect()
    }
}
