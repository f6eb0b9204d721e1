//! The way in: a name and a password become a log-in.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::clock::{Now, WallTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::Limits;
use super::token::Token;
use super::{Deed, Entry, is_name, password};
use crate::clinic::store::{ClinicStore, ClinicStoreError};

/// A log-in that nobody uses ends.
pub const IDLE: Duration = Duration::from_secs(30 * 60);
/// A log-in ends, used or not: a working day.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Passwords that are looked at at once: each takes 19 MiB and a core, and the server has other work.
const AT_ONCE: usize = 2;
/// Others wait for a place so long: some dozens of people in a row.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who is told when there is no name of theirs to write down.
const NOBODY: &str = "-";

/// Why somebody is not let in. Whether there is such an account is not told.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// No such account, or not its password.
    #[error("Name or password is wrong")]
    Wrong,
    /// Too many wrong passwords.
    #[error("Too many wrong passwords")]
    TooMany {
        /// How long to wait.
        wait: Duration,
    },
    /// Others are being let in.
    #[error("Too many people log in at once")]
    Busy,
    /// The system gave no random numbers.
    #[error("The system gave no random numbers")]
    Chance(#[from] rand::rand_core::OsError),
    /// See [`ClinicStoreError`].
    #[error(transparent)]
    Store(#[from] ClinicStoreError),
}

/// Whether a log-in still holds. A clock that was set back by more than a log-in may idle ends it, too.
#[must_use]
pub fn holds(began: WallTime, seen: WallTime, now: WallTime) -> bool {
    now.since(began) < LIFETIME && now.since(seen) < IDLE && seen.since(now) < IDLE
}

/// What is counted while the server runs.
#[derive(Debug)]
pub struct Gate {
    limits: Mutex<Limits>,
    hashing: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { limits: Mutex::default(), hashing: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Gate {
    /// A place to hash a password in, for as long as it is held.
    ///
    /// # Errors
    /// [`GateError::Busy`].
    pub async fn place(&self) -> Result<OwnedSemaphorePermit, GateError> {
        let waited = tokio::time::timeout(PATIENCE, Arc::clone(&self.hashing).acquire_owned()).await;
        waited.ok().and_then(Result::ok).ok_or(GateError::Busy)
    }

    /// Lets somebody in who knows the password: the cookie's token. Blocks while it hashes, in a [`Gate::place`].
    ///
    /// # Errors
    /// [`GateError`].
    pub fn enter(
        &self,
        store: &ClinicStore,
        name: &str,
        password: &str,
        from: IpAddr,
        now: &Now,
    ) -> Result<Token, GateError> {
        // What cannot be a name is counted as one, so that it is answered as any other.
        let counted = if is_name(name) { name } else { NOBODY };
        let address = from.to_canonical().to_string();
        let refused = |who| Entry { who, what: Deed::LoginRefused, session: None, address: Some(&address) };
        self.lock().admit(counted, from, now.uptime).map_err(|wait| GateError::TooMany { wait })?;
        let account = if is_name(name) { store.account(name)? } else { None };
        let hashed = account.as_ref().map(|account| account.password.as_str());
        if !password::is_right(hashed, password) {
            store.write_down(&refused(account.map_or(NOBODY, |_| name)), now.wall)?;
            return Err(GateError::Wrong);
        }
        let (token, form_token) = (Token::generate()?, Token::generate()?);
        store.begin_login(&token.hash(), name, &form_token.text(), now.wall)?;
        let entry = Entry { what: Deed::LoggedIn, ..refused(name) };
        store.write_down(&entry, now.wall)?;
        self.lock().forgive(counted, from);
        Ok(token)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Role, limits};
    use super::*;
    use crate::clinic::fixture::World;
    use shared::clock::Clock as _;

    const PASSWORD: &str = "correct horse battery";

    fn world() -> World {
        let world = World::new();
        let hashed = password::hash("anna", PASSWORD).unwrap();
        assert!(world.clinic.store.add_account("anna", Role::Clinician, &hashed, world.clock.now().wall).unwrap());
        world
    }

    fn enter(world: &World, name: &str, password: &str) -> Result<Token, GateError> {
        let from = IpAddr::from([192, 0, 2, 1]);
        world.clinic.gate.enter(&world.clinic.store, name, password, from, &world.clock.now())
    }

    #[test]
    fn who_is_unknown_and_who_mistypes_are_answered_alike_and_no_unknown_name_is_written_down() {
        let world = world();
        for (name, password) in [("anna", "wrong"), ("bert", PASSWORD), ("my password", PASSWORD)] {
            assert!(matches!(enter(&world, name, password), Err(GateError::Wrong)), "{name}");
        }
        let who: Vec<String> = world.clinic.store.access_log(9).unwrap().into_iter().map(|row| row.who).collect();
        assert_eq!(who, ["-", "-", "anna"]);
    }

    #[test]
    fn a_log_in_ends_when_it_is_not_used_and_in_any_case() {
        let world = world();
        let (store, hash) = (&world.clinic.store, enter(&world, "anna", PASSWORD).unwrap().hash());
        let minutes = |n: u64| Duration::from_secs(60 * n);
        for _ in 0..24 {
            world.clock.pass(minutes(29));
            let person = store.who(&hash, true, world.clock.now().wall).unwrap().unwrap();
            assert_eq!((person.name.as_str(), person.role), ("anna", Role::Clinician));
        }
        world.clock.pass(minutes(25));
        assert_eq!(store.who(&hash, true, world.clock.now().wall).unwrap(), None, "twelve hours");
        let hash = enter(&world, "anna", PASSWORD).unwrap().hash();
        world.clock.pass(minutes(29));
        assert!(store.who(&hash, false, world.clock.now().wall).unwrap().is_some());
        world.clock.pass(minutes(1));
        assert_eq!(store.who(&hash, true, world.clock.now().wall).unwrap(), None, "who only looks on does not use it");
    }

    #[test]
    fn a_changed_password_and_a_removed_account_end_its_log_ins() {
        let world = world();
        let (store, now) = (&world.clinic.store, world.clock.now().wall);
        let hash = enter(&world, "anna", PASSWORD).unwrap().hash();
        let other = password::hash("anna", "another horse battery").unwrap();
        assert!(store.change_password("anna", &other, now).unwrap());
        assert_eq!(store.who(&hash, true, now).unwrap(), None);
        let hash = enter(&world, "anna", "another horse battery").unwrap().hash();
        assert!(store.remove_account("anna").unwrap());
        assert_eq!(store.who(&hash, true, now).unwrap(), None);
    }

    #[test]
    fn after_too_many_wrong_passwords_the_right_one_has_to_wait() {
        let world = world();
        for _ in 0..limits::PER_ACCOUNT {
            assert!(matches!(enter(&world, "anna", "wrong"), Err(GateError::Wrong)));
        }
        assert!(matches!(enter(&world, "anna", PASSWORD), Err(GateError::TooMany { .. })));
        world.clock.pass(limits::WINDOW);
        assert!(enter(&world, "anna", PASSWORD).is_ok());
    }
}
