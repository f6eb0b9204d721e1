//! Spool files: as whole files of both versions, and as frames that are put together well enough to be believed.
//!
//!   first byte, modulo 4    0 a plain file · 1 a sealed file · 2 a plan of plain frames · 3 a plan of sealed frames
//!
//! A plan is a list of steps, each a byte and what it needs; sums and seals of its frames are right, so that what is
//! behind them is reached. The keys are always the same: sealed files can lie in the corpus.

use std::ops::Range;
use std::path::PathBuf;

use appliance::spool::{SpoolError, SpoolReader, SpoolWriter};
use rusqlite::{Connection, params};
use shared::clock::{Clock as _, Now, ScriptedClock};
use shared::keys::{BoxKeys, DataKey, Purpose};
use shared::record::GapCause;
use shared::store::KeyStore;

use super::{Feed, Target};

/// Wraps the one key of [`WRAPPED`].
const BOX_KEY: &str = "roomscribe-box-key-v1 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
/// The key for the audio of [`SEALED`].
const WRAPPED: &str = include_str!("frame-key.hex");
const PLAIN: &str = "plain";
const SEALED: &str = "sealed";
const HEADER_BYTES: usize = 12;
/// Read at once: what a file says it lasts may be half a year.
const STRETCH: u64 = 2_000;
/// Gaps that are read and looked at.
const GAPS: usize = 4;
/// Of a plan: what is longer tells nothing more.
const STEPS: usize = 24;
/// Of a payload: a second.
const MOST_BYTES: usize = 32_000;

/// See the top of the file.
pub struct Frames {
    _folder: tempfile::TempDir,
    path: PathBuf,
    keys: KeyStore,
    key: DataKey,
    now: Now,
}

impl Target for Frames {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = folder.path().join("keys.db");
        let boxes = || BoxKeys::parse(BOX_KEY).expect("a box key");
        drop(KeyStore::open(&store, boxes()).expect("a key store"));
        let wrapped = hex::decode(WRAPPED.trim()).expect("a wrapped key");
        let insert = "insert into keys (owner, purpose, wrapped, made_at) values (?1, 'audio', ?2, 0)";
        let connection = Connection::open(&store).expect("a key store");
        connection.execute(insert, params![SEALED, wrapped]).expect("room for a key");
        drop(connection);
        let keys = KeyStore::open(&store, boxes()).expect("a key store");
        let key = keys.get(SEALED, Purpose::Audio).expect("a key that opens").expect("a key");
        Self { path: folder.path().join("a.rspool"), _folder: folder, keys, key, now: ScriptedClock::new().now() }
    }

    fn run(&mut self, input: &[u8]) {
        let mut feed = Feed(input);
        let way = feed.byte() % 4;
        let (session, key) = if way % 2 == 1 { (SEALED, Some(&self.key)) } else { (PLAIN, None) };
        let file = if way < 2 { feed.0.to_vec() } else { planned(&mut feed, key) };
        std::fs::write(&self.path, &file).expect("room for a file");
        let Some(reader) = self.open(session) else { return };
        self.read(session, &reader, file.len() as u64);
        self.go_on(session, &reader);
    }
}

impl Frames {
    /// What is no recording is said to be none, and nothing else.
    fn open(&self, session: &str) -> Option<SpoolReader> {
        match SpoolReader::open(&self.path, &self.keys, session) {
            Ok(reader) => Some(reader),
            Err(SpoolError::NotASpool | SpoolError::Unsealed | SpoolError::Gone) => None,
            Err(why) => panic!("a file in memory was not read: {why}"),
        }
    }

    fn read(&self, session: &str, reader: &SpoolReader, bytes: u64) {
        let (samples, gaps) = (reader.samples(), reader.gaps());
        let mut silent = 0;
        let mut last = 0;
        for (gap, _) in &gaps {
            assert!(last <= gap.start && gap.start < gap.end && gap.end <= samples, "a gap lies on the timeline");
            silent += gap.end - gap.start;
            last = gap.end;
        }
        assert!((samples - silent).saturating_mul(2) <= bytes, "no more was heard than there are bytes");
        let around = |gap: &Range<u64>| gap.start.saturating_sub(10)..gap.end.min(gap.start + 10) + 10;
        let mut stretches = vec![0..STRETCH, samples.saturating_sub(STRETCH)..u64::MAX, samples..u64::MAX];
        stretches.extend(gaps.iter().take(GAPS).map(|(gap, _)| around(gap)));
        for stretch in &stretches {
            let heard = reader.read(stretch.clone()).expect("what was indexed can be read");
            let length = stretch.end.min(samples).saturating_sub(stretch.start);
            assert_eq!(heard.len() as u64, length, "a stretch is as long as asked for");
            let place = |at: u64| {
                usize::try_from(at.saturating_sub(stretch.start)).map_or(heard.len(), |at| at.min(heard.len()))
            };
            let silent = |gap: &Range<u64>| &heard[place(gap.start)..place(gap.end)];
            let are_silent = gaps.iter().take(GAPS).all(|(gap, _)| silent(gap).iter().all(|sample| *sample == 0));
            assert!(are_silent, "a gap is silent");
            assert!(reader.has_audio(stretch) || heard.iter().all(|sample| *sample == 0), "what is heard is audio");
        }
        let mut again = self.open(session).expect("it opens again");
        assert_eq!((again.samples(), again.gaps()), (samples, gaps), "read twice, it is the same");
        assert_eq!(again.refresh().expect("it can be read on"), samples, "and no longer");
    }

