//! The spool: events that are durable here and not yet acknowledged by the cluster.
//!
//! Every append goes through it, cluster or not, so that there is one order and one kind of acknowledgement. One writer
//! gathers what waits, writes it, syncs once and answers; one reader (delivery) follows behind it. Guarantees: what was
//! acknowledged is on stable storage; a torn tail is cut, damage before it refuses to open; files never grow past the
//! bound. A failed sync is final: pages that failed to reach the disk cannot be trusted.
//!
//! Files are `<n>.spool`, n as 16 digits: the 8 bytes `CRNSPL01`, then [`super::frame`]s; encrypted ones as in
//! [`super::sealed`]. A file goes when all of it is delivered and it is not the last.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use cairn_keys::{AtRest, AtRestError, TRAILER_BYTES};

use super::{
    frame::{FRAME_HEADER_BYTES, Frame, PAYLOAD_BYTES_MAX, Parsed},
    sealed::{HEAD_BYTES_MAX, Head, HeadError, MAGIC},
};

/// Bytes of frames that are read at once.
pub(super) const READ_BYTES: usize = 4 << 20;

/// Why a spool does not open or take more.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system refused.
    #[error("the spool file {path} failed: {source}; nothing is recorded until a restart with a disk that works")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A frame that was acknowledged cannot be read.
    #[error(
        "the spool file {path} is damaged at byte {at}: events that were acknowledged may be lost; move the file aside to go on without them"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
    },
    /// A file is encrypted, and its key is not there or does not open it.
    #[error("cannot read the spool file {path}: {source}; nothing was changed")]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Which key, and why.
        source: AtRestError,
    },
    /// It is at its bound.
    #[error(
        "the spool holds {used} of {max} bytes because the cluster is away: bring it back or raise the spool's bound"
    )]
    Full {
        /// Bytes in use.
        used: u64,
        /// The bound.
        max: u64,
    },
}

/// A place in the spool: before a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) at: u64,
}

/// What the spool writes through: a file, or a test's file that forgets what was not synced.
trait Device: std::fmt::Debug + Send {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Device for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    file: Box<dyn Device>,
    /// The head of the file that is written.
    head: Head,
    at_rest: AtRest,
    device: fn(File) -> Box<dyn Device>,
    failed: bool,
    events_at_open: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
}

impl Spool {
    /// Opens the folder, cuts a torn tail, and is ready to append.
    pub(super) fn open(folder: &Path, bytes_max: u64, at_rest: AtRest) -> Result<Self, SpoolError> {
        Self::open_on(folder, bytes_max, at_rest, |file| Box::new(file))
    }

