//! A port mapping that notes which requests pass: clients are told its address, Cairn listens on another.
//!
//! Who calls it: the driver of the Kafka clients. It guarantees that what passes is unchanged, and that a connection to a
//! Cairn that is away ends as it would without it. It must never wait for more than a header to pass bytes on.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a request's length, kind and version.
const HEAD_BYTES: usize = 8;

/// How often each kind and version of request was sent.
pub(crate) type Seen = BTreeMap<(i16, i16), u64>;

/// The mapping; ends when dropped.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) address: String,
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
}

impl Tap {
    /// Maps a free port to `target`.
    pub(crate) fn start(target: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let (seen, ended) = (Arc::new(Mutex::new(Seen::new())), Arc::new(AtomicBool::new(false)));
        let (target, notes, over) = (target.to_owned(), Arc::clone(&seen), Arc::clone(&ended));
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // Where nobody listens now, dropping the connection says so.
                if let Ok(far) = TcpStream::connect(&target) {
                    let _ = map(near, far, &notes);
                }
            }
        });
        Ok(Self { address, seen, ended })
    }

    /// What has passed.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn map(near: TcpStream, far: TcpStream, seen: &Arc<Mutex<Seen>>) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (back_from, back_to) = (far.try_clone()?, near.try_clone()?);
    let notes = Arc::clone(seen);
    let mut heads = Heads::default();
    std::thread::spawn(move || {
        pass(near, far, |bytes| {
            heads.take(bytes, |key, version| {
                *notes.lock().unwrap_or_else(PoisonError::into_inner).entry((key, version)).or_default() += 1;
            });
        });
    });
    std::thread::spawn(move || pass(back_from, back_to, |_| ()));
    Ok(())
}

/// Passes bytes on until either side ends; then both do.
fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
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

/// Finds the heads of requests in a stream of bytes.
#[derive(Debug, Default)]
struct Heads {
    head: Vec<u8>,
    /// Bytes of the current request that are still to come behind its head.
    left: usize,
}

impl Heads {
    fn take(&mut self, mut bytes: &[u8], mut found: impl FnMut(i16, i16)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = (HEAD_BYTES - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if let [a, b, c, d, k, l, x, y] = self.head[..] {
                let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).unwrap_or(0);
                found(i16::from_be_bytes([k, l]), i16::from_be_bytes([x, y]));
                self.left = length.saturating_sub(HEAD_BYTES - 4);
                self.head.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Heads;

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let stream =
            [&[0, 0, 0, 6, 0, 3, 0, 9, 7, 7][..], &[0, 0, 0, 4, 0, 1, 0, 12], &[0, 0, 0, 5, 0, 18, 0, 3, 1]].concat();
        for size in 1..=stream.len() {
            let (mut heads, mut found) = (Heads::default(), Vec::new());
            stream.chunks(size).for_each(|bytes| heads.take(bytes, |key, version| found.push((key, version))));
            assert_eq!(found, [(3, 9), (1, 12), (18, 3)], "in pieces of {size}");
        }
    }
}
