//! Since when alerts hold: what a server that restarts could not know by itself.

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
        let mut since = Since::new();
        for mut row in self.ask("select alert, box, since from alerts", &[])? {
            let (name, box_id, at) = (row.text()?, row.text()?, row.text()?);
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
        let now = now.to_string();
        self.alone("alerts", |transaction| {
            for Key { alert, box_id } in &moves.begun {
                transaction.run(
                    "insert into alerts (alert, box, since) values (?1, ?2, ?3) on conflict (alert, box) do nothing",
                    &[alert.name().into(), box_id.as_str().into(), now.as_str().into()],
                )?;
            }
            for Key { alert, box_id } in &moves.ended {
                let key = [alert.name().into(), box_id.as_str().into()];
                transaction.run("delete from alerts where alert = ?1 and box = ?2", &key)?;
            }
            Ok(())
        })
    }
}
