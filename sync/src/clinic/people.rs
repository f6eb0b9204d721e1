//! The commands about people and programs that may ask: `user`, `token`, `audit`.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _};

use clap::Subcommand;
use shared::clock::WallTime;
use zeroize::Zeroizing;

use super::access::password::{self, BYTES_AT_MOST};
use super::access::token::Token;
use super::access::{Deed, Entry, Role, is_name};
use super::store::{AccessRow, ClinicStore, ClinicStoreError};
use crate::exit::Failure;

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub enum UserAction {
    /// Make an account; the password is asked for, or read from standard input.
    #[command(after_help = "Example:\n  roomscribe-clinic user add anna --role clinician")]
    Add {
        /// Name to log in with: 1 to 64 of a-z, 0-9 and -._@
        name: String,
        /// clinician: reads what was said. admin: operates, and never reads it.
        #[arg(long)]
        role: Role,
    },
    /// List the accounts.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Change a password; whoever is logged in with the old one is so no more.
    Password {
        /// Whose.
        name: String,
    },
    /// Remove an account; whoever is logged in with it is so no more.
    Remove {
        /// Which.
        name: String,
    },
}

/// What can be done with tokens of programs.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make a token and print it, this once: `Authorization: Bearer TOKEN` reads /api/v1.
    #[command(after_help = "Example:\n  roomscribe-clinic token add reports --role admin")]
    Add {
        /// Name to list it by: 1 to 64 of a-z, 0-9 and -._@
        name: String,
        /// What it may.
        #[arg(long)]
        role: Role,
    },
    /// List the tokens by name.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a token: it counts no more.
    Remove {
        /// Which.
        name: String,
    },
}

fn failed(why: ClinicStoreError) -> Failure {
    Failure::other("not done", &why)
}

fn json(rows: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(rows).map(|text| text + "\n").map_err(|why| Failure::other("not printed", &why))
}

/// Who types a command, as it is written down.
#[must_use]
pub fn typist() -> String {
    format!("command line, user {}", rustix::process::getuid().as_raw())
}

fn write_down(store: &ClinicStore, what: Deed, about: &str, now: WallTime) -> Result<(), Failure> {
    let who = format!("{about} ({})", typist());
    store.write_down(&Entry { who: &who, what, session: None, address: None }, now).map_err(failed)
}

fn checked(name: &str) -> Result<&str, Failure> {
    let wrong = || Failure::Usage("a name has 1 to 64 of a-z, 0-9 and -._@".into());
    is_name(name).then_some(name).ok_or_else(wrong)
}

fn none_of(name: &str) -> Failure {
    Failure::Usage(format!("there is no {name:?}"))
}

fn taken(name: &str) -> Failure {
    Failure::Usage(format!("there is a {name:?} already"))
}

/// Asks twice on a terminal; elsewhere the first line of standard input is the password.
fn new_password() -> Result<Zeroizing<String>, Failure> {
    let unread = |why: std::io::Error| Failure::other("the password could not be read", &why);
    if std::io::stdin().is_terminal() {
        let ask = |text| rpassword::prompt_password(text).map(Zeroizing::new).map_err(unread);
        let (first, again) = (ask("Password: ")?, ask("Again: ")?);
        return if first == again { Ok(first) } else { Err(Failure::Usage("the two are not the same".into())) };
    }
    let mut text = Zeroizing::new(String::new());
    // One byte more than a password may have, and the end of its line, so that one that is too long is seen to be.
    std::io::stdin().take(BYTES_AT_MOST as u64 + 3).read_to_string(&mut text).map_err(unread)?;
    Ok(Zeroizing::new(text.split(['\n', '\r']).next().unwrap_or_default().to_owned()))
}

fn hashed(name: &str) -> Result<String, Failure> {
    password::hash(name, &new_password()?).map_err(|why| Failure::Usage(why.to_string()))
}

