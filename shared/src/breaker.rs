//! A circuit breaker: after repeated failures, stop asking for a while.
//!
//!   Closed ── failure_threshold in a row ──▶ Open ── timeout passes ──▶ HalfOpen (one call at a time)
//!   HalfOpen ── success_threshold ──▶ Closed        HalfOpen ── any failure ──▶ Open
//!
//! A plain value that can be stored: it never sleeps, locks, logs or reads a clock. What is left of a wait is
//! counted in uptime and stored as "remaining since", so neither a set clock nor a reboot shortens or
//! lengthens it by more than the time the board was off.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{BootId, Now, WallTime};
use crate::error::CircuitBreakerOpenError;

/// What a breaker guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The speech-to-text engine.
    Transcription,
    /// The voice engine.
    Diarization,
}

impl Service {
    /// Every guarded service, in the order people list them.
    pub const ALL: [Self; 2] = [Self::Transcription, Self::Diarization];

    /// The guide's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transcription => "transcription",
            Self::Diarization => "diarization",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Service {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|service| service.name() == s)
            .ok_or_else(|| format!("no service is called {s:?}: use transcription or diarization"))
    }
}

/// When to open, how long, and when to trust again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Consecutive failed calls that open it.
    pub failure_threshold: u32,
    /// How long it stays open before one call may try.
    pub timeout: Duration,
    /// Successful probes that close it.
    pub success_threshold: u32,
}

/// The state, with the data only that state has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "state")]
pub enum State {
    /// Calls pass; failures in a row are counted.
    Closed,
    /// Calls are refused until `remaining` has passed since `counted_from`.
    Open {
        /// For people.
        opened_at: WallTime,
        /// What was left at `counted_from`.
        remaining: Duration,
        /// Uptime from which `remaining` counts.
        counted_from: Duration,
        /// The boot `counted_from` belongs to.
        boot: BootId,
    },
    /// One call at a time tries.
    HalfOpen {
        /// Probes that succeeded so far.
        successes: u32,
        /// Whether a probe is under way.
        probing: bool,
    },
    /// A person holds it open.
    ForcedOpen,
    /// A person has switched it off: everything passes, nothing is counted.
    Disabled,
}

impl State {
    /// The name that health and metrics use.
    #[must_use]
    pub fn name(&self) -> StateName {
        match self {
            Self::Closed => StateName::Closed,
            Self::Open { .. } => StateName::Open,
            Self::HalfOpen { .. } => StateName::HalfOpen,
            Self::ForcedOpen => StateName::ForcedOpen,
            Self::Disabled => StateName::Disabled,
        }
    }
}

/// A state without its data. The order is severity, for the clinic's roll-up: the worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StateName {
    /// Switched off by a person.
    Disabled,
    /// Normal operation.
    Closed,
    /// Testing recovery.
    HalfOpen,
    /// Degraded.
    Open,
    /// Held open by a person.
    ForcedOpen,
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "DISABLED",
            Self::Closed => "CLOSED",
            Self::HalfOpen => "HALF_OPEN",
            Self::Open => "OPEN",
            Self::ForcedOpen => "FORCED_OPEN",
        })
    }
}

/// One change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: StateName,
    /// After.
    pub to: StateName,
}

/// A call that was let in; it must be settled by `succeed`, `fail` or `release`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Permit {
    /// Calls are free to pass.
    Free,
    /// The one call that tries in half-open.
    Probe,
}

