//! SHA-256 of many short messages at once, and how they are gathered for it.
//!
//! Records are short, and one after another each block waits for the one before. Where the processor has no instructions for
//! SHA-256 but wide registers, eight messages are hashed side by side, one in each lane; elsewhere `ring` hashes one after
//! another. Both are FIPS 180-4, and a test holds this one to `ring`. A mistake here could only make a good trail look bad: what is
//! compared was signed by somebody else's code. Memory is what is gathered.

use std::ops::Range;

use multiversion::multiversion;

use crate::record::{Hash, sha256};

/// Bytes of a block.
const BLOCK_BYTES: usize = 64;
/// Messages side by side.
const LANES: usize = 8;
/// Fewer messages than this are not worth filling lanes with.
const LANES_LEAST: usize = 3;

/// A word of each lane.
type Word = [u32; LANES];

#[rustfmt::skip]
const ROUNDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];
const BEGIN: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Messages that wait to be hashed, each padded to whole blocks as SHA-256 wants it.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// Of each message its first byte, and how many it has without the padding.
    places: Vec<(usize, usize)>,
    open: usize,
    hashes: Vec<Hash>,
}

impl Messages {
    /// Begins a message; what is put from here on belongs to it.
    pub(crate) fn begin(&mut self) {
        self.open = self.bytes.len();
    }

    /// Goes on with the message; where in [`Self::bytes`] the part lies.
    pub(crate) fn put(&mut self, part: &[u8]) -> Range<usize> {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(part);
        at..self.bytes.len()
    }

    /// Ends the message.
    pub(crate) fn end(&mut self) {
        let length = self.bytes.len() - self.open;
        self.places.push((self.open, length));
        self.bytes.push(0x80);
        let whole = (length + 9).next_multiple_of(BLOCK_BYTES);
        self.bytes.resize(self.open + whole - 8, 0);
        self.bytes.extend_from_slice(&(8 * length as u64).to_be_bytes());
    }

    /// A whole message.
    pub(crate) fn add(&mut self, message: &[u8]) {
        self.begin();
        self.put(message);
        self.end();
    }

    /// What was put, padding included.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets everything but the memory that it took.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }

    /// The hash of each message, in their order.
    pub(crate) fn hashes(&mut self) -> &[Hash] {
        self.hashes.clear();
        if are_lanes_faster() && self.places.len() >= LANES_LEAST {
            self.hashes.resize(self.places.len(), [0; 32]);
            side_by_side(&self.bytes, &self.places, &mut self.hashes);
        } else {
            self.hashes.extend(self.places.iter().map(|(at, length)| sha256(&self.bytes[*at..at + length])));
        }
        &self.hashes
    }
}

/// Whether this processor has wide registers and nothing better.
#[cfg(target_arch = "x86_64")]
fn are_lanes_faster() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && !std::arch::is_x86_feature_detected!("sha")
}

#[cfg(not(target_arch = "x86_64"))]
const fn are_lanes_faster() -> bool {
    false
}

/// Where a lane stands in its message.
#[derive(Clone, Copy)]
struct Lane {
    message: usize,
    at: usize,
    end: usize,
}

/// Hashes all messages: a lane that has ended one takes the next.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq", "x86_64+avx2"))]
fn side_by_side(bytes: &[u8], places: &[(usize, usize)], hashes: &mut [Hash]) {
    let mut waiting = places.iter().enumerate();
    let mut next = || {
        let (message, (at, length)) = waiting.next()?;
        Some(Lane { message, at: *at, end: at + (length + 9).next_multiple_of(BLOCK_BYTES) })
    };
    let mut lanes: [Option<Lane>; LANES] = [const { None }; LANES];
    lanes.iter_mut().for_each(|lane| *lane = next());
    let mut state = BEGIN.map(|word| [word; LANES]);
    while lanes.iter().any(Option::is_some) {
        let mut block = [[0; LANES]; 16];
        for (number, lane) in lanes.iter().enumerate() {
            let Some(Lane { at, .. }) = lane else { continue };
            let (words, _) = bytes[*at..at + BLOCK_BYTES].as_chunks::<4>();
            for (word, bytes) in block.iter_mut().zip(words) {
                word[number] = u32::from_be_bytes(*bytes);
            }
        }
        compress(&mut state, &mut block);
        for (number, place) in lanes.iter_mut().enumerate() {
            let Some(lane) = place else { continue };
            lane.at += BLOCK_BYTES;
            if lane.at == lane.end {
                let (words, _) = hashes[lane.message].as_chunks_mut::<4>();
                for ((out, word), begin) in words.iter_mut().zip(&mut state).zip(BEGIN) {
                    *out = word[number].to_be_bytes();
                    word[number] = begin;
                }
                *place = next();
            }
        }
    }
}

