//! A batch packed as its topic says (`compression.type`), where its producer packed it otherwise. Called by Produce.
//!
//! Its records stay what they were, byte for byte, and so does its header but for codec, length and checksum. As with Kafka a batch
//! that comes with the topic's codec is kept as it is: levels are for what is packed anew.

use bytes::{Bytes, BytesMut};

use super::{
    ATTRIBUTES_AT, BatchError, BatchHeader, CODEC_BITS, CRC_AT, Compression, HEADER_BYTES, LENGTH_OVERHEAD_BYTES,
    decode::unpack,
};

/// How a topic wants its batches packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packing {
    pub(crate) codec: Compression,
    /// As the codec's library counts; none is its own.
    pub(crate) level: Option<i32>,
}

/// The batch as `packing` has it, or nothing where it is so already. Its bytes were checked.
pub(crate) fn repack(
    batch: &[u8],
    header: &BatchHeader,
    packing: Packing,
    unpacked_bytes_max: usize,
) -> Result<Option<BytesMut>, BatchError> {
    let Packing { codec, level } = packing;
    if header.compression()? == codec {
        return Ok(None);
    }
    let records = Bytes::from(unpack(batch, header, unpacked_bytes_max)?.into_owned());
    let packed = codec.pack(records, true, level)?;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + packed.len());
    out.extend_from_slice(&batch[..HEADER_BYTES]);
    out.extend_from_slice(&packed);
    let length = i32::try_from(out.len() - LENGTH_OVERHEAD_BYTES);
    let length = length.map_err(|_| BatchError::TooLarge { limit: unpacked_bytes_max })?;
    let attributes = (header.attributes & !CODEC_BITS) | codec.attributes();
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    let crc = crc32c::crc32c(&out[ATTRIBUTES_AT..]);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{BatchBuilder, check, decode};

    const LIMIT: usize = 1 << 20;
    const CODECS: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn packed(batch: &[u8], codec: Compression, level: Option<i32>) -> Option<BytesMut> {
        let header = BatchHeader::parse(batch).expect("a batch");
        repack(batch, &header, Packing { codec, level }, LIMIT).expect("it packs")
    }

    proptest! {
        #[test]
        fn what_is_packed_anew_holds_the_same_records_under_the_same_header(
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..40),
            came in 0usize..5, wanted in 0usize..5, is_marked in any::<bool>(),
        ) {
            let mut builder = BatchBuilder::new();
            if is_marked {
                builder = builder.producer(7, 2, 40);
            }
            values.iter().for_each(|value| builder.push(value.len() as i64, Some(b"k"), Some(value), &[]));
            let mut plain = builder.build().expect("records");
            if is_marked {
                plain[ATTRIBUTES_AT + 1] |= 0x10; // of a transaction
                let crc = crc32c::crc32c(&plain[ATTRIBUTES_AT..]);
                plain[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
            }
            let came = packed(&plain, CODECS[came], None).unwrap_or(plain);
            let before = BatchHeader::parse(&came).expect("a batch");
            let Some(now) = packed(&came, CODECS[wanted], None) else {
                prop_assert_eq!(before.compression().expect("a codec"), CODECS[wanted]);
                return Ok(());
            };
            let after = check(&now, true, LIMIT).expect("as good as one that came so").header;
            prop_assert_eq!(after.compression().expect("a codec"), CODECS[wanted]);
            prop_assert_eq!(decode(&now, LIMIT), decode(&came, LIMIT));
            let but_for_packing = |header: BatchHeader| BatchHeader { crc: 0, total_bytes: 0, attributes: 0, ..header };
            prop_assert_eq!(but_for_packing(after), but_for_packing(before));
            prop_assert_eq!(after.attributes & !CODEC_BITS, before.attributes & !CODEC_BITS);
        }
    }

    #[test]
    fn a_level_makes_a_difference_where_something_is_packed() {
        let mut builder = BatchBuilder::new();
        let text: Vec<u8> = (0..20_000_u32).flat_map(|n| (n * n % 1_009).to_string().into_bytes()).collect();
        builder.push(1, None, Some(&text), &[]);
        let plain = builder.build().expect("a record");
        let bytes = |codec, level| packed(&plain, codec, Some(level)).expect("packed").len();
        assert!(bytes(Compression::Gzip, 9) < bytes(Compression::Gzip, 1));
        assert!(bytes(Compression::Zstd, 19) < bytes(Compression::Zstd, -50));
        assert!(packed(&plain, Compression::None, None).is_none(), "nothing to be done");
    }
}
