//! The clinic's end: takes parcels, says so under its signature, and shows how every room is.
//!
//! A parcel's way: committed to [`store`], then acknowledged, then settled with the broker. Whatever is cut
//! short in between is sent again, and answered `duplicate`.

pub mod alerts;
pub mod board;
pub mod broker_files;
pub mod discovery;
pub mod enrolment;
pub mod http;
pub mod ingest;
pub mod invitation;
pub mod lease;
pub mod metrics;
pub mod orders;
pub mod page;
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

use crate::pki::Authority;
use ingest::Counters;
use settings::ClinicSettings;
use store::{ClinicStore, ClinicStoreError};

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
    /// Where there is TLS: who makes certificates.
    pub authority: Option<Arc<Authority>>,
}

impl Clinic {
    /// Puts the parts together.
    #[must_use]
    pub fn new(settings: ClinicSettings, keys: ClinicKeys, store: ClinicStore, clock: Arc<dyn Clock>) -> Self {
        let (counters, connected) = (Counters::default(), AtomicBool::new(false));
        Self { settings, keys, store, clock, counters, connected, authority: None }
    }

    /// With an authority for certificates.
    #[must_use]
    pub fn certifying(self, authority: Option<Arc<Authority>>) -> Self {
        Self { authority, ..self }
    }

    /// Works with the store without holding up the loop that asks for it: a database on a server may take seconds.
    ///
    /// # Errors
    /// Of the work.
    pub async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ClinicStoreError> + Send + 'static,
    ) -> Result<T, ClinicStoreError> {
        if self.store.is_local() {
            return work(self);
        }
        let clinic = self.clone();
        tokio::task::spawn_blocking(move || work(&clinic)).await.unwrap_or(Err(ClinicStoreError::CutShort))
    }

    /// The topics of this clinic.
    #[must_use]
    pub fn topics(&self) -> Topics {
        Topics::new(&self.settings.clinic)
    }
}

#[cfg(test)]
mod fixture;
