//! Passwords: Argon2id with a salt of its own for each, as OWASP asks for at least.

use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::TryRngCore as _;

/// Fewest characters: what is guessed over the network is limited besides, what is stolen with the database is not.
pub const CHARS_AT_LEAST: usize = 12;
/// Most bytes: hashing more would be work for nothing.
pub const BYTES_AT_MOST: usize = 256;
/// Memory for one hash. A password that is tried costs the guesser as much.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A hash of no password that anybody has: what is checked where there is no such account takes as long.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cm9vbXNjcmliZS1kZWNveQ$1ZRjVqKQFPG81x7Dffbi/3F8c7JmhshVP26LFKV2ssM";

/// Why a password is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// It would be guessed.
    #[error("a password has at least {CHARS_AT_LEAST} characters")]
    Short,
    /// It is too long.
    #[error("a password has at most {BYTES_AT_MOST} bytes")]
    Long,
    /// It is the account's name.
    #[error("a password is not the name of its account")]
    Name,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers")]
    Chance(#[from] rand::rand_core::OsError),
    /// Argon2 refused.
    #[error("the password could not be hashed")]
    Hash(#[source] password_hash::Error),
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|why| PasswordError::Hash(password_hash::Error::from(why)))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// What is kept of a new password.
///
/// # Errors
/// [`PasswordError`].
pub fn hash(name: &str, password: &str) -> Result<String, PasswordError> {
    if password.chars().count() < CHARS_AT_LEAST {
        return Err(PasswordError::Short);
    }
    if password.len() > BYTES_AT_MOST {
        return Err(PasswordError::Long);
    }
    if password.eq_ignore_ascii_case(name) {
        return Err(PasswordError::Name);
    }
    let mut salt = [0; 16];
    rand::rngs::OsRng.try_fill_bytes(&mut salt)?;
    let hashed = argon2()?.hash_password_with_salt(password.as_bytes(), &salt).map_err(PasswordError::Hash)?;
    Ok(hashed.to_string())
}

/// Whether a password is the one that was hashed. It takes as long where there is no account.
#[must_use]
pub fn is_right(hashed: Option<&str>, password: &str) -> bool {
    // What is too long is not hashed, with an account or without.
    let fits = password.len() <= BYTES_AT_MOST;
    let known = hashed.unwrap_or(DECOY);
    let is_same = fits && Argon2::default().verify_password(password.as_bytes(), known).is_ok();
    is_same && hashed.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_two_hashes_are_alike() {
        let hashed = [(); 2].map(|()| hash("anna", "correct horse battery").unwrap());
        assert_ne!(hashed[0], hashed[1]);
        assert!(hashed[0].starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hashed[0]);
        assert!(is_right(Some(&hashed[0]), "correct horse battery"));
        assert!(!is_right(Some(&hashed[0]), "correct horse batter"));
        assert!(!is_right(Some("damaged"), "correct horse battery"));
    }

    #[test]
    fn who_has_no_account_is_refused_after_the_same_work() {
        let known = hash("anna", "correct horse battery").unwrap();
        let cost = |phc: &str| phc.rsplitn(3, '$').nth(2).unwrap().to_owned();
        assert_eq!(cost(DECOY), cost(&known), "the decoy costs what a hash does");
        assert!(!is_right(None, "correct horse battery"));
    }

    #[test]
    fn what_would_be_guessed_is_not_taken() {
        assert!(matches!(hash("anna", "elevenchars"), Err(PasswordError::Short)));
        assert!(matches!(hash("anna.bertolucci", "Anna.Bertolucci"), Err(PasswordError::Name)));
        assert!(matches!(hash("anna", &"a".repeat(257)), Err(PasswordError::Long)));
        assert!(!is_right(None, &"a".repeat(1 << 20)));
    }
}