/// Does what was asked with accounts: what to print.
///
/// # Errors
/// [`Failure`].
pub fn user(store: &ClinicStore, action: &UserAction, now: WallTime) -> Result<String, Failure> {
    match action {
        UserAction::Add { name, role } => {
            let name = checked(name)?;
            if store.account(name).map_err(failed)?.is_some() {
                return Err(taken(name));
            }
            let hash = hashed(name)?;
            write_down(store, Deed::UserAdded, name, now)?;
            let is_new = store.add_account(name, *role, &hash, now).map_err(failed)?;
            if is_new { Ok(format!("{name} may log in, as {role}.\n")) } else { Err(taken(name)) }
        }
        UserAction::List { json: as_json } => {
            let rows = store.accounts().map_err(failed)?;
            if *as_json {
                return json(&rows);
            }
            let line = |row: &super::store::Account| format!("{:24}  {:9}  {}\n", row.name, row.role, row.created_at);
            Ok(format!("{:24}  {:9}  SINCE\n", "NAME", "ROLE") + &rows.iter().map(line).collect::<String>())
        }
        UserAction::Password { name } => {
            let name = checked(name)?;
            if store.account(name).map_err(failed)?.is_none() {
                return Err(none_of(name));
            }
            let hash = hashed(name)?;
            write_down(store, Deed::PasswordChanged, name, now)?;
            let is_there = store.change_password(name, &hash, now).map_err(failed)?;
            if is_there { Ok(format!("The password of {name} is changed.\n")) } else { Err(none_of(name)) }
        }
        UserAction::Remove { name } => {
            if !store.remove_account(checked(name)?).map_err(failed)? {
                return Err(none_of(name));
            }
            write_down(store, Deed::UserRemoved, name, now)?;
            Ok(format!("{name} may log in no more.\n"))
        }
    }
}

/// Does what was asked with tokens: what to print.
///
/// # Errors
/// [`Failure`].
pub fn token(store: &ClinicStore, action: &TokenAction, now: WallTime) -> Result<String, Failure> {
    match action {
        TokenAction::Add { name, role } => {
            let name = checked(name)?;
            let made = Token::generate().map_err(|why| Failure::other("no token was made", &why))?;
            if !store.add_token(name, *role, &made.hash(), now).map_err(failed)? {
                return Err(taken(name));
            }
            write_down(store, Deed::TokenAdded, name, now)?;
            Ok(format!("{}\n", made.text()))
        }
        TokenAction::List { json: as_json } => {
            let rows = store.tokens().map_err(failed)?;
            if *as_json {
                return json(&rows);
            }
            let line = |row: &super::store::ApiToken| format!("{:24}  {:9}  {}\n", row.name, row.role, row.created_at);
            Ok(format!("{:24}  {:9}  SINCE\n", "NAME", "ROLE") + &rows.iter().map(line).collect::<String>())
        }
        TokenAction::Remove { name } => {
            if !store.remove_token(checked(name)?).map_err(failed)? {
                return Err(none_of(name));
            }
            write_down(store, Deed::TokenRemoved, name, now)?;
            Ok(format!("The token {name} counts no more.\n"))
        }
    }
}

/// What was done, as a table.
#[must_use]
pub fn audit_table(rows: &[AccessRow]) -> String {
    let mut text = format!("{:24}  {:16}  {:36}  {:15}  WHO\n", "AT", "WHAT", "SESSION", "FROM");
    for row in rows {
        let (session, address) = (row.session_id.as_deref().unwrap_or("-"), row.address.as_deref().unwrap_or("-"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:24}  {:16}  {session:36}  {address:15}  {}", row.at, row.what, row.who);
    }
    text
}

/// What was done, the newest first: what to print.
///
/// # Errors
/// [`Failure`].
pub fn audit(store: &ClinicStore, as_json: bool, limit: u32) -> Result<String, Failure> {
    let rows = store.access_log(limit).map_err(failed)?;
    if as_json { json(&rows) } else { Ok(audit_table(&rows)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::fixture::World;
    use shared::clock::Clock as _;

    #[test]
    fn tokens_and_accounts_come_and_go_and_each_is_written_down() {
        let world = World::new();
        let (store, now) = (&world.clinic.store, world.clock.now().wall);
        let add = TokenAction::Add { name: "reports".into(), role: Role::Admin };
        let printed = token(store, &add, now).unwrap();
        let hash = Token::read(printed.trim()).unwrap().hash();
        assert_eq!(store.whose_token(&hash).unwrap().unwrap().name, "reports");
        assert!(matches!(token(store, &add, now), Err(Failure::Usage(_))));
        let listed = token(store, &TokenAction::List { json: false }, now).unwrap();
        assert!(listed.contains("reports") && !listed.contains(printed.trim()));
        token(store, &TokenAction::Remove { name: "reports".into() }, now).unwrap();
        store.add_account("anna", Role::Clinician, "$hash$", now).unwrap();
        assert!(!user(store, &UserAction::List { json: true }, now).unwrap().contains("$hash$"));
        user(store, &UserAction::Remove { name: "anna".into() }, now).unwrap();
        assert!(matches!(user(store, &UserAction::Remove { name: "anna".into() }, now), Err(Failure::Usage(_))));
        let rows = store.access_log(9).unwrap();
        let what: Vec<&str> = rows.iter().map(|row| row.what.as_str()).collect();
        assert_eq!(what, ["user_removed", "token_removed", "token_added"]);
        assert!(rows[0].who.starts_with("anna (command line, user "));
    }
}
