//! Breakers, which outlive the process, and the box's health, which the sync daemon publishes.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::audit::{Action, By, tell};
use super::sessions::event;
use super::{Store, StoreError};
use crate::breaker::{Service, Stored, Transition};
use crate::clock::Now;
use crate::error::report;
use crate::guard::{BreakerStore, Outcome};
use crate::wire::{BoxHealth, EventKind};

/// What a person asks of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerCommand {
    /// Close it: the service is healthy.
    Reset,
    /// Hold it open until it is reset.
    ForceOpen,
    /// Let everything through until it is reset.
    Disable,
}

impl BreakerCommand {
    /// Every command.
    pub const ALL: [Self; 3] = [Self::Reset, Self::ForceOpen, Self::Disable];

    /// As people type it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::ForceOpen => "force-open",
            Self::Disable => "disable",
        }
    }
}

impl Store {
    fn keep_breaker(
        &self,
        service: Service,
        stored: &Stored,
        moved: Option<Transition>,
        asked: &[BreakerCommand],
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
        // What is asked of the link's breaker was written down when it was asked.
        for command in asked.iter().filter(|_| service != Service::Sync) {
            tell(&transaction, By::local(now.wall), Action::from(*command), service.name())?;
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

impl Store {
    /// Asks something of a breaker that another process owns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn command_breaker(&self, service: Service, command: BreakerCommand, now: &Now) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        transaction.execute(
            "insert into breaker_commands (service, action, at) values (?1, ?2, ?3)",
            params![service.name(), command.name(), now.wall.0],
        )?;
        tell(&transaction, By::local(now.wall), Action::from(command), service.name())?;
        transaction.commit()?;
        Ok(())
    }

    /// What was asked of a breaker, the oldest first; it is asked no more after this.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn take_breaker_commands(&self, service: Service) -> Result<Vec<BreakerCommand>, StoreError> {
        let connection = self.lock();
        // Looked for first: nearly always there is nothing, and nothing needs no write.
        let sql = "select exists (select 1 from breaker_commands where service = ?1)";
        if !connection.query_row(sql, [service.name()], |row| row.get::<_, bool>(0))? {
            return Ok(Vec::new());
        }
        let mut statement =
            connection.prepare_cached("delete from breaker_commands where service = ?1 returning id, action")?;
        let mut asked = statement
            .query_map([service.name()], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<Vec<(i64, String)>, _>>()?;
        asked.sort();
        let known = |name: &str| BreakerCommand::ALL.into_iter().find(|command| command.name() == name);
        Ok(asked.iter().filter_map(|(_, name)| known(name)).collect())
    }
}

impl BreakerStore for Store {
    fn called(&self, service: Service, outcome: Outcome, took: Duration, now: &Now) {
        if let Err(why) = self.keep_call(service, outcome, took, now) {
            tracing::error!(error = %report(&why), service_name = %service, "A guarded call could not be counted.");
        }
    }

    fn keep(
        &self,
        service: Service,
        stored: &Stored,
        moved: Option<Transition>,
        asked: &[BreakerCommand],
        now: &Now,
    ) -> bool {
        let kept = self.keep_breaker(service, stored, moved, asked, now);
        if let Err(why) = &kept {
            tracing::error!(error = %report(why), service_name = %service, "A circuit breaker could not be stored.");
        }
        kept.is_ok()
    }

    fn kept(&self, service: Service) -> Option<Stored> {
        self.kept_breaker(service).unwrap_or_else(|why| {
            tracing::error!(error = %report(&why), service_name = %service, "A circuit breaker could not be read.");
            None
        })
    }
}
