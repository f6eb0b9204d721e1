//! Sessions to which consent was withdrawn: nothing of them is held, and nothing will be. What stays is that there was one.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use shared::clock::WallTime;
use shared::store::empty_log;

use super::{BUSY, ClinicStore, ClinicStoreError};

pub(super) fn is_withdrawn(connection: &Connection, session: &str) -> Result<bool, ClinicStoreError> {
    let sql = "select exists (select 1 from withdrawals where session_id = ?1)";
    Ok(connection.query_row(sql, [session], |row| row.get(0))?)
}

fn box_of(connection: &Connection, session: &str) -> Result<Option<String>, ClinicStoreError> {
    let sql = "select box from withdrawals where session_id = ?1 union all
               select box from therapy_sessions where id = ?1 limit 1";
    Ok(connection.query_row(sql, [session], |row| row.get(0)).optional()?)
}

impl ClinicStore {
    /// Whether consent to a session was withdrawn.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn is_withdrawn(&self, session: &str) -> Result<bool, ClinicStoreError> {
        is_withdrawn(&self.lock(), session)
    }

    /// Destroys every parcel of a session, and keeps that it was withdrawn, which can be repeated. False, and nothing is
    /// changed, if the session is another box's.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn withdraw(&self, session: &str, box_id: &str, now: WallTime) -> Result<bool, ClinicStoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if box_of(&transaction, session)?.is_some_and(|of| of != box_id) {
            return Ok(false);
        }
        let now = now.to_string();
        let is_news = transaction.execute(
            "insert into withdrawals (session_id, box, withdrawn_at) values (?1, ?2, ?3) on conflict do nothing",
            params![session, box_id, now],
        )?;
        if is_news > 0 {
            transaction.execute("delete from parcels where session_id = ?1", [session])?;
            transaction.execute(
                "update therapy_sessions set status = 'withdrawn', updated_at = ?2, error_message = null,
                   error_type = null, diarization_status = 'skipped', speaker_count = 0, segment_count = 0, gap_count = 0
                 where id = ?1",
                params![session, now],
            )?;
        }
        transaction.commit()?;
        clean_up(&connection)?;
        Ok(true)
    }

    /// Destroys every parcel of a session because the clinic was asked to, whichever box it came from. False if there is no
    /// such session.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn withdraw_here(&self, session: &str, now: WallTime) -> Result<bool, ClinicStoreError> {
        let Some(box_id) = box_of(&self.lock(), session)? else { return Ok(false) };
        self.withdraw(session, &box_id, now)
    }

    /// Empties the write-ahead log if parcels that are gone may still stand in it. While another process reads from it, it
    /// cannot be, and is the next time.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn clean_up(&self) -> Result<(), ClinicStoreError> {
        clean_up(&self.lock())
    }
}

fn clean_up(connection: &Connection) -> Result<(), ClinicStoreError> {
    let owed = "select exists (select 1 from withdrawals where cleaned = 0)";
    if !connection.query_row(owed, [], |row| row.get::<_, bool>(0))? {
        return Ok(());
    }
    if empty_log(connection, BUSY)? {
        connection.execute("update withdrawals set cleaned = 1 where cleaned = 0", [])?;
    }
    Ok(())
}
