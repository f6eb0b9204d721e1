//! One file per session: what was heard, second by second, and where nothing was.
//!
//!   header   `RSSP` · version u16 (0: not sealed) · reserved u16 · sample rate u32
//!   frame    payload length u32 · sequence u64 · kind u8 · uptime ms u64 · wall ms i64 · payload · CRC-32 u32
//!
//! Little-endian. A frame of kind 0 holds at most a second of 16-bit samples; kind 1 a gap (samples u64, cause as
//! JSON text); kind 2 the name of the boot, at the start and after every restart; kind 3 is empty and says that the
//! recording was ended. The CRC is over everything before it in its frame. A frame is synced before the next is begun,
//! so a power cut costs at most the second being collected. Reading stops at a last frame that is not whole; a whole
//! frame with a wrong sum, and whatever lies between a damaged head and the next whole frame, is a gap.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use shared::clock::{BootId, Now, WallTime};
use shared::record::GapCause;

use crate::audio::{SAMPLE_RATE_HZ, from_bytes, to_bytes};

const MAGIC: &[u8; 4] = b"RSSP";
const VERSION: u16 = 0;
const HEADER_BYTES: u64 = 12;
const FRAME_HEAD_BYTES: usize = 4 + 8 + 1 + 8 + 8;
/// The longest payload: a second of samples. Anything longer is damage.
const MAX_PAYLOAD_BYTES: u32 = 2 * SAMPLE_RATE_HZ;
/// The longest frame; a tail shorter than this may be one that is being written.
const MAX_FRAME_BYTES: u64 = FRAME_HEAD_BYTES as u64 + MAX_PAYLOAD_BYTES as u64 + 4;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Audio,
    Gap,
    Boot,
    End,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Audio),
            1 => Some(Self::Gap),
            2 => Some(Self::Boot),
            3 => Some(Self::End),
            _ => None,
        }
    }
}

/// One entry of the timeline, in samples from the session's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Samples, at this place in the file.
    Audio {
        /// Where on the timeline.
        samples: Range<u64>,
        /// Where in the file.
        offset: u64,
    },
    /// Nothing, for a reason.
    Gap {
        /// Where on the timeline.
        samples: Range<u64>,
        /// Why.
        cause: GapCause,
    },
}

impl Entry {
    /// Where on the timeline.
    #[must_use]
    pub fn samples(&self) -> &Range<u64> {
        match self {
            Self::Audio { samples, .. } | Self::Gap { samples, .. } => samples,
        }
    }
}

/// What a spool file holds, as far as it has been read.
#[derive(Debug, Default)]
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
    /// Reads on from `end` until the first frame that is not whole.
    fn extend(&mut self, file: &mut File) -> io::Result<()> {
        if self.end == 0 {
            let mut header = [0; HEADER_BYTES as usize];
            file.seek(SeekFrom::Start(0))?;
            if !read_whole(file, &mut header)? {
                return Ok(());
            }
            if &header[..4] != MAGIC || u16::from_le_bytes([header[4], header[5]]) != VERSION {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a spool file of this version"));
            }
            self.end = HEADER_BYTES;
        }
        loop {
            file.seek(SeekFrom::Start(self.end))?;
            while let Some(frame) = read_frame(file)?.filter(|f| f.sequence == self.frames) {
                self.take(frame);
            }
            let left = file.metadata()?.len().saturating_sub(self.end);
            if left <= MAX_FRAME_BYTES || !self.skip_damage(file, left)? {
                return Ok(());
            }
        }
    }

    /// Looks for the next sound frame behind a damaged head. What lies between is a gap of a second a frame.
    fn skip_damage(&mut self, file: &mut File, left: u64) -> io::Result<bool> {
        for ahead in 1..left {
            file.seek(SeekFrom::Start(self.end + ahead))?;
            let sound = read_frame(file)?.filter(|f| f.intact && f.sequence > self.frames);
            let Some(frame) = sound.filter(|f| f.sequence - self.frames <= left) else { continue };
            let lost = (frame.sequence - self.frames) * u64::from(SAMPLE_RATE_HZ);
            let samples = self.samples..self.samples + lost;
            self.samples = samples.end;
            self.entries.push(Entry::Gap { samples, cause: GapCause::AudioInvalid });
            (self.frames, self.end) = (frame.sequence, self.end + ahead);
            return Ok(true);
        }
        Ok(false)
    }

    fn take(&mut self, frame: Frame) {
        let start = self.samples;
        let offset = self.end + FRAME_HEAD_BYTES as u64;
        let gap = |length: u64, cause| Entry::Gap { samples: start..start.saturating_add(length), cause };
        let entry = match (frame.kind, frame.intact) {
            (Kind::Audio, true) => {
                Some(Entry::Audio { samples: start..start + frame.payload.len() as u64 / 2, offset })
            }
            (Kind::Audio, false) => Some(gap(frame.payload.len() as u64 / 2, GapCause::AudioInvalid)),
            (Kind::Gap, true) => parse_gap(&frame.payload).map(|(length, cause)| gap(length, cause)),
            (Kind::Boot, true) => {
                self.boot = String::from_utf8(frame.payload.clone()).ok().map(BootId);
                None
            }
            (Kind::End, true) => {
                self.ended = true;
                None
            }
            (Kind::Gap | Kind::Boot | Kind::End, false) => None,
        };
        if let Some(entry) = entry {
            self.samples = entry.samples().end;
            self.entries.push(entry);
        }
        self.frames += 1;
        self.end = offset + frame.payload.len() as u64 + 4;
        // A restart without a sample is no news: the downtime counts from the last sample or gap.
        let is_news = frame.intact && (frame.kind != Kind::Boot || self.last.is_none());
        if let Some(boot) = self.boot.clone().filter(|_| is_news) {
            self.last = Some(Now { wall: frame.wall, uptime: frame.uptime, boot });
        }
    }
}

