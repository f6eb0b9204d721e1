//! What the boxes said of themselves.

use rusqlite::params;
use serde::Serialize;
use shared::clock::WallTime;
use shared::wire::{BoxHealth, Event};

use super::{ClinicStore, ClinicStoreError};
use crate::uplink::ONLINE;

/// Events kept of each box, for people to look at.
const EVENTS_KEPT: i64 = 1000;

/// A box as it was last heard.
#[derive(Debug, Clone, PartialEq)]
pub struct BoxRow {
    /// Box id.
    pub box_id: String,
    /// Whether its last status was `online`.
    pub said_online: bool,
    /// What it last said of itself.
    pub health: Option<BoxHealth>,
    /// When it last gave a sign of life.
    pub seen_at: Option<WallTime>,
}

/// An event and who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptEvent {
    /// Box id.
    #[serde(rename = "box")]
    pub box_id: String,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl ClinicStore {
    /// A box said, or the broker said for it, whether it is online. Only `online` is a sign of life.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_status(&self, box_id: &str, status: &str, now: WallTime) -> Result<(), ClinicStoreError> {
        self.lock().execute(
            "insert into boxes (box, status, seen_at) values (?1, ?2, ?3)
             on conflict (box) do update set status = ?2, seen_at = coalesce(?3, seen_at)",
            params![box_id, status, (status == ONLINE).then_some(now.0)],
        )?;
        Ok(())
    }

    /// A box said how it is. `seen` is when, or `None` if the broker had only kept it for us.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_box_health(&self, health: &BoxHealth, seen: Option<WallTime>) -> Result<(), ClinicStoreError> {
        self.lock().execute(
            "insert into boxes (box, health, seen_at) values (?1, ?2, ?3)
             on conflict (box) do update set health = ?2, seen_at = coalesce(?3, seen_at)",
            params![health.box_id, serde_json::to_string(health)?, seen.map(|at| at.0)],
        )?;
        Ok(())
    }

    /// Every box that was ever heard, by id. A health that this version cannot read counts as none.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn boxes(&self) -> Result<Vec<BoxRow>, ClinicStoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("select box, status, health, seen_at from boxes order by box")?;
        let rows = statement.query_map([], |row| {
            Ok(BoxRow {
                box_id: row.get(0)?,
                said_online: row.get::<_, String>(1)? == ONLINE,
                health: row.get::<_, Option<String>>(2)?.and_then(|text| serde_json::from_str(&text).ok()),
                seen_at: row.get::<_, Option<i64>>(3)?.map(WallTime),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps an event once, however often it comes, and the newest of each box.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_event(&self, box_id: &str, event: &Event) -> Result<(), ClinicStoreError> {
        let connection = self.lock();
        connection.execute(
            "insert or ignore into events (box, id, at, event) values (?1, ?2, ?3, ?4)",
            params![box_id, event.id, event.at, serde_json::to_string(event)?],
        )?;
        connection.execute(
            "delete from events where box = ?1 and (select count(*) from events where box = ?1) > ?2
             and at < (select at from events where box = ?1 order by at desc limit 1 offset ?2 - 1)",
            params![box_id, EVENTS_KEPT],
        )?;
        Ok(())
    }

    /// The newest events first, at most `limit`.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn events(&self, limit: u32) -> Result<Vec<KeptEvent>, ClinicStoreError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("select box, event from events order by at desc, id desc limit ?1")?;
        let rows = statement.query_map([limit], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
        rows.map(|row| {
            let (box_id, event) = row?;
            Ok(KeptEvent { box_id, event: serde_json::from_str(&event)? })
        })
        .collect()
    }
}
