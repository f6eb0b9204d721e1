//! The two forms of a frame, little-endian.
//!
//!   version 0   length u32 · sequence u64 · stamp · payload · CRC-32 u32                 length: of the payload
//!   version 1   length u32 · sequence u64 · nonce (24) · ciphertext · tag (16)           length: of what is sealed
//!               the ciphertext is of: stamp · start u64 · payload
//!
//!   stamp       kind u8 · uptime ms u64 · wall ms i64
//!
//! What is sealed opens only with the session's key and as the frame of its sequence. `start` is where on the timeline
//! it begins, so that what is missing before it has its exact length.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use shared::clock::WallTime;
use shared::keys::{CipherError, DataKey};

use crate::audio::SAMPLE_RATE_HZ;

/// Length and sequence, in both forms.
pub(super) const HEAD_BYTES: usize = 4 + 8;
const STAMP_BYTES: usize = 1 + 8 + 8;
const SUM_BYTES: usize = 4;
/// Nonce and tag.
const SEAL_BYTES: usize = 24 + 16;
const START_BYTES: usize = 8;
/// The longest payload: a second of samples. Anything longer is damage.
const MAX_PAYLOAD_BYTES: usize = 2 * SAMPLE_RATE_HZ as usize;
/// The longest frame of either form; a longer tail is more than one that was being written.
pub(super) const MAX_FRAME_BYTES: u64 = (HEAD_BYTES + MAX_SEALED_BYTES) as u64;
const MIN_SEALED_BYTES: usize = SEAL_BYTES + STAMP_BYTES + START_BYTES;
const MAX_SEALED_BYTES: usize = MIN_SEALED_BYTES + MAX_PAYLOAD_BYTES;
/// The most frames that can be missing between two: half a year of seconds.
pub(super) const MAX_MISSING: u64 = 1 << 24;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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

/// A frame's inside.
pub(super) struct Content {
    pub kind: Kind,
    /// Where on the timeline it begins; unknown in version 0.
    pub start: Option<u64>,
    pub uptime: Duration,
    pub wall: WallTime,
    pub payload: Vec<u8>,
}

impl Content {
    fn stamp(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind as u8];
        bytes.extend(u64::try_from(self.uptime.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend(self.wall.0.to_le_bytes());
        bytes
    }

    fn from_stamp(stamp: &[u8], start: Option<u64>, payload: &[u8]) -> Option<Self> {
        let (kind, times) = stamp.split_first()?;
        let (uptime, wall) = times.split_first_chunk::<8>()?;
        Some(Self {
            kind: Kind::from_byte(*kind)?,
            start,
            uptime: Duration::from_millis(u64::from_le_bytes(*uptime)),
            wall: WallTime(i64::from_le_bytes(*wall.first_chunk()?)),
            payload: payload.to_vec(),
        })
    }
}

/// A whole frame, as it was found.
pub(super) struct Frame {
    pub sequence: u64,
    /// Its length in the file.
    pub bytes: u64,
    pub content: Found,
}

impl Frame {
    pub(super) fn is_sound(&self) -> bool {
        matches!(self.content, Found::Sound(_))
    }
}

/// Whether a whole frame is what was written. One of version 1 that is not is no frame: nothing it says is known.
pub(super) enum Found {
    Sound(Content),
    /// Version 0: its sum is wrong, and so many samples are lost with it.
    Damaged {
        samples: u64,
    },
}

/// How frames are written and read.
#[derive(Debug)]
pub(super) enum Format {
    /// Version 0.
    Plain,
    /// Version 1, by the key of the session.
    Sealed(DataKey),
}

impl Format {
    pub(super) fn version(&self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Sealed(_) => 1,
        }
    }

