//! A port mapping that notes what passes: clients are told its address, Cairn listens on another.
//!
//! Who calls it: the drivers of other people's clients. It guarantees that what passes is unchanged, and that a connection to
//! a Cairn that is away ends as it would without it. What is made of the bytes is the driver's own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Looks at bytes of one direction, as they pass.
pub(crate) type Look = Box<dyn FnMut(&[u8]) + Send>;

/// What was noted of all connections.
#[derive(Debug, Default)]
pub(crate) struct Notes<N>(Arc<Mutex<N>>);

impl<N> Clone for Notes<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N> Notes<N> {
    /// Adds to them.
    pub(crate) fn add(&self, add: impl FnOnce(&mut N)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The mapping; ends when dropped.
#[derive(Debug)]
pub(crate) struct Tap<N> {
    pub(crate) address: String,
    notes: Notes<N>,
    ended: Arc<AtomicBool>,
}

impl<N: Clone + Default + Send + 'static> Tap<N> {
    /// Maps a free port to `target`; `looks` makes what looks at requests and at answers of each new connection.
    pub(crate) fn start(target: &str, looks: fn(&Notes<N>) -> (Look, Look)) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let (notes, ended) = (Notes::default(), Arc::new(AtomicBool::new(false)));
        let (target, noted, over) = (target.to_owned(), notes.clone(), Arc::clone(&ended));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // Where nobody listens now, dropping the connection says so.
                if let Ok(far) = TcpStream::connect(&target) {
                    let _ = map(near, far, looks(&noted));
                }
            }
        });
        Ok(Self { address, notes, ended })
    }

    /// What has passed.
    pub(crate) fn seen(&self) -> N {
        self.notes.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<N> Drop for Tap<N> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn map(near: TcpStream, far: TcpStream, (there, back): (Look, Look)) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (back_from, back_to) = (far.try_clone()?, near.try_clone()?);
    std::thread::spawn(move || pass(near, far, there));
    std::thread::spawn(move || pass(back_from, back_to, back));
    Ok(())
}

/// Passes bytes on until either side ends; then both do.
fn pass(mut from: TcpStream, mut to: TcpStream, mut look: Look) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        look(&chunk[..count]);
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
