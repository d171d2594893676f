//! A server of Cairn's own on standard input and output: one message a line, until the input ends or somebody ends the process.
//! Called by `cairn play` and `cairn mcp`. On standard output nothing is said but MCP.

use std::{pin::pin, sync::Arc};

use anyhow::Context;
use bytes::Bytes;
use cairn_mcp::{
    Limits, Message, code,
    serving::{self, Served},
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

use crate::up::Signals;

/// Serves until the input ends, or a signal comes.
pub(crate) async fn serve(served: Arc<dyn Served>) -> anyhow::Result<()> {
    let signals = Signals::taken()?;
    let never = CancellationToken::new();
    let mut ended = pin!(signals.wait(&never));
    let limits = Limits::default();
    let (mut input, mut output) = (BufReader::new(tokio::io::stdin()), tokio::io::stdout());
    let mut line = Vec::new();
    loop {
        let came = tokio::select! {
            came = next_line(&mut input, &mut line, limits.message_bytes_max) => came?,
            () = &mut ended => return Ok(()),
        };
        let answer = match came {
            Came::End => return Ok(()),
            Came::TooLong => {
                let words = format!("the message is longer than {} bytes", limits.message_bytes_max);
                Some(Message::error(None, code::INVALID_REQUEST, &words, None).expect("an error of ours is a message"))
            }
            Came::Line => {
                let (served, line) = (served.clone(), std::mem::take(&mut line));
                // It may read a disk.
                tokio::task::spawn_blocking(move || answer(&*served, &line, &limits)).await?
            }
        };
        line.clear();
        let Some(answer) = answer else { continue };
        let written = async {
            output.write_all(answer.bytes()).await?;
            output.write_all(b"\n").await?;
            output.flush().await
        };
        // A client that reads no more has gone.
        if written.await.is_err() {
            return Ok(());
        }
    }
}

/// The answer to one line.
fn answer(served: &dyn Served, line: &[u8], limits: &Limits) -> Option<Message> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    match Message::parse(Bytes::copy_from_slice(line), limits) {
        Ok(message) => serving::answer(served, &message, limits),
        Err(refusal) => Some(refused(&refusal)),
    }
}

/// What a message is told that cannot be read.
pub(crate) fn refused(refusal: &cairn_mcp::Refusal) -> Message {
    let code = refusal.code().unwrap_or(code::INVALID_REQUEST);
    Message::error(refusal.id.as_ref(), code, &refusal.to_string(), None).expect("an error of ours is a message")
}

enum Came {
    Line,
    TooLong,
    End,
}

/// The next line, of which no more is held than a message may have. Goes on where it was left off.
async fn next_line(
    input: &mut (impl tokio::io::AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    bytes_max: usize,
) -> anyhow::Result<Came> {
    let mut is_too_long = false;
    loop {
        let held = input.fill_buf().await.context("cannot read standard input")?;
        if held.is_empty() {
            return Ok(if line.is_empty() { Came::End } else { Came::Line });
        }
        let end = held.iter().position(|byte| *byte == b'\n');
        let part = &held[..end.unwrap_or(held.len())];
        is_too_long |= line.len() + part.len() > bytes_max;
        if is_too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(if is_too_long { Came::TooLong } else { Came::Line });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over_whole() {
        let mut input = BufReader::with_capacity(4, &b"123456789\n12\n\nlast"[..]);
        let mut line = Vec::new();
        let mut next = async |line: &mut Vec<u8>| next_line(&mut input, line, 6).await.expect("it reads");
        assert!(matches!(next(&mut line).await, Came::TooLong));
        assert!(line.is_empty());
        assert!(matches!(next(&mut line).await, Came::Line));
        assert_eq!(std::mem::take(&mut line), b"12");
        assert!(matches!(next(&mut line).await, Came::Line));
        assert!(line.is_empty());
        assert!(matches!(next(&mut line).await, Came::Line));
        assert_eq!(std::mem::take(&mut line), b"last");
        assert!(matches!(next(&mut line).await, Came::End));
    }
}
