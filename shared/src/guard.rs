//! The guard around every call to an engine: retry inside a breaker.
//!
//! One guarded call counts once in the breaker, after its retries. Whatever becomes of the call (an answer, a
//! failure, a dropped future, a panic) its place in the breaker is settled or given back. A refused call was never
//! made: it counts neither as success nor as failure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::ailment::Ailment;
use crate::breaker::{Breaker, Permit, Policy, Service, StateName, Stored, Transition};
use crate::clock::{Clock, Now};
use crate::error::{CircuitBreakerOpenError, FailedAttempt, Fault, GuardError, RetryExhaustedError, report};
use crate::log::CRITICAL;
use crate::retry::{self, Schedule};
use crate::store::BreakerCommand;

/// How a guarded call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Well.
    Succeeded,
    /// In a failure that blames the engine.
    Failed,
    /// In a failure that says nothing about the engine.
    Ignored,
    /// It was not made: the breaker let it not through.
    Refused,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Succeeded, Self::Failed, Self::Ignored, Self::Refused];

    /// As it stands in the database, and in metrics under resilience4j's names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "successful",
            Self::Failed => "failed",
            Self::Ignored => "ignored",
            Self::Refused => "not_permitted",
        }
    }
}

/// Where breakers outlive the process.
pub trait BreakerStore: Send + Sync {
    /// Keeps the breaker as it is now, with the transition that led to it, if any, and what people asked for, and says
    /// whether it could. That it could not is logged by itself: a call must not fail because its bookkeeping did.
    fn keep(
        &self,
        service: Service,
        stored: &Stored,
        moved: Option<Transition>,
        asked: &[BreakerCommand],
        now: &Now,
    ) -> bool;
    /// What was kept, if anything.
    fn kept(&self, service: Service) -> Option<Stored>;
    /// A guarded call ended: what failure rates are counted from.
    fn called(&self, service: Service, outcome: Outcome, took: Duration, now: &Now);
}

/// What health shows of one breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: StateName,
    /// Failed calls in a row.
    pub failure_count: u32,
    /// Until a call may try; `None` if only a person can change that.
    pub retry_after: Option<Duration>,
    /// How long it has not been closed; `None` if it is.
    pub open_for: Option<Duration>,
    /// What a health check has found, if that holds it open.
    pub ailment: Option<Ailment>,
}

/// Guarded calls and transitions since the start of the process, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls by how they ended.
    pub calls: BTreeMap<Outcome, u64>,
    /// Time spent in calls by how they ended.
    pub took: BTreeMap<Outcome, Duration>,
    /// Transitions by where they led.
    pub moved: BTreeMap<StateName, u64>,
}

/// A breaker of this process.
struct Owned {
    breaker: Breaker,
    tally: Tally,
    /// Whether the store could not keep the last change, and which transition it has missed.
    unkept: Option<Option<Transition>>,
    /// What people asked and the store does not know yet.
    asked: Vec<BreakerCommand>,
}

impl Owned {
    /// Keeps it, with whatever the store has missed before.
    fn keep(&mut self, store: &dyn BreakerStore, moved: Option<Transition>, now: &Now) {
        let missed = self.unkept.take().flatten();
        let moved = match (missed, moved) {
            (Some(missed), Some(moved)) => Some(Transition { from: missed.from, to: moved.to }),
            (missed, moved) => moved.or(missed),
        };
        if store.keep(self.breaker.service(), &self.breaker.stored(now), moved, &self.asked, now) {
            self.asked.clear();
        } else {
            self.unkept = Some(moved);
        }
    }
}

/// The breakers that this process owns, shared by its workers and its control socket.
pub struct Breakers {
    breakers: Mutex<BTreeMap<Service, Owned>>,
    policies: BTreeMap<Service, Policy>,
    store: Arc<dyn BreakerStore>,
    clock: Arc<dyn Clock>,
}

