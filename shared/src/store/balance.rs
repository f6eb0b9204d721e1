//! Whether everything that was ever recorded is accounted for. Counts that were made independently of one another are
//! held against each other: sessions against terms, samples against windows, outcomes against records, what the clinic
//! is said to have against its word, and what the audit log tells of against what is there.

use rusqlite::Connection;
use serde::Serialize;

use super::queue::{TERM, WITH_OUTBOX, ledger_of};
use super::{Held, Ledger, Store, StoreError};

/// The most findings of one kind that are listed: beyond these, more say nothing new.
const LISTED: u32 = 1000;

/// One thing that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Imbalance {
    /// What was recorded is not the sum of the terms.
    TermsDiffer {
        /// All sessions.
        recorded: Held,
        /// All terms.
        terms: Held,
    },
    /// Its status is none that this version knows.
    NoTerm {
        /// UUID.
        session_id: String,
    },
    /// The audit log tells of its beginning, and there is no such session.
    SessionGone {
        /// UUID.
        session_id: String,
    },
    /// A table has rows of a session that does not exist.
    RowsOfNoSession {
        /// UUID.
        session_id: String,
        /// Which table.
        table: String,
    },
    /// Its windows cover more than it is long.
    ShorterThanItsWindows {
        /// UUID.
        session_id: String,
        /// By how many samples.
        samples: u64,
    },
    /// It is done, and its windows do not cover it.
    LongerThanItsWindows {
        /// UUID.
        session_id: String,
        /// By how many samples.
        samples: u64,
    },
    /// It is done or failed, and the record that says so is missing.
    NoRecord {
        /// UUID.
        session_id: String,
    },
    /// It counts as the clinic's, and the clinic's word for exactly these bytes is missing.
    AcknowledgedWithoutWord {
        /// UUID.
        session_id: String,
        /// Which revision.
        revision: i64,
    },
    /// Its audio was destroyed, nobody dropped it, and the clinic has acknowledged nothing of it.
    AudioGoneUnacknowledged {
        /// UUID.
        session_id: String,
    },
    /// Its audio is said to be kept, and the file is missing.
    AudioMissing {
        /// UUID.
        session_id: String,
    },
    /// Its audio is said to be destroyed, and the file is there.
    AudioLeft {
        /// UUID.
        session_id: String,
    },
    /// Nothing of it may be left, and a table has rows of it.
    RowsOfErasedSession {
        /// UUID.
        session_id: String,
        /// Which table.
        table: String,
    },
    /// Consent to it was withdrawn, and nobody destroys what is left of it.
    WithdrawnAndKept {
        /// UUID.
        session_id: String,
    },
    /// A recording belongs to no session.
    SpoolOfNoSession {
        /// As the file is named.
        session_id: String,
    },
}

impl Imbalance {
    /// Which session, where it is about one.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match self {
            Self::TermsDiffer { .. } => None,
            Self::NoTerm { session_id }
            | Self::SessionGone { session_id }
            | Self::RowsOfNoSession { session_id, .. }
            | Self::ShorterThanItsWindows { session_id, .. }
            | Self::LongerThanItsWindows { session_id, .. }
            | Self::NoRecord { session_id }
            | Self::AcknowledgedWithoutWord { session_id, .. }
            | Self::AudioGoneUnacknowledged { session_id }
            | Self::AudioMissing { session_id }
            | Self::AudioLeft { session_id }
            | Self::RowsOfErasedSession { session_id, .. }
            | Self::WithdrawnAndKept { session_id }
            | Self::SpoolOfNoSession { session_id } => Some(session_id),
        }
    }
}

impl std::fmt::Display for Imbalance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TermsDiffer { recorded, terms } => {
                let (sessions, samples) = (recorded.sessions, recorded.samples);
                write!(f, "{sessions} sessions of {samples} samples were recorded, ")?;
                write!(f, "and the terms hold {} of {}", terms.sessions, terms.samples)
            }
            Self::NoTerm { .. } => f.write_str("its status is none that this version knows"),
            Self::SessionGone { .. } => f.write_str("the audit log tells of its beginning, and it is gone"),
            Self::RowsOfNoSession { table, .. } => write!(f, "{table} has rows of it, and there is no such session"),
            Self::ShorterThanItsWindows { samples, .. } => write!(f, "its windows cover {samples} samples too many"),
            Self::LongerThanItsWindows { samples, .. } => write!(f, "{samples} samples of it are in no window"),
            Self::NoRecord { .. } => f.write_str("it is concluded, and its record is missing"),
            Self::AcknowledgedWithoutWord { revision, .. } => {
                write!(f, "revision {revision} counts as acknowledged without the clinic's word for it")
            }
            Self::AudioGoneUnacknowledged { .. } => {
                f.write_str("its audio was destroyed before the clinic acknowledged anything of it")
            }
            Self::AudioMissing { .. } => f.write_str("its audio should be there, and its file is missing"),
            Self::AudioLeft { .. } => f.write_str("its audio should be destroyed, and its file is there"),
            Self::RowsOfErasedSession { table, .. } => {
                write!(f, "nothing of it may be left, and {table} has rows of it")
            }
            Self::WithdrawnAndKept { .. } => {
                f.write_str("consent to it was withdrawn, and nobody destroys what is left of it")
            }
            Self::SpoolOfNoSession { .. } => f.write_str("a recording of it is there, and there is no such session"),
        }
    }
}

/// The ledger, and what does not add up in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Everything that was ever recorded, by what became of it.
    pub ledger: Ledger,
    /// Nothing, if all is well.
    pub findings: Vec<Imbalance>,
}

