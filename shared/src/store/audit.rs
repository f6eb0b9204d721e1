//! The audit log: who did what, when, to which session; never what was said, and never a name.
//!
//!   row 1 ── its hash goes into ──▶ row 2 ──▶ … ──▶ row n ──▶ head: number and hash of the last row
//!
//! Row and head are written in the transaction of what they tell, so that neither is there without the other. A row
//! that is altered, missing, moved or cut off is found by walking the chain. A chain proves no more than that: whoever
//! can write the database can make all of it anew, unless a head was noted elsewhere and is held against it.

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{BreakerCommand, Store, StoreError};
use crate::clock::WallTime;

/// What every hash begins with, so that it is that of nothing else.
const DOMAIN: &[u8] = b"roomscribe audit row 1";
/// What the first row follows.
const GENESIS: [u8; 32] = [0; 32];
/// Rows read at a time: whoever else needs the store waits for so many and no more.
const CHUNK: usize = 1000;
/// No log has so many rows: a number from here on was written to harm it, and nothing can come after the last.
const MOST_ROWS: i64 = 1 << 62;
/// The longest subject.
const SUBJECT_BYTES: usize = 64;

/// Who did it. A role that is none of these might be a name: then it was somebody at the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// The box by itself.
    Box,
    /// Somebody at the box.
    Local,
    /// Somebody at the clinic.
    Clinic,
    /// Who leads the session.
    Therapist,
    /// Who watches over them.
    Supervisor,
    /// Who helps them.
    Assistant,
    /// Whose session it is.
    Client,
    /// Who keeps the box.
    Administrator,
}

impl Actor {
    const ALL: [Self; 8] = [
        Self::Box,
        Self::Local,
        Self::Clinic,
        Self::Therapist,
        Self::Supervisor,
        Self::Assistant,
        Self::Client,
        Self::Administrator,
    ];

    /// As it stands in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Local => "local",
            Self::Clinic => "clinic",
            Self::Therapist => "therapist",
            Self::Supervisor => "supervisor",
            Self::Assistant => "assistant",
            Self::Client => "client",
            Self::Administrator => "administrator",
        }
    }

    /// Whoever noted the consent: a person, whatever they call themselves.
    #[must_use]
    pub fn of_role(role: Option<&str>) -> Self {
        let role = role.unwrap_or_default().trim();
        let is_person = |actor: &Self| match actor {
            Self::Box | Self::Clinic => false,
            Self::Local | Self::Therapist | Self::Supervisor | Self::Assistant | Self::Client | Self::Administrator => {
                true
            }
        };
        let is_called_so = |actor: &Self| actor.name().eq_ignore_ascii_case(role);
        Self::ALL.into_iter().find(|actor| is_person(actor) && is_called_so(actor)).unwrap_or(Self::Local)
    }
}

/// Who asks for something, and when. A time alone is the box's: nobody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// When.
    pub at: WallTime,
}

impl By {
    /// Somebody at the box.
    #[must_use]
    pub fn local(at: WallTime) -> Self {
        Self { actor: Actor::Local, at }
    }
}

impl From<WallTime> for By {
    fn from(at: WallTime) -> Self {
        Self { actor: Actor::Box, at }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A recording began.
    SessionStarted,
    /// It ended.
    SessionEnded,
    /// It is off the record for now.
    SessionPaused,
    /// It is on the record again.
    SessionResumed,
    /// Consent was withdrawn.
    SessionWithdrawn,
    /// It was kept as long as the site wants.
    SessionExpired,
    /// It was given up.
    SessionDropped,
    /// It was put to work again.
    SessionRetried,
    /// Its speakers are told apart once more.
    SessionRelabelled,
    /// A file became a session.
    Imported,
    /// What was said was read.
    RecordExported,
    /// A breaker was closed.
    BreakerReset,
    /// A breaker was held open.
    BreakerForced,
    /// A breaker was switched off.
    BreakerDisabled,
    /// A voice is known from now on.
    VoiceEnrolled,
    /// A voice is known no more.
    VoiceDestroyed,
    /// The audio of a session is gone.
    AudioDestroyed,
    /// What was made of what was said is gone.
    ContentDestroyed,
    /// Keys were exchanged for new ones.
    KeysRotated,
    /// The clinic asked for something; what was done of it has rows of its own.
    CommandTaken,
}

impl Action {
    /// As it stands in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionStarted => "session_started",
            Self::SessionEnded => "session_ended",
            Self::SessionPaused => "session_paused",
            Self::SessionResumed => "session_resumed",
            Self::SessionWithdrawn => "session_withdrawn",
            Self::SessionExpired => "session_expired",
            Self::SessionDropped => "session_dropped",
            Self::SessionRetried => "session_retried",
            Self::SessionRelabelled => "session_relabelled",
            Self::Imported => "imported",
            Self::RecordExported => "record_exported",
            Self::BreakerReset => "breaker_reset",
            Self::BreakerForced => "breaker_forced",
            Self::BreakerDisabled => "breaker_disabled",
            Self::VoiceEnrolled => "voice_enrolled",
            Self::VoiceDestroyed => "voice_destroyed",
            Self::AudioDestroyed => "audio_destroyed",
            Self::ContentDestroyed => "content_destroyed",
            Self::KeysRotated => "keys_rotated",
            Self::CommandTaken => "command_taken",
        }
    }
}

