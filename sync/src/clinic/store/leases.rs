//! Who of the servers publishes the board: a row that its holder changes again and again.

use super::{ClinicStore, ClinicStoreError};

/// There is one lease so far.
const BOARD: &str = "board";

/// The lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Whose it is; nobody's, if empty.
    pub holder: String,
    /// Another number each time that it was taken, renewed or given back.
    pub beat: i64,
}

impl ClinicStore {
    /// The lease, if there ever was one.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn lease(&self) -> Result<Option<LeaseRow>, ClinicStoreError> {
        let rows = self.ask("select holder, beat from leases where name = ?1", &[BOARD.into()])?;
        let read = |mut row: super::Row| Ok(LeaseRow { holder: row.text()?, beat: row.int()? });
        rows.into_iter().next().map(read).transpose()
    }

    /// Takes the lease, renews it, or with an empty `holder` gives it back, if it still is as it was read. Of several that
    /// try, one succeeds.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn take_lease(&self, holder: &str, read: Option<&LeaseRow>) -> Result<bool, ClinicStoreError> {
        let changed = match read {
            None => self.run(
                "insert into leases (name, holder, beat) values (?1, ?2, 1) on conflict (name) do nothing",
                &[BOARD.into(), holder.into()],
            )?,
            Some(LeaseRow { holder: before, beat }) => self.run(
                "update leases set holder = ?2, beat = beat + 1 where name = ?1 and holder = ?3 and beat = ?4",
                &[BOARD.into(), holder.into(), before.as_str().into(), (*beat).into()],
            )?,
        };
        Ok(changed > 0)
    }
}
