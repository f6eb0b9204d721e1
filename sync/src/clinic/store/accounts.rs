//! People and programs that may ask, their log-ins, and what was done: who, what and when, never what was said.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, TransactionBehavior, params};
use serde::Serialize;
use shared::clock::WallTime;

use super::{ClinicStore, ClinicStoreError};
use crate::clinic::access::gate::{IDLE, LIFETIME, holds};
use crate::clinic::access::{Deed, Entry, Login, Person, Role};

/// Log-ins of one account at once: a person has a few machines. The oldest goes.
const LOGINS: u32 = 10;
/// Refused log-ins that are kept: anybody can make them. What people who are known did is kept without end.
const REFUSED: u32 = 10_000;
/// How old a log-in's last sign of life may be before it is written anew: not with each page.
const SEEN_EVERY_MS: i64 = 60_000;

/// An account.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// What it may.
    pub role: Role,
    /// The hash of its password, in PHC's form.
    #[serde(skip)]
    pub password: String,
    /// RFC 3339 UTC.
    pub created_at: String,
    /// When its password was last changed, RFC 3339 UTC.
    pub changed_at: String,
}

/// A program's token, of which a hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiToken {
    /// Its name.
    pub name: String,
    /// What it may.
    pub role: Role,
    /// RFC 3339 UTC.
    pub created_at: String,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessRow {
    /// RFC 3339 UTC.
    pub at: String,
    /// Who.
    pub who: String,
    /// A [`Deed`].
    pub what: String,
    /// Of which session.
    pub session_id: Option<String>,
    /// From where.
    pub address: Option<String>,
}

fn role(row: &Row<'_>, at: usize) -> rusqlite::Result<Role> {
    let text: String = row.get(at)?;
    text.parse().map_err(|why| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(why)))
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        name: row.get(0)?,
        role: role(row, 1)?,
        password: row.get(2)?,
        created_at: row.get(3)?,
        changed_at: row.get(4)?,
    })
}