impl Breakers {
    /// Restores the breakers of the services that this process owns. Another process may own others in the same store;
    /// those are shown as they were last kept, and not touched.
    #[must_use]
    pub fn open(
        store: Arc<dyn BreakerStore>,
        clock: Arc<dyn Clock>,
        owned: &[Service],
        policy: impl Fn(Service) -> Policy,
    ) -> Self {
        let now = clock.now();
        let restore = |service: Service| {
            let breaker = restored(store.as_ref(), service, policy(service), &now);
            let mut owned = Owned { breaker, tally: Tally::default(), unkept: None, asked: Vec::new() };
            owned.keep(store.as_ref(), None, &now);
            (service, owned)
        };
        let breakers = owned.iter().copied().map(restore).collect();
        let policies = Service::ALL.into_iter().map(|service| (service, policy(service))).collect();
        Self { breakers: Mutex::new(breakers), policies, store, clock }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Service, Owned>> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes one breaker and keeps it; `None` if another process owns it.
    fn change<T>(
        &self,
        service: Service,
        change: impl FnOnce(&mut Breaker, &Now) -> (T, Option<Transition>),
    ) -> Option<T> {
        self.change_as_asked(service, None, change)
    }

    /// As [`Breakers::change`]; what a person asked is kept also if it changes nothing.
    fn change_as_asked<T>(
        &self,
        service: Service,
        asked: Option<BreakerCommand>,
        change: impl FnOnce(&mut Breaker, &Now) -> (T, Option<Transition>),
    ) -> Option<T> {
        let now = self.clock.now();
        let mut breakers = self.lock();
        let owned = breakers.get_mut(&service)?;
        let before = owned.breaker.stored(&now);
        let (answer, moved) = change(&mut owned.breaker, &now);
        owned.asked.extend(asked);
        if owned.breaker.stored(&now) != before || owned.unkept.is_some() || !owned.asked.is_empty() {
            owned.keep(self.store.as_ref(), moved, &now);
        }
        if let Some(moved) = moved {
            *owned.tally.moved.entry(moved.to).or_default() += 1;
            announce(service, moved, &owned.breaker);
        }
        Some(answer)
    }

    /// The state for health, without asking the breaker for anything.
    #[must_use]
    pub fn view(&self, service: Service) -> View {
        let now = self.clock.now();
        if let Some(owned) = self.lock().get(&service) {
            return view(&owned.breaker, &now);
        }
        view(&restored(self.store.as_ref(), service, self.policies[&service], &now), &now)
    }

    /// Calls and transitions since the start; empty for a service that another process owns.
    #[must_use]
    pub fn tally(&self, service: Service) -> Tally {
        self.lock().get(&service).map(|owned| owned.tally.clone()).unwrap_or_default()
    }

    /// Whether this process owns the service's breaker and so may move it.
    #[must_use]
    pub fn owns(&self, service: Service) -> bool {
        self.lock().contains_key(&service)
    }

    /// Lets waits end that nobody calls for, and keeps what the store has missed.
    pub fn tick(&self) {
        let owned: Vec<Service> = self.lock().keys().copied().collect();
        for service in owned {
            self.change(service, |b, now| ((), b.tick(now)));
        }
    }

    /// Stores what is left of every wait, so that a power cut repeats at most the time since the last call.
    pub fn checkpoint(&self) {
        let now = self.clock.now();
        for owned in self.lock().values_mut().filter(|owned| owned.breaker.state().name() != StateName::Closed) {
            owned.keep(self.store.as_ref(), None, &now);
        }
    }

    /// A person declares the service healthy.
    pub fn reset(&self, service: Service) {
        self.change_as_asked(service, Some(BreakerCommand::Reset), |b, now| ((), b.reset(now)));
    }

    /// A person holds the breaker open.
    pub fn force_open(&self, service: Service) {
        self.change_as_asked(service, Some(BreakerCommand::ForceOpen), |b, now| ((), b.force_open(now)));
    }

    /// A person switches the breaker off.
    pub fn disable(&self, service: Service) {
        self.change_as_asked(service, Some(BreakerCommand::Disable), |b, now| ((), b.disable(now)));
    }

    /// What a health check of the service has found, or that it found nothing.
    pub fn checked(&self, service: Service, found: Option<Ailment>) {
        self.change(service, |b, now| match found {
            Some(ailment) => ((), b.sicken(ailment, now)),
            None => {
                b.recover();
                ((), None)
            }
        });
    }

    /// Asks for a place. Dropping it unsettled gives it back.
    ///
    /// # Errors
    /// [`CircuitBreakerOpenError`] while the breaker lets nothing through.
    pub fn admit(&self, service: Service) -> Result<Pass<'_>, CircuitBreakerOpenError> {
        let admitted = self.change(service, |b, now| match b.admit(now) {
            Ok((permit, moved)) => (Ok(permit), moved),
            Err(refusal) => (Err(refusal), None),
        });
        match admitted {
            Some(Ok(permit)) => Ok(Pass { breakers: self, service, permit: Some(permit) }),
            Some(Err(refusal)) => {
                self.count(service, Outcome::Refused, Duration::ZERO);
                Err(refusal)
            }
            // Nobody else's breaker can be asked, and nothing is known against its service.
            None => Ok(Pass { breakers: self, service, permit: None }),
        }
    }

