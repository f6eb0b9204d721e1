//! Who may know and do what: people with a password, programs with a token, and what is written down of both.
//!
//! ```text
//! name and password ─▶ limits ─▶ Argon2id ─▶ a log-in: a cookie's token, of which the hash is kept
//! token ─▶ its hash ─▶ role ─▶ what may be read
//! ```

pub mod gate;
pub mod limits;
pub mod password;
pub mod token;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// What somebody may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads what was said, and sees how every room is.
    Clinician,
    /// Sees how every room is and operates it. Never reads what was said.
    Admin,
}

/// It is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is clinician or admin")]
pub struct NoRole;

impl Role {
    /// As it stands in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clinician => "clinician",
            Self::Admin => "admin",
        }
    }

    /// Whether what was said may be read.
    #[must_use]
    pub fn may_read(self) -> bool {
        match self {
            Self::Clinician => true,
            Self::Admin => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        [Self::Clinician, Self::Admin].into_iter().find(|role| role.name() == text).ok_or(NoRole)
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Of the account, or of the token.
    pub name: String,
    /// What they may.
    pub role: Role,
    /// Their log-in; none where a program came with a token.
    pub login: Option<Login>,
}

/// What a page needs of a log-in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Of the cookie's token.
    pub token_hash: [u8; 32],
    /// What each form must send back.
    pub form_token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// Longest name.
const NAME_CHARS: usize = 64;

/// Whether it can be the name of an account or token. What else somebody types there is never stored: it may be a password.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-._@".contains(&c);
    (1..=NAME_CHARS).contains(&text.len()) && text.bytes().all(fits)
}

/// What somebody did, or tried to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Logged in.
    LoggedIn,
    /// Was not let in.
    LoginRefused,
    /// Logged out.
    LoggedOut,
    /// Read what was said in a session.
    Read,
    /// Asked for what was said, and may not read it.
    ReadRefused,
    /// An account was made.
    UserAdded,
    /// An account was removed.
    UserRemoved,
    /// An account's password was changed.
    PasswordChanged,
    /// A token was made.
    TokenAdded,
    /// A token was removed.
    TokenRemoved,
}

impl Deed {
    /// As it stands in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LoggedIn => "logged_in",
            Self::LoginRefused => "login_refused",
            Self::LoggedOut => "logged_out",
            Self::Read => "read",
            Self::ReadRefused => "read_refused",
            Self::UserAdded => "user_added",
            Self::UserRemoved => "user_removed",
            Self::PasswordChanged => "password_changed",
            Self::TokenAdded => "token_added",
            Self::TokenRemoved => "token_removed",
        }
    }
}

/// A deed to be written down. Never what was said.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Of the account, the token, or who typed a command.
    pub who: &'a str,
    /// What.
    pub what: Deed,
    /// Of which session.
    pub session: Option<&'a str>,
    /// From where.
    pub address: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clinician_may_read_what_was_said() {
        assert!(Role::Clinician.may_read() && !Role::Admin.may_read());
        assert_eq!(
            ["clinician", "admin", "Admin", ""].map(|text| text.parse::<Role>().ok()),
            [Some(Role::Clinician), Some(Role::Admin), None, None]
        );
    }

    #[test]
    fn a_name_holds_nothing_that_means_something_elsewhere() {
        assert!(["a", "anna.b-2", "anna@north.example"].into_iter().all(is_name));
        for bad in ["", "Anna", "a b", "<b>", "a\n", "ä", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
