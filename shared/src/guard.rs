//! The guard around every call to an engine: retry inside a breaker.
//!
//! One guarded call counts once in the breaker, after its retries. Whatever becomes of the call (an answer, a
//! failure, a dropped future, a panic) its place in the breaker is settled or given back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{error, info, warn};

use crate::breaker::{Breaker, Permit, Policy, Service, StateName, Stored, Transition};
use crate::clock::{Clock, Now};
use crate::error::{CircuitBreakerOpenError, Fault, GuardError, RetryExhaustedError};
use crate::retry;

/// Where breakers outlive the process.
pub trait BreakerStore: Send + Sync {
    /// Keeps the breaker as it is now, with the transition that led to it, if any. A store that cannot is
    /// logged by itself: a call must not fail because its bookkeeping did.
    fn keep(&self, service: Service, stored: &Stored, moved: Option<Transition>, now: &Now);
    /// What was kept, if anything.
    fn kept(&self, service: Service) -> Option<Stored>;
}

/// What health shows of one breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The state.
    pub state: StateName,
    /// Failed calls in a row.
    pub failure_count: u32,
    /// Until a call may try; `None` if only a person can change that.
    pub retry_after: Option<std::time::Duration>,
}

/// All breakers of this box, shared by the workers and the control socket.
pub struct Breakers {
    breakers: Mutex<BTreeMap<Service, Breaker>>,
    store: Arc<dyn BreakerStore>,
    clock: Arc<dyn Clock>,
}

impl Breakers {
    /// Restores every breaker from the store.
    #[must_use]
    pub fn open(store: Arc<dyn BreakerStore>, clock: Arc<dyn Clock>, policy: impl Fn(Service) -> Policy) -> Self {
        let now = clock.now();
        let breakers = Service::ALL
            .into_iter()
            .map(|service| {
                let breaker = match store.kept(service) {
                    Some(stored) => Breaker::restored(service, policy(service), stored, &now),
                    None => Breaker::new(service, policy(service)),
                };
                store.keep(service, &breaker.stored(&now), None, &now);
                (service, breaker)
            })
            .collect();
        Self { breakers: Mutex::new(breakers), store, clock }
    }

    /// Changes one breaker and keeps it.
    fn change<T>(&self, service: Service, change: impl FnOnce(&mut Breaker, &Now) -> (T, Option<Transition>)) -> T {
        let now = self.clock.now();
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let breaker = breakers.get_mut(&service).expect("every service has a breaker");
        let before = breaker.stored(&now);
        let (answer, moved) = change(breaker, &now);
        let after = breaker.stored(&now);
        if after != before {
            self.store.keep(service, &after, moved, &now);
        }
        if let Some(moved) = moved {
            announce(service, moved, after.failure_count);
        }
        answer
    }

    /// The state for health, without asking the breaker for anything.
    #[must_use]
    pub fn view(&self, service: Service) -> View {
        let now = self.clock.now();
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let breaker = &breakers[&service];
        View {
            state: breaker.state().name(),
            failure_count: breaker.failure_count(),
            retry_after: breaker.retry_after(&now),
        }
    }

    /// Stores what is left of every wait, so that a power cut repeats at most the time since the last call.
    pub fn checkpoint(&self) {
        let now = self.clock.now();
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        for breaker in breakers.values().filter(|b| b.state().name() == StateName::Open) {
            self.store.keep(breaker.service(), &breaker.stored(&now), None, &now);
        }
    }

    /// A person declares the service healthy.
    pub fn reset(&self, service: Service) {
        self.change(service, |b, _| ((), b.reset()));
    }

    /// A person holds the breaker open.
    pub fn force_open(&self, service: Service) {
        self.change(service, |b, _| ((), b.force_open()));
    }

    /// A person switches the breaker off.
    pub fn disable(&self, service: Service) {
        self.change(service, |b, _| ((), b.disable()));
    }

    fn admit(&self, service: Service) -> Result<Pass<'_>, CircuitBreakerOpenError> {
        let permit = self.change(service, |b, now| match b.admit(now) {
            Ok((permit, moved)) => (Ok(permit), moved),
            Err(refusal) => (Err(refusal), None),
        })?;
        Ok(Pass { breakers: self, service, permit: Some(permit) })
    }
}

fn announce(service: Service, moved: Transition, failure_count: u32) {
    match moved.to {
        StateName::Open | StateName::ForcedOpen => error!(
            severity = "critical", service_name = %service, circuit_breaker_state = %moved.to, failure_count,
            "Circuit breaker opened."
        ),
        StateName::HalfOpen | StateName::Closed | StateName::Disabled => info!(
            service_name = %service, circuit_breaker_state = %moved.to, failure_count, "Circuit breaker moved."
        ),
    }
}

/// A place in the breaker; dropping it unsettled gives it back.
struct Pass<'a> {
    breakers: &'a Breakers,
    service: Service,
    permit: Option<Permit>,
}

impl Pass<'_> {
    fn settle(mut self, outcome: impl FnOnce(&mut Breaker, Permit, &Now) -> Option<Transition>) {
        if let Some(permit) = self.permit.take() {
            self.breakers.change(self.service, |b, now| ((), outcome(b, permit, now)));
        }
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
}

/// A call that went well, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded<T> {
    /// What it gave.
    pub value: T,
    /// Attempts made, the first included.
    pub attempts: u32,
}

