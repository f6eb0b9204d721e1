//! Which boxes a broker may keep Home Assistant's discovery of: what a server that was switched off could not know.

use std::collections::BTreeSet;

use super::{ClinicStore, ClinicStoreError};

impl ClinicStore {
    /// Every box of which a discovery may be kept.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn discovered(&self) -> Result<BTreeSet<String>, ClinicStoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("select box from discovered")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }

    /// One is about to be published.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_discovered(&self, box_id: &str) -> Result<(), ClinicStoreError> {
        self.lock().execute("insert or ignore into discovered (box) values (?1)", [box_id])?;
        Ok(())
    }

    /// The broker keeps none of it any more.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn forget_discovered(&self, box_id: &str) -> Result<(), ClinicStoreError> {
        self.lock().execute("delete from discovered where box = ?1", [box_id])?;
        Ok(())
    }
}
