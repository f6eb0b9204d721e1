//! One file per session: what was heard, second by second, and where nothing was.
//!
//!   header   `RSSP` · version u16 · reserved u16 · sample rate u32
//!   frames   of version 1, sealed; of version 0, plain, in files that were begun before there were keys: see `frame`
//!
//! A frame holds at most a second of 16-bit samples; or a gap (samples u64, cause as JSON text); or the name of the boot,
//! at the start and after every restart; or nothing, and says that the recording was ended. It is synced before the next
//! is begun, so a power cut costs at most the second being collected.
//!
//! **Sealed** is all of a frame but its length and its number, by the session's key for audio: gaps and times too. With
//! the key goes all that the file tells. Whoever needs gaps after that has them in the record, which is made before
//! audio may be destroyed. The header is plain; a plain file of a session that has a key is refused, so that nobody
//! passes one off as the other.
//!
//! **Reading** takes a frame only if it authenticates as the next of this session. What was altered, left out, put in
//! another place, or belongs to another session is passed over up to the next frame that does, and is a gap
//! (`audio_invalid`) as long as that one's place on the timeline says; what stands there twice is read once. A tail in
//! which nothing authenticates is not read. Writing goes on behind the last good frame; a tail longer than one that was
//! being written is left as it is, and gone on behind.

mod error;
mod frame;

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use shared::clock::{BootId, Now};
use shared::keys::Purpose;
use shared::paths::Root;
use shared::record::GapCause;
use shared::store::KeyStore;

pub use error::SpoolError;
use frame::{Content, Format, Found, Frame, HEAD_BYTES, Kind, MAX_FRAME_BYTES, MAX_MISSING, read_whole};

use crate::audio::{SAMPLE_RATE_HZ, from_bytes, to_bytes};

/// The recordings in the spool folder, by the session they are named for.
#[must_use]
pub fn recordings(root: &Root) -> BTreeMap<String, Metadata> {
    let entries = std::fs::read_dir(root.spool()).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let path = entry.path();
        let is_spool = path.extension().is_some_and(|e| e == "rspool");
        let session = path.file_stem().filter(|_| is_spool)?.to_str()?.to_owned();
        Some((session, entry.metadata().ok()?))
    });
    named.collect()
}

const MAGIC: &[u8; 4] = b"RSSP";
const HEADER_BYTES: u64 = 12;
/// What a frame says of a gap is believed up to half a year: behind a longer one nothing could be counted.
const MAX_GAP_SAMPLES: u64 = MAX_MISSING * SAMPLE_RATE_HZ as u64;
/// How much is looked through at a time for the next frame behind damage.
const BLOCK_BYTES: u64 = 1 << 16;

/// One entry of the timeline, in samples from the session's start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    /// Samples, in the frame of this number at this place in the file.
    Audio { samples: Range<u64>, sequence: u64, offset: u64 },
    /// Nothing, for a reason.
    Gap { samples: Range<u64>, cause: GapCause },
}

impl Entry {
    fn samples(&self) -> &Range<u64> {
        match self {
            Self::Audio { samples, .. } | Self::Gap { samples, .. } => samples,
        }
    }
}

/// What a spool file holds, as far as it has been read.
#[derive(Debug)]
struct Index {
    entries: Vec<Entry>,
    samples: u64,
    frames: u64,
    end: u64,
    boot: Option<BootId>,
    last: Option<Now>,
    ended: bool,
}

impl Index {
    fn new() -> Self {
        Self { entries: Vec::new(), samples: 0, frames: 0, end: HEADER_BYTES, boot: None, last: None, ended: false }
    }

    /// Reads on from `end` as long as there are frames.
    fn extend(&mut self, file: &File, format: &Format) -> io::Result<()> {
        loop {
            while let Some(frame) = format.read(file, self.end)?.filter(|f| f.sequence == self.frames) {
                if !frame.is_sound() && !self.is_followed(&frame, file, format)? {
                    break;
                }
                self.take(frame);
            }
            if !self.skip_damage(file, format)? {
                return Ok(());
            }
        }
    }

