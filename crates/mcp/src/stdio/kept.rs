//! A legacy session's child, started again when it dies. Called by the gateway through [`Link`]; the gateway says how a
//! child is started and how long to pause before (`Start`).
//!
//! Guarantees: a call to a child that has ended, or is being started, waits within [`Limits::start_wait_max`]; the new child gets
//! the handshake that the client made with the first, and then the call. Nothing is ever sent twice: a call that was under
//! way when the child died is lost with it. What else the child held (subscriptions, a log level) died with it too. One
//! start at a time. Must never start a child that nobody calls.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::StdioLink;
use crate::{
    Content, Exchange, ForwardHeaders, Frame, Kind, Limits, Link, LinkError, LinkFault, Message, Prepared, link::queue,
};

/// Starts a child, after the pause that is due; told how long the one before has lived.
pub type Start = Arc<dyn Fn(Option<Duration>) -> Starting + Send + Sync>;

/// A start under way.
pub type Starting = Pin<Box<dyn Future<Output = Result<StdioLink, LinkError>> + Send>>;

/// One session's child, whichever it is now.
pub struct KeptLink {
    start: Start,
    wait_max: Duration,
    current: Mutex<(Arc<StdioLink>, Instant)>,
    handshake: Mutex<Handshake>,
    /// Why the last start failed.
    last: Mutex<Option<LinkError>>,
    starting: tokio::sync::Mutex<()>,
    closed: tokio_util::sync::CancellationToken,
    unsolicited: mpsc::Sender<Frame>,
    taken: Mutex<Option<mpsc::Receiver<Frame>>>,
}

/// What the client said to open the session.
#[derive(Debug, Default)]
struct Handshake {
    initialize: Option<Message>,
    /// Set once the client has confirmed the handshake: before that there is no session to build anew.
    initialized: Option<Message>,
}

impl fmt::Debug for KeptLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptLink").field("current", &self.current.lock().0).finish_non_exhaustive()
    }
}

impl KeptLink {
    /// Starts the first child.
    ///
    /// # Errors
    /// Where it cannot be started; then nothing is kept.
    pub async fn start(start: Start, limits: Limits) -> Result<Self, LinkError> {
        let first = Arc::new(start(None).await?);
        let (unsolicited, receiver) = mpsc::channel(queue(&limits));
        let kept = Self {
            start,
            wait_max: limits.start_wait_max,
            current: Mutex::new((Arc::clone(&first), Instant::now())),
            handshake: Mutex::default(),
            last: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            closed: tokio_util::sync::CancellationToken::new(),
            unsolicited,
            taken: Mutex::new(Some(receiver)),
        };
        kept.follow(&first);
        Ok(kept)
    }

    fn current(&self) -> Arc<StdioLink> {
        Arc::clone(&self.current.lock().0)
    }

    /// The child that runs; waits where one has to be started.
    async fn running(&self) -> Result<Arc<StdioLink>, LinkError> {
        let current = self.current();
        if current.ended().is_none() {
            return Ok(current);
        }
        match timeout(self.wait_max, self.revive()).await {
            Ok(revived) => revived,
            Err(_) => {
                let waited_ms = u64::try_from(self.wait_max.as_millis()).unwrap_or(u64::MAX);
                let last = self.last.lock().as_ref().or(current.ended().as_ref()).map(ToString::to_string);
                let last = last.unwrap_or_else(|| "it is still starting".to_owned());
                Err(LinkError::not_sent(LinkFault::NotReady { waited_ms, last }))
            }
        }
    }

