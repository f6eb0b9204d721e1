use std::sync::Mutex;

use super::*;
use crate::gate::fixture::World;
use crate::stop::Stopper;
use crate::uplink::Line as _;
use crate::uplink::scripted::ScriptedBroker;
use shared::chance::SeededDice;
use shared::store::BreakerCommand;

#[test]
fn waits_double_up_to_a_minute_and_begin_again_after_a_good_line() {
    let mut backoff = Backoff::default();
    let waits: Vec<u64> = (0..8).map(|_| backoff.wait(None).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(backoff.wait(Some(Duration::from_secs(3))).as_secs(), 60, "a short line is no good line");
    assert_eq!(backoff.wait(Some(GOOD)).as_secs(), 1);
}

const MINUTE: Duration = Duration::from_secs(60);

/// A daemon that tries to connect; its lines last until they are cut.
struct Daemon {
    tries: Arc<Mutex<Vec<Instant>>>,
    stop: Stopper,
    running: tokio::task::JoinHandle<()>,
}

impl Daemon {
    fn start(broker: ScriptedBroker, gate: Arc<Gate>) -> Self {
        Self::with_dice(broker, gate, 1)
    }

    fn with_dice(broker: ScriptedBroker, gate: Arc<Gate>, seed: u64) -> Self {
        let (stop, stopped) = Stop::new();
        let dice = Box::new(SeededDice::from_seed(seed));
        let keeper = Keeper { dice, stop: stopped, heart: Heart::unwatched(), gate: Some(gate) };
        let tries = broker.tries();
        let running = tokio::spawn(stay_connected(broker, keeper, async |mut line, stop: &mut Stop, _: &Heart| {
            loop {
                tokio::select! {
                    () = stop.asked() => return Ok(()),
                    news = line.next() => drop(news?),
                }
            }
        }));
        Self { tries, stop, running }
    }

    /// Waits until it has tried so often, and says when the last was.
    async fn tried(&self, times: usize) -> Instant {
        let tried = async {
            loop {
                if let Some(at) = self.tries.lock().unwrap().get(times - 1).copied() {
                    return at;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(60 * MINUTE, tried).await.expect("it tries")
    }

    fn count(&self) -> usize {
        self.tries.lock().unwrap().len()
    }

    async fn end(self) {
        self.stop.stop();
        self.running.await.unwrap();
    }
}

async fn pass(wait: Duration) {
    tokio::time::sleep(wait).await;
}

#[tokio::test(start_paused = true)]
async fn five_failed_connects_open_the_breaker_and_one_probe_that_holds_closes_it() {
    let world = World::new();
    let gate = world.gate();
    let (broker, [_far]) = ScriptedBroker::new(None);
    let daemon = Daemon::start(broker.silent_first(5), gate.clone());
    daemon.tried(4).await;
    assert_eq!(gate.state(), StateName::Closed);
    let opened = daemon.tried(5).await;
    pass(MINUTE - Duration::from_secs(1)).await;
    assert_eq!((gate.state(), daemon.count()), (StateName::Open, 5), "none is tried meanwhile");
    let probe = daemon.tried(6).await;
    let waited = probe - opened;
    assert!((MINUTE..=MINUTE * 3 / 2).contains(&waited), "{waited:?}");
    pass(10 * MINUTE).await;
    assert_eq!((gate.state(), daemon.count()), (StateName::Closed, 6));
    daemon.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_opens_it_again_for_as_long() {
    let world = World::new();
    let gate = world.gate();
    let (broker, []) = ScriptedBroker::new(None);
    let daemon = Daemon::start(broker, gate.clone());
    let mut before = daemon.tried(5).await;
    for times in 6..=20 {
        let probe = daemon.tried(times).await;
        assert!((MINUTE..=MINUTE * 3 / 2).contains(&(probe - before)), "{:?}", probe - before);
        before = probe;
    }
    daemon.end().await;
}

#[tokio::test(start_paused = true)]
async fn boxes_that_lost_the_same_broker_do_not_come_back_together() {
    let wait = async |seed| {
        let world = World::new();
        let (broker, []) = ScriptedBroker::new(None);
        let daemon = Daemon::with_dice(broker, world.gate(), seed);
        let (opened, probe) = (daemon.tried(5).await, daemon.tried(6).await);
        daemon.end().await;
        probe - opened
    };
    let mut waits = [wait(1).await, wait(2).await, wait(3).await, wait(4).await];
    waits.sort();
    assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    assert!(waits[3] - waits[0] > Duration::from_secs(10), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reset_lets_it_connect_at_once() {
    let world = World::new();
    let gate = world.gate();
    let (broker, [_far]) = ScriptedBroker::new(None);
    let daemon = Daemon::start(broker.silent_first(5), gate.clone());
    let opened = daemon.tried(5).await;
    pass(Duration::from_secs(3)).await;
    world.person(BreakerCommand::Reset);
    let connected = daemon.tried(6).await;
    assert!(connected - opened <= Duration::from_secs(3) + 2 * BEAT, "{:?}", connected - opened);
    assert_eq!(gate.state(), StateName::Closed);
    daemon.end().await;
}

#[tokio::test(start_paused = true)]
async fn while_a_person_holds_it_open_nothing_is_tried() {
    let world = World::new();
    let (broker, [_far]) = ScriptedBroker::new(None);
    let daemon = Daemon::start(broker.silent_first(2), world.gate());
    daemon.tried(2).await;
    world.person(BreakerCommand::ForceOpen);
    pass(60 * MINUTE).await;
    assert_eq!(daemon.count(), 2);
    world.person(BreakerCommand::Reset);
    pass(2 * BEAT).await;
    assert_eq!(daemon.count(), 3);
    daemon.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_restarts_waits_for_what_was_left() {
    let world = World::new();
    let (broker, []) = ScriptedBroker::new(None);
    let daemon = Daemon::start(broker, world.gate());
    let opened = daemon.tried(5).await;
    pass(Duration::from_secs(20)).await;
    daemon.end().await;
    let world = world.killed();
    let (broker, [_far]) = ScriptedBroker::new(None);
    let daemon = Daemon::start(broker, world.gate());
    let probe = daemon.tried(1).await;
    assert!((MINUTE..=MINUTE * 3 / 2).contains(&(probe - opened)), "{:?}", probe - opened);
    daemon.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_switched_off_breaker_never_opens() {
    let world = World::new();
    let gate = world.gate();
    world.person(BreakerCommand::Disable);
    gate.heed();
    let (broker, []) = ScriptedBroker::new(None);
    let daemon = Daemon::start(broker, gate.clone());
    pass(20 * MINUTE).await;
    assert!(daemon.count() > 20 && gate.state() == StateName::Disabled);
    daemon.end().await;
}