fn parse_gap(payload: &[u8]) -> Option<(u64, GapCause)> {
    let (length, cause) = payload.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*length), serde_json::from_slice(cause).ok()?))
}

struct Frame {
    sequence: u64,
    kind: Kind,
    uptime: Duration,
    wall: WallTime,
    payload: Vec<u8>,
    intact: bool,
}

/// Fills `into`, or says that the file ends before.
fn read_whole(file: &mut File, into: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn read_frame(file: &mut File) -> io::Result<Option<Frame>> {
    let mut head = [0; FRAME_HEAD_BYTES];
    if !read_whole(file, &mut head)? {
        return Ok(None);
    }
    let field = |at: usize| -> [u8; 8] { std::array::from_fn(|i| head[at + i]) };
    let length = u32::from_le_bytes(std::array::from_fn(|i| head[i]));
    let kind = Kind::from_byte(head[12]);
    let Some(kind) = kind.filter(|_| length <= MAX_PAYLOAD_BYTES) else { return Ok(None) };
    let mut payload = vec![0; length as usize];
    let mut sum = [0; 4];
    if !read_whole(file, &mut payload)? || !read_whole(file, &mut sum)? {
        return Ok(None);
    }
    Ok(Some(Frame {
        sequence: u64::from_le_bytes(field(4)),
        kind,
        uptime: Duration::from_millis(u64::from_le_bytes(field(13))),
        wall: WallTime(i64::from_le_bytes(field(21))),
        intact: checksum(&head, &payload) == u32::from_le_bytes(sum),
        payload,
    }))
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// The writing end: owned by whoever records.
#[derive(Debug)]
pub struct SpoolWriter {
    file: File,
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
    /// Begins a session's file.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn create(path: &Path, now: &Now) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend(0u16.to_le_bytes());
        header.extend(SAMPLE_RATE_HZ.to_le_bytes());
        file.write_all(&header)?;
        let mut writer = Self { file, end: HEADER_BYTES, sequence: 0, samples: 0 };
        writer.boot(now)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(writer)
    }

    /// Goes on with a session's file after a restart: whatever is not whole at its end is cut off.
    ///
    /// # Errors
    /// Whatever the file system says, or `InvalidData` for another kind of file.
    pub fn reopen(path: &Path, now: &Now) -> io::Result<(Self, Left)> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut index = Index::default();
        index.extend(&mut file)?;
        if index.end < HEADER_BYTES {
            drop(file);
            std::fs::remove_file(path)?;
            return Ok((Self::create(path, now)?, Left { samples: 0, at: None, ended: false }));
        }
        file.set_len(index.end)?;
        let left = Left { samples: index.samples, at: index.last, ended: index.ended };
        let mut writer = Self { file, end: index.end, sequence: index.frames, samples: index.samples };
        writer.boot(now)?;
        Ok((writer, left))
    }

    /// Its length on the timeline.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Appends at most a second of samples and syncs them.
    ///
    /// # Errors
    /// Whatever the file system says; the frame is then not counted.
    pub fn audio(&mut self, pcm: &[i16], now: &Now) -> io::Result<()> {
        for second in pcm.chunks(SAMPLE_RATE_HZ as usize) {
            self.frame(Kind::Audio, &to_bytes(second), now)?;
            self.samples += second.len() as u64;
        }
        Ok(())
    }

    /// Appends a gap and syncs it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn gap(&mut self, samples: u64, cause: GapCause, now: &Now) -> io::Result<()> {
        let mut payload = samples.to_le_bytes().to_vec();
        payload.extend(serde_json::to_vec(&cause)?);
        self.frame(Kind::Gap, &payload, now)?;
        self.samples += samples;
        Ok(())
    }

    /// Says that the recording was ended, so that no restart goes on with it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn finish(&mut self, now: &Now) -> io::Result<()> {
        self.frame(Kind::End, &[], now)
    }

    fn boot(&mut self, now: &Now) -> io::Result<()> {
        self.frame(Kind::Boot, now.boot.0.as_bytes(), now)
    }

    fn frame(&mut self, kind: Kind, payload: &[u8], now: &Now) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend(self.sequence.to_le_bytes());
        frame.push(kind as u8);
        frame.extend(u64::try_from(now.uptime.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
        frame.extend(now.wall.0.to_le_bytes());
        let sum = checksum(&frame, payload);
        frame.extend(payload);
        frame.extend(sum.to_le_bytes());
        // Always behind the last whole frame: what a failed write left there is written over.
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&frame)?;
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
    index: Index,
}

