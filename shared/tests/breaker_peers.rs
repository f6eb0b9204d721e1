//! What the tests of other breakers ask of theirs, asked of ours. `BREAKER.md` says which test answers which.

#![allow(clippy::unwrap_used, reason = "helpers of a test may fail it")]

use std::time::Duration;

use shared::breaker::{Breaker, Permit, Policy, Service, StateName, Stored, Transition};
use shared::clock::{Clock as _, ScriptedClock, WallTime};
use shared::error::CircuitBreakerOpenError;
use shared::paths::Root;
use shared::settings::Settings;

const POLICY: Policy = Policy { failure_threshold: 3, timeout: Duration::from_secs(60), success_threshold: 2 };
const NOW: Option<Duration> = Some(Duration::ZERO);

/// A breaker and the clock it is asked under.
struct Bench {
    breaker: Breaker,
    clock: ScriptedClock,
}

impl Bench {
    fn closed() -> Self {
        Self::with(POLICY)
    }

    fn with(policy: Policy) -> Self {
        Self { breaker: Breaker::new(Service::Transcription, policy), clock: ScriptedClock::new() }
    }

    fn open() -> Self {
        let mut bench = Self::closed();
        assert_eq!(bench.failing_calls(3), 3);
        assert_eq!(bench.is(), StateName::Open);
        bench
    }

    /// With nobody trying.
    fn half_open() -> Self {
        let mut bench = Self::open();
        bench.clock.pass(POLICY.timeout);
        let probe = bench.ask().unwrap();
        bench.breaker.release(probe);
        assert_eq!((bench.is(), bench.waits()), (StateName::HalfOpen, NOW));
        bench
    }

    fn is(&self) -> StateName {
        self.breaker.state().name()
    }

    fn waits(&self) -> Option<Duration> {
        self.breaker.retry_after(&self.clock.now())
    }

    fn ask(&mut self) -> Result<Permit, CircuitBreakerOpenError> {
        self.breaker.admit(&self.clock.now()).map(|(permit, _)| permit)
    }

    fn succeed(&mut self, permit: Permit) -> Option<Transition> {
        self.breaker.succeed(permit, &self.clock.now())
    }

    fn fail(&mut self, permit: Permit) -> Option<Transition> {
        self.breaker.fail(permit, &self.clock.now())
    }

    fn reset(&mut self) -> Option<Transition> {
        self.breaker.reset(&self.clock.now())
    }

    fn force_open(&mut self) -> Option<Transition> {
        self.breaker.force_open(&self.clock.now())
    }

    fn disable(&mut self) -> Option<Transition> {
        self.breaker.disable(&self.clock.now())
    }

    /// So many calls that fail if they are let in; how many were.
    fn failing_calls(&mut self, calls: u32) -> u32 {
        (0..calls).map(|_| self.ask().map(|permit| self.fail(permit))).map(|call| u32::from(call.is_ok())).sum()
    }

    fn restart(&mut self) {
        let stored = serde_json::to_string(&self.breaker.stored(&self.clock.now())).unwrap();
        let stored: Stored = serde_json::from_str(&stored).unwrap();
        self.breaker = Breaker::restored(Service::Transcription, POLICY, stored, &self.clock.now());
    }
}

#[test]
fn the_threshold_opens_it_exactly_and_not_one_failure_sooner() {
    for failure_threshold in 1..=5 {
        let mut bench = Bench::with(Policy { failure_threshold, ..POLICY });
        bench.failing_calls(failure_threshold - 1);
        assert_eq!(bench.is(), StateName::Closed);
        bench.failing_calls(1);
        assert_eq!(bench.is(), StateName::Open);
    }
}

#[test]
fn failures_that_are_not_in_a_row_never_open_it_however_many_they_are() {
    let mut bench = Bench::closed();
    for _ in 0..100 {
        bench.failing_calls(2);
        let call = bench.ask().unwrap();
        assert_eq!(bench.succeed(call), None);
    }
    assert_eq!((bench.is(), bench.breaker.failure_count()), (StateName::Closed, 0));
}

