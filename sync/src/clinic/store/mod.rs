//! What the clinic holds, in one SQLite file or on a PostgreSQL server; all of the clinic's SQL is in this folder.
//!
//! Content is at rest only as it was sealed: the rows beside it hold metadata. Dates are RFC 3339 text in UTC here,
//! which sorts as time does. Every statement is written once, in words that both databases have. Calls block; with
//! PostgreSQL for as long as its limits allow.

mod alerts;
mod boxes;
mod commands;
mod discovery;
mod invitations;
mod leases;
pub mod postgres;
mod sessions;
mod sql;
mod sqlite;
mod withdrawals;

use std::fmt;
use std::path::{Path, PathBuf};

use shared::store::Disk;

pub use boxes::{BoxRow, KeptEvent};
pub use commands::{CommandRow, UNANSWERED};
pub use leases::LeaseRow;
pub use sessions::{Arrival, Held, Kept, SealedParcel, SessionRow};

use postgres::{Postgres, PostgresError};
use sql::{Row, Transaction, Value};
use sqlite::Sqlite;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClinicStoreError {
    /// SQLite said no.
    #[error("The clinic's database could not be used")]
    Database(#[from] rusqlite::Error),
    /// PostgreSQL could not do it.
    #[error("The clinic's database could not be used")]
    Postgres(#[from] PostgresError),
    /// A row does not hold what this version writes.
    #[error("A row of the clinic's database is damaged")]
    Damaged(#[from] serde_json::Error),
    /// A column does not hold what this version writes.
    #[error("A column of the clinic's database is not as this version writes it")]
    Unexpected,
    /// The file cannot be made.
    #[error("The clinic's database cannot be made")]
    File(#[from] std::io::Error),
    /// The thread that did it has ended without an answer.
    #[error("A question to the clinic's database was cut short")]
    CutShort,
}

impl ClinicStoreError {
    /// Whether waiting may help: the database is on a server that is not there, or not yet.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Postgres(why) => why.is_passing(),
            Self::Database(_) | Self::Damaged(_) | Self::Unexpected | Self::File(_) | Self::CutShort => false,
        }
    }
}

/// Where a clinic's database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// On a server.
    Server(Box<postgres::Address>),
}

/// For people; no password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(address) => address.fmt(f),
        }
    }
}

enum Base {
    File(Sqlite),
    Server(Postgres),
}

/// The clinic's database.
pub struct ClinicStore {
    base: Base,
}

impl ClinicStore {
    /// Opens a file, making it and its tables where they are missing.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn open(path: &Path) -> Result<Self, ClinicStoreError> {
        Ok(Self { base: Base::File(Sqlite::open(path, None)?) })
    }

    /// As [`ClinicStore::open`], on a disk that a test can fill up or break.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn open_on(path: &Path, disk: Option<&Disk>) -> Result<Self, ClinicStoreError> {
        Ok(Self { base: Base::File(Sqlite::open(path, disk)?) })
    }

    /// Opens it where it is, making what tables are missing. Several servers may do so at once.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn at(place: &Place) -> Result<Self, ClinicStoreError> {
        match place {
            Place::File(path) => Self::open(path),
            Place::Server(address) => Ok(Self { base: Base::Server(Postgres::connect(address)?) }),
        }
    }

    /// Whether it is a file of this machine, and a question takes no longer than its disk.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match &self.base {
            Base::File(_) => true,
            Base::Server(_) => false,
        }
    }

    fn run(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, ClinicStoreError> {
        match &self.base {
            Base::File(file) => file.run(sql, values),
            Base::Server(server) => server.run(sql, values),
        }
    }

    fn ask(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, ClinicStoreError> {
        match &self.base {
            Base::File(file) => file.ask(sql, values),
            Base::Server(server) => server.ask(sql, values),
        }
    }

    /// One transaction. Nobody else, on no server, does anything under the same name meanwhile. It may be tried twice.
    fn alone<T>(
        &self,
        of: &str,
        work: impl FnMut(&mut dyn Transaction) -> Result<T, ClinicStoreError>,
    ) -> Result<T, ClinicStoreError> {
        match &self.base {
            Base::File(file) => file.alone(work),
            Base::Server(server) => server.alone(of, work),
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn check(&self) -> Result<(), ClinicStoreError> {
        self.ask("select 1", &[]).map(drop)
    }
}

#[cfg(test)]
mod tests;
