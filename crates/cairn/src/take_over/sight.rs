//! Whether anybody listens where the active broker did, as one that stands by sees it. Called by `take_over`.
//!
//! It holds a connection on which nothing is ever sent, and notes when it ends and no other one stands. That is a hint and decides
//! nothing: the store does. A broker whose machine is gone or stalled ends no connection; then the store's silence is all there is.

use std::{convert::Infallible, io::ErrorKind, time::Duration};

use cairn_broker::{Active, HostPort, Peer};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch, time::timeout};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// A connection that ends sooner never stood.
const STANDS_AFTER: Duration = Duration::from_millis(500);
/// Waits between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// Tells `gone` whether nobody listens where the active broker should; never ends.
pub(super) async fn follow(
    peers: &[Peer],
    mut active: watch::Receiver<Option<Active>>,
    gone: watch::Sender<bool>,
) -> Infallible {
    loop {
        let now = *active.borrow_and_update();
        let peer = now.and_then(|active| peers.iter().find(|peer| peer.id == active.id));
        gone.send_replace(false);
        let watching = async {
            match peer {
                Some(peer) => watch_over(&peer.address, &gone).await,
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

async fn watch_over(address: &HostPort, gone: &watch::Sender<bool>) -> Infallible {
    let mut wait = RETRY_FIRST;
    loop {
        match timeout(CONNECT_LIMIT, TcpStream::connect((address.host.as_str(), address.port))).await {
            Ok(Ok(mut stream)) => {
                let mut byte = [0];
                let mut ends = std::pin::pin!(stream.read(&mut byte));
                if timeout(STANDS_AFTER, &mut ends).await.is_err() {
                    gone.send_replace(false);
                    let _ = ends.await;
                    // It may have been too quiet for somebody's patience: whether another one stands says more.
                    wait = RETRY_FIRST;
                    continue;
                }
                gone.send_replace(true);
            }
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => {
                gone.send_replace(true);
            }
            // A network that does not answer says nothing of the broker.
            Ok(Err(_)) | Err(_) => {
                gone.send_replace(false);
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn becomes(told: &mut watch::Receiver<bool>, wanted: bool) {
        let waited = timeout(Duration::from_secs(60), told.wait_for(|gone| *gone == wanted));
        waited.await.expect("in time").expect("it goes on");
    }

    #[tokio::test]
    async fn it_sees_a_broker_end_and_come_back_and_forgets_one_that_is_not_active_any_more() {
        let bind = async |address: &str| TcpListener::bind(address).await.expect("loopback");
        let address = format!("127.{}.2.1:0", 1 + std::process::id() % 250);
        let listener = bind(&address).await;
        let address = listener.local_addr().expect("bound").to_string();
        let peers: Vec<Peer> =
            vec![format!("1@{address}").parse().expect("a peer"), "2@127.0.0.1:1".parse().expect("a peer")];
        let (say, active) = watch::channel(Some(Active { id: 1, epoch: 3 }));
        let (gone, mut told) = watch::channel(false);
        drop(listener);
        let following = tokio::spawn(async move { follow(&peers, active, gone).await });
        becomes(&mut told, true).await;
        let listener = bind(&address).await;
        let (held, _) = listener.accept().await.expect("it looks");
        becomes(&mut told, false).await;
        // Its connection ends, and another one stands: it is there.
        drop(held);
        let (held, _) = listener.accept().await.expect("it looks again");
        assert!(!*told.borrow());
        drop((listener, held));
        becomes(&mut told, true).await;
        let listener = bind(&address).await;
        let (held, _) = listener.accept().await.expect("it looks again");
        becomes(&mut told, false).await;
        say.send_replace(Some(Active { id: 2, epoch: 4 }));
        becomes(&mut told, true).await;
        say.send_replace(None);
        becomes(&mut told, false).await;
        following.abort();
        drop(held);
    }
}
