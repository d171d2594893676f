//! Bytes of one object: a range of the write-ahead log, sorted by stream. Written by `upload`, read by `fetch`.
//! Decoding trusts nothing: every length is checked against what is there, every chunk against its checksum.
//!
//! | at | bytes | an object, little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | magic and format version `COBJ0001` |
//! | 8 | | sections: one stream's batches after another's, streams in order, offsets rising; a stream may have several |
//! | | | parts: the footer index, one for each section, in the same order |
//! | end-40 | 16 | log id |
//! | end-24 | 8 | where the parts begin |
//! | end-16 | 4 | number of parts |
//! | end-12 | 4 | CRC32C over the parts and bytes end-40 to end-12 |
//! | end-8 | 8 | `COBJ0001` |
//!
//! | what | fields |
//! | --- | --- |
//! | batch in a section | base offset 8, records 4, max timestamp 8, length 4, bytes |
//! | part | topic 16, partition 4, number of chunks 4, chunks, CRC32C over the part before it 4 |
//! | chunk: whole batches | base offset 8, place in the object 8, length 4, max timestamp 8, CRC32C over its bytes 4 |
//!
//! An object is named `data/<epoch>/<number>`, eight and sixteen hexadecimal digits. Readers find their part through the
//! index; the trailer lets an object be understood without one.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use uuid::Uuid;

use crate::{Offset, StreamId, fields::Fields, step_aside};

const MAGIC: [u8; 8] = *b"COBJ0001";
const TRAILER_BYTES: usize = 40;
/// Bytes of a chunk in a part.
const CHUNK_BYTES: usize = 32;
/// Bytes of a part besides its chunks.
const PART_BYTES: usize = 28;
/// A chunk is closed once it has this many bytes: what a reader of one record fetches at least.
const CHUNK_BYTES_MIN: usize = 64 << 10;

/// The folder of all objects.
pub(crate) const FOLDER: &str = "data/";

/// Which object. The epoch says who wrote it, so that nobody else ever writes the name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ObjectId {
    pub(crate) epoch: u32,
    pub(crate) number: u64,
}

impl ObjectId {
    pub(crate) fn name(self) -> String {
        format!("{FOLDER}{:08x}/{:016x}", self.epoch, self.number)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (epoch, number) = name.strip_prefix(FOLDER)?.split_once('/')?;
        let id = Self { epoch: u32::from_str_radix(epoch, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? };
        (id.name() == name).then_some(id)
    }
}

/// Some whole batches of one stream, and how to find and check them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    pub(crate) base: Offset,
    pub(crate) at: u64,
    pub(crate) length: u32,
    pub(crate) max_timestamp: i64,
    crc: u32,
}

/// One batch in a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) base: Offset,
    pub(crate) records: u32,
    pub(crate) max_timestamp: i64,
    pub(crate) bytes: Bytes,
}

impl Stored {
    pub(crate) fn next(&self) -> Offset {
        Offset::new(self.base.get() + u64::from(self.records))
    }
}

/// Where a stream's part lies in the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PartPlace {
    pub(crate) at: u64,
    pub(crate) bytes: u32,
}

#[derive(Debug, Default)]
struct Section {
    bytes: Vec<u8>,
    /// Starts and first offsets of chunks, with the greatest timestamp so far.
    chunks: Vec<(usize, Offset, i64)>,
}

/// A stream's section; it may have several, of rising offsets.
pub(crate) type SectionId = (StreamId, u32);

/// Gathers batches and makes an object of them.
#[derive(Debug, Default)]
pub(crate) struct ObjectBuilder {
    sections: BTreeMap<SectionId, Section>,
}

