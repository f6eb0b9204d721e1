//! The breaker around connecting to the broker. The sync daemon owns it; the recorder shows it, and a person's wish
//! comes through the store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::breaker::{Policy, Service, StateName};
use shared::clock::Clock;
use shared::error::{CircuitBreakerOpenError, report};
use shared::guard::{Breakers, Pass};
use shared::store::{BreakerCommand, Store};
use tracing::{error, info};

/// How often what is left of a wait is stored, so that a power cut repeats at most this: a card wears.
const CHECKPOINT: Duration = Duration::from_secs(10);

/// See the top of the file.
pub struct Gate {
    breakers: Breakers,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    kept_at: Mutex<Duration>,
}

impl Gate {
    /// Restores the breaker from the store.
    #[must_use]
    pub fn open(store: Arc<Store>, clock: Arc<dyn Clock>, policy: impl Fn(Service) -> Policy) -> Self {
        let breakers = Breakers::open(store.clone(), clock.clone(), &[Service::Sync], policy);
        Self { breakers, store, clock, kept_at: Mutex::default() }
    }

    /// Asks to connect.
    ///
    /// # Errors
    /// [`CircuitBreakerOpenError`] while the breaker lets nothing through.
    pub fn admit(&self) -> Result<Pass<'_>, CircuitBreakerOpenError> {
        self.breakers.admit(Service::Sync)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> StateName {
        self.breakers.view(Service::Sync).state
    }

    /// Whether it lets nothing through until its wait is over or a person says so.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.state() {
            StateName::Open | StateName::ForcedOpen => true,
            StateName::Closed | StateName::HalfOpen | StateName::Disabled => false,
        }
    }

    /// Does what people have asked since, and lets a wait end.
    pub fn heed(&self) {
        match self.store.take_breaker_commands(Service::Sync) {
            Ok(commands) => commands.into_iter().for_each(|command| self.obey(command)),
            Err(why) => error!(error = %report(&why), "What was asked of the circuit breaker cannot be read."),
        }
        self.breakers.tick();
        let now = self.clock.now().uptime;
        let mut kept_at = self.kept_at.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*kept_at) >= CHECKPOINT {
            *kept_at = now;
            self.breakers.checkpoint();
        }
    }

    fn obey(&self, command: BreakerCommand) {
        info!(service_name = %Service::Sync, command = command.name(), "A person moves the circuit breaker.");
        match command {
            BreakerCommand::Reset => self.breakers.reset(Service::Sync),
            BreakerCommand::ForceOpen => self.breakers.force_open(Service::Sync),
            BreakerCommand::Disable => self.breakers.disable(Service::Sync),
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
