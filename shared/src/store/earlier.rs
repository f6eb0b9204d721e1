//! What releases before this one stored plain is sealed.
//!
//!   sessions without a key ▶ one each, all at once, at the start     rows ▶ sealed, a few at a time, beside other work
//!   then the file is written anew, so that nothing plain lies in free pages, and the write-ahead log is emptied
//!
//! Each step can be cut short and is then taken up at the next start. What a file system or worn-levelled flash keeps of
//! blocks that were overwritten or given back is out of reach from here.

use std::io::Read as _;

use rusqlite::{Connection, MAIN_DB, TransactionBehavior, params};

use super::content::seal_content;
use super::erasure::empty_log;
use super::{BUSY, Store, StoreError};
use crate::clock::WallTime;
use crate::keys::{Purpose, is_sealed};

/// How many rows are looked at while nobody else may use the store: milliseconds, also where all are plain.
const BATCH: u32 = 32;

/// A column that holds what was said.
struct Column {
    table: &'static str,
    column: &'static str,
    /// Gives row id, session and place of the rows after `?1`, at most `?2`.
    select: &'static str,
    update: &'static str,
}

const COLUMNS: [Column; 3] = [
    Column {
        table: "work",
        column: "result",
        select: "select id, session, 'work/' || task || '/' || number from work
                 where id > ?1 and result is not null order by id limit ?2",
        update: "update work set result = ?2 where id = ?1",
    },
    Column {
        table: "records",
        column: "record",
        select: "select rowid, session, 'record/' || revision from records where rowid > ?1 order by rowid limit ?2",
        update: "update records set record = ?2 where rowid = ?1",
    },
    Column {
        table: "quarantine",
        column: "value",
        select: "select id, key, 'quarantine/' || source || '/' || field from quarantine
                 where id > ?1 and value is not null
                   and (source, field) in (values ('work', 'result'), ('records', 'record')) order by id limit ?2",
        update: "update quarantine set value = ?2 where id = ?1",
    },
];

/// What was sealed of what was plain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Values that are sealed now.
    pub sealed: usize,
    /// Values that stay plain, because the key of their session is gone.
    pub left: usize,
    /// Whether the write-ahead log is empty: another process may have kept it busy.
    pub is_log_empty: bool,
}

struct Found {
    row: i64,
    session: String,
    place: String,
}

fn some_after(connection: &Connection, column: &Column, row: i64) -> Result<Vec<Found>, StoreError> {
    let mut statement = connection.prepare_cached(column.select)?;
    let rows = statement.query_map(params![row, BATCH], |row| {
        Ok(Found { row: row.get(0)?, session: row.get(1)?, place: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads the value itself only if it begins plain: looking through a year of sealed ones must not read all of them.
fn plain(connection: &Connection, column: &Column, row: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut blob = connection.blob_open(MAIN_DB, column.table, column.column, row, true)?;
    let mut mark = [0; 4];
    let length = blob.read(&mut mark)?;
    if is_sealed(&mark[..length]) {
        return Ok(None);
    }
    let mut value = mark[..length].to_vec();
    blob.read_to_end(&mut value)?;
    Ok(Some(value))
}

impl Store {
    /// Sessions whose key was gone, and is back, are no longer lost: somebody has mended the key store. Says how many.
    ///
    /// # Errors
    /// [`StoreError`]; it can be repeated.
    pub fn welcome_back(&self) -> Result<usize, StoreError> {
        let lost: Vec<String> = {
            let connection = self.lock();
            let mut statement = connection.prepare("select id from sessions where content = 'lost'")?;
            statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        let mut back = 0;
        for id in lost.iter().filter(|id| self.content_key(id).is_ok()) {
            back += self.lock().execute("update sessions set content = 'sealed' where id = ?1", [id])?;
        }
        Ok(back)
    }

    /// Gives a key to every session of releases before this one. Says how many there were.
    ///
    /// # Errors
    /// [`StoreError`]; it can be repeated.
    pub fn adopt_earlier(&self, now: WallTime) -> Result<usize, StoreError> {
        let mut connection = self.lock();
        let ids: Vec<String> = {
            let mut statement = connection.prepare("select id from sessions where content = 'plain'")?;
            statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        if ids.is_empty() {
            return Ok(0);
        }
        // First the keys: a session that says it had one, and has none, was destroyed.
        self.keys()?.make_all(&ids, Purpose::Content, now)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for id in &ids {
            transaction.execute("update sessions set content = 'sealed' where id = ?1", [id])?;
        }
        transaction.execute("insert or ignore into plain values (1)", [])?;
        transaction.commit()?;
        Ok(ids.len())
    }

    /// Seals everything that is still plain, and leaves nothing of it in the file. Takes a while; others wait for
    /// milliseconds, and once, while the file is written anew, for seconds.
    ///
    /// # Errors
    /// [`StoreError`]; what was sealed by then stays so, and it can be repeated.
    pub fn seal_earlier(&self) -> Result<Earlier, StoreError> {
        let mut done = Earlier::default();
        for column in &COLUMNS {
            let mut next = Some(0);
            while let Some(after) = next {
                next = self.seal_some(column, after, &mut done)?;
            }
        }
        let connection = self.lock();
        if connection.query_row("select exists (select 1 from plain)", [], |row| row.get(0))? {
            connection.execute_batch("vacuum")?;
            connection.execute("delete from plain", [])?;
        }
        done.is_log_empty = empty_log(&connection, BUSY)?;
        Ok(done)
    }

    /// Seals the plain ones among the next rows, and says where to go on.
    fn seal_some(&self, column: &Column, after: i64, done: &mut Earlier) -> Result<Option<i64>, StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = some_after(&transaction, column, after)?;
        let mut sealed = 0;
        for Found { row, session, place } in &found {
            let Some(value) = plain(&transaction, column, *row)? else { continue };
            match self.content_key(session) {
                Ok(key) => {
                    transaction.execute(column.update, params![row, seal_content(&key, place, &value)?])?;
                    sealed += 1;
                }
                Err(why) if why.is_content_lost() => done.left += 1,
                Err(why) => return Err(why),
            }
        }
        if sealed > 0 {
            transaction.execute("insert or ignore into plain values (1)", [])?;
            transaction.commit()?;
            done.sealed += sealed;
        }
        Ok(found.last().map(|last| last.row))
    }
}