impl Guard {
    /// Makes the call, as often as it takes and is allowed.
    ///
    /// # Errors
    /// [`GuardError::Open`] without calling while the breaker is open; [`GuardError::Failed`] for an error that
    /// trying again does not mend; [`GuardError::Exhausted`] after the last attempt.
    pub async fn call<T, E: Fault>(
        &self,
        mut attempt: impl AsyncFnMut(u32) -> Result<T, E>,
    ) -> Result<Guarded<T>, GuardError<E>> {
        let pass = self.breakers.admit(self.service).map_err(GuardError::Open)?;
        let mut history = Vec::new();
        for number in 1.. {
            let why = match attempt(number).await {
                Ok(value) => {
                    pass.settle(|b, permit, _| b.succeed(permit));
                    return Ok(Guarded { value, attempts: number });
                }
                Err(why) => why,
            };
            history.push(crate::error::report(&why));
            let wait = why.is_retryable().then(|| self.retry.wait_after(number, why.retry_after())).flatten();
            if let Some(wait) = wait {
                warn!(
                    error_type = why.error_type(), is_retryable = true, retry_count = number,
                    circuit_breaker_state = %self.breakers.view(self.service).state,
                    error = %crate::error::report(&why), details = %why.details(), wait_s = wait.as_secs_f64(),
                    "An attempt failed; trying again."
                );
                tokio::time::sleep(wait).await;
                continue;
            }
            if why.blames_engine() {
                pass.settle(|b, permit, now| b.fail(permit, now));
            }
            return Err(if why.is_retryable() {
                GuardError::Exhausted(RetryExhaustedError { retry_count: number, last_exception: why, history })
            } else {
                GuardError::Failed(why)
            });
        }
        unreachable!("attempts are counted up to a limit of at most u32::MAX")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ScriptedClock;
    use crate::error::{EngineFault, TranscriptionError};
    use std::time::Duration;

    #[derive(Default)]
    struct Kept(Mutex<BTreeMap<Service, Stored>>);
    impl BreakerStore for Kept {
        fn keep(&self, service: Service, stored: &Stored, _: Option<Transition>, _: &Now) {
            self.0.lock().unwrap().insert(service, stored.clone());
        }
        fn kept(&self, service: Service) -> Option<Stored> {
            self.0.lock().unwrap().get(&service).cloned()
        }
    }

    fn guard(kept: Arc<Kept>, clock: Arc<ScriptedClock>) -> Guard {
        let policy = Policy { failure_threshold: 2, timeout: Duration::from_secs(120), success_threshold: 1 };
        Guard {
            breakers: Arc::new(Breakers::open(kept, clock, |_| policy)),
            service: Service::Transcription,
            retry: retry::Policy {
                attempts: 3,
                initial_backoff: Duration::from_secs(2),
                max_backoff: Duration::from_secs(60),
            },
        }
    }

    fn crashed() -> TranscriptionError {
        TranscriptionError::Engine { fault: EngineFault::ChildCrashed { signal: 9 } }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_fails_twice_and_then_succeeds_waits_the_guides_waits() {
        let guard = guard(Arc::default(), Arc::default());
        let begun = tokio::time::Instant::now();
        let done = guard.call(async |n| if n < 3 { Err(crashed()) } else { Ok("text") }).await.unwrap();
        assert_eq!((done.attempts, begun.elapsed()), (3, Duration::from_secs(6)));
        assert_eq!(guard.breakers.view(Service::Transcription).failure_count, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn exhausted_calls_open_the_breaker_which_a_restart_remembers() {
        let (kept, clock) = (Arc::new(Kept::default()), Arc::new(ScriptedClock::new()));
        let first = guard(kept.clone(), clock.clone());
        for _ in 0..2 {
            let error = first.call(async |_| Err::<(), _>(crashed())).await.unwrap_err();
            assert!(matches!(error, GuardError::Exhausted(e) if e.retry_count == 3 && e.history.len() == 3));
        }
        let reopened = guard(kept, clock.clone());
        let refused = reopened.call(async |_| Ok::<_, TranscriptionError>(())).await;
        assert!(matches!(refused, Err(GuardError::Open(e)) if e.failure_count == 2));
        clock.pass(Duration::from_secs(120));
        reopened.call(async |_| Ok::<_, TranscriptionError>(())).await.unwrap();
        assert_eq!(reopened.breakers.view(Service::Transcription).state, StateName::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn bad_recordings_neither_retry_nor_open_the_breaker() {
        let guard = guard(Arc::default(), Arc::default());
        let mut calls = 0;
        for _ in 0..5 {
            let invalid = TranscriptionError::AudioInvalid { problem: String::new() };
            let result = guard
                .call(async |_| {
                    calls += 1;
                    Err::<(), _>(invalid.clone())
                })
                .await;
            assert!(matches!(result, Err(GuardError::Failed(_))));
        }
        assert_eq!((calls, guard.breakers.view(Service::Transcription).state), (5, StateName::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_probe_gives_its_place_back() {
        let clock = Arc::new(ScriptedClock::new());
        let guard = guard(Arc::default(), clock.clone());
        for _ in 0..2 {
            let _ = guard.call(async |_| Err::<(), _>(crashed())).await;
        }
        clock.pass(Duration::from_secs(120));
        let stuck = guard.call(async |_| std::future::pending::<Result<(), TranscriptionError>>().await);
        assert!(tokio::time::timeout(Duration::from_secs(1), stuck).await.is_err());
        guard.call(async |_| Ok::<_, TranscriptionError>(())).await.unwrap();
    }
}
