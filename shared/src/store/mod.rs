//! The box's one database, in which the recorder and the sync daemon meet, and beside it the store of wrapped keys.
//!
//! SQLite, WAL, `synchronous=FULL`: what a method has returned survives a power cut. A migration only adds, and
//! the previous release can still read the file. All of the box's SQL is in this folder.

mod audit;
mod balance;
mod breakers;
mod calls;
mod commands;
mod content;
mod damage;
mod disk;
mod earlier;
mod erasure;
mod key_error;
mod keys;
mod outbox;
mod queue;
mod sessions;
mod voices;
mod work;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::keys::CipherError;

pub use audit::{Action, Actor, AuditEntry, AuditHead, AuditLog, AuditRow, AuditVerdict, By, Flaw};
pub use balance::{Balance, Imbalance};
pub use breakers::BreakerCommand;
pub use calls::{Rate, Rates};
pub use commands::Taken;
pub use content::{open_content, record_place, result_place, seal_content};
pub use damage::{Damage, Quarantined};
pub use disk::Disk;
pub use earlier::Earlier;
pub use erasure::{AtClinic, WITHDRAWAL, empty_log};
pub use key_error::KeyError;
pub use keys::{HeldKey, KeyStore};
pub use outbox::{OutboxState, Parcel};
pub use queue::{Dropped, Held, Ledger, LedgerTerm, Place, QueueError, QueueItem};
pub use sessions::{FailureCount, Finish, NewSession, SessionRow, SpeakerHint};
pub use voices::SealedVoice;
pub use work::{Claim, Row, RowState, WindowRow};

/// Each entry brings the database from its index to the next version.
const MIGRATIONS: &[&str] = &[
    include_str!("migration-1.sql"),
    include_str!("migration-2.sql"),
    include_str!("migration-3.sql"),
    include_str!("migration-4.sql"),
    include_str!("migration-5.sql"),
    include_str!("migration-6.sql"),
    include_str!("migration-7.sql"),
    include_str!("migration-8.sql"),
];

/// How long one process waits while the other writes. Writes take milliseconds; a card that stalls takes seconds.
const BUSY: Duration = Duration::from_secs(10);

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("The database could not be used")]
    Sqlite(#[from] rusqlite::Error),
    /// A row does not hold what this version writes.
    #[error("A row of the database is damaged")]
    Damaged(#[from] DamagedRow),
    /// The folder cannot be made.
    #[error("The database folder could not be made")]
    Folder(#[from] std::io::Error),
    /// No such session.
    #[error("There is no such session")]
    NoSession,
    /// This process may not read or write what was said.
    #[error("What was said is sealed, and no keys were opened")]
    NoKeys,
    /// A key can neither be made nor found.
    #[error("The key of what was said could not be used")]
    Keys(#[from] KeyError),
    /// It was destroyed, or `keys.db` was lost; it is never made again.
    #[error("The key of what was said is gone: it was destroyed, or keys.db was lost")]
    ContentGone,
    /// There is no sealing it.
    #[error("What was said could not be sealed")]
    NotSealed(#[from] CipherError),
}

/// What is wrong with a row. What it holds may have been said, so it is not told.
#[derive(Debug, thiserror::Error)]
pub enum DamagedRow {
    /// Where its JSON stops making sense.
    #[error("{category} at line {line}, column {column}")]
    Json {
        /// In what way.
        category: &'static str,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// It is not what was sealed, or not where it was sealed for.
    #[error("It does not open")]
    Seal(#[source] CipherError),
    /// It opens, and is not what was compressed.
    #[error("It does not unpack")]
    Packed,
}

impl From<serde_json::Error> for DamagedRow {
    fn from(why: serde_json::Error) -> Self {
        let category = match why.classify() {
            serde_json::error::Category::Io => "input or output",
            serde_json::error::Category::Syntax => "syntax",
            serde_json::error::Category::Data => "data",
            serde_json::error::Category::Eof => "end of input",
        };
        Self::Json { category, line: why.line(), column: why.column() }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(why: serde_json::Error) -> Self {
        Self::Damaged(why.into())
    }
}

/// The box's database.
pub struct Store {
    connection: Mutex<Connection>,
    keys: Option<Arc<KeyStore>>,
}

impl Store {
    /// Opens it, making folder, file and tables where they are missing: without keys, see [`Store::sealing_with`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_on(path, None)
    }

    /// As [`Store::open`], on a disk that a test can fill up or break.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_on(path: &Path, disk: Option<&Disk>) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "secure_delete", true)?;
        migrate(&mut connection, MIGRATIONS)?;
        if let Some(disk) = disk {
            disk.watch(&mut connection)?;
        }
        Ok(Self { connection: Mutex::new(connection), keys: None })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings a database to the version that the last of `migrations` makes.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for migration in migrations.iter().skip(version as usize) {
        transaction.execute_batch(migration)?;
    }
    if (version as usize) < migrations.len() {
        transaction.pragma_update(None, "user_version", migrations.len() as u32)?;
    }
    transaction.commit()
}

/// Reads a value stored as a JSON string (`"done"`) from a column that holds it bare (`done`).
fn named<T: serde::de::DeserializeOwned>(text: String) -> Result<T, serde_json::Error> {
    serde_json::from_value(serde_json::Value::String(text))
}

#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod balance_tests;
#[cfg(test)]
mod content_tests;
#[cfg(test)]
mod erasure_tests;
#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests;