    fn count(&self, service: Service, outcome: Outcome, took: Duration) {
        if let Some(owned) = self.lock().get_mut(&service) {
            *owned.tally.calls.entry(outcome).or_default() += 1;
            *owned.tally.took.entry(outcome).or_default() += took;
        }
        self.store.called(service, outcome, took, &self.clock.now());
    }
}

fn restored(store: &dyn BreakerStore, service: Service, policy: Policy, now: &Now) -> Breaker {
    match store.kept(service) {
        Some(stored) => Breaker::restored(service, policy, stored, now),
        None => Breaker::new(service, policy),
    }
}

fn view(breaker: &Breaker, now: &Now) -> View {
    View {
        state: breaker.state().name(),
        failure_count: breaker.failure_count(),
        retry_after: breaker.retry_after(now),
        open_for: breaker.open_for(now),
        ailment: breaker.ailment().cloned(),
    }
}

fn announce(service: Service, moved: Transition, breaker: &Breaker) {
    let failure_count = breaker.failure_count();
    let reason = breaker.ailment().map(Ailment::explain);
    match moved.to {
        StateName::Open | StateName::ForcedOpen => error!(
            target: CRITICAL, severity = "critical", service_name = %service, error_type = "CircuitBreakerOpenError",
            is_retryable = false, retry_count = 0, circuit_breaker_state = %moved.to, failure_count, reason,
            "Circuit breaker opened."
        ),
        StateName::HalfOpen | StateName::Closed | StateName::Disabled => info!(
            service_name = %service, circuit_breaker_state = %moved.to, failure_count, "Circuit breaker moved."
        ),
    }
}

/// A place in the breaker; dropping it unsettled gives it back.
pub struct Pass<'a> {
    breakers: &'a Breakers,
    service: Service,
    permit: Option<Permit>,
}

impl Pass<'_> {
    /// The call ended so.
    pub fn settle(mut self, outcome: Outcome, took: Duration) {
        if let Some(permit) = self.permit.take() {
            self.breakers.change(self.service, |b, now| match outcome {
                Outcome::Succeeded => ((), b.succeed(permit, now)),
                Outcome::Failed => ((), b.fail(permit, now)),
                Outcome::Ignored | Outcome::Refused => {
                    b.release(permit);
                    ((), None)
                }
            });
        }
        self.breakers.count(self.service, outcome, took);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.breakers.change(self.service, |b, _| {
                b.release(permit);
                ((), None)
            });
        }
    }
}

/// Retry inside one service's breaker.
#[derive(Clone)]
pub struct Guard {
    /// The breakers this guard's calls go through.
    pub breakers: Arc<Breakers>,
    /// Which of them.
    pub service: Service,
    /// How often, and with what waits.
    pub retry: retry::Policy,
    /// Whose call it is, for the log.
    pub session: String,
}