/// A session, and a number or a name that says more.
type Found = (String, rusqlite::types::Value);

/// How one kind is looked for: gives a session, and what more there is to say.
struct Look {
    sql: &'static str,
    finding: fn(String, rusqlite::types::Value) -> Imbalance,
}

fn number(value: &rusqlite::types::Value) -> i64 {
    match value {
        rusqlite::types::Value::Integer(number) => *number,
        _ => 0,
    }
}

fn name(value: rusqlite::types::Value) -> String {
    match value {
        rusqlite::types::Value::Text(name) => name,
        _ => String::new(),
    }
}

const LOOKS: &[Look] = &[
    Look {
        sql: "select distinct subject, null from audit
              where action in ('session_started', 'imported') and subject is not null
                and not exists (select 1 from sessions where id = subject)",
        finding: |session_id, _| Imbalance::SessionGone { session_id },
    },
    Look {
        sql: "select distinct session, source from (
                select session, 'windows' as source from windows union select session, 'work' from work
                union select session, 'records' from records union select session, 'outbox' from outbox
                union select session, 'acks' from acks)
              where not exists (select 1 from sessions where id = session)",
        finding: |session_id, table| Imbalance::RowsOfNoSession { session_id, table: name(table) },
    },
    Look {
        sql: "select s.id, w.covered - s.samples from sessions s join (
                select session, max(max(end_sample), sum(end_sample - start_sample)) as covered
                from windows group by session) w on w.session = s.id
              where w.covered > s.samples",
        finding: |session_id, by| Imbalance::ShorterThanItsWindows { session_id, samples: number(&by).unsigned_abs() },
    },
    Look {
        sql: "select s.id, s.samples - coalesce(sum(w.end_sample - w.start_sample), 0) as missing
              from sessions s left join windows w on w.session = s.id
              where s.status = 'done' and s.dropped_at is null and s.expired_at is null group by s.id having missing > 0",
        finding: |session_id, by| Imbalance::LongerThanItsWindows { session_id, samples: number(&by).unsigned_abs() },
    },
    Look {
        // Of what can never be opened there can be no record; a person drops it.
        sql: "select id, null from sessions s where status in ('done', 'failed') and content <> 'lost' and dropped_at is null and expired_at is null
                and not exists (select 1 from records r where r.session = s.id and r.revision = s.revision)",
        finding: |session_id, _| Imbalance::NoRecord { session_id },
    },
    Look {
        sql: "select o.session, o.revision from outbox o left join acks a
                on a.session = o.session and a.revision = o.revision
              where o.state = 'acknowledged' and not coalesce(case when json_valid(a.ack) then
                a.ack ->> 'sha256' = o.sha256 and a.ack ->> 'result' in ('stored', 'duplicate') end, false)",
        finding: |session_id, revision| Imbalance::AcknowledgedWithoutWord { session_id, revision: number(&revision) },
    },
    // A file that was no recording leaves a session without samples, which has nothing to keep.
    Look {
        sql: "select id, null from sessions s
              where audio <> 'kept' and samples > 0 and dropped_at is null and status <> 'withdrawn'
                and not ((diarization_status is 'ok' or audio_expired_at is not null)
                  and (exists (select 1 from outbox o where o.session = s.id and o.state = 'acknowledged')
                    or (expired_at is not null and exists (select 1 from acks a where a.session = s.id))))",
        finding: |session_id, _| Imbalance::AudioGoneUnacknowledged { session_id },
    },
    Look {
        sql: "select distinct e.session, source from erasures e join (
                select session, 'windows' as source from windows union select session, 'work' from work
                union select session, 'records' from records union select session, 'outbox' from outbox) r
                on r.session = e.session
              where e.erased_at is not null",
        finding: |session_id, table| Imbalance::RowsOfErasedSession { session_id, table: name(table) },
    },
    Look {
        sql: "select id, null from sessions s where status = 'withdrawn'
                and not exists (select 1 from erasures e where e.session = s.id and e.why = 'withdrawn')",
        finding: |session_id, _| Imbalance::WithdrawnAndKept { session_id },
    },
];

fn look(connection: &Connection, look: &Look) -> Result<Vec<Imbalance>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{} limit {LISTED}", look.sql))?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<Found>, _>>()?;
    Ok(found.into_iter().map(|(session, more)| (look.finding)(session, more)).collect())
}

fn without_term(connection: &Connection) -> Result<Vec<Imbalance>, StoreError> {
    let sql = format!("select s.id from {WITH_OUTBOX} where ({TERM}) is null limit {LISTED}");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    Ok(found.into_iter().map(|session_id| Imbalance::NoTerm { session_id }).collect())
}

impl Store {
    /// The ledger, and everything in the database that does not add up with it, as of one moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn balance(&self) -> Result<Balance, StoreError> {
        let mut connection = self.lock();
        let moment = connection.transaction()?;
        let ledger = ledger_of(&moment)?;
        let mut findings = Vec::new();
        if !ledger.balances() {
            findings.push(Imbalance::TermsDiffer { recorded: ledger.recorded, terms: ledger.sum() });
        }
        findings.extend(without_term(&moment)?);
        for kind in LOOKS {
            findings.extend(look(&moment, kind)?);
        }
        Ok(Balance { ledger, findings })
    }

    /// Every session, and whether its audio is said to be kept: to be held against the files.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audio_said_to_be_kept(&self) -> Result<Vec<(String, bool)>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("select id, audio = 'kept' from sessions order by id")?;
        Ok(statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
    }
}