impl SpoolReader {
    /// Opens a session's file and reads what is there.
    ///
    /// # Errors
    /// Whatever the file system says, or `InvalidData` for another kind of file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut reader = Self { file: File::open(path)?, index: Index::default() };
        reader.refresh()?;
        Ok(reader)
    }

    /// Reads on, and says how long the timeline is now.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn refresh(&mut self) -> io::Result<u64> {
        self.index.extend(&mut self.file)?;
        Ok(self.index.samples)
    }

    /// The samples of a stretch of the timeline, with silence where there is a gap. It is as long as asked for, or
    /// ends where the timeline does.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn read(&mut self, stretch: Range<u64>) -> io::Result<Vec<i16>> {
        let end = stretch.end.min(self.index.samples);
        let mut pcm = vec![0; usize::try_from(end.saturating_sub(stretch.start)).map_err(io::Error::other)?];
        let first = self.index.entries.partition_point(|e| e.samples().end <= stretch.start);
        for entry in &self.index.entries[first..] {
            let Entry::Audio { samples, offset } = entry else { continue };
            if samples.start >= end {
                break;
            }
            let (from, to) = (samples.start.max(stretch.start), samples.end.min(end));
            let mut bytes = vec![0; 2 * (to - from) as usize];
            self.file.seek(SeekFrom::Start(offset + 2 * (from - samples.start)))?;
            self.file.read_exact(&mut bytes)?;
            let at = (from - stretch.start) as usize;
            pcm[at..at + bytes.len() / 2].copy_from_slice(&from_bytes(&bytes));
        }
        Ok(pcm)
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
mod tests {
    use super::*;
    use shared::clock::{Clock as _, ScriptedClock};

    fn tone(samples: usize) -> Vec<i16> {
        (0..samples).map(|n| (n % 1000) as i16).collect()
    }

