//! How often a wrong password may be tried, by account and by address.
//!
//! A try counts before the password is looked at, and is given back if it was right: so many at once are no way around it.
//! A plain value: it reads no clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Tries are counted for so long.
pub const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Of one account, from wherever: a thousand guesses a day, and a person who mistypes is not shut out.
pub const PER_ACCOUNT: u32 = 10;
/// From one address, whatever the accounts: a clinic behind one address has several people.
pub const PER_ADDRESS: u32 = 30;
/// So many accounts and addresses are counted at once; with more, nobody is let in until a window ends: an attack from so many
/// places is none that counting stops.
const COUNTED: usize = 4096;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Account(String),
    Address(IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    began: Duration,
    count: u32,
}

/// Tries by account and address.
#[derive(Debug, Default)]
pub struct Limits {
    tries: HashMap<Whose, Tries>,
}

/// Who owns one IPv6 address owns its network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => (std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)).into(),
    }
}

fn keys(account: &str, address: IpAddr) -> [(Whose, u32); 2] {
    [(Whose::Account(account.to_owned()), PER_ACCOUNT), (Whose::Address(network(address)), PER_ADDRESS)]
}

impl Limits {
    /// Counts a try; or says how long to wait. `now` is uptime.
    ///
    /// # Errors
    /// The wait.
    pub fn admit(&mut self, account: &str, address: IpAddr, now: Duration) -> Result<(), Duration> {
        self.tries.retain(|_, tries| now.saturating_sub(tries.began) < WINDOW);
        let keys = keys(account, address);
        let left = |tries: &Tries| WINDOW.saturating_sub(now.saturating_sub(tries.began));
        let full = keys.iter().filter_map(|(whose, limit)| self.tries.get(whose).filter(|tries| tries.count >= *limit));
        if let Some(wait) = full.map(left).max() {
            return Err(wait);
        }
        if self.tries.len() + keys.len() > COUNTED {
            return Err(WINDOW);
        }
        for (whose, _) in keys {
            self.tries.entry(whose).or_insert(Tries { began: now, count: 0 }).count += 1;
        }
        Ok(())
    }

    /// The password was right: the account is counted anew, and the address gets its try back.
    pub fn forgive(&mut self, account: &str, address: IpAddr) {
        self.tries.remove(&Whose::Account(account.to_owned()));
        if let Some(tries) = self.tries.get_mut(&Whose::Address(network(address))) {
            tries.count = tries.count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_account_is_guessed_at_so_often_from_wherever_and_then_a_quarter_of_an_hour_not() {
        let mut limits = Limits::default();
        for n in 0..PER_ACCOUNT {
            assert_eq!(limits.admit("anna", address(n as u8), NOW), Ok(()));
        }
        let later = NOW + Duration::from_secs(60);
        assert_eq!(limits.admit("anna", address(99), later), Err(WINDOW - Duration::from_secs(60)));
        assert_eq!(limits.admit("bert", address(99), later), Ok(()));
        assert_eq!(limits.admit("anna", address(99), NOW + WINDOW), Ok(()));
    }

    #[test]
    fn an_address_guesses_so_often_whatever_the_account_and_a_network_of_64_bits_is_one() {
        let mut limits = Limits::default();
        for n in 0..PER_ADDRESS {
            let from = format!("2001:db8::{n:x}").parse().unwrap();
            assert_eq!(limits.admit(&format!("name-{n}"), from, NOW), Ok(()));
        }
        assert!(limits.admit("other", "2001:db8::ffff".parse().unwrap(), NOW).is_err());
        assert_eq!(limits.admit("other", "2001:db8:0:1::1".parse().unwrap(), NOW), Ok(()));
    }

    #[test]
    fn who_logs_in_is_not_counted() {
        let mut limits = Limits::default();
        for _ in 0..5 * PER_ADDRESS {
            assert_eq!(limits.admit("anna", address(1), NOW), Ok(()));
            limits.forgive("anna", address(1));
        }
    }

    #[test]
    fn what_is_counted_has_a_bound() {
        let mut limits = Limits::default();
        let admitted = (0..10_000).filter(|n| limits.admit(&format!("{n}"), address((n % 250) as u8), NOW).is_ok());
        assert!(admitted.count() < COUNTED && limits.tries.len() <= COUNTED);
        assert_eq!(limits.admit("anna", address(1), NOW + WINDOW), Ok(()));
    }
}
