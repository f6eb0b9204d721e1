//! Since when alerts hold: what a server that restarts could not know by itself.

use rusqlite::params;
use shared::alert::AlertName;
use shared::clock::WallTime;

use super::{ClinicStore, ClinicStoreError};
use crate::clinic::alerts::{Key, Moves, Since};

impl ClinicStore {
    /// Since when each alert holds. One whose name this version does not know is another version's.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn alerts(&self) -> Result<Since, ClinicStoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("select alert, box, since from alerts")?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
        let mut since = Since::new();
        for row in rows {
            let (name, box_id, at): (_, String, String) = row?;
            if let Some(alert) = AlertName::ALL.into_iter().find(|alert| alert.name() == name) {
                since.insert(Key { alert, box_id }, at);
            }
        }
        Ok(since)
    }

    /// Alerts have begun or ended.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_alerts(&self, moves: &Moves, now: WallTime) -> Result<(), ClinicStoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for Key { alert, box_id } in &moves.begun {
            transaction.execute(
                "insert into alerts (alert, box, since) values (?1, ?2, ?3) on conflict (alert, box) do nothing",
                params![alert.name(), box_id, now.to_string()],
            )?;
        }
        for Key { alert, box_id } in &moves.ended {
            transaction.execute("delete from alerts where alert = ?1 and box = ?2", params![alert.name(), box_id])?;
        }
        Ok(transaction.commit()?)
    }
}