#[test]
fn a_refused_call_says_which_service_how_many_failures_and_how_long() {
    let mut bench = Bench::open();
    bench.clock.pass(Duration::from_secs(20));
    let refusal = bench.ask().unwrap_err();
    assert_eq!((refusal.service_name, refusal.failure_count), (Service::Transcription, 3));
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(40)));
    assert_eq!(refusal.to_string(), "The circuit breaker is open");
}

#[test]
fn refusing_changes_nothing() {
    let mut bench = Bench::open();
    let before = bench.breaker.clone();
    assert_eq!(bench.failing_calls(100), 0);
    assert_eq!(bench.breaker, before);
}

#[test]
fn it_is_open_until_the_last_nanosecond_of_its_wait() {
    let mut bench = Bench::open();
    bench.clock.pass(POLICY.timeout - Duration::from_nanos(1));
    assert!(bench.ask().is_err());
    bench.clock.pass(Duration::from_nanos(1));
    assert!(bench.ask().is_ok());
    assert_eq!(bench.is(), StateName::HalfOpen);
}

#[test]
fn every_opening_waits_the_same_timeout() {
    let mut bench = Bench::open();
    for _ in 0..5 {
        assert_eq!(bench.waits(), Some(POLICY.timeout));
        bench.clock.pass(POLICY.timeout);
        assert_eq!(bench.failing_calls(1), 1);
        assert_eq!(bench.is(), StateName::Open);
    }
}

#[test]
fn without_a_wait_it_tries_at_the_next_call_and_opens_again_when_that_fails() {
    let mut bench = Bench::with(Policy { timeout: Duration::ZERO, ..POLICY });
    bench.failing_calls(3);
    assert_eq!((bench.is(), bench.waits()), (StateName::Open, NOW));
    assert_eq!(bench.failing_calls(1), 1);
    assert_eq!(bench.is(), StateName::Open);
}

#[test]
fn a_probe_given_back_makes_room_for_exactly_one_other() {
    let mut bench = Bench::half_open();
    let probe = bench.ask().unwrap();
    assert!(bench.ask().is_err());
    bench.breaker.release(probe);
    assert!(bench.ask().is_ok());
    assert!(bench.ask().is_err());
}

#[test]
fn the_first_failed_probe_opens_it_again_whatever_went_well_before() {
    for good in 0..4 {
        let mut bench = Bench::with(Policy { success_threshold: 5, ..POLICY });
        bench.failing_calls(3);
        bench.clock.pass(POLICY.timeout);
        for _ in 0..good {
            let probe = bench.ask().unwrap();
            bench.succeed(probe);
        }
        bench.failing_calls(1);
        assert_eq!((bench.is(), bench.waits()), (StateName::Open, Some(POLICY.timeout)));
    }
}

#[test]
fn probes_that_went_well_before_it_opened_again_do_not_count() {
    let mut bench = Bench::half_open();
    let good = bench.ask().unwrap();
    bench.succeed(good);
    bench.failing_calls(1);
    bench.clock.pass(POLICY.timeout);
    let first = bench.ask().unwrap();
    assert_eq!(bench.succeed(first), None);
    let second = bench.ask().unwrap();
    assert_eq!(bench.succeed(second), Some(Transition { from: StateName::HalfOpen, to: StateName::Closed }));
}

#[test]
fn probes_that_say_nothing_neither_close_it_nor_open_it() {
    let mut bench = Bench::half_open();
    for _ in 0..10 {
        let probe = bench.ask().unwrap();
        bench.breaker.release(probe);
    }
    assert_eq!((bench.is(), bench.breaker.failure_count()), (StateName::HalfOpen, 3));
    for _ in 0..2 {
        let probe = bench.ask().unwrap();
        bench.succeed(probe);
    }
    assert_eq!(bench.is(), StateName::Closed);
}