    /// Whether a damaged frame ends where the next begins. Else its length is damaged too: believed, it would reach over
    /// what is appended later.
    fn is_followed(&self, frame: &Frame, file: &File, format: &Format) -> io::Result<bool> {
        let next = format.read(file, self.end + frame.bytes)?;
        Ok(next.is_some_and(|next| next.is_sound() && next.sequence == frame.sequence + 1))
    }

    /// Looks for the next sound frame, and goes there if there is one.
    fn skip_damage(&mut self, file: &File, format: &Format) -> io::Result<bool> {
        let length = file.metadata()?.len();
        let mut at = self.end;
        while at + HEAD_BYTES as u64 <= length {
            let mut block = vec![0; usize::try_from(BLOCK_BYTES.min(length - at)).map_err(io::Error::other)?];
            if !read_whole(file, &mut block, at)? {
                return Ok(false);
            }
            for (ahead, head) in (0..).zip(block.windows(HEAD_BYTES)) {
                if format.may_begin(head, self.frames, at + ahead)
                    && let Some(frame) = format.read(file, at + ahead)?.filter(Frame::is_sound)
                {
                    self.skip_to(&frame, at + ahead);
                    return Ok(true);
                }
            }
            at += (block.len() - HEAD_BYTES + 1) as u64;
        }
        Ok(false)
    }

    /// Version 0 does not say how much is missing: a second a frame. Version 1 does, when the frame is taken.
    fn skip_to(&mut self, frame: &Frame, offset: u64) {
        if let Found::Sound(Content { start: None, .. }) = frame.content {
            self.gap((frame.sequence - self.frames).saturating_mul(SAMPLE_RATE_HZ.into()), GapCause::AudioInvalid);
        }
        (self.frames, self.end) = (frame.sequence, offset);
    }

    fn gap(&mut self, length: u64, cause: GapCause) {
        let samples = self.samples..self.samples.saturating_add(length.min(MAX_GAP_SAMPLES));
        self.samples = samples.end;
        self.entries.push(Entry::Gap { samples, cause });
    }

    fn take(&mut self, frame: Frame) {
        match frame.content {
            Found::Sound(content) => self.take_sound(content, frame.sequence),
            Found::Damaged { samples: 0 } => {}
            Found::Damaged { samples } => self.gap(samples, GapCause::AudioInvalid),
        }
        self.frames += 1;
        self.end += frame.bytes;
    }

    fn take_sound(&mut self, content: Content, sequence: u64) {
        let missing = content.start.map_or(0, |start| start.saturating_sub(self.samples));
        if missing > 0 {
            self.gap(missing, GapCause::AudioInvalid);
        }
        match content.kind {
            Kind::Audio => {
                let samples = self.samples..self.samples.saturating_add(content.payload.len() as u64 / 2);
                self.samples = samples.end;
                self.entries.push(Entry::Audio { samples, sequence, offset: self.end });
            }
            Kind::Gap => {
                if let Some((length, cause)) = parse_gap(&content.payload) {
                    self.gap(length, cause);
                }
            }
            Kind::Boot => self.boot = String::from_utf8(content.payload).ok().map(BootId),
            Kind::End => self.ended = true,
        }
        // A restart without a sample is no news: the downtime counts from the last sample or gap.
        let is_news = content.kind != Kind::Boot || self.last.is_none();
        if let Some(boot) = self.boot.clone().filter(|_| is_news) {
            self.last = Some(Now { wall: content.wall, uptime: content.uptime, boot });
        }
    }
}

fn parse_gap(payload: &[u8]) -> Option<(u64, GapCause)> {
    let (length, cause) = payload.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*length), serde_json::from_slice(cause).ok()?))
}

