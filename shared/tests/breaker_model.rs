//! The breaker against a model of it: whatever is done to both, they answer alike.
//!
//! The model is the guide's text in plain counters. It has one clock, the time the board was on, and one number for
//! a wait: the moment on that clock when it ends. It knows every call by its number.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use shared::ailment::Ailment;
use shared::breaker::{Breaker, Permit, Policy, Service, StateName, Stored, Transition};
use shared::clock::{Clock as _, ScriptedClock, WallTime};

type CallNumber = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Failure,
    NothingSaid,
}

struct Model {
    policy: Policy,
    is: StateName,
    failures_in_a_row: u32,
    good_probes: u32,
    probe: Option<CallNumber>,
    powered: Duration,
    open_until: Duration,
    is_ill: bool,
    /// Since when it has been neither closed nor switched off.
    out_since: Option<Duration>,
}

impl Model {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            is: StateName::Closed,
            failures_in_a_row: 0,
            good_probes: 0,
            probe: None,
            powered: Duration::ZERO,
            open_until: Duration::ZERO,
            is_ill: false,
            out_since: None,
        }
    }

    fn look_at_the_time(&mut self) {
        if self.is == StateName::Open && !self.is_ill && self.powered >= self.open_until {
            self.is = StateName::HalfOpen;
            self.good_probes = 0;
            self.probe = None;
        }
    }

    fn open_for(&mut self, wait: Duration, is_ill: bool) {
        self.is = StateName::Open;
        self.open_until = self.powered + wait;
        self.is_ill = is_ill;
    }

    fn check_health(&mut self, is_ill: bool) {
        match self.is {
            StateName::Closed | StateName::HalfOpen if is_ill => self.open_for(Duration::ZERO, true),
            StateName::Open => self.is_ill = is_ill,
            StateName::Closed | StateName::HalfOpen | StateName::ForcedOpen | StateName::Disabled => {}
        }
    }

    /// After every step.
    fn note_outage(&mut self) {
        self.out_since = match self.is {
            StateName::Closed | StateName::Disabled => None,
            StateName::Open | StateName::HalfOpen | StateName::ForcedOpen => self.out_since.or(Some(self.powered)),
        };
    }

    /// Whether the call may be made, and if so whether it is a probe.
    fn ask(&mut self, call: CallNumber) -> Option<bool> {
        self.look_at_the_time();
        match self.is {
            StateName::Closed | StateName::Disabled => Some(false),
            StateName::HalfOpen if self.probe.is_none() => {
                self.probe = Some(call);
                Some(true)
            }
            StateName::HalfOpen | StateName::Open | StateName::ForcedOpen => None,
        }
    }

    /// In a closed breaker every end of a call counts; in a half-open one only that of its probe.
    fn end(&mut self, call: CallNumber, outcome: Outcome) {
        let was_probe = self.is == StateName::HalfOpen && self.probe == Some(call);
        if was_probe {
            self.probe = None;
        }
        if self.is != StateName::Closed && !was_probe {
            return;
        }
        match outcome {
            Outcome::NothingSaid => {}
            Outcome::Failure => {
                self.failures_in_a_row += 1;
                if was_probe || self.failures_in_a_row >= self.policy.failure_threshold {
                    self.open_for(self.policy.timeout, false);
                }
            }
            Outcome::Success => {
                self.good_probes += u32::from(was_probe);
                // A first good probe does not end the outage: the count stands until the breaker closes.
                if !was_probe || self.good_probes >= self.policy.success_threshold {
                    self.is = StateName::Closed;
                    self.failures_in_a_row = 0;
                }
            }
        }
    }

    fn decide(&mut self, person: Person) {
        match person {
            Person::Reset => (self.is, self.failures_in_a_row) = (StateName::Closed, 0),
            Person::ForceOpen => self.is = StateName::ForcedOpen,
            Person::Disable => (self.is, self.failures_in_a_row) = (StateName::Disabled, 0),
        }
    }

    fn is_wait_right(&self, retry_after: Option<Duration>) -> bool {
        match self.is {
            StateName::Closed | StateName::Disabled => retry_after == Some(Duration::ZERO),
            StateName::HalfOpen if self.probe.is_none() => retry_after == Some(Duration::ZERO),
            // How long a probe takes nobody knows; only "now" would be wrong.
            StateName::HalfOpen => retry_after.is_some_and(|wait| !wait.is_zero()),
            // How long it will be ill nobody knows; only "now", or sooner than its wait, would be wrong.
            StateName::Open if self.is_ill => {
                retry_after.is_some_and(|wait| !wait.is_zero() && self.powered + wait >= self.open_until)
            }
            StateName::Open => retry_after == Some(self.open_until.saturating_sub(self.powered)),
            StateName::ForcedOpen => retry_after.is_none(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Person {
    Reset,
    ForceOpen,
    Disable,
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    End {
        which: Index,
        outcome: Outcome,
    },
    Pass(Duration),
    SetWall(i64),
    /// Killed after its last store, started again in the same boot.
    Crash {
        dead_for: Duration,
    },
    /// Power lost some time after the last store, and back.
    PowerCut {
        unstored: Duration,
    },
    Decide(Person),
    Tick,
    CheckHealth {
        is_ill: bool,
    },
}

fn policies() -> impl Strategy<Value = Policy> {
    let threshold = || prop_oneof![1u32..=2, 1u32..=5];
    (threshold(), 1u64..=300, threshold()).prop_map(|(failure_threshold, seconds, success_threshold)| Policy {
        failure_threshold,
        timeout: Duration::from_secs(seconds),
        success_threshold,
    })
}

/// Up to twice the longest wait, with its last and first moments more often than chance would have them.
fn spans(timeout: Duration) -> impl Strategy<Value = Duration> {
    let nanosecond = Duration::from_nanos(1);
    prop_oneof![
        3 => (0u32..=2000).prop_map(move |part| timeout * part / 1000),
        2 => Just(timeout),
        1 => Just(timeout - nanosecond),
        1 => Just(nanosecond),
    ]
}

fn steps(timeout: Duration) -> impl Strategy<Value = Step> {
    const THREE_YEARS_MS: i64 = 3 * 365 * 86_400_000;
    let outcome =
        prop_oneof![2 => Just(Outcome::Success), 3 => Just(Outcome::Failure), 1 => Just(Outcome::NothingSaid)];
    // Without many resets a history would spend most of its length forced open.
    let person = prop_oneof![3 => Just(Person::Reset), 1 => Just(Person::ForceOpen), 1 => Just(Person::Disable)];
    prop_oneof![
        12 => Just(Step::Ask),
        10 => (any::<Index>(), outcome).prop_map(|(which, outcome)| Step::End { which, outcome }),
        5 => spans(timeout).prop_map(Step::Pass),
        1 => (-THREE_YEARS_MS..=THREE_YEARS_MS).prop_map(Step::SetWall),
        1 => spans(timeout).prop_map(|dead_for| Step::Crash { dead_for }),
        1 => spans(timeout).prop_map(|unstored| Step::PowerCut { unstored }),
        3 => person.prop_map(Step::Decide),
        2 => Just(Step::Tick),
        4 => any::<bool>().prop_map(|is_ill| Step::CheckHealth { is_ill }),
    ]
}

fn histories() -> impl Strategy<Value = (Policy, Vec<Step>)> {
    policies().prop_flat_map(|policy| (Just(policy), proptest::collection::vec(steps(policy.timeout), 0..200)))
}

/// Both of them, the clock they are asked under, and the calls that have not ended.
struct Pair {
    model: Model,
    breaker: Breaker,
    clock: ScriptedClock,
    under_way: Vec<(CallNumber, Permit)>,
    calls: CallNumber,
    boots: u32,
}

impl Pair {
    fn new(policy: Policy) -> Self {
        Self {
            model: Model::new(policy),
            breaker: Breaker::new(Service::Transcription, policy),
            clock: ScriptedClock::new(),
            under_way: Vec::new(),
            calls: 0,
            boots: 0,
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.breaker.state().name();
        let moved = match step {
            Step::Ask => self.ask()?,
            Step::End { which, outcome } if !self.under_way.is_empty() => {
                let (call, permit) = self.under_way.swap_remove(which.index(self.under_way.len()));
                self.model.end(call, *outcome);
                end(&mut self.breaker, permit, *outcome, &self.clock)
            }
            Step::End { .. } => None,
            Step::Pass(span) => {
                self.pass(*span);
                None
            }
            Step::SetWall(by_ms) => {
                self.clock.set_wall(WallTime(self.clock.now().wall.0 + by_ms));
                None
            }
            Step::Crash { dead_for } => {
                let stored = self.store()?;
                self.pass(*dead_for);
                self.restore(&stored)?;
                None
            }
            Step::PowerCut { unstored } => {
                let stored = self.store()?;
                // Nobody wrote down that this time passed, so it has to be waited again.
                self.clock.pass(*unstored);
                self.boots += 1;
                self.clock.reboot(&format!("boot {}", self.boots));
                self.restore(&stored)?;
                None
            }
            Step::Decide(person) => {
                self.model.decide(*person);
                decide(&mut self.breaker, *person, &self.clock)
            }
            Step::Tick => {
                self.model.look_at_the_time();
                self.breaker.tick(&self.clock.now())
            }
            Step::CheckHealth { is_ill: true } => {
                self.model.check_health(true);
                self.breaker.sicken(Ailment::UnderVoltage, &self.clock.now())
            }
            Step::CheckHealth { is_ill: false } => {
                self.model.check_health(false);
                self.breaker.recover();
                None
            }
        };
        self.model.note_outage();
        self.compare(before, moved)
    }

    fn ask(&mut self) -> Result<Option<Transition>, TestCaseError> {
        self.calls += 1;
        let expected = self.model.ask(self.calls);
        match self.breaker.admit(&self.clock.now()) {
            Ok((permit, moved)) => {
                prop_assert_eq!(Some(permit != Permit::Free), expected);
                self.under_way.push((self.calls, permit));
                Ok(moved)
            }
            Err(refusal) => {
                prop_assert_eq!(None, expected);
                prop_assert_eq!(refusal.service_name, Service::Transcription);
                prop_assert_eq!(refusal.failure_count, self.model.failures_in_a_row);
                prop_assert!(self.model.is_wait_right(refusal.retry_after), "refused for {:?}", refusal.retry_after);
                Ok(None)
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        self.clock.pass(span);
        self.model.powered += span;
    }

    fn store(&self) -> Result<String, TestCaseError> {
        serde_json::to_string(&self.breaker.stored(&self.clock.now())).map_err(unreadable)
    }

    /// Whoever was calling is gone.
    fn restore(&mut self, stored: &str) -> Result<(), TestCaseError> {
        let stored: Stored = serde_json::from_str(stored).map_err(unreadable)?;
        self.breaker = Breaker::restored(Service::Transcription, self.model.policy, stored, &self.clock.now());
        self.under_way.clear();
        self.model.probe = None;
        Ok(())
    }

    fn compare(&self, before: StateName, moved: Option<Transition>) -> Result<(), TestCaseError> {
        let is = self.breaker.state().name();
        prop_assert_eq!(is, self.model.is);
        prop_assert_eq!(moved, (before != is).then_some(Transition { from: before, to: is }));
        prop_assert_eq!(self.breaker.failure_count(), self.model.failures_in_a_row);
        prop_assert_eq!(self.breaker.ailment().is_some(), is == StateName::Open && self.model.is_ill);
        let out_for = self.model.out_since.map(|since| self.model.powered - since);
        prop_assert_eq!(self.breaker.open_for(&self.clock.now()), out_for);
        let retry_after = self.breaker.retry_after(&self.clock.now());
        prop_assert!(self.model.is_wait_right(retry_after), "waits {:?}", retry_after);
        Ok(())
    }
}

fn unreadable(why: serde_json::Error) -> TestCaseError {
    TestCaseError::fail(format!("a breaker must survive being stored: {why}"))
}

fn end(breaker: &mut Breaker, permit: Permit, outcome: Outcome, clock: &ScriptedClock) -> Option<Transition> {
    match outcome {
        Outcome::Success => breaker.succeed(permit, &clock.now()),
        Outcome::Failure => breaker.fail(permit, &clock.now()),
        Outcome::NothingSaid => {
            breaker.release(permit);
            None
        }
    }
}

fn decide(breaker: &mut Breaker, person: Person, clock: &ScriptedClock) -> Option<Transition> {
    match person {
        Person::Reset => breaker.reset(&clock.now()),
        Person::ForceOpen => breaker.force_open(&clock.now()),
        Person::Disable => breaker.disable(&clock.now()),
    }
}

proptest! {
    #[test]
    fn whatever_is_done_to_it_it_answers_as_the_model_does((policy, steps) in histories()) {
        let mut pair = Pair::new(policy);
        for step in &steps {
            pair.take(step)?;
        }
    }
}

#[test]
fn a_probe_from_before_a_health_check_or_a_reset_neither_counts_nor_makes_room_beside_the_one_after_it() {
    let policy = Policy { failure_threshold: 1, timeout: Duration::from_secs(1), success_threshold: 1 };
    for (outcome, is_reset) in
        [Outcome::Success, Outcome::Failure, Outcome::NothingSaid].into_iter().flat_map(|o| [(o, true), (o, false)])
    {
        let clock = ScriptedClock::new();
        let mut breaker = Breaker::new(Service::Transcription, policy);
        let fail_once = |breaker: &mut Breaker| {
            let (call, _) = breaker.admit(&clock.now()).unwrap();
            end(breaker, call, Outcome::Failure, &clock);
            clock.pass(policy.timeout);
        };
        fail_once(&mut breaker);
        let (earlier, _) = breaker.admit(&clock.now()).unwrap();
        if is_reset {
            decide(&mut breaker, Person::Reset, &clock);
            fail_once(&mut breaker);
        } else {
            breaker.sicken(Ailment::UnderVoltage, &clock.now());
            breaker.recover();
        }
        let _later = breaker.admit(&clock.now()).unwrap();
        end(&mut breaker, earlier, outcome, &clock);
        assert_eq!(breaker.state().name(), StateName::HalfOpen, "the earlier probe: {outcome:?}");
        assert!(breaker.admit(&clock.now()).is_err(), "two probes at once after the earlier one: {outcome:?}");
    }
}