    /// The bytes of a frame.
    pub(super) fn write(&self, sequence: u64, content: &Content) -> Result<Vec<u8>, CipherError> {
        let head = |length: usize| {
            let length = u32::try_from(length).map_err(|_| CipherError::TooLarge)?;
            Ok::<_, CipherError>([&length.to_le_bytes()[..], &sequence.to_le_bytes()].concat())
        };
        let stamp = content.stamp();
        match self {
            Self::Plain => {
                let mut frame = [head(content.payload.len())?, stamp].concat();
                frame.extend(&content.payload);
                frame.extend(crc32fast::hash(&frame).to_le_bytes());
                Ok(frame)
            }
            Self::Sealed(key) => {
                let start = content.start.unwrap_or_default().to_le_bytes();
                let plain = [&stamp[..], &start, &content.payload].concat();
                let sealed = key.seal_frame(sequence, &plain)?;
                Ok([head(sealed.len())?, sealed].concat())
            }
        }
    }

    /// Length behind the head, and sequence, of a frame that may begin with these bytes.
    fn head(&self, bytes: &[u8]) -> Option<(usize, u64)> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let sequence = u64::from_le_bytes(*rest.first_chunk()?);
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        match self {
            Self::Plain => (length <= MAX_PAYLOAD_BYTES).then_some((STAMP_BYTES + length + SUM_BYTES, sequence)),
            Self::Sealed(_) => (MIN_SEALED_BYTES..=MAX_SEALED_BYTES).contains(&length).then_some((length, sequence)),
        }
    }

    /// Whether a frame may begin with these bytes that follows on `next`, with `before` bytes of file before it.
    pub(super) fn may_begin(&self, bytes: &[u8], next: u64, before: u64) -> bool {
        let most = match self {
            // A sum is soon right by chance: not more than there was room for. What is behind does not count, for it
            // may be cut off, and a frame that was read once must be read again.
            Self::Plain => before,
            Self::Sealed(_) => MAX_MISSING,
        };
        self.head(bytes).and_then(|(_, sequence)| sequence.checked_sub(next)).is_some_and(|missing| missing <= most)
    }

    /// The whole frame that begins at `offset`, if there is one.
    pub(super) fn read(&self, file: &File, offset: u64) -> io::Result<Option<Frame>> {
        let mut head = [0; HEAD_BYTES];
        if !read_whole(file, &mut head, offset)? {
            return Ok(None);
        }
        let Some((length, sequence)) = self.head(&head) else { return Ok(None) };
        let mut rest = vec![0; length];
        if !read_whole(file, &mut rest, offset + HEAD_BYTES as u64)? {
            return Ok(None);
        }
        let content = match self {
            Self::Plain => plain(&head, &rest),
            Self::Sealed(key) => sealed(key, sequence, &rest),
        };
        let bytes = (HEAD_BYTES + length) as u64;
        Ok(content.map(|content| Frame { sequence, bytes, content }))
    }
}

fn plain(head: &[u8], rest: &[u8]) -> Option<Found> {
    let (body, sum) = rest.split_last_chunk::<SUM_BYTES>()?;
    let (stamp, payload) = body.split_at_checked(STAMP_BYTES)?;
    let content = Content::from_stamp(stamp, None, payload)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    if hasher.finalize() == u32::from_le_bytes(*sum) {
        return Some(Found::Sound(content));
    }
    let samples = match content.kind {
        Kind::Audio => payload.len() as u64 / 2,
        Kind::Gap | Kind::Boot | Kind::End => 0,
    };
    Some(Found::Damaged { samples })
}

fn sealed(key: &DataKey, sequence: u64, rest: &[u8]) -> Option<Found> {
    let plain = key.open_frame(sequence, rest).ok()?;
    let (stamp, body) = plain.split_at_checked(STAMP_BYTES)?;
    let (start, payload) = body.split_first_chunk::<START_BYTES>()?;
    Content::from_stamp(stamp, Some(u64::from_le_bytes(*start)), payload).map(Found::Sound)
}

/// Fills `into`, or says that the file ends before.
pub(super) fn read_whole(file: &File, into: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(into, offset) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}
