//! How long a request keeps a core: the time for which it is polled, and not that for which it waits. Called by the request table.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use tokio::time::Instant;

/// What comes out, and how long it was worked on.
pub(super) async fn worked<F: Future>(work: F) -> (F::Output, Duration) {
    let (mut work, mut took) = (pin!(work), Duration::ZERO);
    let output = poll_fn(|cx| {
        let began = Instant::now();
        let polled = work.as_mut().poll(cx);
        took += began.elapsed();
        polled
    })
    .await;
    (output, took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_is_no_work() {
        let began = Instant::now();
        let ((), took) = worked(tokio::time::sleep(Duration::from_millis(80))).await;
        assert!(took < began.elapsed() / 2, "{took:?}");
        let busy = async {
            let until = Instant::now() + Duration::from_millis(20);
            while Instant::now() < until {}
        };
        assert!(worked(busy).await.1 >= Duration::from_millis(20));
    }
}
