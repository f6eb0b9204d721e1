//! What parent and engine child say to each other over the child's standard input and output.
//!
//! A message is the length of a JSON part (u32), the length of a binary part (u32), then both; little-endian.
//! The child says `Ready` or `Failed` once it has loaded its model, then answers each request with one reply.

use std::io::{self, Read, Write};
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Phrase;

/// Samples of one frame of the voice activity detector (Silero at 16 kHz): 32 ms.
pub const VAD_FRAME: usize = 512;
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
    /// Whose may these pieces be?
    Embed {
        /// In samples.
        pieces: Vec<Range<usize>>,
    },
}

/// What the child answers. Probabilities and vectors travel in the binary part, as 32-bit floats.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The model is loaded.
    Ready,
    /// To `Transcribe`.
    Phrases(Vec<Phrase>),
    /// To `Speech`.
    Probabilities,
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

/// Writes one message.
///
/// # Errors
/// Whatever the pipe says.
pub fn write(to: &mut impl Write, message: &impl Serialize, binary: &[u8]) -> io::Result<()> {
    to.write_all(&encode(message, binary)?)?;
    to.flush()
}

/// One message as bytes.
///
/// # Errors
/// If it is longer than a message may be.
pub fn encode(message: &impl Serialize, binary: &[u8]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MAX_JSON_BYTES || binary.len() > MAX_BINARY_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let mut bytes = (json.len() as u32).to_le_bytes().to_vec();
    bytes.extend((binary.len() as u32).to_le_bytes());
    bytes.extend(json);
    bytes.extend_from_slice(binary);
    Ok(bytes)
}

/// The lengths of both parts, from the first eight bytes.
///
/// # Errors
/// `InvalidData` if either is longer than it may be.
pub fn lengths(head: [u8; 8]) -> io::Result<(usize, usize)> {
    let length = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| head[at + i])) as usize;
    if length(0) > MAX_JSON_BYTES || length(4) > MAX_BINARY_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    Ok((length(0), length(4)))
}

/// Reads one message.
///
/// # Errors
/// Whatever the pipe says; `UnexpectedEof` when the other side is gone.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<(T, Vec<u8>)> {
    let mut head = [0; 8];
    from.read_exact(&mut head)?;
    let (json, binary) = lengths(head)?;
    let (mut json, mut binary) = (vec![0; json], vec![0; binary]);
    from.read_exact(&mut json)?;
    from.read_exact(&mut binary)?;
    Ok((serde_json::from_slice(&json)?, binary))
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
        write(&mut pipe, &Request::Embed { pieces: vec![3..9, 9..12] }, &float_bytes(&[0.5, -1.0])).unwrap();
        let (request, binary) = read::<Request>(&mut pipe.as_slice()).unwrap();
        assert!(matches!(request, Request::Embed { pieces } if pieces == [3..9, 9..12]));
        assert_eq!(floats(&binary), [0.5, -1.0]);
    }

    #[test]
    fn a_child_that_writes_nonsense_is_an_error_and_no_allocation() {
        let nonsense = [0xff; 64];
        assert_eq!(read::<Reply>(&mut nonsense.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read::<Reply>(&mut [1, 0].as_slice()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
