//! Requests off a socket: a four-byte length, and that many bytes. Called by a connection.
//!
//! It guarantees: a length by itself claims nothing, bytes are paid for before they are read; what a connection reads
//! while nothing else of it is in progress is free up to [`FREE_BYTES`], so that heartbeats and small requests of some go
//! on while others fill the budget; a request that does not arrive in its time ends the connection.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout, timeout_at},
};

use super::ConnectionError;
use crate::{
    budget::{Budget, Claim},
    options::BrokerLimits,
};

const LENGTH_BYTES: usize = 4;
const READ_BYTES: usize = 64 << 10;
/// What one connection may read without a share of the budget.
const FREE_BYTES: usize = 64 << 10;
/// How much is claimed at a time, at most.
const CLAIM_BYTES: usize = 1 << 20;

/// A whole request, and its share of the budget.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) claim: Claim,
}

/// What has arrived of the next requests.
#[derive(Debug)]
pub(super) struct Intake {
    buffer: BytesMut,
    claim: Claim,
    /// When the request that is being read is late.
    late_at: Option<Instant>,
}

impl Intake {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { buffer: BytesMut::new(), claim: budget.claim(), late_at: None }
    }

    /// The next request; `None` at the end of the stream. `alone` says that nothing else of this connection is in
    /// progress. Safe to cancel: what arrived and what was claimed stay.
    pub(super) async fn frame(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        limits: &BrokerLimits,
        alone: bool,
    ) -> Result<Option<Frame>, ConnectionError> {
        while self.buffer.len() < LENGTH_BYTES {
            let read = timeout(limits.idle_timeout, read_some(stream, &mut self.buffer, READ_BYTES)).await;
            if read.map_err(|_| ConnectionError::Slow)?? == 0 {
                return Ok(None);
            }
        }
        let length = i32::from_be_bytes(self.buffer[..LENGTH_BYTES].try_into().expect("four bytes are there"));
        let too_large = ConnectionError::TooLarge { bytes: i64::from(length), most: limits.request_bytes_max };
        let length = usize::try_from(length).ok().filter(|length| *length <= limits.request_bytes_max);
        let whole = LENGTH_BYTES + length.ok_or(too_large)?;
        let late_at = *self.late_at.get_or_insert_with(|| Instant::now() + limits.request_read_timeout);
        let free = if alone { FREE_BYTES } else { 0 };
        while self.buffer.len() < whole {
            let next = READ_BYTES.min(whole - self.buffer.len());
            self.pay(self.buffer.len() + next, whole, free).await?;
            let read = timeout_at(late_at, read_some(stream, &mut self.buffer, next)).await;
            if read.map_err(|_| ConnectionError::Slow)?? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        self.pay(whole, whole, free).await?;
        self.late_at = None;
        self.buffer.advance(LENGTH_BYTES);
        let bytes = self.buffer.split_to(whole - LENGTH_BYTES).freeze();
        let mut claim = self.claim.take();
        claim.shrink(whole.saturating_sub(free));
        Ok(Some(Frame { bytes, claim }))
    }

    /// Sees to it that the first `bytes` of `whole` are paid for.
    async fn pay(&mut self, bytes: usize, whole: usize, free: usize) -> Result<(), ConnectionError> {
        let due = bytes.saturating_sub(free);
        if due > self.claim.bytes() {
            // No more ahead than has arrived.
            let ahead = CLAIM_BYTES.min(self.buffer.len());
            self.claim.cover(due.saturating_add(ahead).min(whole.saturating_sub(free))).await?;
        }
        Ok(())
    }
}

async fn read_some(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
    buffer.reserve(most);
    stream.take(most as u64).read_buf(buffer).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;

    fn limits() -> BrokerLimits {
        BrokerLimits { request_read_timeout: Duration::from_secs(60), ..BrokerLimits::default() }
    }

    #[tokio::test]
    async fn a_length_claims_nothing_and_bytes_are_claimed_as_they_come() {
        let budget = Budget::new(8 << 20, Duration::from_secs(60));
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let mut intake = Intake::new(&budget);
        far.write_all(&(4_i32 << 20).to_be_bytes()).await.expect("written");
        far.write_all(&[7; 1000]).await.expect("written");
        let waited = timeout(Duration::from_millis(50), intake.frame(&mut near, &limits(), true)).await;
        assert!(waited.is_err(), "it is not whole");
        assert!(intake.claim.bytes() <= 4_096, "{}", intake.claim.bytes());
        far.write_all(&[7; 200_000]).await.expect("written");
        let waited = timeout(Duration::from_millis(50), intake.frame(&mut near, &limits(), true)).await;
        assert!(waited.is_err(), "it is not whole");
        assert!((100_000..=2 << 20).contains(&intake.claim.bytes()), "{}", intake.claim.bytes());
        let rest = (4 << 20) - 201_000;
        let writer = tokio::spawn(async move { far.write_all(&vec![7; rest]).await });
        let limits = limits();
        let frame = intake.frame(&mut near, &limits, true).await.expect("read").expect("a request");
        writer.await.expect("no panic").expect("written");
        assert_eq!(frame.bytes.len(), 4 << 20);
        assert!(frame.claim.bytes() >= (4 << 20) - FREE_BYTES);
        drop(frame);
        let mut all = budget.claim();
        assert!(all.try_cover(8 << 20), "everything came back");
    }

    #[tokio::test]
    async fn a_small_request_is_read_though_the_budget_is_spent() {
        let budget = Budget::new(1 << 20, Duration::from_millis(20));
        let mut others = budget.claim();
        others.cover(1 << 20).await.expect("room");
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let mut intake = Intake::new(&budget);
        far.write_all(&[0, 0, 0, 2, 8, 9, 0, 0, 0, 1, 7]).await.expect("written");
        let frame = intake.frame(&mut near, &limits(), true).await.expect("read").expect("a request");
        assert_eq!(frame.bytes, [8, 9].as_slice());
        let second = intake.frame(&mut near, &limits(), false).await;
        assert!(matches!(second, Err(ConnectionError::Overloaded(_))), "behind another it needs a share: {second:?}");
    }
}
