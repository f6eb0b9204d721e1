//! Which boxes a broker may keep Home Assistant's discovery of: what a server that was switched off could not know.

use std::collections::BTreeSet;

use super::{ClinicStore, ClinicStoreError};

impl ClinicStore {
    /// Every box of which a discovery may be kept.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn discovered(&self) -> Result<BTreeSet<String>, ClinicStoreError> {
        self.ask("select box from discovered", &[])?.into_iter().map(|mut row| row.text()).collect()
    }

    /// One is about to be published.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn keep_discovered(&self, box_id: &str) -> Result<(), ClinicStoreError> {
        let sql = "insert into discovered (box) values (?1) on conflict (box) do nothing";
        self.run(sql, &[box_id.into()]).map(drop)
    }

    /// The broker keeps none of it any more.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn forget_discovered(&self, box_id: &str) -> Result<(), ClinicStoreError> {
        self.run("delete from discovered where box = ?1", &[box_id.into()]).map(drop)
    }
}