/// One block of each lane (FIPS 180-4, 6.2.2).
#[inline(always)]
fn compress(state: &mut [Word; 8], words: &mut [Word; 16]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (round, constant) in ROUNDS.into_iter().enumerate() {
        if round >= 16 {
            let (near, far) = (words[(round + 14) % 16], words[(round + 1) % 16]);
            let small = xor(xor(turned::<7>(far), turned::<18>(far)), shifted::<3>(far));
            let large = xor(xor(turned::<17>(near), turned::<19>(near)), shifted::<10>(near));
            words[round % 16] = add(add(words[round % 16], small), add(words[(round + 9) % 16], large));
        }
        let large = xor(xor(turned::<6>(e), turned::<11>(e)), turned::<25>(e));
        let choice = xor(g, and(e, xor(f, g)));
        let one = add(add(add(h, large), add(choice, [constant; LANES])), words[round % 16]);
        let large = xor(xor(turned::<2>(a), turned::<13>(a)), turned::<22>(a));
        let majority = xor(and(a, xor(b, c)), and(b, c));
        (h, g, f, e, d, c, b, a) = (g, f, e, add(d, one), c, b, a, add(one, add(large, majority)));
    }
    for (word, more) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = add(*word, more);
    }
}

#[inline(always)]
fn add(one: Word, other: Word) -> Word {
    std::array::from_fn(|lane| one[lane].wrapping_add(other[lane]))
}

#[inline(always)]
fn xor(one: Word, other: Word) -> Word {
    std::array::from_fn(|lane| one[lane] ^ other[lane])
}

#[inline(always)]
fn and(one: Word, other: Word) -> Word {
    std::array::from_fn(|lane| one[lane] & other[lane])
}

#[inline(always)]
fn turned<const BITS: u32>(word: Word) -> Word {
    std::array::from_fn(|lane| word[lane].rotate_right(BITS))
}

#[inline(always)]
fn shifted<const BITS: u32>(word: Word) -> Word {
    std::array::from_fn(|lane| word[lane] >> BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn many_at_once_are_hashed_as_one_by_one(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40)) {
            let mut gathered = Messages::default();
            // Memory that was used before changes nothing.
            gathered.add(b"before");
            gathered.hashes();
            gathered.clear();
            messages.iter().for_each(|message| gathered.add(message));
            let expected: Vec<_> = messages.iter().map(|message| sha256(message)).collect();
            prop_assert_eq!(gathered.hashes(), &expected[..]);
            // Whatever this processor is best at, the lanes are right.
            let mut hashes = vec![[0; 32]; messages.len()];
            side_by_side(&gathered.bytes, &gathered.places, &mut hashes);
            prop_assert_eq!(hashes, expected);
        }
    }

    #[test]
    fn every_length_around_a_block_is_padded_right() {
        let mut gathered = Messages::default();
        let messages: Vec<_> = (0..200).map(|length| vec![7_u8; length]).collect();
        messages.iter().for_each(|message| gathered.add(message));
        let mut hashes = vec![[0; 32]; messages.len()];
        side_by_side(&gathered.bytes, &gathered.places, &mut hashes);
        assert!(messages.iter().zip(hashes).all(|(message, hash)| sha256(message) == hash));
    }
}
