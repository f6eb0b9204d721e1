//! The clinic's end: takes parcels, says so under its signature, and shows how every room is.
//!
//! A parcel's way: committed to [`store`], then acknowledged, then settled with the broker. Whatever is cut
//! short in between is sent again, and answered `duplicate`.

pub mod access;
pub mod alerts;
pub mod board;
pub mod broker_files;
pub mod enrolment;
pub mod http;
pub mod https;
pub mod ingest;
pub mod invitation;
pub mod metrics;
pub mod page;
pub mod people;
pub mod serve;
pub mod settings;
pub mod setup;
pub mod show;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use shared::clock::Clock;
use shared::seal::ClinicKeys;
use shared::wire::Topics;

use access::gate::Gate;
use http::live::Live;
use ingest::Counters;
use settings::ClinicSettings;
use store::ClinicStore;

/// What the parts of a running clinic server share.
pub struct Clinic {
    /// Its settings.
    pub settings: ClinicSettings,
    /// Its private keys.
    pub keys: ClinicKeys,
    /// What it holds.
    pub store: ClinicStore,
    /// The machine's clocks, or a test's.
    pub clock: Arc<dyn Clock>,
    /// Parcels by what became of them, since the start.
    pub counters: Counters,
    /// Whether there is a line to the broker now.
    pub connected: AtomicBool,
    /// How people come in.
    pub gate: Gate,
    /// What its page last showed.
    pub live: Live,
}

impl Clinic {
    /// Puts the parts together.
    #[must_use]
    pub fn new(settings: ClinicSettings, keys: ClinicKeys, store: ClinicStore, clock: Arc<dyn Clock>) -> Self {
        let (counters, connected) = (Counters::default(), AtomicBool::new(false));
        let (gate, live) = (Gate::default(), Live::default());
        Self { settings, keys, store, clock, counters, connected, gate, live }
    }

    /// The topics of this clinic.
    #[must_use]
    pub fn topics(&self) -> Topics {
        Topics::new(&self.settings.clinic)
    }
}

#[cfg(test)]
mod fixture;
