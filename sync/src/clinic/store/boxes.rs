//! What the boxes said of themselves.

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
        self.run(
            "insert into boxes (box, status, seen_at) values (?1, ?2, ?3)
             on conflict (box) do update set status = ?2, seen_at = coalesce(?3, boxes.seen_at)",
            &[box_id.into(), status.into(), (status == ONLINE).then_some(now.0).into()],
        )
        .map(drop)
    }

    /// A box said how it is. `seen` is when, or `None` if the broker had only kept it for us.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_box_health(&self, health: &BoxHealth, seen: Option<WallTime>) -> Result<(), ClinicStoreError> {
        let text = serde_json::to_string(health)?;
        self.run(
            "insert into boxes (box, health, seen_at) values (?1, ?2, ?3)
             on conflict (box) do update set health = ?2, seen_at = coalesce(?3, boxes.seen_at)",
            &[health.box_id.as_str().into(), text.as_str().into(), seen.map(|at| at.0).into()],
        )
        .map(drop)
    }

    /// Every box that was ever heard, by id. A health that this version cannot read counts as none.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn boxes(&self) -> Result<Vec<BoxRow>, ClinicStoreError> {
        let rows = self.ask("select box, status, health, seen_at from boxes order by box", &[])?;
        rows.into_iter()
            .map(|mut row| {
                Ok(BoxRow {
                    box_id: row.text()?,
                    said_online: row.text()? == ONLINE,
                    health: row.maybe_text()?.and_then(|text| serde_json::from_str(&text).ok()),
                    seen_at: row.maybe_int()?.map(WallTime),
                })
            })
            .collect()
    }

    /// Keeps an event once, however often it comes, and the newest of each box.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_event(&self, box_id: &str, event: &Event) -> Result<(), ClinicStoreError> {
        let text = serde_json::to_string(event)?;
        self.alone(box_id, |transaction| {
            transaction.run(
                "insert into events (box, id, at, event) values (?1, ?2, ?3, ?4) on conflict (box, id, at) do nothing",
                &[box_id.into(), event.id.into(), event.at.as_str().into(), text.as_str().into()],
            )?;
            transaction.run(
                "delete from events where box = ?1
                   and at < (select at from events where box = ?1 order by at desc limit 1 offset ?2)",
                &[box_id.into(), (EVENTS_KEPT - 1).into()],
            )?;
            Ok(())
        })
    }

    /// The newest events first, at most `limit`.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn events(&self, limit: u32) -> Result<Vec<KeptEvent>, ClinicStoreError> {
        let rows = self.ask("select box, event from events order by at desc, id desc limit ?1", &[limit.into()])?;
        rows.into_iter()
            .map(|mut row| Ok(KeptEvent { box_id: row.text()?, event: serde_json::from_str(&row.text()?)? }))
            .collect()
    }
}
