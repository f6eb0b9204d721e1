//! The store in one file: SQLite, for a clinic with one server.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, TransactionBehavior, params_from_iter};
use shared::store::{Disk, empty_log};

use super::ClinicStoreError;
use super::sql::{Cell, Row, Transaction, Value};

pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migration-1.sql"),
    include_str!("migration-2.sql"),
    include_str!("migration-3.sql"),
    include_str!("migration-4.sql"),
    include_str!("migration-5.sql"),
];

/// How long a command waits while the server writes.
const BUSY: Duration = Duration::from_secs(10);

/// The database in a file.
pub(super) struct Sqlite(Mutex<Connection>);

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn cell(value: ValueRef<'_>) -> rusqlite::Result<Cell> {
    Ok(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Text(_) => Cell::Text(value.as_str()?.to_owned()),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_owned()),
    })
}

fn run(connection: &Connection, sql: &str, values: &[Value<'_>]) -> Result<u64, ClinicStoreError> {
    Ok(connection.prepare_cached(sql)?.execute(params_from_iter(values))? as u64)
}

fn ask(connection: &Connection, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, ClinicStoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.column_count();
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Row> {
        let cells = (0..columns).map(|at| cell(row.get_ref(at)?));
        Ok(cells.collect::<rusqlite::Result<Vec<_>>>()?.into())
    };
    Ok(statement.query_map(params_from_iter(values), read)?.collect::<Result<_, _>>()?)
}

impl Transaction for rusqlite::Transaction<'_> {
    fn run(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, ClinicStoreError> {
        run(self, sql, values)
    }

    fn ask(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, ClinicStoreError> {
        ask(self, sql, values)
    }
}

impl Sqlite {
    /// Opens the file, making it and its tables where they are missing.
    pub(super) fn open(path: &Path, disk: Option<&Disk>) -> Result<Self, ClinicStoreError> {
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
        Ok(Self(Mutex::new(connection)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn run(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, ClinicStoreError> {
        run(&self.lock(), sql, values)
    }

    pub(super) fn ask(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, ClinicStoreError> {
        ask(&self.lock(), sql, values)
    }

    /// Nothing else is written meanwhile; an error leaves everything as it was.
    pub(super) fn alone<T>(
        &self,
        mut work: impl FnMut(&mut dyn Transaction) -> Result<T, ClinicStoreError>,
    ) -> Result<T, ClinicStoreError> {
        let mut connection = self.lock();
        let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&mut transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Empties the write-ahead log if parcels that are gone may still stand in it. While another process reads from it,
    /// it cannot be, and is the next time.
    pub(super) fn clean_up(&self) -> Result<(), ClinicStoreError> {
        let connection = self.lock();
        let owed = "select exists (select 1 from withdrawals where cleaned = 0)";
        if !connection.query_row(owed, [], |row| row.get::<_, bool>(0))? {
            return Ok(());
        }
        if empty_log(&connection, BUSY)? {
            connection.execute("update withdrawals set cleaned = 1 where cleaned = 0", [])?;
        }
        Ok(())
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