/// Finds out how a session's file is written. None: its header is not whole.
fn format(file: &File, keys: &KeyStore, session: &str) -> Result<Option<Format>, SpoolError> {
    let mut header = [0; HEADER_BYTES as usize];
    if !read_whole(file, &mut header, 0)? {
        return Ok(None);
    }
    if &header[..4] != MAGIC {
        return Err(SpoolError::NotASpool);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    match (version, keys.get(session, Purpose::Audio)?) {
        (0, None) => Ok(Some(Format::Plain)),
        (0, Some(_)) => Err(SpoolError::Unsealed),
        (1, Some(key)) => Ok(Some(Format::Sealed(key))),
        (1, None) => Err(SpoolError::Gone),
        _ => Err(SpoolError::NotASpool),
    }
}

/// Where a session's audio lies.
#[must_use]
pub fn spool_file(root: &Root, session: &str) -> PathBuf {
    root.spool().join(format!("{session}.rspool"))
}

/// Whether there is a session's recording whose key is gone. Reads nothing but its header.
#[must_use]
pub fn is_gone(path: &Path, keys: &KeyStore, session: &str) -> bool {
    File::open(path).is_ok_and(|file| matches!(format(&file, keys, session), Err(SpoolError::Gone)))
}

/// The writing end: owned by whoever records. It holds the key, so that no frame waits for the key store.
#[derive(Debug)]
pub struct SpoolWriter {
    file: File,
    format: Format,
    end: u64,
    sequence: u64,
    samples: u64,
}

/// What a spool held when it was opened for writing again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its length on the timeline.
    pub samples: u64,
    /// When its last sample or gap was written, or when it was begun.
    pub at: Option<Now>,
    /// Whether the recording was ended.
    pub ended: bool,
}

impl SpoolWriter {
    /// Makes a session's key, and begins its file.
    ///
    /// # Errors
    /// [`SpoolError`]; a key or a file may be left, which [`crate::forget::audio`] takes away.
    pub fn begin(path: &Path, keys: &KeyStore, session: &str, now: &Now) -> Result<Self, SpoolError> {
        let key = keys.make(session, Purpose::Audio, now.wall)?;
        Self::create(path, Format::Sealed(key), now)
    }

    fn create(path: &Path, format: Format, now: &Now) -> Result<Self, SpoolError> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut header = MAGIC.to_vec();
        header.extend(format.version().to_le_bytes());
        header.extend(0u16.to_le_bytes());
        header.extend(SAMPLE_RATE_HZ.to_le_bytes());
        file.write_all(&header)?;
        let mut writer = Self { file, format, end: HEADER_BYTES, sequence: 0, samples: 0 };
        writer.boot(now)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(writer)
    }

    /// Goes on with a session's file after a restart, in the form in which it was begun. A frame that is not whole at
    /// its end is cut off.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn reopen(path: &Path, keys: &KeyStore, session: &str, now: &Now) -> Result<(Self, Left), SpoolError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let Some(format) = format(&file, keys, session)? else {
            drop(file);
            std::fs::remove_file(path)?;
            let begun = Self::begin(path, keys, session, now)?;
            return Ok((begun, Left { samples: 0, at: None, ended: false }));
        };
        let mut index = Index::new();
        index.extend(&file, &format)?;
        let length = file.metadata()?.len();
        let mut end = index.end;
        if length - end.min(length) > MAX_FRAME_BYTES {
            end = length;
        } else {
            file.set_len(end)?;
        }
        let left = Left { samples: index.samples, at: index.last, ended: index.ended };
        let mut writer = Self { file, format, end, sequence: index.frames, samples: index.samples };
        writer.boot(now)?;
        Ok((writer, left))
    }

    /// Its length on the timeline.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Appends samples, a second at a time, and syncs each.
    ///
    /// # Errors
    /// [`SpoolError`]; the frame is then not counted.
    pub fn audio(&mut self, pcm: &[i16], now: &Now) -> Result<(), SpoolError> {
        for second in pcm.chunks(SAMPLE_RATE_HZ as usize) {
            self.frame(Kind::Audio, to_bytes(second), now)?;
            self.samples += second.len() as u64;
        }
        Ok(())
    }

    /// Appends a gap and syncs it.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn gap(&mut self, samples: u64, cause: GapCause, now: &Now) -> Result<(), SpoolError> {
        let mut payload = samples.to_le_bytes().to_vec();
        payload.extend(serde_json::to_vec(&cause).map_err(io::Error::from)?);
        self.frame(Kind::Gap, payload, now)?;
        self.samples += samples;
        Ok(())
    }

    /// Says that the recording was ended, so that no restart goes on with it.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn finish(&mut self, now: &Now) -> Result<(), SpoolError> {
        self.frame(Kind::End, Vec::new(), now)
    }

    fn boot(&mut self, now: &Now) -> Result<(), SpoolError> {
        self.frame(Kind::Boot, now.boot.0.as_bytes().to_vec(), now)
    }

    fn frame(&mut self, kind: Kind, payload: Vec<u8>, now: &Now) -> Result<(), SpoolError> {
        let content = Content { kind, start: Some(self.samples), uptime: now.uptime, wall: now.wall, payload };
        let frame = self.format.write(self.sequence, &content)?;
        // Always behind the last whole frame: what a failed write left there is written over.
        self.file.write_all_at(&frame, self.end)?;
        self.file.sync_data()?;
        self.end += frame.len() as u64;
        self.sequence += 1;
        Ok(())
    }
}

