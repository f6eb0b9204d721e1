//! What the clinic holds. SQLite behind a small API; all of the clinic's SQL is in this folder.
//!
//! Content is at rest only as it was sealed: the rows beside it hold metadata. Dates are RFC 3339 text in UTC,
//! which sorts as time does.

mod accounts;
mod alerts;
mod boxes;
mod history;
mod invitations;
mod sessions;
mod withdrawals;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use shared::store::Disk;

pub use accounts::{AccessRow, Account, ApiToken};
pub use boxes::{BoxRow, KeptEvent};
pub use history::Slot;
pub use sessions::{Arrival, FailureGroup, Held, Kept, SealedParcel, SessionRow};

const MIGRATIONS: &[&str] = &[
    include_str!("migration-1.sql"),
    include_str!("migration-2.sql"),
    include_str!("migration-3.sql"),
    include_str!("migration-4.sql"),
    include_str!("migration-5.sql"),
    include_str!("migration-6.sql"),
];

/// How long a command waits while the server writes.
const BUSY: Duration = Duration::from_secs(10);

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClinicStoreError {
    /// The database said no.
    #[error("The clinic's database could not be used")]
    Database(#[from] rusqlite::Error),
    /// A row does not hold what this version writes.
    #[error("A row of the clinic's database is damaged")]
    Damaged(#[from] serde_json::Error),
    /// The file cannot be made.
    #[error("The clinic's database cannot be made")]
    File(#[from] std::io::Error),
}

/// The clinic's database.
pub struct ClinicStore {
    connection: Mutex<Connection>,
}

impl ClinicStore {
    /// Opens it, making file and tables where they are missing.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn open(path: &Path) -> Result<Self, ClinicStoreError> {
        Self::open_on(path, None)
    }

    /// As [`ClinicStore::open`], on a disk that a test can fill up or break.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn open_on(path: &Path, disk: Option<&Disk>) -> Result<Self, ClinicStoreError> {
        if let Some(folder) = path.parent() {
            crate::files::folder(folder, 0o700)?;
        }
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "secure_delete", true)?;
        migrate(&mut connection)?;
        if let Some(disk) = disk {
            disk.watch(&mut connection)?;
        }
        Ok(Self { connection: Mutex::new(connection) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn check(&self) -> Result<(), ClinicStoreError> {
        Ok(self.lock().query_row("select 1", [], |_| Ok(()))?)
    }
}

fn migrate(connection: &mut Connection) -> Result<(), ClinicStoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for migration in MIGRATIONS.iter().skip(version as usize) {
        transaction.execute_batch(migration)?;
    }
    if (version as usize) < MIGRATIONS.len() {
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as u32)?;
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests;
