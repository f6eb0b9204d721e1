//! Breakers, which outlive the process, and the box's health, which the sync daemon publishes.

use rusqlite::{OptionalExtension as _, params};

use super::sessions::event;
use super::{Store, StoreError};
use crate::breaker::{Service, Stored, Transition};
use crate::clock::Now;
use crate::error::report;
use crate::guard::BreakerStore;
use crate::wire::{BoxHealth, EventKind};

impl Store {
    fn keep_breaker(
        &self,
        service: Service,
        stored: &Stored,
        moved: Option<Transition>,
        now: &Now,
    ) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute(
            "insert into breakers (service, stored, updated_at) values (?1, ?2, ?3)
             on conflict (service) do update set stored = ?2, updated_at = ?3",
            params![service.name(), serde_json::to_string(stored)?, now.wall.0],
        )?;
        if let Some(Transition { from, to }) = moved {
            let failure_count = stored.failure_count;
            event(&transaction, now.wall, &EventKind::Breaker { service, from, to, failure_count })?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn kept_breaker(&self, service: Service) -> Result<Option<Stored>, StoreError> {
        let sql = "select stored from breakers where service = ?1";
        let found: Option<String> = self.lock().query_row(sql, [service.name()], |row| row.get(0)).optional()?;
        Ok(found.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Keeps the box's health for the sync daemon.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep_health(&self, health: &BoxHealth) -> Result<(), StoreError> {
        self.lock().execute(
            "insert into health (one, health) values (1, ?1) on conflict (one) do update set health = ?1",
            [serde_json::to_string(health)?],
        )?;
        Ok(())
    }

    /// The box's health as it was last kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn health(&self) -> Result<Option<BoxHealth>, StoreError> {
        let found: Option<String> =
            self.lock().query_row("select health from health", [], |row| row.get(0)).optional()?;
        Ok(found.map(|text| serde_json::from_str(&text)).transpose()?)
    }
}

impl BreakerStore for Store {
    fn keep(&self, service: Service, stored: &Stored, moved: Option<Transition>, now: &Now) {
        if let Err(why) = self.keep_breaker(service, stored, moved, now) {
            tracing::error!(error = %report(&why), service_name = %service, "A circuit breaker could not be stored.");
        }
    }

    fn kept(&self, service: Service) -> Option<Stored> {
        self.kept_breaker(service).unwrap_or_else(|why| {
            tracing::error!(error = %report(&why), service_name = %service, "A circuit breaker could not be read.");
            None
        })
    }
}