    #[test]
    fn what_is_written_is_read_back_with_gaps_as_silence() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("s"), ScriptedClock::new());
        let mut writer = SpoolWriter::create(&path, &clock.now()).unwrap();
        writer.audio(&tone(20_000), &clock.now()).unwrap();
        writer.gap(5_000, GapCause::Overrun, &clock.now()).unwrap();
        writer.gap(1_000, GapCause::Overrun, &clock.now()).unwrap();
        let mut reader = SpoolReader::open(&path).unwrap();
        writer.audio(&tone(100), &clock.now()).unwrap();
        assert_eq!(reader.refresh().unwrap(), 26_100);
        let all = reader.read(0..u64::MAX).unwrap();
        assert_eq!(all[..20_000], tone(20_000));
        assert!(all[20_000..26_000].iter().all(|s| *s == 0));
        assert_eq!(all[26_000..], tone(100));
        assert_eq!(reader.read(15_990..16_010).unwrap(), tone(20_000)[15_990..16_010]);
        assert_eq!(reader.gaps(), [(20_000..26_000, GapCause::Overrun)]);
    }

    #[test]
    fn cut_anywhere_it_reads_up_to_the_last_whole_frame_and_goes_on_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("s"), ScriptedClock::new());
        let mut writer = SpoolWriter::create(&path, &clock.now()).unwrap();
        for _ in 0..3 {
            writer.audio(&tone(1_000), &clock.now()).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut writer, left) = SpoolWriter::reopen(&path, &clock.now()).unwrap();
            assert_eq!(left.samples % 1_000, 0);
            assert!(left.samples as usize * 2 + 2_100 > length.saturating_sub(300), "at most a frame is lost");
            writer.audio(&tone(10), &clock.now()).unwrap();
            let mut reader = SpoolReader::open(&path).unwrap();
            assert_eq!(reader.refresh().unwrap(), left.samples + 10);
            assert_eq!(reader.read(left.samples..u64::MAX).unwrap(), tone(10));
        }
    }

    #[test]
    fn a_flipped_bit_is_a_gap_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("s"), ScriptedClock::new());
        let mut writer = SpoolWriter::create(&path, &clock.now()).unwrap();
        writer.audio(&tone(48_000), &clock.now()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let reader = SpoolReader::open(&path).unwrap();
        assert_eq!(reader.gaps(), [(16_000..32_000, GapCause::AudioInvalid)]);
        assert_eq!(reader.index.samples, 48_000);
    }

    #[test]
    fn a_damaged_head_costs_its_frame_and_not_what_follows() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("s"), ScriptedClock::new());
        let mut writer = SpoolWriter::create(&path, &clock.now()).unwrap();
        writer.audio(&tone(64_000), &clock.now()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let head = bytes.len() - 3 * (FRAME_HEAD_BYTES + 32_000 + 4);
        bytes[head..head + 12].fill(0xff);
        std::fs::write(&path, &bytes).unwrap();
        let mut reader = SpoolReader::open(&path).unwrap();
        assert_eq!(reader.gaps(), [(16_000..32_000, GapCause::AudioInvalid)]);
        assert_eq!(reader.read(32_000..u64::MAX).unwrap(), tone(64_000)[32_000..]);
        assert_eq!(SpoolWriter::reopen(&path, &clock.now()).unwrap().1.samples, 64_000);
    }

    #[test]
    fn a_second_restart_before_sound_is_back_counts_from_the_last_sample() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("s"), ScriptedClock::new());
        let mut writer = SpoolWriter::create(&path, &clock.now()).unwrap();
        writer.audio(&tone(10), &clock.now()).unwrap();
        let then = clock.now();
        for _ in 0..2 {
            clock.pass(Duration::from_secs(5));
            assert_eq!(SpoolWriter::reopen(&path, &clock.now()).unwrap().1.at, Some(then.clone()));
        }
    }

    #[test]
    fn an_ended_recording_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("s"), ScriptedClock::new());
        SpoolWriter::create(&path, &clock.now()).unwrap().finish(&clock.now()).unwrap();
        assert!(SpoolWriter::reopen(&path, &clock.now()).unwrap().1.ended);
    }

    #[test]
    fn it_remembers_when_it_was_last_written_and_in_which_boot() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("s"), ScriptedClock::new());
        let mut writer = SpoolWriter::create(&path, &clock.now()).unwrap();
        clock.pass(Duration::from_secs(9));
        writer.audio(&tone(10), &clock.now()).unwrap();
        let then = clock.now();
        clock.reboot("b");
        let (_, left) = SpoolWriter::reopen(&path, &clock.now()).unwrap();
        assert_eq!(left.at, Some(then));
    }
}