    fn open_on(
        folder: &Path,
        bytes_max: u64,
        at_rest: AtRest,
        device: fn(File) -> Box<dyn Device>,
    ) -> Result<Self, SpoolError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| SpoolError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(io(folder))?;
        // Without its name everything in it would be lost with the power.
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io(parent))?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder).map_err(io(folder))? {
            let name = entry.map_err(io(folder))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".spool")).and_then(|n| n.parse::<u64>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        for number in &numbers {
            // Before anything is cut: whoever lacks a key changes nothing.
            let path = path_of(folder, *number);
            let mut begin = Vec::new();
            let read = File::open(&path).and_then(|file| file.take(HEAD_BYTES_MAX as u64).read_to_end(&mut begin));
            read.map_err(io(&path))?;
            if let Err(HeadError::Key(source)) = Head::read(&begin, &at_rest) {
                return Err(SpoolError::Sealed { path, source });
            }
        }
        let mut segments = VecDeque::new();
        let mut events_at_open = 0;
        for (index, number) in numbers.iter().enumerate() {
            let path = path_of(folder, *number);
            let last = index + 1 == numbers.len();
            let (bytes, events) = check(&path, *number, last, &at_rest)?;
            events_at_open += events;
            segments.push_back(Segment { number: *number, bytes });
        }
        let number = segments.back().map_or(1, |segment| segment.number + 1);
        let (file, head) = create(folder, number, &at_rest)?;
        segments.push_back(Segment { number, bytes: head.bytes });
        let file = device(file);
        let segment_bytes = (bytes_max / 8).clamp(64 * 1024, 64 << 20);
        let folder = folder.to_owned();
        let failed = false;
        Ok(Self { folder, bytes_max, segment_bytes, segments, file, head, at_rest, device, failed, events_at_open })
    }

    /// Appends encoded frames and syncs once. All of them are durable on return, or none is kept.
    pub(super) fn append(&mut self, frames: &[Bytes]) -> Result<(), SpoolError> {
        if self.failed {
            let source = io::Error::other("an earlier write failed");
            return Err(SpoolError::Io { path: self.folder.clone(), source });
        }
        // The next file has a head of the same kind.
        let bytes: u64 = frames.iter().map(|frame| self.head.length_of(frame)).sum();
        if bytes > self.headroom() {
            return Err(SpoolError::Full { used: self.used(), max: self.bytes_max });
        }
        if self.active().bytes > self.segment_bytes {
            self.roll()?;
        }
        let (start, number) = (self.active().bytes, self.active().number);
        let mut at = start;
        let written = frames.iter().try_for_each(|frame| {
            let frame = self.head.put(frame, number, at);
            at += frame.len() as u64;
            self.file.write(&frame)
        });
        let written = written.and_then(|()| self.file.sync());
        if let Err(source) = written {
            // What was not acknowledged must not come back at the next start.
            self.failed = true;
            let _ = self.file.cut(start).and_then(|()| self.file.sync());
            return Err(SpoolError::Io { path: path_of(&self.folder, number), source });
        }
        self.segments.back_mut().expect("there is always an active segment").bytes += bytes;
        Ok(())
    }

    /// Whether [`Spool::trim`] would remove a file.
    pub(super) fn trims(&self, delivered: Position) -> bool {
        self.rolls(delivered) || (self.segments.len() > 1 && is_done(&self.segments[0], delivered))
    }

    /// Whether the one file is delivered and large enough to begin another.
    fn rolls(&self, delivered: Position) -> bool {
        self.segments.len() == 1
            && !self.failed
            && delivered >= self.end()
            && self.active().bytes > self.segment_bytes / 2
    }

    /// Whether files were removed before: then what was in them is known from the history only.
    pub(super) fn was_trimmed(&self) -> bool {
        self.segments[0].number > 1
    }

    /// Removes files that are wholly before `delivered`.
    pub(super) fn trim(&mut self, delivered: Position) -> Result<(), SpoolError> {
        if self.rolls(delivered) {
            self.roll()?;
        }
        while self.segments.len() > 1 {
            let first = &self.segments[0];
            if !is_done(first, delivered) {
                break;
            }
            let path = path_of(&self.folder, first.number);
            fs::remove_file(&path).map_err(|source| SpoolError::Io { path, source })?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn roll(&mut self) -> Result<(), SpoolError> {
        let number = self.active().number + 1;
        let (file, head) = create(&self.folder, number, &self.at_rest)?;
        self.file = (self.device)(file);
        self.segments.push_back(Segment { number, bytes: head.bytes });
        self.head = head;
        Ok(())
    }

    fn active(&self) -> &Segment {
        self.segments.back().expect("there is always an active segment")
    }

    pub(super) fn start(&self) -> Position {
        Position { segment: self.segments[0].number, at: MAGIC.len() as u64 }
    }

    pub(super) fn end(&self) -> Position {
        Position { segment: self.active().number, at: self.active().bytes }
    }

    pub(super) fn used(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn headroom(&self) -> u64 {
        if self.failed { 0 } else { self.bytes_max.saturating_sub(self.used()) }
    }

    /// Events that an earlier run left, delivered or not.
    pub(super) fn events_at_open(&self) -> u64 {
        self.events_at_open
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }
}

fn is_done(segment: &Segment, delivered: Position) -> bool {
    delivered.segment > segment.number || (delivered.segment == segment.number && delivered.at >= segment.bytes)
}

/// Reads frames from `from` up to `end`, about `bytes` of them; returns each with the place after it.
pub(super) fn read(
    folder: &Path,
    at_rest: &AtRest,
    mut from: Position,
    end: Position,
    bytes: usize,
) -> Result<Vec<(Frame, Position)>, SpoolError> {
    let mut frames = Vec::new();
    let mut taken = 0;
    while from < end && taken < bytes {
        let path = path_of(folder, from.segment);
        let io = |source| SpoolError::Io { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            // Numbers may have holes: an empty file of an earlier start was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && from.segment < end.segment => {
                from = Position { segment: from.segment + 1, at: MAGIC.len() as u64 };
                continue;
            }
            Err(source) => return Err(io(source)),
        };
        let length = if from.segment == end.segment { end.at } else { file.metadata().map_err(io)?.len() };
        // One that was just being made may hold nothing.
        if from.at >= length {
            from = Position { segment: from.segment + 1, at: MAGIC.len() as u64 };
            continue;
        }
        let mut begin = Vec::new();
        (&mut file).take(HEAD_BYTES_MAX as u64).read_to_end(&mut begin).map_err(io)?;
        let head = match Head::read(&begin, at_rest) {
            Ok(head) => head,
            Err(HeadError::Key(source)) => return Err(SpoolError::Sealed { path, source }),
            Err(HeadError::Bad) => return Err(SpoolError::Damaged { path, at: 0 }),
        };
        from.at = from.at.max(head.bytes);
        if from.at >= length {
            from = Position { segment: from.segment + 1, at: MAGIC.len() as u64 };
            continue;
        }
        file.seek(SeekFrom::Start(from.at)).map_err(io)?;
        let window = (length - from.at).min((PAYLOAD_BYTES_MAX + FRAME_HEADER_BYTES + TRAILER_BYTES) as u64);
        let mut buffer = Vec::new();
        file.take(window.min(bytes.max(1 << 20) as u64)).read_to_end(&mut buffer).map_err(io)?;
        let mut at = 0;
        loop {
            match head.parse(&buffer[at..], from.segment, from.at) {
                Parsed::Frame(frame, used) => {
                    at += used;
                    taken += used;
                    from.at += used as u64;
                    frames.push((frame, from));
                }
                Parsed::Short if at > 0 => break,
                Parsed::Short | Parsed::Bad | Parsed::Changed => {
                    return Err(SpoolError::Damaged { path, at: from.at });
                }
            }
        }
    }
    Ok(frames)
}

/// Checks every frame of a file; cuts a torn tail of the last one. Returns its bytes and its events.
fn check(path: &Path, number: u64, last: bool, at_rest: &AtRest) -> Result<(u64, u64), SpoolError> {
    let io = |source| SpoolError::Io { path: path.to_owned(), source };
    let damaged = |at: usize| SpoolError::Damaged { path: path.to_owned(), at: at as u64 };
    let bytes = fs::read(path).map_err(io)?;
    let (mut at, mut events) = (0, 0);
    match Head::read(&bytes, at_rest) {
        Ok(head) => {
            at = usize::try_from(head.bytes).expect("a head is short");
            while at < bytes.len() {
                match head.parse(&bytes[at..], number, at as u64) {
                    Parsed::Frame(frame, used) => {
                        at += used;
                        events += frame.records.len() as u64;
                    }
                    Parsed::Changed => return Err(damaged(at)),
                    Parsed::Short | Parsed::Bad => break,
                }
            }
        }
        Err(HeadError::Key(source)) => return Err(SpoolError::Sealed { path: path.to_owned(), source }),
        // A head is synced before anything stands behind it.
        Err(HeadError::Bad) if bytes.len() > HEAD_BYTES_MAX => return Err(damaged(0)),
        Err(HeadError::Bad) => {}
    }
    if at == bytes.len() {
        return Ok((at as u64, events));
    }
    if !last {
        return Err(damaged(at));
    }
    tracing::warn!(path = %path.display(), at, cut = bytes.len() - at, "a torn tail of the spool was cut");
    let mut file = OpenOptions::new().write(true).open(path).map_err(io)?;
    if at == 0 {
        file.write_all(MAGIC).map_err(io)?;
        at = MAGIC.len();
    }
    file.set_len(at as u64).and_then(|()| file.sync_all()).map_err(io)?;
    Ok((at as u64, events))
}

fn create(folder: &Path, number: u64, at_rest: &AtRest) -> Result<(File, Head), SpoolError> {
    let path = path_of(folder, number);
    let (head, bytes) = Head::new(at_rest);
    let made = || {
        let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok((file, head))
    };
    made().map_err(|source| SpoolError::Io { path: path.clone(), source })
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.spool"))
}

#[cfg(test)]
mod tests {
    use cairn_contract::{EventRecord, Topic};

    use super::*;

    fn frame(n: u8) -> Frame {
        let record = EventRecord {
            topic: Topic::Calls,
            key: Bytes::from_static(b"k"),
            headers: vec![("h".to_owned(), Bytes::from(vec![n, 0, 255]))],
            value: Bytes::from(vec![n; 100]),
            timestamp_ms: i64::from(n),
        };
        Frame { topic: Topic::Calls, partition: 3, floor: 9, records: vec![record.clone(), record] }
    }

    fn all(spool: &Spool) -> Vec<Frame> {
        let frames =
            read(&spool.folder, &spool.at_rest, spool.start(), spool.end(), usize::MAX >> 1).expect("readable");
        frames.into_iter().map(|(frame, _)| frame).collect()
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path(), 1 << 20, AtRest::default()).expect("open");
        spool.append(&[frame(1).encode(), frame(2).encode()]).expect("appended");
        drop(spool);
        let mut spool = Spool::open(folder.path(), 1 << 20, AtRest::default()).expect("open again");
        spool.append(&[frame(3).encode()]).expect("appended");
        assert_eq!(all(&spool), [frame(1), frame(2), frame(3)]);
    }

    /// A file on a machine that may lose power at any moment: only what was synced is there afterwards.
    #[derive(Debug)]
    struct Forgetful(File, Vec<u8>);

    impl Device for Forgetful {
        fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.1.extend_from_slice(bytes);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            self.0.write_all(&self.1)?;
            self.1.clear();
            self.0.sync_data()
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            self.1.clear();
            self.0.set_len(length)
        }
    }

    #[test]
    fn what_was_acknowledged_is_there_after_power_was_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut expected = Vec::new();
        for round in 0..4_u8 {
            let mut spool =
                Spool::open_on(folder.path(), 1 << 20, AtRest::default(), |file| Box::new(Forgetful(file, Vec::new())))
                    .expect("open");
            for n in 0..5 {
                let frame = frame(round * 10 + n);
                spool.append(&[frame.encode()]).expect("acknowledged");
                expected.push(frame);
            }
        }
        assert_eq!(all(&Spool::open(folder.path(), 1 << 20, AtRest::default()).expect("open")), expected);
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte() {
        let whole = frame(2).encode();
        for cut in 0..whole.len() {
            let folder = tempfile::tempdir().expect("a folder");
            let mut spool = Spool::open(folder.path(), 1 << 20, AtRest::default()).expect("open");
            spool.append(&[frame(1).encode(), whole.slice(..cut)]).expect("appended");
            drop(spool);
            let spool = Spool::open(folder.path(), 1 << 20, AtRest::default()).expect("open again");
            assert_eq!(all(&spool), [frame(1)], "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_tail_refuses_to_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path(), 1 << 20, AtRest::default()).expect("open");
        spool.append(&[frame(1).encode()]).expect("appended");
        drop(spool);
        drop(Spool::open(folder.path(), 1 << 20, AtRest::default()).expect("a second file"));
        let path = path_of(folder.path(), 1);
        let mut bytes = fs::read(&path).expect("read");
        bytes[40] ^= 1;
        fs::write(&path, bytes).expect("written");
        assert!(matches!(Spool::open(folder.path(), 1 << 20, AtRest::default()), Err(SpoolError::Damaged { .. })));
    }

    #[test]
    fn past_its_bound_it_is_full_until_something_is_delivered() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path(), 256 * 1024, AtRest::default()).expect("open");
        let error = loop {
            if let Err(error) = spool.append(&[frame(1).encode()]) {
                break error;
            }
        };
        assert!(matches!(error, SpoolError::Full { .. }), "{error}");
        assert!(spool.used() <= 256 * 1024);
        spool.trim(spool.end()).expect("trimmed");
        spool.append(&[frame(1).encode()]).expect("there is room again");
    }

    async fn at_rest(current: Option<u8>, others: &[u8]) -> AtRest {
        use cairn_keys::{GivenKey, KeyEncryption, Purpose};
        let key = |byte: u8| -> std::sync::Arc<dyn KeyEncryption> {
            let text = [byte; 32].map(|byte| format!("{byte:02x}")).concat();
            std::sync::Arc::new(GivenKey::read("test", text.as_bytes()).expect("a key").of(Purpose::AtRest))
        };
        let others = others.iter().map(|byte| key(*byte)).collect();
        AtRest::open(current.map(key), others, cairn_clock::Entropy::system()).await.expect("it wraps")
    }

    fn in_the_clear(folder: &Path) -> bool {
        let has = |bytes: Vec<u8>| bytes.windows(60).any(|window| window.iter().all(|byte| (1..9).contains(byte)));
        fs::read_dir(folder)
            .expect("a folder")
            .any(|entry| has(fs::read(entry.expect("an entry").path()).expect("read")))
    }

    #[tokio::test]
    async fn an_encrypted_spool_holds_nothing_in_the_clear_and_goes_on_under_another_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |at_rest| Spool::open(folder.path(), 1 << 20, at_rest);
        let mut spool = open(at_rest(Some(1), &[]).await).expect("open");
        spool.append(&[frame(1).encode(), frame(2).encode()]).expect("appended");
        assert_eq!(spool.used(), fs::metadata(path_of(folder.path(), 1)).expect("there").len());
        drop(spool);
        let before = fs::read(path_of(folder.path(), 1)).expect("there");
        for (current, others) in [(None, vec![]), (Some(2), vec![])] {
            let error = open(at_rest(current, &others).await).expect_err("its key is not there").to_string();
            assert!(
                error.contains("0001.spool") && error.contains("key test:") && error.contains("nothing was changed")
            );
            assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing was made");
        }
        assert_eq!(fs::read(path_of(folder.path(), 1)).expect("there"), before);
        let mut spool = open(at_rest(Some(2), &[1]).await).expect("the old key is named");
        spool.append(&[frame(3).encode()]).expect("appended");
        assert_eq!(all(&spool), [frame(1), frame(2), frame(3)]);
        drop(spool);
        assert!(!in_the_clear(folder.path()));
        let mut spool = open(at_rest(None, &[1, 2]).await).expect("new files in the clear");
        spool.append(&[frame(4).encode()]).expect("appended");
        assert_eq!(all(&spool), [frame(1), frame(2), frame(3), frame(4)]);
        assert!(in_the_clear(folder.path()), "this test would find it");
        spool.trim(spool.end()).expect("trimmed");
        assert_eq!(spool.segments.len(), 1);
    }

    #[tokio::test]
    async fn of_an_encrypted_spool_a_torn_tail_is_cut_and_what_was_changed_or_moved_is_damage() {
        let key = at_rest(Some(1), &[]).await;
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path(), 1 << 20, key.clone()).expect("open");
        let head = usize::try_from(spool.head.bytes).expect("short");
        spool.append(&[frame(1).encode(), frame(2).encode()]).expect("appended");
        drop(spool);
        let path = path_of(folder.path(), 1);
        let good = fs::read(&path).expect("there");
        let length = (good.len() - head) / 2;
        let mend = |bytes: &mut [u8], at: usize| {
            let crc = crc32c::crc32c(&bytes[at + FRAME_HEADER_BYTES..at + length]);
            bytes[at + 4..at + 8].copy_from_slice(&crc.to_be_bytes());
        };
        let mut mended = good.clone();
        mended[head + length + 20] ^= 1;
        mend(&mut mended, head + length);
        let mut moved = good.clone();
        moved.copy_within(head..head + length, head + length);
        for (what, spoiled) in [("mended", mended), ("moved", moved)] {
            fs::write(&path, &spoiled).expect("written");
            let error = Spool::open(folder.path(), 1 << 20, key.clone()).expect_err(what);
            assert!(matches!(error, SpoolError::Damaged { .. }), "{what}: {error}");
            assert_eq!(fs::read(&path).expect("there"), spoiled, "{what}: nothing was cut");
        }
        for cut in 0..length {
            for entry in fs::read_dir(folder.path()).expect("a folder") {
                fs::remove_file(entry.expect("an entry").path()).expect("removed");
            }
            fs::write(&path, &good[..head + length + cut]).expect("written");
            let spool = Spool::open(folder.path(), 1 << 20, key.clone()).expect("a torn tail is cut");
            assert_eq!(all(&spool), [frame(1)], "cut at {cut}");
        }
        for cut in 0..head {
            for entry in fs::read_dir(folder.path()).expect("a folder") {
                fs::remove_file(entry.expect("an entry").path()).expect("removed");
            }
            fs::write(&path, &good[..cut]).expect("written");
            let spool = Spool::open(folder.path(), 1 << 20, key.clone()).expect("a file that was just being made");
            assert_eq!(all(&spool), [], "cut at {cut}");
        }
    }
}