/// A call that went well, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded<T> {
    /// What it gave.
    pub value: T,
    /// Attempts made, the first included.
    pub attempts: u32,
    /// What the attempts before died of.
    pub history: Vec<FailedAttempt>,
}

/// The models a call may use: `rung` of `rungs`, counted from the best, 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rungs {
    /// The one to begin with.
    pub rung: u32,
    /// How many there are.
    pub rungs: u32,
}

impl Rungs {
    /// There is one model, or none to choose.
    pub const ONE: Self = Self { rung: 0, rungs: 1 };
}

impl Guard {
    /// Makes the call, as often as it takes and is allowed; `attempt` hears which model to use, counted from the best.
    ///
    /// # Errors
    /// [`GuardError::Open`] without calling while the breaker is open; [`GuardError::Failed`] for an error that
    /// trying again does not mend; [`GuardError::Exhausted`] after the last attempt.
    pub async fn call<T, E: Fault>(
        &self,
        models: Rungs,
        mut attempt: impl AsyncFnMut(u32) -> Result<T, E>,
    ) -> Result<Guarded<T>, GuardError<E>> {
        let pass = self.breakers.admit(self.service).map_err(GuardError::Open)?;
        let begun = tokio::time::Instant::now();
        let mut schedule = Schedule::new(self.retry, models.rung, models.rungs);
        let mut history = Vec::new();
        loop {
            let (number, rung) = (schedule.attempt(), schedule.rung());
            let why = match attempt(rung).await {
                Ok(value) => {
                    pass.settle(Outcome::Succeeded, begun.elapsed());
                    return Ok(Guarded { value, attempts: number, history });
                }
                Err(why) => why,
            };
            let next = schedule.failed(why.advice(), why.retry_after());
            let waited_ms = next.map_or(0, |n| n.wait.as_millis().try_into().unwrap_or(u64::MAX));
            history.push(FailedAttempt { number, rung, error: report(&why), details: why.details(), waited_ms });
            let Some(next) = next else {
                let outcome = if why.blames_engine() { Outcome::Failed } else { Outcome::Ignored };
                pass.settle(outcome, begun.elapsed());
                if let Some(ailment) = why.ailment() {
                    self.breakers.checked(self.service, Some(ailment));
                }
                return Err(self.given_up(why, number, history));
            };
            self.warn(&why, number, next);
            tokio::time::sleep(next.wait).await;
        }
    }

    fn given_up<E: Fault>(&self, why: E, number: u32, history: Vec<FailedAttempt>) -> GuardError<E> {
        if why.is_retryable() && number >= self.retry.attempts {
            GuardError::Exhausted(RetryExhaustedError { retry_count: number, last_exception: why, history })
        } else {
            GuardError::Failed { last_exception: why, history }
        }
    }