impl ObjectBuilder {
    pub(crate) fn push(&mut self, section: SectionId, base: Offset, records: u32, max_timestamp: i64, batch: &[u8]) {
        let section = self.sections.entry(section).or_default();
        let full = section.chunks.last().is_none_or(|(at, ..)| section.bytes.len() - at >= CHUNK_BYTES_MIN);
        if full {
            step_aside();
            section.chunks.push((section.bytes.len(), base, max_timestamp));
        }
        let last = section.chunks.last_mut().expect("one was just made");
        last.2 = last.2.max(max_timestamp);
        section.bytes.put_u64_le(base.get());
        section.bytes.put_u32_le(records);
        section.bytes.put_i64_le(max_timestamp);
        section.bytes.put_u32_le(u32::try_from(batch.len()).expect("a batch is below 4 GiB"));
        section.bytes.put_slice(batch);
    }

    /// Forgets a stream that was deleted meanwhile.
    pub(crate) fn forget(&mut self, stream: StreamId) {
        self.sections.retain(|(of, _), _| *of != stream);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// The object, and where the part of each section lies.
    pub(crate) fn finish(self, log: Uuid) -> (Bytes, BTreeMap<SectionId, PartPlace>) {
        let room: usize =
            self.sections.values().map(|s| s.bytes.len() + s.chunks.len() * CHUNK_BYTES + PART_BYTES).sum();
        let mut object = Vec::with_capacity(MAGIC.len() + room + TRAILER_BYTES);
        object.put_slice(&MAGIC);
        let mut parts: Vec<(SectionId, Vec<Chunk>)> = Vec::new();
        for (id, section) in self.sections {
            let ends = section.chunks.iter().skip(1).map(|(at, ..)| *at).chain([section.bytes.len()]);
            let mut chunks = Vec::with_capacity(section.chunks.len());
            for ((start, base, max_timestamp), end) in section.chunks.iter().zip(ends) {
                step_aside();
                let bytes = &section.bytes[*start..end];
                chunks.push(Chunk {
                    base: *base,
                    at: object.len() as u64,
                    length: u32::try_from(bytes.len())
                        .expect("a chunk is one batch or little more than its least size"),
                    max_timestamp: *max_timestamp,
                    crc: crc32c::crc32c(bytes),
                });
                object.put_slice(bytes);
            }
            parts.push((id, chunks));
        }
        let parts_at = object.len();
        let mut places = BTreeMap::new();
        for (id, chunks) in &parts {
            let at = object.len();
            put_part(&mut object, &id.0, chunks);
            let bytes = u32::try_from(object.len() - at).expect("a part is far below 4 GiB");
            places.insert(*id, PartPlace { at: at as u64, bytes });
        }
        object.put_slice(log.as_bytes());
        object.put_u64_le(parts_at as u64);
        object.put_u32_le(u32::try_from(parts.len()).expect("streams are far below 2^32"));
        let crc = crc32c::crc32c(&object[parts_at..]);
        object.put_u32_le(crc);
        object.put_slice(&MAGIC);
        (object.into(), places)
    }
}

fn put_part(into: &mut Vec<u8>, stream: &StreamId, chunks: &[Chunk]) {
    let start = into.len();
    into.put_slice(stream.topic.as_bytes());
    into.put_u32_le(stream.partition.get());
    into.put_u32_le(u32::try_from(chunks.len()).expect("an object has far fewer chunks"));
    for chunk in chunks {
        into.put_u64_le(chunk.base.get());
        into.put_u64_le(chunk.at);
        into.put_u32_le(chunk.length);
        into.put_i64_le(chunk.max_timestamp);
        into.put_u32_le(chunk.crc);
    }
    let crc = crc32c::crc32c(&into[start..]);
    into.put_u32_le(crc);
}

/// The chunks of a stream's part, or nothing if it is damaged or another's.
pub(crate) fn part(bytes: &[u8], stream: StreamId) -> Option<Vec<Chunk>> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if Fields(crc).u32()? != crc32c::crc32c(body) {
        return None;
    }
    let mut fields = Fields(body);
    if fields.stream()? != stream {
        return None;
    }
    let count = fields.count(CHUNK_BYTES)?;
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        let (base, at, length) = (fields.offset()?, fields.u64()?, fields.u32()?);
        at.checked_add(u64::from(length))?;
        chunks.push(Chunk { base, at, length, max_timestamp: fields.i64()?, crc: fields.u32()? });
    }
    let rising = chunks.windows(2).all(|two| two[0].base < two[1].base);
    (fields.0.is_empty() && rising).then_some(chunks)
}

