//! The door: payloads in, references out; and what operators do with them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use cairn_clock::{Clock, Entropy, Timestamp};
use cairn_contract::{DigestKey, Reference};
use parking_lot::{Mutex, RwLock};

use crate::{
    Erased, Hold, KeyEncryption, Subject, SubjectId, Ticket, VaultError, VaultOptions,
    master::Masters,
    pack::{self, Head},
    packs,
    subjects::{Keys, Record, Table},
    writer::{Item, Queue, Writer},
};

/// Payloads that are remembered as kept, so that equal ones of a subject are kept once.
const RECENT_MAX: usize = 16 * 1024;
/// After a failed write one payload in this time is tried again; all others are not kept.
const TRY_AGAIN_US: u64 = 1_000_000;

/// Why a payload is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotKept {
    /// It is larger than `object_bytes_max`.
    TooLarge,
    /// More waits for the disk than may.
    Busy,
    /// The disk does not take anything.
    Failing,
}

impl NotKept {
    /// In one word, as events say it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Busy => "busy",
            Self::Failing => "failing",
        }
    }
}

/// What became of a payload.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What stands for it. Its location is `vault:<subject id>/<pack>`, or `not-kept:<why>`.
    pub reference: Reference,
    /// Whether it is durable, or why it is not kept.
    pub ticket: Result<Ticket, NotKept>,
}

/// What a vault counts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VaultStats {
    /// Subjects with keys.
    pub subjects: u64,
    /// Objects written since the start.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects whose writing failed.
    pub failed: u64,
    /// Payloads that were not kept.
    pub not_kept: u64,
    /// Bytes that wait for the disk.
    pub waiting_bytes: u64,
    /// Whether the last write failed.
    pub failing: bool,
}

struct Inner {
    options: VaultOptions,
    clock: Clock,
    entropy: Entropy,
    kek: RwLock<Arc<dyn KeyEncryption>>,
    masters: RwLock<Masters>,
    table: Arc<Mutex<Table>>,
    queue: Arc<Queue>,
    recent: Mutex<HashMap<[u8; 32], (u64, Ticket)>>,
    /// One at a time writes packs again, or changes the master key.
    chores: tokio::sync::Mutex<()>,
    /// Nobody looks for an object while packs are replaced.
    packs: RwLock<()>,
    not_kept: AtomicU64,
    tried_us: AtomicU64,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("folder", &self.0.options.folder).finish_non_exhaustive()
    }
}

impl Vault {
    /// Opens or makes the vault in a folder. `old` are key-encryption keys that may still wrap its master key; what they
    /// wrap is wrapped by `kek` from here on.
    ///
    /// # Errors
    /// The folder cannot be used, the keys do not open it, or something in it is damaged.
    pub async fn open(
        options: VaultOptions,
        kek: Arc<dyn KeyEncryption>,
        old: &[Arc<dyn KeyEncryption>],
        clock: Clock,
        entropy: Entropy,
    ) -> Result<Self, VaultError> {
        let (subjects, objects) = (options.folder.join("subjects"), options.folder.join("objects"));
        for folder in [&options.folder, &subjects, &objects] {
            packs::make_private(folder).map_err(VaultError::disk("make", folder))?;
        }
        let masters = Masters::open(&options.folder.join("master.json"), &kek, old, &entropy).await?;
        let (table, unfinished) = Table::read(&subjects, &masters)?;
        for left in packs::files(&objects, "new")?.into_iter().chain(packs::files(&subjects, "new")?) {
            fs::remove_file(&left).map_err(VaultError::disk("remove", &left))?;
        }
        let next_pack = packs::files(&objects, "pack")?.iter().filter_map(|path| packs::number(path)).max();
        let next_pack = next_pack.map_or(1, |last| last + 1);
        let (table, queue) = (Arc::new(Mutex::new(table)), Arc::new(Queue::default()));
        queue.pack.store(next_pack, Ordering::Release);
        let writer = Writer {
            queue: queue.clone(),
            objects,
            pack_bytes_max: options.pack_bytes_max,
            flush: options.flush_interval,
            next_pack,
            is_erased: {
                let table = table.clone();
                Arc::new(move |subject| table.lock().erased.contains(&SubjectId::of_bytes(subject)))
            },
        };
        let thread = std::thread::Builder::new().name("vault".to_owned());
        let writer =
            thread.spawn(move || writer.run()).map_err(VaultError::disk("start the writer of", &options.folder))?;
        let vault = Self(Arc::new(Inner {
            options,
            clock,
            entropy,
            kek: RwLock::new(kek),
            masters: RwLock::new(masters),
            table,
            queue,
            recent: Mutex::default(),
            chores: tokio::sync::Mutex::default(),
            packs: RwLock::default(),
            not_kept: AtomicU64::new(0),
            tried_us: AtomicU64::new(0),
            writer: Mutex::new(Some(writer)),
        }));
        for record in unfinished.into_iter().filter(|record| record.erased.as_ref().is_some_and(|left| !left.scrubbed))
        {
            vault.finish_erasing(record).await?;
        }
        Ok(vault)
    }

