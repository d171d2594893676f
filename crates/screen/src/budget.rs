//! How much work one screening may be: what is nested deeper or grows larger than this is masked whole, never passed over.

/// How deep encodings may lie within each other.
pub(crate) const NESTING_MAX: u32 = 5;
/// Decoded bytes for each byte of input, over all views together.
const DECODED_PER_BYTE_MAX: usize = 8;
/// Decoded bytes that a small input may use in any case.
const DECODED_BYTES_MIN: usize = 16 * 1024;

/// What is left of the work that one screening may be.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_left: usize,
}

impl Budget {
    pub(crate) const fn of(input: usize) -> Self {
        Self { bytes_left: input.saturating_mul(DECODED_PER_BYTE_MAX).saturating_add(DECODED_BYTES_MIN) }
    }

    /// Takes `bytes` from it; `false` where there is not enough.
    pub(crate) const fn take(&mut self, bytes: usize) -> bool {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                true
            }
            None => {
                self.bytes_left = 0;
                false
            }
        }
    }
}
