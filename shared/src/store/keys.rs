//! Where wrapped keys lie: `keys.db`, apart from what they seal, so that forgetting one can be complete.
//!
//!   make ─▶ kept ── destroy: row deleted, rewriting owed (one transaction) ─▶ file rewritten ─▶ no longer owed
//!
//! Deleted bytes are overwritten (`secure_delete`), the journal is a rollback journal that is gone with its
//! transaction (a write-ahead log would keep the old pages), nothing is spilled to temporary files, and the file is
//! rewritten after each destruction, at the next opening if the power went before. `synchronous=EXTRA` also syncs the
//! folder, so that no journal comes back and undoes a destruction. What the file system or worn-levelled flash keep of
//! bytes that were overwritten or files that were removed is out of reach from here.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{Disk, KeyError, migrate};
use crate::clock::WallTime;
use crate::keys::{BoxKeyId, BoxKeys, DataKey, Purpose, UnwrapError, WrappedKey};
use crate::whole_file;

/// Each entry brings the file from its index to the next version.
const MIGRATIONS: &[&str] = &[include_str!("keys-1.sql")];

/// How long one process waits while another writes: rewriting a year of keys on a slow card takes seconds.
const BUSY: Duration = Duration::from_secs(10);

/// A session's id has 36.
const MAX_OWNER_BYTES: usize = 64;

/// A key that is kept, as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// Session id, or the id of an enrolled voice.
    pub owner: String,
    /// What it is for.
    pub purpose: Purpose,
    /// When it was made.
    pub made_at: WallTime,
    /// Which box key unwraps it; none if the row is damaged.
    pub box_key: Option<BoxKeyId>,
}

/// The box's wrapped keys, and the box keys that unwrap them.
pub struct KeyStore {
    pub(super) connection: Mutex<Connection>,
    boxes: BoxKeys,
}

impl KeyStore {
    /// Opens it, making folder and file where they are missing, and rewrites it if that is owed; whether that could be
    /// done, [`KeyStore::is_rewrite_owed`] tells.
    ///
    /// # Errors
    /// [`KeyError`]; a file that is there but is no key store is never replaced.
    pub fn open(path: &Path, boxes: BoxKeys) -> Result<Self, KeyError> {
        Self::open_on(path, boxes, None)
    }

    /// As [`KeyStore::open`], on a disk that a test can fill up or break.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open_on(path: &Path, boxes: BoxKeys, disk: Option<&Disk>) -> Result<Self, KeyError> {
        if !path.try_exists()? {
            create(path)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        configure(&connection)?;
        check(&connection)?;
        migrate(&mut connection, MIGRATIONS)?;
        if let Some(disk) = disk {
            disk.watch(&mut connection)?;
        }
        let store = Self { connection: Mutex::new(connection), boxes };
        // On a full disk it stays owed: what is kept must be readable all the same.
        let _ = rewrite(&store.lock());
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner's key for that purpose, made if there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn make(&self, owner: &str, purpose: Purpose, now: WallTime) -> Result<DataKey, KeyError> {
        if !is_id(owner) {
            return Err(KeyError::BadOwner);
        }
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(wrapped) = wrapped(&transaction, owner, purpose)? {
            return Ok(self.boxes.unwrap(&wrapped, owner, purpose)?);
        }
        let key = self.insert(&transaction, owner, purpose, now)?;
        transaction.commit()?;
        Ok(key)
    }

    /// Makes a key of that purpose for each owner who has none, all or none of them. What is no owner gets none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn make_all(&self, owners: &[String], purpose: Purpose, now: WallTime) -> Result<(), KeyError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for owner in owners.iter().filter(|owner| is_id(owner)) {
            if wrapped(&transaction, owner, purpose)?.is_none() {
                self.insert(&transaction, owner, purpose, now)?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn insert(
        &self,
        connection: &Connection,
        owner: &str,
        purpose: Purpose,
        now: WallTime,
    ) -> Result<DataKey, KeyError> {
        let key = DataKey::generate(owner, purpose)?;
        connection.execute(
            "insert into keys (owner, purpose, wrapped, made_at) values (?1, ?2, ?3, ?4)",
            params![owner, purpose.name(), self.boxes.wrap(&key)?.bytes(), now.0],
        )?;
        Ok(key)
    }

    /// The owner's key for that purpose; none if it was never made, or destroyed.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn get(&self, owner: &str, purpose: Purpose) -> Result<Option<DataKey>, KeyError> {
        let wrapped = wrapped(&self.lock(), owner, purpose)?;
        wrapped.map(|wrapped| Ok(self.boxes.unwrap(&wrapped, owner, purpose)?)).transpose()
    }

    /// Destroys the owner's keys for those purposes, so that no byte of them is left in the file, and says whether
    /// there was any. Needs no box key, and can be repeated.
    ///
    /// # Errors
    /// [`KeyError::RewriteOwed`] once the keys are gone; any other: they are still there.
    pub fn destroy(&self, owner: &str, purposes: &[Purpose]) -> Result<bool, KeyError> {
        let mut connection = self.lock();
        let was_any = forget(&mut connection, owner, purposes)?;
        rewrite(&connection).map_err(KeyError::RewriteOwed)?;
        Ok(was_any)
    }

    /// Destroys all keys of the owner.
    ///
    /// # Errors
    /// As [`KeyStore::destroy`].
    pub fn destroy_all(&self, owner: &str) -> Result<bool, KeyError> {
        self.destroy(owner, &Purpose::ALL)
    }

