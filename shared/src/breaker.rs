//! A circuit breaker: after repeated failures, stop asking for a while.
//!
//!   Closed ── failure_threshold in a row ──▶ Open ── timeout passes ──▶ HalfOpen (one call at a time)
//!   HalfOpen ── success_threshold ──▶ Closed        HalfOpen ── any failure ──▶ Open
//!   Closed, HalfOpen ── a health check fails ──▶ Open, until the check passes: then one call may try at once
//!
//! A plain value that can be stored: it never sleeps, locks, logs or reads a clock. What is left of a wait is
//! counted in uptime and stored as "remaining since", so neither a set clock nor a reboot shortens or
//! lengthens it by more than the time the board was off.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ailment::Ailment;
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
    /// The line to the broker.
    Sync,
}

impl Service {
    /// Every guarded service, in the order people list them.
    pub const ALL: [Self; 3] = [Self::Transcription, Self::Diarization, Self::Sync];

    /// The guide's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transcription => "transcription",
            Self::Diarization => "diarization",
            Self::Sync => "sync",
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
            .ok_or_else(|| format!("no service is called {s:?}: use transcription, diarization or sync"))
    }
}

/// When it is worth asking a breaker again that a health check holds open: checks are made every few seconds.
pub const ASK_AGAIN: Duration = Duration::from_secs(10);

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
        /// What a health check has found, as long as it finds it: no call may try meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ailment: Option<Ailment>,
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
    /// The one call that tries in half-open, and the number of its try: the end of an earlier one says nothing.
    Probe(u64),
}

/// How long a breaker has not been closed, counted in uptime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// What had passed at `counted_from`.
    passed: Duration,
    /// Uptime from which more counts.
    counted_from: Duration,
    /// The boot `counted_from` belongs to.
    boot: BootId,
}

impl Outage {
    fn new(now: &Now) -> Self {
        Self { passed: Duration::ZERO, counted_from: now.uptime, boot: now.boot.clone() }
    }

    /// Its length. What passed while the board was off does not count.
    fn length(&self, now: &Now) -> Duration {
        let counted = if self.boot == now.boot { now.uptime.saturating_sub(self.counted_from) } else { Duration::ZERO };
        self.passed.saturating_add(counted)
    }

    fn carried(&self, now: &Now) -> Self {
        Self { passed: self.length(now), counted_from: now.uptime, boot: now.boot.clone() }
    }
}