/// See the top of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    service: Service,
    policy: Policy,
    state: State,
    failure_count: u32,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    #[must_use]
    pub fn new(service: Service, policy: Policy) -> Self {
        Self { service, policy, state: State::Closed, failure_count: 0 }
    }

    /// A breaker as it was stored. A probe that was under way is gone with its process, so its place is free;
    /// a wait begun under another boot goes on from what was left of it.
    #[must_use]
    pub fn restored(service: Service, policy: Policy, stored: Stored, now: &Now) -> Self {
        let state = match stored.state {
            State::HalfOpen { successes, .. } => State::HalfOpen { successes, probing: false },
            State::Open { opened_at, remaining, boot, .. } if boot != now.boot => {
                State::Open { opened_at, remaining, counted_from: now.uptime, boot: now.boot.clone() }
            }
            other => other,
        };
        Self { service, policy, state, failure_count: stored.failure_count }
    }

    /// What to store so that [`Breaker::restored`] can go on. An open breaker is stored with what is left now.
    #[must_use]
    pub fn stored(&self, now: &Now) -> Stored {
        let state = match &self.state {
            State::Open { opened_at, .. } => State::Open {
                opened_at: *opened_at,
                remaining: self.remaining(now),
                counted_from: now.uptime,
                boot: now.boot.clone(),
            },
            other => other.clone(),
        };
        Stored { state, failure_count: self.failure_count }
    }

    /// What it guards.
    #[must_use]
    pub fn service(&self) -> Service {
        self.service
    }

    /// The state now, without asking anything of it.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Failed calls in a row.
    #[must_use]
    pub fn failure_count(&self) -> u32 {
        self.failure_count
    }

    /// How long until a call may try: zero if one may now, `None` if only a person can change that.
    #[must_use]
    pub fn retry_after(&self, now: &Now) -> Option<Duration> {
        match &self.state {
            State::Closed | State::Disabled | State::HalfOpen { probing: false, .. } => Some(Duration::ZERO),
            State::HalfOpen { probing: true, .. } => Some(Duration::from_secs(1)),
            State::Open { .. } => Some(self.remaining(now)),
            State::ForcedOpen => None,
        }
    }

    fn remaining(&self, now: &Now) -> Duration {
        match &self.state {
            State::Open { remaining, counted_from, boot, .. } if *boot == now.boot => {
                remaining.saturating_sub(now.uptime.saturating_sub(*counted_from))
            }
            State::Open { remaining, .. } => *remaining,
            State::Closed | State::HalfOpen { .. } | State::ForcedOpen | State::Disabled => Duration::ZERO,
        }
    }

    /// Admits a call, or says why not. A probe that is never settled must be given back with `release`.
    ///
    /// # Errors
    /// [`CircuitBreakerOpenError`] while open, forced open, or while another probe is under way.
    pub fn admit(&mut self, now: &Now) -> Result<(Permit, Option<Transition>), CircuitBreakerOpenError> {
        match self.state {
            State::Closed | State::Disabled => Ok((Permit::Free, None)),
            State::HalfOpen { probing: false, successes } => {
                self.state = State::HalfOpen { successes, probing: true };
                Ok((Permit::Probe, None))
            }
            State::Open { .. } if self.remaining(now).is_zero() => {
                let moved = self.enter(State::HalfOpen { successes: 0, probing: true });
                Ok((Permit::Probe, moved))
            }
            State::Open { .. } | State::HalfOpen { probing: true, .. } | State::ForcedOpen => Err(self.refusal(now)),
        }
    }

    fn refusal(&self, now: &Now) -> CircuitBreakerOpenError {
        CircuitBreakerOpenError {
            service_name: self.service,
            failure_count: self.failure_count,
            retry_after: self.retry_after(now),
        }
    }

    /// A call went well. A free call admitted before the breaker opened proves nothing about it now.
    pub fn succeed(&mut self, permit: Permit) -> Option<Transition> {
        match (&self.state, permit) {
            (State::Closed, _) => {
                self.failure_count = 0;
                None
            }
            (State::HalfOpen { successes, .. }, Permit::Probe) => {
                let successes = successes + 1;
                if successes < self.policy.success_threshold {
                    self.state = State::HalfOpen { successes, probing: false };
                    None
                } else {
                    self.failure_count = 0;
                    self.enter(State::Closed)
                }
            }
            (State::HalfOpen { .. }, Permit::Free) | (State::Open { .. } | State::ForcedOpen | State::Disabled, _) => {
                None
            }
        }
    }

    /// A call failed, and its failure blames the engine.
    pub fn fail(&mut self, permit: Permit, now: &Now) -> Option<Transition> {
        match (&self.state, permit) {
            (State::Closed, _) => {
                self.failure_count = self.failure_count.saturating_add(1);
                (self.failure_count >= self.policy.failure_threshold).then(|| self.open(now)).flatten()
            }
            (State::HalfOpen { .. }, Permit::Probe) => {
                self.failure_count = self.failure_count.saturating_add(1);
                self.open(now)
            }
            (State::HalfOpen { .. }, Permit::Free) | (State::Open { .. } | State::ForcedOpen | State::Disabled, _) => {
                None
            }
        }
    }

    /// A call ended without saying anything about the engine (dropped, cancelled, bad audio): its place is free again.
    pub fn release(&mut self, permit: Permit) {
        if let (State::HalfOpen { successes, probing: true }, Permit::Probe) = (&self.state, permit) {
            self.state = State::HalfOpen { successes: *successes, probing: false };
        }
    }

    /// A person declares it healthy.
    pub fn reset(&mut self) -> Option<Transition> {
        self.failure_count = 0;
        self.enter(State::Closed)
    }

    /// A person holds it open until `reset`.
    pub fn force_open(&mut self) -> Option<Transition> {
        self.enter(State::ForcedOpen)
    }

    /// A person switches it off until `reset`.
    pub fn disable(&mut self) -> Option<Transition> {
        self.failure_count = 0;
        self.enter(State::Disabled)
    }

    fn open(&mut self, now: &Now) -> Option<Transition> {
        self.enter(State::Open {
            opened_at: now.wall,
            remaining: self.policy.timeout,
            counted_from: now.uptime,
            boot: now.boot.clone(),
        })
    }

    fn enter(&mut self, state: State) -> Option<Transition> {
        let from = self.state.name();
        self.state = state;
        let to = self.state.name();
        (from != to).then_some(Transition { from, to })
    }
}

