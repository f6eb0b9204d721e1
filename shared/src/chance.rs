//! Chance as an argument, so that a test brings its own.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};

/// Gives fractions in `[0, 1)`.
pub trait Dice: Send {
    /// The next fraction.
    fn fraction(&mut self) -> f64;
}

/// Dice seeded by the system, or by a test.
#[derive(Debug)]
pub struct SeededDice(rand::rngs::StdRng);

impl SeededDice {
    /// Dice that nobody can foresee.
    #[must_use]
    pub fn from_system() -> Self {
        Self(rand::rngs::StdRng::from_os_rng())
    }

    /// The same throws for the same seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(rand::rngs::StdRng::seed_from_u64(seed))
    }
}

impl Dice for SeededDice {
    fn fraction(&mut self) -> f64 {
        self.0.random::<f64>()
    }
}

/// Between half of `delay` and all of it: keeps many boxes from moving together after an outage.
pub fn jittered(delay: Duration, dice: &mut dyn Dice) -> Duration {
    let half = delay / 2;
    (half + half.mul_f64(dice.fraction())).min(delay)
}
