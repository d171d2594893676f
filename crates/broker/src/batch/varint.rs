//! Zigzag varints as Kafka's records use them (Protocol Buffers' sint32 and sint64). Called by the batch codec.

use bytes::{BufMut, BytesMut};

/// Appends `value`.
pub(super) fn put(into: &mut BytesMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        into.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.put_u8(rest as u8);
}

/// Takes one varint from the front of `from`; `None` where it is cut short or longer than ten bytes.
pub(super) fn take(from: &mut &[u8]) -> Option<i64> {
    let mut raw: u64 = 0;
    for at in 0..10 {
        let byte = *from.get(at)?;
        raw |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            *from = &from[at + 1..];
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}
