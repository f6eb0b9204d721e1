//! How long to wait before connecting again, and the loop that does.

use std::sync::Arc;
use std::time::Duration;

use shared::breaker::StateName;
use shared::chance::{Dice, jittered};
use shared::error::{CircuitBreakerOpenError, report};
use shared::guard::Outcome;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::gate::Gate;
use crate::heart::Heart;
use crate::stop::Stop;
use crate::uplink::{Broker, LinkError};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A line that lasted this long was a good one; a broker that hangs up sooner is not asked every second.
const GOOD: Duration = Duration::from_secs(10);
/// Signs of life while waiting.
const BEAT: Duration = Duration::from_secs(1);

/// 1 s, doubling to 60 s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after a line that lasted so long; `None` for one that never was.
    pub fn wait(&mut self, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|l| l >= GOOD) {
            self.failures = 0;
        }
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1).min(16);
        wait
    }
}

/// What a daemon needs to stay connected.
pub struct Keeper {
    /// For the jitter.
    pub dice: Box<dyn Dice>,
    /// When to stop.
    pub stop: Stop,
    /// Who watches us.
    pub heart: Heart,
    /// The breaker around connecting; a box has one, a clinic server none: it has nothing else to do.
    pub gate: Option<Arc<Gate>>,
}

/// Connects and serves, again and again, until told to stop.
pub async fn stay_connected<B: Broker>(
    mut broker: B,
    mut keeper: Keeper,
    mut serve: impl AsyncFnMut(B::Line, &mut Stop, &Heart) -> Result<(), LinkError>,
) {
    let mut backoff = Backoff::default();
    loop {
        keeper.heart.beat();
        let gate = keeper.gate.clone();
        let pass = match gate.as_ref().map(|gate| gate.admit()).transpose() {
            Ok(pass) => pass,
            Err(refusal) => {
                if wait_for_gate(&refusal, &mut keeper).await {
                    return;
                }
                continue;
            }
        };
        let begun = Instant::now();
        let line = tokio::select! {
            biased;
            () = keeper.stop.asked() => return,
            line = broker.connect() => line,
        };
        if let Some(pass) = pass {
            pass.settle(if line.is_ok() { Outcome::Succeeded } else { Outcome::Failed }, begun.elapsed());
        }
        let (lasted, why) = match line {
            Err(why) => (None, why),
            Ok(line) => {
                info!("Connected to the broker.");
                let since = Instant::now();
                match serve(line, &mut keeper.stop, &keeper.heart).await {
                    Ok(()) => return,
                    Err(why) => (Some(since.elapsed()), why),
                }
            }
        };
        if gate.as_ref().is_some_and(|gate| gate.holds()) {
            warn!(error = %report(&why), "Not connected to the broker, and its circuit breaker is open.");
            continue;
        }
        let wait = jittered(backoff.wait(lasted), keeper.dice.as_mut());
        warn!(error = %report(&why), wait_s = wait.as_secs_f64(), "Not connected to the broker; trying again.");
        if rest(wait, &mut keeper, || gate.as_ref().is_some_and(|gate| gate.holds())).await {
            return;
        }
    }
}

/// Waits until the breaker would let a try through, and up to half as long again: boxes that lost the same broker must
/// not come back together. Returns whether to stop.
async fn wait_for_gate(refusal: &CircuitBreakerOpenError, keeper: &mut Keeper) -> bool {
    let wait = refusal.retry_after.unwrap_or(LONGEST).clamp(BEAT, LONGEST);
    let wait = wait + jittered(wait, keeper.dice.as_mut()) - wait / 2;
    let gate = keeper.gate.clone();
    let is_let_through = || gate.as_ref().is_some_and(|g| matches!(g.state(), StateName::Closed | StateName::Disabled));
    rest(wait, keeper, is_let_through).await
}

/// Waits, showing life and heeding people, at most until `is_over`. Returns whether to stop.
async fn rest(wait: Duration, keeper: &mut Keeper, is_over: impl Fn() -> bool) -> bool {
    let until = Instant::now() + wait;
    while Instant::now() < until && !is_over() {
        keeper.heart.beat();
        tokio::select! {
            biased;
            () = keeper.stop.asked() => return true,
            () = tokio::time::sleep_until(until.min(Instant::now() + BEAT)) => {}
        }
        if let Some(gate) = &keeper.gate {
            gate.heed();
        }
    }
    false
}

#[cfg(test)]
mod tests;
