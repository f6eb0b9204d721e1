//! What the box owes the clinic, and the clinic's word on it.
//!
//! A parcel is owed until a believed acknowledgement for exactly its bytes has come. Nothing else ends it.

use rusqlite::{OptionalExtension as _, params};

use super::audit::{Actor, By};
use super::{Store, StoreError, WITHDRAWAL};
use crate::clock::WallTime;
use crate::seal::{Ack, AckResult};
use crate::wire::{Event, EventKind};

/// Why a clinic refuses a parcel of a session to which consent was withdrawn.
const WITHDRAWN: &str = "withdrawn";

/// Where a parcel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxState {
    /// Owed.
    Pending,
    /// The clinic has it.
    Acknowledged,
    /// The clinic will never take it: a dead letter.
    Refused,
}

/// A parcel that is owed; its bytes are fetched when it is sent. Revision [`super::WITHDRAWAL`] is the withdrawal of its
/// session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// UUID.
    pub session: String,
    /// From 1; 0 is a withdrawal.
    pub revision: u32,
    /// Of its bytes, hexadecimal.
    pub sha256: String,
}

impl Store {
    /// The oldest parcels that are owed, at most `limit`, behind the withdrawals that are, at most as many: what the clinic
    /// must not keep comes before what it must.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn owed(&self, limit: u32) -> Result<Vec<Parcel>, StoreError> {
        let connection = self.lock();
        let mut owed = Self::withdrawals_owed(&connection, limit)?;
        let mut statement = connection.prepare_cached(
            "select session, revision, sha256 from outbox where state = 'pending' order by created_at, rowid limit ?1",
        )?;
        let parcels = statement.query_map([limit], |row| {
            Ok(Parcel { session: row.get(0)?, revision: row.get(1)?, sha256: row.get(2)? })
        })?;
        owed.extend(parcels.collect::<Result<Vec<_>, _>>()?);
        Ok(owed)
    }

    /// Sessions whose newest record was made before this box had a clinic, and so has no parcel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn without_parcel(&self) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare(
            "select r.session from records r join sessions s on s.id = r.session and s.revision = r.revision
             where s.status <> 'withdrawn' and not exists (select 1 from erasures e where e.session = s.id)
               and not exists (select 1 from outbox o where o.session = r.session and o.revision = r.revision)
             order by r.created_at, r.rowid",
        )?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// Owes the clinic a parcel of a record that is stored already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn owe(&self, parcel: &Parcel, bytes: &[u8], now: WallTime) -> Result<(), StoreError> {
        self.lock().execute(
            "insert or ignore into outbox (session, revision, sha256, parcel, created_at)
             select ?1, ?2, ?3, ?4, ?5 where not exists (select 1 from erasures where session = ?1)",
            params![parcel.session, parcel.revision, parcel.sha256, bytes, now.0],
        )?;
        Ok(())
    }

    /// A parcel's bytes, as they were sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn parcel(&self, session: &str, revision: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "select parcel from outbox where session = ?1 and revision = ?2";
        Ok(self.lock().query_row(sql, params![session, revision], |row| row.get(0)).optional()?)
    }

    /// A parcel is no longer the bytes that were sealed: it is sent no more, and a person must look.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn parcel_damaged(&self, session: &str, revision: u32) -> Result<(), StoreError> {
        self.lock().execute(
            "update outbox set state = 'refused', reason = 'damaged' where session = ?1 and revision = ?2",
            params![session, revision],
        )?;
        Ok(())
    }

    /// Where a parcel stands, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outbox_state(&self, session: &str, revision: u32) -> Result<Option<OutboxState>, StoreError> {
        let sql = "select state from outbox where session = ?1 and revision = ?2";
        let state: Option<String> =
            self.lock().query_row(sql, params![session, revision], |row| row.get(0)).optional()?;
        Ok(state.map(|s| match s.as_str() {
            "acknowledged" => OutboxState::Acknowledged,
            "refused" => OutboxState::Refused,
            _ => OutboxState::Pending,
        }))
    }

    /// Writes a believed acknowledgement. It ends the debt only if it is about exactly the bytes that are owed.
    /// Returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn acknowledge(&self, ack: &Ack, now: WallTime) -> Result<bool, StoreError> {
        let mut connection = self.lock();
        if ack.revision == WITHDRAWAL {
            return Self::withdrawal_answered(&mut connection, ack);
        }
        let state = match ack.result {
            AckResult::Stored | AckResult::Duplicate => "acknowledged",
            AckResult::Refused => "refused",
            AckResult::Withdrawn => return Ok(false),
        };
        // The clinic will never take it, and nor may the box keep it: this database is older than the withdrawal.
        let is_withdrawn = ack.result == AckResult::Refused && ack.reason.as_deref() == Some(WITHDRAWN);
        let transaction = connection.transaction()?;
        let settled = transaction.execute(
            "update outbox set state = ?4, reason = ?5
             where session = ?1 and revision = ?2 and sha256 = ?3 and state = 'pending'",
            params![ack.session, ack.revision, ack.sha256, state, ack.reason],
        )?;
        if settled > 0 {
            transaction.execute(
                "insert into acks (session, revision, ack, received_at) values (?1, ?2, ?3, ?4)
                 on conflict (session, revision) do update set ack = ?3, received_at = ?4",
                params![ack.session, ack.revision, serde_json::to_string(ack)?, now.0],
            )?;
        }
        transaction.commit()?;
        drop(connection);
        if settled > 0 && is_withdrawn {
            self.withdraw(&ack.session, true, By { actor: Actor::Clinic, at: now })?;
        }
        Ok(settled > 0)
    }

    /// Events that were not sent yet, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn unsent_events(&self, limit: u32) -> Result<Vec<Event>, StoreError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("select id, at, event from events where sent <> 1 order by id limit ?1")?;
        let rows = statement
            .query_map([limit], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?
            .collect::<Result<Vec<(i64, i64, String)>, _>>()?;
        // A damaged one keeps no other back; `mend` puts it aside.
        let readable = |(id, at, event): (i64, i64, String)| {
            let what: EventKind = serde_json::from_str(&event).ok()?;
            Some(Event { version: 1, id, at: WallTime(at).to_string(), what })
        };
        Ok(rows.into_iter().filter_map(readable).collect())
    }

    /// Events up to `id` were sent. The newest thousand are kept for people to look at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn events_sent(&self, id: i64) -> Result<(), StoreError> {
        let connection = self.lock();
        connection.execute("update events set sent = 1 where id <= ?1 and sent <> 1", [id])?;
        connection.execute("delete from events where sent = 1 and id <= ?1 - 1000", [id])?;
        Ok(())
    }
}