#[test]
fn a_call_admitted_before_it_opened_neither_closes_it_nor_lengthens_its_wait() {
    let mut bench = Bench::closed();
    let (slow_success, slow_failure) = (bench.ask().unwrap(), bench.ask().unwrap());
    bench.failing_calls(3);
    bench.clock.pass(Duration::from_secs(20));
    assert_eq!((bench.succeed(slow_success), bench.fail(slow_failure)), (None, None));
    assert_eq!((bench.is(), bench.waits()), (StateName::Open, Some(Duration::from_secs(40))));
    assert_eq!(bench.breaker.failure_count(), 3);
}

#[test]
fn a_call_admitted_before_it_opened_says_nothing_while_it_is_half_open() {
    let mut bench = Bench::closed();
    let (slow_success, slow_failure, cancelled) = (bench.ask().unwrap(), bench.ask().unwrap(), bench.ask().unwrap());
    bench.failing_calls(3);
    bench.clock.pass(POLICY.timeout);
    let _probe = bench.ask().unwrap();
    assert_eq!((bench.succeed(slow_success), bench.fail(slow_failure)), (None, None));
    bench.breaker.release(cancelled);
    assert_eq!(bench.is(), StateName::HalfOpen);
    assert!(bench.ask().is_err(), "the probe keeps its place");
}

#[test]
fn half_open_lasts_until_a_probe_decides() {
    let mut bench = Bench::half_open();
    bench.clock.pass(Duration::from_secs(365 * 86_400));
    assert_eq!((bench.is(), bench.waits()), (StateName::HalfOpen, NOW));
    let _probe = bench.ask().unwrap();
    bench.clock.pass(Duration::from_secs(365 * 86_400));
    assert!(bench.ask().is_err(), "a probe is bounded by its own deadline, not by the breaker");
}

#[test]
fn looking_at_it_moves_nothing() {
    let mut bench = Bench::open();
    bench.clock.pass(POLICY.timeout * 10);
    let before = bench.breaker.clone();
    assert_eq!((bench.is(), bench.waits()), (StateName::Open, NOW));
    assert_eq!(bench.breaker, before);
    assert!(bench.ask().is_ok());
}

#[test]
fn a_reset_closes_it_from_every_state_and_starts_the_count_anew() {
    let disabled = || {
        let mut bench = Bench::closed();
        bench.disable();
        bench
    };
    let forced = || {
        let mut bench = Bench::open();
        bench.force_open();
        bench
    };
    for mut bench in [Bench::closed(), Bench::open(), Bench::half_open(), forced(), disabled()] {
        bench.reset();
        assert_eq!((bench.is(), bench.breaker.failure_count()), (StateName::Closed, 0));
        bench.failing_calls(2);
        bench.reset();
        bench.failing_calls(2);
        assert_eq!(bench.is(), StateName::Closed, "two failures before a reset and two after are not three in a row");
        bench.failing_calls(1);
        assert_eq!((bench.is(), bench.waits()), (StateName::Open, Some(POLICY.timeout)), "its policy has stayed");
    }
}

#[test]
fn forced_open_ends_by_a_person_only() {
    for mut bench in [Bench::closed(), Bench::open(), Bench::half_open()] {
        bench.force_open();
        bench.clock.pass(POLICY.timeout * 100);
        assert_eq!(bench.ask().unwrap_err().retry_after, None);
        bench.restart();
        assert_eq!((bench.is(), bench.waits()), (StateName::ForcedOpen, None));
        bench.reset();
        assert_eq!((bench.is(), bench.waits()), (StateName::Closed, NOW));
    }
}

#[test]
fn disabled_lets_everything_pass_and_counts_nothing() {
    let mut bench = Bench::closed();
    bench.failing_calls(2);
    bench.disable();
    assert_eq!(bench.failing_calls(100), 100);
    assert_eq!((bench.is(), bench.breaker.failure_count()), (StateName::Disabled, 0));
}

