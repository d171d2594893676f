//! A network that can be cut: a port mapping through which brokers reach the store, or clients a broker.
//!
//! Who calls it: the rounds of `take_over`. While it is silent nothing passes, ends of connections included, as when a cable is
//! pulled; whoever connects is left waiting. While it refuses, what there is ends and the port is closed, as it is while nobody listens
//! behind it. It guarantees that what passes is unchanged.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 16 << 10;
/// How often the port is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(4);

/// What the network does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Open,
    /// Nothing passes, and nobody is told.
    Silent,
    /// What there is ends, and nobody gets in.
    Refuses,
    /// For good.
    Ended,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<(State, Vec<TcpStream>)>,
    changed: Condvar,
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut (State, Vec<TcpStream>)) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits while it is silent. Says whether anything passes now.
    fn passes(&self) -> bool {
        let held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.changed.wait_while(held, |held| held.0 == State::Silent);
        held.unwrap_or_else(PoisonError::into_inner).0 == State::Open
    }
}

/// The mapping; ends when dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

impl Wire {
    /// Maps a free port to `target`.
    pub(crate) fn start(target: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::<Shared>::default();
        let port = Port { address: address.clone(), target: target.to_owned(), shared: Arc::clone(&shared) };
        std::thread::spawn(move || port.serve(listener));
        Ok(Self { address, shared })
    }

    /// Cuts the network, or mends it.
    pub(crate) fn set(&self, state: State) {
        let over = self.shared.with(|held| {
            held.0 = state;
            let ends = matches!(state, State::Refuses | State::Ended);
            if ends { std::mem::take(&mut held.1) } else { Vec::new() }
        });
        for stream in over {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.set(State::Ended);
    }
}

/// What its thread has.
struct Port {
    address: String,
    target: String,
    shared: Arc<Shared>,
}

impl Port {
    /// Open while somebody listens behind it.
    fn serve(self, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            if let Some(open) = listener.take().or_else(|| TcpListener::bind(&self.address).ok()) {
                let _ = open.set_nonblocking(true);
                self.accept(&open);
            }
            loop {
                match self.shared.with(|held| held.0) {
                    State::Ended => return,
                    State::Silent => break,
                    State::Open if TcpStream::connect(&self.target).is_ok() => break,
                    State::Open | State::Refuses => std::thread::sleep(LOOK_INTERVAL),
                }
            }
        }
    }

    /// Takes connections until the port is to be closed.
    fn accept(&self, listener: &TcpListener) {
        loop {
            let state = self.shared.with(|held| held.0);
            if matches!(state, State::Ended | State::Refuses) {
                return;
            }
            let Ok((near, _)) = listener.accept() else {
                std::thread::sleep(LOOK_INTERVAL);
                continue;
            };
            let (target, shared) = (self.target.clone(), Arc::clone(&self.shared));
            let _ = near.set_nonblocking(false);
            if state == State::Silent {
                std::thread::spawn(move || {
                    if shared.passes()
                        && let Ok(far) = TcpStream::connect(&target)
                    {
                        let _ = map(near, far, &shared);
                    }
                });
                continue;
            }
            let Ok(far) = TcpStream::connect(&target) else { return };
            std::thread::spawn(move || map(near, far, &shared));
        }
    }
}

fn map(near: TcpStream, far: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (back_from, back_to) = (far.try_clone()?, near.try_clone()?);
    let (held, of) = (near.try_clone()?, Arc::clone(shared));
    shared.with(|state| {
        // Those that ended say so when they are looked at.
        state.1.retain(|stream| stream.take_error().is_ok() && stream.peer_addr().is_ok());
        state.1.push(held);
    });
    std::thread::spawn(move || pass(back_from, back_to, &of));
    pass(near, far, shared);
    Ok(())
}

/// Passes bytes on until either side ends; then both do.
fn pass(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).unwrap_or(0);
        // The end of a connection passes no more than its bytes do.
        if !shared.passes() || count == 0 || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Says back what it is told.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
                });
            }
        });
        address
    }

    fn said(stream: &mut TcpStream, limit: Duration) -> Option<u8> {
        stream.set_read_timeout(Some(limit)).expect("set");
        let mut byte = [0];
        stream.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    fn is_refused(address: &str) -> bool {
        TcpStream::connect(address).is_err()
    }

    #[test]
    fn nothing_passes_while_it_is_cut_and_what_waited_passes_afterwards() {
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(50));
        let wire = Wire::start(&echo()).expect("loopback");
        let mut stream = TcpStream::connect(&wire.address).expect("it listens");
        stream.write_all(b"a").expect("taken");
        assert_eq!(said(&mut stream, long), Some(b'a'));
        wire.set(State::Silent);
        stream.write_all(b"b").expect("taken");
        let mut late = TcpStream::connect(&wire.address).expect("it waits");
        late.write_all(b"c").expect("taken");
        assert_eq!((said(&mut stream, short), said(&mut late, short)), (None, None));
        wire.set(State::Open);
        assert_eq!((said(&mut stream, long), said(&mut late, long)), (Some(b'b'), Some(b'c')));
        wire.set(State::Refuses);
        assert_eq!(said(&mut stream, long), None);
        while !is_refused(&wire.address) {}
        wire.set(State::Open);
        while is_refused(&wire.address) {}
    }
}
