//! The recorder killed again and again, at any moment: while it records, as a session begins, as one ends.
//!
//! The microphone counts, so every sample says when it was sounded. Whatever the moment: at most a second of what was
//! delivered is missing before a kill, what is missing is a gap with its cause, nothing is missing anywhere else, and every
//! session reaches the clinic once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use shared::record::GapCause;
use tests::broker::Broker;
use tests::microphone::{Microphone, STALE};
use tests::positions::{SECOND, SLACK, assert_timeline, lost_before, stretches};
use tests::sim::dice::SimDice;
use tests::stack::Stack;
use tests::{TestBox, now, wait_for};

/// Kills of one session: more and its positions would repeat, at up to four seconds each.
const OF_ONE: u32 = 6;

#[test]
fn whenever_it_is_killed_at_most_a_second_is_missing_and_all_that_is_missing_is_a_gap() {
    kill(12, 1);
}

#[test]
#[ignore = "takes a quarter of an hour: ./dev test --full"]
fn so_it_is_at_two_hundred_random_moments() {
    kill(200, now().as_nanos() as u64);
}

/// When the recorder was killed, and since when it had heard something, in positions of the counter.
#[derive(Debug, Clone, Copy)]
struct Kill {
    since: u64,
    at: u64,
}

/// A session under way.
#[derive(Debug, Default)]
struct Told {
    id: String,
    kills: Vec<Kill>,
    /// When it was asked to end.
    stopped: Option<u64>,
}

struct Loop {
    stack: Stack,
    dice: SimDice,
    told: Option<Told>,
    /// When the recorder last answered after a start.
    since: u64,
    sessions: BTreeSet<String>,
    worst: u64,
    gaps: usize,
}

fn kill(times: u32, seed: u64) {
    eprintln!("seed {seed}");
    let room = TestBox::new();
    // Of a session whose speakers were not told apart the audio stays, to be looked at.
    room.set("[session]\ndiarization = false\n");
    let stack = Stack::start_on(room, Broker::start, Microphone::counting);
    let dice = SimDice::new(seed);
    let mut all = Loop { stack, dice, told: None, since: 0, sessions: BTreeSet::new(), worst: 0, gaps: 0 };
    for _ in 0..times {
        all.once();
        if all.told.as_ref().is_some_and(|told| told.kills.len() as u32 >= OF_ONE) {
            all.end();
        }
    }
    all.end();
    all.everything_arrived();
    let Loop { sessions, worst, gaps, .. } = all;
    let worst = worst as f64 / SECOND as f64;
    eprintln!("{times} kills, {} sessions, {gaps} gaps, at most {worst:.2} s missing before one", sessions.len());
}

impl Loop {
    fn position(&self) -> u64 {
        self.stack.microphone.position(now()).expect("the microphone counts")
    }

    /// What is being recorded, as the box says.
    fn recorded(&self) -> Option<String> {
        self.stack.room.ask("roomscribe", &["status"])["session"].as_str().map(str::to_owned)
    }

    /// Asks for something without waiting for the answer: the box may die of it, or before it.
    fn ask_for(&self, arguments: &[&str]) -> tests::Running {
        self.stack.room.start("roomscribe", arguments)
    }

    fn once(&mut self) {
        let moment = self.dice.number(0..100);
        let (asked_at, mut asked) = (self.position(), None);
        match (&self.told, moment) {
            // As a session begins.
            (None, 0..50) => {
                asked = Some(self.ask_for(&["start", "--consent", "verbal"]));
                std::thread::sleep(self.dice.millis(0..400));
            }
            (None, _) => {
                self.stack.room.ask("roomscribe", &["start", "--consent", "verbal"]);
                self.told = self.recorded().map(|id| Told { id, ..Told::default() });
                std::thread::sleep(self.dice.millis(0..3_000));
            }
            // As it ends.
            (Some(_), 0..20) => {
                std::thread::sleep(self.dice.millis(300..1_500));
                let at = self.position();
                self.told.as_mut().expect("a session").stopped.get_or_insert(at);
                asked = Some(self.ask_for(&["stop"]));
                std::thread::sleep(self.dice.millis(0..300));
            }
            (Some(_), _) => std::thread::sleep(self.dice.millis(200..3_000)),
        }
        let at = self.position();
        self.stack.daemon.kill();
        drop(asked);
        if let Some(told) = &mut self.told {
            told.kills.push(Kill { since: self.since, at });
        }
        std::thread::sleep(self.dice.millis(50..1_200));
        self.stack.daemon = self.stack.room.start_daemon();
        self.since = self.position();
        match (self.recorded(), &self.told) {
            // It had begun, and was killed before anybody heard of it.
            (Some(id), None) => {
                self.told = Some(Told { id, kills: vec![Kill { since: asked_at, at }], ..Told::default() });
            }
            (Some(id), Some(told)) => assert_eq!(id, told.id, "it goes on with the same session"),
            (None, Some(told)) => {
                assert!(told.stopped.is_some(), "a session that nobody ended is gone on with");
                self.end();
            }
            (None, None) => {}
        }
    }