    /// A restart finds the same recording, and what it adds stands behind it.
    fn go_on(&self, session: &str, reader: &SpoolReader) {
        let (samples, gaps) = (reader.samples(), reader.gaps());
        let reopened = SpoolWriter::reopen(&self.path, &self.keys, session, &self.now);
        let (mut writer, left) = reopened.expect("what can be read can be gone on with");
        assert_eq!((left.samples, writer.samples()), (samples, samples), "a restart finds what a reader does");
        let pcm: Vec<i16> = (1..=10).collect();
        writer.audio(&pcm, &self.now).expect("room for a frame");
        writer.gap(5, GapCause::Restart, &self.now).expect("room for a frame");
        assert_eq!(writer.samples(), samples + 15);
        let on = self.open(session).expect("it opens again");
        assert_eq!(on.samples(), samples + 15, "what was added counts");
        assert_eq!(on.read(samples..samples + 10).expect("it can be read"), pcm, "and is heard");
        assert!(on.gaps().len() <= gaps.len() + 2 && on.samples() == writer.samples(), "a restart adds what it says");
    }
}

/// A file of the frames that are planned.
fn planned(feed: &mut Feed<'_>, key: Option<&DataKey>) -> Vec<u8> {
    let mut plan = Plan { key, file: Vec::new(), frames: Vec::new(), sequence: 0, samples: 0 };
    plan.file.extend(b"RSSP");
    plan.file.extend(u16::from(key.is_some()).to_le_bytes());
    plan.file.extend([0, 0, 0x80, 0x3e, 0, 0]);
    for _ in 0..STEPS {
        if feed.0.is_empty() {
            break;
        }
        plan.step(feed);
    }
    plan.file
}

struct Plan<'a> {
    key: Option<&'a DataKey>,
    file: Vec<u8>,
    frames: Vec<Range<usize>>,
    sequence: u64,
    samples: u64,
}

impl Plan<'_> {
    fn step(&mut self, feed: &mut Feed<'_>) {
        let what = feed.byte();
        match what % 8 {
            // Bytes that are no frame.
            5 => {
                let length = feed.byte().into();
                self.file.extend(feed.take(length));
            }
            // An earlier frame once more.
            6 => {
                let which = usize::from(feed.byte()).checked_rem(self.frames.len());
                if let Some(frame) = which.and_then(|which| self.frames.get(which)) {
                    self.file.extend_from_within(frame.clone());
                }
            }
            // The end is gone, or a byte is another.
            7 => {
                let back = usize::from(feed.byte()).min(self.file.len() - HEADER_BYTES);
                let at = self.file.len() - back;
                match what / 8 % 2 {
                    0 => self.file.truncate(at),
                    _ => self.file.get_mut(at).into_iter().for_each(|byte| *byte ^= 1),
                }
                self.frames.retain(|frame| frame.end <= self.file.len());
            }
            // A frame: of the next number or another, in its place on the timeline or another.
            0..=4 => self.frame(what, feed),
            _ => {}
        }
    }

    fn frame(&mut self, what: u8, feed: &mut Feed<'_>) {
        let kind = if what % 8 == 4 { feed.byte() } else { what % 8 };
        if what & 0x10 != 0 {
            self.sequence = self.sequence.wrapping_add(u64::from(feed.byte()));
        }
        if what & 0x20 != 0 {
            self.samples = feed.number();
        }
        if what & 0x40 != 0 {
            self.sequence = feed.number();
        }
        let payload = match (what & 0x80 != 0, kind) {
            // A gap that is well formed.
            (false, 1) => {
                let length = if feed.byte().is_multiple_of(2) { feed.byte().into() } else { feed.number() };
                [&length.to_le_bytes()[..], b"\"overrun\""].concat()
            }
            (false, _) => {
                let length = usize::from(feed.byte());
                feed.take(length).to_vec()
            }
            // A long one, and not of zeros: each of those may be the head of an empty frame, and has to be looked at.
            (true, _) => {
                let (length, sample) = (feed.byte(), feed.byte().max(1));
                vec![sample; if length == u8::MAX { MOST_BYTES } else { usize::from(length) * 2 }]
            }
        };
        let start = self.samples;
        self.samples = match kind {
            0 => start.wrapping_add(payload.len() as u64 / 2),
            1 => start.wrapping_add(payload.first_chunk().map_or(0, |length| u64::from_le_bytes(*length))),
            _ => start,
        };
        let stamp = [&[kind][..], &60_000u64.to_le_bytes(), &1_767_225_600_000i64.to_le_bytes()].concat();
        let frame = match self.key {
            Some(key) => sealed(key, self.sequence, &[&stamp[..], &start.to_le_bytes(), &payload].concat()),
            None => plain(self.sequence, &stamp, &payload),
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.frames.push(self.file.len()..self.file.len() + frame.len());
        self.file.extend(frame);
    }
}

fn head(length: usize, sequence: u64) -> Vec<u8> {
    let length = u32::try_from(length).expect("a short frame");
    [&length.to_le_bytes()[..], &sequence.to_le_bytes()].concat()
}

fn sealed(key: &DataKey, sequence: u64, inside: &[u8]) -> Vec<u8> {
    let sealed = key.seal_frame(sequence, inside).expect("there is randomness");
    [head(sealed.len(), sequence), sealed].concat()
}

fn plain(sequence: u64, stamp: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = [&head(payload.len(), sequence)[..], stamp, payload].concat();
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame
}
