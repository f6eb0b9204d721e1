//! After the last cut: everything was delivered once, adds up, and is gone where it may be.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Value, json};

use super::World;
use super::examine::Remains;
use crate::wait_for;

impl World {
    /// Lets the box finish what it has, and holds all of it against what is known from outside.
    ///
    /// # Panics
    /// If anything is missing, or there twice.
    pub fn end(&mut self) {
        if self.current.is_some() {
            self.stop();
        }
        wait_for("everything to be acknowledged", || self.is_all_acknowledged().then_some(()));
        wait_for("audio to be destroyed", || self.is_audio_where_it_should_be().then_some(()));
        for command in [&["ledger"][..], &["audit", "--verify"], &["queue", "check"]] {
            let output = self.room.run(command);
            assert_eq!(output.status.code(), Some(0), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        for running in [&mut self.daemon, &mut self.sync] {
            running.take().expect("it runs").stop();
        }
        let remains = Remains::of(self.room.root());
        remains.assert_whole();
        self.tally.integrity_checks += 2;
        let (owed, held) = (remains.owed(), self.held_at_the_clinic());
        assert!(owed.values().all(|is_acknowledged| *is_acknowledged), "{owed:?}");
        assert_eq!(owed.into_keys().collect::<BTreeSet<_>>(), held);
        let revisions: Vec<(&str, u32)> = held.iter().map(|(id, revision, _)| (id.as_str(), *revision)).collect();
        let mut known: Vec<(&str, u32)> = self.sessions.iter().map(|known| (known.id.as_str(), 1)).collect();
        known.sort_unstable();
        assert_eq!(revisions, known, "each session is at the clinic, once");
        self.sessions.clone().iter().for_each(|known| self.assert_told(&known.id, &known.gaps));
    }

    fn listed(&self) -> Vec<Value> {
        let all = self.ask("GET", "/sessions").expect("the sessions");
        all["sessions"].as_array().cloned().unwrap_or_default()
    }

    fn is_all_acknowledged(&self) -> bool {
        let all = self.listed();
        all.len() == self.sessions.len() && all.iter().all(|known| known["delivery"] == "acknowledged")
    }

    /// The audio of a session that was told whole is gone, that of any other stays.
    fn is_audio_where_it_should_be(&self) -> bool {
        let spooled = self.room.spooled();
        let is_kept = |id: &Value| spooled.iter().any(|path| path.file_stem().and_then(|s| s.to_str()) == id.as_str());
        let is_whole = |known: &Value| known["status"] == "done" && known["diarization_status"] == "ok";
        self.listed().iter().all(|known| is_kept(&known["session_id"]) != is_whole(known))
    }

    /// The clinic's record has the gaps that were heard.
    fn assert_told(&mut self, session: &str, heard: &[Range<u64>]) {
        let record = self.clinics.ask("roomscribe-clinic", &["show", session]);
        if record["status"] != "done" {
            // A cut may cost an attempt, and there are three.
            let chain = record["error"]["chain"].to_string();
            assert!(chain.contains("three interrupted tries"), "{session}: {chain}");
            self.tally.given_up += 1;
        }
        let told = record["gaps"].as_array().expect("gaps");
        let seconds = |samples: u64| samples as f64 / f64::from(appliance::audio::SAMPLE_RATE_HZ);
        let is_told = |(gap, told): (&Range<u64>, &Value)| {
            let is_at = |told: &Value, at| told.as_f64().is_some_and(|told| (told - seconds(at)).abs() < 0.002);
            told["cause"] == json!("power_loss") && is_at(&told["start"], gap.start) && is_at(&told["end"], gap.end)
        };
        let is_same = told.len() == heard.len() && heard.iter().zip(told).all(is_told);
        assert!(is_same, "{session}: heard {heard:?}, told {told:?} ");
    }
}