    /// Takes a payload and says at once what stands for it. `urgent` is what somebody waits for.
    #[must_use]
    pub fn keep(&self, whose: &Subject, payload: &[u8], media_type: &str, urgent: bool) -> Kept {
        let keys = self.keys(whose);
        let mut reference = keys.digest.reference(payload, media_type);
        let ticket = self.put(&keys, &reference.digest, payload, urgent);
        reference.location = Some(match &ticket {
            Ok(_) => format!("vault:{}/{:08x}", keys.id.as_str(), self.0.queue.pack.load(Ordering::Acquire)),
            Err(why) => {
                self.0.not_kept.fetch_add(1, Ordering::Relaxed);
                format!("not-kept:{}", why.word())
            }
        });
        Kept { reference, ticket }
    }

    /// Waits until payloads are on stable storage, and has them written at once.
    ///
    /// # Errors
    /// One could not be written.
    pub async fn durable(&self, tickets: &[Ticket]) -> Result<(), VaultError> {
        if tickets.iter().any(Ticket::is_pending) {
            self.0.queue.hurry();
        }
        for ticket in tickets {
            ticket.durable().await?;
        }
        Ok(())
    }

    /// The key under which a subject's payloads are digested.
    #[must_use]
    pub fn digest_key(&self, whose: &Subject) -> DigestKey {
        self.keys(whose).digest.clone()
    }

    fn period(&self) -> u64 {
        let period_us = (self.0.options.period.as_micros() as u64).max(1);
        self.0.clock.now().as_micros() / period_us
    }

    fn keys(&self, whose: &Subject) -> Arc<Keys> {
        let mut table = self.0.table.lock();
        let (keys, is_new) = table.keys(whose, self.period(), &self.0.entropy);
        if is_new {
            // Queued while the table is held, so that it goes before every object under these keys.
            self.write_record(&table, whose);
        }
        keys
    }

    fn write_record(&self, table: &Table, whose: &Subject) -> Ticket {
        let ticket = Ticket::default();
        let record = table.record(whose, &self.0.masters.read(), &self.0.entropy);
        match record {
            Some(record) => self.write_text(record.path(&self.subjects()), record.text(), &ticket),
            None => ticket.fail("its subject is gone"),
        }
        ticket
    }

    fn write_text(&self, path: PathBuf, text: Vec<u8>, ticket: &Ticket) {
        if !self.0.queue.push(Item::Record { path, text, ticket: ticket.clone() }, usize::MAX) {
            ticket.fail("the vault is closed");
        }
    }

    fn subjects(&self) -> PathBuf {
        self.0.options.folder.join("subjects")
    }

    fn objects(&self) -> PathBuf {
        self.0.options.folder.join("objects")
    }

