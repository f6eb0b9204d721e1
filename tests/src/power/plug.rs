//! Pulling the plug: at a moment, then an examination, then up again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::tally::Moment;
use super::{Asked, OFTEN, World, heard};
use crate::disk::cache::{Cut, SECTOR};
use crate::microphone::position;
use crate::{now, watch_for};

/// Of so many writes any may be the last. Starting a session takes about as many.
const MANY_WRITES: u32 = 20;

impl World {
    /// Brings the box to a moment, cuts, examines what is left, and lets it come up again.
    ///
    /// # Panics
    /// If anything is lost that must not be.
    pub fn cut_at(&mut self, moment: Moment) {
        match moment {
            Moment::Start => {
                if self.current.is_some() {
                    self.stop();
                }
                let asked = self.ask_for_session();
                self.cut(moment, 250, Some(asked), None);
            }
            Moment::Recording => {
                self.recorded();
                self.cut(moment, 2_000, None, None);
            }
            Moment::Stop => {
                self.recorded();
                std::thread::sleep(self.up_to(500));
                let asked = self.ask_soon("POST", "/sessions/current/stop", String::new());
                self.cut(moment, 150, None, Some(asked));
            }
            Moment::Conclusion => {
                self.stop();
                self.cut(moment, 1_500, None, None);
            }
            Moment::Destruction => {
                let session = self.stop();
                self.acknowledged(session);
                self.cut(moment, 1_200, None, None);
            }
            Moment::Boot => {
                self.cut(moment, 0, None, None);
                self.boot();
                self.cut(moment, 400, None, None);
            }
        }
        std::thread::sleep(self.up_to(300));
        self.boot();
        self.wait_until_up();
        self.settle();
    }

    fn draw(&mut self) -> Cut {
        let (units, dice) = ([None, Some(SECTOR), Some(4096)], StdRng::seed_from_u64(self.dice.random()));
        match units[self.dice.random_range(0..units.len())] {
            None => Cut::Forgets,
            Some(unit) => Cut::Keeps { unit, share: self.dice.random_range(0.05..0.95), dice: Box::new(dice) },
        }
    }

    /// The power goes within so many milliseconds: at any of them, or with one of the next writes.
    fn pull(&mut self, within: u64) {
        let cut = self.draw();
        if self.dice.random_bool(0.5) {
            std::thread::sleep(self.up_to(within));
        } else {
            self.disk.cut_after(self.dice.random_range(1..=MANY_WRITES), cut);
            let until = now() + Duration::from_millis(within);
            while self.disk.off().is_none() && now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let cut = self.draw();
        self.disk.cut(cut);
    }

    /// The power goes, and comes back for an examination.
    fn cut(&mut self, moment: Moment, within: u64, started: Option<(Asked, u64)>, stopped: Option<Asked>) {
        *self.tally.cuts.entry(moment).or_default() += 1;
        self.pull(within);
        drop((self.daemon.take(), self.sync.take()));
        let off = self.disk.off().expect("there is no power");
        self.tally.worst_delay = self.tally.worst_delay.max(now().saturating_sub(off));
        // The next sample that nobody has fetched, once it comes. What the recorder fetched after the cut, before it was
        // killed, was never delivered.
        let at = self.microphone.position(off).expect("the microphone plays");
        let next = watch_for("the next block", OFTEN, || self.microphone.forget());
        let delivered = at.min(heard::near(at, position(next)));
        let mut since = self.booted;
        if let Some(asked) = started {
            since = asked.1;
            self.begun(asked);
        }
        if let (Some(current), Some(asked)) = (self.current, stopped)
            && matches!(asked.0.join().expect("a thread"), Some((200, _)))
        {
            self.sessions[current].is_stopped = true;
        }
        self.disk.unmount();
        self.disk.restore();
        self.examine(delivered, since);
    }

    /// After a boot: a session that was being recorded is recorded further, and its gap is as long as it was away.
    fn settle(&mut self) {
        if let Some(current) = self.current {
            let path = format!("/sessions/{}", self.sessions[current].id);
            let known = self.ask("GET", &path).expect("the session");
            if known["status"] == "recording" {
                self.go_on(current);
                self.listen(current);
            } else {
                self.current = None;
            }
        }
        let ledger = self.ask("GET", "/ledger").expect("the ledger");
        assert_eq!(ledger["balances"], json!(true), "{}", ledger["message"]);
    }
}