    fn warn(&self, why: &impl Fault, number: u32, next: retry::Next) {
        warn!(
            session_id = self.session, error_type = why.error_type(), is_retryable = why.is_retryable(),
            retry_count = number, circuit_breaker_state = %self.breakers.view(self.service).state,
            error = %report(why), details = %why.details(), wait_s = next.wait.as_secs_f64(), next_model = next.rung,
            "An attempt failed; trying again."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ScriptedClock;
    use crate::error::{EngineFault, TranscriptionError};

    #[derive(Default)]
    struct Kept {
        kept: Mutex<BTreeMap<Service, Stored>>,
        moves: Mutex<Vec<Transition>>,
        asked: Mutex<Vec<BreakerCommand>>,
        full: std::sync::atomic::AtomicBool,
    }
    impl BreakerStore for Kept {
        fn keep(
            &self,
            service: Service,
            stored: &Stored,
            moved: Option<Transition>,
            asked: &[BreakerCommand],
            _: &Now,
        ) -> bool {
            let takes = !self.full.load(std::sync::atomic::Ordering::Relaxed);
            if takes {
                self.kept.lock().unwrap().insert(service, stored.clone());
                self.moves.lock().unwrap().extend(moved);
                self.asked.lock().unwrap().extend_from_slice(asked);
            }
            takes
        }
        fn kept(&self, service: Service) -> Option<Stored> {
            self.kept.lock().unwrap().get(&service).cloned()
        }
        fn called(&self, _: Service, _: Outcome, _: Duration, _: &Now) {}
    }

    #[test]
    fn what_people_asked_of_a_breaker_is_told_once_also_if_the_store_was_full() {
        let (kept, clock) = (Arc::new(Kept::default()), Arc::new(ScriptedClock::new()));
        let breakers = guard(kept.clone(), clock).breakers;
        kept.full.store(true, std::sync::atomic::Ordering::Relaxed);
        breakers.force_open(Service::Transcription);
        breakers.reset(Service::Transcription);
        assert!(kept.asked.lock().unwrap().is_empty());
        kept.full.store(false, std::sync::atomic::Ordering::Relaxed);
        breakers.tick();
        breakers.checkpoint();
        assert_eq!(*kept.asked.lock().unwrap(), [BreakerCommand::ForceOpen, BreakerCommand::Reset]);
    }

    fn guard(kept: Arc<Kept>, clock: Arc<ScriptedClock>) -> Guard {
        let policy = Policy { failure_threshold: 2, timeout: Duration::from_secs(120), success_threshold: 1 };
        Guard {
            breakers: Arc::new(Breakers::open(kept, clock, &Service::ALL, |_| policy)),
            service: Service::Transcription,
            retry: retry::Policy {
                attempts: 3,
                initial_backoff: Duration::from_secs(2),
                max_backoff: Duration::from_secs(60),
            },
            session: "s".into(),
        }
    }

    fn crashed() -> TranscriptionError {
        TranscriptionError::Engine { fault: EngineFault::ChildCrashed { signal: 9 } }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_fails_twice_and_then_succeeds_waits_the_guides_waits() {
        let guard = guard(Arc::default(), Arc::default());
        let begun = tokio::time::Instant::now();
        let mut calls = 0;
        let done = guard.call(Rungs::ONE, async |_| {
            calls += 1;
            if calls < 3 { Err(crashed()) } else { Ok("text") }
        });
        let done = done.await.unwrap();
        assert_eq!((done.attempts, begun.elapsed()), (3, Duration::from_secs(6)));
        let waits: Vec<u64> = done.history.iter().map(|attempt| attempt.waited_ms).collect();
        assert_eq!(waits, [2000, 4000]);
        assert_eq!(guard.breakers.view(Service::Transcription).failure_count, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn exhausted_calls_open_the_breaker_which_a_restart_remembers() {
        let (kept, clock) = (Arc::new(Kept::default()), Arc::new(ScriptedClock::new()));
        let first = guard(kept.clone(), clock.clone());
        for _ in 0..2 {
            let error = first.call(Rungs::ONE, async |_| Err::<(), _>(crashed())).await.unwrap_err();
            assert!(matches!(error, GuardError::Exhausted(e) if e.retry_count == 3 && e.history.len() == 3));
        }
        let reopened = guard(kept, clock.clone());
        let refused = reopened.call(Rungs::ONE, async |_| Ok::<_, TranscriptionError>(())).await;
        assert!(matches!(refused, Err(GuardError::Open(e)) if e.failure_count == 2));
        clock.pass(Duration::from_secs(120));
        reopened.call(Rungs::ONE, async |_| Ok::<_, TranscriptionError>(())).await.unwrap();
        assert_eq!(reopened.breakers.view(Service::Transcription).state, StateName::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn bad_recordings_neither_retry_nor_open_the_breaker() {
        let guard = guard(Arc::default(), Arc::default());
        let mut calls = 0;
        for _ in 0..5 {
            let invalid = TranscriptionError::AudioInvalid { problem: String::new() };
            let result = guard
                .call(Rungs::ONE, async |_| {
                    calls += 1;
                    Err::<(), _>(invalid.clone())
                })
                .await;
            assert!(matches!(result, Err(GuardError::Failed { .. })));
        }
        assert_eq!((calls, guard.breakers.view(Service::Transcription).state), (5, StateName::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_probe_gives_its_place_back() {
        let clock = Arc::new(ScriptedClock::new());
        let guard = guard(Arc::default(), clock.clone());
        for _ in 0..2 {
            let _ = guard.call(Rungs::ONE, async |_| Err::<(), _>(crashed())).await;
        }
        clock.pass(Duration::from_secs(120));
        let stuck = guard.call(Rungs::ONE, async |_| std::future::pending::<Result<(), TranscriptionError>>().await);
        assert!(tokio::time::timeout(Duration::from_secs(1), stuck).await.is_err());
        guard.call(Rungs::ONE, async |_| Ok::<_, TranscriptionError>(())).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lack_of_memory_is_met_with_a_smaller_model() {
        let guard = guard(Arc::default(), Arc::default());
        let mut models = Vec::new();
        let done = guard.call(Rungs { rung: 0, rungs: 2 }, async |rung| {
            models.push(rung);
            let hungry = TranscriptionError::Engine { fault: EngineFault::OutOfMemory { limit_bytes: 1 } };
            if rung == 0 { Err(hungry) } else { Ok(()) }
        });
        assert_eq!(done.await.unwrap().attempts, 2);
        assert_eq!(models, [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_call_is_neither_a_success_nor_a_failure() {
        let guard = guard(Arc::default(), Arc::default());
        guard.breakers.force_open(Service::Transcription);
        for _ in 0..9 {
            assert!(guard.call(Rungs::ONE, async |_| Ok::<_, TranscriptionError>(())).await.is_err());
        }
        let tally = guard.breakers.tally(Service::Transcription);
        assert_eq!(tally.calls, BTreeMap::from([(Outcome::Refused, 9)]));
        assert_eq!(guard.breakers.view(Service::Transcription).failure_count, 0);
    }

    /// A breaker that closed while the disk was full looked open to everybody else until it moved again.
    #[test]
    fn what_the_store_could_not_keep_is_kept_as_soon_as_it_can() {
        let kept = Arc::new(Kept::default());
        let policy = Policy { failure_threshold: 1, timeout: Duration::from_secs(60), success_threshold: 1 };
        let breakers = Breakers::open(kept.clone(), Arc::new(ScriptedClock::new()), &[Service::Sync], |_| policy);
        let full = |is| kept.full.store(is, std::sync::atomic::Ordering::Relaxed);
        full(true);
        breakers.force_open(Service::Sync);
        breakers.disable(Service::Sync);
        assert!(kept.moves.lock().unwrap().is_empty());
        full(false);
        breakers.tick();
        assert_eq!(kept.kept(Service::Sync).unwrap().state, crate::breaker::State::Disabled);
        let once = Transition { from: StateName::Closed, to: StateName::Disabled };
        assert_eq!(kept.moves.lock().unwrap().as_slice(), [once]);
    }

    #[test]
    fn a_breaker_of_another_process_is_shown_as_it_was_kept_and_not_touched() {
        let (kept, clock) = (Arc::new(Kept::default()), Arc::new(ScriptedClock::new()));
        let policy = Policy { failure_threshold: 1, timeout: Duration::from_secs(60), success_threshold: 1 };
        let theirs = Breakers::open(kept.clone(), clock.clone(), &[Service::Sync], |_| policy);
        let ours = Breakers::open(kept, clock, &[Service::Transcription], |_| policy);
        theirs.admit(Service::Sync).ok().unwrap().settle(Outcome::Failed, Duration::ZERO);
        ours.reset(Service::Sync);
        assert_eq!((ours.view(Service::Sync).state, ours.owns(Service::Sync)), (StateName::Open, false));
    }
}