impl From<BreakerCommand> for Action {
    fn from(command: BreakerCommand) -> Self {
        match command {
            BreakerCommand::Reset => Self::BreakerReset,
            BreakerCommand::ForceOpen => Self::BreakerForced,
            BreakerCommand::Disable => Self::BreakerDisabled,
        }
    }
}

/// A row about to be written.
#[derive(Debug, Clone, Copy)]
pub struct AuditEntry<'a> {
    /// Who, and when.
    pub by: By,
    /// What.
    pub action: Action,
    /// A session's id, a service: a word without spaces. Anything else might have been said, and is left out.
    pub subject: Option<&'a str>,
}

/// A row as it stands. Its words are not typed: a later release knows others, and its rows are to be verified too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    /// From 1, without a gap.
    pub number: i64,
    /// When, RFC 3339 UTC.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: Option<String>,
    /// Over the one before and all of this, hexadecimal.
    pub hash: String,
}

/// The newest rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditLog {
    /// In order.
    pub rows: Vec<AuditRow>,
    /// How many older ones there are beside them.
    pub left_out: u64,
}

/// A row that the chain can be held against later: written as `NUMBER:HASH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Of the row.
    pub number: i64,
    /// Hexadecimal.
    pub hash: String,
}

impl std::fmt::Display for AuditHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl std::str::FromStr for AuditHead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = text.split_once(':').and_then(|(number, hash)| {
            let is_hash = hash.len() == 2 * GENESIS.len() && hash.bytes().all(|b| b.is_ascii_hexdigit());
            let number = number.parse().ok().filter(|number: &i64| *number >= 0)?;
            is_hash.then(|| Self { number, hash: hash.to_ascii_lowercase() })
        });
        read.ok_or_else(|| "a head is NUMBER:HASH, as roomscribe audit --verify prints it".into())
    }
}

/// What is wrong with the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Flaw {
    /// It is not what was written, or does not follow what stands before it.
    Altered {
        /// Which row.
        number: i64,
    },
    /// It is not there, and later ones are.
    Missing {
        /// Which row.
        number: i64,
    },
    /// What belongs here stands elsewhere.
    Reordered {
        /// Where it belongs.
        number: i64,
        /// Where it stands.
        found_at: i64,
    },
    /// The head knows of it, and the log ends before it.
    CutOff {
        /// The first that is gone.
        number: i64,
    },
    /// The head knows nothing of it.
    Added {
        /// Which row.
        number: i64,
    },
    /// The head is that of another chain.
    HeadAltered,
    /// There is no head.
    HeadMissing,
    /// It is not the row that was noted: the log was made anew.
    Rewritten {
        /// Which row.
        number: i64,
    },
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Altered { number } => write!(f, "row {number} is not what was written after the row before it"),
            Self::Missing { number } => write!(f, "row {number} is missing"),
            Self::Reordered { number, found_at } => write!(f, "what was written as row {number} stands as {found_at}"),
            Self::CutOff { number } => write!(f, "its end is cut off, from row {number} on"),
            Self::Added { number } => write!(f, "row {number} was added past the head"),
            Self::HeadAltered => f.write_str("its head is not that of the last row"),
            Self::HeadMissing => f.write_str("its head is missing"),
            Self::Rewritten { number } => write!(f, "row {number} is not the one that was noted"),
        }
    }
}