#[test]
fn entering_the_state_it_is_in_is_no_transition() {
    let mut bench = Bench::closed();
    let moved = |from, to| Some(Transition { from, to });
    assert_eq!(bench.reset(), None);
    assert_eq!(bench.disable(), moved(StateName::Closed, StateName::Disabled));
    assert_eq!(bench.disable(), None);
    assert_eq!(bench.force_open(), moved(StateName::Disabled, StateName::ForcedOpen));
    assert_eq!(bench.force_open(), None);
    assert_eq!(bench.reset(), moved(StateName::ForcedOpen, StateName::Closed));
}

#[test]
fn every_state_survives_being_stored() {
    let mut disabled = Bench::closed();
    disabled.disable();
    let mut forced = Bench::open();
    forced.force_open();
    let mut counting = Bench::closed();
    counting.failing_calls(2);
    for mut bench in [Bench::closed(), counting, Bench::open(), Bench::half_open(), forced, disabled] {
        let before = (bench.is(), bench.waits(), bench.breaker.failure_count());
        bench.restart();
        assert_eq!((bench.is(), bench.waits(), bench.breaker.failure_count()), before);
    }
}

#[test]
fn failures_in_a_row_and_good_probes_go_on_counting_after_a_restart() {
    let mut bench = Bench::closed();
    bench.failing_calls(2);
    bench.restart();
    bench.failing_calls(1);
    assert_eq!(bench.is(), StateName::Open);
    bench.clock.pass(POLICY.timeout);
    let first = bench.ask().unwrap();
    bench.succeed(first);
    bench.restart();
    let second = bench.ask().unwrap();
    bench.succeed(second);
    assert_eq!(bench.is(), StateName::Closed);
}

#[test]
fn a_probe_that_died_with_its_process_leaves_its_place_free() {
    let mut bench = Bench::half_open();
    let _gone = bench.ask().unwrap();
    bench.restart();
    assert!(bench.ask().is_ok());
}

#[test]
fn setting_the_clock_by_years_neither_shortens_nor_lengthens_its_wait() {
    for years in [-30, -1, 1, 30] {
        let mut bench = Bench::open();
        let wall = bench.clock.now().wall.0 + years * 365 * 86_400_000;
        bench.clock.set_wall(WallTime(wall));
        assert_eq!(bench.waits(), Some(POLICY.timeout));
        bench.restart();
        bench.clock.pass(POLICY.timeout - Duration::from_nanos(1));
        assert!(bench.ask().is_err());
        bench.clock.pass(Duration::from_nanos(1));
        assert!(bench.ask().is_ok());
    }
}

#[test]
fn a_threshold_of_nought_is_refused_when_settings_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let nought = |set: &str| {
        Settings::load(&Root::new(folder.path()), |variable| (variable == set).then(|| "0".to_owned()))
            .map(|_| ())
            .map_err(|why| why.to_string())
    };
    for (variable, setting) in [
        ("TRANSCRIPTION_CIRCUIT_FAILURE_THRESHOLD", "transcription_circuit.failure_threshold"),
        ("DIARIZATION_CIRCUIT_SUCCESS_THRESHOLD", "diarization_circuit.success_threshold"),
    ] {
        assert!(nought(variable).unwrap_err().contains(setting));
    }
}

#[test]
fn every_test_that_the_comparison_names_exists() {
    let sources = [
        ("breaker", include_str!("../src/breaker.rs")),
        ("guard", include_str!("../src/guard.rs")),
        ("breaker_peers", include_str!("breaker_peers.rs")),
        ("guard_peers", include_str!("guard_peers.rs")),
        ("breaker_model", include_str!("breaker_model.rs")),
    ];
    let spans = include_str!("../BREAKER.md").split('`').skip(1).step_by(2);
    let named: Vec<(&str, &str)> = spans.filter_map(|span| span.split_once("::")).collect();
    assert!(named.len() > 40);
    for (file, test) in named {
        let source = sources.iter().find(|(name, _)| *name == file).map(|(_, source)| *source);
        assert!(source.is_some_and(|source| source.contains(&format!("fn {test}("))), "{file}::{test}");
    }
}
