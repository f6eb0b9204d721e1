//! What the tests of other breakers ask of calls, asked of our guard. `BREAKER.md` says which test answers which.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of a test may fail it")]

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use serde_json::Value;
use shared::breaker::{Policy, Service, StateName, Stored, Transition};
use shared::clock::{Now, ScriptedClock};
use shared::error::{Advice, EngineFault, Fault, GuardError, TranscriptionError};
use shared::guard::{BreakerStore, Breakers, Guard, Outcome, Rungs};
use shared::retry;
use shared::store::BreakerCommand;

const POLICY: Policy = Policy { failure_threshold: 2, timeout: Duration::from_secs(120), success_threshold: 2 };

/// Remembers everything it was given, in order.
#[derive(Default)]
struct Diary(Mutex<Vec<(Service, Option<Transition>, Stored)>>);

impl Diary {
    fn entries(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl BreakerStore for Diary {
    fn keep(
        &self,
        service: Service,
        stored: &Stored,
        moved: Option<Transition>,
        _: &[BreakerCommand],
        _: &Now,
    ) -> bool {
        self.0.lock().unwrap().push((service, moved, stored.clone()));
        true
    }

    fn called(&self, _: Service, _: Outcome, _: Duration, _: &Now) {}

    fn kept(&self, service: Service) -> Option<Stored> {
        self.0.lock().unwrap().iter().rev().find(|(of, ..)| *of == service).map(|(.., stored)| stored.clone())
    }
}

/// Guarded calls, the clock they are made under, and what is stored of them.
struct Bench {
    guard: Guard,
    clock: Arc<ScriptedClock>,
    diary: Arc<Diary>,
}

impl Bench {
    fn closed() -> Self {
        let (clock, diary) = (Arc::new(ScriptedClock::new()), Arc::new(Diary::default()));
        let retry = retry::Policy {
            attempts: 3,
            initial_backoff: Duration::from_secs(2),
            max_backoff: Duration::from_secs(60),
        };
        let breakers = Arc::new(Breakers::open(diary.clone(), clock.clone(), &Service::ALL, |_| POLICY));
        Self { guard: Guard { breakers, service: Service::Transcription, retry, session: "s".into() }, clock, diary }
    }

    async fn open() -> Self {
        let bench = Self::closed();
        for _ in 0..POLICY.failure_threshold {
            bench.fail_with(crashed()).await.unwrap_err();
        }
        assert_eq!(bench.is(), StateName::Open);
        bench
    }

    /// With its wait over and nobody trying yet.
    async fn due() -> Self {
        let bench = Self::open().await;
        bench.clock.pass(POLICY.timeout);
        bench
    }

    fn is(&self) -> StateName {
        self.guard.breakers.view(self.guard.service).state
    }

    fn failures(&self) -> u32 {
        self.guard.breakers.view(self.guard.service).failure_count
    }

    async fn succeed(&self) -> Result<(), GuardError<TranscriptionError>> {
        self.guard.call(Rungs::ONE, async |_| Ok(())).await.map(|_| ())
    }

    async fn fail_with<E: Fault + Clone>(&self, why: E) -> Result<(), GuardError<E>> {
        self.guard.call(Rungs::ONE, async |_| Err::<(), _>(why.clone())).await.map(|_| ())
    }
}

fn crashed() -> TranscriptionError {
    TranscriptionError::Engine { fault: EngineFault::ChildCrashed { signal: 9 } }
}

fn bad_recording() -> TranscriptionError {
    TranscriptionError::AudioInvalid { problem: String::new() }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_refuses_at_once_without_making_the_call() {
    let bench = Bench::open().await;
    let begun = tokio::time::Instant::now();
    let mut calls = 0;
    let refused = bench
        .guard
        .call(Rungs::ONE, async |_| {
            calls += 1;
            Ok::<_, TranscriptionError>(())
        })
        .await;
    assert!(matches!(refused, Err(GuardError::Open(why)) if why.retry_after == Some(POLICY.timeout)));
    assert_eq!((calls, begun.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_no_failures_and_cost_no_write() {
    let bench = Bench::open().await;
    let (entries, failures) = (bench.diary.entries(), bench.failures());
    for _ in 0..100 {
        bench.succeed().await.unwrap_err();
    }
    assert_eq!((bench.diary.entries(), bench.failures()), (entries, failures));
}

#[tokio::test(start_paused = true)]
async fn every_guard_of_a_service_sees_the_same_breaker_and_no_other_service_does() {
    let bench = Bench::open().await;
    let twin = bench.guard.clone();
    assert!(matches!(twin.call(Rungs::ONE, async |_| Ok::<_, TranscriptionError>(())).await, Err(GuardError::Open(_))));
    let other = Guard { service: Service::Diarization, ..bench.guard.clone() };
    other.call(Rungs::ONE, async |_| Ok::<_, TranscriptionError>(())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_many_calls_at_the_same_moment_in_half_open_exactly_one_is_made() {
    const CALLERS: u32 = 8;
    let bench = Bench::due().await;
    let (made, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    let all_here = Barrier::new(CALLERS as usize);
    let caller = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        all_here.wait();
        // The one that is let in stays until every other caller has had its answer.
        let call = bench.guard.call(Rungs::ONE, async |_| {
            made.fetch_add(1, Ordering::SeqCst);
            while made.load(Ordering::SeqCst) + refused.load(Ordering::SeqCst) < CALLERS {
                std::thread::yield_now();
            }
            Ok::<_, TranscriptionError>(())
        });
        if runtime.block_on(call).is_err() {
            refused.fetch_add(1, Ordering::SeqCst);
        }
    };
    std::thread::scope(|threads| (0..CALLERS).for_each(|_| drop(threads.spawn(caller))));
    assert_eq!((made.into_inner(), refused.into_inner()), (1, CALLERS - 1));
    assert_eq!(bench.is(), StateName::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_in_an_attempt_or_between_two_counts_as_nothing_and_leaves_its_place_free() {
    for seconds in [1, 3] {
        let bench = Bench::due().await;
        // An attempt that takes two seconds and fails, then a wait of two: dropped in the one or in the other.
        let stuck = bench.guard.call(Rungs::ONE, async |_| {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Err::<(), _>(crashed())
        });
        assert!(tokio::time::timeout(Duration::from_secs(seconds), stuck).await.is_err());
        assert_eq!((bench.is(), bench.failures()), (StateName::HalfOpen, 2));
        bench.succeed().await.unwrap();
        assert_eq!(bench.is(), StateName::HalfOpen, "one good probe of two: the dropped one was no success");
        bench.succeed().await.unwrap();
        assert_eq!(bench.is(), StateName::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_polled_takes_no_place() {
    let bench = Bench::due().await;
    drop(bench.succeed());
    assert_eq!(bench.is(), StateName::Open);
    bench.succeed().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_cancelled_while_closed_neither_breaks_the_row_nor_lengthens_it() {
    let bench = Bench::closed();
    bench.fail_with(crashed()).await.unwrap_err();
    let stuck = bench.guard.call(Rungs::ONE, async |_| std::future::pending::<Result<(), TranscriptionError>>().await);
    assert!(tokio::time::timeout(Duration::from_secs(1), stuck).await.is_err());
    assert_eq!((bench.is(), bench.failures()), (StateName::Closed, 1));
    bench.fail_with(crashed()).await.unwrap_err();
    assert_eq!(bench.is(), StateName::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_counts_as_nothing_and_leaves_its_place_free() {
    let bench = Bench::due().await;
    let guard = bench.guard.clone();
    let panicked = tokio::task::LocalSet::new()
        .run_until(async {
            let call = async move {
                guard.call(Rungs::ONE, async |_| -> Result<(), TranscriptionError> { panic!("on purpose") }).await
            };
            tokio::task::spawn_local(call).await
        })
        .await;
    assert!(panicked.unwrap_err().is_panic());
    assert_eq!((bench.is(), bench.failures()), (StateName::HalfOpen, 2));
    bench.succeed().await.unwrap();
}

/// An error that cannot say whom it blames.
#[derive(Debug, Clone)]
struct Speechless;

impl fmt::Display for Speechless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("It failed")
    }
}

impl std::error::Error for Speechless {}

impl Fault for Speechless {
    fn advice(&self) -> Advice {
        Advice::GiveUp
    }

    fn blames_engine(&self) -> bool {
        panic!("on purpose")
    }

    fn error_type(&self) -> &'static str {
        "Speechless"
    }

    fn details(&self) -> Value {
        Value::Null
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_panics_when_it_is_judged_leaves_its_place_free() {
    let bench = Bench::due().await;
    let guard = bench.guard.clone();
    let panicked = tokio::task::LocalSet::new()
        .run_until(async {
            let call = async move { guard.call(Rungs::ONE, async |_| Err::<(), _>(Speechless)).await.map(|_| ()) };
            tokio::task::spawn_local(call).await
        })
        .await;
    assert!(panicked.unwrap_err().is_panic());
    bench.succeed().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bad_recording_is_neither_a_success_nor_a_failure_in_closed_and_in_half_open() {
    let bench = Bench::closed();
    bench.fail_with(crashed()).await.unwrap_err();
    bench.fail_with(bad_recording()).await.unwrap_err();
    assert_eq!(bench.failures(), 1, "the row is not broken");
    bench.fail_with(crashed()).await.unwrap_err();
    assert_eq!(bench.is(), StateName::Open);
    bench.clock.pass(POLICY.timeout);
    for _ in 0..5 {
        bench.fail_with(bad_recording()).await.unwrap_err();
        assert_eq!(bench.is(), StateName::HalfOpen);
    }
    bench.succeed().await.unwrap();
    assert_eq!(bench.is(), StateName::HalfOpen);
    bench.succeed().await.unwrap();
    assert_eq!(bench.is(), StateName::Closed);
}

#[tokio::test(start_paused = true)]
async fn one_call_counts_once_however_often_it_was_tried() {
    let bench = Bench::closed();
    let exhausted = bench.fail_with(crashed()).await.unwrap_err();
    assert!(matches!(exhausted, GuardError::Exhausted(why) if why.retry_count == 3));
    assert_eq!((bench.is(), bench.failures()), (StateName::Closed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_success_is_a_success_and_a_missed_deadline_is_a_failure() {
    let bench = Bench::closed();
    bench.fail_with(crashed()).await.unwrap_err();
    let slow = bench.guard.call(Rungs::ONE, async |_| {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok::<_, TranscriptionError>(())
    });
    slow.await.unwrap();
    assert_eq!(bench.failures(), 0);
    let late = TranscriptionError::Engine { fault: EngineFault::DeadlineExceeded { limit_ms: 1000 } };
    bench.fail_with(late).await.unwrap_err();
    assert_eq!(bench.failures(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_when_a_person_forces_it_open_goes_to_its_end_and_moves_nothing() {
    let bench = Bench::closed();
    let mut number = 0;
    let call = bench.guard.call(Rungs::ONE, async |_| {
        number += 1;
        bench.guard.breakers.force_open(Service::Transcription);
        if number < 2 { Err(crashed()) } else { Ok("text") }
    });
    assert_eq!(call.await.unwrap().attempts, 2);
    assert_eq!(bench.is(), StateName::ForcedOpen);
}

#[tokio::test(start_paused = true)]
async fn each_move_is_kept_once_together_with_the_state_it_led_to() {
    let bench = Bench::due().await;
    for _ in 0..2 {
        bench.succeed().await.unwrap();
    }
    bench.guard.breakers.disable(Service::Transcription);
    bench.fail_with(crashed()).await.unwrap_err();
    let entries = bench.diary.0.lock().unwrap();
    let moves: Vec<Transition> = entries.iter().filter_map(|(_, moved, _)| *moved).collect();
    let expected = [StateName::Closed, StateName::Open, StateName::HalfOpen, StateName::Closed, StateName::Disabled];
    assert_eq!(moves, expected.windows(2).map(|w| Transition { from: w[0], to: w[1] }).collect::<Vec<_>>());
    for (_, moved, stored) in entries.iter() {
        assert!(moved.is_none_or(|moved| moved.to == stored.state.name()));
    }
}