/// What walking the chain has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditVerdict {
    /// Rows that are sound, from the first on.
    pub rows: i64,
    /// The last of them: what to note elsewhere.
    pub head: AuditHead,
    /// The first thing that is wrong.
    pub flaw: Option<Flaw>,
}

/// A row's fields as they are stored.
struct Stored {
    number: i64,
    at: i64,
    actor: String,
    action: String,
    subject: Option<String>,
    hash: Vec<u8>,
}

impl Stored {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            at: row.get(1)?,
            actor: row.get(2)?,
            action: row.get(3)?,
            subject: row.get(4)?,
            hash: row.get(5)?,
        })
    }

    /// Whether it was written as this row, after the row with this hash.
    fn follows(&self, previous: &[u8], number: i64) -> bool {
        let fields = (number, self.at, self.actor.as_str(), self.action.as_str(), self.subject.as_deref());
        chained(previous, fields)[..] == self.hash[..]
    }
}

/// Number, time, actor, action, subject.
type Fields<'a> = (i64, i64, &'a str, &'a str, Option<&'a str>);

/// SHA-256 over the parts, each behind its length: no two rows have the same bytes.
fn chained(previous: &[u8], (number, at, actor, action, subject): Fields<'_>) -> [u8; 32] {
    let (number, at) = (number.to_be_bytes(), at.to_be_bytes());
    let has_subject = [u8::from(subject.is_some())];
    let mut sum = Sha256::new();
    let subject = subject.unwrap_or_default().as_bytes();
    for part in [DOMAIN, previous, &number, &at, actor.as_bytes(), action.as_bytes(), &has_subject, subject] {
        sum.update((part.len() as u64).to_be_bytes());
        sum.update(part);
    }
    sum.finalize().into()
}

fn is_word(subject: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !subject.is_empty() && subject.len() <= SUBJECT_BYTES && subject.bytes().all(is_plain)
}

fn head(connection: &Connection) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    let sql = "select number, hash from audit_head";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The last row, of those that can be counted on from.
fn last(connection: &Connection) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    let sql = "select number, hash from audit where number < ?1 order by number desc limit 1";
    connection.query_row(sql, [MOST_ROWS], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// Appends a row in the caller's transaction, which has written already and so keeps other writers out. A log that
/// somebody has harmed stops nothing: what is recorded is worth more, and the harm stays to be found.
pub(super) fn append(connection: &Connection, entry: &AuditEntry<'_>) -> Result<(), StoreError> {
    let last = last(connection)?;
    let taken = last.as_ref().map_or(0, |(number, _)| *number);
    let (number, previous) = match head(connection)? {
        Some((number, hash)) if number < MOST_ROWS => (number, hash),
        None if last.is_some() => last.unwrap_or_default(),
        Some(_) | None => (0, GENESIS.to_vec()),
    };
    let number = number.max(taken) + 1;
    let subject = entry.subject.filter(|subject| is_word(subject));
    let (actor, action, at) = (entry.by.actor.name(), entry.action.name(), entry.by.at.0);
    let hash = chained(&previous, (number, at, actor, action, subject));
    connection
        .prepare_cached("insert into audit (number, at, actor, action, subject, hash) values (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![number, at, actor, action, subject, hash])?;
    connection.prepare_cached("update audit_head set number = ?1, hash = ?2")?.execute(params![number, hash])?;
    Ok(())
}

/// As [`append`], for what is told of one session.
pub(super) fn tell(connection: &Connection, by: By, action: Action, subject: &str) -> Result<(), StoreError> {
    append(connection, &AuditEntry { by, action, subject: Some(subject) })
}

/// How far the chain is sound.
struct Walk<'a> {
    number: i64,
    hash: Vec<u8>,
    noted: Option<&'a AuditHead>,
}

impl Walk<'_> {
    /// Goes on to the next row, or says what is wrong with it.
    fn step(&mut self, connection: &Connection, row: Stored) -> Result<Option<Flaw>, StoreError> {
        let expected = self.number + 1;
        if row.number < expected {
            return Ok(Some(Flaw::Added { number: row.number }));
        }
        if row.number > expected || !row.follows(&self.hash, expected) {
            let found = elsewhere(connection, &self.hash, expected)?;
            return Ok(Some(match found {
                Some(found_at) => Flaw::Reordered { number: expected, found_at },
                None if row.number > expected => Flaw::Missing { number: expected },
                None => Flaw::Altered { number: expected },
            }));
        }
        let is_another = |noted: &AuditHead| noted.number == expected && noted.hash != hex::encode(&row.hash);
        if self.noted.is_some_and(is_another) {
            return Ok(Some(Flaw::Rewritten { number: expected }));
        }
        (self.number, self.hash) = (expected, row.hash);
        Ok(None)
    }

    /// What is wrong once there are no more rows.
    fn end(&self, head: Option<(i64, Vec<u8>)>) -> Option<Flaw> {
        let Some((number, hash)) = head else { return Some(Flaw::HeadMissing) };
        match number.cmp(&self.number) {
            std::cmp::Ordering::Greater => Some(Flaw::CutOff { number: self.number + 1 }),
            std::cmp::Ordering::Less => Some(Flaw::Added { number: number + 1 }),
            std::cmp::Ordering::Equal if hash != self.hash => Some(Flaw::HeadAltered),
            std::cmp::Ordering::Equal => {
                self.noted.filter(|noted| noted.number > self.number)?;
                Some(Flaw::CutOff { number: self.number + 1 })
            }
        }
    }

    fn verdict(self, flaw: Option<Flaw>) -> AuditVerdict {
        let head = AuditHead { number: self.number, hash: hex::encode(&self.hash) };
        AuditVerdict { rows: self.number, head, flaw }
    }
}