    fn put(&self, keys: &Keys, digest: &str, payload: &[u8], urgent: bool) -> Result<Ticket, NotKept> {
        if payload.len() > self.0.options.object_bytes_max {
            return Err(NotKept::TooLarge);
        }
        let now = self.0.clock.now().as_micros();
        if self.0.queue.failing.load(Ordering::Acquire) {
            let tried = self.0.tried_us.load(Ordering::Acquire);
            let again = now >= tried + TRY_AGAIN_US
                && self.0.tried_us.compare_exchange(tried, now, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if !again {
                return Err(NotKept::Failing);
            }
        }
        let (_, digest) = parts(digest).expect("a digest of ours has the form of one");
        let pack = self.0.queue.pack.load(Ordering::Acquire);
        if let Some((of_pack, ticket)) = self.0.recent.lock().get(&digest)
            && *of_pack == pack
            && !ticket.is_failed()
        {
            let ticket = ticket.clone();
            if urgent {
                self.0.queue.hurry();
            }
            return Ok(ticket);
        }
        let (period, key) = keys.data.last_key_value().expect("keys are made with a period");
        let head = Head { subject: keys.id.bytes(), period: *period, put_us: now, digest };
        let frame = pack::frame(&head, &key.seal(&self.0.entropy, &head.bytes(), payload));
        let ticket = Ticket::default();
        let item = Item::Object { subject: head.subject, frame, ticket: ticket.clone(), urgent };
        if !self.0.queue.push(item, self.0.options.queue_bytes_max) {
            return Err(NotKept::Busy);
        }
        let mut recent = self.0.recent.lock();
        if recent.len() >= RECENT_MAX {
            recent.clear();
        }
        recent.insert(digest, (pack, ticket.clone()));
        Ok(ticket)
    }

    /// The payload that a digest stands for.
    ///
    /// # Errors
    /// It is no digest of this vault's, was erased, was not kept, or is damaged.
    pub async fn read(&self, digest: &str) -> Result<Vec<u8>, VaultError> {
        let (id, wanted) = parts(digest).ok_or_else(|| VaultError::NoReference { given: shown(digest) })?;
        self.flushed().await?;
        let keys = self.keys_of(&id)?;
        let vault = self.clone();
        let found = blocking(move || vault.find(&wanted)).await?;
        let missing = || VaultError::NoObject { digest: digest.to_owned() };
        let (path, head, frame) = found.ok_or_else(missing)?;
        opened(&path, &keys, digest, &head, &frame)
    }

    /// Many payloads at once, each by its digest and the location beside it. A pack is read once, however many of them lie
    /// in it, and where a reference names none of the packs its object counts as missing. In the order asked.
    ///
    /// # Errors
    /// Packs cannot be read. What is wrong with a single payload stands in its place.
    pub async fn read_many(
        &self,
        wanted: Vec<(String, String)>,
    ) -> Result<Vec<Result<Vec<u8>, VaultError>>, VaultError> {
        self.flushed().await?;
        let vault = self.clone();
        blocking(move || vault.find_many(&wanted)).await
    }

    fn find_many(&self, wanted: &[(String, String)]) -> Result<Vec<Result<Vec<u8>, VaultError>>, VaultError> {
        let missing = |digest: &str| VaultError::NoObject { digest: digest.to_owned() };
        let mut found: Vec<_> = wanted.iter().map(|(digest, _)| Err(missing(digest))).collect();
        let mut by_pack: BTreeMap<u64, HashMap<[u8; 32], Vec<usize>>> = BTreeMap::new();
        for (at, (digest, location)) in wanted.iter().enumerate() {
            match parts(digest).zip(pack_of(location)) {
                Some(((_, hash), pack)) => by_pack.entry(pack).or_default().entry(hash).or_default().push(at),
                None => found[at] = Err(VaultError::NoReference { given: shown(digest) }),
            }
        }
        let _packs = self.0.packs.read();
        for (pack, mut hashes) in by_pack {
            // The writer may have begun the next pack after the reference was made.
            for path in [pack, pack.saturating_add(1)].map(|pack| packs::path(&self.objects(), pack)) {
                if hashes.is_empty() || !path.exists() {
                    continue;
                }
                packs::scan(&path, |head, frame| {
                    for at in hashes.remove(&head.digest).into_iter().flatten() {
                        let (digest, _) = &wanted[at];
                        let (id, _) = parts(digest).expect("it had parts before");
                        found[at] = self.keys_of(&id).and_then(|keys| opened(&path, &keys, digest, head, frame));
                    }
                    hashes.is_empty()
                })?;
            }
        }
        // Of whoever was erased nothing is there any more, and that is why.
        for ((digest, _), found) in wanted.iter().zip(&mut found) {
            if let (Err(VaultError::NoObject { .. }), Some((id, _))) = (&*found, parts(digest))
                && let Err(error) = self.keys_of(&id)
            {
                *found = Err(error);
            }
        }
        Ok(found)
    }

    fn keys_of(&self, id: &SubjectId) -> Result<Arc<Keys>, VaultError> {
        let table = self.0.table.lock();
        if table.erased.contains(id) {
            return Err(VaultError::ErasedSubject { key: id.as_str().to_owned() });
        }
        let entry = table.by_id.get(id).and_then(|subject| table.known.get(subject));
        Ok(entry.ok_or_else(|| VaultError::UnknownSubject { key: id.as_str().to_owned() })?.keys.clone())
    }

    fn find(&self, digest: &[u8; 32]) -> Result<Option<(PathBuf, Head, Vec<u8>)>, VaultError> {
        let _packs = self.0.packs.read();
        // The newest first: what is asked for is mostly new.
        for path in packs::files(&self.objects(), "pack")?.into_iter().rev() {
            if let Some((head, frame)) = packs::find(&path, digest)? {
                return Ok(Some((path, head, frame)));
            }
        }
        Ok(None)
    }

    /// Waits until everything that was taken is durable; what failed then is told to whom it concerns.
    async fn flushed(&self) -> Result<(), VaultError> {
        let ticket = Ticket::default();
        if !self.0.queue.push(Item::Roll { ticket: ticket.clone() }, usize::MAX) {
            return Err(VaultError::NotWritten { reason: "the vault is closed".to_owned() });
        }
        self.0.queue.hurry();
        ticket.durable().await
    }

    /// Whose payloads a digest is of.
    #[must_use]
    pub fn subject_of(&self, digest: &str) -> Option<Subject> {
        let (id, _) = parts(digest)?;
        self.0.table.lock().by_id.get(&id).cloned()
    }

    /// Destroys the keys and the objects of a subject. Its digests stay in the trail, and nobody can tell any more of what.
    /// Until [`recorded`](Vault::recorded), a new start finds it in [`unrecorded`](Vault::unrecorded).
    ///
    /// # Errors
    /// The subject is unknown or under hold, or the disk refuses: then the keys may be gone, and a new start goes on.
    pub async fn erase(&self, whose: &Subject) -> Result<Erased, VaultError> {
        let _chore = self.0.chores.lock().await;
        let (record, ticket) = {
            let mut table = self.0.table.lock();
            let entry = table.known.get(whose).ok_or_else(|| no_subject(whose))?;
            if let Some(hold) = entry.holds.first() {
                return Err(VaultError::HeldSubject {
                    subject: whose.name.clone(),
                    since: hold.since.clone(),
                    reason: hold.reason.clone(),
                });
            }
            let key_ids = entry.keys.key_ids();
            let id = entry.keys.id.clone();
            let erased = Erased { subject: whose.clone(), key_ids, objects: 0, bytes: 0 };
            let record = Record::tombstone(&erased, &id, self.0.clock.now());
            table.known.remove(whose);
            table.by_id.remove(&id);
            table.erased.insert(id);
            let ticket = Ticket::default();
            self.write_text(record.path(&self.subjects()), record.text(), &ticket);
            (record, ticket)
        };
        self.0.queue.hurry();
        ticket.durable().await?;
        self.finish_erasing(record).await
    }

    /// Removes the objects of a subject whose keys are gone.
    async fn finish_erasing(&self, mut record: Record) -> Result<Erased, VaultError> {
        self.flushed().await?;
        let id = SubjectId::read(&record.id).expect("the record was read or made under its id");
        let mine = id.bytes();
        let removed = self.without(move |head| head.subject != mine).await?;
        let tombstone = record.erased.as_mut().expect("only erased records come here");
        tombstone.scrubbed = true;
        let erased = tombstone.to_record.as_mut().expect("nothing is marked as recorded before it is scrubbed");
        erased.objects += removed.objects;
        erased.bytes += removed.bytes;
        let erased = erased.clone();
        let path = record.path(&self.subjects());
        packs::replace(&path, &record.text()).map_err(VaultError::disk("write", &path))?;
        Ok(erased)
    }

    /// Writes every pack again without what `keep` does not want.
    async fn without(&self, keep: impl Fn(&Head) -> bool + Send + 'static) -> Result<packs::Removed, VaultError> {
        let vault = self.clone();
        blocking(move || {
            let open = vault.0.queue.pack.load(Ordering::Acquire);
            let mut all = packs::Removed::default();
            for path in packs::files(&vault.objects(), "pack")? {
                // The pack that is being written holds nothing from before the roll.
                if packs::number(&path).is_some_and(|number| number > open) {
                    continue;
                }
                let _packs = vault.0.packs.write();
                let removed = packs::rewrite(&path, &keep)?;
                all.objects += removed.objects;
                all.bytes += removed.bytes;
            }
            vault.0.recent.lock().clear();
            Ok(all)
        })
        .await
    }

    /// Erasures that are not recorded yet.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn unrecorded(&self) -> Result<Vec<Erased>, VaultError> {
        let mut all = Vec::new();
        for path in packs::files(&self.subjects(), "json")? {
            let text = fs::read(&path).map_err(VaultError::disk("read", &path))?;
            let record: Option<Record> = serde_json::from_slice(&text).ok();
            all.extend(record.and_then(|record| record.erased).and_then(|tombstone| tombstone.to_record));
        }
        Ok(all)
    }