/// See the top of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    service: Service,
    policy: Policy,
    state: State,
    failure_count: u32,
    outage: Option<Outage>,
    /// Probes let in so far, in this process: no permit outlives it.
    probes: u64,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    #[must_use]
    pub fn new(service: Service, policy: Policy) -> Self {
        Self { service, policy, state: State::Closed, failure_count: 0, outage: None, probes: 0 }
    }

    /// A breaker as it was stored. A probe that was under way is gone with its process, so its place is free;
    /// a wait begun under another boot goes on from what was left of it.
    #[must_use]
    pub fn restored(service: Service, policy: Policy, stored: Stored, now: &Now) -> Self {
        let state = match stored.state {
            State::HalfOpen { successes, .. } => State::HalfOpen { successes, probing: false },
            State::Open { opened_at, remaining, boot, ailment, .. } if boot != now.boot => {
                State::Open { opened_at, remaining, counted_from: now.uptime, boot: now.boot.clone(), ailment }
            }
            other => other,
        };
        let outage = stored.outage.map(|outage| outage.carried(now));
        Self { service, policy, state, failure_count: stored.failure_count, outage, probes: 0 }
    }

    /// What to store so that [`Breaker::restored`] can go on. An open breaker is stored with what is left now.
    #[must_use]
    pub fn stored(&self, now: &Now) -> Stored {
        let state = match &self.state {
            State::Open { opened_at, ailment, .. } => State::Open {
                opened_at: *opened_at,
                remaining: self.remaining(now),
                counted_from: now.uptime,
                boot: now.boot.clone(),
                ailment: ailment.clone(),
            },
            other => other.clone(),
        };
        let outage = self.outage.as_ref().map(|outage| outage.carried(now));
        Stored { state, failure_count: self.failure_count, outage }
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

    /// Since when it has not been closed, or `None` if it is closed or switched off.
    #[must_use]
    pub fn open_for(&self, now: &Now) -> Option<Duration> {
        self.outage.as_ref().map(|outage| outage.length(now))
    }

    /// What a health check has found, if that is why no call may try.
    #[must_use]
    pub fn ailment(&self) -> Option<&Ailment> {
        match &self.state {
            State::Open { ailment, .. } => ailment.as_ref(),
            State::Closed | State::HalfOpen { .. } | State::ForcedOpen | State::Disabled => None,
        }
    }

    /// How long until a call may try: zero if one may now, `None` if only a person can change that. While a health
    /// check fails nobody knows; then it is worth asking again in [`ASK_AGAIN`].
    #[must_use]
    pub fn retry_after(&self, now: &Now) -> Option<Duration> {
        match &self.state {
            State::Open { ailment: Some(_), .. } => Some(self.remaining(now).max(ASK_AGAIN)),
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
                Ok((self.probe(), None))
            }
            State::Open { ailment: None, .. } if self.remaining(now).is_zero() => {
                let moved = self.enter(State::HalfOpen { successes: 0, probing: true }, now);
                Ok((self.probe(), moved))
            }
            State::Open { .. } | State::HalfOpen { probing: true, .. } | State::ForcedOpen => Err(self.refusal(now)),
        }
    }

    fn probe(&mut self) -> Permit {
        self.probes = self.probes.wrapping_add(1);
        Permit::Probe(self.probes)
    }

    /// Whether this is the permit of the probe under way.
    fn is_current(&self, permit: Permit) -> bool {
        matches!(self.state, State::HalfOpen { probing: true, .. }) && permit == Permit::Probe(self.probes)
    }

    fn refusal(&self, now: &Now) -> CircuitBreakerOpenError {
        CircuitBreakerOpenError {
            service_name: self.service,
            failure_count: self.failure_count,
            retry_after: self.retry_after(now),
            ailment: self.ailment().cloned(),
        }
    }

    /// Moves on without a call: an open breaker whose wait is over is half open, as the guide has it.
    pub fn tick(&mut self, now: &Now) -> Option<Transition> {
        match &self.state {
            State::Open { ailment: None, .. } if self.remaining(now).is_zero() => {
                self.enter(State::HalfOpen { successes: 0, probing: false }, now)
            }
            State::Open { .. } | State::Closed | State::HalfOpen { .. } | State::ForcedOpen | State::Disabled => None,
        }
    }

    /// A health check failed: opens it, or keeps it open, until [`Breaker::recover`]. What a person has decided stands.
    pub fn sicken(&mut self, found: Ailment, now: &Now) -> Option<Transition> {
        match &mut self.state {
            State::Open { ailment, .. } => {
                *ailment = Some(found);
                None
            }
            // No wait of its own: once the check passes, one call may try.
            State::Closed | State::HalfOpen { .. } => self.enter(
                State::Open {
                    opened_at: now.wall,
                    remaining: Duration::ZERO,
                    counted_from: now.uptime,
                    boot: now.boot.clone(),
                    ailment: Some(found),
                },
                now,
            ),
            State::ForcedOpen | State::Disabled => None,
        }
    }

    /// The health check passes: what is left of a wait after failures still counts, and then one call may try.
    pub fn recover(&mut self) {
        if let State::Open { ailment, .. } = &mut self.state {
            *ailment = None;
        }
    }

    /// A call went well. A free call admitted before the breaker opened proves nothing about it now.
    pub fn succeed(&mut self, permit: Permit, now: &Now) -> Option<Transition> {
        match (&self.state, permit) {
            (State::Closed, _) => {
                self.failure_count = 0;
                None
            }
            (State::HalfOpen { successes, .. }, permit) if self.is_current(permit) => {
                let successes = successes.saturating_add(1);
                if successes < self.policy.success_threshold {
                    self.state = State::HalfOpen { successes, probing: false };
                    None
                } else {
                    self.failure_count = 0;
                    self.enter(State::Closed, now)
                }
            }
            (State::HalfOpen { .. } | State::Open { .. } | State::ForcedOpen | State::Disabled, _) => None,
        }
    }

    /// A call failed, and its failure blames the engine.
    pub fn fail(&mut self, permit: Permit, now: &Now) -> Option<Transition> {
        match (&self.state, permit) {
            (State::Closed, _) => {
                self.failure_count = self.failure_count.saturating_add(1);
                (self.failure_count >= self.policy.failure_threshold).then(|| self.open(now)).flatten()
            }
            (State::HalfOpen { .. }, permit) if self.is_current(permit) => {
                self.failure_count = self.failure_count.saturating_add(1);
                self.open(now)
            }
            (State::HalfOpen { .. } | State::Open { .. } | State::ForcedOpen | State::Disabled, _) => None,
        }
    }

    /// A call ended without saying anything about the engine (dropped, cancelled, bad audio): its place is free again.
    pub fn release(&mut self, permit: Permit) {
        if let State::HalfOpen { successes, .. } = self.state
            && self.is_current(permit)
        {
            self.state = State::HalfOpen { successes, probing: false };
        }
    }

    /// A person declares it healthy.
    pub fn reset(&mut self, now: &Now) -> Option<Transition> {
        self.failure_count = 0;
        self.enter(State::Closed, now)
    }

    /// A person holds it open until `reset`.
    pub fn force_open(&mut self, now: &Now) -> Option<Transition> {
        self.enter(State::ForcedOpen, now)
    }

    /// A person switches it off until `reset`.
    pub fn disable(&mut self, now: &Now) -> Option<Transition> {
        self.failure_count = 0;
        self.enter(State::Disabled, now)
    }

    fn open(&mut self, now: &Now) -> Option<Transition> {
        self.enter(
            State::Open {
                opened_at: now.wall,
                remaining: self.policy.timeout,
                counted_from: now.uptime,
                boot: now.boot.clone(),
                ailment: None,
            },
            now,
        )
    }

    fn enter(&mut self, state: State, now: &Now) -> Option<Transition> {
        let from = self.state.name();
        self.state = state;
        let to = self.state.name();
        match to {
            StateName::Closed | StateName::Disabled => self.outage = None,
            StateName::Open | StateName::HalfOpen | StateName::ForcedOpen => {
                self.outage.get_or_insert_with(|| Outage::new(now));
            }
        }
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
    /// How long it has not been closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<Outage>,
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
            breaker.succeed(Permit::Free, &clock.now());
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
        assert_eq!(breaker.succeed(first, &clock.now()), None);
        let (second, _) = breaker.admit(&clock.now()).unwrap();
        assert_eq!(
            breaker.succeed(second, &clock.now()),
            Some(Transition { from: StateName::HalfOpen, to: StateName::Closed })
        );
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
        breaker.force_open(&clock.now());
        clock.pass(Duration::from_secs(100_000));
        assert_eq!(breaker.admit(&clock.now()).unwrap_err().retry_after, None);
        breaker.disable(&clock.now());
        for _ in 0..9 {
            breaker.fail(Permit::Free, &clock.now());
        }
        assert!(breaker.admit(&clock.now()).is_ok());
        breaker.reset(&clock.now());
        assert_eq!(breaker.state(), &State::Closed);
    }

    #[test]
    fn a_failing_health_check_opens_it_and_a_passing_one_lets_a_call_try_at_once() {
        let clock = ScriptedClock::new();
        let mut breaker = Breaker::new(Service::Transcription, POLICY);
        let opened = breaker.sicken(Ailment::UnderVoltage, &clock.now());
        assert_eq!(opened, Some(Transition { from: StateName::Closed, to: StateName::Open }));
        clock.pass(POLICY.timeout * 9);
        assert_eq!(breaker.tick(&clock.now()), None);
        let refusal = breaker.admit(&clock.now()).unwrap_err();
        assert_eq!((refusal.failure_count, refusal.ailment), (0, Some(Ailment::UnderVoltage)));
        breaker.recover();
        assert!(matches!(breaker.admit(&clock.now()), Ok((Permit::Probe(_), Some(_)))));
    }

    #[test]
    fn a_passing_health_check_does_not_shorten_the_wait_after_failures() {
        let clock = ScriptedClock::new();
        let mut breaker = opened(&clock);
        breaker.sicken(Ailment::UnderVoltage, &clock.now());
        clock.pass(Duration::from_secs(20));
        breaker.recover();
        assert_eq!(breaker.admit(&clock.now()).unwrap_err().retry_after, Some(Duration::from_secs(40)));
    }

    #[test]
    fn an_ailment_survives_a_restart() {
        let clock = ScriptedClock::new();
        let mut breaker = Breaker::new(Service::Transcription, POLICY);
        breaker.sicken(Ailment::UnderVoltage, &clock.now());
        let stored = serde_json::to_string(&breaker.stored(&clock.now())).unwrap();
        clock.reboot("b");
        let back =
            Breaker::restored(Service::Transcription, POLICY, serde_json::from_str(&stored).unwrap(), &clock.now());
        assert_eq!(back.ailment(), Some(&Ailment::UnderVoltage));
    }

    #[test]
    fn a_breaker_nobody_calls_is_half_open_once_its_wait_is_over() {
        let clock = ScriptedClock::new();
        let mut breaker = opened(&clock);
        clock.pass(POLICY.timeout - Duration::from_secs(1));
        assert_eq!(breaker.tick(&clock.now()), None);
        clock.pass(Duration::from_secs(1));
        let moved = Some(Transition { from: StateName::Open, to: StateName::HalfOpen });
        assert_eq!(breaker.tick(&clock.now()), moved);
    }

    #[test]
    fn an_outage_counts_from_the_first_opening_to_the_closing_over_probes_restarts_and_set_clocks() {
        let clock = ScriptedClock::new();
        let mut breaker = opened(&clock);
        clock.pass(POLICY.timeout);
        let (probe, _) = breaker.admit(&clock.now()).unwrap();
        breaker.fail(probe, &clock.now());
        clock.set_wall(WallTime(0));
        let stored = breaker.stored(&clock.now());
        clock.reboot("b");
        let mut breaker = Breaker::restored(Service::Transcription, POLICY, stored, &clock.now());
        clock.pass(POLICY.timeout);
        assert_eq!(breaker.open_for(&clock.now()), Some(POLICY.timeout * 2));
        breaker.reset(&clock.now());
        assert_eq!(breaker.open_for(&clock.now()), None);
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
                    1 => if let Some(permit) = out.pop() { breaker.succeed(permit, &clock.now()); },
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