impl ClinicStore {
    /// Makes an account; false if there is one of that name.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn add_account(&self, name: &str, role: Role, hash: &str, now: WallTime) -> Result<bool, ClinicStoreError> {
        let sql = "insert into accounts (name, role, password, created_at, changed_at) values (?1, ?2, ?3, ?4, ?4)
                   on conflict (name) do nothing";
        Ok(self.lock().execute(sql, params![name, role.name(), hash, now.to_string()])? > 0)
    }

    /// Removes an account and ends its log-ins; false if there is none.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn remove_account(&self, name: &str) -> Result<bool, ClinicStoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("delete from logins where account = ?1", [name])?;
        let removed = transaction.execute("delete from accounts where name = ?1", [name])? > 0;
        transaction.commit()?;
        Ok(removed)
    }

    /// Changes a password and ends the account's log-ins; false if there is no such account.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn change_password(&self, name: &str, hash: &str, now: WallTime) -> Result<bool, ClinicStoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("delete from logins where account = ?1", [name])?;
        let sql = "update accounts set password = ?2, changed_at = ?3 where name = ?1";
        let changed = transaction.execute(sql, params![name, hash, now.to_string()])? > 0;
        transaction.commit()?;
        Ok(changed)
    }

    /// The account of a name.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn account(&self, name: &str) -> Result<Option<Account>, ClinicStoreError> {
        let sql = "select name, role, password, created_at, changed_at from accounts where name = ?1";
        Ok(self.lock().query_row(sql, [name], account).optional()?)
    }

    /// Every account.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn accounts(&self) -> Result<Vec<Account>, ClinicStoreError> {
        let connection = self.lock();
        let sql = "select name, role, password, created_at, changed_at from accounts order by name";
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_map([], account)?.collect::<Result<_, _>>()?)
    }

    /// Begins a log-in. Those that have ended go, and the oldest of an account that has too many.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn begin_login(
        &self,
        token_hash: &[u8; 32],
        account: &str,
        form_token: &str,
        now: WallTime,
    ) -> Result<(), ClinicStoreError> {
        let millis = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ended = "delete from logins where began_at <= ?1 or seen_at <= ?2 or seen_at > ?3";
        let (idle, lifetime) = (millis(IDLE), millis(LIFETIME));
        transaction.execute(ended, [now.0 - lifetime, now.0 - idle, now.0 + idle])?;
        transaction.execute(
            "delete from logins where account = ?1 and token_hash not in
               (select token_hash from logins where account = ?1 order by began_at desc limit ?2)",
            params![account, LOGINS - 1],
        )?;
        transaction.execute(
            "insert into logins (token_hash, account, form_token, began_at, seen_at) values (?1, ?2, ?3, ?4, ?4)",
            params![token_hash, account, form_token, now.0],
        )?;
        Ok(transaction.commit()?)
    }

    /// Whose log-in it is, if it still holds. `uses` is whether somebody asks for something, not only looks on.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn who(&self, token_hash: &[u8; 32], uses: bool, now: WallTime) -> Result<Option<Person>, ClinicStoreError> {
        let connection = self.lock();
        let sql = "select name, role, form_token, began_at, seen_at from logins join accounts on name = account
                   where token_hash = ?1";
        let read = |row: &Row<'_>| {
            let login = Some(Login { token_hash: *token_hash, form_token: row.get(2)? });
            let person = Person { name: row.get(0)?, role: role(row, 1)?, login };
            Ok((person, WallTime(row.get(3)?), WallTime(row.get(4)?)))
        };
        let found = connection.query_row(sql, [token_hash], read).optional()?;
        let Some((person, _, seen)) = found.filter(|(_, began, seen)| holds(*began, *seen, now)) else {
            return Ok(None);
        };
        if uses && now.0.saturating_sub(seen.0).saturating_abs() >= SEEN_EVERY_MS {
            connection.execute("update logins set seen_at = ?2 where token_hash = ?1", params![token_hash, now.0])?;
        }
        Ok(Some(person))
    }

    /// Ends a log-in.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn end_login(&self, token_hash: &[u8; 32]) -> Result<(), ClinicStoreError> {
        self.lock().execute("delete from logins where token_hash = ?1", [token_hash])?;
        Ok(())
    }

    /// Keeps a program's token; false if there is one of that name.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn add_token(
        &self,
        name: &str,
        role: Role,
        token_hash: &[u8; 32],
        now: WallTime,
    ) -> Result<bool, ClinicStoreError> {
        let sql = "insert into api_tokens (name, role, token_hash, created_at) values (?1, ?2, ?3, ?4)
                   on conflict (name) do nothing";
        Ok(self.lock().execute(sql, params![name, role.name(), token_hash, now.to_string()])? > 0)
    }

    /// Removes a program's token; false if there is none.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn remove_token(&self, name: &str) -> Result<bool, ClinicStoreError> {
        Ok(self.lock().execute("delete from api_tokens where name = ?1", [name])? > 0)
    }

    /// Every program's token.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn tokens(&self) -> Result<Vec<ApiToken>, ClinicStoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("select name, role, created_at from api_tokens order by name")?;
        let read = |row: &Row<'_>| Ok(ApiToken { name: row.get(0)?, role: role(row, 1)?, created_at: row.get(2)? });
        Ok(statement.query_map([], read)?.collect::<Result<_, _>>()?)
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn whose_token(&self, token_hash: &[u8; 32]) -> Result<Option<Person>, ClinicStoreError> {
        let sql = "select name, role from api_tokens where token_hash = ?1";
        let read = |row: &Row<'_>| Ok(Person { name: row.get(0)?, role: role(row, 1)?, login: None });
        Ok(self.lock().query_row(sql, [token_hash], read).optional()?)
    }

    /// Writes down what was done.
    ///
    /// # Errors
    /// [`ClinicStoreError`]: then it must not be done.
    pub fn write_down(&self, entry: &Entry<'_>, now: WallTime) -> Result<(), ClinicStoreError> {
        let Entry { who, what, session, address } = entry;
        let connection = self.lock();
        connection.execute(
            "insert into access_log (at, who, what, session_id, address) values (?1, ?2, ?3, ?4, ?5)",
            params![now.to_string(), who, what.name(), session, address],
        )?;
        if *what == Deed::LoginRefused {
            connection.execute(
                "delete from access_log where what = ?1 and id <=
                   (select id from access_log where what = ?1 order by id desc limit 1 offset ?2)",
                params![what.name(), REFUSED],
            )?;
        }
        Ok(())
    }

    /// What was done, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`ClinicStoreError`].
    pub fn access_log(&self, limit: u32) -> Result<Vec<AccessRow>, ClinicStoreError> {
        let connection = self.lock();
        let sql = "select at, who, what, session_id, address from access_log order by id desc limit ?1";
        let mut statement = connection.prepare_cached(sql)?;
        let read = |row: &Row<'_>| {
            Ok(AccessRow {
                at: row.get(0)?,
                who: row.get(1)?,
                what: row.get(2)?,
                session_id: row.get(3)?,
                address: row.get(4)?,
            })
        };
        Ok(statement.query_map([limit], read)?.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::access::token::Token;
    use crate::clinic::fixture::World;
    use shared::clock::Clock as _;

    #[test]
    fn an_account_has_ten_log_ins_and_the_oldest_goes() {
        let world = World::new();
        let store = &world.clinic.store;
        store.add_account("anna", Role::Admin, "h", world.clock.now().wall).unwrap();
        let hashes: Vec<[u8; 32]> = (0..LOGINS as u8 + 1).map(|n| [n; 32]).collect();
        for hash in &hashes {
            world.clock.pass(std::time::Duration::from_secs(1));
            store.begin_login(hash, "anna", "f", world.clock.now().wall).unwrap();
        }
        let now = world.clock.now().wall;
        let held = hashes.iter().filter(|hash| store.who(hash, false, now).unwrap().is_some());
        assert_eq!(held.count(), LOGINS as usize);
        assert_eq!(store.who(&hashes[0], false, now).unwrap(), None);
    }

    #[test]
    fn a_token_is_known_until_it_is_removed_and_a_name_is_given_once() {
        let world = World::new();
        let (store, now, token) = (&world.clinic.store, world.clock.now().wall, Token::generate().unwrap());
        assert!(store.add_token("grafana", Role::Admin, &token.hash(), now).unwrap());
        assert!(!store.add_token("grafana", Role::Clinician, &[1; 32], now).unwrap());
        let person = store.whose_token(&token.hash()).unwrap().unwrap();
        assert_eq!((person.name.as_str(), person.role, person.login), ("grafana", Role::Admin, None));
        assert!(store.remove_token("grafana").unwrap() && !store.remove_token("grafana").unwrap());
        assert_eq!(store.whose_token(&token.hash()).unwrap(), None);
    }

    #[test]
    fn refused_log_ins_have_a_bound_and_readings_have_none() {
        let world = World::new();
        let (store, now) = (&world.clinic.store, world.clock.now().wall);
        let entry = |what| Entry { who: "anna", what, session: Some("s"), address: Some("192.0.2.1") };
        store.write_down(&entry(Deed::Read), now).unwrap();
        let many = format!(
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into access_log
             (at, who, what) select 'x', '-', 'login_refused' from n",
            REFUSED + 5
        );
        store.lock().execute(&many, []).unwrap();
        store.write_down(&entry(Deed::LoginRefused), now).unwrap();
        let rows = store.access_log(2 * REFUSED).unwrap();
        assert_eq!(rows.len(), REFUSED as usize + 1);
        let last = rows.last().unwrap();
        assert_eq!((last.what.as_str(), last.session_id.as_deref()), ("read", Some("s")));
    }
}