    /// Ends the session, if one is under way, and looks at all of it.
    fn end(&mut self) {
        let Some(mut told) = self.told.take() else { return };
        if self.recorded().is_some() {
            std::thread::sleep(Duration::from_millis(500));
            let at = self.position();
            told.stopped.get_or_insert(at);
            self.stack.room.ask("roomscribe", &["stop"]);
        }
        self.look(&told);
        self.sessions.insert(told.id);
    }

    fn look(&mut self, told: &Told) {
        let spool = self.stack.room.heard(&told.id);
        let gaps: Vec<_> = spool.gaps();
        assert!(gaps.iter().all(|(_, cause)| *cause == GapCause::Restart), "{told:?}: {gaps:?}");
        let pcm = spool.read(0..u64::MAX).expect("its samples");
        let stale = appliance::audio::samples_in(STALE);
        let around = told.kills.first().map(|kill| kill.at).or(told.stopped).unwrap_or_default();
        let heard = stretches(&pcm, &gaps, stale, around);
        for Kill { since, at } in &told.kills {
            let at = told.stopped.map_or(*at, |stopped| stopped.min(*at));
            // While the recorder was away there was nobody to deliver to, and before its first sound a session has nothing
            // to lose.
            let lost = lost_before(&heard, at).unwrap_or(0).min(at.saturating_sub(*since));
            assert!(lost <= SECOND + SLACK, "{lost} samples are lost: {told:?}, heard {heard:?}");
            self.worst = self.worst.max(lost);
        }
        assert_timeline(&heard);
        assert!(gaps.len() <= told.kills.len(), "{gaps:?}, {told:?}");
        self.gaps += gaps.len();
    }

    /// Every session, also one that began without anybody hearing of it, is at the clinic, once.
    fn everything_arrived(&self) {
        let listed =
            || self.stack.room.ask("roomscribe", &["sessions"])["sessions"].as_array().cloned().unwrap_or_default();
        wait_for("every acknowledgement", || listed().iter().all(|s| s["delivery"] == "acknowledged").then_some(()));
        let listed: Vec<Value> = listed();
        let of =
            |s: &Value| (s["session_id"].as_str().unwrap_or_default().to_owned(), s["revision"].as_u64().unwrap_or(0));
        let here: BTreeSet<(String, u64)> = listed.iter().map(of).collect();
        assert_eq!(here.len(), listed.len());
        assert!(self.sessions.iter().all(|id| here.contains(&(id.clone(), 1))), "{here:?}");
        let clinic = rusqlite::Connection::open(self.stack.room.root().join("var/lib/roomscribe-clinic/clinic.db"));
        let clinic = clinic.expect("the clinic's database");
        let mut statement = clinic.prepare("select session_id, revision from parcels").expect("its parcels");
        let there = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())));
        let there: BTreeSet<(String, u64)> = there.expect("its parcels").map(|row| row.expect("a parcel")).collect();
        assert_eq!(here, there);
        let ledger = self.stack.room.ask("roomscribe", &["ledger"]);
        assert_eq!(ledger["balances"], true, "{ledger}");
        assert_eq!(self.stack.room.ask("roomscribe", &["audit", "--verify"])["flaw"], Value::Null);
    }
}