/// Where the row stands that was written as `number`, if not in its place.
fn elsewhere(connection: &Connection, previous: &[u8], number: i64) -> Result<Option<i64>, StoreError> {
    let sql = "select number, at, actor, action, subject, hash from audit where number <> ?1 order by number";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([number])?;
    while let Some(row) = rows.next()? {
        let row = Stored::read(row)?;
        if row.follows(previous, number) {
            return Ok(Some(row.number));
        }
    }
    Ok(None)
}

fn rows_from(connection: &Connection, number: i64) -> Result<Vec<Stored>, StoreError> {
    let sql = "select number, at, actor, action, subject, hash from audit where number >= ?1 order by number limit ?2";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_map(params![number, CHUNK as i64], Stored::read)?.collect::<Result<_, _>>()?)
}

impl Store {
    /// Appends a row that tells of nothing else in the store.
    ///
    /// # Errors
    /// [`StoreError`]; what is not written down is then not to be done.
    pub fn audit(&self, entry: &AuditEntry<'_>) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        append(&transaction, entry)?;
        transaction.commit()?;
        Ok(())
    }

    /// The newest rows, at most `limit`, in order; with `since` only those whose clock said it was later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audit_log(&self, since: Option<WallTime>, limit: u32) -> Result<AuditLog, StoreError> {
        let since = since.map_or(i64::MIN, |at| at.0);
        let connection = self.lock();
        let count = "select count(*) from audit where at >= ?1";
        let all: i64 = connection.query_row(count, [since], |row| row.get(0))?;
        let mut statement = connection.prepare_cached(
            "select number, at, actor, action, subject, hash from audit where at >= ?1 order by number desc limit ?2",
        )?;
        let rows = statement.query_map(params![since, limit], Stored::read)?.collect::<Result<Vec<_>, _>>()?;
        let left_out = all.unsigned_abs().saturating_sub(rows.len() as u64);
        Ok(AuditLog { rows: rows.into_iter().rev().map(shown).collect(), left_out })
    }

    /// Walks the chain from its first row and says what is wrong first. `noted` is a head that was printed before and
    /// kept elsewhere. Other work on the store goes on in between.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn verify_audit(&self, noted: Option<&AuditHead>) -> Result<AuditVerdict, StoreError> {
        let mut walk = Walk { number: 0, hash: GENESIS.to_vec(), noted };
        let mut from = i64::MIN;
        loop {
            let mut connection = self.lock();
            // Rows and head as of one moment: another process may be writing both.
            let moment = connection.transaction()?;
            let rows = rows_from(&moment, from)?;
            let is_last = rows.len() < CHUNK;
            for row in rows {
                if let Some(flaw) = walk.step(&moment, row)? {
                    return Ok(walk.verdict(Some(flaw)));
                }
            }
            if is_last {
                let flaw = walk.end(head(&moment)?);
                return Ok(walk.verdict(flaw));
            }
            from = walk.number + 1;
        }
    }
}

fn shown(row: Stored) -> AuditRow {
    let Stored { number, at, actor, action, subject, hash } = row;
    AuditRow { number, at: WallTime(at).to_string(), actor, action, subject, hash: hex::encode(hash) }
}
