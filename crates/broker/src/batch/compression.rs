//! The four codecs of Kafka, each with a limit on what comes out. Called by the batch decoder, and by who packs again: compaction, and
//! topics that say how their batches are packed.
//!
//! Snappy comes in two wrappings: raw blocks, and the framing of xerial's Java library (magic `\x82SNAPPY\0`, two
//! versions, then blocks of a four-byte length and a raw block each), which the Java client writes.

use std::io::{Read, Write};

use bytes::Bytes;

use super::BatchError;

const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// Bytes of one block, as the library makes them.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Whether packed bytes are Snappy in xerial's framing.
pub(super) fn is_xerial(codec: Compression, packed: &[u8]) -> bool {
    codec == Compression::Snappy && packed.starts_with(XERIAL_MAGIC)
}

/// How the records of a batch are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, raw or in xerial's framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    /// The codec in the lowest three attribute bits.
    pub fn from_attributes(attributes: i16) -> Result<Self, BatchError> {
        match attributes & super::CODEC_BITS {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            _ => Err(BatchError::Header { what: "compression codec" }),
        }
    }

    /// Those bits.
    pub(super) const fn attributes(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Its name in Kafka's configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Unpacks `data`; an error once more than `limit` bytes come out.
    pub(crate) fn unpack(self, data: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
        match self {
            Self::None => Ok(data.to_vec()),
            Self::Gzip => self.read_all(flate2::read::MultiGzDecoder::new(data), limit),
            Self::Snappy if data.starts_with(XERIAL_MAGIC) => self.unpack_xerial(data, limit),
            Self::Snappy => {
                let mut out = Vec::new();
                self.unpack_block(data, limit, &mut out)?;
                Ok(out)
            }
            Self::Lz4 => self.read_all(lz4_flex::frame::FrameDecoder::new(data), limit),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(data).map_err(|e| self.failed(&e))?;
                self.read_all(decoder, limit)
            }
        }
    }

    /// Packs `data`; Snappy in xerial's framing where `xerial` says so, which only some clients read without. A level is for
    /// Gzip and Zstandard, as their libraries count them; without one it is their own.
    pub(super) fn pack(self, data: Bytes, xerial: bool, level: Option<i32>) -> Result<Bytes, BatchError> {
        let packed = match self {
            Self::None => return Ok(data),
            Self::Gzip => {
                let level = level.and_then(|level| u32::try_from(level).ok()).map(flate2::Compression::new);
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level.unwrap_or_default());
                encoder.write_all(&data).and_then(|()| encoder.finish()).map_err(|e| self.failed(&e))?
            }
            Self::Snappy if xerial => {
                let mut out = XERIAL_MAGIC.to_vec();
                // Its version, and the oldest that reads it.
                out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
                for block in data.chunks(XERIAL_BLOCK_BYTES) {
                    let block = snap::raw::Encoder::new().compress_vec(block).map_err(|e| self.failed(&e))?;
                    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                    out.extend_from_slice(&block);
                }
                out
            }
            Self::Snappy => snap::raw::Encoder::new().compress_vec(&data).map_err(|e| self.failed(&e))?,
            Self::Lz4 => {
                // What Java's reader takes: independent blocks of 64 KiB.
                let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(&data).map_err(|e| self.failed(&e))?;
                encoder.finish().map_err(|e| self.failed(&e))?
            }
            Self::Zstd => zstd::bulk::compress(&data, level.unwrap_or(0)).map_err(|e| self.failed(&e))?,
        };
        Ok(packed.into())
    }

    fn read_all(self, from: impl Read, limit: usize) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::new();
        from.take(limit as u64 + 1).read_to_end(&mut out).map_err(|e| self.failed(&e))?;
        if out.len() > limit { Err(BatchError::TooLarge { limit }) } else { Ok(out) }
    }

    fn unpack_xerial(self, data: &[u8], limit: usize) -> Result<Vec<u8>, BatchError> {
        let mut rest = data.get(XERIAL_HEADER_BYTES..).ok_or_else(|| self.failed(&"header is cut short"))?;
        let mut out = Vec::new();
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(|| self.failed(&"block is cut short"))?;
            let length = u32::from_be_bytes(*length) as usize;
            let block = tail.get(..length).ok_or_else(|| self.failed(&"block is cut short"))?;
            self.unpack_block(block, limit, &mut out)?;
            rest = &tail[length..];
        }
        Ok(out)
    }

    /// One raw Snappy block. Its own length field is believed only below the limit and what its input could make
    /// (a Snappy copy element makes at most 64 bytes of 2).
    fn unpack_block(self, block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
        let length = snap::raw::decompress_len(block).map_err(|e| self.failed(&e))?;
        let start = out.len();
        if start.saturating_add(length) > limit {
            return Err(BatchError::TooLarge { limit });
        }
        if length > block.len().saturating_mul(64) {
            return Err(self.failed(&"it promises more than its bytes can hold"));
        }
        out.resize(start + length, 0);
        snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|e| self.failed(&e))?;
        Ok(())
    }

    fn failed(self, reason: &dyn std::fmt::Display) -> BatchError {
        BatchError::Compressed { codec: self.name(), reason: reason.to_string() }
    }
}
