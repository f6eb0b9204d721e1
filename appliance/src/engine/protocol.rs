//! What parent and engine child say to each other over the child's standard input and output.
//!
//! A message is its number, the length of a JSON part and the length of a binary part (each u32), then both parts;
//! little-endian. The child says `Ready` or `Failed` once it has loaded its model, as number [`HELLO`], then answers
//! each request with one reply of the request's number.

use std::io::{self, Read, Write};
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Phrase;

/// The number of what the child says before it is asked.
pub const HELLO: u32 = 0;
/// Number and lengths.
pub const HEAD_BYTES: usize = 12;
/// Samples of one frame of the voice activity detector (Silero at 16 kHz): 32 ms.
pub const VAD_FRAME: usize = 512;
/// Samples of one chunk of the segmentation network: 10 s.
pub const CHUNK: usize = 160_000;
/// The longest JSON part: a window's words take some tens of KiB.
pub const MAX_JSON_BYTES: usize = 16 << 20;
/// The longest binary part: a window of 30 s is 1 MiB.
pub const MAX_BINARY_BYTES: usize = 64 << 20;

/// What the parent asks; the binary part is 16-bit PCM.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Write down what is said.
    Transcribe,
    /// Where is speech?
    Speech,
    /// Who speaks in each frame of these chunks?
    Segment {
        /// First sample of each; what lies behind the audio is silence.
        starts: Vec<usize>,
    },
    /// Whose may these pieces be?
    Embed {
        /// In samples; a piece of several stretches is heard as one.
        pieces: Vec<Vec<Range<usize>>>,
    },
}

/// What the child answers. Probabilities, scores and vectors travel in the binary part, as 32-bit floats.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The model is loaded.
    Ready,
    /// To `Transcribe`.
    Phrases(Vec<Phrase>),
    /// To `Speech`.
    Probabilities,
    /// To `Segment`.
    Scores {
        /// Scores of a frame.
        classes: usize,
    },
    /// To `Embed`.
    Vectors {
        /// How long each vector is.
        dimension: usize,
    },
    /// The library reported an error; never content.
    Failed {
        /// What the library calls it.
        code: String,
    },
}

/// What the bytes on a pipe can be instead of a message. Nothing of them is repeated: they may be what was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Announced, or about to be sent.
    #[error("the engine process broke the protocol: a message too long")]
    TooLong,
    /// Not JSON, or not a message.
    #[error("the engine process broke the protocol: a message that cannot be read")]
    Unreadable,
    /// The number or the kind of another.
    #[error("the engine process broke the protocol: an answer to something else")]
    OtherRequest,
    /// Bytes after the answer.
    #[error("the engine process broke the protocol: more than it was asked")]
    Unasked,
}

impl From<Nonsense> for io::Error {
    fn from(what: Nonsense) -> Self {
        Self::new(io::ErrorKind::InvalidData, what)
    }
}

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the request, and of its answer.
    pub number: u32,
    /// Bytes of the JSON part.
    pub json: usize,
    /// Bytes of the binary part.
    pub binary: usize,
}

/// Writes one message.
///
/// # Errors
/// Whatever the pipe says.
pub fn write(to: &mut impl Write, number: u32, message: &impl Serialize, binary: &[u8]) -> io::Result<()> {
    to.write_all(&before_binary(number, message, binary)?)?;
    to.write_all(binary)?;
    to.flush()
}

/// What goes before the binary part, which is large and need not be copied.
///
/// # Errors
/// If it is longer than a message may be.
pub fn before_binary(number: u32, message: &impl Serialize, binary: &[u8]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MAX_JSON_BYTES || binary.len() > MAX_BINARY_BYTES {
        return Err(Nonsense::TooLong.into());
    }
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((json.len() as u32).to_le_bytes());
    bytes.extend((binary.len() as u32).to_le_bytes());
    bytes.extend(json);
    Ok(bytes)
}

/// The head, from its bytes.
///
/// # Errors
/// [`Nonsense::TooLong`] if either part is longer than it may be.
pub fn head(bytes: [u8; HEAD_BYTES]) -> Result<Head, Nonsense> {
    let field = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let head = Head { number: field(0), json: field(4) as usize, binary: field(8) as usize };
    if head.json > MAX_JSON_BYTES || head.binary > MAX_BINARY_BYTES { Err(Nonsense::TooLong) } else { Ok(head) }
}

/// The JSON part.
///
/// # Errors
/// [`Nonsense::Unreadable`] if it is none.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, Nonsense> {
    serde_json::from_slice(json).map_err(|_| Nonsense::Unreadable)
}

/// Reads one message: its number and both parts.
///
/// # Errors
/// Whatever the pipe says; `UnexpectedEof` when the other side is gone.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<(u32, T, Vec<u8>)> {
    let mut bytes = [0; HEAD_BYTES];
    from.read_exact(&mut bytes)?;
    let head = head(bytes)?;
    let (mut json, mut binary) = (vec![0; head.json], vec![0; head.binary]);
    from.read_exact(&mut json)?;
    from.read_exact(&mut binary)?;
    Ok((head.number, decode(&json)?, binary))
}

/// 32-bit floats as bytes.
#[must_use]
pub fn float_bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|f| f.to_le_bytes()).collect()
}

/// 32-bit floats from bytes.
#[must_use]
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was_sent() {
        let mut pipe = Vec::new();
        write(&mut pipe, 7, &Request::Embed { pieces: vec![vec![3..9, 9..12]] }, &float_bytes(&[0.5, -1.0])).unwrap();
        let (number, request, binary) = read::<Request>(&mut pipe.as_slice()).unwrap();
        assert!(matches!(request, Request::Embed { pieces } if pieces == [[3..9, 9..12]]));
        assert_eq!((number, floats(&binary)), (7, vec![0.5, -1.0]));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error_and_no_allocation() {
        let what = |bytes: &[u8]| read::<Reply>(&mut &*bytes).unwrap_err();
        assert_eq!(what(&[0xff; 64]).downcast::<Nonsense>().unwrap(), Nonsense::TooLong);
        let unreadable = [&[0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..], b"{]"].concat();
        assert_eq!(what(&unreadable).downcast::<Nonsense>().unwrap(), Nonsense::Unreadable);
        assert_eq!(what(&[1, 0]).kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_error_never_repeats_what_was_on_the_pipe() {
        let said = br#"{"phrases":"something that was said"}"#;
        assert_eq!(decode::<Reply>(said).unwrap_err(), Nonsense::Unreadable);
        assert!(!Nonsense::Unreadable.to_string().contains("said"));
    }
}
