//! One request and its answer over a child's pipes. Whatever the child writes, this ends as soon as that can be told.

use std::io;
use std::pin::pin;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};

use super::protocol::{self, Nonsense, Reply};

/// Sends a request and takes its answer. Both at once: a child that writes instead of reading is found out when it
/// writes, and not at its deadline. What is complete before the request is out is no answer.
pub async fn exchange(
    to: &mut ChildStdin,
    message: [&[u8]; 2],
    from: &mut ChildStdout,
    number: u32,
) -> io::Result<(Reply, Vec<u8>)> {
    let mut answer = pin!(receive(from, number));
    let sent = async {
        to.write_all(message[0]).await?;
        to.write_all(message[1]).await
    };
    tokio::select! {
        biased;
        sent = sent => sent?,
        early = &mut answer => return early.and(Err(Nonsense::Unasked.into())),
    }
    answer.await
}

/// The answer to one request, and nothing beyond it. Memory is taken as bytes come, not as they are announced.
pub async fn receive(from: &mut ChildStdout, number: u32) -> io::Result<(Reply, Vec<u8>)> {
    let mut head = [0; protocol::HEAD_BYTES];
    from.read_exact(&mut head).await?;
    let head = protocol::head(head)?;
    if head.number != number {
        return Err(Nonsense::OtherRequest.into());
    }
    let (json, binary) = (part(from, head.json).await?, part(from, head.binary).await?);
    if rustix::io::ioctl_fionread(&*from)? > 0 {
        return Err(Nonsense::Unasked.into());
    }
    Ok((protocol::decode(&json)?, binary))
}

async fn part(from: &mut ChildStdout, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match from.take(length as u64).read_to_end(&mut bytes).await? {
        all if all == length => Ok(bytes),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
