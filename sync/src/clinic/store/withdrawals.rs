//! Sessions to which consent was withdrawn: nothing of them is held, and nothing will be. What stays is that there was one.

use shared::clock::WallTime;

use super::sql::{Row, Transaction};
use super::{Base, ClinicStore, ClinicStoreError};

const WITHDRAWN: &str = "select count(*) from withdrawals where session_id = ?1";
const BOX_OF: &str = "select box from withdrawals where session_id = ?1 union all
                      select box from therapy_sessions where id = ?1 limit 1";

fn is_any(rows: Vec<Row>) -> Result<bool, ClinicStoreError> {
    rows.into_iter().next().map_or(Ok(false), |mut row| Ok(row.int()? > 0))
}

fn first_text(rows: Vec<Row>) -> Result<Option<String>, ClinicStoreError> {
    rows.into_iter().next().map(|mut row| row.text()).transpose()
}

pub(super) fn is_withdrawn(transaction: &mut dyn Transaction, session: &str) -> Result<bool, ClinicStoreError> {
    is_any(transaction.ask(WITHDRAWN, &[session.into()])?)
}

impl ClinicStore {
    /// Whether consent to a session was withdrawn.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn is_withdrawn(&self, session: &str) -> Result<bool, ClinicStoreError> {
        is_any(self.ask(WITHDRAWN, &[session.into()])?)
    }

    /// Destroys every parcel of a session, and keeps that it was withdrawn, which can be repeated. False, and nothing is
    /// changed, if the session is another box's.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn withdraw(&self, session: &str, box_id: &str, now: WallTime) -> Result<bool, ClinicStoreError> {
        let now = now.to_string();
        let is_done = self.alone(session, |transaction| {
            if first_text(transaction.ask(BOX_OF, &[session.into()])?)?.is_some_and(|of| of != box_id) {
                return Ok(false);
            }
            let is_news = transaction.run(
                "insert into withdrawals (session_id, box, withdrawn_at) values (?1, ?2, ?3)
                 on conflict (session_id) do nothing",
                &[session.into(), box_id.into(), now.as_str().into()],
            )?;
            if is_news > 0 {
                transaction.run("delete from parcels where session_id = ?1", &[session.into()])?;
                transaction.run(
                    "update therapy_sessions set status = 'withdrawn', updated_at = ?2, error_message = null,
                       error_type = null, diarization_status = 'skipped', speaker_count = 0, segment_count = 0,
                       gap_count = 0
                     where id = ?1",
                    &[session.into(), now.as_str().into()],
                )?;
            }
            Ok(true)
        })?;
        if is_done {
            self.clean_up()?;
        }
        Ok(is_done)
    }

    /// Destroys every parcel of a session because the clinic was asked to, whichever box it came from. False if there is no
    /// such session.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn withdraw_here(&self, session: &str, now: WallTime) -> Result<bool, ClinicStoreError> {
        let Some(box_id) = first_text(self.ask(BOX_OF, &[session.into()])?)? else { return Ok(false) };
        self.withdraw(session, &box_id, now)
    }

    /// Does away with what may be left of parcels that are gone: in a file, empties the write-ahead log. A PostgreSQL
    /// server does its own cleaning (`postgres/migration-1.sql` says how soon).
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn clean_up(&self) -> Result<(), ClinicStoreError> {
        match &self.base {
            Base::File(file) => file.clean_up(),
            Base::Server(_) => Ok(()),
        }
    }
}
