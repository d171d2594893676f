//! Keys, and AES-256-GCM under them.
//!
//! A sealed text is `nonce (12) · ciphertext · tag (16)`. Nonces are drawn at random: a data key is of one subject and
//! one period, and takes far fewer texts than the 2³² at which chance becomes a risk.

use std::fmt;

use cairn_clock::Entropy;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
};

/// What sealing adds to a text.
pub const SEAL_BYTES: usize = NONCE_LEN + 16;

/// A key of 32 bytes. Nothing prints it, and it is overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From bytes of any length; nothing where they are not 32.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A new one.
    #[must_use]
    pub fn draw(entropy: &Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// The bytes, for whoever wraps the key.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Another key that follows from this one and a purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        struct Len;
        impl KeyType for Len {
            fn len(&self) -> usize {
                32
            }
        }
        let mut bytes = [0; 32];
        let prk = Salt::new(HKDF_SHA256, b"cairn vault").extract(&self.0);
        let info = [purpose.as_bytes()];
        let okm = prk.expand(&info, Len).expect("32 bytes are within what HKDF gives");
        okm.fill(&mut bytes).expect("the length is the one asked for");
        Self(bytes)
    }

    fn key(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0).expect("the key has 32 bytes"))
    }

    /// Seals `plain`, bound to `about`, which is not hidden.
    #[must_use]
    pub fn seal(&self, entropy: &Entropy, about: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut out = Vec::with_capacity(plain.len() + SEAL_BYTES);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let (_, text) = out.split_at_mut(NONCE_LEN);
        let tag = self
            .key()
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), text)
            .expect("a payload is far below the most that the cipher takes");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// What was sealed; nothing where key, text or `about` are not those.
    #[must_use]
    pub fn open(&self, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let mut text = text.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let len = self.key().open_in_place(nonce, Aad::from(about), &mut text).ok()?.len();
        text.truncate(len);
        Some(text)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // As far as safe code can promise it: the compiler may see nobody reading it afterwards, so it is looked at once more.
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_under_the_same_key_and_words_only() {
        let entropy = Entropy::seeded(1);
        let (key, other) = (Secret::draw(&entropy), Secret::draw(&entropy));
        let sealed = key.seal(&entropy, b"about", b"text");
        assert_eq!(sealed.len(), 4 + SEAL_BYTES);
        assert_eq!(key.open(b"about", &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(other.open(b"about", &sealed), None);
        assert_eq!(key.open(b"other", &sealed), None);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(key.open(b"about", &bad), None, "{at}");
        }
        assert_eq!(key.open(b"about", b"short"), None);
        assert_eq!(format!("{key:?}"), "Secret");
        assert_ne!(key.derive("a").bytes(), key.derive("b").bytes());
    }
}
