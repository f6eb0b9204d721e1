//! The disk's scripted twin: a test fills it up or cuts its power at a chosen commit; SQLite itself is the real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rusqlite::Connection;

#[derive(Debug, Default)]
struct Flags {
    full: AtomicBool,
    dead: AtomicBool,
    /// Commits until the power is cut; none while negative.
    commits_left: AtomicI64,
}

/// A disk under any number of databases. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Flags>);

impl Default for Disk {
    fn default() -> Self {
        Self(Arc::new(Flags { commits_left: AtomicI64::new(-1), ..Flags::default() }))
    }
}

impl Disk {
    /// Whether there is no room: nothing can be committed, and what was committed stays.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::Relaxed);
    }

    /// Cuts the power after so many more commits: everything later is as if it had never been.
    pub fn cut_power_after(&self, commits: u32) {
        self.0.commits_left.store(i64::from(commits), Ordering::Relaxed);
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Whether nothing can be committed to it now.
    #[must_use]
    pub fn takes_nothing(&self) -> bool {
        self.is_dead() || self.0.full.load(Ordering::Relaxed)
    }

    /// Lets a database commit only while this disk takes it.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn watch(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let flags = self.0.clone();
        connection.commit_hook(Some(move || !flags.takes_a_commit()))
    }
}

impl Flags {
    fn takes_a_commit(&self) -> bool {
        if self.full.load(Ordering::Relaxed) || self.dead.load(Ordering::Relaxed) {
            return false;
        }
        match self.commits_left.load(Ordering::Relaxed) {
            0 => {
                self.dead.store(true, Ordering::Relaxed);
                false
            }
            left => {
                self.commits_left.store((left - 1).max(-1), Ordering::Relaxed);
                true
            }
        }
    }
}