    /// Wraps anew, by the first box key, every key that an older one wraps, all or none; says how many. After it the
    /// older box keys are needed no more.
    ///
    /// # Errors
    /// [`KeyError::RewriteOwed`] once all are wrapped anew; any other: all are as they were.
    pub fn rewrap(&self) -> Result<usize, KeyError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut count = 0;
        for (owner, purpose, wrapped) in all(&transaction)? {
            if wrapped.box_key() != Some(self.boxes.first()) {
                let key = self.boxes.unwrap(&wrapped, &owner, purpose)?;
                transaction.execute(
                    "update keys set wrapped = ?3 where owner = ?1 and purpose = ?2",
                    params![owner, purpose.name(), self.boxes.wrap(&key)?.bytes()],
                )?;
                count += 1;
            }
        }
        commit_owing(transaction, count)?;
        rewrite(&connection).map_err(KeyError::RewriteOwed)?;
        Ok(count)
    }

    /// Whether bytes of destroyed keys may still be in the file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn is_rewrite_owed(&self) -> Result<bool, KeyError> {
        Ok(last_owed(&self.lock())?.is_some())
    }

    /// Who has a key for that purpose, by id.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn owners(&self, purpose: Purpose) -> Result<Vec<String>, KeyError> {
        let connection = self.lock();
        let mut statement = connection.prepare("select owner from keys where purpose = ?1 order by owner")?;
        let owners = statement.query_map([purpose.name()], |row| row.get(0))?;
        Ok(owners.collect::<Result<_, _>>()?)
    }

    /// What is kept, by owner and purpose: which box keys are still needed, and for whose keys.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn held(&self) -> Result<Vec<HeldKey>, KeyError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare("select owner, purpose, wrapped, made_at from keys order by owner, purpose")?;
        let mut rows = statement.query([])?;
        let mut held = Vec::new();
        while let Some(row) = rows.next()? {
            held.push(HeldKey {
                owner: row.get(0)?,
                purpose: purpose(&row.get::<_, String>(1)?)?,
                made_at: WallTime(row.get(3)?),
                box_key: WrappedKey::from_bytes(row.get(2)?).box_key(),
            });
        }
        Ok(held)
    }
}

/// What is authenticated with a key has its owner on a line of its own.
fn is_id(owner: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_OWNER_BYTES).contains(&owner.len()) && owner.bytes().all(is_allowed)
}

/// A store is put in its place whole, so that an empty file there is damage and not a beginning.
fn create(path: &Path) -> Result<(), KeyError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    whole_file::put(path, |beside| {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
        let mut connection = Connection::open(beside)?;
        // Nobody sees it before it is whole and synced; a journal would only be left over by a power cut.
        connection.pragma_update(None, "journal_mode", "memory")?;
        Ok::<_, KeyError>(migrate(&mut connection, MIGRATIONS)?)
    })?;
    Ok(())
}

fn configure(connection: &Connection) -> Result<(), KeyError> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "journal_mode", "delete")?;
    connection.pragma_update(None, "synchronous", "extra")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn check(connection: &Connection) -> Result<(), KeyError> {
    let found: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if found == "ok" && version(connection)? > 0 { Ok(()) } else { Err(KeyError::DamagedFile) }
}

fn purpose(name: &str) -> Result<Purpose, KeyError> {
    Purpose::from_name(name).ok_or(KeyError::DamagedKey(UnwrapError::Malformed))
}

fn wrapped(connection: &Connection, owner: &str, purpose: Purpose) -> Result<Option<WrappedKey>, KeyError> {
    let bytes = connection
        .query_row("select wrapped from keys where owner = ?1 and purpose = ?2", [owner, purpose.name()], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(bytes.map(WrappedKey::from_bytes))
}

fn all(connection: &Connection) -> Result<Vec<(String, Purpose, WrappedKey)>, KeyError> {
    let mut statement = connection.prepare("select owner, purpose, wrapped from keys")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push((row.get(0)?, purpose(&row.get::<_, String>(1)?)?, WrappedKey::from_bytes(row.get(2)?)));
    }
    Ok(all)
}

/// Deletes the rows and says whether there were any.
pub(super) fn forget(connection: &mut Connection, owner: &str, purposes: &[Purpose]) -> Result<bool, KeyError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut count = 0;
    for purpose in purposes {
        count += transaction.execute("delete from keys where owner = ?1 and purpose = ?2", [owner, purpose.name()])?;
    }
    commit_owing(transaction, count)?;
    Ok(count > 0)
}

/// Commits, with the debt of rewriting the file, if any wrapped keys were replaced or deleted.
fn commit_owing(transaction: Transaction<'_>, changes: usize) -> Result<(), KeyError> {
    if changes == 0 {
        return Ok(());
    }
    transaction.execute("insert into owed default values", [])?;
    Ok(transaction.commit()?)
}

/// Rewrites the file if that is owed. Only the debts that were there before are struck off: another process may have
/// destroyed a key meanwhile.
fn rewrite(connection: &Connection) -> rusqlite::Result<()> {
    if let Some(owed) = last_owed(connection)? {
        connection.execute_batch("vacuum")?;
        connection.execute("delete from owed where id <= ?1", [owed])?;
    }
    Ok(())
}

fn last_owed(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.query_row("select max(id) from owed", [], |row| row.get(0))
}
