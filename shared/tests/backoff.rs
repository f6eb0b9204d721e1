//! No wait is ever outside its bounds, whatever the numbers.

use std::time::Duration;

use proptest::prelude::*;
use shared::chance::{Dice, SeededDice, jittered};
use shared::retry::Policy;

/// Ordinary waits, none, the smallest and the longest there is.
fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0u64..=600_000).prop_map(Duration::from_millis),
        1 => any::<(u64, u32)>().prop_map(|(s, ns)| Duration::new(s, ns % 1_000_000_000)),
        1 => prop_oneof![Just(Duration::ZERO), Just(Duration::from_nanos(1)), Just(Duration::MAX)],
    ]
}

fn counts() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..=40, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

fn policies() -> impl Strategy<Value = Policy> {
    (counts(), durations(), durations()).prop_map(|(attempts, initial_backoff, max_backoff)| Policy {
        attempts,
        initial_backoff,
        max_backoff,
    })
}

proptest! {
    #[test]
    fn every_wait_lies_between_the_first_and_the_longest_and_honours_what_was_asked_for_up_to_it(
        policy in policies(),
        attempt in counts(),
        asked_for in proptest::option::of(durations()),
    ) {
        if let Some(wait) = policy.wait_after(attempt, asked_for) {
            prop_assert!(wait <= policy.max_backoff);
            prop_assert!(wait >= policy.initial_backoff.min(policy.max_backoff));
            prop_assert!(wait >= asked_for.unwrap_or_default().min(policy.max_backoff));
        }
    }

    #[test]
    fn there_is_a_wait_after_every_attempt_but_the_last(
        policy in policies(),
        attempt in counts(),
        asked_for in proptest::option::of(durations()),
    ) {
        for attempt in [attempt, policy.attempts, policy.attempts.saturating_sub(1)] {
            prop_assert_eq!(policy.wait_after(attempt, asked_for).is_none(), attempt >= policy.attempts);
        }
    }

    #[test]
    fn no_wait_is_shorter_than_the_one_before_it(
        policy in policies(),
        attempt in counts(),
        asked_for in proptest::option::of(durations()),
    ) {
        let later = policy.wait_after(attempt.saturating_add(1), asked_for);
        if let (Some(earlier), Some(later)) = (policy.wait_after(attempt, asked_for), later) {
            prop_assert!(earlier <= later);
        }
    }

    /// Reckoned in whole nanoseconds instead.
    #[test]
    fn a_wait_that_nobody_asked_for_doubles_exactly_until_it_is_the_longest(
        policy in policies(),
        attempt in 1u32..=32,
    ) {
        if let Some(wait) = policy.wait_after(attempt, None) {
            let doubled = policy.initial_backoff.as_nanos().saturating_mul(1 << (attempt - 1));
            prop_assert_eq!(wait.as_nanos(), doubled.min(policy.max_backoff.as_nanos()));
        }
    }
}

/// Dice that always fall alike.
struct Loaded(f64);

impl Dice for Loaded {
    fn fraction(&mut self) -> f64 {
        self.0
    }
}

/// The greatest fraction below one.
const NEARLY_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

proptest! {
    /// Up to a day, the longest wait a setting may ask for; in an `f64` a nanosecond of it is still exact.
    #[test]
    fn a_jittered_delay_lies_between_half_of_it_and_all_of_it(
        delay in (0u64..=86_400 * 1_000_000_000).prop_map(Duration::from_nanos),
        fraction in prop_oneof![0.0..1.0, Just(0.0), Just(NEARLY_ONE)],
        seed in any::<u64>(),
    ) {
        for dice in [&mut Loaded(fraction) as &mut dyn Dice, &mut SeededDice::from_seed(seed)] {
            let wait = jittered(delay, dice);
            prop_assert!(wait >= delay / 2);
            prop_assert!(wait <= delay);
        }
    }
}

#[test]
fn the_dice_decide_where_between_half_and_all_a_delay_falls() {
    let minute = Duration::from_secs(60);
    assert_eq!(jittered(minute, &mut Loaded(0.0)), minute / 2);
    assert_eq!(jittered(minute, &mut Loaded(0.5)), minute * 3 / 4);
    assert_eq!(jittered(minute, &mut Loaded(NEARLY_ONE)), minute);
}
