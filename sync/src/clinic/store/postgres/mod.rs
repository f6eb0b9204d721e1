//! The store on a PostgreSQL server, which several clinic servers may share.
//!
//! ```text
//! caller (may block) ─▶ a place in the pool ─▶ begin, lock, statements, commit     all within one deadline
//! any failure ─▶ the connection is closed, never reused in the middle of something
//! ```
//!
//! The connections live on a thread of their own, so that callers may be any. After a failure that says nothing about
//! the statement (the connection was lost, two transactions met) it is done once more: everything here can be repeated.

mod address;
mod values;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

pub use address::{Address, is_url};

use super::ClinicStoreError;
use super::sql::{Cell, Row, Transaction, Value};

const MIGRATIONS: &[&str] = &[include_str!("migration-1.sql"), include_str!("migration-2.sql")];

/// Connections of one server. Parcels and the board are done one at a time; the others are for people's questions.
const CONNECTIONS: usize = 8;
/// How long connecting may take, and how long waiting for a connection that others use.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long the other machine may be silent before the connection is given up.
pub(super) const SILENT: Duration = Duration::from_secs(20);
/// Everything that one question or transaction may take. The loop asks at most five in a turn, and systemd's watchdog
/// wants to hear of it every minute.
const DEADLINE: Duration = Duration::from_secs(10);
/// What every connection begins with. The server gives up before we do, so that nothing is left running there. What was
/// committed must be on its disk, even where somebody has told it to be hasty.
const BEGIN_WITH: &str = "
    set statement_timeout = '8s'; set lock_timeout = '5s'; set idle_in_transaction_session_timeout = '15s';
    set client_min_messages = 'warning';
    select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'";
/// So that others who lock in the same database do not meet us.
const LOCKS: i64 = 0x526f_6f6d;

/// What the server or the system said, without any value of a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Said(String);

/// Why PostgreSQL could not do it.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No connection could be made.
    #[error("PostgreSQL cannot be reached")]
    Unreachable(#[source] Said),
    /// A connection ended before its answer came.
    #[error("The connection to PostgreSQL was lost")]
    Lost(#[source] Said),
    /// Two transactions met, and this one had to give way.
    #[error("PostgreSQL stopped a transaction for another")]
    Collided(#[source] Said),
    /// It, or a connection to it, took too long.
    #[error("PostgreSQL did not answer in time")]
    Slow,
    /// It said no.
    #[error("PostgreSQL refused")]
    Refused(#[source] Said),
    /// There is no TLS here.
    #[error("TLS cannot be set up")]
    Tls,
    /// The certificate authority's file cannot be read, or holds none.
    #[error("{file} is not a file of certificates (PEM)")]
    Authority {
        /// Which file.
        file: String,
    },
    /// The thread for the connections cannot be started.
    #[error("The thread for PostgreSQL cannot be started")]
    Thread(#[source] std::io::Error),
}

impl PostgresError {
    /// Whether the same may succeed if it is done again at once.
    fn is_worth_another(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Collided(_) => true,
            Self::Unreachable(_)
            | Self::Slow
            | Self::Refused(_)
            | Self::Tls
            | Self::Authority { .. }
            | Self::Thread(_) => false,
        }
    }

    /// Whether waiting may help: the server is not there, or not yet.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) | Self::Collided(_) | Self::Slow => true,
            Self::Refused(_) | Self::Tls | Self::Authority { .. } | Self::Thread(_) => false,
        }
    }
}

fn gave_up() -> PostgresError {
    PostgresError::Lost(Said("the connection's task has ended".into()))
}

/// Of a server's words only code and sentence are kept: the details repeat values.
impl From<tokio_postgres::Error> for PostgresError {
    fn from(why: tokio_postgres::Error) -> Self {
        let Some(said) = why.as_db_error() else {
            let said = Said(shared::error::report(&why));
            return if why.is_closed() || is_io(&why) { Self::Lost(said) } else { Self::Refused(said) };
        };
        let words = Said(format!("{} ({})", said.message(), said.code().code()));
        let code = said.code();
        if [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(code) {
            Self::Lost(words)
        } else if [SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS].contains(code) {
            Self::Unreachable(words)
        } else if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) {
            Self::Collided(words)
        } else if [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE].contains(code) {
            Self::Slow
        } else {
            Self::Refused(words)
        }
    }
}

fn is_io(why: &tokio_postgres::Error) -> bool {
    std::error::Error::source(why).is_some_and(|source| source.is::<std::io::Error>())
}

/// While connecting, a connection that is lost is a server that is not there.
fn not_connected(why: PoolError) -> PostgresError {
    match why {
        PoolError::Timeout(_) => PostgresError::Slow,
        PoolError::Backend(why) | PoolError::PostCreateHook(HookError::Backend(why)) => {
            match PostgresError::from(why) {
                PostgresError::Lost(said) => PostgresError::Unreachable(said),
                why => why,
            }
        }
        PoolError::PostCreateHook(HookError::Message(_)) | PoolError::Closed | PoolError::NoRuntimeSpecified => {
            gave_up()
        }
    }
}

/// The database on a server.
pub(super) struct Postgres {
    pool: Pool,
    /// Taken only when it ends.
    thread: Option<tokio::runtime::Runtime>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.pool.close();
        // Whoever drops it may be a thread that must not wait.
        if let Some(thread) = self.thread.take() {
            thread.shutdown_background();
        }
    }
}