    /// Notes that an erasure is recorded; the subject's name is in the vault no more.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn recorded(&self, erased: &Erased) -> Result<(), VaultError> {
        let Some(id) = erased.key_ids.first() else { return Ok(()) };
        let path = self.subjects().join(format!("{id}.json"));
        let text = fs::read(&path).map_err(VaultError::disk("read", &path))?;
        let record: Result<Record, _> = serde_json::from_slice(&text);
        let mut record =
            record.map_err(|_| VaultError::Damaged { path: path.clone(), what: "it is no record".to_owned() })?;
        if let Some(tombstone) = record.erased.as_mut() {
            tombstone.to_record = None;
        }
        packs::replace(&path, &record.text()).map_err(VaultError::disk("write", &path))
    }

    /// Puts a subject under legal hold: it cannot be erased, and its objects outlive their retention.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn hold(&self, whose: &Subject, by: &str, reason: &str) -> Result<Hold, VaultError> {
        let hold = Hold { by: by.to_owned(), reason: reason.to_owned(), since: self.0.clock.now().to_string() };
        let (_, ticket) = {
            let mut table = self.0.table.lock();
            let keys = table.keys(whose, self.period(), &self.0.entropy);
            table.known.get_mut(whose).expect("it has keys now").holds.push(hold.clone());
            (keys, self.write_record(&table, whose))
        };
        self.0.queue.hurry();
        ticket.durable().await?;
        Ok(hold)
    }

    /// Ends every hold of a subject; how many there were.
    ///
    /// # Errors
    /// There is none, or the disk refuses.
    pub async fn release(&self, whose: &Subject) -> Result<usize, VaultError> {
        let (count, ticket) = {
            let mut table = self.0.table.lock();
            let entry = table.known.get_mut(whose).ok_or_else(|| no_subject(whose))?;
            let count = std::mem::take(&mut entry.holds).len();
            if count == 0 {
                return Err(VaultError::NotHeld { subject: whose.name.clone() });
            }
            (count, self.write_record(&table, whose))
        };
        self.0.queue.hurry();
        ticket.durable().await?;
        Ok(count)
    }

    /// Every subject under hold.
    #[must_use]
    pub fn held(&self) -> Vec<(Subject, Vec<Hold>)> {
        let table = self.0.table.lock();
        let held = table.known.iter().filter(|(_, entry)| !entry.holds.is_empty());
        let mut held: Vec<_> = held.map(|(subject, entry)| (subject.clone(), entry.holds.clone())).collect();
        held.sort_by(|a, b| a.0.cmp(&b.0));
        held
    }

    /// Takes another master key, wrapped by `kek`, and encrypts every subject's keys under it; no object is touched, and
    /// payloads go on being taken meanwhile. How many subjects there were.
    ///
    /// # Errors
    /// The key-encryption key or the disk refuses; then both master keys stay, and it can be done again.
    pub async fn rotate(&self, kek: Option<Arc<dyn KeyEncryption>>) -> Result<usize, VaultError> {
        let _chore = self.0.chores.lock().await;
        let kek = kek.unwrap_or_else(|| self.0.kek.read().clone());
        let path = self.0.options.folder.join("master.json");
        let mut masters = self.0.masters.read().copy();
        masters.add(&self.0.entropy);
        masters.save(&path, &kek).await?;
        *self.0.masters.write() = masters;
        *self.0.kek.write() = kek.clone();
        let all: Vec<Subject> = self.0.table.lock().known.keys().cloned().collect();
        let mut tickets = Vec::new();
        for subject in &all {
            let table = self.0.table.lock();
            tickets.push((subject.clone(), self.write_record(&table, subject)));
        }
        self.0.queue.hurry();
        for (subject, ticket) in tickets {
            let written = ticket.durable().await;
            // One that was erased meanwhile needs no keys.
            if self.0.table.lock().known.contains_key(&subject) {
                written?;
            }
        }
        let mut masters = self.0.masters.read().copy();
        masters.keep_current();
        masters.save(&path, &kek).await?;
        *self.0.masters.write() = masters;
        Ok(all.len())
    }

    /// Removes objects whose time is over, but for those of subjects under hold. How many.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn expire(&self) -> Result<u64, VaultError> {
        let _chore = self.0.chores.lock().await;
        let retention = self.0.options.retention.as_micros() as u64;
        let before = self.0.clock.now().as_micros().saturating_sub(retention);
        self.flushed().await?;
        let held: Vec<[u8; 8]> = {
            let table = self.0.table.lock();
            table.known.values().filter(|entry| !entry.holds.is_empty()).map(|entry| entry.keys.id.bytes()).collect()
        };
        let removed = self.without(move |head| head.put_us >= before || held.contains(&head.subject)).await?;
        Ok(removed.objects)
    }

    /// Removes objects from before `before` to which no event refers, as `is_referenced` says of a digest's bytes: a crash
    /// came between the object and its event. How many.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn collect(
        &self,
        before: Timestamp,
        is_referenced: impl Fn(&[u8; 32]) -> bool + Send + 'static,
    ) -> Result<u64, VaultError> {
        let _chore = self.0.chores.lock().await;
        self.flushed().await?;
        let before = before.as_micros();
        let removed = self.without(move |head| head.put_us >= before || is_referenced(&head.digest)).await?;
        Ok(removed.objects)
    }

    /// What the vault counts.
    #[must_use]
    pub fn stats(&self) -> VaultStats {
        let queue = &self.0.queue;
        VaultStats {
            subjects: self.0.table.lock().known.len() as u64,
            objects: queue.written.load(Ordering::Relaxed),
            bytes: queue.written_bytes.load(Ordering::Relaxed),
            failed: queue.failed.load(Ordering::Relaxed),
            not_kept: self.0.not_kept.load(Ordering::Relaxed),
            waiting_bytes: queue.waiting_bytes() as u64,
            failing: queue.failing.load(Ordering::Acquire),
        }
    }

    /// Why the last write failed, where it did.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.0.queue.failing.load(Ordering::Acquire).then(|| self.0.queue.reason.lock().clone())
    }

    /// Writes what is left and ends.
    pub async fn close(&self) {
        self.0.queue.end();
        let writer = self.0.writer.lock().take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.end();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(VaultError::NotWritten { reason: error.to_string() }),
    }
}