/// The reading end: follows the file as it grows.
#[derive(Debug)]
pub struct SpoolReader {
    file: File,
    format: Format,
    index: Index,
}

impl SpoolReader {
    /// Opens a session's file and reads what is there.
    ///
    /// # Errors
    /// [`SpoolError`].
    pub fn open(path: &Path, keys: &KeyStore, session: &str) -> Result<Self, SpoolError> {
        let file = File::open(path)?;
        let format = format(&file, keys, session)?.ok_or(SpoolError::NotASpool)?;
        let mut reader = Self { file, format, index: Index::new() };
        reader.refresh()?;
        Ok(reader)
    }

    /// Reads on, and says how long the timeline is now.
    ///
    /// # Errors
    /// [`SpoolError::Disk`].
    pub fn refresh(&mut self) -> Result<u64, SpoolError> {
        self.index.extend(&self.file, &self.format)?;
        Ok(self.index.samples)
    }

    /// Its length on the timeline, as last read.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.index.samples
    }

    /// The samples of a stretch of the timeline, with silence where there is a gap. It is as long as asked for, or
    /// ends where the timeline does.
    ///
    /// # Errors
    /// [`SpoolError::Disk`] or [`SpoolError::Altered`].
    pub fn read(&self, stretch: Range<u64>) -> Result<Vec<i16>, SpoolError> {
        let end = stretch.end.min(self.index.samples);
        let length = usize::try_from(end.saturating_sub(stretch.start)).map_err(io::Error::other)?;
        let mut pcm = vec![0; length];
        let first = self.index.entries.partition_point(|e| e.samples().end <= stretch.start);
        for entry in &self.index.entries[first..] {
            let Entry::Audio { samples, sequence, offset } = entry else { continue };
            if samples.start >= end {
                break;
            }
            let second = self.second(*sequence, *offset)?;
            let (from, to) = (samples.start.max(stretch.start), samples.end.min(end));
            let heard = (from - samples.start) as usize..(to - samples.start) as usize;
            let at = (from - stretch.start) as usize;
            let heard = second.get(heard).ok_or(SpoolError::Altered)?;
            pcm[at..at + heard.len()].copy_from_slice(heard);
        }
        Ok(pcm)
    }

    /// The samples of one frame.
    fn second(&self, sequence: u64, offset: u64) -> Result<Vec<i16>, SpoolError> {
        let frame = self.format.read(&self.file, offset)?.filter(|frame| frame.sequence == sequence);
        match frame.map(|frame| frame.content) {
            Some(Found::Sound(Content { kind: Kind::Audio, payload, .. })) => Ok(from_bytes(&payload)),
            Some(Found::Sound(_) | Found::Damaged { .. }) | None => Err(SpoolError::Altered),
        }
    }

    /// Every gap, neighbours of one cause joined.
    #[must_use]
    pub fn gaps(&self) -> Vec<(Range<u64>, GapCause)> {
        let mut gaps: Vec<(Range<u64>, GapCause)> = Vec::new();
        for entry in &self.index.entries {
            let Entry::Gap { samples, cause } = entry else { continue };
            match gaps.last_mut() {
                Some((last, why)) if last.end == samples.start && why == cause => last.end = samples.end,
                _ if samples.is_empty() => {}
                _ => gaps.push((samples.clone(), *cause)),
            }
        }
        gaps
    }

    /// Whether anything was heard in a stretch.
    #[must_use]
    pub fn has_audio(&self, stretch: &Range<u64>) -> bool {
        self.index.entries.iter().any(|e| {
            matches!(e, Entry::Audio { .. }) && e.samples().start < stretch.end && stretch.start < e.samples().end
        })
    }
}

#[cfg(test)]
mod tests;