/// A breaker as it lies in the store; the policy is a setting and is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The state, with what was left of its wait when it was stored.
    #[serde(flatten)]
    pub state: State,
    /// Failed calls in a row.
    pub failure_count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ScriptedClock};
    use proptest::prelude::*;

    const POLICY: Policy = Policy { failure_threshold: 3, timeout: Duration::from_secs(60), success_threshold: 2 };

    fn opened(clock: &ScriptedClock) -> Breaker {
        let mut breaker = Breaker::new(Service::Transcription, POLICY);
        for _ in 0..3 {
            let (permit, _) = breaker.admit(&clock.now()).unwrap();
            breaker.fail(permit, &clock.now());
        }
        assert_eq!(breaker.state().name(), StateName::Open);
        breaker
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let clock = ScriptedClock::new();
        let mut breaker = Breaker::new(Service::Diarization, POLICY);
        for _ in 0..10 {
            breaker.fail(Permit::Free, &clock.now());
            breaker.fail(Permit::Free, &clock.now());
            breaker.succeed(Permit::Free);
        }
        assert_eq!((breaker.state().name(), breaker.failure_count()), (StateName::Closed, 0));
    }

    #[test]
    fn it_opens_refuses_probes_one_at_a_time_and_closes() {
        let clock = ScriptedClock::new();
        let mut breaker = opened(&clock);
        let refusal = breaker.admit(&clock.now()).unwrap_err();
        assert_eq!((refusal.failure_count, refusal.retry_after), (3, Some(POLICY.timeout)));
        clock.pass(Duration::from_secs(60));
        let (first, moved) = breaker.admit(&clock.now()).unwrap();
        assert_eq!(moved, Some(Transition { from: StateName::Open, to: StateName::HalfOpen }));
        assert!(breaker.admit(&clock.now()).is_err(), "one probe at a time");
        assert_eq!(breaker.succeed(first), None);
        let (second, _) = breaker.admit(&clock.now()).unwrap();
        assert_eq!(breaker.succeed(second), Some(Transition { from: StateName::HalfOpen, to: StateName::Closed }));
    }

    #[test]
    fn a_dropped_probe_gives_its_place_back() {
        let clock = ScriptedClock::new();
        let mut breaker = opened(&clock);
        clock.pass(Duration::from_secs(61));
        let (probe, _) = breaker.admit(&clock.now()).unwrap();
        breaker.release(probe);
        assert!(breaker.admit(&clock.now()).is_ok());
    }

    #[test]
    fn a_failed_probe_opens_it_for_the_whole_wait_again() {
        let clock = ScriptedClock::new();
        let mut breaker = opened(&clock);
        clock.pass(Duration::from_secs(60));
        let (probe, _) = breaker.admit(&clock.now()).unwrap();
        breaker.fail(probe, &clock.now());
        assert_eq!(breaker.retry_after(&clock.now()), Some(POLICY.timeout));
    }

    #[test]
    fn a_restart_keeps_the_wait_a_set_clock_does_not_change_it_and_a_reboot_goes_on_from_what_was_left() {
        let clock = ScriptedClock::new();
        let breaker = opened(&clock);
        clock.pass(Duration::from_secs(20));
        let stored = serde_json::to_string(&breaker.stored(&clock.now())).unwrap();
        clock.set_wall(WallTime(0));
        clock.pass(Duration::from_secs(10));
        let back =
            |now: &Now| Breaker::restored(Service::Transcription, POLICY, serde_json::from_str(&stored).unwrap(), now);
        assert_eq!(back(&clock.now()).retry_after(&clock.now()), Some(Duration::from_secs(30)));
        clock.reboot("b");
        let rebooted = back(&clock.now());
        assert_eq!(rebooted.retry_after(&clock.now()), Some(Duration::from_secs(40)));
        clock.pass(Duration::from_secs(40));
        assert_eq!(rebooted.retry_after(&clock.now()), Some(Duration::ZERO));
    }

    #[test]
    fn a_person_can_force_it_open_disable_it_and_reset_it() {
        let clock = ScriptedClock::new();
        let mut breaker = Breaker::new(Service::Transcription, POLICY);
        breaker.force_open();
        clock.pass(Duration::from_secs(100_000));
        assert_eq!(breaker.admit(&clock.now()).unwrap_err().retry_after, None);
        breaker.disable();
        for _ in 0..9 {
            breaker.fail(Permit::Free, &clock.now());
        }
        assert!(breaker.admit(&clock.now()).is_ok());
        breaker.reset();
        assert_eq!(breaker.state(), &State::Closed);
    }

    proptest! {
        /// Whatever happens, an automatic breaker lets a call through once its wait has passed and no probe is out.
        #[test]
        fn it_never_sticks(steps in proptest::collection::vec(0u8..5, 0..60)) {
            let clock = ScriptedClock::new();
            let mut breaker = Breaker::new(Service::Diarization, POLICY);
            let mut out = Vec::new();
            for step in steps {
                match step {
                    0 => if let Ok((permit, _)) = breaker.admit(&clock.now()) { out.push(permit) },
                    1 => if let Some(permit) = out.pop() { breaker.succeed(permit); },
                    2 => if let Some(permit) = out.pop() { breaker.fail(permit, &clock.now()); },
                    3 => if let Some(permit) = out.pop() { breaker.release(permit); },
                    _ => clock.pass(Duration::from_secs(25)),
                }
            }
            for permit in out { breaker.release(permit); }
            clock.pass(POLICY.timeout);
            prop_assert!(breaker.admit(&clock.now()).is_ok());
        }
    }
}
