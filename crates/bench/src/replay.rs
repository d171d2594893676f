//! A client that reads a topic from its beginning as fast as it gets it and decodes no record: fetches over TCP whose bytes are counted.
//!
//! It looks at batch headers only, because it must know where to go on. Blocking; called through `spawn_blocking`. Whenever it has come
//! to the end it begins again, and what the page cache holds of the objects is dropped first: each pass reads the disk.

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::time::Instant;

/// Fetch, in the newest version that names topics by name and has fixed-length fields only.
const FETCH: i16 = 1;
const VERSION: i16 = 11;
/// What consumers ask for by default: of a partition, and of all together.
const PARTITION_BYTES: i32 = 1 << 20;
const ANSWER_BYTES: i32 = 50 << 20;
/// How long an answer may take.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The lowest priority there is.
#[cfg(target_os = "linux")]
const NICE_MAX: i32 = 19;
/// What is taken from the connection, and forgotten of a file, in one call: between two, others go first.
const AT_ONCE_BYTES: usize = 64 << 10;
const FORGOTTEN_BYTES: usize = 512 << 10;
/// Bytes of a batch's header up to its last offset's delta.
const BATCH_HEADER_BYTES: usize = 27;

/// One that reads.
#[derive(Debug)]
pub(crate) struct Replay {
    stream: TcpStream,
    topic: String,
    offsets: Vec<i64>,
    answer: Vec<u8>,
    /// Where the objects lie that are to be read from the disk.
    objects: PathBuf,
}

