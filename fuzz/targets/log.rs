//! What the log reads back from its disk and its store: any bytes behind good checksums, and whole recoveries.
//!
//! The first byte says what the rest is. For a recovery the rest is frames: a length of two bytes, a body, and so on.
#![no_main]

use cairn_log::fuzzing::{body, index_file, part, recovery};
use libfuzzer_sys::fuzz_target;

const BODIES_MAX: usize = 16;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 5 {
        0 => body(rest),
        1 => index_file(&[b"CIDX0001", rest].concat()),
        2 => index_file(&[b"CHEA0001", rest].concat()),
        3 => part(rest),
        _ => {
            let Some((about, mut rest)) = rest.split_at_checked(4) else { return };
            let synced = u64::from(about[0]) << (about[1] % 8);
            let flip = (about[2] & 1 == 1).then_some(usize::from(about[3]) << (about[2] >> 4));
            let mut bodies = Vec::new();
            while let Some((length, tail)) = rest.split_at_checked(2).filter(|_| bodies.len() < BODIES_MAX) {
                let length = usize::from(u16::from_le_bytes([length[0], length[1]])).min(tail.len());
                let (body, tail) = tail.split_at(length);
                bodies.push(body);
                rest = tail;
            }
            recovery(&bodies, synced, flip);
        }
    }
});
