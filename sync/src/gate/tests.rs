use super::fixture::{POLICY, World};
use super::*;
use shared::guard::Outcome;
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);

fn fail(gate: &Gate, times: u32) {
    for _ in 0..times {
        gate.admit().ok().unwrap().settle(Outcome::Failed, Duration::ZERO);
    }
}

fn wait(gate: &Gate) -> Duration {
    gate.admit().err().expect("it lets nothing through").retry_after.expect("its wait ends by itself")
}

/// Goes on for so long, looking every second, as the loop does.
async fn live(gate: &Gate, seconds: u32) {
    for _ in 0..seconds {
        advance(SECOND).await;
        gate.heed();
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_open_in_the_next_process_and_waits_for_what_was_left() {
    let world = World::new();
    let gate = world.gate();
    fail(&gate, 4);
    assert!(!gate.holds());
    fail(&gate, 1);
    live(&gate, 25).await;
    drop(gate);
    let world = world.killed();
    let gate = world.gate();
    assert!(gate.holds());
    assert_eq!(wait(&gate), 35 * SECOND);
    live(&gate, 35).await;
    assert_eq!(gate.state(), StateName::HalfOpen);
    gate.admit().ok().unwrap().settle(Outcome::Succeeded, Duration::ZERO);
    assert_eq!(world.killed().gate().state(), StateName::Closed);
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_counted_over_restarts() {
    let world = World::new();
    fail(&world.gate(), 4);
    let world = world.killed();
    let gate = world.gate();
    fail(&gate, 1);
    assert_eq!(gate.state(), StateName::Open);
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_repeats_at_most_ten_seconds_of_the_wait() {
    let world = World::new();
    let gate = world.gate();
    fail(&gate, 5);
    live(&gate, 39).await;
    world.clock.reboot();
    let world = world.killed();
    let left = wait(&world.gate());
    assert!((21 * SECOND..=31 * SECOND).contains(&left) && left < POLICY.timeout, "{left:?} are left of 21 s");
}

#[tokio::test(start_paused = true)]
async fn a_person_is_obeyed_in_order_and_once() {
    let world = World::new();
    let gate = world.gate();
    world.person(BreakerCommand::ForceOpen);
    world.person(BreakerCommand::Disable);
    gate.heed();
    assert_eq!(gate.state(), StateName::Disabled);
    world.person(BreakerCommand::Reset);
    world.person(BreakerCommand::ForceOpen);
    gate.heed();
    assert_eq!((gate.state(), gate.admit().err().unwrap().retry_after), (StateName::ForcedOpen, None));
    live(&gate, 600).await;
    assert!(gate.holds(), "nothing else ends it");
    let world = world.killed();
    let gate = world.gate();
    assert!(gate.holds(), "not even a restart");
    world.person(BreakerCommand::Reset);
    gate.heed();
    assert_eq!(gate.state(), StateName::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_gives_its_place_back() {
    let world = World::new();
    let gate = world.gate();
    fail(&gate, 5);
    live(&gate, 60).await;
    drop(gate.admit().ok().unwrap());
    assert!(gate.admit().is_ok());
}