impl Replay {
    pub(crate) fn open(bootstrap: &str, topic: &str, partitions: usize, objects: &Path) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(bootstrap).with_context(|| format!("connect to {bootstrap}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        let (topic, objects) = (topic.to_owned(), objects.to_owned());
        Ok(Self { stream, topic, offsets: vec![0; partitions], answer: Vec::new(), objects })
    }

    /// Megabytes of batches a second, until it is told to stop. On Linux its thread gives way to all others: a client on another machine
    /// takes no processor from those at the end, and what is measured is what the broker does.
    pub(crate) fn run(self, stop: &AtomicBool) -> anyhow::Result<f64> {
        std::thread::scope(|scope| {
            // Its own, so that the priority goes with it.
            let reading = scope.spawn(|| {
                #[cfg(target_os = "linux")]
                rustix::process::setpriority_process(None, NICE_MAX).context("give way")?;
                self.read(stop)
            });
            reading.join().map_err(|_| anyhow::anyhow!("the replay panicked"))?
        })
    }

    fn read(mut self, stop: &AtomicBool) -> anyhow::Result<f64> {
        self.forget_pages()?;
        let began = Instant::now();
        let mut bytes = 0;
        while !stop.load(Ordering::Relaxed) {
            let came = self.fetch()?;
            bytes += came;
            if came == 0 {
                self.offsets.fill(0);
                self.forget_pages()?;
            }
        }
        Ok(bytes as f64 / 1e6 / began.elapsed().as_secs_f64())
    }

    /// Reads once from each partition; the bytes that came.
    fn fetch(&mut self) -> anyhow::Result<usize> {
        let request = self.request();
        self.stream.write_all(&request)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("no answer came")?;
        let length = usize::try_from(i32::from_be_bytes(length)).context("an answer of negative length")?;
        // It is not zeroed anew each time.
        self.answer.resize(self.answer.len().max(length), 0);
        for piece in self.answer[..length].chunks_mut(AT_ONCE_BYTES) {
            std::thread::yield_now();
            self.stream.read_exact(piece)?;
        }
        let mut fields = Fields(&self.answer[..length]);
        fields.take(4 + 4)?; // correlation, throttle time
        ensure!(fields.i16()? == 0, "the fetch was refused");
        fields.take(4)?; // session
        let mut bytes = 0;
        for _ in 0..fields.i32()? {
            let name = fields.i16()?;
            fields.take(usize::try_from(name)?)?;
            for _ in 0..fields.i32()? {
                let partition = usize::try_from(fields.i32()?)?;
                let error = fields.i16()?;
                ensure!(error == 0, "partition {partition} answers with error {error}");
                fields.take(8 + 8 + 8)?; // ends and start
                let aborted = fields.i32()?.max(0);
                fields.take(usize::try_from(aborted)? * 16)?;
                fields.take(4)?; // preferred replica
                let length = fields.i32()?.max(0);
                let records = fields.take(usize::try_from(length)?)?;
                bytes += records.len();
                let offset = self.offsets.get_mut(partition).context("a partition that was not asked for")?;
                *offset = behind(records)?.unwrap_or(*offset);
            }
        }
        Ok(bytes)
    }

    fn request(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        out.extend(FETCH.to_be_bytes());
        out.extend(VERSION.to_be_bytes());
        out.extend(1_i32.to_be_bytes()); // correlation
        text(&mut out, "bench-replay");
        out.extend((-1_i32).to_be_bytes()); // no replica
        out.extend(0_i32.to_be_bytes()); // waits for nothing
        out.extend(1_i32.to_be_bytes()); // at least a byte
        out.extend(ANSWER_BYTES.to_be_bytes());
        out.push(0); // reads what is not committed
        out.extend(0_i32.to_be_bytes()); // without a session
        out.extend((-1_i32).to_be_bytes());
        out.extend(1_i32.to_be_bytes());
        text(&mut out, &self.topic);
        out.extend((self.offsets.len() as i32).to_be_bytes());
        for (partition, offset) in (0_i32..).zip(&self.offsets) {
            out.extend(partition.to_be_bytes());
            out.extend((-1_i32).to_be_bytes()); // any leader epoch
            out.extend(offset.to_be_bytes());
            out.extend((-1_i64).to_be_bytes()); // no log start
            out.extend(PARTITION_BYTES.to_be_bytes());
        }
        out.extend(0_i32.to_be_bytes()); // forgets nothing
        text(&mut out, ""); // in no rack
        let length = (out.len() - 4) as i32;
        out[..4].copy_from_slice(&length.to_be_bytes());
        out
    }

    /// Drops what the page cache holds of the objects.
    fn forget_pages(&self) -> anyhow::Result<()> {
        let mut folders = vec![self.objects.clone()];
        while let Some(folder) = folders.pop() {
            // Objects and folders come and go.
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if let Ok(file) = File::open(entry.path()) {
                    let bytes = file.metadata()?.len();
                    for at in (0..bytes).step_by(FORGOTTEN_BYTES) {
                        std::thread::yield_now();
                        let piece = NonZeroU64::new(FORGOTTEN_BYTES as u64);
                        rustix::fs::fadvise(&file, at, piece, rustix::fs::Advice::DontNeed)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// The offset behind these batches; nothing where there is none.
fn behind(mut batches: &[u8]) -> anyhow::Result<Option<i64>> {
    let mut next = None;
    while batches.len() >= BATCH_HEADER_BYTES {
        let mut fields = Fields(batches);
        let (base, length) = (fields.i64()?, usize::try_from(fields.i32()?)?);
        fields.take(4 + 1 + 4 + 2)?; // leader epoch, magic, checksum, attributes
        next = Some(base + i64::from(fields.i32()?) + 1);
        let Some(rest) = batches.get(12 + length..) else { bail!("a batch that is cut off") };
        batches = rest;
    }
    Ok(next)
}

/// What is left to read of an answer.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes).context("an answer that is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn i64(&mut self) -> anyhow::Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn the_next_offset_follows_the_last_record_of_the_last_whole_batch() {
        let batch = |base: i64, last: i32, body: usize| {
            let mut bytes = base.to_be_bytes().to_vec();
            bytes.extend((15 + body as i32).to_be_bytes());
            bytes.extend([0; 11]);
            bytes.extend(last.to_be_bytes());
            bytes.extend(vec![0; body]);
            bytes
        };
        let two = [batch(10, 4, 40), batch(15, 0, 7)].concat();
        assert_eq!(behind(&two).expect("whole"), Some(16));
        assert_eq!(behind(&[]).expect("nothing"), None);
        assert!(behind(&two[..two.len() - 1]).is_err());
    }
}
