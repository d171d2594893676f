//! Waiting for a server that still starts: one that refuses connections is tried again, within bounds. Called by the HTTP
//! links and by whoever probes a server. Must never try again where a byte of a message can have left this process.

use std::time::Duration;

use tokio::time::Instant;

use crate::{LinkError, LinkFault};

/// The first pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// How long one call waits for a server that refuses connections.
#[derive(Debug)]
pub struct Patience {
    began: Instant,
    limit: Duration,
    pause: Duration,
}

impl Patience {
    /// Begins to wait now.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { began: Instant::now(), limit, pause: PAUSE_MIN }
    }

    /// Waits before the next try, where one is worth it: the connection was refused, and there is time left.
    ///
    /// # Errors
    /// Where not: why, and how long was waited.
    pub async fn again(&mut self, error: LinkError) -> Result<(), LinkError> {
        let LinkError::NotSent { cause: LinkFault::Refused { target, reason, .. }, .. } = error else {
            return Err(error);
        };
        let waited = self.began.elapsed();
        if waited + self.pause > self.limit {
            let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            return Err(LinkError::not_sent(LinkFault::Refused { target, reason, waited_ms }));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> LinkError {
        LinkError::not_sent(LinkFault::Refused { target: "t".to_owned(), reason: "r".to_owned(), waited_ms: 0 })
    }

    #[tokio::test]
    async fn it_tries_again_until_its_time_is_over_and_only_where_nobody_listened() {
        let mut patience = Patience::new(Duration::from_millis(200));
        let end = loop {
            if let Err(error) = patience.again(refused()).await {
                break error;
            }
        };
        assert!(matches!(end.cause(), LinkFault::Refused { waited_ms: 20.., .. }), "it has waited: {end}");
        assert!(Patience::new(Duration::ZERO).again(refused()).await.is_err(), "there is no time");
        let long = Duration::from_secs(3_600);
        assert!(Patience::new(long).again(LinkError::lost(LinkFault::StreamEnded)).await.is_err());
        let cause = refused().cause().clone();
        assert!(Patience::new(long).again(LinkError::lost(cause)).await.is_err(), "it may have been sent");
    }
}
