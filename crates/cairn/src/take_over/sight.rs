//! What one that stands by sees of the active broker itself: whether it answers, and whether anybody listens where it did. Called by
//! `take_over`.
//!
//! It holds a connection on which it asks for the versions that the broker offers, twice a second, which a broker that runs answers at once
//! and without its store. It notes where no answer comes, and where the connection ends and no other one stands. That is a hint and decides
//! nothing: the store does. Where the port speaks TLS nothing is asked, and a broker that is stalled is known by the store's silence alone.

use std::{convert::Infallible, io::ErrorKind, time::Duration};

use cairn_broker::{Active, HostPort, Peer};
use cairn_log::Sight;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// A connection that ends sooner never stood.
const STANDS_AFTER: Duration = Duration::from_millis(500);
/// Waits between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// Waits between an answer and the next question.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a broker that runs may take for an answer.
const MUTE_AFTER: Duration = Duration::from_secs(2);
/// ApiVersions, version 0, with its length: no client id, nothing else.
const QUESTION: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// Tells `sight` what there is to see where the active broker should be; never ends. `asks` says whether its port understands a question.
pub(super) async fn follow(
    peers: &[Peer],
    mut active: watch::Receiver<Option<Active>>,
    sight: watch::Sender<Sight>,
    asks: bool,
) -> Infallible {
    loop {
        let now = *active.borrow_and_update();
        let peer = now.and_then(|active| peers.iter().find(|peer| peer.id == active.id));
        sight.send_replace(Sight::Open);
        let watching = async {
            match peer {
                Some(peer) => watch_over(&peer.address, &sight, asks).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            if active.changed().await.is_err() {
                std::future::pending::<()>().await; // its sender goes with all of this
            }
        };
        tokio::select! {
            () = changed => {}
            never = watching => match never {},
        }
    }
}

async fn watch_over(address: &HostPort, sight: &watch::Sender<Sight>, asks: bool) -> Infallible {
    let mut wait = RETRY_FIRST;
    loop {
        match timeout(CONNECT_LIMIT, TcpStream::connect((address.host.as_str(), address.port))).await {
            Ok(Ok(mut stream)) => {
                let mut ends = std::pin::pin!(hold(&mut stream, sight, asks));
                if timeout(STANDS_AFTER, &mut ends).await.is_err() {
                    // One that was mute is so until it answers.
                    clear(sight, Sight::Gone);
                    ends.await;
                    // It may have been too quiet for somebody's patience: whether another one stands says more.
                    wait = RETRY_FIRST;
                    continue;
                }
                sight.send_replace(Sight::Gone);
            }
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
                sight.send_replace(Sight::Gone);
            }
            // A network that does not answer says nothing of the broker.
            Ok(Err(_)) | Err(_) => {
                sight.send_replace(Sight::Open);
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

/// What was seen is not so any more.
fn clear(sight: &watch::Sender<Sight>, seen: Sight) {
    sight.send_if_modified(|now| {
        let was = *now == seen;
        if was {
            *now = Sight::Open;
        }
        was
    });
}

/// Ends when the connection has.
async fn hold(stream: &mut TcpStream, sight: &watch::Sender<Sight>, asks: bool) {
    let mut answer = vec![0; 4096];
    loop {
        if asks && stream.write_all(&QUESTION).await.is_err() {
            return;
        }
        let mut answered = std::pin::pin!(stream.read(&mut answer));
        let first = match timeout(MUTE_AFTER, &mut answered).await {
            Ok(first) => first,
            Err(_) => {
                if asks {
                    sight.send_replace(Sight::Mute);
                }
                answered.await
            }
        };
        if !matches!(first, Ok(1..)) {
            return;
        }
        clear(sight, Sight::Mute);
        sleep(ASK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn becomes(told: &mut watch::Receiver<Sight>, wanted: Sight) {
        let waited = timeout(Duration::from_secs(60), told.wait_for(|sight| *sight == wanted));
        waited.await.expect("in time").expect("it goes on");
    }

    async fn bind(last: u8) -> TcpListener {
        TcpListener::bind(format!("127.{}.2.{last}:0", 1 + std::process::id() % 250)).await.expect("loopback")
    }

    #[tokio::test]
    async fn it_sees_a_broker_end_and_come_back_and_forgets_one_that_is_not_active_any_more() {
        let listener = bind(1).await;
        let address = listener.local_addr().expect("bound").to_string();
        let again = async || TcpListener::bind(&address).await.expect("loopback");
        let peers: Vec<Peer> =
            vec![format!("1@{address}").parse().expect("a peer"), "2@127.0.0.1:1".parse().expect("a peer")];
        let (say, active) = watch::channel(Some(Active { id: 1, epoch: 3 }));
        let (sight, mut told) = watch::channel(Sight::Open);
        drop(listener);
        let following = tokio::spawn(async move { follow(&peers, active, sight, false).await });
        becomes(&mut told, Sight::Gone).await;
        let listener = again().await;
        let (held, _) = listener.accept().await.expect("it looks");
        becomes(&mut told, Sight::Open).await;
        // Its connection ends, and another one stands: it is there.
        drop(held);
        let (held, _) = listener.accept().await.expect("it looks again");
        assert_eq!(*told.borrow(), Sight::Open);
        drop((listener, held));
        becomes(&mut told, Sight::Gone).await;
        let listener = again().await;
        let (held, _) = listener.accept().await.expect("it looks again");
        becomes(&mut told, Sight::Open).await;
        // Nothing was asked, so nothing is missing.
        sleep(MUTE_AFTER + ASK_INTERVAL).await;
        assert_eq!(*told.borrow(), Sight::Open);
        say.send_replace(Some(Active { id: 2, epoch: 4 }));
        becomes(&mut told, Sight::Gone).await;
        say.send_replace(None);
        becomes(&mut told, Sight::Open).await;
        following.abort();
        drop(held);
    }

    /// Reads a question, and gives the broker's answer.
    async fn answer(stream: &mut TcpStream) {
        let mut question = [0; QUESTION.len()];
        stream.read_exact(&mut question).await.expect("it asks");
        assert_eq!(question, QUESTION);
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 1]).await.expect("taken");
    }

    #[tokio::test]
    async fn a_broker_that_is_asked_and_does_not_answer_is_mute_until_it_does() {
        let listener = bind(2).await;
        let peers = vec![format!("1@{}", listener.local_addr().expect("bound")).parse().expect("a peer")];
        let (_say, active) = watch::channel(Some(Active { id: 1, epoch: 3 }));
        let (sight, mut told) = watch::channel(Sight::Open);
        let following = tokio::spawn(async move { follow(&peers, active, sight, true).await });
        let (mut stream, _) = listener.accept().await.expect("it looks");
        let asked_until = tokio::time::Instant::now() + MUTE_AFTER + ASK_INTERVAL;
        while tokio::time::Instant::now() < asked_until {
            answer(&mut stream).await;
            assert_eq!(*told.borrow(), Sight::Open, "it answers");
        }
        becomes(&mut told, Sight::Mute).await;
        answer(&mut stream).await;
        becomes(&mut told, Sight::Open).await;
        becomes(&mut told, Sight::Mute).await;
        // Its connection is cut, and the next one is taken by nobody: the kernel alone says that it is there.
        drop(stream);
        sleep(STANDS_AFTER * 2).await;
        assert_eq!(*told.borrow(), Sight::Mute);
        following.abort();
        let _ = following.await;
    }
}