/// A connection in the middle of something, and until when it may be.
struct Busy<'a> {
    postgres: &'a Postgres,
    connection: Arc<Object>,
    until: Instant,
}

impl Postgres {
    /// Connects, and makes what tables are missing; servers that start together wait for each other.
    pub(super) fn connect(address: &Address) -> Result<Self, ClinicStoreError> {
        let thread = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(PostgresError::Thread)?;
        let method = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(address.config(), address.tls()?, method);
        let limit = Some(CONNECT);
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .timeouts(Timeouts { wait: limit, create: limit, recycle: limit })
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|connection, _| {
                Box::pin(async move { connection.batch_execute(BEGIN_WITH).await.map_err(HookError::Backend) })
            }))
            .build()
            .map_err(|_| gave_up())?;
        let postgres = Self { pool, thread: Some(thread) };
        postgres.migrate()?;
        Ok(postgres)
    }

    /// Waits for something on the connections' own thread; blocks the caller's.
    fn wait<T: Send + 'static>(
        &self,
        until: Instant,
        work: impl Future<Output = Result<T, PostgresError>> + Send + 'static,
    ) -> Result<T, PostgresError> {
        let thread = self.thread.as_ref().ok_or_else(gave_up)?;
        let (tell, hear) = std::sync::mpsc::sync_channel(1);
        thread.spawn(async move {
            let done = timeout_at(until, work).await.unwrap_or(Err(PostgresError::Slow));
            // Nobody listens only if the caller is gone.
            drop(tell.send(done));
        });
        hear.recv().unwrap_or_else(|_| Err(gave_up()))
    }

    /// By the clock of the connections' thread, whatever clock the caller lives by.
    fn deadline(&self) -> Instant {
        let _there = self.thread.as_ref().map(tokio::runtime::Runtime::enter);
        Instant::now() + DEADLINE
    }

    fn take(&self, until: Instant) -> Result<Busy<'_>, PostgresError> {
        let pool = self.pool.clone();
        let connection = self.wait(until, async move { pool.get().await.map_err(not_connected) })?;
        Ok(Busy { postgres: self, connection: Arc::new(connection), until })
    }

    fn within<T>(
        &self,
        mut work: impl FnMut(&mut Busy<'_>) -> Result<T, ClinicStoreError>,
    ) -> Result<T, ClinicStoreError> {
        let until = self.deadline();
        let mut once = || {
            let mut busy = self.take(until)?;
            let done = work(&mut busy);
            if done.is_err() {
                busy.close();
            }
            done
        };
        match once() {
            Err(ClinicStoreError::Postgres(why)) if why.is_worth_another() => once(),
            done => done,
        }
    }

    pub(super) fn run(&self, sql: &str, values: &[Value<'_>]) -> Result<u64, ClinicStoreError> {
        self.within(|busy| busy.run(sql, values))
    }

    pub(super) fn ask(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, ClinicStoreError> {
        self.within(|busy| busy.ask(sql, values))
    }

    /// Nobody else does anything under the same name meanwhile, on any server; an error leaves everything as it was.
    pub(super) fn alone<T>(
        &self,
        of: &str,
        mut work: impl FnMut(&mut dyn Transaction) -> Result<T, ClinicStoreError>,
    ) -> Result<T, ClinicStoreError> {
        self.locked(of, |busy| work(busy))
    }

    fn locked<T>(
        &self,
        of: &str,
        mut work: impl FnMut(&mut Busy<'_>) -> Result<T, ClinicStoreError>,
    ) -> Result<T, ClinicStoreError> {
        self.within(|busy| {
            // What is asked after the lock sees all that was committed before it, which other levels do not promise.
            busy.say("begin isolation level read committed")?;
            busy.run("select pg_advisory_xact_lock(?1, hashtext(?2))", &[LOCKS.into(), of.into()])?;
            let done = work(busy)?;
            busy.say("commit")?;
            Ok(done)
        })
    }

    fn migrate(&self) -> Result<(), ClinicStoreError> {
        self.locked("migrations", |busy| {
            busy.say("create table if not exists roomscribe_schema (version bigint not null)")?;
            let mut known = busy.ask("select coalesce(max(version), 0) from roomscribe_schema", &[])?;
            let version = known.first_mut().map_or(Ok(0), Row::int)?;
            for (number, migration) in (1_i64..).zip(MIGRATIONS).skip_while(|(number, _)| *number <= version) {
                busy.say(migration)?;
                busy.run("insert into roomscribe_schema (version) values (?1)", &[number.into()])?;
            }
            Ok(())
        })
    }
}

impl Busy<'_> {
    /// Closes the connection, which undoes what was not committed on it.
    fn close(self) {
        if let Some(connection) = Arc::into_inner(self.connection) {
            drop(Object::take(connection));
        }
    }

    fn say(&mut self, words: &'static str) -> Result<(), ClinicStoreError> {
        let connection = self.connection.clone();
        let said = self.postgres.wait(self.until, async move { Ok(connection.batch_execute(words).await?) });
        Ok(said?)
    }
}

fn owned(values: &[Value<'_>]) -> Vec<Cell> {
    values.iter().copied().map(Cell::from).collect()
}

fn borrowed(values: &[Cell]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl Transaction for Busy<'_> {
    fn run(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, ClinicStoreError> {
        let (connection, sql, values) = (self.connection.clone(), sql.replace('?', "$"), owned(values));
        let done = self.postgres.wait(self.until, async move {
            let statement = connection.prepare_cached(&sql).await?;
            Ok(connection.execute(&statement, &borrowed(&values)).await?)
        });
        Ok(done?)
    }

    fn ask(&mut self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, ClinicStoreError> {
        let (connection, sql, values) = (self.connection.clone(), sql.replace('?', "$"), owned(values));
        let rows = self.postgres.wait(self.until, async move {
            let statement = connection.prepare_cached(&sql).await?;
            let rows = connection.query(&statement, &borrowed(&values)).await?;
            let cells =
                rows.iter().map(|row| (0..row.len()).map(|at| row.try_get(at)).collect::<Result<Vec<Cell>, _>>());
            Ok(cells.collect::<Result<Vec<_>, _>>()?)
        });
        Ok(rows?.into_iter().map(Row::from).collect())
    }
}
