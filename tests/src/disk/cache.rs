//! What a disk holds and what it only says it holds: every write since the last flush lies apart until the next.
//!
//!   write ──▶ cache ── flush ──▶ medium          read: the cache over the medium
//!   cut: the cache is gone; of the crueller kind, any part of it may have reached the medium, in any order
//!
//! Pure: it knows neither kernel nor clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;

const PAGE: usize = 4096;

/// The least that a disk writes whole.
pub const SECTOR: usize = 512;

/// Pages that were written; all others are zero. Copies share them.
#[derive(Debug, Clone, Default)]
struct Pages(HashMap<u64, Arc<[u8; PAGE]>>);

impl Pages {
    fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let (mut number, mut within) = (offset / PAGE as u64, (offset % PAGE as u64) as usize);
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - within));
            let page = self.0.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + now.len()].copy_from_slice(now);
            (bytes, number, within) = (rest, number + 1, 0);
        }
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut read = Vec::with_capacity(length);
        let (mut number, mut within) = (offset / PAGE as u64, (offset % PAGE as u64) as usize);
        while read.len() < length {
            let count = (length - read.len()).min(PAGE - within);
            match self.0.get(&number) {
                Some(page) => read.extend_from_slice(&page[within..within + count]),
                None => read.resize(read.len() + count, 0),
            }
            (number, within) = (number + 1, 0);
        }
        read
    }
}

/// What becomes of the cache when the power goes.
#[derive(Debug)]
pub enum Cut {
    /// It is forgotten.
    Forgets,
    /// Each piece of it of `unit` bytes reached the medium with the chance `share`, also a later one without an earlier.
    Keeps {
        /// [`SECTOR`] or more.
        unit: usize,
        /// 0 to 1.
        share: f64,
        /// Which of them.
        dice: Box<StdRng>,
    },
}

/// Whether a flush does what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    /// It does.
    Honest,
    /// A planted fault: what is younger than this stays in the cache, and the disk says that it does not.
    Lies(Duration),
}

#[derive(Debug)]
struct Write {
    at: Duration,
    offset: u64,
    bytes: Vec<u8>,
}

/// What was done to a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flushes that were asked for.
    pub flushes: u64,
    /// Writes.
    pub writes: u64,
    /// Cuts that found something in the cache.
    pub cuts_with_unflushed: u64,
    /// Bytes that were in the cache at cuts.
    pub unflushed_bytes: u64,
    /// Bytes of these that reached the medium all the same.
    pub survived_bytes: u64,
}

/// See the top of the file.
#[derive(Debug)]
pub struct Cache {
    now: Pages,
    medium: Pages,
    unflushed: VecDeque<Write>,
    honesty: Honesty,
    counts: Counts,
}

impl Cache {
    /// An empty disk.
    #[must_use]
    pub fn new(honesty: Honesty) -> Self {
        let (now, medium) = (Pages::default(), Pages::default());
        Self { now, medium, unflushed: VecDeque::new(), honesty, counts: Counts::default() }
    }

    /// What a reader finds.
    #[must_use]
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        self.now.read(offset, length)
    }

    /// Takes a write at a moment that only a liar looks at.
    pub fn write(&mut self, offset: u64, bytes: &[u8], at: Duration) {
        self.counts.writes += 1;
        self.now.write(offset, bytes);
        self.unflushed.push_back(Write { at, offset, bytes: bytes.to_vec() });
    }

    /// Puts what was written on the medium.
    pub fn flush(&mut self, at: Duration) {
        self.counts.flushes += 1;
        let is_due = |write: &Write| match self.honesty {
            Honesty::Honest => true,
            Honesty::Lies(younger) => at.saturating_sub(write.at) >= younger,
        };
        while let Some(write) = self.unflushed.pop_front_if(|write| is_due(write)) {
            self.medium.write(write.offset, &write.bytes);
        }
    }

    /// The power goes: what is left is what anybody reads from now on.
    pub fn cut(&mut self, cut: Cut) {
        let unflushed = std::mem::take(&mut self.unflushed);
        self.counts.cuts_with_unflushed += u64::from(!unflushed.is_empty());
        self.counts.unflushed_bytes += unflushed.iter().map(|write| write.bytes.len() as u64).sum::<u64>();
        if let Cut::Keeps { unit, share, mut dice } = cut {
            for write in unflushed {
                let starts = (write.offset..).step_by(unit);
                for (start, piece) in starts.zip(write.bytes.chunks(unit)) {
                    if dice.random_bool(share) {
                        self.counts.survived_bytes += piece.len() as u64;
                        self.medium.write(start, piece);
                    }
                }
            }
        }
        self.now = self.medium.clone();
    }

    /// What was done to it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}