    async fn revive(&self) -> Result<Arc<StdioLink>, LinkError> {
        let _one_at_a_time = self.starting.lock().await;
        let (current, began) = self.current.lock().clone();
        let Some(ended) = current.ended() else { return Ok(current) };
        if self.closed.is_cancelled() {
            return Err(LinkError::not_sent(LinkFault::Closed));
        }
        // Its end was noted when it came, or this call would have found it alive.
        tracing::warn!(error = %ended, "the server's process has ended; it is started again");
        let revived = async {
            let link = Arc::new((self.start)(Some(began.elapsed())).await?);
            self.greet(&link).await?;
            Ok(link)
        };
        let link = tokio::select! {
            revived = revived => revived,
            () = self.closed.cancelled() => Err(LinkError::not_sent(LinkFault::Closed)),
        };
        match link {
            Ok(link) => {
                self.follow(&link);
                *self.current.lock() = (Arc::clone(&link), Instant::now());
                Ok(link)
            }
            Err(error) => {
                *self.last.lock() = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Makes the client's handshake with a new child. Whatever fails here, the call that waits was not sent.
    async fn greet(&self, link: &StdioLink) -> Result<(), LinkError> {
        let (initialize, initialized) = {
            let handshake = self.handshake.lock();
            let Some(initialized) = handshake.initialized.clone() else { return Ok(()) };
            (handshake.initialize.clone(), initialized)
        };
        let headers = ForwardHeaders::default();
        if let Some(initialize) = initialize {
            let exchange = link.forward(link.prepare(&initialize, &headers)?).await.map_err(unsent)?;
            let Content::Stream(mut frames) = exchange.content else {
                return Err(LinkError::not_sent(LinkFault::StreamEnded));
            };
            loop {
                let frame = frames.recv().await.ok_or(LinkError::not_sent(LinkFault::StreamEnded))?.map_err(unsent)?;
                match frame.message.as_ref().map(Message::kind) {
                    Some(Kind::Response) => break,
                    Some(Kind::Error) => {
                        let said = frame.message.and_then(|message| message.error_message()).unwrap_or_default();
                        let reason = format!("the restarted server refused the handshake: {said}");
                        return Err(LinkError::not_sent(LinkFault::Unfit { reason }));
                    }
                    _ => {}
                }
            }
        }
        link.notify(&initialized, &headers).await.map_err(unsent)
    }

    /// Passes on what a child says unasked.
    fn follow(&self, link: &StdioLink) {
        let Some(mut frames) = link.unsolicited() else { return };
        let onward = self.unsolicited.clone();
        tokio::spawn(async move {
            while let Some(frame) = frames.recv().await {
                if onward.send(frame).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A failure of the handshake, seen from the call that waits for it.
fn unsent(error: LinkError) -> LinkError {
    match error {
        LinkError::Lost { cause, stderr } => LinkError::NotSent { cause, stderr },
        error => error,
    }
}

#[async_trait]
impl Link for KeptLink {
    /// The names of a channel of one caller are the caller's own, so any of its children can be sent what comes of it.
    fn prepare(&self, message: &Message, headers: &ForwardHeaders) -> Result<Prepared, LinkError> {
        if message.method() == Some("initialize") {
            *self.handshake.lock() = Handshake { initialize: Some(message.clone()), initialized: None };
        }
        self.current().prepare(message, headers)
    }

    async fn forward(&self, prepared: Prepared) -> Result<Exchange, LinkError> {
        self.running().await?.forward(prepared).await
    }

    async fn notify(&self, message: &Message, headers: &ForwardHeaders) -> Result<(), LinkError> {
        self.running().await?.notify(message, headers).await?;
        if message.method() == Some("notifications/initialized") {
            self.handshake.lock().initialized = Some(message.clone());
        }
        Ok(())
    }

    fn unsolicited(&self) -> Option<mpsc::Receiver<Frame>> {
        self.taken.lock().take()
    }

    async fn close(&self) {
        self.closed.cancel();
        self.current().close().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{
        Reach,
        testing::{all, message, server},
    };

    /// A start of the role in which a child plays; counts the starts.
    fn playing(role: &'static str, starts: &Arc<AtomicU32>) -> Start {
        let starts = Arc::clone(starts);
        Arc::new(move |_| {
            starts.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { StdioLink::spawn(&server(role), Limits::default(), false) })
        })
    }

    async fn call(link: &KeptLink, method: &str) -> Result<Vec<Message>, LinkError> {
        let text = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"{method}"}}"#);
        let prepared = link.prepare(&message(&text), &ForwardHeaders::default())?;
        match all(link.forward(prepared).await?).await {
            (messages, None) => Ok(messages),
            (_, Some(error)) => Err(error),
        }
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again_for_the_next_call_with_the_handshake_made_anew() {
        let starts = Arc::default();
        let link = KeptLink::start(playing("session", &starts), Limits::default()).await.expect("it starts");
        call(&link, "initialize").await.expect("answered");
        let confirmed = Message::notification("notifications/initialized", None).expect("a notification");
        link.notify(&confirmed, &ForwardHeaders::default()).await.expect("sent");
        let before = call(&link, "env").await.expect("answered");
        assert_eq!(call(&link, "die").await.expect_err("it died").reach(), Reach::Lost, "never sent again");
        link.current().wait().await;
        assert_eq!(starts.load(Ordering::SeqCst), 1, "nobody has called");
        // The new child answers nothing before its handshake.
        let after = call(&link, "env").await.expect("answered by a new child");
        assert_ne!(before[0].result_member_raw("pid"), after[0].result_member_raw("pid"));
        assert_eq!(starts.load(Ordering::SeqCst), 2);
        link.close().await;
        assert_eq!(call(&link, "env").await.expect_err("closed").reach(), Reach::NotSent);
    }

    #[tokio::test]
    async fn calls_that_wait_for_a_child_share_one_start() {
        let starts = Arc::default();
        let link = KeptLink::start(playing("echo", &starts), Limits::default()).await.expect("it starts");
        assert!(call(&link, "die").await.is_err());
        link.current().wait().await;
        let calls = (0..20).map(|n| {
            let link = &link;
            async move {
                let text = format!(r#"{{"jsonrpc":"2.0","id":{n},"method":"echo"}}"#);
                let prepared = link.prepare(&message(&text), &ForwardHeaders::default()).expect("prepared");
                all(link.forward(prepared).await.expect("sent")).await.0.len()
            }
        });
        let answers = futures::future::join_all(calls).await;
        assert!(answers.into_iter().all(|answers| answers == 1));
        assert_eq!(starts.load(Ordering::SeqCst), 2);
        link.close().await;
    }
}
