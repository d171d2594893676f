//! The order of what one connection produces. Used by the server, and on the way of a batch into the log.
//!
//! A client sends requests one behind the other without waiting for answers, and means them in that order. Each waits for its turn
//! before it goes near the log, and passes it on once the log has its batches in its queue: so none overtakes another while it waits
//! for a lock or for room. One that is refused before passes its turn on too, because that is what dropping it does.

use tokio::sync::oneshot;

/// One request's turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    behind: Option<oneshot::Sender<()>>,
}

/// The turns of one connection.
#[derive(Debug, Default)]
pub(crate) struct Turns(Option<oneshot::Receiver<()>>);

impl Turns {
    /// The turn behind all that were given.
    pub(crate) fn next(&mut self) -> Turn {
        let (behind, after) = oneshot::channel();
        Turn { before: self.0.replace(after), behind: Some(behind) }
    }
}

impl Turn {
    /// Of what comes by itself.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Waits until all before have theirs behind them.
    pub(crate) async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = before.await; // dropped is passed on
        }
    }

    /// Lets the next one go.
    pub(crate) fn pass(&mut self) {
        drop(self.behind.take());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_comes_when_the_one_before_has_passed_or_is_gone() {
        let mut turns = Turns::default();
        let (mut first, second, mut third) = (turns.next(), turns.next(), turns.next());
        assert!(first.come().now_or_never().is_some());
        let mut waits = Box::pin(third.come());
        assert!((&mut waits).now_or_never().is_none());
        drop(second);
        assert!((&mut waits).now_or_never().is_some(), "it only waits for the one before it");
        let mut second = {
            turns = Turns::default();
            drop(turns.next());
            turns.next()
        };
        assert!(second.come().now_or_never().is_some());
        first.pass();
    }
}