fn no_subject(whose: &Subject) -> VaultError {
    let of_tenant = whose.tenant.as_ref().map(|tenant| format!(" of tenant {tenant:?}")).unwrap_or_default();
    VaultError::NoSubject { subject: whose.name.clone(), of_tenant }
}

/// The payload in a frame.
fn opened(path: &Path, keys: &Keys, digest: &str, head: &Head, frame: &[u8]) -> Result<Vec<u8>, VaultError> {
    let damaged = |what: &str| VaultError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let key = keys.data.get(&head.period).ok_or_else(|| damaged("the data key of an object is missing"))?;
    let plain = key.open(&head.bytes(), pack::sealed(frame)).ok_or_else(|| damaged("an object does not open"))?;
    if keys.digest.digest(&plain) != digest {
        return Err(damaged("an object is not what its digest says"));
    }
    Ok(plain)
}

/// The pack that a location names: `vault:<subject id>/<pack>`.
fn pack_of(location: &str) -> Option<u64> {
    u64::from_str_radix(location.strip_prefix("vault:")?.split_once('/')?.1, 16).ok()
}

/// The subject and the bytes of a digest.
fn parts(digest: &str) -> Option<(SubjectId, [u8; 32])> {
    let (id, hex_text) = digest.strip_prefix("hmac-sha256:")?.split_once(':')?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(hex_text, &mut bytes).ok()?;
    Some((SubjectId::read(id)?, bytes))
}

fn shown(given: &str) -> String {
    given.chars().take(80).collect()
}
