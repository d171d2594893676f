//! What a child writes: messages on stdout, one a line, and words on stderr, of which the end is kept. Called by
//! [`StdioLink`](super::StdioLink). Must never hold more than one message's bound of either.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::{
    Limits, LinkFault, Message,
    router::{Routed, Router},
    stdio::writer::Writer,
};

const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Reads messages until the pipe ends (none), or until the framing cannot be followed any more (the reason).
pub(super) async fn read_messages(
    stdout: impl AsyncRead + Unpin,
    router: Arc<Router>,
    writer: Writer,
    limits: Limits,
) -> Option<LinkFault> {
    let mut stdout = BufReader::with_capacity(READ_BUFFER_BYTES, stdout);
    let mut line = Vec::new();
    loop {
        match read_line(&mut stdout, &mut line, limits.message_bytes_max).await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(fault) => return Some(fault),
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let refusal = match Message::parse(Bytes::from(std::mem::take(&mut line)), &limits) {
            Ok(message) => {
                if let Routed::Answer(answer) = router.route(message.into())
                    && !writer.write_unheeded(answer.bytes().clone())
                {
                    tracing::warn!("could not tell the server that nobody takes its request: its stdin is full");
                }
                continue;
            }
            Err(refusal) => refusal,
        };
        // Servers print all sorts of things; a line that is no message of a waiting call harms nobody.
        let id = refusal.id.clone();
        // What is wrong with it may name what stands in it.
        tracing::warn!(code = ?refusal.code(), "ignored a line on the server's stdout that is no message");
        if let Some(id) = id {
            router.fail(&id, LinkFault::BadAnswer(refusal));
        }
    }
}

/// Reads one line without its line feed into `line`; false at the end. A last line without a line feed is none: the
/// child died while it wrote it.
async fn read_line(
    stdout: &mut BufReader<impl AsyncRead + Unpin>,
    line: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, LinkFault> {
    line.clear();
    loop {
        let read = stdout.fill_buf().await.map_err(|error| LinkFault::Broken { reason: error.to_string() })?;
        if read.is_empty() {
            return Ok(false);
        }
        let end = memchr::memchr(b'\n', read);
        let part = &read[..end.unwrap_or(read.len())];
        if line.len() + part.len() > limit {
            return Err(LinkFault::TooLong { limit });
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        stdout.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// The last bytes of a child's stderr.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    limit: usize,
}

impl Tail {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    fn push(&self, part: &[u8]) {
        let part = &part[part.len().saturating_sub(self.limit)..];
        let mut bytes = self.bytes.lock();
        let excess = (bytes.len() + part.len()).saturating_sub(self.limit);
        bytes.drain(..excess);
        bytes.extend(part);
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes.lock().make_contiguous()).into_owned()
    }
}

/// Keeps the end of stderr until the pipe ends.
pub(super) async fn keep_tail(mut stderr: impl AsyncRead + Unpin, tail: Tail) {
    let mut part = vec![0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut part).await {
        tail.push(&part[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_stderr_is_kept() {
        let tail = Tail::new(5);
        tail.push(b"abc");
        tail.push(b"def");
        assert_eq!(tail.text(), "bcdef");
        tail.push(b"0123456789");
        assert_eq!(tail.text(), "56789");
    }

    #[tokio::test]
    async fn a_line_may_be_as_long_as_the_bound_and_no_longer() {
        let mut line = Vec::new();
        let mut exact = BufReader::with_capacity(3, &b"12345\r\n67890\nx"[..]);
        assert!(matches!(read_line(&mut exact, &mut line, 6).await, Ok(true)));
        assert_eq!(line, b"12345\r");
        assert!(matches!(read_line(&mut exact, &mut line, 5).await, Ok(true)));
        assert!(matches!(read_line(&mut exact, &mut line, 5).await, Ok(false)), "a cut line is none");
        let mut long = BufReader::with_capacity(3, &b"123456\n"[..]);
        assert!(matches!(read_line(&mut long, &mut line, 5).await, Err(LinkFault::TooLong { limit: 5 })));
    }
}