/// The batches of a chunk, or nothing if it is damaged.
pub(crate) fn batches(chunk: &Chunk, bytes: &Bytes) -> Option<Vec<Stored>> {
    step_aside();
    if bytes.len() != chunk.length as usize || crc32c::crc32c(bytes) != chunk.crc {
        return None;
    }
    batches_unchecked(bytes)
}

/// The batches of a chunk whose checksum was looked at.
pub(crate) fn batches_unchecked(bytes: &Bytes) -> Option<Vec<Stored>> {
    let mut fields = Fields(bytes);
    let mut found = Vec::new();
    while !fields.0.is_empty() {
        let (base, records, max_timestamp) = (fields.offset()?, fields.u32()?, fields.i64()?);
        let _ = base.checked_add(u64::from(records))?;
        let length = usize::try_from(fields.u32()?).ok()?;
        let at = bytes.len() - fields.0.len();
        fields.take(length)?;
        found.push(Stored { base, records, max_timestamp, bytes: bytes.slice(at..at + length) });
    }
    Some(found)
}

/// The streams of a whole object, where their parts lie and their chunks; nothing if its footer is damaged or it is not of that log.
pub(crate) fn inspect(object: &[u8], log: Option<Uuid>) -> Option<Vec<(StreamId, PartPlace, Vec<Chunk>)>> {
    let trailer_at = object.len().checked_sub(TRAILER_BYTES)?;
    let mut trailer = Fields(&object[trailer_at..]);
    let (found, parts_at, count) = (trailer.uuid()?, usize::try_from(trailer.u64()?).ok()?, trailer.u32()?);
    let parts = object.get(parts_at..trailer_at)?;
    let crc = trailer.u32()?;
    let is_ours = log.is_none_or(|log| log == found);
    if !is_ours || trailer.0 != MAGIC || crc != crc32c::crc32c(&object[parts_at..object.len() - 12]) {
        return None;
    }
    if !object.starts_with(&MAGIC) {
        return None;
    }
    let mut fields = Fields(parts);
    let mut streams = Vec::new();
    for _ in 0..count {
        let start = fields.0;
        let at = (trailer_at - start.len()) as u64;
        let stream = fields.stream()?;
        let chunks = fields.count(CHUNK_BYTES)?;
        fields.take(chunks * CHUNK_BYTES + 4)?;
        let bytes = &start[..start.len() - fields.0.len()];
        let place = PartPlace { at, bytes: u32::try_from(bytes.len()).ok()? };
        streams.push((stream, place, part(bytes, stream)?));
    }
    fields.0.is_empty().then_some(streams)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{PartitionIndex, asked};

    fn stream(n: u32) -> StreamId {
        StreamId::new(Uuid::from_u128(7), PartitionIndex::new(n))
    }

    proptest! {
        #[test]
        fn an_object_gives_back_every_batch_and_no_flipped_bit_goes_unseen(
            lengths in proptest::collection::vec((0u32..3, 0usize..40_000), 1..40), flip in any::<usize>(),
        ) {
            let log = Uuid::from_u128(3);
            let mut builder = ObjectBuilder::default();
            let mut put = Vec::new();
            for (n, (which, length)) in lengths.iter().enumerate() {
                let bytes = vec![n as u8; *length];
                let (base, max) = (Offset::new(n as u64 * 10), n as i64 % 5);
                builder.push((stream(*which), 0), base, 10, max, &bytes);
                put.push((stream(*which), Stored { base, records: 10, max_timestamp: max, bytes: bytes.into() }));
            }
            put.sort_by_key(|(stream, _)| *stream);
            let (object, places) = builder.finish(log);
            let mut found = Vec::new();
            for ((stream, _), place) in &places {
                let bytes = object.slice(place.at as usize..place.at as usize + place.bytes as usize);
                let chunks = part(&bytes, *stream).unwrap();
                prop_assert!(part(&bytes, super::tests::stream(9)).is_none());
                for chunk in &chunks {
                    let bytes = object.slice(chunk.at as usize..chunk.at as usize + chunk.length as usize);
                    let batches = batches(chunk, &bytes).unwrap();
                    prop_assert_eq!(chunk.base, batches[0].base);
                    prop_assert_eq!(chunk.max_timestamp, batches.iter().map(|b| b.max_timestamp).max().unwrap());
                    found.extend(batches.into_iter().map(|batch| (*stream, batch)));
                    let mut damaged = bytes.to_vec();
                    let at = flip % damaged.len();
                    damaged[at] ^= 4;
                    prop_assert!(super::batches(chunk, &damaged.into()).is_none());
                }
            }
            prop_assert_eq!(found, put);
            prop_assert_eq!(inspect(&object, Some(log)).unwrap().len(), places.len());
            let mut damaged = object.to_vec();
            let parts_at = places.values().map(|place| place.at as usize).min().unwrap();
            let at = parts_at + flip % (damaged.len() - parts_at);
            damaged[at] ^= 4;
            prop_assert!(inspect(&damaged, Some(log)).is_none());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), crc in any::<bool>()) {
            let _ = inspect(&bytes, None);
            let mut bytes = bytes;
            if crc && bytes.len() >= 4 {
                // Past the checksum, so that the fields behind it are reached.
                let end = bytes.len() - 4;
                let crc = crc32c::crc32c(&bytes[..end]);
                bytes[end..].copy_from_slice(&crc.to_le_bytes());
            }
            let _ = part(&bytes, StreamId::new(Uuid::nil(), PartitionIndex::new(0)));
            let length = bytes.len() as u32;
            let crc = crc32c::crc32c(&bytes);
            let chunk = Chunk { base: Offset::new(0), at: 0, length, max_timestamp: 0, crc };
            let _ = batches(&chunk, &bytes.into());
        }
    }

    #[test]
    fn names_come_back_and_others_are_not_ours() {
        let id = ObjectId { epoch: 7, number: 0xabc };
        assert_eq!(id.name(), "data/00000007/0000000000000abc");
        assert_eq!(ObjectId::parse(&id.name()), Some(id));
        for other in ["data/7/abc", "data/00000007/0000000000000ABC", "index/00000007/0000000000000abc", "data/x/y"] {
            assert_eq!(ObjectId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_bytes_of_an_object_are_these() {
        let mut builder = ObjectBuilder::default();
        builder.push((stream(1), 0), Offset::new(5), 2, 9, b"ab");
        let (object, places) = builder.finish(Uuid::from_u128(1));
        let section = "05000000000000000200000009000000000000000200000061 62".replace(' ', "");
        assert_eq!(hex::encode(&object[..34]), format!("434f424a30303031{section}"));
        assert_eq!(places[&(stream(1), 0)], PartPlace { at: 34, bytes: 60 });
        assert_eq!(object.len(), 34 + 60 + TRAILER_BYTES);
    }

    #[test]
    fn who_makes_or_checks_an_object_steps_aside_at_each_chunk() {
        let chunks = 5;
        let mut builder = ObjectBuilder::default();
        let before = asked();
        for n in 0..chunks {
            builder.push((stream(1), 0), Offset::new(n), 1, 0, &[n as u8; CHUNK_BYTES_MIN]);
        }
        assert_eq!(asked() - before, chunks);
        let (object, _) = builder.finish(Uuid::from_u128(1));
        assert_eq!(asked() - before, 2 * chunks);
        for (_, _, chunks) in inspect(&object, None).expect("an object") {
            for chunk in chunks {
                let at = usize::try_from(chunk.at).expect("it fits");
                let batches = batches(&chunk, &object.slice(at..at + chunk.length as usize));
                assert_eq!(batches.expect("it is whole").len(), 1);
            }
        }
        assert_eq!(asked() - before, 3 * chunks);
    }
}
